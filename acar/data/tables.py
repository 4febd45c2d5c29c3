"""The tables that cross the project's border: AVA-format csv files, label maps and the ingest's videos.

A box is x1,y1,x2,y2 in 0..1 of the frame (x to the right, y down); times are seconds of the source video,
rounded to 6 decimals, so that `902`, `0902` and `902.000000` name one key frame. Csv files have no header.
Everything is checked here, once; what a `read_*` returns can be trusted. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import (
    BOX_COLUMNS,
    Lines,
    check_boxes,
    check_finite,
    check_range,
    format_time,
    read_csv,
    refuse,
    write_csv,
)
from acar.data.csv_rows import first_row_width
from acar.data.findings import Findings
from acar.data.label_map import ActionClass, LabelMap, read_label_map, write_label_map
from acar.data.parquet import read_parquet
from acar.errors import UserError

__all__ = [
    "BOX_COLUMNS",
    "DETECTION_COLUMNS",
    "LABEL_COLUMNS",
    "PERSON_BOX_COLUMNS",
    "ActionClass",
    "LabelMap",
    "RepeatedRows",
    "best_scored",
    "check_any_usable",
    "check_labels",
    "format_time",
    "labels_in_span",
    "labels_without",
    "read_box_csv",
    "read_boxes",
    "read_detections",
    "read_excluded",
    "read_key_frames",
    "read_label_map",
    "read_labels",
    "read_scored",
    "read_videos",
    "repeated_labels",
    "write_box_csv",
    "write_detections",
    "write_excluded",
    "write_label_map",
    "write_labels",
]

LABEL_COLUMNS = ["video", "time_s", *BOX_COLUMNS, "action_id", "actor_id"]
DETECTION_COLUMNS = ["video", "time_s", *BOX_COLUMNS, "action_id", "score"]
PERSON_BOX_COLUMNS = ["video", "time_s", *BOX_COLUMNS, "score"]


def read_labels(path: str | Path, *, clip: bool = True, found: Findings | None = None) -> pd.DataFrame:
    """Read an AVA label csv: video, time, x1, y1, x2, y2, action id, actor id (the last may be left out).

    An empty action id means a person without an action (NA). Rows whose box and action are both empty
    (a key frame where nobody was found), also those of a video and a time alone (AVA-Kinetics), are left out.
    `clip` cuts boxes that reach out of the frame by rounding; without it they stay as given.

    Args:
        path: the file.
        clip: as above.
        found: collects the malformed rows, which are left out; None: the first one is raised.

    Returns:
        video str, time_s float64, x1 y1 x2 y2 float64, action_id Int64 (NA: none), actor_id str.

    Raises:
        UserError: no such file, no rows, not UTF-8, or a malformed row; names file, line and value.
    """
    return read_key_frames(path, clip=clip, found=found)[0]


def read_key_frames(
    path: str | Path, *, clip: bool = True, found: Findings | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read an AVA label csv with the key frames where nobody was found.

    Returns:
        the rows as `read_labels` gives them, and video str, time_s float64 of each row that `read_labels` leaves out.

    Raises:
        UserError: as `read_labels`.
    """
    frame, lines, nobody = _label_rows(Path(path), found)
    check_boxes(frame, lines, clip=clip)
    refuse(frame["action_id"].lt(1).fillna(False), lines,
            lambda row: f"action id is {row.action_id}; expected 1, 2, ... or nothing", frame)  # fmt: skip
    return lines.good(frame), nobody


