"""Which key frames make which batch: a pure function of seed and iteration, so a rerun or another
number of processes sees the same effective batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Slot:
    """One clip of one effective batch.

    `position` counts clips over the whole training and seeds the clip's augmentation.
    """

    position: int
    item: int


@dataclass(frozen=True)
class BatchPlan:
    """Cuts an endless stream of shuffled epochs into effective batches.

    Attributes:
        sizes: frame size of each item, any hashable; a micro-batch holds one size only, so no clip is ever padded.
        batch_clips: clips of an effective batch over all processes.
        micro_batch_clips: most clips of one forward pass.
        seed: of the shuffling.
        rank, world: this process and their number; process r takes every world-th clip of the batch.
    """

    sizes: Sequence[tuple[int, int]]
    batch_clips: int
    micro_batch_clips: int
    seed: int
    rank: int = 0
    world: int = 1
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def batch(self, iteration: int) -> list[Slot]:
        """The effective batch of an iteration, over all processes."""
        first = iteration * self.batch_clips
        return [Slot(p, self._item(p)) for p in range(first, first + self.batch_clips)]

    def micro_batches(self, iteration: int) -> list[list[Slot]]:
        """This process's part, grouped by frame size; may be empty."""
        mine = self.batch(iteration)[self.rank :: self.world]
        by_size: dict[tuple[int, int], list[Slot]] = {}
        for slot in mine:
            by_size.setdefault(self.sizes[slot.item], []).append(slot)
        step = self.micro_batch_clips
        return [group[i : i + step] for group in by_size.values() for i in range(0, len(group), step)]

    def stream(self, first: int, last: int) -> Iterator[list[Slot]]:
        """The micro-batches of iterations first..last-1, in order: a DataLoader's batch sampler."""
        for iteration in range(first, last):
            yield from self.micro_batches(iteration)

    def _item(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.sizes))
        if epoch not in self._epochs:
            while len(self._epochs) > 2:
                self._epochs.pop(min(self._epochs))
            self._epochs[epoch] = np.random.default_rng([self.seed, epoch]).permutation(len(self.sizes))
        return int(self._epochs[epoch][offset])
