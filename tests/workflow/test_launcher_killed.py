"""A training of two processes whose launcher alone is killed: nothing of it lives on, and all it held is free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_gpus import fake_gpus, uuid
from tiny import TRAIN, prepare, tiny_config

from acar.errors import UserError
from acar.jobs.leases import Device, lease
from acar.jobs.owners import sole_owner
from acar.paths import Paths
from acar.workflow import write_config

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def status_of(pid: int) -> tuple[str, int]:
    """State and parent of a process; `gone` after its end, a zombie's too."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "gone", 0
    return ("gone" if state in "ZX" else state), int(parent)


def workers_of(launcher: int) -> list[int]:
    found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [pid for pid in found if status_of(pid)[1] == launcher and status_of(pid)[0] != "gone"]


def wait_for(what: Callable[[], object], limit_s: float) -> float:
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < limit_s, "waited in vain"
        time.sleep(0.01)
    return time.monotonic() - started


def test_workers_owner_and_leases_end_with_the_launcher(tmp_path):
    config = tiny_config(
        tmp_path / "results",
        run={"device": "auto"},  # leases the two GPUs, and then, as torch sees none, computes on the CPU
        stage1={**TRAIN, "iterations": 100_000, "milestones": [], "checkpoint_every": 1},
    )
    prepare(config)
    write_config(config)
    paths, folder = Paths.of(config), tmp_path / "leases"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    environ |= {
        "PATH": fake_gpus(tmp_path / "bin", 2),
        "ACAR_LEASES": str(folder),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "acar.cli", "train-stage1", "--config", str(paths.config)]
    owner = paths.owners / "train-stage1.lock"
    devices = [Device(str(number), uuid(number)) for number in range(2)]
    said = tmp_path / "said"
    with (
        said.open("w") as stream,
        subprocess.Popen(command, env=environ, cwd=tmp_path, stderr=stream) as launcher,
    ):
        try:
            checkpoint = paths.work("stage1") / "checkpoint.pt"
            wait_for(lambda: launcher.poll() is not None or checkpoint.exists(), 240)
            assert launcher.poll() is None, said.read_text()
            workers = workers_of(launcher.pid)
            assert len(workers) == 2
            assert {os.getsid(pid) for pid in workers}.isdisjoint({os.getsid(launcher.pid)})
            with pytest.raises(UserError, match=f"pid {launcher.pid} on .* is at work"), sole_owner(owner):
                raise AssertionError("two owners")
            with pytest.raises(UserError, match=f"held by process {launcher.pid} of"):  # noqa: SIM117
                with lease(1, devices=devices, folder=folder, wait=False):
                    raise AssertionError("a GPU of the training was leased")
        finally:
            launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    with lease(2, devices=devices, folder=folder, wait=False), sole_owner(owner):
        took = wait_for(lambda: all(status_of(pid)[0] == "gone" for pid in workers), 10)
    print(f"\nboth workers gone {took:.2f} s after their launcher; lease and owner lock free at once")
    assert said.read_text().count("no CUDA device, computing on the CPU") == 1
    assert said.read_text().count("8 GPUs are offered and 2 can be seen (0, 1): using 2") == 1
