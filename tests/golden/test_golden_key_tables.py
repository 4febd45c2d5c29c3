"""Names and shapes of the authors' and of PySlowFast's networks: those that ours have, and that imports expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from acar.config import BackboneConfig, HeadConfig, ModelConfig
from acar.models.net import build_network
from acar.weights.names import from_pyslowfast, is_classifier, without_wrappers
from acar.weights.structure import Shape, own_shapes

R101 = BackboneConfig(depths=(3, 4, 23, 3), lateral_kernel=5, lateral_norm=False, slow_frames="stride")
LINEAR = HeadConfig(relation="baseline", memory="none")
ONE_BLOCK = HeadConfig(hr2o_depth=1, hr2o_mlp_kernel=1)
# The part of our network, its backbone and its head.
ACAR: dict[str, tuple[str, BackboneConfig, HeadConfig]] = {
    "full_r50": ("", BackboneConfig(), HeadConfig()),
    "full_r101": ("", R101, ONE_BLOCK),
    "full_r50_baseline": ("", BackboneConfig(), LINEAR),
    "slowfast50": ("backbone", BackboneConfig(), HeadConfig()),
    "slowfast101": ("backbone", R101, HeadConfig()),
    "head_r50_depth2": ("head", BackboneConfig(), HeadConfig()),
    "head_r101_depth1_mlp1x1": ("head", BackboneConfig(), ONE_BLOCK),
    "head_linear": ("head", BackboneConfig(), LINEAR),
}
NON_LOCAL: dict[str, Any] = {"temporal_blocks": (3, 4, 6, 3), "nonlocal_blocks": (6, 13, 20)}
R101_NORMED = BackboneConfig(depths=(3, 4, 23, 3), lateral_kernel=5)
PYSLOWFAST = {
    "r50_kinetics_8x8_c2": BackboneConfig(),
    "r50_ava_32x2_c2": BackboneConfig(),
    "r50_ava_32x2_short": BackboneConfig(),
    "r101_kinetics_8x8_101_101_c2": R101_NORMED,
    "r101_ava_32x2_50_50_c2": R101_NORMED.model_copy(update=NON_LOCAL),
    "r101_ava_64x2_50_50_c2": R101_NORMED.model_copy(update=NON_LOCAL),
}


def table(shared: Path, name: str) -> dict[str, Shape]:
    keys = json.loads((shared / "golden" / f"keys_{name}.json").read_text())["keys"]
    return {key: tuple(shape) for key, shape in keys.items()}


def shapes_of(backbone: BackboneConfig, head: HeadConfig, part: str) -> dict[str, Shape]:
    with torch.device("meta"):
        net = build_network(ModelConfig(backbone=backbone, head=head), n_classes=60)
    module = net.get_submodule(part)
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", list(ACAR))
def test_released_networks(shared: Path, name: str) -> None:
    part, backbone, head = ACAR[name]
    released = {without_wrappers(key): shape for key, shape in table(shared, f"acar_{name}").items()}
    assert shapes_of(backbone, head, part) == released
    if part != "head":
        assert own_shapes(released) == released  # what an import without a config holds a file against


@pytest.mark.parametrize("name", list(PYSLOWFAST))
def test_pyslowfast_backbones(shared: Path, name: str) -> None:
    theirs = table(shared, f"pyslowfast_{name}")
    own = {from_pyslowfast(key): shape for key, shape in theirs.items() if not key.startswith("head.")}
    assert None not in own and len(own) == sum(not key.startswith("head.") for key in theirs)
    assert own_shapes(own) == own == shapes_of(PYSLOWFAST[name], HeadConfig(), "backbone")
    assert all(is_classifier(key) for key in theirs if key.startswith("head."))


def test_every_table_is_run(shared: Path) -> None:
    found = {path.stem.removeprefix("keys_") for path in (shared / "golden").glob("keys_*.json")}
    assert found == {f"acar_{name}" for name in ACAR} | {f"pyslowfast_{name}" for name in PYSLOWFAST}
