"""Batches whose clips differ in frame size: zero-padded frames, and each clip's own part of them.

Two treatments (`model.batch_padding`). `exact`: each size is computed by itself, so padding is never seen and a
clip's output does not depend on what shares its batch. `released`: as in the released code, the backbone runs
over the padding, whose edge leaks into the features; RoI features come from the padded map (boxes scaled to it)
and the context is cropped to the clip's own cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from acar.models.hr2o import BankBatch


@dataclass(frozen=True)
class SizeGroup:
    """The clips of one size among those of a batch.

    clips: (G,) int64 their numbers. actors: (K',) int64 places of their actors. clip_index: (K',) the actors'
    clips, renumbered in 0..G-1. height, width: the size.
    """

    clips: Tensor
    actors: Tensor
    clip_index: Tensor
    height: int
    width: int

    def rows(self, bank: BankBatch | None, grid: tuple[int, int]) -> BankBatch | None:
        """The part of a bank batch that these clips read; maps cut to `grid`, beyond which they are padding."""
        if bank is None:
            return None
        assert bank.projected is None, "projected rows are of one grid"
        number = torch.full((int(bank.clip_index.max()) + 1 if len(bank.clip_index) else 1,), -1)
        number = number.to(bank.clip_index.device)
        inside = self.clips[self.clips < len(number)]
        number[inside] = torch.arange(len(self.clips), device=number.device)[self.clips < len(number)]
        kept = (number[bank.clip_index] >= 0).nonzero()[:, 0]
        rows = kept if bank.row_index is None else bank.row_index[kept]
        used, row_index = rows.unique(return_inverse=True)
        maps = None if bank.maps is None else bank.maps[used][..., : grid[0], : grid[1]]
        actors = None if bank.actors is None else bank.actors[used]
        return BankBatch(maps, number[bank.clip_index[kept]], row_index, actors)


def size_groups(sizes: Tensor, clip_index: Tensor) -> Iterator[SizeGroup]:
    """The groups of equal rows of `sizes` (B, 2) int (height, width); `clip_index` (K,) names actors' clips."""
    distinct, group_of = sizes.unique(dim=0, return_inverse=True)
    group_of = group_of.to(clip_index.device)
    for number, (height, width) in enumerate(distinct.tolist()):
        clips = (group_of == number).nonzero()[:, 0]
        renumbered = torch.zeros(len(sizes), dtype=torch.int64, device=clip_index.device)
        renumbered[clips] = torch.arange(len(clips), device=clip_index.device)
        actors = (group_of[clip_index] == number).nonzero()[:, 0]
        yield SizeGroup(clips, actors, renumbered[clip_index[actors]], height, width)


def in_groups(sizes: Tensor, clip_index: Tensor, compute: Callable[[SizeGroup], Tensor]) -> Tensor:
    """Results (K', ...) of each group, put back in the order of the actors: (K, ...)."""
    groups = list(size_groups(sizes, clip_index))
    found = torch.cat([compute(group) for group in groups])
    order = torch.cat([group.actors for group in groups])
    return found.index_select(0, order.argsort())


def cells(total_cells: int, size: int, padded_size: int) -> int:
    """Cells of a padded map that a clip's own frame covers: ceil(total_cells * size / padded_size), as released."""
    return -(-total_cells * size // padded_size)
