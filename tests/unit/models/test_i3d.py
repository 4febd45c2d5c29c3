"""I3D against another formulation of it: padding spelled out, convolutions and pools over unfolded windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from acar.config import BackboneConfig, Config, parse_config
from acar.errors import UserError
from acar.models.backbones import build_backbone
from acar.models.grid import feature_grid
from acar.models.i3d import I3D
from acar.models.net import build_network
from acar.models.slowfast import SlowFast

REPOSITORY = Path(__file__).resolve().parents[3]
# (T, H, W) with every parity before every stride.
SIZES = [(9, 33, 44), (8, 34, 31), (1, 64, 40)]


def thin(**keys: Any) -> BackboneConfig:
    return BackboneConfig(**{"kind": "i3d", "width": 8, "spatial_strides": (1, 2, 2, 2)} | keys)


def random_net(**keys: Any) -> I3D:
    """In float64, with statistics of batch norm that are not the identity's."""
    torch.manual_seed(0)
    net = I3D(thin(**keys))
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.2)
    return net.double().eval()


def frames(*sizes: int) -> Tensor:
    return torch.randn(2, 3, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- reference ----------------------------------------------------------------------------------------------


def windows(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: int, fill: float
) -> Tensor:
    """(B, C, T', H', W', kt, kh, kw): window o starts at o * stride - before, TensorFlow's `SAME`."""
    for axis, (k, s) in enumerate(zip(kernel, stride), start=2):
        d, n = (dilation if axis > 2 else 1), x.shape[axis]
        reach = d * (k - 1) + 1
        total = max(0, (-(-n // s) - 1) * s + reach - n)
        pads = [[0, 0] for _ in range(5)]
        pads[axis] = [total // 2, total - total // 2]
        while x.dim() > len(pads):  # axes of windows made already
            pads.append([0, 0])
        x = F.pad(x, [p for pair in reversed(pads) for p in pair], value=fill)
        x = x.unfold(axis, reach, s)[..., ::d]
    return x


def unit(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    kernel = state[f"{name}.conv3d.weight"]
    cut = windows(x, tuple(kernel.shape[2:]), (stride,) * 3, dilation if kernel.shape[2] == 3 else 1, 0.0)
    y = torch.einsum("bcthwijk,ocijk->bothw", cut, kernel)
    mean, var, shift = (
        state[f"{name}.bn.{part}"].view(1, -1, 1, 1, 1) for part in ("running_mean", "running_var", "bias")
    )
    return ((y - mean) / torch.sqrt(var + 1e-3) + shift).clamp(min=0)


def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: int = 1) -> Tensor:
    return windows(x, kernel, stride, dilation, -torch.inf).amax((5, 6, 7))


def mixed(state: dict[str, Tensor], name: str, x: Tensor, dilation: int) -> Tensor:
    def of(branch: str, y: Tensor) -> Tensor:
        return unit(state, f"{name}.{branch}", y, dilation=dilation)

    pooled = pool(x, (3, 3, 3), (1, 1, 1), dilation)
    return torch.cat([of("b0", x), of("b1b", of("b1a", x)), of("b2b", of("b2a", x)), of("b3b", pooled)], 1)


def reference(state: dict[str, Tensor], x: Tensor, strides: tuple[int, ...], dilation: int) -> Tensor:
    x = pool(unit(state, "Conv3d_1a_7x7", x, stride=2), (1, 3, 3), (1, 2, 2))
    x = unit(state, "Conv3d_2c_3x3", unit(state, "Conv3d_2b_1x1", x))
    x = pool(x, (1, 3, 3), (1, strides[1], strides[1]))
    for letter in "bc":
        x = mixed(state, f"Mixed_3{letter}", x, 1)
    x = pool(x, (3, 3, 3), (2, strides[2], strides[2]))
    for letter in "bcdef":
        x = mixed(state, f"Mixed_4{letter}", x, 1)
    x = pool(x, (2, 2, 2), (2, strides[3], strides[3]))
    for letter in "bc":
        x = mixed(state, f"Mixed_5{letter}", x, dilation)
    return x


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("strides", "dilation"), [((1, 2, 2, 2), 1), ((1, 2, 2, 1), 2), ((1, 2, 1, 1), 1)])
@torch.no_grad()
def test_network_equals_its_reference(
    sizes: tuple[int, int, int], strides: tuple[int, ...], dilation: int
) -> None:
    net = random_net(spatial_strides=strides, last_dilation=dilation)
    (maps,) = net(*net.inputs(frames(*sizes)))
    t, h, w = sizes
    assert maps.shape == (2, net.channels[0], -(-t // 8), *feature_grid(net.config, h, w))
    torch.testing.assert_close(maps, reference(net.state_dict(), frames(*sizes), strides, dilation))


# --- properties ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(9, 70, 83), (8, 64, 96)])
@torch.no_grad()
def test_at_doubled_resolution_every_second_cell_is_the_strided_networks(sizes: tuple[int, int, int]) -> None:
    strided = random_net(last_dilation=2)
    doubled = random_net(last_dilation=2, spatial_strides=(1, 2, 2, 1))
    doubled.load_state_dict(strided.state_dict())
    (coarse,), (fine,) = strided(frames(*sizes)), doubled(frames(*sizes))
    torch.testing.assert_close(fine[..., ::2, ::2], coarse)
    assert fine.shape[-1] == feature_grid(doubled.config, *sizes[1:])[1] > coarse.shape[-1]


def test_published_sizes() -> None:
    with torch.device("meta"):
        net = build_backbone(BackboneConfig(kind="i3d"))
    assert isinstance(net, I3D) and net.channels == (1024,)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Mixed_4f.b2b.conv3d.weight"] == (128, 32, 3, 3, 3)
    assert shapes["Mixed_5c.b1b.bn.running_mean"] == (384,)
    assert "Mixed_5c.b1b.bn.weight" not in shapes
    assert len([name for name in shapes if name.endswith("conv3d.weight")]) == 57
    # As in the file of Kinetics-400 weights, classifier aside.
    kernels = sum(p.numel() for n, p in net.named_parameters() if n.endswith("conv3d.weight"))
    shifts = sum(p.numel() for n, p in net.named_parameters() if n.endswith("bn.bias"))
    assert (kernels, shifts) == (12_272_704, 7_280)
    assert sum(p.numel() for p in net.parameters()) == kernels + shifts
    assert isinstance(SlowFast(BackboneConfig(width=8, depths=(1, 1, 1, 1))), SlowFast)


def test_norms() -> None:
    x = frames(4, 40, 40).float()
    for norm, changes in (("batch", True), ("frozen_batch", False)):
        net = I3D(thin(norm=norm)).train()
        before = net.Conv3d_1a_7x7.bn.running_mean.clone()
        net(x)[0].mean().backward()
        assert torch.equal(net.Conv3d_1a_7x7.bn.running_mean, before) != changes
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        assert not any(n.endswith("bn.weight") for n, _ in net.named_parameters())
    net = I3D(thin(norm="group")).train()
    net(x)[0].mean().backward()
    assert isinstance(net.Mixed_5c.b0.bn, torch.nn.GroupNorm)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("relation", ["hr2o", "sto", "baseline"])
@torch.no_grad()
def test_heads_take_one_pathway(relation: str) -> None:
    head = {"reduce_channels": 8, "hidden_channels": 4, "relation": relation, "memory": "none"}
    model = parse_config(
        {"model": {"backbone": thin(spatial_strides=(1, 2, 2, 1)).model_dump(), "head": head}}
    ).model
    net = build_network(model, 3).eval()
    clips = torch.randn(2, 3, 5, 64, 80)  # no multiple of SlowFast's alpha
    boxes, clip = torch.tensor([[0.1, 0.1, 0.6, 0.9]]).repeat(3, 1), torch.tensor([0, 1, 1])
    out = net(clips, boxes, clip)
    alone = net(clips[:1], boxes[:1], clip[:1])
    assert out.shape == (3, 3)
    torch.testing.assert_close(out[:1], alone, rtol=1e-4, atol=1e-5)


# --- config -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 12}, "width 12; kind: i3d needs a multiple of 8"),
        ({"spatial_strides": [2, 2, 2, 1]}, "the first must be 1"),
        ({"nonlocal_blocks": [1]}, "nonlocal_blocks: kind: i3d has none"),
        ({"temporal_blocks": [1, 1, 1, 1]}, "temporal_blocks: kind: i3d has none"),
        ({"kind": "i4d"}, "did you mean `i3d`"),
    ],
)
def test_what_i3d_cannot_have_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"model": {"backbone": {"kind": "i3d"} | keys}})


def test_keys_of_slowfast_do_not_bind_i3d() -> None:
    values = {"clip": {"frames": 9}, "model": {"backbone": {"alpha": 4, "fast_ratio": 7}}}
    with pytest.raises(UserError, match=r"clip\.frames 9 is not a multiple"):
        parse_config(values)
    values["model"]["backbone"]["kind"] = "i3d"
    assert parse_config(values).clip.frames == 9


def over(base: Any, top: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    return base | {key: over(base.get(key), value) for key, value in top.items()}


def merged(*presets: str) -> Config:
    values: Any = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for name in presets:
        values = over(values, yaml.safe_load((REPOSITORY / f"workflow/presets/{name}.yaml").read_text()))
    return parse_config(values)


def test_preset_is_i3d_on_the_published_grid() -> None:
    r50, i3d = merged("ava_r50"), merged("ava_r50", "backbones/i3d")
    backbone = i3d.model.backbone
    assert (backbone.kind, backbone.width, backbone.norm) == ("i3d", 64, "frozen_batch")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert feature_grid(backbone, 256, 320) == (16, 20)
    assert backbone.last_dilation == 2 and (i3d.clip.frames, i3d.clip.stride) == (64, 1)
    changed = {"run", "clip", "model"}
    assert i3d.model_copy(update={name: getattr(r50, name) for name in changed}) == r50
    assert i3d.model.head == r50.model.head
