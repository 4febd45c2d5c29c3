"""I3D backbone: Inception-v1 inflated to three dimensions (Carreira and Zisserman 2017), RGB stream.

The paper names it as a backbone (section 3: "a video backbone network (e.g. I3D [2])"), without settings. Names of
weights are those in use in PyTorch (`Mixed_3b.b1a.conv3d.weight`). As in the original, padding is TensorFlow's
`SAME`, asymmetric where a stride leaves a rest, and batch norm has a shift but no scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.config import I3D_WIDTH, BackboneConfig
from acar.models.slowfast import make_norm

NORM_EPS = 1e-3  # the original's; PyTorch's default is 1e-5
STEM_CHANNELS = 192  # out of Conv3d_2c_3x3
# Channels of each Inception block: branch 0 (1x1x1), branches 1 and 2 (1x1x1, then 3x3x3), branch 3 (pool, 1x1x1).
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Before these blocks stands a max pool: kernel and temporal stride; the spatial one is the config's.
POOLS = {"Mixed_3b": ((1, 3, 3), 1), "Mixed_4b": ((3, 3, 3), 2), "Mixed_5b": ((2, 2, 2), 2)}

Triple = tuple[int, int, int]


def same_padding(sizes: Triple, kernel: Triple, stride: Triple, dilation: Triple = (1, 1, 1)) -> list[int]:
    """TensorFlow's `SAME` padding of (T, H, W), as `F.pad` takes it: W before, W after, H before, ..., T after.

    The output then has ceil(size / stride) places; an odd total has its larger part behind.
    """
    pads: list[int] = []
    for size, k, s, d in reversed(list(zip(sizes, kernel, stride, dilation, strict=True))):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        pads += [total // 2, total - total // 2]
    return pads


def same_max_pool(x: Tensor, kernel: Triple, stride: Triple = (1, 1, 1), dilation: int = 1) -> Tensor:
    """Max pool of (B, C, T, H, W) with `SAME` padding, which is never the maximum; `dilation` is spatial."""
    dilations = (1, dilation, dilation)
    pads = same_padding(_sizes(x), kernel, stride, dilations)
    if any(pads):
        x = F.pad(x, pads, value=-torch.inf)
    return F.max_pool3d(x, kernel, stride, 0, dilations)


def _sizes(x: Tensor) -> Triple:
    t, h, w = x.shape[2:]
    return t, h, w


class StemConv3d(nn.Conv3d):
    """The first convolution, 7x7x7 of stride 2: the only strided one, so the only one padded asymmetrically."""

    def __init__(self, c_out: int) -> None:
        super().__init__(3, c_out, (7, 7, 7), (2, 2, 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, c_out, ceil(T / 2), ceil(H / 2), ceil(W / 2))."""
        return super().forward(F.pad(x, same_padding(_sizes(x), (7, 7, 7), (2, 2, 2))))


def conv3d(c_in: int, c_out: int, kernel: int = 1, dilation: int = 1) -> nn.Conv3d:
    """An unstrided convolution with a cubic kernel of odd side, padded to keep sizes; `dilation` is spatial."""
    half = kernel // 2
    return nn.Conv3d(
        c_in, c_out, kernel, padding=(half, dilation * half, dilation * half),
        dilation=(1, dilation, dilation), bias=False,
    )  # fmt: skip


class Unit(nn.Module):
    """Convolution, norm, ReLU: `Unit3D` of the original."""

    def __init__(self, conv: nn.Conv3d, norm: str) -> None:
        super().__init__()
        self.conv3d = conv
        self.bn = make_norm(norm, conv.out_channels)
        if isinstance(self.bn, nn.BatchNorm3d):
            self.bn.eps = NORM_EPS
            # A constant in place of the scale: no weight to train, to load or to save.
            del self.bn.weight
            self.bn.register_buffer("weight", torch.ones(conv.out_channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) to (B, C_out, T', H', W')."""
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class Inception(nn.Module):
    """Four branches side by side: 1x1x1; twice 1x1x1 and 3x3x3; max pool and 1x1x1.

    `dilation`, of the 3x3x3 kernels and of the pool, is spatial.
    """

    def __init__(self, c_in: int, channels: tuple[int, ...], norm: str, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        c0, c1a, c1b, c2a, c2b, c3b = channels

        def unit(c_from: int, c_out: int, k: int = 1) -> Unit:
            return Unit(conv3d(c_from, c_out, k, dilation if k > 1 else 1), norm)

        self.b0 = unit(c_in, c0)
        self.b1a, self.b1b = unit(c_in, c1a), unit(c1a, c1b, 3)
        self.b2a, self.b2b = unit(c_in, c2a), unit(c2a, c2b, 3)
        self.b3b = unit(c_in, c3b)
        self.channels = c0 + c1b + c2b + c3b

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) to (B, `channels`, T, H, W)."""
        pooled = same_max_pool(x, (3, 3, 3), dilation=self.dilation)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class I3D(nn.Module):
    """Frames to the maps of the last Inception block, Mixed_5c: 1024 channels at width 64, an eighth of the frames.

    Reading of the paper: it doubles the spatial resolution of SlowFast's last stage (section 4.1), maps of 1/16 of
    the frame, and says nothing of I3D, whose last stage is Mixed_5. Here the same is had the same way: the spatial
    stride of MaxPool3d_5a goes, and the 3x3x3 kernels and the pools behind it are dilated by 2, so that weights
    trained with the stride see the cells that they were trained on (every second cell is the strided network's). The
    keys are SlowFast's: `spatial_strides`, of which I3D's pools 3a, 4a and 5a are the last three, and
    `last_dilation`; [1, 2, 2, 1] and 2, or [1, 2, 2, 2] for I3D as published.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config

        def scaled(channels: int) -> int:
            return channels * config.width // I3D_WIDTH

        stem = scaled(I3D_WIDTH)
        self.Conv3d_1a_7x7 = Unit(StemConv3d(stem), config.norm)
        self.Conv3d_2b_1x1 = Unit(conv3d(stem, stem), config.norm)
        self.Conv3d_2c_3x3 = Unit(conv3d(stem, scaled(STEM_CHANNELS), 3), config.norm)
        channels = scaled(STEM_CHANNELS)
        for name, widths in BLOCKS.items():
            dilated = name.startswith("Mixed_5") and config.spatial_strides[3] == 1
            block = Inception(
                channels, tuple(map(scaled, widths)), config.norm, config.last_dilation if dilated else 1
            )
            self.add_module(name, block)
            channels = block.channels
        self.channels = (channels,)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def inputs(self, frames: Tensor) -> tuple[Tensor]:
        """What `forward` takes of clips (B, 3, T, H, W): all of their frames, any number."""
        return (frames,)

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        """(B, 3, T, H, W) to maps (B, `channels`, ceil(T / 8), h, w); `grid.feature_grid` gives (h, w)."""
        x = same_max_pool(self.Conv3d_1a_7x7(frames), (1, 3, 3), (1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        strides = dict(zip(POOLS, self.config.spatial_strides[1:], strict=True))
        for name in BLOCKS:
            if name in POOLS:
                kernel, of_time = POOLS[name]
                x = same_max_pool(x, kernel, (of_time, strides[name], strides[name]))
            x = self.get_submodule(name)(x)
        return (x,)
