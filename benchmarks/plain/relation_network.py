"""RN as its equation reads: every triplet [A^i, A^j, X] formed, convolved twice, and averaged over j."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainRelationNetwork(nn.Module):
    """H^i = mean over j of f([A^i, A^j, X]), f a 1x1 convolution, a ReLU and an unpadded 3x3 convolution."""

    def __init__(self, c: int, d: int, downsample: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3 * c, d, 1, bias=False)
        self.conv2 = nn.Conv2d(d, d, 3, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1) if downsample else nn.Identity()

    def forward(self, actors: Tensor, context: Tensor, clip_index: Tensor) -> Tensor:
        """H (K, d, h', w') of A (K, C) in X (B, C, h, w); `clip_index` (K,) ascends."""
        h, w = context.shape[2:]
        related = []
        for clip in clip_index.unique():
            mine = actors[clip_index == clip]
            n = len(mine)
            of_i = mine[:, None].expand(n, n, -1)
            of_j = mine[None].expand(n, n, -1)
            pairs = torch.cat([of_i, of_j], dim=2).flatten(0, 1)[:, :, None, None].expand(-1, -1, h, w)
            triplets = torch.cat([pairs, context[clip].expand(n * n, -1, -1, -1)], dim=1)
            of_pairs = self.conv2(F.relu(self.conv1(triplets)))
            related.append(self.pool(of_pairs.unflatten(0, (n, n)).mean(dim=1)))
        return torch.cat(related)
