"""HR2O as a relation network over triplets of two actors and the context, "RN" of table 1c (eq. 3-4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.models.hr2o import BankBatch


class RelationNetwork(nn.Module):
    """H^i of eq. 4, the mean over j of H^ij = f([A^i, A^j, X_xy]), without forming a triplet: (K, d, h', w').

    Inputs: A (K, C) and X (B, C, h, w); with `memory: lfb` the j are the bank's actor features (M, C).
    Parameters: 3 C d + 9 d^2.
    Reading: f is "a stack of two convolutional layers": those of the first-order encoder (1x1, then an unpadded
    3x3), so that H has F's grid, with a ReLU between and none behind, since F + H is a residual sum. H^i is
    down-sampled as F^i is, after the mean. Each block of `hr2o_depth` has its own f and reads A and X, not F;
    table 1c's row is depth 1.

    The first layer is linear in its three parts, so each is convolved once: X a clip, A^i and A^j an actor. The
    second layer is linear, so it commutes with the mean over j and runs once an actor instead of once a pair.
    What is left of the N^2 is one addition and one ReLU a pair. Without a j, H = 0.
    """

    def __init__(self, context_channels: int, channels: int, downsample: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3 * context_channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.downsample = downsample

    def forward(
        self, actors: Tensor, context: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """H (K, d, h', w') on the grid of the first-order maps."""
        others, other_clip = actors, clip_index
        c = actors.shape[1]
        weight_i, weight_j, weight_x = self.conv1.weight.split(c, dim=1)
        if bank is not None:
            assert bank.actors is not None, "a bank without actor features"
            others, other_clip = bank.actors.to(actors.dtype), bank.clip_index
        of_j = F.linear(others, weight_j.flatten(1))
        if bank is not None and bank.row_index is not None:
            of_j = of_j.index_select(0, bank.row_index)
        of_x = F.conv2d(context, weight_x).index_select(0, clip_index)
        of_xi = of_x + F.linear(actors, weight_i.flatten(1))[:, :, None, None]
        i, j = (clip_index[:, None] == other_clip[None]).nonzero(as_tuple=True)
        pairs = of_xi.index_select(0, i).add_(of_j.index_select(0, j)[:, :, None, None]).relu_()
        counts = torch.bincount(i, minlength=len(actors)).clamp(min=1)
        mean = torch.zeros_like(of_xi).index_add(0, i, pairs) / counts[:, None, None, None]
        related = self.conv2(mean)
        return F.max_pool2d(related, 3, 2, 1) if self.downsample else related
