"""From one annotation format to another, with what is lost and what is made up (`acar convert-annotations`).

Never imports torch.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS
from acar.data.csv_rows import csv_rows, first_row_width
from acar.data.formats.annotations import KEY_FRAME, Annotations, text_of
from acar.data.formats.names import EXCLUSIONS, LABEL_MAP
from acar.data.formats.registry import DIALECTS, FORMATS, Settings, format_of
from acar.data.formats.trimmed import to_clips
from acar.data.label_map import LabelMap, read_label_map, write_label_map
from acar.data.tables import best_scored, read_excluded, write_excluded
from acar.errors import UserError
from acar.files import check_output


def convert(
    source: Path,
    target: Path,
    to: str,
    *,
    named: str | None = None,
    label_map: Path | None = None,
    settings: Settings | None = None,
    trimmed_in: Path | None = None,
) -> list[str]:
    """Read `source`, write `target`, and tell what each holds and what is lost.

    Args:
        source: a file of any of `names.SOURCES`.
        target: the file to write.
        to: one of `names.TARGETS`.
        named: the source's format; None: told by content.
        label_map: names of the classes, where the source has none and the target needs them.
        settings: what some formats need.
        trimmed_in: folder of Kinetics clips; ids and seconds become those of the clips.

    Raises:
        UserError: a source that cannot be read, or that does not hold what the target is of.
    """
    inputs = [path for path in (source, label_map, trimmed_in) if path is not None]
    check_output(target, inputs)
    name, settings = named or format_of(source), settings or Settings()
    if to == EXCLUSIONS and name == "fair" and first_row_width(source) == 0:
        name = EXCLUSIONS  # an empty file names no key frame and no box: what it is shows in what it shall be
    if name == EXCLUSIONS:
        return _convert_exclusions(source, target, to, trimmed_in)
    if name == LABEL_MAP:
        return _convert_classes(read_label_map(source), f"{source}: {LABEL_MAP}", target, to)
    annotations = FORMATS[name].read(source, None, settings)
    classes = annotations.label_map if label_map is None else read_label_map(label_map)
    if to in DIALECTS:
        return _classes_alone(annotations, classes, source, name, target, to)
    if to == EXCLUSIONS:
        raise UserError(f"{source}: {FORMATS[name].does}; exclusions are made of exclusions only")
    told = [_summary(source, name, annotations), *annotations.notes]
    moved, notes = _moved(annotations, classes, trimmed_in)
    kept, lost = _fitted(moved, to, source)
    _check_ids(kept, to, target)
    FORMATS[to].write(kept, target, settings)
    return [*told, *notes, _summary(target, to, kept), *lost]


def _classes_alone(
    annotations: Annotations, classes: LabelMap | None, source: Path, name: str, target: Path, to: str
) -> list[str]:
    """Write the names of the classes, and tell that their boxes stay behind."""
    if classes is None:
        raise UserError(f"{source}: {FORMATS[name].does}, which has no names of classes to write")
    told = _convert_classes(classes, f"{source}: {name}", target, to)
    n_rows = len(annotations.rows)
    return told + ([f"lost: {n_rows} row(s) of boxes: a label map has classes alone"] if n_rows else [])


def _moved(
    annotations: Annotations, classes: LabelMap | None, trimmed_in: Path | None
) -> tuple[Annotations, list[str]]:
    """The annotations with these classes, at the times of the clips in a folder, if there is one."""
    rows, nobody = annotations.rows, annotations.nobody
    told: list[str] = []
    if trimmed_in is not None:
        rows, notes = to_clips(rows, trimmed_in)
        nobody, more = to_clips(nobody, trimmed_in, what="row(s) without persons")
        told += [*notes, *more]
    moved = Annotations(rows, classes, nobody=nobody)
    if len(nobody) > len(moved.nobody):  # the same key frame under a clip's name and under its video's
        told.append(f"lost: {len(nobody) - len(moved.nobody)} key frame(s) without persons that others name")
    return moved, told


def _check_ids(annotations: Annotations, to: str, target: Path) -> None:
    """Refuse ids that the target's reader would refuse.

    Raises:
        UserError: names the id.
    """
    if to in ("ava", "fair"):  # csv files hold all that a reader takes
        return
    for table, name in (
        (annotations.rows, "video"), (annotations.nobody, "video"), (annotations.rows, "actor_id"),
    ):  # fmt: skip
        bad = next((text for text in table[name].unique() if text and text_of(text) != text), None)
        if bad is not None:
            raise UserError(
                f"{target}: not written: the id {bad!r} has a control character or an odd blank, which {to} files "
                "cannot have; rename it in the source"
            )


def _summary(path: Path, name: str, annotations: Annotations) -> str:
    return (
        f"{path}: {name}, {len(annotations.rows)} row(s), {annotations.n_boxes()} box(es), "
        f"{annotations.n_key_frames()} key frame(s), {annotations.n_videos()} video(s)"
        + (f", and {len(annotations.nobody)} key frame(s) without persons" if len(annotations.nobody) else "")
    )


def _fitted(annotations: Annotations, to: str, source: Path) -> tuple[Annotations, list[str]]:
    """The annotations without what the target has no room for, and what that was.

    Every row that is left out is in a line `lost: N row(s) ...`.
    """
    holds = FORMATS[to].holds
    rows, told = _once(annotations.rows, "that repeat another")
    rows, more = _without_columns(rows, holds)
    told += more
    nobody = annotations.nobody
    if len(nobody) and "nobody" not in holds:
        told.append(f"lost: {len(nobody)} key frame(s) without persons")
        nobody = nobody.iloc[:0]
    if "classes" in holds:
        rows, more = _within_classes(rows, annotations.label_map, source)
        told += more
    elif annotations.label_map is not None:
        told.append(f"lost: names of {len(annotations.label_map)} classes (--to label-map-item writes them)")
    rows, more = _once(rows, "that differ from another in nothing but what is lost here")
    told += more
    if "action" not in holds and "score" in holds:
        n_rows, rows = len(rows), best_scored(rows)
        if n_rows > len(rows):
            told.append(
                f"lost: {n_rows - len(rows)} row(s) of boxes with several scores, of which the best is kept"
            )
    n_unscored = int(rows["score"].isna().sum())
    if "score" in holds and n_unscored and to != "coco":
        told.append(f"made up: score 1 of {n_unscored} row(s), which had none")
    return Annotations(rows, annotations.label_map, nobody=nobody), told


def _without_columns(rows: pd.DataFrame, holds: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    """The rows with nothing in the columns that the target has not, and how many had something there."""
    told: list[str] = []
    for key, column, name, nothing in (
        ("action", "action_id", "action ids", pd.array([pd.NA] * len(rows), dtype="Int64")),
        ("actor", "actor_id", "person ids", pd.array([""] * len(rows), dtype="str")),
        ("score", "score", "scores", np.full(len(rows), np.nan)),
    ):
        if key not in holds:
            n_had = int((rows[column] != "").sum() if key == "actor" else rows[column].notna().sum())
            told += [f"lost: {name} of {n_had} row(s)"] if n_had else []
            rows = rows.assign(**{column: nothing})
    return rows, told


def _once(rows: pd.DataFrame, those: str) -> tuple[pd.DataFrame, list[str]]:
    """Each row once, and what to tell of the others."""
    once = rows.drop_duplicates(ignore_index=True)
    n_lost = len(rows) - len(once)
    return once, [f"lost: {n_lost} row(s) {those}"] if n_lost else []


def _within_classes(
    rows: pd.DataFrame, label_map: LabelMap | None, source: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose actions all have a place in the list of classes, and what was lost for it."""
    actions = rows["action_id"]
    told: list[str] = []
    if label_map is None:
        if actions.notna().any():
            raise UserError(
                f"{source}: has action ids but no names of classes; give them with --label-map FILE"
            )
        return rows, told
    unknown = actions.notna() & ~actions.isin(label_map.ids)
    if unknown.any():
        ids = ", ".join(map(str, sorted(set(actions[unknown].tolist()))[:8]))
        told.append(f"lost: actions of {int(unknown.sum())} row(s) that the label map leaves out ({ids})")
        rows = rows.assign(action_id=actions.where(~unknown, pd.NA))
    if label_map.groups():
        told.append("lost: groups of classes")
    rows, more = _without_idle(rows)
    return rows, told + more


