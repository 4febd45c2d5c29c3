"""Seal a bank: check every shard to the last byte, then write its index and manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acar.bank.layout import ACTOR, FACTS, FORMAT, INDEX, MANIFEST, OWN_FACTS, RELATION, SECONDS, STORE
from acar.bank.scan import FileScan, Fill, run_all, scan_file, scan_order
from acar.data.parquet import read_parquet
from acar.errors import UserError
from acar.files import atomic_path, sha256_of, write_json_atomic
from acar.paths import shard_name

SHOWN_PROBLEMS = 20
SECONDS_COLUMNS = ["video", "time_s", "grid", "actors"]
FACTS_KEYS = ["d", "rows", "shard_rows", "videos", "files", "origin", "layout"]
INDEX_SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("time_s", pa.float64()),
        ("shard", pa.int32()),
        ("grid", pa.string()),
        ("start", pa.int64()),
        ("length", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Shard:
    """A shard's facts and its table of seconds, as its writer left them."""

    number: int
    folder: Path
    facts: dict[str, Any]
    seconds: pd.DataFrame

    @property
    def name(self) -> str:
        """`shard-003`."""
        return shard_name(self.number)

    @property
    def features(self) -> list[str]:
        """The arrays of features it has: maps, actor features or both."""
        return [name for name, channels in ((RELATION, "d"), (ACTOR, "c")) if self.facts.get(channels, 0)]


class EmptyBankError(UserError):
    """Nothing is wrong with the shards, but no actor is in them."""


class _Problems:
    """What is wrong with a bank's shards, each with the command that mends it."""

    def __init__(self, split: str, config_path: str | Path) -> None:
        self.split, self.config_path = split, config_path
        self.found: list[tuple[int, str]] = []

    def add(self, shard: int, what: str) -> None:
        self.found.append((shard, what))

    def stop_if_any(self) -> None:
        if not self.found:
            return
        lines = [f"{shard_name(shard)}: {what}" for shard, what in self.found[:SHOWN_PROBLEMS]]
        if len(self.found) > SHOWN_PROBLEMS:
            lines.append(f"... and {len(self.found) - SHOWN_PROBLEMS} more")
        for shard in sorted({shard for shard, _ in self.found}):
            lines.append(
                f"rerun extract_bank for shard {shard}: "
                f"acar extract-bank --config {self.config_path} --split {self.split} --shard {shard}"
            )
        raise UserError("the bank cannot be sealed\n  " + "\n  ".join(lines))


def seal(
    bank_folder: str | Path,
    split: str,
    n_shards: int,
    *,
    expected: Sequence[Iterable[tuple[str, float]]] | None = None,
    config_path: str | Path = "results/config.yaml",
    refuse_empty: bool = False,
) -> dict[str, Any]:
    """Check the shards of a bank and write `index.parquet` and `manifest.json` into its folder.

    Every file is compared with its shard's facts, every chunk decoded, every value checked to be finite, and
    the rows counted and ordered against the shard's table of seconds. Both files depend on the shards' bytes
    alone: sealing again, or after a shard was rebuilt unchanged, gives the same bytes.

    Args:
        bank_folder: holds shard-000/ ... of the split.
        split: "train" or "val".
        n_shards: how many shards there must be; further folders are ignored.
        expected: the (video, time_s) seconds that each shard must cover, in order of the shards; None: what
            the shards say themselves.
        config_path: named in the commands that the errors suggest.
        refuse_empty: stop at a bank without a single row; a stage 2 trained on it would be stage 1 again.

    Returns:
        The manifest.

    Raises:
        UserError: a shard is missing, damaged, incomplete or of another origin than the rest; names each hole
            and the command that mends it. No manifest is left behind then.
        EmptyBankError: there is not one row in the whole bank, and `refuse_empty`.
    """
    folder = Path(bank_folder)
    for stale in (MANIFEST, INDEX):
        (folder / stale).unlink(missing_ok=True)
    problems = _Problems(split, config_path)
    shards = [s for s in (_load(folder, split, k, problems) for k in range(n_shards)) if s is not None]
    problems.stop_if_any()
    _check_same_origin(shards, problems)
    _check_videos(shards, problems)
    for shard, seconds in zip(shards, expected or []):
        _check_expected(shard, seconds, problems)
    problems.stop_if_any()
    if refuse_empty and not any(rows for shard in shards for rows in shard.facts["rows"].values()):
        raise EmptyBankError(f"{folder}: no row in any of its {sum(len(s.seconds) for s in shards)} seconds")
    scans = _scan(shards, problems)
    problems.stop_if_any()
    index = _index(shards)
    with atomic_path(folder / INDEX) as temporary:
        pq.write_table(pa.Table.from_pandas(index, schema=INDEX_SCHEMA, preserve_index=False), temporary)
    manifest = _manifest(split, shards, scans, index) | {"index_sha256": sha256_of(folder / INDEX)}
    write_json_atomic(folder / MANIFEST, manifest)
    return manifest


