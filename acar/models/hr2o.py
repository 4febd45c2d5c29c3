"""High-order relation reasoning operator HR2O (paper section 3.2.2, eq. 2-4) and its bank form (3.3, eq. 5).

Attention over actors at every location of the map, batched over clips with different numbers of actors: rows
are padded to the largest clip and masked, so that a clip's result never depends on the others of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.errors import UserError
from acar.models.convolution import mean_of_convolution, same_convolution

# What each relation block makes of a bank's rows alone, (M, ...) tensors such as its keys and values.
Projected = Mapping[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True)
class BankBatch:
    """Rows of a feature bank for the clips of one batch; of maps, of actor features or of both.

    maps: (M, d, h, w) rows L^j, on the grid of the batch's own maps (`model.head.memory: acfb`). M may be 0.
    clip_index: (R,) int64, the clip of each entry; a clip may have none.
    row_index: (R,) int64, the row of `maps`, `actors` or `projected` of each entry, so that overlapping
        windows share rows; None: R = M and entry i is row i.
    actors: (M, C) rows A^j (`memory: lfb`).
    projected: in place of `maps` and `actors`, what the head's `project_rows` made of M >= 1 rows, all finite; for
        prediction, where it outlasts the batch and clips share most rows (`acar.models.projected_rows`). Of no
        use to `attention`.
    """

    maps: Tensor | None
    clip_index: Tensor
    row_index: Tensor | None = None
    actors: Tensor | None = None
    projected: Projected | None = None

    def to(self, device: torch.device | str) -> BankBatch:
        """The same rows on another device."""
        assert self.projected is None, "projected rows stay where they were made"

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

    def mask(self) -> Tensor:
        """(B, 1, 1, width) bool: who may be seen. A clip without rows sees its padding: finite, dropped later."""
        return (self.valid | ~self.valid.any(1, keepdim=True))[:, None, None]

    @cached_property
    def company(self) -> tuple[Tensor, Ragged]:
        """The rows (T,) int64 that are not alone in their clip, and their places."""
        rows = (self.valid.sum(1) > 1).index_select(0, self.clip_index).nonzero()[:, 0]
        return rows, Ragged(self.clip_index.index_select(0, rows), self.n_clips)


class Block(Protocol):
    """A relation block, as far as a memory needs it."""

    def project(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What the block reads of rows (M, ...): (M, ...) tensors that depend on each row alone."""


def project_rows(blocks: Iterable[nn.Module], rows: Tensor) -> Projected:
    """What each of `blocks` makes of the same rows (M, ...): every block reads them anew (eq. 5)."""
    return {block: cast(Block, block).project(rows) for block in blocks}


