"""The baseline head's outputs and gradients equal those of the authors' linear head (mode `released`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import relative_error

from acar.config import HeadConfig
from acar.models.relations.baseline import LinearHead


def test_linear_head_equals_released_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "head_linear.npz")
    keywords = json.loads(str(golden["kwargs"]))
    config = HeadConfig(relation="baseline", memory="none", roi_size=keywords["roi_spatial"])
    channels = golden["in/slow"].shape[1], golden["in/fast"].shape[1]
    head = LinearHead(config, channels, keywords["num_classes"])
    head.load_state_dict({"fc.weight": torch.from_numpy(golden["w/fc.weight"])})
    slow = torch.from_numpy(golden["in/slow"]).requires_grad_()
    fast = torch.from_numpy(golden["in/fast"]).requires_grad_()
    rois = torch.from_numpy(
        golden["in/rois"]
    )  # in 0..1 of the padded map, as `batch_padding: released` has them
    logits = head((slow, fast), rois[:, 1:], rois[:, 0].long())
    logits.pow(2).sum().backward()
    assert relative_error(logits, golden["out"]) <= 1e-4
    for key, value in {"slow": slow, "fast": fast, "fc.weight": head.fc.weight}.items():
        assert relative_error(value.grad, golden[f"grad/{key}"]) <= 1e-3, key
    norm = json.loads(str(golden["gradnorm"]))["fc.weight"]
    assert head.fc.weight.grad.double().norm().item() == pytest.approx(norm, rel=1e-3)
