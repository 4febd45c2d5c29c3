"""Read every file of a bank's shards, in parallel with dask: are they whole and finite, what is in them?"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import zarr
from dask.callbacks import Callback

from acar.bank.layout import ACTOR, RELATION, STORE, open_array, parse_chunk_file
from acar.files import sha256_of
from acar.progress import Progress

# What zarr, its codecs and the file system raise on a damaged chunk, or on a damaged zarr.json.
DAMAGE = (
    ValueError,
    RuntimeError,
    OSError,
    LookupError,
    EOFError,
    TypeError,
    AttributeError,
    ArithmeticError,
)


@dataclass(frozen=True)
class Fill:
    """Statistics of the values of some maps.

    Attributes:
        values, nonzero: counts.
        total: sum of the values.
        low, high: least and greatest value; +inf and -inf over no values.
    """

    values: int = 0
    nonzero: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    @classmethod
    def of(cls, maps: np.ndarray) -> Fill:
        """Of the maps (M, d, H, W) float16."""
        if maps.size == 0:
            return cls()
        wide = maps.astype(np.float32)
        return cls(
            wide.size,
            int(np.count_nonzero(wide)),
            float(wide.sum(dtype=np.float64)),
            float(wide.min()),
            float(wide.max()),
        )

    @classmethod
    def merge(cls, parts: Iterable[Fill]) -> Fill:
        """Of all parts together."""
        parts = [cls(), *parts]
        return cls(
            sum(part.values for part in parts),
            sum(part.nonzero for part in parts),
            sum(part.total for part in parts),
            min(part.low for part in parts),
            max(part.high for part in parts),
        )

    def summary(self) -> dict[str, float | None]:
        """For the manifest, rounded so that the order of summation does not show; None without rows."""
        if self.values == 0:
            return dict.fromkeys(("nonzero_fraction", "mean", "min", "max"))
        found = (self.nonzero / self.values, self.total / self.values, self.low, self.high)
        return {
            name: float(f"{value:.6g}")
            for name, value in zip(("nonzero_fraction", "mean", "min", "max"), found, strict=True)
        }


@dataclass(frozen=True)
class FileScan:
    """What reading one file found: a problem or none; the fill, if it holds maps."""

    relative: str
    problem: str | None
    fill: Fill | None = None


def scan_file(
    folder: Path, relative: str, expected: Mapping[str, Any], shard_rows: Mapping[str, int]
) -> FileScan:
    """Check one file's size and digest against the facts; decode the maps in it and check every value."""
    path = folder / relative
    if not path.is_file():
        return FileScan(relative, f"{relative} is missing")
    size = path.stat().st_size
    if size != expected["bytes"]:
        return FileScan(relative, f"{relative} has {size} bytes, its facts expect {expected['bytes']}")
    if sha256_of(path) != expected["sha256"]:
        return FileScan(relative, f"{relative} is damaged: its SHA-256 is not the one in its facts")
    chunk = parse_chunk_file(relative)
    if chunk is None or chunk[1] not in (RELATION, ACTOR):
        return FileScan(relative, None)
    grid, name, number = chunk
    first = number * shard_rows[grid]
    try:
        maps = np.asarray(open_array(folder, grid, name)[first : first + shard_rows[grid]])
    except DAMAGE as error:
        return FileScan(relative, f"{relative} cannot be decoded: {error}")
    if not np.isfinite(maps).all():
        row = first + int((~np.isfinite(maps).all(axis=tuple(range(1, maps.ndim)))).argmax())
        what = "map" if name == RELATION else "actor feature"
        return FileScan(relative, f"{relative}: {what} of row {row} is not finite")
    return FileScan(relative, None, Fill.of(maps) if name == RELATION else None)


def scan_order(folder: Path, grid: str, seconds: pd.DataFrame, features: Sequence[str]) -> str | None:
    """Check that a grid's rows are those of `seconds` (video, time_s, actors) in order; a problem or None.

    `features` are those of the arrays `relation` and `actor` that the bank has.
    """
    expected = int(seconds["actors"].sum())
    try:
        arrays = {
            name: open_array(folder, grid, name) for name in (*features, "time_s", "video", "boxes", "score")
        }
        short = [f"{name} has {a.shape[0]} rows" for name, a in arrays.items() if a.shape[0] != expected]
        if short:
            return f"{grid}: {', '.join(short)}, index expects {expected}"
        values = {name: np.asarray(a[:]) for name, a in arrays.items() if name not in features}
        videos: Any = zarr.open_group(folder / STORE / grid, mode="r").attrs["videos"]
    except DAMAGE as error:
        return f"{grid}: cannot be read: {error}"
    if not all(np.isfinite(values[name]).all() for name in ("boxes", "score")):
        return f"{grid}: a box or score is not finite"
    number = {video: i for i, video in enumerate(videos)}
    video = np.repeat(seconds["video"].map(number).to_numpy(np.float64), seconds["actors"])
    time_s = np.repeat(seconds["time_s"].to_numpy(), seconds["actors"])
    wrong = (values["video"] != video) | (values["time_s"] != time_s)
    if wrong.any():
        row = int(wrong.argmax())
        return f"{grid}: row {row} is of second {values['time_s'][row]:g}, index expects {time_s[row]:g}"
    return None


def run_all(tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]], desc: str) -> list[Any]:
    """Run the tasks on dask's threads, in order of the list, with progress."""
    count: Progress[Any] = Progress(None, total=len(tasks), desc=desc, unit="file")
    tick = Callback(posttask=lambda *_: count.update())
    # dask's threads and zarr's own concurrency multiply: keep zarr's small.
    with tick, zarr.config.set({"async.concurrency": 2}):
        # The arguments are bound beforehand: dask would walk through every dict among them.
        delayed = [dask.delayed(functools.partial(f, *arguments), pure=False)() for f, arguments in tasks]
        found = dask.compute(*delayed, scheduler="threads", num_workers=min(16, os.cpu_count() or 1))
    count.close()
    return list(found)
