"""200 short jobs that Snakemake starts on 8 (faked) GPUs, some killed: no device is ever used twice at once."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from fake_gpus import fake_gpus, uuid

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
N_JOBS, N_GPUS = 200, 8
VICTIMS = (7, 12, 31, 58, 83, 107, 140, 163, 177, 195)  # of 1, 2 and 3 GPUs

SNAKEFILE = """
def gpus(wildcards):
    n = int(wildcards.n)
    return 3 if n % 20 == 7 else 2 if n % 5 == 2 else 1

rule all:
    input: expand("done/{{n}}", n=range({jobs}))

rule job:
    output: "done/{{n}}"
    log: "logs/{{n}}"
    resources: gpu=gpus
    shell: "{python} -S {program} {{wildcards.n}} {{resources.gpu}} {victims} 2>&1 | tee {{log:q}}"
"""


@dataclass
class Storm:
    """What happened.

    Attributes:
        folder: where.
        notes: of each job that ended and of each that was killed.
        freed_ms: for each kill, the time until its device could be leased again.
        wall_s: seconds from start to end.
    """

    folder: Path
    notes: list[dict] = field(default_factory=list)
    freed_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0


def run_storm(folder: Path, budget: int) -> Storm:
    storm = Storm(folder)
    for name in ("attempts", "busy", "victims", "killed", "notes", "done", "leases"):
        (folder / name).mkdir()
    text = SNAKEFILE.format(
        jobs=N_JOBS, python=sys.executable, program=Path(__file__).with_name("lease_job.py"),
        victims=",".join(map(str, VICTIMS)),
    )  # fmt: skip
    (folder / "Snakefile").write_text(text)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    environ |= {
        "PATH": fake_gpus(folder / "bin", N_GPUS),
        "PYTHONPATH": str(REPOSITORY),
        "ACAR_LEASES": str(folder / "leases"),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "16", "--resources", f"gpu={budget}"]
    command += ["--keep-going", "--retries", "2", "--scheduler", "greedy", "--quiet", "all"]
    over = threading.Event()
    killer = threading.Thread(target=kill_victims, args=(storm, over))
    started = time.monotonic()
    killer.start()
    try:
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=500)
    finally:
        over.set()
        killer.join()
    storm.wall_s = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-3000:]
    storm.notes += [json.loads(file.read_text()) for file in (folder / "notes").glob("*.json")]
    return storm


def kill_victims(storm: Storm, over: threading.Event) -> None:
    """Kill -9 each job that offers itself, with its shell and `tee`, and time until its lease is free."""
    seen: set[Path] = set()
    while not over.wait(0.01):
        for file in sorted(set((storm.folder / "victims").glob("*.json")) - seen):
            seen.add(file)
            note = json.loads(file.read_text())
            (storm.folder / "killed" / str(note["pid"])).touch()
            family = family_of(note["pid"])
            note["end"] = time.monotonic()
            for pid in family:
                os.kill(pid, signal.SIGKILL)
            for device in note["locked"]:
                wait_until_free(storm.folder / "leases" / f"{device}.lock", note["pid"])
            storm.freed_ms.append(1000 * (time.monotonic() - note["end"]))
            storm.notes.append(note)


def wait_until_free(lock: Path, owner: int) -> None:
    """Until the lock can be taken without waiting, or another job has it."""
    deadline = time.monotonic() + 30
    with lock.open() as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = re.match(r"\d+", lock.read_text())
                if holder and int(holder.group()) != owner:
                    return
    raise AssertionError(f"{lock} is held after its owner's death")


def family_of(pid: int) -> list[int]:
    """The shell that Snakemake started for a job, and all that it started, the job among it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    shell = parents[pid]
    family = [shell, *(child for child, parent in parents.items() if parent == shell)]
    assert pid in family and len(family) == 3, "a shell, the job and tee"
    return family


def overlaps(notes: list[dict]) -> list[tuple[str, int, int]]:
    """Pairs of jobs that held one device at the same time."""
    found = []
    for device in {device for note in notes for device in note["locked"]}:
        users = sorted((note for note in notes if device in note["locked"]), key=lambda note: note["start"])
        found += [
            (device, before["number"], after["number"])
            for before, after in pairwise(users)
            if after["start"] < before["end"]
        ]
    return found


def most_at_once(notes: list[dict]) -> tuple[int, int]:
    """The largest number of jobs, and of devices, in use at the same time."""
    events = [(note["start"], 1, len(note["locked"])) for note in notes]
    events += [(note["end"], -1, -len(note["locked"])) for note in notes]
    jobs = devices = most_jobs = most_devices = 0
    for _, job, n_devices in sorted(events):
        jobs, devices = jobs + job, devices + n_devices
        most_jobs, most_devices = max(most_jobs, jobs), max(most_devices, devices)
    return most_jobs, most_devices


@pytest.mark.parametrize("budget", [8, 16], ids=["as many as there are", "twice as many as there are"])
def test_no_device_is_used_twice_at_once(tmp_path, budget):
    """With a budget of 16 Snakemake starts more than fits, and the leases alone keep the jobs apart."""
    storm = run_storm(tmp_path, budget)
    notes = storm.notes
    ended = [note for note in notes if (note["number"], note["attempt"]) not in {(v, 1) for v in VICTIMS}]
    uses = Counter(device for note in notes for device in note["locked"])
    waited = sum("waiting for" in log.read_text() for log in (tmp_path / "logs").iterdir())
    most_jobs, most_devices = most_at_once(notes)
    print(
        f"\nbudget {budget}: {len(ended)} jobs on {len(uses)} devices, {len(notes)} leases of "
        f"{sum(uses.values())} devices, {len(overlaps(notes))} overlaps; {len(storm.freed_ms)} killed, leases free "
        f"after {median(storm.freed_ms):.1f} ms, {max(storm.freed_ms):.1f} at most; at most {most_jobs} jobs and "
        f"{most_devices} devices at once; {waited} jobs waited; {storm.wall_s:.1f} s"
    )
    assert sorted(note["number"] for note in ended) == list(range(N_JOBS))
    assert len(storm.freed_ms) == len(VICTIMS) and max(storm.freed_ms) < 5000  # a busy machine
    assert overlaps(notes) == []
    assert [note["number"] for note in notes if note["intruded"]] == []
    for note in notes:
        assert note["granted"] == note["asked"] == len(note["locked"]), note
        assert sorted(uuid(int(token)) for token in note["seen"]) == note["locked"], note
    assert set(uses) == {uuid(number) for number in range(N_GPUS)}
    assert 6 <= most_devices <= N_GPUS
    assert budget <= N_GPUS or waited > 0, "some had to wait for each other"