def load_shard(folder: Path, number: int) -> Shard:
    """Read a shard's facts and seconds.

    Raises:
        UserError: the folder or one of the two files is absent or damaged; the caller names the shard.
    """
    if not (folder / FACTS).is_file():
        raise UserError("is missing" if not folder.is_dir() else f"has no {FACTS}")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        found = facts["format"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{FACTS} or {SECONDS} cannot be read: {error}") from None
    if found != FORMAT:
        raise UserError(f"has bank format {found}, this version of acar writes {FORMAT}")
    absent = [key for key in FACTS_KEYS if key not in facts]
    if absent:
        raise UserError(f"{FACTS} has no {', '.join(absent)}: it is not one of a bank's shard")
    try:
        seconds = read_parquet(folder / SECONDS, SECONDS_COLUMNS, "extract the shard again")
    except UserError as error:
        raise UserError(f"{SECONDS} cannot be read: {error}") from None
    return Shard(number, folder, facts, seconds)


def _load(folder: Path, split: str, number: int, problems: _Problems) -> Shard | None:
    try:
        shard = load_shard(folder / shard_name(number), number)
    except UserError as error:
        problems.add(number, str(error))
        return None
    origin = shard.facts["origin"]
    if (origin["split"], origin["shard"]) != (split, number):
        held = f"holds shard {origin['shard']} of split {origin['split']!r}"
        problems.add(number, f"{held}, expected shard {number} of split {split!r}")
    for grid, rows in shard.facts["rows"].items():
        counted = int(shard.seconds.loc[shard.seconds["grid"] == grid, "actors"].sum())
        if rows != counted:
            problems.add(number, f"{rows} rows of grid {grid}, index expects {counted}")
    return shard


def _check_same_origin(shards: Sequence[Shard], problems: _Problems) -> None:
    """All shards must have the weights, d, settings and layout of the first."""
    first = shards[0].facts
    for shard in shards[1:]:
        for what in ("d", "c", "layout"):
            ours, theirs = shard.facts.get(what), first.get(what)
            if ours != theirs:
                problems.add(shard.number, f"{what} {ours}, {shards[0].name} has {theirs}")
        ours, theirs = shard.facts["origin"], first["origin"]
        for what in sorted({*ours, *theirs} - set(OWN_FACTS)):
            if ours.get(what) != theirs.get(what):
                problems.add(
                    shard.number,
                    f"{what} is {_short(ours.get(what))}, {shards[0].name} has {_short(theirs.get(what))}",
                )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:12] + "..."


def _check_videos(shards: Sequence[Shard], problems: _Problems) -> None:
    owner: dict[str, str] = {}
    for shard in shards:
        for video in shard.seconds["video"].unique():
            if video in owner:
                problems.add(shard.number, f"video {video!r} is in {owner[video]} too")
            owner[video] = shard.name


def _check_expected(shard: Shard, expected: Iterable[tuple[str, float]], problems: _Problems) -> None:
    wanted = {(str(video), round(float(time_s), 6)) for video, time_s in expected}
    found = set(zip(shard.seconds["video"], shard.seconds["time_s"].round(6).tolist()))
    if found == wanted:
        return
    video, time_s = min(wanted ^ found)
    which = "missing" if (video, time_s) in wanted else "unexpected"
    problems.add(
        shard.number,
        f"{len(found)} seconds, ingest expects {len(wanted)}; {which}: video {video!r}, second {time_s:g}",
    )