def _label_rows(path: Path, found: Findings | None = None) -> tuple[pd.DataFrame, Lines, pd.DataFrame]:
    """The rows of a labels csv that are of a person, boxes unchecked; video and time_s of the others."""
    if path.is_file():
        with open(path, "rb") as stream:
            first = stream.read(1)
        if first in (b"\x80", b"{"):
            what = "a pickle" if first == b"\x80" else "json"
            raise UserError(
                f"{path}: {what}; labels are read from AVA's csv, which `acar convert-annotations {path} LABELS.csv "
                "--to ava` writes from the formats of docs/data.md"
            )
    frame, lines = read_csv(path, LABEL_COLUMNS, n_required=7, bare=2, found=found)
    nobody = frame[BOX_COLUMNS].isna().all(axis=1) & frame["action_id"].isna()
    if nobody.all() and not (found and found.of(path)):
        raise UserError(
            f"{path}: no rows; expected lines of {','.join(LABEL_COLUMNS)} without a header; write the labels "
            "there, or name another file in the config"
        )
    places = lines.good(frame[["video", "time_s"]].assign(nobody=nobody))
    others = places.loc[places["nobody"], ["video", "time_s"]].reset_index(drop=True)
    if nobody.any():
        kept = np.flatnonzero(~nobody.to_numpy())
        frame, lines = frame.iloc[kept].reset_index(drop=True), lines.of_rows(kept)
    return frame, lines, others


@dataclass(frozen=True)
class RepeatedRows:
    """Rows of a labels csv that say what an earlier one says, to the person id.

    Attributes:
        count: how many rows.
        lines: line of each of the first few, and of the row that it repeats.
    """

    count: int
    lines: list[tuple[int, int]]

    def __str__(self) -> str:
        shown = ", ".join(f"line {line} repeats line {first}" for line, first in self.lines)
        return shown + (f" and {self.count - len(self.lines)} more" if self.count > len(self.lines) else "")


def repeated_labels(path: str | Path, *, at_most: int = 5, found: Findings | None = None) -> RepeatedRows:
    """Find the rows of a labels csv that repeat another: same video, second, box, action and person.

    Args:
        path: a csv that `read_labels` reads.
        at_most: so many are named by line.
        found: as `read_labels` takes it.
    """
    frame, lines, _ = _label_rows(Path(path), found)
    repeats = np.flatnonzero(frame.duplicated().to_numpy())
    if not len(repeats):
        return RepeatedRows(0, [])
    named = repeats[:at_most].tolist()
    same = frame.groupby(LABEL_COLUMNS, dropna=False, sort=False).ngroup().to_numpy()
    firsts = [int(np.argmax(same == same[row])) for row in named]
    pairs = zip(lines.numbers(named), lines.numbers(firsts), strict=True)
    return RepeatedRows(len(repeats), list(pairs))


def write_labels(labels: pd.DataFrame, path: str | Path) -> None:
    """Write `labels` as an AVA label csv, atomically; boxes in as many digits as they have."""
    write_csv(labels[LABEL_COLUMNS], Path(path), exact=True)


def check_labels(labels: pd.DataFrame, label_map: LabelMap, path: str | Path) -> pd.DataFrame:
    """Hold `labels` (read from `path`) against the label map.

    An id in a gap of the map is a class that the data set leaves out (AVA evaluates 60 of its 80): its rows
    stay, as persons without an action. An id beyond the map's largest one is a mistake.

    Returns:
        A copy in which every action_id is NA or in the map.

    Raises:
        UserError: an unknown class id, or no row with a class of the map.
    """
    known, last = labels["action_id"].isin(label_map.ids), max(label_map.ids)
    if labels["action_id"].gt(last).fillna(False).any():
        rows, lines, _ = _label_rows(Path(path))  # again, for the line
        refuse(
            rows["action_id"].gt(last).fillna(False), lines,
            lambda row: f"video {row.video}, second {format_time(row.time_s)}: action id {row.action_id} not "
            f"in the label map, whose last is {last}; add the class to the map or correct the row",
            rows,
        )  # fmt: skip
    if not known.any():
        raise UserError(f"{path}: no row has a class of the label map; is it the right label map?")
    return labels.assign(action_id=labels["action_id"].where(known, pd.NA))


def labels_in_span(labels: pd.DataFrame, span_s: tuple[float, float] | None) -> pd.DataFrame:
    """The rows at seconds of `span_s`, both ends included; all of them without one."""
    if span_s is None:
        return labels
    return labels[labels["time_s"].between(*span_s)]


