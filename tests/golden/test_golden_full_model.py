"""The whole R50 network gives the logits of the authors' code, for each clip alone and for a padded batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import fill, relative_error

from acar.config import ModelConfig
from acar.models.loss import action_loss
from acar.models.net import ActionNet, build_network

SHAPES = [(3, 32, 64, 80), (3, 32, 64, 56)]
SIZES = torch.tensor([shape[2:] for shape in SHAPES])


def network(tame: bool, batch_padding: str) -> ActionNet:
    net = build_network(ModelConfig(batch_padding=batch_padding), n_classes=60).eval()
    fill(net, tame=tame, parts=("backbone", "head"))
    return net


def clips() -> list[torch.Tensor]:
    draw = np.random.RandomState(0)
    return [torch.from_numpy(draw.uniform(size=shape).astype(np.float32)) for shape in SHAPES]


@pytest.mark.slow
@pytest.mark.parametrize("tame", [False, True])
def test_each_clip_alone_equals_released_code(shared: Path, tame: bool) -> None:
    """Without padding the two modes are one."""
    golden = np.load(shared / "golden" / f"full_model_r50{'_tame' if tame else ''}.npz")
    net = network(tame, "exact")
    boxes, clip_of_box = torch.from_numpy(golden["boxes"]).float(), golden["box_clip"]
    logits = []
    with torch.no_grad():
        for i, clip in enumerate(clips()):
            mine = boxes[clip_of_box == i]
            logits.append(net(clip[None], mine, torch.zeros(len(mine), dtype=torch.int64)))
    error = relative_error(torch.cat(logits), golden["logits_batch1"])
    print(f"full_model_r50 tame={tame}: logits {error:.1e}")
    assert error <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("tame", [False, True])
@pytest.mark.parametrize(("batch_padding", "key"), [("exact", "logits_batch1"), ("released", "logits")])
def test_padded_batch(shared: Path, tame: bool, batch_padding: str, key: str) -> None:
    """`released` gives the authors' logits of the zero-padded batch, `exact` those of each clip alone."""
    golden = np.load(shared / "golden" / f"full_model_r50{'_tame' if tame else ''}.npz")
    net = network(tame, batch_padding)
    frames = torch.zeros(2, 3, 32, 64, 80)
    for i, clip in enumerate(clips()):
        frames[i, :, :, : clip.shape[2], : clip.shape[3]] = clip
    boxes, clip_index = torch.from_numpy(golden["boxes"]).float(), torch.from_numpy(golden["box_clip"])
    with torch.no_grad():
        logits = net(frames, boxes, clip_index, sizes_px=SIZES)
    error = relative_error(logits, golden[key])
    other = relative_error(logits, golden["logits" if key == "logits_batch1" else "logits_batch1"])
    print(f"full_model_r50 tame={tame} {batch_padding}: {key} {error:.1e}, the other {other:.1e}")
    assert error <= 1e-4
    assert other > 1e-2  # the two are told apart


@pytest.mark.slow
def test_gradients_of_a_padded_batch(shared: Path) -> None:
    """Mode `released`: loss and the gradient of every parameter (tame: elsewhere those of the attention are 0)."""
    golden = np.load(shared / "golden" / "full_model_r50_tame.npz")
    net = network(True, "released")
    frames = torch.zeros(2, 3, 32, 64, 80)
    for i, clip in enumerate(clips()):
        frames[i, :, :, : clip.shape[2], : clip.shape[3]] = clip
    boxes, clip_index = torch.from_numpy(golden["boxes"]).float(), torch.from_numpy(golden["box_clip"])
    logits = net(frames, boxes, clip_index, sizes_px=SIZES)
    targets = torch.from_numpy(golden["targets"])
    loss = action_loss(logits, targets, torch.arange(13)) / len(logits)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-4)
    norms = {
        name.replace("backbone.", "backbone.module.", 1).replace("head.", "head.module.", 1): p.grad.norm()
        for name, p in net.named_parameters()
    }
    expected = json.loads(str(golden["grad_norms"]))
    assert norms.keys() == expected.keys()
    worst = max(abs(float(norms[name]) - norm) / norm for name, norm in expected.items())
    print(f"full_model_r50_tame released: worst gradient norm {worst:.1e}")
    assert worst <= 1e-3
