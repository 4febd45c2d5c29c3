"""HR2O as a relation network over triplets of two actors and the context, "RN" of table 1c (eq. 3-4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.models.hr2o import BankBatch, Ragged


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
    What is left of the N^2, a ReLU a pair, goes by `mean_of_rectified_sums`. Without a j, H = 0.
    """

    def __init__(self, context_channels: int, channels: int, downsample: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3 * context_channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.downsample = downsample

    def project(self, rows: Tensor) -> tuple[Tensor]:
        """The first layer's part of A^j (M, C): (M, d)."""
        weight_j = self.conv1.weight.chunk(3, dim=1)[1]
        return (F.linear(rows, weight_j.flatten(1)),)

    def forward(
        self, actors: Tensor, context: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """H (K, d, h', w') on the grid of the first-order maps."""
        weight_i, _, weight_x = self.conv1.weight.chunk(3, dim=1)
        of_j, other_clip = self._others(actors, clip_index, bank)
        of_x = F.conv2d(context, weight_x).index_select(0, clip_index)
        of_xi = of_x + F.linear(actors, weight_i.flatten(1))[:, :, None, None]
        queries, keys = Ragged(clip_index, len(context)), Ragged(other_clip, len(context))
        mean = mean_of_rectified_sums(of_xi, of_j, queries, keys)
        related = self.conv2(mean)
        return F.max_pool2d(related, 3, 2, 1) if self.downsample else related

    def _others(self, actors: Tensor, clip_index: Tensor, bank: BankBatch | None) -> tuple[Tensor, Tensor]:
        """`project` of each j, actor or entry of the bank, and its clip."""
        if bank is None:
            return self.project(actors)[0], clip_index
        if bank.projected is not None:
            (of_j,) = bank.projected[self]
        else:
            assert bank.actors is not None, "a bank without actor features"
            (of_j,) = self.project(bank.actors.to(actors.dtype))
        return of_j if bank.row_index is None else of_j.index_select(0, bank.row_index), bank.clip_index


def mean_of_rectified_sums(maps: Tensor, vectors: Tensor, queries: Ragged, keys: Ragged) -> Tensor:
    """1/N sum_j relu(M^i_xy + v^j) over the N vectors j of i's clip, channel by channel, without forming a pair.

    Of one channel, the sum is piecewise linear in m = M^i_xy: n(m) m + s(m), where n counts the v^j above -m and
    s is their sum. So the v^j of a clip are sorted once, their sums from the top down are tabled, and each m finds
    its piece by bisection: time N log J and memory N of i, in place of N J.

    Args:
        maps: (K, d, h, w), rows of `queries`; vectors: (R, d), rows of `keys`.

    Returns:
        (K, d, h, w) of the dtype of `maps`, computed in float32 at least; 0 in clips without a vector.
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)  # n(m) m and s(m) nearly cancel
    points = queries.pad(maps.to(dtype)).transpose(1, 2)  # (B, d, N, h, w)
    values = keys.pad(vectors.to(dtype)).masked_fill(~keys.valid[:, :, None], -math.inf)
    values = values.transpose(1, 2).contiguous().sort(-1).values  # (B, d, J), the padding first
    sums = values.masked_fill(values.isneginf(), 0.0).flip(-1).cumsum(-1).flip(-1)
    sums = F.pad(sums, (0, 1))  # nothing above -m: 0
    flat = points.flatten(2)
    first = torch.searchsorted(values.detach(), -flat.detach(), right=True)
    total = (values.shape[-1] - first) * flat + sums.gather(-1, first)
    mean = total / keys.valid.sum(1).clamp(min=1)[:, None, None]
    return queries.unpad(mean.view(points.shape).transpose(1, 2)).to(maps.dtype)
