"""The windows of one video's bank rows in prediction, each row read and projected once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from acar.bank.reader import BankRows, WindowRows
from acar.config import WindowConfig
from acar.models.hr2o import BankBatch, Projected
from acar.models.projected_rows import ProjectedRows


class NumberedBank(Protocol):
    """A bank whose rows are asked for by number: a `BankReader`, or a `WrongVideoBank`."""

    @property
    def d(self) -> int:
        """Channels of the maps."""

    @property
    def c(self) -> int:
        """Channels of the actor features."""

    def rows_of(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> WindowRows:
        """See `acar.bank.reader.BankReader.rows_of`."""

    def read(self, video: str, numbers: np.ndarray) -> BankRows:
        """See `acar.bank.reader.BankReader.read`."""


class ReadOnce:
    """A bank for several windows of one video that move together: what was read last is not read again.

    The views of a clip ask for the same rows one after another.
    """

    def __init__(self, bank: NumberedBank) -> None:
        self.bank, self.d, self.c = bank, bank.d, bank.c
        self._read: tuple[str, np.ndarray, BankRows] | None = None

    def rows_of(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> WindowRows:
        """As the bank's."""
        return self.bank.rows_of(video, time_s, radius_s, exclude_radius_s)

    def read(self, video: str, numbers: np.ndarray) -> BankRows:
        """As the bank's; the rows are not to be changed."""
        if self._read is None or self._read[0] != video or not np.array_equal(self._read[1], numbers):
            self._read = video, numbers, self.bank.read(video, numbers)
        return self._read[2]


class VideoWindows:
    """Bank batches for the clips of one video, whose seconds ascend from call to call.

    Equal to reading and projecting each clip's window anew; see `acar.models.projected_rows.ProjectedRows`.

    Args:
        bank: of maps, actor features or both.
        video: whose clips they are; a `WrongVideoBank` takes the rows from another one.
        window: radius and exclusion.
        project: what the network makes of rows: maps (M, d, h, w), or None if the bank brings none, and actor
            features (M, C), or None, float32 on `device`.
        device: where the network is.
    """

    def __init__(
        self,
        bank: NumberedBank,
        video: str,
        window: WindowConfig,
        project: Callable[[torch.Tensor | None, torch.Tensor | None], Projected],
        device: torch.device,
    ) -> None:
        self.bank, self.video, self.window, self.device = bank, video, window, device
        self.project = project
        self.rows = ProjectedRows(self._read)

    def batch(self, times_s: Sequence[float]) -> BankBatch:
        """The rows of the windows around `times_s`, ascending and none before those of earlier calls.

        Raises:
            UserError: the bank has no such video, or its rows are damaged or of another grid.
        """
        radius_s, exclude_radius_s = self.window.radius_s, self.window.exclude_radius_s
        windows = [self.bank.rows_of(self.video, time_s, radius_s, exclude_radius_s) for time_s in times_s]
        return self.rows.batch([found.numbers for found in windows], windows[0].first)

    def _read(self, numbers: np.ndarray) -> Projected:
        rows = self.bank.read(self.video, numbers)
        maps, actors = (
            torch.from_numpy(values).to(self.device).float() if brought else None
            for values, brought in ((rows.maps, self.bank.d), (rows.actors, self.bank.c))
        )
        return self.project(maps, actors)
