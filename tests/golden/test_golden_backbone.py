"""Backbone outputs equal those of the authors' code, for the same weights and frames.

Clips of one size: nothing is padded, so both modes of `batch_padding` are one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import fill, relative_error

from acar.config import BackboneConfig
from acar.models.slowfast import SlowFast, pathways

R50 = BackboneConfig()
R101 = BackboneConfig(depths=(3, 4, 23, 3), lateral_kernel=5, lateral_norm=False, slow_frames="stride")
STAGES = [f"{p}_res{i}" for p in ("slow", "fast") for i in (1, 2, 3, 4)] + [f"Tconv{i}" for i in (1, 2, 3, 4)]
TOLERANCE = 1e-4


def outputs(net: SlowFast, name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    shape = {"a": (1, 3, 32, 64, 80), "b": (2, 3, 32, 96, 64)}[name]
    frames = torch.from_numpy(np.random.RandomState(0).uniform(size=shape).astype(np.float32))
    stages: dict[str, torch.Tensor] = {}
    hooks = [
        net.get_submodule(s).register_forward_hook(
            lambda _m, _i, out, s=s: stages.__setitem__(s, out.clone())
        )
        for s in STAGES
    ]
    with torch.no_grad():
        slow, fast = net(*pathways(frames, net.config.alpha, net.config.slow_frames))
    for hook in hooks:
        hook.remove()
    return {"slow": slow, "fast": fast}, stages


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "config", "tame"),
    [("backbone_r50", R50, False), ("backbone_r50_tame", R50, True), ("backbone_r101", R101, False)],
)
def test_backbone_equals_released_code(shared: Path, file: str, config: BackboneConfig, tame: bool) -> None:
    golden = np.load(shared / "golden" / f"{file}.npz")
    statistics = json.loads((shared / "golden" / f"{file}_stages.json").read_text())
    net = SlowFast(config).eval()
    fill(net, tame=tame)
    for clip in ("a", "b"):
        features, stages = outputs(net, clip)
        for stage, value in stages.items():
            shape, mean, std, norm = statistics[clip][stage]
            assert list(value.shape) == shape, stage
            assert value.double().norm().item() == pytest.approx(norm, rel=TOLERANCE), stage
            assert value.double().mean().item() == pytest.approx(mean, rel=TOLERANCE, abs=TOLERANCE * std), (
                stage
            )
        for pathway, value in features.items():
            assert list(value.shape) == golden[f"{clip}_{pathway}_shape"].tolist()
            chosen = value.flatten()[torch.from_numpy(golden[f"{clip}_{pathway}_idx"])]
            error = relative_error(chosen, golden[f"{clip}_{pathway}_val"])
            print(f"{file} {clip} {pathway}: {error:.1e}")
            assert error <= TOLERANCE
