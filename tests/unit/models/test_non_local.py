"""The non-local block against a loop over positions, and the backbones that have some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from acar.config import BackboneConfig, parse_config
from acar.errors import UserError
from acar.models.non_local import NonLocal
from acar.models.slowfast import SlowFast, pathways

PRESETS = Path(__file__).resolve().parents[3] / "workflow" / "presets"
THIN: dict[str, Any] = {"depths": (1, 1, 3, 1), "width": 8, "alpha": 2, "norm": "group"}


@torch.no_grad()
def test_block_equals_the_loop_over_positions() -> None:
    torch.manual_seed(0)
    block = NonLocal(6, nn.BatchNorm3d(6)).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6, 2, 5, 4, dtype=torch.float64)  # the odd fifth row is not pooled
    out = block(x)

    def point(conv: nn.Conv3d, values: torch.Tensor) -> torch.Tensor:
        return conv.weight[:, :, 0, 0, 0] @ values + conv.bias

    for b in range(2):
        pooled = [x[b, :, :, y : y + 2, z : z + 2].flatten(1).max(1).values for y in (0, 2) for z in (0, 2)]
        for t in range(2):
            for y in range(5):
                for z in range(4):
                    theta = point(block.conv_theta, x[b, :, t, y, z])
                    found = sum(
                        float(theta @ point(block.conv_phi, p)) / len(pooled) * point(block.conv_g, p)
                        for p in pooled
                    )
                    value = block.bn(point(block.conv_out, found).view(1, 6, 1, 1, 1)).flatten()
                    torch.testing.assert_close(out[b, :, t, y, z], x[b, :, t, y, z] + value)


@torch.no_grad()
def test_backbone_runs_the_blocks_where_the_config_says() -> None:
    net = SlowFast(BackboneConfig(**THIN, nonlocal_blocks=(0, 2))).eval()
    plain = SlowFast(BackboneConfig(**THIN)).eval()
    state = net.state_dict()
    assert {key.split(".")[1] for key in state if "nonlocal" in key} == {"0", "2"}
    plain.load_state_dict({key: value for key, value in state.items() if "nonlocal" not in key})
    frames = torch.randn(1, 3, 4, 64, 48)
    slow, fast = net(*pathways(frames, 2, "linspace"))
    expected_slow, expected_fast = plain(*pathways(frames, 2, "linspace"))
    assert slow.shape == expected_slow.shape and not torch.allclose(slow, expected_slow)
    assert torch.equal(fast, expected_fast)
    for block in net.slow_res3_nonlocal.values():
        nn.init.zeros_(block.bn.weight)
    torch.testing.assert_close(net(*pathways(frames, 2, "linspace"))[0], expected_slow)


def test_temporal_kernels_of_the_first_blocks_only() -> None:
    net = SlowFast(BackboneConfig(**THIN, temporal_blocks=(1, 1, 2, 1)))
    for stage in (net.slow_res3, net.fast_res3):
        assert [block.conv1.kernel_size[0] for block in stage] == [3, 3, 1]


def test_absent_block_is_named() -> None:
    with pytest.raises(UserError, match="names block 6; res4 has 6, counted from 0"):
        parse_config({"model": {"backbone": {"nonlocal_blocks": [6]}}})


def merged(name: str) -> Any:
    def over(base: Any, top: Any) -> Any:
        if not (isinstance(base, dict) and isinstance(top, dict)):
            return top
        return base | {key: over(base.get(key), value) for key, value in top.items()}

    values = yaml.safe_load((PRESETS.parents[1] / "config.yaml").read_text())
    for file in ("ava_r50", f"backbones/{name}"):
        values = over(values, yaml.safe_load((PRESETS / f"{file}.yaml").read_text()))
    return parse_config(values)


def test_r50_8x4_takes_consecutive_frames() -> None:
    config = merged("r50_8x4")
    assert (config.clip.frames, config.clip.stride, config.model.backbone.alpha) == (32, 1, 4)


def our_name(theirs: str) -> str | None:
    """Our name of an entry of PySlowFast's that the table maps to nothing; None: we have none."""
    stage, _, rest = theirs.partition(".")
    if "nonlocal" in theirs:
        return f"slow_res3_nonlocal.{rest.removeprefix('pathway0_nonlocal')}"
    if stage.endswith("_fuse"):
        part = {"conv_f2s": "0", "bn": "1"}[rest.split(".")[0]]
        return f"Tconv{stage[1]}.{part}.{rest.partition('.')[2]}"
    return None


@pytest.mark.parametrize("table", ["r101_ava_32x2_50_50_c2"])
def test_r101_nl_has_the_shapes_of_pyslowfasts(shared: Path, table: str) -> None:
    keys = json.loads((shared / f"golden/keys_pyslowfast_{table}.json").read_text())["keys"]
    rows = json.loads((shared / f"golden/map_caffe2_pyslowfast_acar_{table}.json").read_text())["rows"]
    names = {row["pyslowfast"]: row["acar"] or our_name(row["pyslowfast"]) for row in rows}
    with torch.device("meta"):
        net = SlowFast(merged("r101_nl").model.backbone)
    ours = {name: list(value.shape) for name, value in net.state_dict().items()}
    theirs = {
        (names[key] or our_name(key)): shape for key, shape in keys.items() if not key.startswith("head.")
    }
    assert ours == theirs
