"""The loop: a broken training goes on where it was, and the number of processes changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny import prepare, tiny_config

from acar.config import parse_config
from acar.errors import UserError
from acar.paths import Paths
from acar.training import finite, loop
from acar.training.stage import train_stage
from acar.workflow import write_config


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("run") / "results")
    prepare(config)
    torch.set_num_threads(1)
    train_stage(config, 1)
    return config


def weights_of(config):
    return load_file(Paths.of(config).training(1) / "model.safetensors")


def log_of(config):
    lines = (Paths.of(config).training(1) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "clips_per_s"} for line in lines]


def copy_of(config, folder):
    """The same inputs under another results folder."""
    other = config.model_copy(update={"run": config.run.model_copy(update={"results": str(folder)})})
    folder.mkdir()
    for name in ("data", "ingest", "boxes"):
        (folder / name).symlink_to(Paths.of(config).root / name)
    return other


def test_writes_weights_and_metrics(prepared):
    facts = json.loads((Paths.of(prepared).training(1) / "facts.json").read_text())
    assert [entry["iteration"] for entry in log_of(prepared)] == [1, 2, 3, 4]
    assert facts["parameters"] == sum(v.numel() for v in weights_of(prepared).values())
    assert not Paths.of(prepared).work("stage1").exists()


def test_resumed_equals_unbroken(prepared, tmp_path, monkeypatch, capsys):
    config = copy_of(prepared, tmp_path / "results")
    real, calls = loop._iteration, []

    def dies_in_the_fourth(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_iteration", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train_stage(config, 1)
    assert not Paths.of(config).training(1).exists()
    calls.clear()
    monkeypatch.setattr(loop, "_iteration", lambda *a: calls.append(a[-1]) or real(*a))
    train_stage(config, 1)
    assert calls == [2, 3], "resumed from the checkpoint of iteration 2"
    assert "train stage1: going on at iteration 2 of 4" in capsys.readouterr().err
    for name, value in weights_of(prepared).items():
        assert torch.equal(value, weights_of(config)[name]), name
    assert log_of(config) == log_of(prepared)


def test_a_checkpoint_of_other_settings_is_not_resumed(prepared, tmp_path, monkeypatch, capsys):
    config = copy_of(prepared, tmp_path / "results")
    changed = config.model_copy(update={"stage1": config.stage1.model_copy(update={"base_lr": 0.01})})
    real = loop._iteration

    def dies_in_the_fourth(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_iteration", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train_stage(changed, 1)
    monkeypatch.setattr(loop, "_iteration", real)
    train_stage(config, 1)
    assert "starting anew" in capsys.readouterr().err
    assert all(torch.equal(v, weights_of(config)[k]) for k, v in weights_of(prepared).items())


def test_a_loss_that_is_not_finite_names_the_clip(prepared, tmp_path, monkeypatch):
    config = copy_of(prepared, tmp_path / "results")
    monkeypatch.setattr(finite, "action_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(UserError, match=r"the loss is not finite at clip train_\d+@\d+"):
        train_stage(config, 1)


def test_two_processes_give_the_same_weights(prepared, tmp_path):
    config = copy_of(prepared, tmp_path / "results")
    write_config(config)
    command = [sys.executable, "-m", "acar.cli", "train-stage1", "--config", str(Paths.of(config).config)]
    done = subprocess.run([*command, "--processes", "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((Paths.of(config).training(1) / "facts.json").read_text())
    assert facts["processes"] == 2
    one, two = weights_of(prepared), weights_of(config)
    apart = {name: float((two[name] - value).abs().max()) for name, value in one.items()}
    assert max(apart.values()) <= 1e-6, sorted(apart.items(), key=lambda item: -item[1])[:5]


def test_the_config_says_which_classes_are_exclusive(prepared, tmp_path):
    """Another softmax is another loss, from the first iteration on; the columns are noted."""
    found = {}
    for name, groups in {"two": {"pose": ["crouch", 1]}, "other": {"object": [5]}}.items():
        config = copy_of(prepared, tmp_path / name)
        values = config.model_dump()
        train_stage(parse_config({**values, "data": {**values["data"], "class_groups": groups}}), 1)
        found[name] = config
    found["of the label map"] = prepared
    noted = {
        name: json.loads((Paths.of(config).training(1) / "facts.json").read_text())["exclusive_columns"]
        for name, config in found.items()
    }
    assert noted == {"two": [0, 1], "other": [], "of the label map": [0, 1, 2]}
    assert len({log_of(config)[0]["loss"] for config in found.values()}) == 3
