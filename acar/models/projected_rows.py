"""Bank rows of one video in prediction: projected once, kept on the device while a window needs them (eq. 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from acar.models.hr2o import BankBatch, Projected

GROWTH = 1.25  # of the room for rows: more would waste memory, less would copy the rows more often


class ProjectedRows:
    """What the relation's blocks make of a video's bank rows, for windows that move forward in time.

    A row is projected when a window first needs it, and leaves when no later one can. So its keys and values are
    computed once, not once a window (21 times at a radius of 10 s), and what is held is at most `GROWTH` times the
    rows of the seconds that one batch of windows spans.

    Args:
        project: reads the rows of ascending numbers (M,), M may be 0, and returns their (M, ...) tensors, all
            on one device; see `acar.models.net.ActionNet.project_rows`.
    """

    def __init__(self, project: Callable[[np.ndarray], Projected]) -> None:
        self._project = project
        self._place: dict[int, int] = {}  # of each row held
        self._free: list[int] = []
        self._room: dict[nn.Module, list[Tensor]] | None = None

    def __len__(self) -> int:
        """Rows held."""
        return len(self._place)

    @torch.inference_mode()
    def batch(self, windows: Sequence[np.ndarray], first_row: int) -> BankBatch:
        """The rows of a batch's windows, a window a clip.

        Args:
            windows: of each clip the numbers of its rows, (R,) int64; may be empty.
            first_row: neither these nor any later windows have a row before it.

        Returns:
            A bank batch whose projected rows, at least one, the next call overwrites.
        """
        for row in [row for row in self._place if row < first_row]:
            self._free.append(self._place.pop(row))
        entries = [int(row) for window in windows for row in window]
        new = sorted(set(entries) - self._place.keys())
        if new or self._room is None:
            self._enter(new)
        assert self._room is not None
        projected = {block: tuple(tensors) for block, tensors in self._room.items()}
        device = _device(projected)
        lengths = torch.tensor([len(window) for window in windows], dtype=torch.int64)
        return BankBatch(
            None,
            torch.repeat_interleave(torch.arange(len(windows)), lengths).to(device),
            torch.tensor([self._place[row] for row in entries], dtype=torch.int64).to(device),
            projected=projected,
        )

    def _enter(self, rows: list[int]) -> None:
        made = self._project(np.array(rows, np.int64))
        self._make_room(len(rows), made)
        assert self._room is not None
        places = [self._free.pop() for _ in rows]
        self._place.update(zip(rows, places, strict=True))
        index = torch.tensor(places, dtype=torch.int64, device=_device(made))
        for block, tensors in made.items():
            for held, values in zip(self._room[block], tensors, strict=True):
                held.index_copy_(0, index, values)

    def _make_room(self, count: int, like: Projected) -> None:
        """Have at least `count` free places, in tensors of the shapes of `like`."""
        size = len(self._place) + len(self._free)
        if self._room is not None and len(self._free) >= count:
            return
        larger = max(1, len(self._place) + count, int(GROWTH * size) if count else 0)
        room = {b: [t.new_zeros((larger, *t.shape[1:])) for t in tensors] for b, tensors in like.items()}
        for block, tensors in (self._room or {}).items():
            for old, new in zip(tensors, room[block], strict=True):
                new[:size] = old
        self._room, self._free = room, [*self._free, *range(size, larger)]


def _device(projected: Projected) -> torch.device:
    """Of the rows; a head without a block has none, and its batch is read by nobody."""
    return next((tensors[0].device for tensors in projected.values()), torch.device("cpu"))
