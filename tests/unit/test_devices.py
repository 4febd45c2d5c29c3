"""`run.device` and what it gives."""

from __future__ import annotations

import pytest
import torch

from acar import cli, devices
from acar.errors import UserError


def test_without_cuda(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices._say_cpu_once.cache_clear()
    assert devices.resolve_device("cpu").type == "cpu"
    assert capsys.readouterr().err == ""
    assert devices.resolve_device("auto").type == "cpu"
    assert "computing on the CPU" in capsys.readouterr().err
    assert devices.resolve_device("auto").type == "cpu"
    assert capsys.readouterr().err == ""  # said once
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        devices.resolve_device("cuda")


def test_with_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.resolve_device("auto").type == "cuda"
    assert devices.resolve_device("cuda").type == "cuda"
    assert devices.resolve_device("cpu").type == "cpu"


def test_cuda_without_a_device_ends_the_command_with_status_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("run: {device: cuda}\n")
    assert cli.main(["train-stage1", "--config", "config.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "acar train-stage1: run.device: `cuda` was asked for and torch sees no CUDA device"
    )
    assert said.count("\n") == 1
