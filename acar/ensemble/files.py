"""The ensemble of files: from the paths of several runs' detections to one file, and what to say of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from acar.data.class_groups import POSE, with_groups
from acar.data.detection_files import (
    read_any_detections,
    read_detection_files,
    write_detection_parquet,
)
from acar.data.tables import read_label_map, write_detections
from acar.ensemble.combine import Combined, Settings, combine, normalised
from acar.ensemble.runs import Run
from acar.ensemble.sources import check_out, files_of_run
from acar.errors import UserError
from acar.evaluation.mismatch import warn


def ensemble_files(
    paths: Sequence[Path], out: Path, weights: Sequence[float] | None = None, settings: Settings | None = None
) -> str:
    """Average the detections of several runs into one file.

    Args:
        paths: a run each: an AVA result csv, parquet with its columns, a folder with detections.csv, or one whose
            shard-*/ have it, as results/predictions/stage2.
        out: .csv (AVA's result format) or .parquet; an existing file is replaced.
        weights: as of `acar.ensemble.combine.ensemble`.
        settings: likewise.

    Returns:
        What to print: the runs, their shares, how many rows they have in common.

    Raises:
        UserError: a missing or malformed input, one without scores, an output of another kind or that cannot be
            written, or what `ensemble` refuses.
    """
    normalised(weights, len(paths))  # before files are read
    sources = [files_of_run(path) for path in paths]
    check_out(out, paths)
    runs = [Run.of(_read(path, files), str(path)) for path, files in zip(paths, sources)]
    _warn_of_repeats(runs)
    found = combine(runs, weights, settings)
    if len(runs) > 1 and not found.in_every_run:
        warn("ensemble", _nothing_shared(runs))
    told = as_text(runs, found, settings or Settings(), out)
    runs.clear()  # room for the writer
    if out.suffix.lower() == ".csv":
        write_detections(found.detections, out)
    else:
        write_detection_parquet(found.detections, out)
    return told


def exclusive_classes(labelmap: Path, groups: Path | None = None) -> list[int]:
    """Ids of a label map's group `pose`; `groups` is another map that tells the groups, AVA's own are known.

    Raises:
        UserError: a missing or malformed file, or one for `groups` that leaves no class exclusive.
    """
    label_map = read_label_map(labelmap)
    if groups is None:
        return with_groups(label_map).groups().get(POSE, [])
    teller = with_groups(read_label_map(groups))
    poses = with_groups(label_map, teller).groups().get(POSE, [])
    # Groups that --labelmap tells itself come first; a file that was named for nothing is a mistake also then.
    if set(label_map.ids).isdisjoint(teller.groups().get(POSE, [])):
        why, used = f"no class of {labelmap} is in its group `{POSE}`", teller.groups()
    elif not poses:
        why, used = f"not read, since {labelmap} tells groups itself, and no `{POSE}`", label_map.groups()
    else:
        return poses
    named = [name for name, ids in used.items() if not set(ids).isdisjoint(label_map.ids)]
    has = f" (but in {', '.join(f'`{name}`' for name in named)})" if named else ""
    raise UserError(
        f'--groups {groups}: {why}{has}, so none would be exclusive; expected classes with group: "{POSE}"; add '
        "them, or leave --groups out"
    )


def as_text(runs: Sequence[Run], found: Combined, settings: Settings, out: Path) -> str:
    """A line a run, how rows were averaged, how many are in common, and where the result is."""
    lines = [f"{'weight':>8} {'rows':>10} {'key frames':>10}  run"]
    for run, weight, key_frames in zip(runs, found.weights, found.key_frames):
        lines.append(f"{weight:8.4f} {len(run):10} {key_frames:10}  {run.name}")
    lines.append(f"mean of {settings.average}" + _exclusive_told(runs, settings))
    some = {"average": "averaged over the runs that have them", "zero": "counted as 0 in the others"}
    rest = f" ({some[settings.unmatched]})" if found.in_some_runs else ""
    lines.append(
        f"{found.in_every_run} rows in every run, {found.in_some_runs} in some only{rest}; {found.rounded_actors} "
        "box(es) differ between runs by rounding"
    )
    lines.append(f"{out}: {len(found.detections)} rows")
    return "\n".join(lines)


def _exclusive_told(runs: Sequence[Run], settings: Settings) -> str:
    if settings.average != "logits":
        return ""
    present = sorted(
        {int(number) for run in runs for number in run.class_ids} & set(settings.exclusive or ())
    )
    if not present:
        return f", each class by itself ({_why_none(settings.exclusive)})"
    return f", classes {', '.join(map(str, present))} as exclusive ones (softmax)"


def _why_none(exclusive: Collection[int] | None) -> str:
    if exclusive is None:
        return "no class is known to be exclusive: --labelmap"
    if not exclusive:
        return f"no class of --labelmap is in a group `{POSE}`: --groups names a map that tells them"
    return f"the exclusive ones, {', '.join(map(str, sorted(exclusive)))}, are in no run"


def _read(path: Path, sources: list[Path]) -> pd.DataFrame:
    if not path.is_dir():
        return read_any_detections(path, scored=True)
    tables = [read_detection_files(folder, scored=True) for folder in sources]
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def _warn_of_repeats(runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        same = next((other for other in runs[:number] if run.holds_the_rows_of(other)), None)
        if same is not None:
            warn(
                "ensemble",
                f"{run.name} (run {number + 1}) holds exactly the rows of {same.name}; their weights add up",
            )


def _nothing_shared(runs: Sequence[Run]) -> str:
    """Of an ensemble without a row that all runs have; with ids of videos where these are the reason."""
    told = "no row is in every run, so no score is the mean of them all; are videos, times, boxes and classes alike?"
    first = runs[0]
    for run in runs[1:]:
        if set(run.names).isdisjoint(first.names):
            return f"{told} {run.name} has videos such as {run.names[0]!r}, {first.name} such as {first.names[0]!r}"
    return told