def labels_without(labels: pd.DataFrame, excluded: Collection[tuple[str, float]]) -> pd.DataFrame:
    """The rows that are not at an excluded (video, second)."""
    if not excluded:
        return labels
    return labels[~pd.MultiIndex.from_frame(labels[["video", "time_s"]]).isin(list(excluded))]


def read_excluded(path: str | Path, *, found: Findings | None = None) -> set[tuple[str, float]]:
    """Read a csv of video, time: the key frames left out of evaluation. An empty file excludes nothing.

    Raises:
        UserError: no such file, not UTF-8, or a malformed row (unless `found` collects those).
    """
    frame, lines = read_csv(Path(path), ["video", "time_s"], n_required=2, found=found)
    frame = lines.good(frame)
    return set(zip(frame["video"].tolist(), frame["time_s"].tolist()))


def write_excluded(excluded: Collection[tuple[str, float]], path: str | Path) -> None:
    """Write key frames as `read_excluded` reads them, sorted, atomically."""
    write_csv(pd.DataFrame(sorted(excluded), columns=["video", "time_s"]), Path(path))


def read_detections(path: str | Path, *, scored: bool = False) -> pd.DataFrame:
    """Read an AVA result csv: video, time, x1, y1, x2, y2, action id, score (1.0 if the file has none). May be empty.

    Boxes stay as given, also inverted ones: what becomes of those is the evaluation protocol's business.

    Args:
        path: the file.
        scored: a row without a score is malformed.

    Returns:
        video str, time_s float64, x1 y1 x2 y2 float64, action_id int64, score float64.

    Raises:
        UserError: no such file, not UTF-8, a malformed row, or boxes in pixels.
    """
    frame, lines = read_csv(Path(path), DETECTION_COLUMNS, n_required=8 if scored else 7)
    refuse(frame["action_id"].isna(), lines, lambda row: "no action id; expected 1, 2, ...", frame)
    check_finite(frame, lines, BOX_COLUMNS)
    # A detector may leave boxes unclipped; farther out than a whole frame they can only be pixels.
    check_range(frame, lines, -1.0, 2.0)
    missing = frame["score"].isna()
    if not missing.all():  # a file that was cut off would gain a best-scored row
        refuse(missing, lines, lambda row: "no score, which other rows have; add it or remove the row", frame)
    frame["score"] = frame["score"].fillna(1.0)
    check_finite(frame, lines, ["score"])
    return frame.astype({"action_id": np.int64})


def write_detections(detections: pd.DataFrame, path: str | Path) -> None:
    """Write `detections` as an AVA result csv, atomically; boxes and scores keep 6 decimals."""
    write_csv(detections[DETECTION_COLUMNS], Path(path))


def read_box_csv(path: str | Path, *, clip: bool = True) -> pd.DataFrame:
    """Read person boxes: video, time, x1, y1, x2, y2, [action id,] score, as in FAIR's detection files.

    The action id is ignored; a box repeated once a label counts once, with its best score. May be empty.

    Returns:
        video str, time_s float64, x1 y1 x2 y2 float64, score float64.

    Raises:
        UserError: no such file, not UTF-8, or a malformed row.
    """
    return best_scored(read_scored(path, clip=clip)[PERSON_BOX_COLUMNS])


def best_scored(boxes: pd.DataFrame) -> pd.DataFrame:
    """Each box of a key frame once, with the best of its scores (NaN: none), in the order of those rows.

    Args:
        boxes: the columns video, time_s, x1, y1, x2, y2, score and maybe others, of which the best-scored row's stay.
    """
    box = PERSON_BOX_COLUMNS[:-1]
    if boxes.duplicated(box).any():
        boxes = boxes.drop_duplicates(PERSON_BOX_COLUMNS)  # fewer to sort: most repeat their score, too
        boxes = boxes.sort_values("score", ascending=False, kind="stable").drop_duplicates(box).sort_index()
    return boxes.reset_index(drop=True)


