"""Where a run's detections lie, and where an ensemble may not be written. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from acar.data.detection_files import CSV_NAME
from acar.errors import UserError
from acar.files import check_name, check_output
from acar.paths import shard_name

SUFFIXES = (".csv", ".parquet")
EXPECTED = (
    "expected a result csv, a parquet file with its columns, or a folder that `acar predict` wrote, e.g. "
    "results/predictions/stage2"
)
_SHARD = re.compile(r"\.?shard-(?P<number>\d{3,})(?:\.tmp)?")


def files_of_run(path: Path) -> list[Path]:
    """The file or folder of a run, or its shards' folders by number, also beyond shard-999.

    Raises:
        UserError: nothing is there, a folder without detections or with two kinds of them, or a shard is missing.
    """
    check_name(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; {EXPECTED}; correct the name, or leave this run out")
    if not path.is_dir():
        return [path]
    shards = _shards(path)
    if (path / CSV_NAME).is_file():
        if shards:
            raise UserError(
                f"{path}: both {CSV_NAME} and {shards[min(shards)].name}/ in it; expected one of them; move the file "
                f"out of that folder, or name {path / CSV_NAME}"
            )
        return [path]
    if not shards:
        raise UserError(f"{path}: neither {CSV_NAME} nor shard-*/ in it; {EXPECTED}; name another folder")
    _check_whole(path, shards)
    return [shards[number] for number in sorted(shards)]


def check_out(out: Path, paths: Sequence[Path]) -> None:
    """Refuse before the work what could not be written after it, or would become a part of a run.

    Args:
        out: the ensemble's file.
        paths: the runs, as the user named them.

    Raises:
        UserError: a suffix of no format, a place where nothing can be written, a run's file or a place in its folder.
    """
    check_name(out, option="--out")
    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        what = "a folder" if out.is_dir() else f"suffix {out.suffix!r}"
        raise UserError(f"--out {out}: {what}; expected a file named .csv (AVA's result format) or .parquet")
    check_output(out, [path for path in paths if not path.is_dir()], option="--out")
    folder = out.parent.resolve()
    run = next((path for path in paths if path.is_dir() and folder.is_relative_to(path.resolve())), None)
    if run is not None:
        raise UserError(
            f"--out {out}: inside of {run}, which is a run; expected a place outside of it, where neither `acar "
            "predict` nor the next ensemble takes the file for a part of that run"
        )
    if out.name == CSV_NAME and folder.is_dir() and _shards(folder):
        raise UserError(f"--out {out}: beside the shards of a run, which it would hide; name another folder")


def _shards(folder: Path) -> dict[int, Path]:
    """The folders shard-000, shard-001, ... that are there, by number."""
    numbers = {number: folder / shard_name(number) for number in _numbers(folder)}
    return {number: path for number, path in numbers.items() if path.is_dir()}


def _numbers(folder: Path) -> set[int]:
    """Of shards that are there, whole or in the making."""
    found = (_SHARD.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    return {int(match["number"]) for match in found if match is not None}


def _check_whole(folder: Path, shards: dict[int, Path]) -> None:
    """Every number up to the last one, each with its detections; how many should follow nobody knows here."""
    last = max(_numbers(folder))
    missing = [number for number in range(last + 1) if number not in shards]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{folder / shard_name(missing[0])}: no such folder{more}; expected all shards from 0 to {last}; run "
            f"`{_predict(folder, missing[0])}`, or remove what is of another run"
        )
    for number in sorted(shards):
        if not (shards[number] / CSV_NAME).is_file():
            raise UserError(
                f"{shards[number] / CSV_NAME}: no such file; expected what `acar predict` writes; run "
                f"`{_predict(folder, number)}`"
            )


def _predict(folder: Path, number: int) -> str:
    """The command that writes a shard; the folders that `predict` writes are named by their variant."""
    name = folder.resolve().name
    return f"acar predict{f' --variant {name}' if name.startswith('stage') else ''} --shard {number}"
