"""A control: windows with every video's rows taken from another video."""

from __future__ import annotations

from typing import Any

import numpy as np

from acar.bank.layout import grid_name
from acar.bank.reader import BankReader, BankRows, WindowRows
from acar.errors import UserError


class WrongVideoBank:
    """The same windows with every video's rows taken from another video of the same grid: a control.

    What a network gains from a bank must vanish here. Each video is mapped to the next one of a random cycle
    through its grid's videos, so none to itself; the window is at the same second, moved into that video's
    seconds if it lies outside.

    Raises:
        UserError: a grid has only one video.
    """

    def __init__(self, reader: BankReader, seed: int) -> None:
        self.reader, self.seed = reader, seed
        by_grid: dict[tuple[int, int], list[str]] = {}
        for video in reader.videos:
            by_grid.setdefault(reader.grid_of(video), []).append(video)
        self.taken_from: dict[str, str] = {}
        rng = np.random.default_rng(seed)
        for grid in sorted(by_grid):
            videos = by_grid[grid]
            if len(videos) < 2:
                raise UserError(
                    f"{reader.folder}: {videos[0]!r} is the only video of grid {grid_name(*grid)}; a "
                    "wrong-video bank needs another one of the same grid; set predict.wrong_bank: false"
                )
            cycle = [videos[i] for i in rng.permutation(len(videos))]
            self.taken_from |= dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))

    @property
    def d(self) -> int:
        """Channels of the maps."""
        return self.reader.d

    @property
    def c(self) -> int:
        """Channels of the actor features."""
        return self.reader.c

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the bank itself."""
        return self.reader.manifest

    @property
    def videos(self) -> list[str]:
        """Ids of all videos, sorted."""
        return self.reader.videos

    def grid_of(self, video: str) -> tuple[int, int]:
        """(H, W) of the video's maps, and of the other video's."""
        return self.reader.grid_of(video)

    def seconds_of(self, video: str) -> np.ndarray:
        """The seconds of the video itself."""
        return self.reader.seconds_of(video)

    def rows_of(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> WindowRows:
        """As `BankReader.rows_of`, of the other video."""
        other = self.taken_from.get(video, video)
        seconds = self.reader.seconds_of(other)
        inside = float(np.clip(time_s, seconds[0], seconds[-1]))
        return self.reader.rows_of(other, inside, radius_s, exclude_radius_s)

    def read(self, video: str, numbers: np.ndarray) -> BankRows:
        """As `BankReader.read`, of the other video; `video` and `time_s` of the rows are that one's."""
        return self.reader.read(self.taken_from.get(video, video), numbers)

    def window(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> BankRows:
        """As `BankReader.window`, of the other video."""
        return self.read(video, self.rows_of(video, time_s, radius_s, exclude_radius_s).numbers)