def read_scored(path: str | Path, *, clip: bool = True, found: Findings | None = None) -> pd.DataFrame:
    """Read boxes with scores, and with the action ids that FAIR's detection files give them.

    Of 8 columns the last two are action id (empty or below 1: none) and score, of 7 the last is the score, and
    6 hold none, which makes it 1. May be empty.

    Args:
        path: the file.
        clip: cut boxes that reach out of the frame by rounding.
        found: collects the malformed rows, which are left out; None: the first one is raised.

    Returns:
        video str, time_s float64, x1 y1 x2 y2 float64, action_id Int64 (NA: none), score float64.

    Raises:
        UserError: no such file, not UTF-8, or a malformed row.
    """
    path = Path(path)
    width = first_row_width(path)
    names = DETECTION_COLUMNS if width not in (6, 7) else PERSON_BOX_COLUMNS[:width]
    frame, lines = read_csv(path, names, n_required=len(names), found=found)
    if width == 6:
        frame["score"] = 1.0
    check_boxes(frame, lines, clip=clip)
    check_finite(frame, lines, ["score"])
    refuse(~frame["score"].between(0, 1), lines, _not_a_score, frame)
    if "action_id" not in frame:
        frame["action_id"] = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame["action_id"] = frame["action_id"].where(frame["action_id"].ge(1).fillna(False), pd.NA)
    return lines.good(frame[DETECTION_COLUMNS])


def _not_a_score(row: Any) -> str:
    hint = "; if the last column holds ids, this is a label csv (`acar convert-annotations --from ava`)"
    return f"score is {row.score:g}; expected 0..1{hint if float(row.score).is_integer() else ''}"


def write_box_csv(boxes: pd.DataFrame, path: str | Path) -> None:
    """Write person boxes with FAIR's 8 columns (the action id empty), atomically; 6 decimals."""
    write_csv(
        boxes[PERSON_BOX_COLUMNS].assign(action_id=pd.array([pd.NA] * len(boxes), dtype="Int64"))[
            DETECTION_COLUMNS
        ],
        Path(path),
    )


def read_boxes(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Read `boxes.parquet` of several detection shards, one after another.

    Returns:
        video str, time_s float64 (source second), x1 y1 x2 y2 float64 in 0..1 of the frame, score float64.

    Raises:
        UserError: a shard has no table, or a damaged one.
    """
    remedy = "rerun `acar detect` for this shard"
    tables = [read_parquet(Path(folder) / "boxes.parquet", PERSON_BOX_COLUMNS, remedy) for folder in folders]
    return pd.concat(tables, ignore_index=True)


def read_videos(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Read `videos.parquet` of several ingest shards.

    Returns:
        The shards' rows sorted by video, with `location`: the absolute path of the file or frame folder.

    Raises:
        UserError: a shard has no table, or a damaged one.
    """
    tables = []
    for folder in map(Path, folders):
        remedy = "run `acar ingest` for this shard first"
        table = read_parquet(folder / "videos.parquet", ["video", "path"], remedy)
        # An absolute path replaces the folder in `/`.
        tables.append(table.assign(location=[str((folder / path).resolve()) for path in table["path"]]))
    if not tables:
        raise UserError("no ingest shards; expected at least one folder with a videos.parquet")
    return pd.concat(tables, ignore_index=True).sort_values("video", ignore_index=True)


def check_any_usable(videos: pd.DataFrame, split: str) -> None:
    """Refuse a whole split whose every video ingest skipped.

    Args:
        videos: as `read_videos` gives it, of all shards of the split.
        split: for the message.

    Raises:
        UserError: not one has status `ok`; names the first few with their reasons.
    """
    if len(videos) and (videos["status"] != "ok").all():
        shown = [f"`{v}`: {r}" for v, r in zip(videos["video"][:3], videos["reason"][:3], strict=True)]
        more = f"\n  and {len(videos) - 3} more" if len(videos) > 3 else ""
        raise UserError(
            f"data.{split}: ingest skipped every one of its {len(videos)} video(s), so there is nothing to go "
            "on with; mend or replace the sources, then rerun ingest\n  " + "\n  ".join(shown) + more
        )