@dataclass(frozen=True)
class Memory:
    """What the actors attend to: each other, or a bank's rows (eq. 5).

    rows: the bank's, (M, d, h, w), or (M, d) where an operator works on vectors; None without a bank, or where
        `projected` holds what the blocks make of them.
    row_index: as in `BankBatch`.
    locations: (h*w,) int64, the location of `rows` that stands for each of the maps'; None: they are the same.
    seen: (K, M) bool, with `projected`: the rows that each actor attends to. Neighbouring windows differ in few
        rows, so all actors of the batch are related to all rows at once, and no window is copied out of them.
    """

    queries: Ragged
    keys: Ragged
    rows: Tensor | None = None
    row_index: Tensor | None = None
    projected: Projected | None = None
    locations: Tensor | None = None
    seen: Tensor | None = None

    @classmethod
    def of(cls, clip_index: Tensor, n_clips: int, bank: BankBatch | None, like: Tensor) -> Memory:
        """Memory of a batch whose own maps are `like` (K, d, h, w).

        Raises:
            UserError: the bank's maps have another grid or number of channels.
        """
        if bank is None or bank.projected is not None:
            return cls.over(clip_index, n_clips, bank)
        assert bank.maps is not None, "a bank without maps"
        check_map_rows(bank.maps, tuple(like.shape[1:]))
        return cls.over(clip_index, n_clips, bank, bank.maps.to(like.dtype))

    @classmethod
    def over(
        cls, clip_index: Tensor, n_clips: int, bank: BankBatch | None = None, rows: Tensor | None = None
    ) -> Memory:
        """Memory of a batch's actors over each other, or over `rows` (M, ...) made of the bank's."""
        queries = Ragged(clip_index, n_clips)
        if bank is None:
            return cls(queries, queries)
        assert (rows is None) == (bank.projected is not None), "rows are projected once, here or before"
        memory = cls(queries, Ragged(bank.clip_index, n_clips), rows, bank.row_index, bank.projected)
        if not bank.projected:
            return memory
        assert bank.row_index is not None, "projected rows without their places"
        m = len(next(iter(bank.projected.values()))[0])
        seen = torch.zeros((n_clips, m), dtype=torch.bool, device=clip_index.device)
        seen[bank.clip_index, bank.row_index] = True
        return replace(memory, seen=seen.index_select(0, clip_index))

    def at(self, locations: Tensor) -> Memory:
        """The same, with `locations`."""
        return replace(self, locations=locations)

    @property
    def of_bank(self) -> bool:
        """Whether the actors attend to a bank's rows, of which a clip may have none, and not to themselves."""
        return self.keys is not self.queries

    def ask(self, queries: Tensor) -> Tensor:
        """The actors' queries (K, ...), padded to (B, N, ...); (1, K, ...) if all look at the same rows."""
        return self.queries.pad(queries) if self.seen is None else queries[None]

    def answer(self, found: Tensor) -> Tensor:
        """`ask` undone: what was found for the actors, (K, ...)."""
        return self.queries.unpad(found) if self.seen is None else found[0]

    def read(self, features: Tensor, block: Block) -> tuple[Tensor, ...]:
        """What `block` reads of the rows, padded to (B, J, ...); (1, M, ...) if all look at the same rows."""
        if self.seen is None:
            return tuple(self.keys.pad(rows) for rows in self.entries(features, block))
        return tuple(rows[None] for rows in self._made(features, block))

    def entries(self, features: Tensor, block: Block) -> tuple[Tensor, ...]:
        """What `block` reads of each of the clips' entries (R, ...): each row is projected once, whatever its clips.

        Without a bank the rows are the actors' own `features`.
        """
        found = self._made(features, block)
        if self.row_index is None:
            return found
        return tuple(rows.index_select(0, self.row_index) for rows in found)

    def _made(self, features: Tensor, block: Block) -> tuple[Tensor, ...]:
        """What `block` reads of each row (M, ...), at the maps' locations."""
        if self.projected is not None:
            assert isinstance(block, nn.Module)
            made = self.projected[block]
        else:
            made = block.project(features if self.rows is None else self.rows)
        if self.locations is None:
            return made
        return tuple(rows.index_select(1, self.locations) for rows in made)

    def mask(self) -> Tensor:
        """(B, 1, N, J) bool, N 1 or as asked. Who has nothing to attend to sees it all: finite, dropped later."""
        if self.seen is None:
            return self.keys.mask()
        return (self.seen | ~self.seen.any(1, keepdim=True))[None, None]

    def or_nothing(self, related: Tensor) -> Tensor:
        """`related` (K, ...), 0 for the actors of a clip that has nothing to attend to."""
        if not self.of_bank:  # actors always attend to themselves; only a window can be empty
            return related
        empty = ~self.keys.valid.any(1).index_select(0, self.queries.clip_index)
        return related.masked_fill(empty.view(-1, *[1] * (related.dim() - 1)), 0.0)


def check_map_rows(maps: Tensor, expected: tuple[int, ...]) -> None:
    """Refuse rows of a bank (M, d, h, w) that are not on the clips' grid.

    Raises:
        UserError: (d, h, w) is not `expected`.
    """
    if tuple(maps.shape[1:]) != expected:
        raise UserError(
            f"bank rows are maps of (d, h, w) = {tuple(maps.shape[1:])}, the clips' are {expected}: extract the "
            "bank with the same model.head and the same frame size"
        )


