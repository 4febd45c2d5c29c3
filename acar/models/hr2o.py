"""High-order relation reasoning operator HR2O (paper section 3.2.2, eq. 2-4) and its bank form (3.3, eq. 5).

Attention over actors at every location of the map, batched over clips with different numbers of actors: rows
are padded to the largest clip and masked, so that a clip's result never depends on the others of its batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.errors import UserError


@dataclass(frozen=True)
class BankBatch:
    """Rows of a feature bank for the clips of one batch; of maps, of actor features or of both.

    maps: (M, d, h, w) rows L^j, on the grid of the batch's own maps (`model.head.memory: acfb`). M may be 0.
    clip_index: (R,) int64, the clip of each entry; a clip may have none.
    row_index: (R,) int64, the row of `maps` or `actors` of each entry, so that overlapping windows share
        rows; None: R = M and entry i is row i.
    actors: (M, C) rows A^j (`memory: lfb`).
    """

    maps: Tensor | None
    clip_index: Tensor
    row_index: Tensor | None = None
    actors: Tensor | None = None

    def to(self, device: torch.device | str) -> BankBatch:
        """The same rows on another device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        clip_index = self.clip_index.to(device, non_blocking=True)
        return BankBatch(moved(self.maps), clip_index, moved(self.row_index), moved(self.actors))


class Ragged:
    """Places R rows of B clips into a padded (B, width, ...) tensor and back.

    `valid` (B, width) bool marks the places in use; `place` (R,) is each row's place in
    the flattened B * width.
    """

    def __init__(self, clip_index: Tensor, n_clips: int) -> None:
        member = clip_index[:, None] == torch.arange(n_clips, device=clip_index.device)
        counts = member.sum(0)
        rank = (member.long().cumsum(0) - 1).gather(1, clip_index[:, None])[:, 0]
        # At least one place: the relation's weights then stay in the graph even if no clip has a row.
        self.width = max(1, int(counts.max())) if clip_index.numel() else 1
        self.n_clips = n_clips
        self.clip_index = clip_index
        self.place = clip_index * self.width + rank
        self.valid = torch.arange(self.width, device=clip_index.device) < counts[:, None]

    def pad(self, rows: Tensor) -> Tensor:
        """(R, ...) to (B, width, ...), zero where no row is."""
        empty = rows.new_zeros((self.n_clips * self.width, *rows.shape[1:]))
        return empty.index_copy(0, self.place, rows).unflatten(0, (self.n_clips, self.width))

    def unpad(self, padded: Tensor) -> Tensor:
        """(B, width, ...) to (R, ...)."""
        return padded.flatten(0, 1).index_select(0, self.place)


@dataclass(frozen=True)
class Memory:
    """What the actors attend to: each other (`maps` None), or a bank's rows (eq. 5).

    `maps` are (M, d, h, w), or (M, d) where an operator works on vectors.
    """

    queries: Ragged
    keys: Ragged
    maps: Tensor | None = None
    row_index: Tensor | None = None

    @classmethod
    def of(cls, clip_index: Tensor, n_clips: int, bank: BankBatch | None, like: Tensor) -> Memory:
        """Memory of a batch whose own maps are `like` (K, d, h, w).

        Raises:
            UserError: the bank's maps have another grid or number of channels.
        """
        if bank is None:
            return cls.over(clip_index, n_clips)
        assert bank.maps is not None, "a bank without maps"
        if bank.maps.shape[1:] != like.shape[1:]:
            raise UserError(
                f"bank rows are maps of (d, h, w) = {tuple(bank.maps.shape[1:])}, the clips' are "
                f"{tuple(like.shape[1:])}: extract the bank with the same model.head and the same frame size"
            )
        return cls.over(clip_index, n_clips, bank, bank.maps.to(like.dtype))

    @classmethod
    def over(
        cls, clip_index: Tensor, n_clips: int, bank: BankBatch | None = None, rows: Tensor | None = None
    ) -> Memory:
        """Memory of a batch's actors over each other, or over `rows` (M, ...) made of the bank's."""
        queries = Ragged(clip_index, n_clips)
        if bank is None:
            return cls(queries, queries)
        return cls(queries, Ragged(bank.clip_index, n_clips), rows, bank.row_index)

    def source(self, features: Tensor) -> Tensor:
        """Maps that keys and values are computed from: each row once, however many clips it serves."""
        return features if self.maps is None else self.maps

    def entries(self, rows: Tensor) -> Tensor:
        """Rows of `source` to entries of the clips."""
        return rows if self.row_index is None else rows.index_select(0, self.row_index)

    def mask(self) -> Tensor:
        """(B, 1, 1, J) bool. A clip without keys attends to its padding: a finite value, dropped later."""
        valid = self.keys.valid
        return (valid | ~valid.any(1, keepdim=True))[:, None, None, :]

    def not_empty(self) -> Tensor:
        """(K,) bool: the actor's clip has anything to attend to."""
        return self.keys.valid.any(1).index_select(0, self.queries.clip_index)


class HR2O(nn.Module):
    """One relation block: F' = F + dropout(conv(relu(norm(sum_j Att^ij V^j)))) (eq. 2-4).

    Att is a softmax over the actors j of the clip at each location, scaled by 1 / sqrt(d); the "layer norm"
    is GroupNorm(1, d), as released. Without anything to attend to, F' = F.
    """

    def __init__(self, channels: int, mlp_kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv_q = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv_k = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv_v = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(channels, channels, mlp_kernel, padding=mlp_kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, memory: Memory) -> Tensor:
        """(K, d, h, w) to (K, d, h, w)."""
        source = memory.source(features)
        q = by_location(memory.queries.pad(self.conv_q(features)))
        k = by_location(memory.keys.pad(memory.entries(self.conv_k(source))))
        v = by_location(memory.keys.pad(memory.entries(self.conv_v(source))))
        related = F.scaled_dot_product_attention(q, k, v, attn_mask=memory.mask())
        related = memory.queries.unpad(related.permute(0, 2, 3, 1)).unflatten(2, features.shape[2:])
        related = self.dropout(self.conv(F.relu(self.norm(related))))
        if memory.maps is not None:  # actors always attend to themselves; only a window can be empty
            related = related.masked_fill(~memory.not_empty()[:, None, None, None], 0.0)
        return features + related

    @torch.no_grad()
    def attention(self, features: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Att (K, J, h, w), summing to 1 over the valid j, and which j are valid (K, J) bool.

        J is the batch's largest number of keys; places that are not valid hold 0.
        """
        q = memory.queries.pad(self.conv_q(features))
        k = memory.keys.pad(memory.entries(self.conv_k(memory.source(features))))
        logits = torch.einsum("bndhw,bjdhw->bnjhw", q, k) / math.sqrt(features.shape[1])
        logits = logits.masked_fill(~memory.mask()[:, :, 0, :, None, None], -math.inf)
        weights = memory.queries.unpad(logits.softmax(2))
        valid = memory.keys.valid.index_select(0, memory.queries.clip_index)
        return weights * valid[:, :, None, None], valid


def by_location(padded: Tensor) -> Tensor:
    """(B, N, d, h, w) to (B, h*w, N, d): locations take the place of attention heads."""
    return padded.flatten(3).permute(0, 3, 1, 2)
