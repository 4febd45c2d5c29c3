from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from acar.config import BackboneConfig, ModelConfig
from acar.errors import UserError
from acar.models.net import build_network
from acar.models.slowfast import Bottleneck, FactoredConv3d, SlowFast, pathways, slow_frame_indices

THIN = BackboneConfig(depths=(1, 1, 1, 1), width=16, spatial_strides=(1, 2, 1, 1), norm="group")
R101 = {
    "backbone": {
        "depths": (3, 4, 23, 3), "lateral_kernel": 5, "lateral_norm": False, "slow_frames": "stride",
    },
    "head": {"hr2o_depth": 1, "hr2o_mlp_kernel": 1},
}  # fmt: skip


def test_slow_frames_are_the_released_ones() -> None:
    assert slow_frame_indices(32, 4, "linspace") == [0, 4, 8, 13, 17, 22, 26, 31]
    assert slow_frame_indices(32, 4, "stride") == list(range(0, 32, 4))
    assert slow_frame_indices(4, 4, "linspace") == [0]


@pytest.mark.parametrize("n_frames", range(2, 129, 2))
def test_linspace_is_truncated_linspace(n_frames: int) -> None:
    exact = torch.linspace(0, n_frames - 1, n_frames // 2, dtype=torch.float64)
    assert slow_frame_indices(n_frames, 2, "linspace") == (exact + 1e-9).long().tolist()


def test_frames_must_be_a_multiple_of_alpha() -> None:
    with pytest.raises(UserError, match=r"clip.frames = 10 .*alpha = 4"):
        slow_frame_indices(10, 4, "linspace")


def test_pathways_pick_the_named_frames() -> None:
    frames = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(2, 3, 8, 4, 5)
    slow, fast = pathways(frames, 4, "linspace")
    assert slow.shape == (2, 3, 2, 4, 5)
    assert slow[0, 0, :, 0, 0].tolist() == [0.0, 7.0]
    assert torch.equal(fast, frames)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [
        ((1, 1, 1), (1, 2, 2), 1),
        ((1, 3, 3), (1, 2, 2), 1),
        ((1, 3, 3), (1, 1, 1), 2),
        ((3, 1, 1), (1, 1, 1), 1),
        ((7, 1, 1), (4, 1, 1), 1),
        ((5, 7, 7), (1, 2, 2), 1),
    ],
)
def test_factored_convolution_is_the_3d_one(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], dilation: int
) -> None:
    conv = FactoredConv3d(3, 4, kernel, stride, dilation)
    x = torch.randn(2, 3, 8, 9, 11).contiguous(memory_format=torch.channels_last_3d)
    expected = F.conv3d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("preset", "model"), [("r50", {}), ("r101", R101)])
def test_names_and_shapes_are_the_released_ones(shared: Path, preset: str, model: dict) -> None:
    released = json.loads((shared / "golden" / f"keys_acar_full_{preset}.json").read_text())["keys"]
    with torch.device("meta"):
        net = build_network(ModelConfig.model_validate(model), n_classes=60)
    own = {name: list(value.shape) for name, value in net.state_dict().items()}
    assert own == {name.replace(".module.", "."): shape for name, shape in released.items()}


def test_thin_network_keeps_time_and_reduces_space() -> None:
    net = SlowFast(THIN)
    slow, fast = net(*net.inputs(torch.randn(2, 3, 8, 48, 64)))
    assert slow.shape == (2, net.channels[0], 2, 6, 8)
    assert fast.shape == (2, net.channels[1], 8, 6, 8)


def test_dilation_only_where_the_last_stage_keeps_its_resolution() -> None:
    dilated = SlowFast(THIN)
    strided = SlowFast(THIN.model_copy(update={"spatial_strides": (1, 2, 1, 2)}))
    assert dilated.get_submodule("slow_res4.0.conv2").dilation == (1, 2, 2)
    assert dilated.get_submodule("slow_res3.0.conv2").dilation == (1, 1, 1)
    assert strided.get_submodule("slow_res4.0.conv2").dilation == (1, 1, 1)


def test_frozen_batch_norm_stays_in_eval_mode_but_trains_its_affine_part() -> None:
    net = SlowFast(THIN.model_copy(update={"norm": "frozen_batch"}))
    before = net.slow_bn1.running_mean.clone()
    assert not net.slow_bn1.training
    net.train()
    slow, fast = net(*pathways(torch.randn(1, 3, 4, 32, 32), 4, "linspace"))
    (slow.mean() + fast.mean()).backward()
    assert net.training and not net.slow_bn1.training
    assert torch.equal(net.slow_bn1.running_mean, before)
    assert net.slow_bn1.weight.grad.abs().sum() > 0


def test_batch_norm_does_follow_train_mode() -> None:
    net = SlowFast(THIN.model_copy(update={"norm": "batch"})).train()
    before = net.slow_bn1.running_mean.clone()
    net(*pathways(torch.randn(1, 3, 4, 32, 32), 4, "linspace"))
    assert not torch.equal(net.slow_bn1.running_mean, before)


def test_width_must_divide() -> None:
    with pytest.raises(UserError, match="width = 12"):
        SlowFast(BackboneConfig(width=12))


def block_with_statistics(stride: int, norm: str = "frozen_batch") -> Bottleneck:
    torch.manual_seed(0)
    block = Bottleneck(8, 4, 3, stride, 1, norm, shortcut=True).double()
    for child in block.modules():
        if isinstance(child, nn.BatchNorm3d):
            for value, low in ((child.running_mean, -1.0), (child.running_var, 0.2), (child.weight, 0.5)):
                nn.init.uniform_(value, low, 2.0)
    return block


def one_after_the_other(block: Bottleneck, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(block.bn1(block.conv1(x)))
    y = block.bn3(block.conv3(F.relu(block.bn2(block.conv2(y)))))
    return F.relu(y + block.downsample_bn(block.downsample(x)))


@pytest.mark.parametrize("stride", [1, 2])
def test_norms_folded_into_kernels_change_nothing(stride: int) -> None:
    """Without gradients; and with them where a norm's statistics are those of the batch."""
    block, x = block_with_statistics(stride), torch.randn(2, 8, 4, 7, 6).double()
    with torch.no_grad():
        torch.testing.assert_close(block(x), one_after_the_other(block, x))
        trained = block_with_statistics(stride, "batch").train()
        again = copy.deepcopy(trained)
        torch.testing.assert_close(trained(x), one_after_the_other(again, x))
        assert torch.equal(trained.bn1.running_mean, again.bn1.running_mean)


@pytest.mark.parametrize("stride", [1, 2])
def test_norms_run_again_give_the_same_gradients(stride: int) -> None:
    block, x = block_with_statistics(stride), torch.randn(2, 8, 4, 7, 6).double().requires_grad_()
    grads = []
    for forward in (block, partial(one_after_the_other, block)):
        x.grad = None
        block.zero_grad()
        forward(x).square().sum().backward()
        grads.append([x.grad, *(p.grad for p in block.parameters())])
    for own, plain in zip(*grads, strict=True):
        assert own.any()
        torch.testing.assert_close(own, plain)


def test_norms_run_again_without_their_convolutions() -> None:
    block, x = block_with_statistics(1), torch.randn(1, 8, 4, 6, 6).double().requires_grad_()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        block(x)
    with FlopCounterMode(display=False) as both:
        block(x).sum().backward()
    assert both.get_total_flops() == 3 * forward.get_total_flops()
