"""The whole R50 network gives the logits of the authors' code for each clip alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import fill, relative_error

from acar.config import ModelConfig
from acar.models.net import build_network


@pytest.mark.slow
@pytest.mark.parametrize("tame", [False, True])
def test_network_equals_released_code(shared: Path, tame: bool) -> None:
    golden = np.load(shared / "golden" / f"full_model_r50{'_tame' if tame else ''}.npz")
    net = build_network(ModelConfig(), n_classes=60).eval()
    fill(net, tame=tame, parts=("backbone", "head"))
    draw = np.random.RandomState(0)
    shapes = [(3, 32, 64, 80), (3, 32, 64, 56)]
    clips = [torch.from_numpy(draw.uniform(size=shape).astype(np.float32)) for shape in shapes]
    boxes, clip_of_box = torch.from_numpy(golden["boxes"]).float(), golden["box_clip"]
    logits = []
    with torch.no_grad():
        for i, clip in enumerate(clips):
            mine = boxes[clip_of_box == i]
            logits.append(net(clip[None], mine, torch.zeros(len(mine), dtype=torch.int64)))
    error = relative_error(torch.cat(logits), golden["logits_batch1"])
    print(f"full_model_r50 tame={tame}: logits {error:.1e}")
    assert error <= 1e-4
