"""SlowFast R50 and the released head in plain PyTorch: `nn.Conv3d` everywhere, default memory order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.head import PlainHead

SLOW_FRACTION = 4  # fast frames a slow frame
SLOW_KERNELS = (1, 1, 3, 3)  # frames that the first convolution of a block sees, by stage
FAST_KERNELS = (3, 3, 3, 3)
STRIDES = (1, 2, 2, 1)
DILATIONS = (1, 1, 1, 2)


def frozen_norm(channels: int) -> nn.BatchNorm3d:
    """Batch norm whose statistics `PlainNet` never updates."""
    return nn.BatchNorm3d(channels)


def convolution(
    c_in: int, c_out: int, kernel: Sequence[int], stride: Sequence[int] = (1, 1, 1), dilation: int = 1
) -> nn.Conv3d:
    """Padded by half its kernel, no bias; `dilation` in space."""
    t, h, w = kernel
    padding = (t // 2, dilation * (h // 2), dilation * (w // 2))
    dilations = (1, dilation, dilation)
    return nn.Conv3d(c_in, c_out, (t, h, w), tuple(stride), padding, dilations, bias=False)


class PlainBlock(nn.Module):
    """Bottleneck of three convolutions; the first of a stage has a projection beside it."""

    def __init__(
        self, c_in: int, inner: int, frames: int, stride: int, dilation: int, projection: bool
    ) -> None:
        super().__init__()
        self.conv1 = convolution(c_in, inner, (frames, 1, 1))
        self.bn1 = frozen_norm(inner)
        self.conv2 = convolution(inner, inner, (1, 3, 3), (1, stride, stride), dilation)
        self.bn2 = frozen_norm(inner)
        self.conv3 = convolution(inner, 4 * inner, (1, 1, 1))
        self.bn3 = frozen_norm(4 * inner)
        self.projection = projection
        if projection:
            self.downsample = nn.Sequential(convolution(c_in, 4 * inner, (1, 1, 1), (1, stride, stride)))
            self.downsample_bn = frozen_norm(4 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, T, H, W) to (B, 4 * inner, T, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.downsample_bn(self.downsample(x)) if self.projection else x))


def stage(number: int, blocks: int, c_in: int, inner: int, frames: int) -> nn.Sequential:
    """One residual stage, `number` from 0."""
    modules = []
    for i in range(blocks):
        stride = STRIDES[number] if i == 0 else 1
        modules.append(PlainBlock(c_in, inner, frames, stride, DILATIONS[number], i == 0))
        c_in = 4 * inner
    return nn.Sequential(*modules)


class PlainSlowFast(nn.Module):
    """The released R50 at its defaults; thin ones for tests."""

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64, fast_ratio: int = 8) -> None:
        super().__init__()
        fast_width = width // fast_ratio
        self.fast_conv1 = convolution(3, fast_width, (5, 7, 7), (1, 2, 2))
        self.fast_bn1 = frozen_norm(fast_width)
        self.slow_conv1 = convolution(3, width, (1, 7, 7), (1, 2, 2))
        self.slow_bn1 = frozen_norm(width)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        slow, fast = width, fast_width
        for i in range(4):
            lateral = convolution(fast, 2 * fast, (7, 1, 1), (SLOW_FRACTION, 1, 1))
            setattr(self, f"Tconv{i + 1}", nn.Sequential(lateral, frozen_norm(2 * fast), nn.ReLU()))
            slow_inner, fast_inner = width * 2**i, fast_width * 2**i
            setattr(
                self, f"slow_res{i + 1}", stage(i, depths[i], slow + 2 * fast, slow_inner, SLOW_KERNELS[i])
            )
            setattr(self, f"fast_res{i + 1}", stage(i, depths[i], fast, fast_inner, FAST_KERNELS[i]))
            slow, fast = 4 * slow_inner, 4 * fast_inner
        self.slow_channels, self.fast_channels = slow, fast

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Last maps of both pathways for frames (B, 3, T, H, W)."""
        t = frames.shape[2]
        slow = frames[:, :, torch.linspace(0, t - 1, t // SLOW_FRACTION).long()]
        slow = self.pool(F.relu(self.slow_bn1(self.slow_conv1(slow))))
        fast = self.pool(F.relu(self.fast_bn1(self.fast_conv1(frames))))
        for i in range(1, 5):
            slow = torch.cat([slow, getattr(self, f"Tconv{i}")(fast)], dim=1)
            slow = getattr(self, f"slow_res{i}")(slow)
            fast = getattr(self, f"fast_res{i}")(fast)
        return slow, fast


class PlainNet(nn.Module):
    """Frames and boxes to logits; batch norm keeps its statistics in training, as released."""

    def __init__(self, backbone: PlainSlowFast, head: PlainHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def train(self, mode: bool = True) -> PlainNet:
        """Dropout follows `mode`; batch norm stays in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eval()
        return self

    def forward(self, frames: Tensor, boxes: Tensor, clip_index: Tensor) -> Tensor:
        """Logits (K, classes) of frames (B, 3, T, H, W) and boxes (K, 4) in 0..1."""
        return self.head(*self.backbone(frames), boxes, clip_index)


def plain_r50(n_classes: int = 60) -> PlainNet:
    """The released whole R50 model."""
    backbone = PlainSlowFast()
    return PlainNet(backbone, PlainHead(backbone.slow_channels, backbone.fast_channels, n_classes))
