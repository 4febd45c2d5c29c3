from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from fake_gpus import fake_gpus

from acar import cli
from acar.config import load_config
from acar.errors import UserError
from acar.jobs.leases import VISIBLE

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"run": {"results": str(tmp_path)}, "data": {"train": {"shards": 4}}}))
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Every stage module, and the launcher, replaced by one that notes how it was called."""
    noted: list[dict[str, Any]] = []

    def note(name: str) -> ModuleType:
        def run(config: Any, **ids: Any) -> None:
            noted.append({"module": name, "ids": ids, "gpus": os.environ.get(VISIBLE)})

        def launch(arguments: list[str], processes: int) -> int:
            noted.append({"launched": arguments, "processes": processes, "gpus": os.environ.get(VISIBLE)})
            return 0

        module = ModuleType(name)
        module.run, module.launch = run, launch
        return module

    for name in [stage.module for stage in cli.STAGES] + ["acar.training.launch"]:
        monkeypatch.setitem(sys.modules, name, note(name))
    monkeypatch.setenv("ACAR_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("PATH", fake_gpus(tmp_path / "bin", 8))
    monkeypatch.setenv(VISIBLE, "")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return noted


def commands(parser: argparse.ArgumentParser, *before: str) -> Iterator[tuple[str, ...]]:
    """Every verb of a parser, and the verbs of those that have some themselves."""
    yield before
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                yield from commands(below, *before, verb)


@pytest.mark.parametrize("command", list(commands(cli._parser())), ids=" ".join)
def test_every_verb_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([*command, "--help"])
    assert exited.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: acar", *command]))


def run(config: Path, verb: str, *arguments: str) -> int:
    return cli.main([verb, "--config", str(config), *arguments])


def test_every_stage_module_is_called_with_its_ids(calls, config):
    values = {"split": "train", "shard": "002", "variant": "stage2"}
    for stage in cli.STAGES:
        ids = {name: values[name] for name in stage.ids}
        if stage.verb == "predict":
            ids["shard"] = "000"
        flags = [part for name, value in ids.items() for part in (f"--{name}", value)]
        assert run(config, stage.verb, *flags) == 0
        expected = {name: int(value) if name == "shard" else value for name, value in ids.items()}
        assert calls[-1] == {"module": stage.module, "ids": expected, "gpus": ""}


def test_a_job_sees_the_devices_it_was_granted_only(calls, config, monkeypatch):
    monkeypatch.setenv(VISIBLE, "5,6,7")
    run(config, "extract-bank", "--split", "train", "--shard", "1", "--gpus", "1")
    assert calls[-1]["gpus"] == "5"
    run(config, "predict", "--variant", "stage1", "--shard", "0", "--gpus", "0")
    assert calls[-1]["gpus"] == ""


def test_training_takes_every_gpu_offered(calls, config, monkeypatch):
    monkeypatch.setenv(VISIBLE, "5,6,7")
    assert run(config, "train-stage2", "--gpus", "8") == 0
    assert calls[-1]["processes"] == 3 and calls[-1]["gpus"] == "5,6,7"
    assert calls[-1]["launched"][:2] == ["train-stage2", "--config"]
    monkeypatch.setenv(VISIBLE, "5,6,7")
    run(config, "train-stage1", "--gpus", "1")
    assert calls[-1] == {"module": "acar.stages.train_stage1", "ids": {}, "gpus": "5"}


def test_processes_on_the_cpu(calls, config):
    run(config, "train-stage1", "--processes", "2")
    assert calls[-1]["processes"] == 2


def test_a_process_of_torchrun_trains_and_leases_nothing(calls, config, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(VISIBLE, "5,6")
    run(config, "train-stage1", "--processes", "2")
    assert calls[-1] == {"module": "acar.stages.train_stage1", "ids": {}, "gpus": "5,6"}


@pytest.mark.parametrize(
    ("visible", "arguments", "told"),
    [
        ("", ["predict", "--variant", "stage1", "--shard", "1"], "data.val.shards is 1, so expected 0 to 0"),
        ("", ["ingest", "--split", "train", "--shard", "-1"], "expected 0 to 3"),
        ("3", ["detect", "--split", "val", "--shard", "0", "--gpus", "2"], "2 GPUs were asked for"),
        ("3", ["detect", "--split", "val", "--shard", "0", "--gpus", "-2"], "expected 0 or more"),
        ("3", ["train-stage1", "--processes", "2"], "2 GPUs were asked for and 1 can be seen (3)"),
        ("3,4", ["train-stage1", "--gpus", "1", "--processes", "2"], "expected 1 to 1, the number of leased"),
        ("", ["train-stage1", "--processes", "0"], "expected 1 or more"),
    ],
)
def test_mistakes_are_told_without_a_trace(calls, config, monkeypatch, capsys, visible, arguments, told):
    monkeypatch.setenv(VISIBLE, visible)
    assert run(config, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"acar {arguments[0]}: ") and told in error
    assert not calls


def test_a_stages_mistake_and_an_interrupt_set_the_status(calls, config, monkeypatch, capsys):
    def refuse(config: Any) -> None:
        raise UserError("labels.csv, row 3: a box outside the frame")

    def interrupt(config: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["acar.stages.report"], "run", refuse)
    assert run(config, "report") == 2
    assert capsys.readouterr().err == "acar report: labels.csv, row 3: a box outside the frame\n"
    monkeypatch.setattr(sys.modules["acar.stages.report"], "run", interrupt)
    assert run(config, "report") == 130


def test_an_absent_config_is_named(tmp_path, capsys):
    assert run(tmp_path / "no.yaml", "synthesize") == 2
    assert "no.yaml: no such config file" in capsys.readouterr().err


def test_show_config_merges_like_snakemake(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("stage1: {iterations: 7}\n")
    files = [REPOSITORY / "config.yaml", tmp_path / "mine.yaml"]
    assert cli.main(["show-config", "--config", *map(str, files)]) == 0
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
    shown, default = load_config(tmp_path / "shown.yaml"), load_config(files[0])
    assert shown.stage1 == default.stage1.model_copy(update={"iterations": 7})
    assert shown.stage2 == default.stage2
    assert cli.main(["show-config", "--config", str(tmp_path / "absent.yaml")]) == 2


def test_headline_of_a_run_without_results(config, capsys):
    assert run(config, "headline") == 0
    assert "nothing evaluated yet" in capsys.readouterr().out


def test_help_names_every_subcommand(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for verb in [stage.verb for stage in cli.STAGES] + ["inspect-bank", "show-config", "status", "headline"]:
        assert verb in shown