def _without_idle(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without the rows that give a person no action, of persons that have one: a record lists a person's actions."""
    person = [*KEY_FRAME, *BOX_COLUMNS, "actor_id"]
    idle = rows["action_id"].isna()
    acting = pd.MultiIndex.from_frame(rows.loc[~idle, person].drop_duplicates())
    needless = idle & pd.MultiIndex.from_frame(rows[person]).isin(acting)
    n_lost = int(needless.sum())
    kept = rows[~needless].reset_index(drop=True)
    return kept, [f"lost: {n_lost} row(s) without an action, of persons that have one"] if n_lost else []


def _convert_classes(label_map: LabelMap, told: str, target: Path, to: str) -> list[str]:
    if to not in DIALECTS:
        raise UserError(f"{target}: a label map becomes one of {', '.join(DIALECTS)}, not {to}")
    write_label_map(label_map, target, DIALECTS[to])
    n_grouped = sum(item.group is not None for item in label_map.classes)
    lost = [f"lost: groups of {n_grouped} classes"] if n_grouped and to == f"{LABEL_MAP}-list" else []
    return [f"{told}, {len(label_map)} classes", f"{target}: {to}, {len(label_map)} classes", *lost]


def _convert_exclusions(source: Path, target: Path, to: str, trimmed_in: Path | None) -> list[str]:
    if to != EXCLUSIONS:
        raise UserError(f"{source}: a csv of video, time, which can become {EXCLUSIONS} only, not {to}")
    excluded = read_excluded(source)
    told = [f"{source}: {EXCLUSIONS}, {len(excluded)} key frame(s)"]
    n_again = sum(1 for _ in csv_rows(source)) - len(excluded)
    if trimmed_in is not None:
        rows, notes = to_clips(pd.DataFrame(sorted(excluded), columns=KEY_FRAME), trimmed_in)
        excluded, told = set(zip(rows["video"], rows["time_s"], strict=True)), told + notes
        n_again += len(rows) - len(excluded)
    write_excluded(excluded, target)
    lost = [f"lost: {n_again} row(s) that repeat another"] if n_again else []
    return [*told, f"{target}: {EXCLUSIONS}, {len(excluded)} key frame(s)", *lost]
