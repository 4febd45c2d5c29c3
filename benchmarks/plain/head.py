"""The released head's algorithm, step by step: a clip at a time, an actor's feature tiled over the map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align


class PlainHR2O(nn.Module):
    """Attention over a clip's actors at each location, then norm, ReLU, convolution, dropout and the residual."""

    def __init__(self, d: int, mlp_kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv_q = nn.Conv2d(d, d, 3, padding=1, bias=False)
        self.conv_k = nn.Conv2d(d, d, 3, padding=1, bias=False)
        self.conv_v = nn.Conv2d(d, d, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(d, d, mlp_kernel, padding=mlp_kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, clips: list[Tensor]) -> list[Tensor]:
        """Maps (n, d, h, w) of each clip's n >= 1 actors, to the same."""
        related = []
        for maps in clips:
            q, k, v = self.conv_q(maps), self.conv_k(maps), self.conv_v(maps)
            scores = torch.einsum("idhw,jdhw->ijhw", q, k) / math.sqrt(maps.shape[1])
            mixed = torch.einsum("ijhw,jdhw->idhw", scores.softmax(dim=1), v)
            related.append(maps + self.dropout(self.conv(F.relu(self.norm(mixed)))))
        return related


class PlainHead(nn.Module):
    """Tile, concatenate, convolve, relate, classify; its defaults are the released R50 head.

    C is `reduce`, d is `hidden`; parameter names as released.
    """

    def __init__(
        self,
        slow_channels: int = 2048,
        fast_channels: int = 256,
        n_classes: int = 60,
        *,
        reduce: int = 1024,
        hidden: int = 512,
        roi_size: int = 7,
        downsample: bool = True,
        depth: int = 2,
        mlp_kernel: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.roi_size = roi_size
        self.conv_reduce = nn.Conv2d(slow_channels + fast_channels, reduce, 1, bias=False)
        self.conv1 = nn.Conv2d(2 * reduce, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1) if downsample else nn.Identity()
        self.hr2o = nn.Sequential(*(PlainHR2O(hidden, mlp_kernel, dropout) for _ in range(depth)))
        self.fc1 = nn.Linear(reduce, hidden, bias=False)
        self.fc2 = nn.Linear(2 * hidden, n_classes, bias=False)

    def actor_features(self, maps: Tensor, boxes: Tensor, clip_index: Tensor) -> Tensor:
        """RoIAlign of boxes (K, 4) in 0..1 on maps (B, C, h, w), then the maximum of the bins: (K, C)."""
        h, w = maps.shape[2:]
        cells = boxes * boxes.new_tensor([w, h, w, h])
        rois = torch.cat([clip_index[:, None].to(boxes), cells], dim=1)
        bins = roi_align(maps, rois, self.roi_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False)
        return bins.amax(dim=(2, 3))

    def encode(self, context: Tensor, actors: Tensor) -> Tensor:
        """First-order maps (n, d, h', w') of a clip's actors (n, C) in its context (C, h, w)."""
        n, (h, w) = len(actors), context.shape[1:]
        tiled = actors[:, :, None, None].repeat(1, 1, h, w)
        pairs = torch.cat([context[None].repeat(n, 1, 1, 1), tiled], dim=1)
        return self.pool(F.relu(self.conv2(F.relu(self.conv1(pairs)))))

    def forward(
        self,
        slow: Tensor,
        fast: Tensor,
        boxes: Tensor,
        clip_index: Tensor,
        sizes: list[tuple[float, float]] | None = None,
    ) -> Tensor:
        """Logits (K, classes), clip by clip, of backbone maps (B, channels, T, h, w) and boxes (K, 4) in 0..1.

        `clip_index` (K,) ascends. `sizes` are the fractions (width, height) of the maps that each clip fills: the
        context is cut to them, RoIAlign sees all of the map.
        """
        maps = self.conv_reduce(torch.cat([slow.mean(dim=2), fast.mean(dim=2)], dim=1))
        actors = self.actor_features(maps, boxes, clip_index)
        clips, encoded = [], []
        for clip, context in enumerate(maps):
            mine = actors[clip_index == clip]
            if len(mine) == 0:
                continue
            if sizes is not None:
                w, h = sizes[clip]
                context = context[:, : math.ceil(context.shape[1] * h), : math.ceil(context.shape[2] * w)]
            clips.append(mine)
            encoded.append(self.encode(context, mine))
        if not clips:
            return actors.new_zeros((0, self.fc2.out_features))
        related = self.hr2o(encoded)
        pooled = torch.cat([maps.mean(dim=(2, 3)) for maps in related])
        return self.fc2(torch.cat([F.relu(self.fc1(torch.cat(clips))), pooled], dim=1))
