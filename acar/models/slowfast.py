"""SlowFast backbone (Feichtenhofer et al. 2019) as the released ACAR-Net code builds it (paper section 4.1).

Parameter names are those of the released code less its `module.` parts, so its checkpoints load after
renaming. Feature maps are 5-D (B, C, T, H, W) in channels-last memory order: a convolution with a 1-frame
kernel is then a 2-D convolution over (B*T) images, and one with a 1-cell kernel a 2-D convolution over
(T, H*W), without a copy. On the CPU that trains R50 faster than PyTorch's 3-D convolutions, which fall back
to a slow kernel for many shapes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from acar.config import BackboneConfig
from acar.errors import UserError
from acar.models.non_local import NonLocal

EXPANSION = 4  # channels out of a bottleneck block over its inner channels
RES4 = 3  # number of the stage that the papers call res4
LATERAL_RATIO = 2  # channels of a lateral connection over those of the fast pathway it reads
SLOW_TEMPORAL_KERNELS = (1, 1, 3, 3)  # first convolution of each block, by stage
FAST_TEMPORAL_KERNELS = (3, 3, 3, 3)
FAST_STEM_KERNEL = 5
MAX_GROUPS = 8  # of `norm: group`
# A group of one channel would be instance norm, which takes the light of a scene away from thin networks.
MIN_GROUP_CHANNELS = 8


def slow_frame_indices(n_frames: int, alpha: int, slow_frames: str) -> list[int]:
    """Which of the `n_frames` fast frames the slow pathway sees: `n_frames / alpha` of them.

    `linspace` spans the whole clip (0, 4, 8, 13, ..., 31 for 32 frames and alpha 4: the released R50);
    `stride` takes every alpha-th (0, 4, ..., 28: the released R101).

    Raises:
        UserError: `n_frames` is not a multiple of `alpha`.
    """
    if n_frames % alpha:
        raise UserError(
            f"clip.frames = {n_frames} is not a multiple of model.backbone.alpha = {alpha}: "
            "the slow pathway sees clip.frames / alpha frames; change one of the two"
        )
    n_slow = n_frames // alpha
    if slow_frames == "stride" or n_slow == 1:
        return list(range(0, n_frames, alpha))
    return [i * (n_frames - 1) // (n_slow - 1) for i in range(n_slow)]


def pathways(frames: Tensor, alpha: int, slow_frames: str) -> tuple[Tensor, Tensor]:
    """Split clips (B, 3, T, H, W) into slow (B, 3, T / alpha, H, W) and fast (B, 3, T, H, W) input.

    Raises:
        UserError: T is not a multiple of `alpha`.
    """
    indices = slow_frame_indices(frames.shape[2], alpha, slow_frames)
    slow = frames.index_select(2, torch.tensor(indices, device=frames.device))
    return slow, frames


class FactoredConv3d(nn.Conv3d):
    """A bias-free 3-D convolution, computed as a 2-D one where its kernel allows; the same weights."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        dilation: int = 1,
    ) -> None:
        t, h, w = kernel
        padding = (t // 2, dilation * (h // 2), dilation * (w // 2))
        super().__init__(c_in, c_out, kernel, stride, padding, (1, dilation, dilation), bias=False)
        self.padding_cells = padding
        self.factored = True  # False: as a 3-D one, whatever the kernel (`compute.memory_format: contiguous`)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) to (B, C_out, T', H', W')."""
        return self.by(x, self.weight, None)

    def by(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same convolution with a weight of the same shape in the place of its own, and a bias (C_out,)."""
        if self.factored and self.kernel_size[0] == 1:
            return self._over_frames(x, weight.squeeze(2), bias)
        if self.factored and self.kernel_size[1:] == (1, 1):
            return self._over_time(x, weight.squeeze(4), bias)
        # Also the fast stem: no gain to be had with three channels in.
        return F.conv3d(x, weight, bias, self.stride, self.padding_cells, self.dilation)

    def _over_frames(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (_, *stride), (_, *dilation) = self.stride, self.dilation
        frames = frames_to_batch(x)
        if self.kernel_size[1:] == (1, 1) and stride != [1, 1] and not torch.is_grad_enabled():
            # The cells that it sees, picked beforehand: by itself it works on a copy of the whole map. With a
            # backward pass that is slower.
            frames, stride = frames[..., :: stride[0], :: stride[1]], [1, 1]
        y = F.conv2d(frames, weight, bias, stride, self.padding_cells[1:], dilation)
        return batch_to_frames(y, x.shape[0], x.shape[2])

    def _over_time(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        h, w = x.shape[3:]
        y = F.conv2d(x.flatten(3), weight, bias, (self.stride[0], 1), (self.padding_cells[0], 0))
        return y.unflatten(3, (h, w))


def channels_last(x: Tensor) -> Tensor:
    """The same tensor in channels-last memory order."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def frames_to_batch(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B*T, C, H, W); a view in channels-last memory order."""
    return x.transpose(1, 2).flatten(0, 1)


def batch_to_frames(x: Tensor, b: int, t: int) -> Tensor:
    """(B*T, C, H, W) back to (B, C, T, H, W); a view."""
    return x.unflatten(0, (b, t)).transpose(1, 2)


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """Batch norm that always uses its running statistics; its affine parameters are trained.

    This is what the released code's "frozen BN" does: eval mode, with `requires_grad` kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.training = False

    def train(self, mode: bool = True) -> FrozenBatchNorm3d:
        """Stays in eval mode whatever `mode`."""
        return super().train(False)


def make_norm(kind: str, channels: int) -> nn.Module:
    """Norm layer of `model.backbone.norm`: `batch`, `frozen_batch` or `group`."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "frozen_batch":
        return FrozenBatchNorm3d(channels)
    wide_enough = max(1, min(MAX_GROUPS, channels // MIN_GROUP_CHANNELS))
    return nn.GroupNorm(math.gcd(wide_enough, channels), channels)


def normed(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)) of a `FactoredConv3d` and its norm.

    Without gradients, a batch norm that uses its running statistics is put into the kernel: a scale and a shift a
    channel. (With them this would halve what the backward pass needs, but round worse: sums that nearly cancel.)
    """
    if torch.is_grad_enabled() or not is_fixed(norm):
        return norm(conv(x))
    assert isinstance(conv, FactoredConv3d) and isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return conv.by(x, conv.weight * scale[:, None, None, None, None], norm.bias - norm.running_mean * scale)


def is_fixed(norm: nn.Module) -> bool:
    """Whether a norm is the same scale and shift whatever it is given."""
    return isinstance(norm, nn.BatchNorm3d) and norm.track_running_stats and not norm.training


def rectified(norm: nn.Module, conv: nn.Module, y: Tensor) -> Tensor:
    """conv(relu(norm(y))).

    A fixed norm and its ReLU, which cost next to nothing, run again in the backward pass in place of being kept: the
    same bits, and a sixth less memory of a bottleneck. The recomputation stops short of the convolution.
    """

    def run(y: Tensor) -> Tensor:
        return conv(F.relu(norm(y), inplace=True))

    if torch.is_grad_enabled() and is_fixed(norm) and not torch.compiler.is_compiling():
        return checkpoint(run, y, use_reentrant=False, preserve_rng_state=False)
    return run(y)


class Lateral(nn.Sequential):
    """Convolution over time, its norm and a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Fast (B, C, T, H, W) to (B, 2 C, T / alpha, H, W) of the slow pathway."""
        conv, norm, relu = self
        return relu(normed(conv, norm, x))


class Bottleneck(nn.Module):
    """Residual block: (k,1,1), (1,3,3), (1,1,1) convolutions, each with its norm."""

    def __init__(
        self, c_in: int, inner: int, temporal: int, stride: int, dilation: int, norm: str, shortcut: bool
    ) -> None:
        super().__init__()
        c_out = inner * EXPANSION
        self.conv1 = FactoredConv3d(c_in, inner, (temporal, 1, 1))
        self.bn1 = make_norm(norm, inner)
        self.conv2 = FactoredConv3d(inner, inner, (1, 3, 3), (1, stride, stride), dilation)
        self.bn2 = make_norm(norm, inner)
        self.conv3 = FactoredConv3d(inner, c_out, (1, 1, 1))
        self.bn3 = make_norm(norm, c_out)
        self.downsample: nn.Sequential | None = None
        if shortcut:
            self.downsample = nn.Sequential(FactoredConv3d(c_in, c_out, (1, 1, 1), (1, stride, stride)))
            self.downsample_bn = make_norm(norm, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) to (B, 4 * inner, T, H / stride, W / stride)."""
        if torch.is_grad_enabled():
            y = rectified(self.bn1, self.conv2, self.conv1(x))
            y = self.bn3(rectified(self.bn2, self.conv3, y))
        else:
            y = F.relu(normed(self.conv1, self.bn1, x), inplace=True)
            y = F.relu(normed(self.conv2, self.bn2, y), inplace=True)
            y = normed(self.conv3, self.bn3, y)
        residual = x if self.downsample is None else normed(self.downsample[0], self.downsample_bn, x)
        return F.relu(y + residual, inplace=True)


class SlowFast(nn.Module):
    """Two-pathway 3-D ResNet; the last stage keeps its resolution and is dilated (paper section 4.1).

    Non-local blocks, if any, stand behind blocks of `slow_res3` (res4) and are named `slow_res3_nonlocal.BLOCK`.
    `channels` are those of the two outputs, slow and fast.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.width % config.fast_ratio:
            raise UserError(
                f"model.backbone.width = {config.width} is not a multiple of fast_ratio = {config.fast_ratio}"
            )
        self.config = config
        slow, fast = config.width, config.width // config.fast_ratio
        self.fast_conv1 = FactoredConv3d(3, fast, (FAST_STEM_KERNEL, 7, 7), (1, 2, 2))
        self.fast_bn1 = make_norm(config.norm, fast)
        self.slow_conv1 = FactoredConv3d(3, slow, (1, 7, 7), (1, 2, 2))
        self.slow_bn1 = make_norm(config.norm, slow)
        slow_in, fast_in = slow, fast
        for stage in range(4):
            self.add_module(f"Tconv{stage + 1}", self._lateral(fast_in))
            slow_in += LATERAL_RATIO * fast_in
            inner = 2**stage
            self.add_module(
                f"slow_res{stage + 1}", self._stage(stage, slow_in, slow * inner, SLOW_TEMPORAL_KERNELS)
            )
            self.add_module(
                f"fast_res{stage + 1}", self._stage(stage, fast_in, fast * inner, FAST_TEMPORAL_KERNELS)
            )
            slow_in, fast_in = slow * inner * EXPANSION, fast * inner * EXPANSION
        if config.nonlocal_blocks:
            channels = slow * 2 ** (RES4 - 1) * EXPANSION
            self.slow_res3_nonlocal = nn.ModuleDict(
                {str(b): NonLocal(channels, make_norm(config.norm, channels)) for b in config.nonlocal_blocks}
            )
        self.channels = (slow_in, fast_in)
        self._initialise()

    def _lateral(self, channels: int) -> nn.Module:
        kernel, alpha, c_out = self.config.lateral_kernel, self.config.alpha, LATERAL_RATIO * channels
        conv = FactoredConv3d(channels, c_out, (kernel, 1, 1), (alpha, 1, 1))
        if not self.config.lateral_norm:
            return conv
        return Lateral(conv, make_norm(self.config.norm, c_out), nn.ReLU(inplace=True))

    def _stage(self, stage: int, c_in: int, inner: int, temporal: tuple[int, ...]) -> nn.Sequential:
        stride = self.config.spatial_strides[stage]
        dilation = self.config.last_dilation if stage == 3 and stride == 1 else 1
        blocks = []
        for i in range(self.config.depths[stage]):
            first = i == 0
            blocks.append(
                Bottleneck(
                    c_in if first else inner * EXPANSION,
                    inner,
                    temporal[stage] if i < self._temporal_blocks(stage) else 1,
                    stride if first else 1,
                    dilation,
                    self.config.norm,
                    shortcut=first,
                )
            )
        return nn.Sequential(*blocks)

    def _temporal_blocks(self, stage: int) -> int:
        return (self.config.temporal_blocks or self.config.depths)[stage]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def inputs(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` takes of clips (B, 3, T, H, W); see `pathways`."""
        return pathways(frames, self.config.alpha, self.config.slow_frames)

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Slow (B, 3, T / alpha, H, W) and fast (B, 3, T, H, W) input to the last stage's maps.

        Returns (B, channels[0], T / alpha, h, w) and (B, channels[1], T, h, w); `grid.feature_grid` gives (h, w).
        """
        slow = self._stem(slow, self.slow_conv1, self.slow_bn1)
        fast = self._stem(fast, self.fast_conv1, self.fast_bn1)
        for stage in range(1, 5):
            lateral = self.get_submodule(f"Tconv{stage}")(fast)
            slow = torch.cat([slow, lateral], dim=1)
            slow = self._slow_res4(slow) if stage == RES4 else self.get_submodule(f"slow_res{stage}")(slow)
            fast = self.get_submodule(f"fast_res{stage}")(fast)
        return slow, fast

    def _slow_res4(self, slow: Tensor) -> Tensor:
        stage = self.get_submodule("slow_res3")
        if not self.config.nonlocal_blocks:
            return stage(slow)
        for number, block in stage.named_children():
            slow = block(slow)
            if number in self.slow_res3_nonlocal:
                slow = self.slow_res3_nonlocal[number](slow)
        return slow

    @staticmethod
    def _stem(x: Tensor, conv: FactoredConv3d, norm: nn.Module) -> Tensor:
        b, t = x.shape[0], x.shape[2]
        x = normed(conv, norm, x)
        x = F.relu(channels_last(x) if conv.factored else x, inplace=True)
        if not conv.factored:
            return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return batch_to_frames(F.max_pool2d(frames_to_batch(x), 3, 2, 1), b, t)
