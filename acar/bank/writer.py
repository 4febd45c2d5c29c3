"""Write one shard of a bank, resumable after any kill, the same bytes whether or not it was interrupted.

Zarr shards are written once, when full. The rows behind the last full one (fewer than `shard_rows` a
grid) are staged, one small file a video, until later videos or `finish` complete their Zarr shard. So a
row is written at most twice (in videos of many rows, mostly once), a finished Zarr shard is never touched
again, and no rows are kept in memory between two videos. A line of the journal, written last, is what
makes a video finished.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acar.bank.layout import (
    ACTOR,
    FACTS,
    FORMAT,
    RELATION,
    REQUIRED_FACTS,
    SECONDS,
    STORE,
    GridLayout,
    chunk_file,
    grid_name,
    open_array,
    write_arrays,
    write_group,
)
from acar.config import BankConfig
from acar.disk_errors import told_as_user_error
from acar.errors import UserError
from acar.files import atomic_path, replace_folder, sha256_of, write_json_atomic
from acar.origins.record import write_origin

Rows = dict[str, np.ndarray]


@dataclass
class _Grid:
    """How far one grid's arrays have come."""

    layout: GridLayout
    rows: int = 0
    videos: list[str] = field(default_factory=list)
    staged: list[int] = field(default_factory=list)  # numbers of the videos whose last rows are staged

    @property
    def full_shards(self) -> int:
        return self.rows // self.layout.shard_rows

    @property
    def tail(self) -> int:
        return self.rows % self.layout.shard_rows

    def advance(self, number: int, video: str, rows: int) -> list[int]:
        """Count a video; return the numbers of the videos whose staged rows are no longer needed."""
        before, self.rows = self.full_shards, self.rows + rows
        self.videos.append(video)
        done: list[int] = []
        if self.full_shards > before:
            done, self.staged = self.staged, []
        if rows and self.tail:
            self.staged.append(number)
        return done


