from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.config import ModelConfig
from acar.errors import UserError
from acar.models.grid import feature_grid, grid_of
from acar.models.net import build_network


def thin(strides: tuple[int, int, int, int], downsample: str, kind: str = "slowfast") -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "backbone": {
                "depths": (1, 1, 1, 1), "width": 8, "alpha": 2, "spatial_strides": strides, "norm": "group",
                "kind": kind,
            },
            "head": {"reduce_channels": 8, "hidden_channels": 4, "downsample": downsample},
        }
    )  # fmt: skip


STRIDES = [("slowfast", strides) for strides in ((1, 2, 1, 1), (1, 1, 1, 1), (1, 2, 1, 2), (2, 1, 1, 1))]
STRIDES += [("i3d", strides) for strides in ((1, 2, 1, 1), (1, 2, 2, 1), (1, 2, 1, 2))]


@settings(max_examples=35, deadline=None)
@given(
    height=st.integers(40, 100),
    width=st.integers(40, 100),
    backbone=st.sampled_from(STRIDES),
    downsample=st.sampled_from(["none", "max2x2"]),
)
def test_grid_is_the_networks_own(
    height: int, width: int, backbone: tuple[str, tuple[int, int, int, int]], downsample: str
) -> None:
    config = thin(backbone[1], downsample, backbone[0])
    net = build_network(config, 3).eval()
    boxes, clip = torch.tensor([[0.1, 0.1, 0.9, 0.9]]), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        try:
            expected = grid_of(config, height, width)
        except UserError:
            with pytest.raises(UserError, match="needs at least 3x3"):
                net.first_order(torch.zeros(1, 3, 2, height, width), boxes, clip)
            return
        maps = net.first_order(torch.zeros(1, 3, 2, height, width), boxes, clip)
    assert tuple(maps.shape[2:]) == expected


def test_published_sizes() -> None:
    assert feature_grid(ModelConfig().backbone, 256, 320) == (16, 20)
    assert grid_of(ModelConfig(), 256, 320) == (7, 9)


def test_too_small_a_frame_names_the_remedy() -> None:
    with pytest.raises(UserError, match=r"32x320 px .* 2x20 cells.*short_side_px"):
        grid_of(ModelConfig(), 32, 320)


def test_grid_never_imports_torch() -> None:
    code = "import sys, acar.models.grid; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