def _scan(shards: Sequence[Shard], problems: _Problems) -> dict[int, list[FileScan]]:
    """Read every file, then the order of the rows; report problems; return the scans of each shard."""
    files = [(shard, relative) for shard in shards for relative in shard.facts["files"]]
    tasks = [(scan_file, (s.folder, f, s.facts["files"][f], s.facts["shard_rows"])) for s, f in files]
    scans: dict[int, list[FileScan]] = {shard.number: [] for shard in shards}
    for (shard, _), scan in zip(files, run_all(tasks, "seal_bank: files"), strict=True):
        scans[shard.number].append(scan)
        if scan.problem:
            problems.add(shard.number, scan.problem)
    if problems.found:
        return scans
    grids = [(shard, grid) for shard in shards for grid in shard.facts["rows"]]
    orders = [
        (scan_order, (s.folder, grid, s.seconds[s.seconds["grid"] == grid], s.features)) for s, grid in grids
    ]
    for (shard, _), problem in zip(grids, run_all(orders, "seal_bank: order"), strict=True):
        if problem:
            problems.add(shard.number, problem)
    return scans


def _index(shards: Sequence[Shard]) -> pd.DataFrame:
    """Every second of every video, sorted: where its rows start in its shard's arrays, and how many."""
    parts = []
    for shard in shards:
        seconds = shard.seconds
        ends = seconds.groupby("grid", sort=False)["actors"].cumsum()
        parts.append(
            pd.DataFrame(
                {
                    "video": seconds["video"],
                    "time_s": seconds["time_s"],
                    "shard": np.int32(shard.number),
                    "grid": seconds["grid"],
                    "start": (ends - seconds["actors"]).astype(np.int64),
                    "length": seconds["actors"].astype(np.int32),
                }
            )
        )
    return pd.concat(parts, ignore_index=True).sort_values(
        ["video", "time_s"], kind="stable", ignore_index=True
    )


def _manifest(
    split: str, shards: Sequence[Shard], scans: dict[int, list[FileScan]], index: pd.DataFrame
) -> dict[str, Any]:
    grids = sorted({grid for shard in shards for grid in shard.facts["rows"]})
    described = [describe_shard(shard) for shard in shards]
    origin = shards[0].facts["origin"]
    every_scan = [scan for shard in shards for scan in scans[shard.number]]
    return {
        "format": FORMAT,
        "split": split,
        "d": shards[0].facts["d"],
        "c": shards[0].facts.get("c", 0),
        "rows": sum(shard["rows"] for shard in described),
        "bytes": sum(shard["bytes"] for shard in described),
        "videos": sum(shard["videos"] for shard in described),
        "seconds": len(index),
        "empty_seconds": int((index["length"] == 0).sum()),
        "grids": {grid: describe_grid(grid, shards, every_scan) for grid in grids},
        "shards": described,
        "provenance": {key: value for key, value in origin.items() if key not in (*OWN_FACTS, "split")},
        "layout": shards[0].facts["layout"],
    }


def describe_shard(shard: Shard) -> dict[str, Any]:
    """A shard's entry in the manifest; `digest` is of its facts, which hold the digests of all its files."""
    return {
        "name": shard.name,
        "rows": sum(shard.facts["rows"].values()),
        "bytes": sum(entry["bytes"] for entry in shard.facts["files"].values()),
        "videos": shard.facts["videos"],
        "digest": sha256_of(shard.folder / FACTS),
        **{key: shard.facts["origin"].get(key) for key in ("boxes_sha256", "videos_sha256")},
    }


def describe_grid(grid: str, shards: Sequence[Shard], scans: Sequence[FileScan]) -> dict[str, Any]:
    """A grid's entry in the manifest, over some shards and the scans of their files."""
    prefix = f"{STORE}/{grid}/"
    return {
        "rows": sum(shard.facts["rows"].get(grid, 0) for shard in shards),
        "bytes": sum(
            entry["bytes"]
            for shard in shards
            for relative, entry in shard.facts["files"].items()
            if relative.startswith(prefix)
        ),
        "videos": sum(
            int(shard.seconds.loc[shard.seconds["grid"] == grid, "video"].nunique()) for shard in shards
        ),
        "fill": Fill.merge(s.fill for s in scans if s.fill and s.relative.startswith(prefix)).summary(),
    }
