"""How many GPUs and processes a stage gets: what is granted (`--gpus`), what is there, and `run.device`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from fake_gpus import fake_gpus, uuid

from acar import cli
from acar.jobs.leases import VISIBLE
from acar.jobs.owners import LAUNCHER

SINGLE = {
    "detect": ("--split", "val", "--shard", "0"),
    "extract-bank": ("--split", "val", "--shard", "0"),
    "predict": ("--variant", "stage1", "--shard", "0"),
    "train-detector": (),
}


class Launched(Exception):
    """Stands for the program that `os.execve` would have turned into."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a machine of `n` GPUs and a config for it; torch sees none of them."""

    def make(n: int, device: str = "auto") -> Path:
        monkeypatch.setenv("PATH", fake_gpus(tmp_path / f"bin{n}", n))
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"run": {"results": str(tmp_path / "results"), "device": device}}))
        return path

    monkeypatch.setenv("ACAR_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # for it to be put back after the test
    monkeypatch.setenv(VISIBLE, "")
    monkeypatch.delenv(VISIBLE)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("acar.cli.join_owners", lambda: None)
    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was started with which GPUs: the stage in this process, or `torchrun` by `os.execve`."""
    noted: list[dict[str, Any]] = []

    def execve(program: str, command: list[str], environment: dict[str, str]) -> None:
        assert environment[LAUNCHER] == str(os.getpid())
        held = [os.get_inheritable(int(name)) for name in os.listdir("/proc/self/fd") if leases_open(name)]
        processes = int(command[command.index("--nproc-per-node") + 1])
        noted.append({"torchrun": processes, "gpus": environment.get(VISIBLE), "kept": held})
        assert "acar.training.torchrun" in command and command[0] == program
        raise Launched

    for stage in cli.STAGES:
        if stage.gpu:
            module = ModuleType(stage.module)
            module.run = lambda config, **ids: noted.append({"gpus": os.environ.get(VISIBLE)})
            monkeypatch.setitem(sys.modules, stage.module, module)
    monkeypatch.setattr(os, "execve", execve)
    return noted


def leases_open(descriptor: str) -> bool:
    try:
        return "/leases/GPU-" in os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # the one that listed the folder
        return False


def start(config: Path, verb: str, *arguments: str) -> int:
    try:
        return cli.main([verb, "--config", str(config), *arguments])
    except Launched:
        return 0


def numbers(n: int) -> str:
    return ",".join(map(str, range(n)))


@pytest.mark.parametrize("verb", ["train-stage1", "train-stage2"])
@pytest.mark.parametrize(("granted", "visible", "world"), [(8, 2, 2), (2, 8, 2), (8, 8, 8), (8, 3, 3)])
def test_the_world_is_the_smaller_of_granted_and_visible(
    machine, started, capsys, verb, granted, visible, world
):
    assert start(machine(visible), verb, "--gpus", str(granted)) == 0
    assert started == [{"torchrun": world, "gpus": numbers(world), "kept": [True] * world}]
    names = ", ".join(map(str, range(visible)))
    told = f"{granted} GPUs are offered and {visible} can be seen ({names}): using {world}\n"
    assert capsys.readouterr().err == (told if granted > visible else "")


@pytest.mark.parametrize(("granted", "visible", "gpus"), [(1, 4, "0"), (8, 0, None), (0, 4, ""), (8, 1, "0")])
def test_one_process_needs_no_torchrun(machine, started, granted, visible, gpus):
    assert start(machine(visible), "train-stage1", "--gpus", str(granted)) == 0
    assert started == [{"gpus": gpus}]


@pytest.mark.parametrize("visible", [2, 8])
def test_without_a_grant_a_training_takes_what_the_config_asks_for(machine, started, visible):
    """As without `--resources gpu=`: Snakemake passes run.train_gpus, 8, as it is."""
    assert start(machine(visible), "train-stage1") == 0
    assert started[0]["torchrun"] == visible


def test_a_schedulers_share_is_what_is_visible(machine, started, monkeypatch):
    config = machine(8)
    shares = {
        "5,2": "5,2",
        f"{uuid(3)},GPU-6": f"{uuid(3)},{uuid(6)}",
        f"7,{uuid(1)}": f"{uuid(7)},{uuid(1)}",
    }
    for share, gpus in shares.items():
        monkeypatch.setenv(VISIBLE, share)
        assert start(config, "train-stage1", "--gpus", "8") == 0
        assert started[-1]["torchrun"] == 2 and started[-1]["gpus"] == gpus


def test_fewer_processes_leave_the_other_gpus_alone(machine, started):
    assert start(machine(8), "train-stage1", "--processes", "2") == 0
    assert started == [{"torchrun": 2, "gpus": "0,1", "kept": [True, True]}]


@pytest.mark.parametrize("verb", SINGLE)
def test_a_stage_of_one_gpu_is_not_given_fewer_than_it_asks_for(machine, started, capsys, verb):
    config = machine(2)
    assert start(config, verb, *SINGLE[verb], "--gpus", "3") == 2
    assert capsys.readouterr().err == (
        f"acar {verb}: 3 GPUs were asked for and 2 can be seen (0, 1); ask for fewer (--gpus, --processes), or "
        "check CUDA_VISIBLE_DEVICES\n"
    )
    assert start(config, verb, *SINGLE[verb]) == 0
    assert started == [{"gpus": "0"}]


@pytest.mark.parametrize("verb", ["train-stage1", "detect"])
def test_cuda_without_a_grant_is_an_error(machine, started, capsys, verb):
    assert start(machine(2, device="cuda"), verb, *SINGLE.get(verb, ()), "--gpus", "0") == 2
    assert "run.device is `cuda` and no GPU was granted (--gpus 0" in capsys.readouterr().err
    assert not started