class ShardWriter:
    """Rows of a shard's videos, added one video after another in sorted order.

    Everything is written below `work`, which must lie on the file system of the final folder and outside
    what a rule declares. Opening an interrupted `work` of the same origin and settings goes on behind its
    last finished video; a `work` of anything else, or one that lost files, is started over. After an
    exception in `add_video` or `finish`, open a new writer.

    Args:
        work: folder of the work in progress.
        settings: chunk and shard sizes, compression.
        d: channels of the maps; 0: none are stored.
        c: channels of the actor features; 0: none are stored.
        facts: where the rows come from, JSON-able: at least `layout.REQUIRED_FACTS`. All but
            `layout.OWN_FACTS` must be equal in all shards of a bank.
    """

    def __init__(
        self, work: Path, settings: BankConfig, d: int, facts: Mapping[str, Any], c: int = 0
    ) -> None:
        assert d or c, "rows of what?"
        assert set(REQUIRED_FACTS) <= set(facts), f"facts need {REQUIRED_FACTS}"
        self.work, self.settings, self.d, self.c, self.facts = Path(work), settings, d, c, dict(facts)
        self.folder = self.work / "shard"
        self._entries: list[dict[str, Any]] = []
        self._finished: set[str] = set()
        self._grids: dict[str, _Grid] = {}
        if not self._resume():
            self._start()

    @property
    def finished(self) -> Set[str]:
        """Videos that need not be added again."""
        return self._finished

    def add_video(
        self,
        video: str,
        *,
        grid: tuple[int, int],
        seconds: Sequence[float],
        time_s: np.ndarray,
        boxes: np.ndarray,
        score: np.ndarray,
        maps: np.ndarray | None = None,
        actors: np.ndarray | None = None,
    ) -> None:
        """Append a video; it is in `finished` from the moment this returns.

        Args:
            video: id; behind all ids added before.
            grid: (H, W) of the video's maps, also if it has no rows.
            seconds: (S,) every second of the video, ascending, with or without actors.
            time_s: (R,) second of each row, ascending, each one of `seconds`.
            boxes: (R, 4) x1 y1 x2 y2 in 0..1 of the frame.
            score: (R,) detection scores.
            maps: (R, d, H, W) float16 or float32, F^i after the encoder, before HR2O (paper section 3.3); with d.
            actors: (R, c) float16 or float32, the features A^i; with c.

        Raises:
            UserError: a map, feature, box or score is not finite (or beyond float16); names the video and the second.
        """
        assert not self._entries or video > self._entries[-1]["video"], f"{video} added out of order"
        state = self._grid(grid_name(*grid))
        second_s = np.round(np.asarray(seconds, np.float64).reshape(-1), 6)
        row_s = np.round(np.asarray(time_s, np.float64).reshape(-1), 6)
        counts = _count_rows(video, second_s, row_s)
        rows = _as_rows(state, row_s, {RELATION: maps, ACTOR: actors}, boxes, score)
        _check_finite(video, rows)
        number = len(self._entries)
        rest = self._write_full_shards(state, rows)
        if len(rest["score"]):
            with atomic_path(self._piece(number)) as temporary:
                np.savez(temporary, **rest)  # type: ignore[arg-type]
        entry = {
            "video": video,
            "grid": state.layout.grid,
            "times_s": second_s.tolist(),
            "actors": counts.tolist(),
        }
        self._append(entry)
        self._record(entry)
        for done in state.advance(number, video, len(rows["score"])):
            self._piece(done).unlink()

    def finish(self, final: Path, origin: Mapping[str, Any] | None = None) -> None:
        """Write what is staged and the facts, then rename the shard's folder onto `final`.

        Args:
            final: the shard's folder.
            origin: for `origin.json`, which is none of the shard's sealed files: it holds the code's version.
        """
        for grid in sorted(self._grids):
            state = self._grids[grid]
            write_arrays(self.folder, state.layout, state.rows, state.videos)
            if state.tail:
                self._write(state, state.full_shards * state.layout.shard_rows, self._staged_rows(state))
        write_group(
            self.folder / STORE, {"d": self.d, "c": self.c, **{k: self.facts[k] for k in ("split", "shard")}}
        )
        with atomic_path(self.folder / SECONDS) as temporary:
            pq.write_table(_seconds_table(self._entries), temporary)
        write_json_atomic(self.folder / FACTS, self._facts())
        if origin is not None:
            write_origin(self.folder, origin)
        replace_folder(self.folder, Path(final))
        shutil.rmtree(self.work)

    def _record(self, entry: dict[str, Any]) -> None:
        self._entries.append(entry)
        self._finished.add(entry["video"])

    def _grid(self, grid: str) -> _Grid:
        if grid not in self._grids:
            self._grids[grid] = _Grid(GridLayout.of(self.settings, self.d, grid, self.c))
        return self._grids[grid]

    def _piece(self, number: int) -> Path:
        return self.work / "staged" / f"{number:07d}.npz"

    def _staged_rows(self, state: _Grid) -> Rows:
        pieces = [state.layout.empty()]
        for number in state.staged:
            with np.load(self._piece(number)) as piece:
                pieces.append({name: piece[name] for name in pieces[0]})
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _write_full_shards(self, state: _Grid, rows: Rows) -> Rows:
        """Write the Zarr shards that `rows` complete; return the rows behind them."""
        size = state.layout.shard_rows
        if state.tail + len(rows["score"]) < size:
            return rows
        staged = self._staged_rows(state)
        rows = {name: np.concatenate([staged[name], rows[name]]) for name in rows}
        first, full = state.full_shards * size, len(rows["score"]) // size * size
        # The length is set beyond the journal's; a rerun after a kill sets the same again.
        write_arrays(self.folder, state.layout, first + full, state.videos)
        self._write(state, first, {name: values[:full] for name, values in rows.items()})
        return {name: values[full:] for name, values in rows.items()}

    def _write(self, state: _Grid, first: int, rows: Rows) -> None:
        """Write rows from `first` (the start of a Zarr shard) on and flush their files to the disk."""
        grid, size = state.layout.grid, state.layout.shard_rows
        for name, values in rows.items():
            files = [
                self.folder / chunk_file(grid, name, shard_index)
                for shard_index in range(first // size, -(-(first + len(values)) // size))
            ]
            # Zarr's errors name no file; there is one at least, since `values` has rows.
            with told_as_user_error(files[0]):
                open_array(self.folder, grid, name, "r+")[first : first + len(values)] = values
                for file in files:
                    with open(file, "rb") as stream:
                        os.fsync(stream.fileno())

    def _identity(self) -> dict[str, Any]:
        layout = self.settings.model_dump(include={"chunk_kib", "rows_per_shard", "zstd_level"})
        identity = {"format": FORMAT, "d": self.d, "c": self.c, "layout": layout, "origin": self.facts}
        return json.loads(json.dumps(identity))

    @property
    def _journal(self) -> Path:
        return self.work / "journal.jsonl"

    def _append(self, entry: Mapping[str, Any]) -> None:
        with told_as_user_error(self._journal), open(self._journal, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _start(self) -> None:
        with told_as_user_error(self.work):
            if self.work.exists():
                shutil.rmtree(self.work)
            self.folder.mkdir(parents=True)
        self._entries, self._finished, self._grids = [], set(), {}
        self._append(self._identity())

    def _resume(self) -> bool:
        """Take up the finished videos of `work`; False if there is nothing to go on from."""
        if not self._journal.is_file():
            return False
        text = self._journal.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]  # a kill may tear the last line; its video was not finished
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines or lines[0] != self._identity():
            return False
        for entry in lines[1:]:
            self._grid(entry["grid"]).advance(len(self._entries), entry["video"], sum(entry["actors"]))
            self._record(entry)
        lost = [path for path in self._needed() if not path.is_file()]
        if lost:
            print(f"{self.work}: {lost[0].name} is lost; the shard starts over", file=sys.stderr)
            return False
        if len(whole) < len(text):
            os.truncate(self._journal, len(whole))
        self._remove_unfinished()
        return True

    def _needed(self) -> list[Path]:
        """The files that the finished videos' rows lie in."""
        grids = self._grids.values()
        pieces = [self._piece(number) for state in grids for number in state.staged]
        return pieces + [
            self.folder / chunk_file(state.layout.grid, name, shard_index)
            for state in grids
            for name in state.layout.arrays()
            for shard_index in range(state.full_shards)
        ]

    def _remove_unfinished(self) -> None:
        """Remove what a killed `add_video` or `finish` left behind."""
        needed = set(self._needed())
        for path in [*(self.work / "staged").glob("*"), *self.folder.rglob("*")]:
            if path.is_file() and path not in needed and path.name != "zarr.json":
                path.unlink()

    def _facts(self) -> dict[str, Any]:
        files = sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != FACTS)
        return self._identity() | {
            "rows": {grid: self._grids[grid].rows for grid in sorted(self._grids)},
            "shard_rows": {grid: self._grids[grid].layout.shard_rows for grid in sorted(self._grids)},
            "videos": len(self._entries),
            "seconds": sum(len(entry["times_s"]) for entry in self._entries),
            "files": {
                path.relative_to(self.folder).as_posix(): {
                    "bytes": path.stat().st_size,
                    "sha256": sha256_of(path),
                }
                for path in files
            },
        }


