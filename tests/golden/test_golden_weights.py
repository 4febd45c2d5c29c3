"""Imported checkpoints give the features that their own projects' code computes.

Single clips: nothing is padded, so both modes of `batch_padding` are one. The files are made from the names and
shapes of the published ones, with the recipe's values under those names.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe import draw, relative_error
from safetensors.torch import load_file

from acar.config import BackboneConfig, Config, ModelConfig
from acar.models.net import build_network, load_backbone_weights, load_weights
from acar.models.slowfast import pathways
from acar.weights.importing import import_weights

TOLERANCE = 1e-4
R50 = BackboneConfig()
R101 = BackboneConfig(depths=(3, 4, 23, 3), lateral_kernel=5)  # PySlowFast's: its laterals have a norm
R101_ACAR = BackboneConfig(depths=(3, 4, 23, 3), lateral_kernel=5, lateral_norm=False, slow_frames="stride")


def keys(shared: Path, name: str) -> dict[str, Any]:
    found = json.loads((shared / "golden" / f"{name}.json").read_text())
    return found.get("keys") or found["rows"]


def write_pkl(shared: Path, path: Path, model: str) -> None:
    rows = keys(shared, f"map_caffe2_pyslowfast_acar_{model}")
    blobs = {
        r["caffe2"]: draw(r["pyslowfast"], tuple(r["shape"]), False).numpy() for r in rows if r["caffe2"]
    }
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))


def write_torch(shared: Path, path: Path, name: str, nest: str, prefix: str = "") -> None:
    state = {f"{prefix}{k}": draw(k, tuple(s), False) for k, s in keys(shared, name).items()}
    torch.save({nest: state, "epoch": 1}, path, _use_new_zipfile_serialization=prefix == "")


def network(backbone: BackboneConfig, weights: Path) -> Any:
    net = build_network(ModelConfig(backbone=backbone), n_classes=60).eval()
    load_backbone_weights(net, weights)
    return net


def check_features(net: Any, golden: Any, prefix: str = "") -> None:
    frames = np.random.RandomState(0).uniform(size=(1, 3, 32, 64, 80)).astype(np.float32)
    config = net.config.backbone
    with torch.no_grad():
        features = net.backbone(*pathways(torch.from_numpy(frames), config.alpha, config.slow_frames))
    for pathway, value in zip(("slow", "fast"), features, strict=True):
        assert list(value.shape) == golden[f"{prefix}{pathway}_shape"].tolist()
        chosen = value.flatten()[torch.from_numpy(golden[f"{prefix}{pathway}_idx"])]
        error = relative_error(chosen, golden[f"{prefix}{pathway}_val"])
        print(f"{pathway}: {error:.1e}")
        assert error <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pkl", "pyth"])
@pytest.mark.parametrize(
    ("model", "golden", "backbone"),
    [
        ("r50_kinetics_8x8_c2", "pyslowfast_r50_features", R50),
        ("r101_kinetics_8x8_101_101_c2", "pyslowfast_r101_101_features", R101),
    ],
)
def test_pyslowfast(
    shared: Path, tmp_path: Path, model: str, golden: str, backbone: BackboneConfig, form: str
) -> None:
    if form == "pkl":
        write_pkl(shared, tmp_path / "x", model)
    else:
        write_torch(shared, tmp_path / "x", f"keys_pyslowfast_{model}", "model_state")
    config = Config(model=ModelConfig(backbone=backbone))
    done = import_weights(tmp_path / "x", tmp_path / "x.safetensors", config)
    assert not done.fit.missing and len(done.classifier) == 2
    check_features(
        network(backbone, tmp_path / "x.safetensors"), np.load(shared / "golden" / f"{golden}.npz")
    )


@pytest.mark.slow
def test_pyslowfast_with_non_local_blocks(shared: Path, tmp_path: Path) -> None:
    """Every blob of R101 50_50 has a place, and the report says which network it is."""
    write_pkl(shared, tmp_path / "x", "r101_ava_32x2_50_50_c2")
    done = import_weights(tmp_path / "x", tmp_path / "x.safetensors")
    assert len(done.fit.matched) == 1096 and not done.fit.missing and not done.fit.left
    assert len(done.fit.counters) == 215 and list(done.classifier) == ["pred_w", "pred_b"]
    assert "temporal_blocks: [3, 4, 6, 3], nonlocal_blocks: [6, 13, 20]" in done.network
    state = load_file(tmp_path / "x.safetensors")
    expected = draw("s4.pathway0_nonlocal13.conv_g.weight", (512, 1024, 1, 1, 1), False)
    assert torch.equal(state["slow_res3_nonlocal.13.conv_g.weight"], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "golden", "backbone"),
    [("slowfast50", "backbone_r50", R50), ("slowfast101", "backbone_r101", R101_ACAR)],
)
def test_acar_net_backbone(
    shared: Path, tmp_path: Path, name: str, golden: str, backbone: BackboneConfig
) -> None:
    write_torch(shared, tmp_path / "x", f"keys_acar_{name}", "state_dict", prefix="module.")
    config = Config(model=ModelConfig(backbone=backbone))
    done = import_weights(tmp_path / "x", tmp_path / "x.safetensors", config)
    assert not done.fit.missing and not done.fit.left
    check_features(
        network(backbone, tmp_path / "x.safetensors"), np.load(shared / "golden" / f"{golden}.npz"), "a_"
    )


@pytest.mark.slow
def test_acar_net_whole(shared: Path, tmp_path: Path) -> None:
    """A file as `model_zoo/*.pth.tar` gives the authors' logits."""
    write_torch(shared, tmp_path / "x", "keys_acar_full_r50", "state_dict", prefix="module.")
    done = import_weights(tmp_path / "x", tmp_path / "x.safetensors")
    assert len(done.fit.matched) == 677 and not done.fit.missing and not done.fit.left
    net = build_network(ModelConfig(), n_classes=60).eval()
    load_weights(net, tmp_path / "x.safetensors")
    golden = np.load(shared / "golden" / "full_model_r50.npz")
    clip = torch.from_numpy(np.random.RandomState(0).uniform(size=(3, 32, 64, 80)).astype(np.float32))
    first = torch.from_numpy(golden["box_clip"]) == 0
    boxes = torch.from_numpy(golden["boxes"]).float()[first]
    with torch.no_grad():
        logits = net(clip[None], boxes, torch.zeros(len(boxes), dtype=torch.int64))
    error = relative_error(logits, golden["logits_batch1"][first.numpy()])
    print(f"logits: {error:.1e}")
    assert error <= TOLERANCE
