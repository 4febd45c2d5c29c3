"""A cluster of this one machine: `sbatch` writes down how it was called and runs the job at once.

One program under the names of Slurm's commands. `FAKE_CLUSTER` names the folder of its records: `calls.jsonl`
(one argument vector of sbatch a line) and a folder of jobs.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

COMMANDS = ("sbatch", "sacct", "squeue", "scancel", "scontrol", "sinfo", "sacctmgr", "sshare", "srun")
SHORT = {"-D": "--chdir", "-t": "--time", "-p": "--partition", "-A": "--account", "-o": "--output"}
SWITCHES = {"--parsable", "--requeue", "--no-requeue", "--noheader", "-X", "-n", "-h", "--parsable2"}


def read_options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """A call's options by their long names, and what is none."""
    options: dict[str, str] = {}
    rest = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            rest.append(word)
        elif word in SWITCHES:
            options[word] = ""
        elif word.startswith("--") and "=" in word:
            name, _, options[name] = word.partition("=")
        else:
            options[SHORT.get(word, word)] = next(words, "")
    return options, rest


def install(folder: Path) -> Path:
    """Write the commands into `folder`/bin, to be put first on PATH; returns it."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in COMMANDS:
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {shlex.quote(__file__)} {name} "$@"\n')
        path.chmod(0o755)
    return programs


def sbatch(arguments: list[str], cluster: Path) -> None:
    options, script = read_options(arguments)
    job = _new_job(cluster)
    with open(cluster / "calls.jsonl", "a") as file:
        file.write(json.dumps({"id": job.name, "arguments": arguments}) + "\n")
    body = "#!/bin/sh\n" + options["--wrap"] if "--wrap" in options else Path(script[0]).read_text()
    (job / "script").write_text(body)
    (job / "name").write_text(options.get("--job-name", ""))
    log = Path(options["--output"].replace("%j", job.name))
    # As Slurm does it: the job sees its own id, and as many GPUs as it asked for (here none).
    environ = os.environ | {"SLURM_JOB_ID": job.name, "CUDA_VISIBLE_DEVICES": ""}
    program = f"sh {job}/script; echo $? > {job}/code.new; mv {job}/code.new {job}/code"
    with open(log, "w") as said:
        subprocess.Popen(
            ["sh", "-c", program], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environ,
            cwd=options.get("--chdir"), start_new_session=True,
        )  # fmt: skip
    print(job.name)


def _new_job(cluster: Path) -> Path:
    number = 1000
    while True:
        number += 1
        job = cluster / "jobs" / str(number)
        job.parent.mkdir(exist_ok=True)
        try:
            job.mkdir()
        except FileExistsError:
            continue
        return job


def _state(job: Path) -> str:
    if not (job / "code").exists():
        return "RUNNING"
    return "COMPLETED" if (job / "code").read_text().strip() == "0" else "FAILED"


def _answer(options: dict[str, str], cluster: Path, separator: str, with_id: bool) -> None:
    for job in sorted((cluster / "jobs").glob("*")):
        named = options.get("--name") in (None, (job / "name").read_text())
        if named and options.get("--jobs") in (None, job.name):
            print((job.name + separator) * with_id + _state(job))


def sacct(arguments: list[str], cluster: Path) -> None:
    options, _ = read_options(arguments)
    if "--format" in options:  # else the executor asks for the user's account, and there is none
        _answer(options, cluster, "|", with_id="JobIdRaw" in options["--format"])


def squeue(arguments: list[str], cluster: Path) -> None:
    options, _ = read_options(arguments)
    _answer(options, cluster, "|", with_id="%i" in options["--format"])


def sinfo(arguments: list[str], cluster: Path) -> None:
    print("PARTITION\nbatch*\nother")


def srun(arguments: list[str], cluster: Path) -> None:
    """Runs the command after its own options; a step is no job, so nothing is written down."""
    start = next(index for index, word in enumerate(arguments) if not word.startswith("-"))
    os.execvp(arguments[start], arguments[start:])


def main(name: str, arguments: list[str]) -> None:
    known = {"sbatch": sbatch, "sacct": sacct, "squeue": squeue, "sinfo": sinfo, "srun": srun}
    if name in known:
        known[name](arguments, Path(os.environ["FAKE_CLUSTER"]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
