"""`run.device` and what it gives."""

from __future__ import annotations

import pytest
import torch

from acar import devices
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