class HR2O(nn.Module):
    """One relation block: F' = F + dropout(conv(relu(norm(sum_j Att^ij V^j)))) (eq. 2-4).

    Att is a softmax over the actors j of the clip at each location, scaled by 1 / sqrt(d); the "layer norm"
    is GroupNorm(1, d), as released. Without anything to attend to, F' = F.

    Inputs: F (K, d, h, w) and a `Memory`: the clip's actors, itself included, or a bank's maps (M, d, h, w).
    Parameters: 27 d^2 + k^2 d^2 + 2 d; k is `mlp_kernel`; queries, keys, values and last convolution have no biases.
    Reading: as released. Convolutions 3x3 for Q, K, V; the norm stands behind the sum over j; no ReLU behind F'.
    """

    def __init__(self, channels: int, mlp_kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv_q = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv_k = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv_v = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(channels, channels, mlp_kernel, padding=mlp_kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, channels)
        self.dropout = nn.Dropout(dropout)

    def project(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (M, h*w, d) of maps (M, d, h, w)."""
        convolved = (same_convolution(rows, conv.weight) for conv in (self.conv_k, self.conv_v))
        k, v = (by_location(maps) for maps in convolved)
        return k, v

    def related(self, features: Tensor, memory: Memory) -> Tensor:
        """relu(norm(sum_j Att^ij V^j)) (K, d, h, w): what the output convolution takes."""
        if memory.of_bank:
            q = memory.ask(by_location(same_convolution(features, self.conv_q.weight)))
            k, v = memory.read(features, self)
            found = memory.answer(attend(q, k, v, memory.mask()))
        else:
            found = self._among_actors(features, memory.queries)
        return F.relu(self.norm(as_maps(found, features)))

    def _among_actors(self, features: Tensor, actors: Ragged) -> Tensor:
        """sum_j Att^ij V^j (K, h*w, d) over the clip's own actors.

        One alone in its clip finds its own value, whatever its query and its key: they are not computed.
        """
        values = by_location(same_convolution(features, self.conv_v.weight))
        rows, company = actors.company
        among = features.index_select(0, rows)
        q, k = (
            company.pad(by_location(same_convolution(among, conv.weight)))
            for conv in (self.conv_q, self.conv_k)
        )
        found = attend(q, k, company.pad(values.index_select(0, rows)), company.mask())
        return values.index_copy(0, rows, company.unpad(found))

    def forward(self, features: Tensor, memory: Memory) -> Tensor:
        """(K, d, h, w) to (K, d, h, w)."""
        related = same_convolution(self.related(features, memory), self.conv.weight)
        return features + memory.or_nothing(self.dropout(related))

    def mean(self, features: Tensor, memory: Memory) -> Tensor:
        """Spatial means (K, d) of F'. Without dropout at work, the output convolution is not carried out."""
        if self.training and self.dropout.p > 0:
            return self.forward(features, memory).mean((2, 3))
        related = mean_of_convolution(self.related(features, memory), self.conv.weight)
        return features.mean((2, 3)) + memory.or_nothing(related)

    @torch.no_grad()
    def attention(self, features: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Att (K, J, h, w), summing to 1 over the valid j, and which j are valid (K, J) bool.

        J is the batch's largest number of keys; places that are not valid hold 0.
        """
        assert memory.seen is None, "the attention of rows that clips share"
        q = memory.queries.pad(by_location(same_convolution(features, self.conv_q.weight)))
        k, _ = memory.read(features, self)
        logits = torch.einsum("bnld,bjld->bnjl", q, k) / math.sqrt(features.shape[1])
        logits = logits.masked_fill(~memory.mask()[:, :, 0, :, None], -math.inf)
        weights = memory.queries.unpad(logits.softmax(2))
        valid = memory.keys.valid.index_select(0, memory.queries.clip_index)
        return (weights * valid[:, :, None]).unflatten(2, features.shape[2:]), valid


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of (B, N, h*w, d) over (B, J, h*w, d) at each location by itself: (B, N, h*w, d)."""
    # (B, h*w, N, d): locations take the place of attention heads; channels lie side by side, as is fast.
    q, k, v = (padded.transpose(1, 2) for padded in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def by_location(maps: Tensor) -> Tensor:
    """(n, d, h, w) to (n, h*w, d), a view."""
    return maps.flatten(2).transpose(1, 2)


def as_maps(rows: Tensor, like: Tensor) -> Tensor:
    """(n, h*w, d) to (n, d, h, w), contiguous, on the grid of `like`: `by_location` undone."""
    return rows.transpose(1, 2).contiguous().unflatten(2, like.shape[2:])
