"""A job of the lease storm: takes its GPUs as a stage does, holds them for a moment, and notes what it saw.

    lease_job.py NUMBER GPUS VICTIMS     in the storm's folder; VICTIMS: numbers of jobs to be killed, as 7,12

Imports nothing that `acar.jobs.leases` does not, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from acar.jobs.leases import job_lease


def main(number: int, gpus: int, victims: list[int]) -> None:
    attempt = next(k for k in range(1, 10) if made(Path(f"attempts/{number}.{k}"), ""))
    note: dict[str, object] = {"number": number, "attempt": attempt, "asked": gpus, "pid": os.getpid()}
    with job_lease(gpus, "auto") as n:
        note |= {"granted": n, "start": time.monotonic(), "locked": locked(), "seen": seen_by_a_child()}
        note["intruded"] = [device for device in note["seen"] if not occupied(device)]
        if number in victims and attempt == 1:
            publish(Path(f"victims/{number}.json"), note)
            time.sleep(120)
            raise SystemExit("nobody killed this job")
        hold(0.05 + 0.25 * (number * 7919 % 97) / 97)
        for device in note["seen"]:
            Path(f"busy/{device}").unlink(missing_ok=True)  # an intruder may have removed it
        note["end"] = time.monotonic()
    publish(Path(f"notes/{number}.json"), note)
    Path(f"done/{number}").touch()
    print(f"job {number} had {note['seen']}")


def hold(moment_s: float) -> None:
    """Until all devices were busy once, so that jobs meet on a slow machine too, or a second; then a moment."""
    give_up = time.monotonic() + 1.0
    while len(os.listdir("busy")) < 8 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(moment_s)


def locked() -> list[str]:
    """What this process holds locks on, as the kernel says, not the code under test."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except FileNotFoundError:  # the one that lists the folder
            continue
    return sorted(Path(link).stem for link in links if link.endswith(".lock"))


def seen_by_a_child() -> list[str]:
    answer = subprocess.run(
        ["/bin/sh", "-c", "echo $CUDA_VISIBLE_DEVICES"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip().split(",")


def occupied(device: str) -> bool:
    """Put a marker on a device; False if somebody else's is there, except one that was killed."""
    marker = Path(f"busy/{device}")
    if made(marker, str(os.getpid())):
        return True
    if not Path(f"killed/{marker.read_text()}").exists():
        return False
    marker.unlink()
    return made(marker, str(os.getpid()))


def made(file: Path, text: str) -> bool:
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True


def publish(file: Path, note: dict[str, object]) -> None:
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(note), encoding="utf-8")
    unfinished.rename(file)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(part) for part in sys.argv[3].split(",")])
