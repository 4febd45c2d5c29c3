"""A bank of one video in memory, with what it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acar.bank.reader import BankRows, WindowRows


class Rows:
    """A bank of one video: `counts` rows a second, seconds from 0; notes what was read."""

    def __init__(self, counts: Sequence[int], grid: tuple[int, int], d: int, c: int) -> None:
        rng = np.random.default_rng(0)
        self.time_s, self.grid, self.d, self.c = np.repeat(np.arange(len(counts)), counts), grid, d, c
        n = len(self.time_s)
        self.maps = rng.standard_normal((n, d, *grid)).astype(np.float16)
        self.actors = rng.standard_normal((n, c)).astype(np.float16)
        self.read_numbers: list[int] = []

    def rows_of(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> WindowRows:
        distance = abs(self.time_s - time_s)
        keep = distance <= radius_s
        if exclude_radius_s is not None:
            keep &= distance > exclude_radius_s
        return WindowRows(np.flatnonzero(keep), int((self.time_s < time_s - radius_s).sum()))

    def read(self, video: str, numbers: np.ndarray) -> BankRows:
        self.read_numbers += numbers.tolist()
        n = len(numbers)
        return BankRows(
            self.maps[numbers],
            np.zeros((n, 4)),
            np.zeros(n),
            self.time_s[numbers],
            video,
            self.actors[numbers],
        )