def _as_rows(
    state: _Grid, times_s: np.ndarray, features: Mapping[str, np.ndarray | None], boxes: np.ndarray,
    score: np.ndarray,
) -> Rows:  # fmt: skip
    specs, halves = state.layout.arrays(), {}
    for name in (RELATION, ACTOR):
        values = features[name]
        assert (values is None) == (name not in specs), f"{name}: given and stored do not agree"
        if values is not None:
            expected = (len(times_s), *specs[name].shape)
            assert values.shape == expected, f"{name} {values.shape}, expected {expected}"
            with np.errstate(over="ignore"):  # becomes inf, which is reported with its second
                halves[name] = np.asarray(values, np.float16)
    return {
        **halves,
        "boxes": np.asarray(boxes, np.float32).reshape(len(times_s), 4),
        "score": np.asarray(score, np.float32).reshape(len(times_s)),
        "time_s": times_s,
        "video": np.full(len(times_s), len(state.videos), np.int32),
    }


def _count_rows(video: str, second_s: np.ndarray, row_s: np.ndarray) -> np.ndarray:
    """Rows of each second, (S,) int64."""
    assert (np.diff(second_s) > 0).all() and (np.diff(row_s) >= 0).all(), f"{video}: not sorted by second"
    place = np.searchsorted(second_s, row_s)
    assert (place < len(second_s)).all() and (second_s[place] == row_s).all(), f"{video}: row of no second"
    return np.bincount(place, minlength=len(second_s))


def _check_finite(video: str, rows: Rows) -> None:
    for name in (*(n for n in (RELATION, ACTOR) if n in rows), "boxes", "score"):
        values = rows[name]
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if bad.any():
            row = int(bad.argmax())
            raise UserError(
                f"video {video!r}, second {rows['time_s'][row]:g}: {name} of row {row} is not finite; "
                "expected finite float16 values; check stage 1's metrics for divergence, and the boxes"
            )


def _seconds_table(entries: Sequence[Mapping[str, Any]]) -> pa.Table:
    """(video, time_s, grid, actors) of every second of every video; sealing counts rows against it."""
    counts = [len(entry["times_s"]) for entry in entries]
    frame = pd.DataFrame(
        {
            "video": np.repeat(np.array([entry["video"] for entry in entries], object), counts),
            "time_s": np.array([t for entry in entries for t in entry["times_s"]], np.float64),
            "grid": np.repeat(np.array([entry["grid"] for entry in entries], object), counts),
            "actors": np.array([n for entry in entries for n in entry["actors"]], np.int32),
        }
    )
    schema = pa.schema(
        [("video", pa.string()), ("time_s", pa.float64()), ("grid", pa.string()), ("actors", pa.int32())]
    )
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
