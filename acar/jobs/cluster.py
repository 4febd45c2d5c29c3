"""Submitting Snakemake's jobs with `sbatch`, for `profiles/cluster-generic`.

    python -m acar.jobs.cluster submit JOBSCRIPT   # prints the job's id
    python -m acar.jobs.cluster status JOBID       # prints running, success or failed

Partition, time, memory, threads and GPUs are asked for in the words of the slurm executor plugin (`profiles/slurm`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acar.errors import UserError

LOGS = Path(".snakemake/cluster_logs")
PROPERTIES = "# properties = "

# Slurm's words for a job that is over; every other state is one of waiting or running.
SUCCESS = "COMPLETED"
FAILURES = frozenset(
    ("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")
)  # fmt: skip


def job_properties(script: Path) -> dict[str, Any]:
    """What Snakemake writes into a job script about its job.

    Raises:
        UserError: the file is no job script of Snakemake's.
    """
    for line in script.read_text(encoding="utf-8").splitlines():
        if line.startswith(PROPERTIES):
            return dict(json.loads(line.removeprefix(PROPERTIES)))
    raise UserError(f"{script}: no line `{PROPERTIES}...`; expected a job script written by Snakemake")


def sbatch_command(job: Mapping[str, Any], script: Path, logs: Path = LOGS) -> list[str]:
    """The command that submits a job.

    Args:
        job: the job's properties; of `resources` it reads mem_mb (MiB), runtime (minutes), slurm_partition,
            slurm_account, nodes, and either gres or gpu and gpu_model.
        script: the job script.
        logs: folder of what the jobs print.
    """
    resources = job["resources"]
    name = "-".join([job["rule"], *map(str, job.get("wildcards", {}).values())])
    optional = {
        "partition": resources.get("slurm_partition"),
        "account": resources.get("slurm_account"),
        "nodes": resources.get("nodes"),
        **_gpu_options(resources),
    }
    return [
        "sbatch",
        "--parsable",
        "--no-requeue",  # Snakemake's `retries` submit it again; both at once would be two jobs on one artefact
        f"--job-name=acar-{name}",
        f"--output={logs / name}-%j.log",
        "--ntasks=1",
        f"--cpus-per-task={job['threads']}",
        f"--mem={resources['mem_mb']}",
        f"--time={resources['runtime']}",
        *(f"--{option}={value}" for option, value in optional.items() if value),
        str(script),
    ]


def _gpu_options(resources: Mapping[str, Any]) -> dict[str, str]:
    if "gres" in resources:
        return {"gres": resources["gres"]}
    if not resources.get("gpu"):
        return {}
    model = resources.get("gpu_model")
    return {"gpus": f"{model}:{resources['gpu']}" if model else str(resources["gpu"])}


def submit(script: Path) -> str:
    """Submit a job script; returns Slurm's id of the job.

    Raises:
        UserError: there is no `sbatch`, or it refuses the job; says why.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    code, said, complaint = _ask(sbatch_command(job_properties(script), script))
    if code != 0:
        raise UserError(f"{script}: sbatch refused it: {complaint.strip() or said.strip()}")
    return said.strip().splitlines()[-1].split(";")[0]  # `ID` or `ID;CLUSTER`, after any words of the site's


def status(job_id: str) -> str:
    """`running`, `success` or `failed`, of Snakemake's vocabulary.

    A job that neither accounting nor the controller knows has failed: Snakemake would wait for it forever.
    """
    state = _accounted_state(job_id) or _queued_state(job_id)
    word = state.split()[0].rstrip("+") if state else ""  # `CANCELLED by 1000`, `CANCELLED+`
    if word == SUCCESS:
        return "success"
    return "failed" if word in FAILURES or not word else "running"


def _accounted_state(job_id: str) -> str:
    if shutil.which("sacct") is None:
        return ""
    _, said, _ = _ask(["sacct", "-X", "--noheader", "--parsable2", "--format=State", "--jobs", job_id])
    return said.strip().partition("\n")[0]


def _queued_state(job_id: str) -> str:
    code, said, complaint = _ask(["squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job_id])
    if code != 0 and "Invalid job id" not in complaint:
        return "UNKNOWN"  # the controller does not answer: asked again later
    return said.strip().partition("\n")[0]


def _ask(command: Sequence[str]) -> tuple[int, str, str]:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: no such command here; start Snakemake where Slurm's are") from None
    return answer.returncode, answer.stdout, answer.stderr


def main(arguments: Sequence[str]) -> int:
    """Run `submit JOBSCRIPT` or `status JOBID`; returns the exit status."""
    verbs = {"submit": lambda script: submit(Path(script)), "status": status}
    if len(arguments) != 2 or arguments[0] not in verbs:
        print("usage: python -m acar.jobs.cluster submit JOBSCRIPT | status JOBID", file=sys.stderr)
        return 2
    try:
        print(verbs[arguments[0]](arguments[1]))
    except UserError as error:
        print(f"acar.jobs.cluster {arguments[0]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
