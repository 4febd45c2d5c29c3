"""Windows of a sealed bank: the rows of seconds [t - w, t + w] of a video (paper section 3.3, eq. 5).

A row holds an actor's map L^j, its feature A^j, or both.
"""

from __future__ import annotations

import functools
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acar.bank.layout import ACTOR, FACTS, INDEX, RELATION, STORE, open_array, parse_grid
from acar.bank.manifest import check_compatible, check_same_source, read_manifest
from acar.bank.scan import DAMAGE
from acar.data.parquet import read_parquet
from acar.errors import UserError
from acar.files import sha256_of
from acar.paths import shard_name

__all__ = ["BankReader", "BankRows", "WindowRows", "check_compatible", "check_same_source"]

INDEX_COLUMNS = ["video", "time_s", "shard", "grid", "start", "length"]
# Times are kept to six decimals; a second at exactly the radius is inside.
TIME_TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class BankRows:
    """Rows of one window, ordered by second and then as the actors were added.

    Attributes:
        maps: (M, d, H, W) float16; M may be 0; d is 0 if the bank has none or they are not read.
        boxes: (M, 4) float32 x1 y1 x2 y2 in 0..1 of the frame.
        score: (M,) float32 detection scores.
        time_s: (M,) float64 second of each row.
        video: the video that the rows are of.
        actors: (M, c) float16 features A^j; c is 0 as d may be.
    """

    maps: np.ndarray
    boxes: np.ndarray
    score: np.ndarray
    time_s: np.ndarray
    video: str
    actors: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True)
class WindowRows:
    """Which rows a window has.

    Attributes:
        numbers: (M,) int64 ascending, the rows' places in the arrays of the video's shard and grid.
        first: no window of this radius at this second or later has a row before it.
    """

    numbers: np.ndarray
    first: int


class _Index:
    """`index.parquet` as arrays, the seconds of one video side by side."""

    def __init__(self, path: Path) -> None:
        remedy = "run `acar seal-bank` for this split (rule seal_bank)"
        table = read_parquet(path, INDEX_COLUMNS, remedy)
        self.time_s = table["time_s"].to_numpy(np.float64)
        self.start = table["start"].to_numpy(np.int64)
        self.length = table["length"].to_numpy(np.int64)
        names, first = np.unique(table["video"].to_numpy(object), return_index=True)
        self.videos: list[str] = [str(name) for name in names]
        self.number = {video: i for i, video in enumerate(self.videos)}
        self.bounds = np.append(first, len(table))
        self.shard = table["shard"].to_numpy()[first]
        self.grid = table["grid"].to_numpy(object)[first]

    def seconds(self, number: int) -> slice:
        """Where a video's seconds are."""
        return slice(int(self.bounds[number]), int(self.bounds[number + 1]))

    def within(self, number: int, time_s: float, radius_s: float) -> slice:
        """Where the video's seconds at most `radius_s` from `time_s` are; may be empty."""
        seconds = self.seconds(number)
        times = self.time_s[seconds]
        reach = radius_s + TIME_TOLERANCE_S
        return slice(
            seconds.start + int(np.searchsorted(times, time_s - reach, "left")),
            seconds.start + int(np.searchsorted(times, time_s + reach, "right")),
        )

    def rows(self, seconds: slice) -> slice:
        """The rows of some neighbouring seconds: one slice of the arrays of the video's shard and grid."""
        if seconds.stop <= seconds.start:
            return slice(0, 0)
        last = seconds.stop - 1
        return slice(int(self.start[seconds.start]), int(self.start[last] + self.length[last]))

    def rows_before(self, number: int, second: int) -> int:
        """The first row of a video that is not of the seconds before `second`, which may be the video's end."""
        end = int(self.bounds[number + 1])
        return int(self.start[second] if second < end else self.start[end - 1] + self.length[end - 1])

    def times(self, number: int, rows: np.ndarray) -> np.ndarray:
        """(M,) float64: the seconds of some of a video's rows (M,)."""
        seconds = self.seconds(number)
        ends = self.start[seconds] + self.length[seconds]
        return self.time_s[seconds][np.searchsorted(ends, rows, "right")]


