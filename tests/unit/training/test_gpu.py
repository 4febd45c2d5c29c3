"""A training on a CUDA device does what it does on the CPU."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny import prepare, tiny_config

from acar.paths import Paths
from acar.training.stage import train_stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_two_iterations_agree_with_the_cpu(tmp_path):
    short = {"iterations": 2, "milestones": [], "base_lr": 0.01}
    weights = []
    for device in ("cpu", "cuda"):
        config = tiny_config(tmp_path / device, run={"device": device}, stage1=short)
        prepare(config)
        train_stage(config, 1)
        weights.append(load_file(Paths.of(config).training(1) / "model.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