class BankReader:
    """A sealed bank. Nothing but the manifest is read before the first window.

    Picklable; arrays are opened by the process that reads them (also after a fork). Not for several threads.

    Args:
        bank_folder: the folder of a split.
        cache_mib: most memory for whole videos' maps. A video is read whole if it fits and either the whole
            bank does, or the window before was of it too (inference walks along a video, training jumps
            about). Any other window is one slice read.
        reads: the features that windows bring, `relation`, `actor` or both; None: all that the bank has.

    Raises:
        UserError: the bank is not sealed, or a shard was rewritten since.
    """

    def __init__(
        self, bank_folder: str | Path, cache_mib: int = 64, reads: Sequence[str] | None = None
    ) -> None:
        self.folder = Path(bank_folder)
        self.cache_mib = cache_mib
        self.reads = None if reads is None else tuple(reads)
        self.manifest: dict[str, Any] = read_manifest(self.folder)
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._index_read: _Index | None = None
        self._arrays: dict[tuple[int, str, str], Any] = {}
        self._cache: OrderedDict[int, tuple[int, np.ndarray]] = OrderedDict()
        self._cached_bytes = 0
        self._last_number = -1

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "cache_mib", "reads", "manifest")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def d(self) -> int:
        """Channels of the maps that windows bring; 0: none."""
        return int(self.manifest["d"]) if self._brings(RELATION) else 0

    @property
    def c(self) -> int:
        """Channels of the actor features that windows bring; 0: none."""
        return int(self.manifest.get("c", 0)) if self._brings(ACTOR) else 0

    def _brings(self, name: str) -> bool:
        return self.reads is None or name in self.reads

    @property
    def videos(self) -> list[str]:
        """Ids of all videos, sorted, those without a single row included."""
        return list(self._index.videos)

    def grid_of(self, video: str) -> tuple[int, int]:
        """(H, W) of a video's maps, also if it has no rows."""
        return parse_grid(self._index.grid[self._number(video)])

    def seconds_of(self, video: str) -> np.ndarray:
        """(S,) float64: the video's seconds, with or without rows."""
        return self._index.time_s[self._index.seconds(self._number(video))].copy()

    def window(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> BankRows:
        """Rows of seconds [time_s - radius_s, time_s + radius_s], cut at the video's borders.

        Args:
            video: id.
            time_s: middle of the window, source time; need not be one of the bank's seconds.
            radius_s: w of the paper's window [t - w, t + w].
            exclude_radius_s: leave out rows at most so far from `time_s`; None: none.

        Returns:
            The rows; (0, d, H, W) maps if there are none.

        Raises:
            UserError: the bank has no such video, or its rows are damaged.
        """
        return self.read(video, self.rows_of(video, time_s, radius_s, exclude_radius_s).numbers)

    def rows_of(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> WindowRows:
        """Which rows `window` returns for the same arguments; reads the index alone.

        Raises:
            UserError: the bank has no such video.
        """
        index, number = self._index, self._number(video)
        seconds = index.within(number, time_s, radius_s)
        rows = index.rows(seconds)
        numbers = np.arange(rows.start, rows.stop)
        if exclude_radius_s is not None:
            cut = index.rows(index.within(number, time_s, min(exclude_radius_s, radius_s)))
            numbers = numbers[(numbers < cut.start) | (numbers >= cut.stop)]
        return WindowRows(numbers, index.rows_before(number, seconds.start))

    def read(self, video: str, numbers: np.ndarray) -> BankRows:
        """The rows of a video that `rows_of` numbers so: (M,) int64, ascending; M may be 0.

        Raises:
            UserError: the bank has no such video, or the rows are damaged.
        """
        number = self._number(video)
        if len(numbers) == 0:
            return self._no_rows(video)
        rows = slice(int(numbers[0]), int(numbers[-1]) + 1)
        times = self._index.times(number, numbers)
        n = rows.stop - rows.start
        maps = self._maps(number, rows) if self.d else self._no_rows(video, n).maps
        actors = self._read_features(number, ACTOR, rows) if self.c else np.zeros((n, 0), np.float16)
        boxes, score = self._side(number, "boxes"), self._side(number, "score")
        if len(numbers) < n:
            maps, actors = maps[numbers - rows.start], actors[numbers - rows.start]
        return BankRows(maps, boxes[numbers], score[numbers], times, video, actors)

    @property
    def _index(self) -> _Index:
        if self._pid != os.getpid():  # forked: what the parent opened belongs to the parent's threads
            self._forget()
        if self._index_read is None:
            self._index_read = _Index(self.folder / INDEX)
        return self._index_read

    def _number(self, video: str) -> int:
        try:
            return self._index.number[video]
        except KeyError:
            raise UserError(
                f"{self.folder}: no video {video!r} in this bank of split {self.manifest['split']!r} "
                f"({self.manifest['videos']} videos); was it skipped at ingest?"
            ) from None

    def _no_rows(self, video: str, rows: int = 0) -> BankRows:
        """Zeros for `rows` rows; none, as a rule."""
        return BankRows(
            np.zeros((rows, self.d, *self.grid_of(video)), np.float16), np.zeros((rows, 4), np.float32),
            np.zeros(rows, np.float32), np.zeros(rows, np.float64), video,
            np.zeros((rows, self.c), np.float16),
        )  # fmt: skip

    def _maps(self, number: int, rows: slice) -> np.ndarray:
        """Maps of the rows, as an array of the caller's own."""
        again, self._last_number = number == self._last_number, number
        if number not in self._cache and (again or self._bank_fits):
            self._cache_video(number)
        if number not in self._cache:
            return self._read_features(number, RELATION, rows)
        self._cache.move_to_end(number)
        first, maps = self._cache[number]
        return maps[rows.start - first : rows.stop - first].copy()

    @functools.cached_property
    def _bank_fits(self) -> bool:
        index = self._index
        cells = np.array([np.prod(parse_grid(grid)) for grid in index.grid], np.int64)
        of_video = np.repeat(np.arange(len(cells)), np.diff(index.bounds))
        values = self.d * int((cells[of_video] * index.length).sum())
        return 2 * values <= self.cache_mib * 2**20

    def _cache_video(self, number: int) -> None:
        rows = self._index.rows(self._index.seconds(number))
        size = 2 * (rows.stop - rows.start) * self.d * int(np.prod(parse_grid(self._index.grid[number])))
        limit = self.cache_mib * 2**20
        if size > limit:
            return
        while self._cached_bytes + size > limit:
            _, (_, dropped) = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        self._cache[number] = (rows.start, self._read_features(number, RELATION, rows))
        self._cached_bytes += size

    def _read_features(self, number: int, name: str, rows: slice) -> np.ndarray:
        values = self._read(number, name, rows)
        # A lost chunk reads as NaN (the arrays' fill value); one value of each row tells.
        lost = np.isnan(values.reshape(len(values), -1)[:, 0])
        if lost.any():
            first = rows.start + int(lost.argmax())
            raise self._damaged(number, name, slice(first, first + int(lost.sum())), "the chunk is lost")
        return values

    def _side(self, number: int, name: str) -> np.ndarray:
        """A small array of the video's shard and grid, read whole at first use: 20 bytes a row."""
        key = (int(self._index.shard[number]), str(self._index.grid[number]), f"{name} values")
        if key not in self._arrays:
            values = self._read(number, name, slice(None))
            if np.isnan(values).any():
                row = int(np.isnan(values).reshape(len(values), -1).any(1).argmax())
                raise self._damaged(number, name, slice(row, row + 1), "the chunk is lost")
            self._arrays[key] = values
        return self._arrays[key]

    def _read(self, number: int, name: str, rows: slice) -> np.ndarray:
        key = (int(self._index.shard[number]), str(self._index.grid[number]), name)
        try:
            if key not in self._arrays:
                self._check_metadata(*key)
                self._arrays[key] = open_array(self.folder / shard_name(key[0]), key[1], name)
            return np.asarray(self._arrays[key][rows])
        except DAMAGE as error:
            raise self._damaged(number, name, rows, str(error)) from error

    def _check_metadata(self, shard: int, grid: str, name: str) -> None:
        """Chunks carry checksums; a changed zarr.json could let them read as something else."""
        folder, relative = self.folder / shard_name(shard), f"{STORE}/{grid}/{name}/zarr.json"
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if sha256_of(folder / relative) != facts["files"][relative]["sha256"]:
            raise ValueError(f"{relative} is not the one that was sealed")

    def _damaged(self, number: int, name: str, rows: slice, what: str) -> UserError:
        shard, split = int(self._index.shard[number]), self.manifest["split"]
        seconds = self._index.seconds(number)
        times, ends = self._index.time_s[seconds], self._index.start[seconds] + self._index.length[seconds]
        where = "all rows"
        if rows.stop is not None:
            first, last = (int(np.searchsorted(ends, row, "right")) for row in (rows.start, rows.stop - 1))
            where = (
                f"rows {rows.start} to {rows.stop - 1}" if rows.stop - rows.start > 1 else f"row {rows.start}"
            )
            if rows.start >= self._index.start[seconds.start] and last < len(times):
                to = f" to {times[last]:g}" if last > first else ""
                where += f", second{'s' if to else ''} {times[first]:g}{to}"
        config = self.folder.parent.parent / "config.yaml"
        return UserError(
            f"{self.folder / shard_name(shard)}: {name} ({where}) for video {self._index.videos[number]!r} cannot "
            f"be read: {what}; make the shard again: "
            f"`acar extract-bank --config {config} --split {split} --shard {shard}`, then "
            f"`acar seal-bank --config {config} --split {split}`"
        )
