"""Boxes by frame, as the evaluations of UCF101-24 and JHMDB take them: csv files and YOWO's text files.

A table has the columns video, frame, x1, y1, x2, y2 in pixels of the source, label (column of the class, from 0) and
tube (ground truth; "" if unknown) or score (detections). Never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import (
    BOX_COLUMNS,
    LARGEST_INTEGER,
    Lines,
    cell_value,
    check_finite,
    read_csv,
    refuse,
)
from acar.data.ground_truth import refuse_scores_as_ids
from acar.data.input_files import read_text
from acar.errors import UserError

TRUTH_COLUMNS = ["video", "frame", *BOX_COLUMNS, "label", "tube"]
DETECTION_COLUMNS = ["video", "frame", *BOX_COLUMNS, "label", "score"]
LARGEST_LABEL = 99_999
"""Far above any data set's; figures are listed for every label up to the largest."""


def read_frame_truth(path: str | Path, *, tubes: bool = False) -> pd.DataFrame:
    """Read a csv of video, frame, x1, y1, x2, y2, label[, tube], without a header.

    Args:
        path: the file.
        tubes: a row without a tube is malformed, and so is a second box of a tube in a frame.

    Returns:
        video str, frame int64, x1 y1 x2 y2 float64, label int64, tube str ("" if left out).

    Raises:
        UserError: no such file, no rows, not UTF-8 or a malformed row; names file, line and value.
    """
    frame, lines = read_csv(Path(path), TRUTH_COLUMNS, n_required=7)
    if frame.empty:
        raise UserError(f"{path}: no rows; expected lines of {','.join(TRUTH_COLUMNS)} without a header")
    refuse_scores_as_ids(frame["tube"], Path(path), "tube ids")
    frame = _checked_truth(frame, lines)
    if tubes:
        refuse(frame["tube"] == "", lines, lambda row: "no tube; video-mAP needs an 8th column that numbers the "
               "actors of a video, or the annotation's pickle", frame)  # fmt: skip
        refuse(repeated_in_tube(frame), lines, _repeated, frame)
    return frame


def repeated_in_tube(truth: pd.DataFrame) -> np.ndarray:
    """(N,) bool: the boxes of a table of ground truth whose tube has another box in that frame, in a row before."""
    return truth.duplicated(["video", "label", "tube", "frame"]).to_numpy()


def _repeated(row: Any) -> str:
    return (
        f"tube {row.tube!r} of video {row.video}, label {row.label}, has another box in frame {row.frame}; a tube is "
        "one actor, with one box a frame: remove the repeated row, or number actors apart"
    )


def read_frame_detections(path: str | Path) -> pd.DataFrame:
    """Read a csv of video, frame, x1, y1, x2, y2, label, score, without a header. May be empty.

    Returns:
        video str, frame int64, x1 y1 x2 y2 float64, label int64, score float64.

    Raises:
        UserError: no such file, not UTF-8 or a malformed row; names file, line and value.
    """
    return _checked_detections(*read_csv(Path(path), DETECTION_COLUMNS, n_required=8))


def _checked_truth(frame: pd.DataFrame, lines: Lines) -> pd.DataFrame:
    refuse((frame["x1"] > frame["x2"]) | (frame["y1"] > frame["y2"]), lines,
           lambda row: "box is inverted; expected x1 <= x2 and y1 <= y2", frame)  # fmt: skip
    return _checked(frame, lines)


def _checked_detections(frame: pd.DataFrame, lines: Lines) -> pd.DataFrame:
    check_finite(frame, lines, ["score"])
    return _checked(frame, lines)


def _checked(frame: pd.DataFrame, lines: Lines) -> pd.DataFrame:
    check_finite(frame, lines, BOX_COLUMNS)
    for name in ("frame", "label"):
        refuse(
            frame[name].isna() | frame[name].lt(0).fillna(False), lines, partial(_not_counted, name), frame
        )
    refuse(frame["label"] > LARGEST_LABEL, lines, lambda row: f"label is {row.label}; expected 0 to {LARGEST_LABEL}",
           frame)  # fmt: skip
    return frame.astype({"frame": np.int64, "label": np.int64})


def _not_counted(name: str, row: Any) -> str:
    return f"{name} is {row[name]}; expected 0, 1, ...; correct or remove the row"


def read_class_names(path: str | Path) -> list[str]:
    """Read class names, a line each in the order of the labels; empty lines are passed over.

    Raises:
        UserError: no such file, a folder, not UTF-8, no name, or one twice.
    """
    path = Path(path)
    lines = read_text(path, "the class names, a line each").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if not names or twice is not None:
        told = "no class name" if not names else f"class {twice!r} is there twice"
        raise UserError(f"{path}: {told}; expected the class names in the order of the labels, a line each")
    return names


def check_labels_named(table: pd.DataFrame, names: Sequence[str], source: str | Path) -> None:
    """Refuse labels beyond the names.

    Raises:
        UserError: names the first row.
    """
    beyond = np.flatnonzero(table["label"].to_numpy() >= len(names))
    if len(beyond):
        row = table.iloc[beyond[0]]
        raise UserError(
            f"{source}: video {row['video']}, frame {row['frame']}: label {row['label']}, but there are "
            f"{len(names)} classes, counted from 0 ({len(beyond)} such row(s))"
        )


# YOWO writes a text file a frame, named by class folder, video and frame number:
# Basketball_v_Basketball_g01_c01_00009.txt.
_EXAMPLE = "Basketball_v_Basketball_g01_c01_00009.txt"
_FRAME_FILE = re.compile(r"^(?P<video>.+)_(?P<frame>[0-9]+)\.txt$")
_UCF_NAME = re.compile(r"^(?P<folder>[A-Za-z0-9]+)_(?P<clip>v_.+)$")


@dataclass(frozen=True)
class _FolderLines(Lines):
    """The lines of a folder's files; `places` are the file and line of each row."""

    places: Sequence[tuple[Path, int]] = ()

    def place(self, row: int) -> str:
        file, line = self.places[row]
        return f"{file}, line {line}"


def read_yowo(folder: str | Path, *, detections: bool, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a folder of YOWO's text files, one a frame.

    Lines are `class x1 y1 x2 y2` (ground truth) or `class score x1 y1 x2 y2` (detections); class is a number from 1
    or one of `names`. A video of UCF101 is named `Class/v_Class_g01_c01`, any other as in the file's name.

    Returns:
        As `read_frame_truth` (tube unknown) or `read_frame_detections`, after the same checks.

    Raises:
        UserError: no such folder, no text file in it, a name without a frame number, two files of one frame, or a
            malformed line.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder}: no text files; expected one a frame, such as {_EXAMPLE}")
    file_of: dict[tuple[str, int], Path] = {}
    rows: list[tuple[Any, ...]] = []
    places: list[tuple[Path, int]] = []
    for file in files:
        key = _video_and_frame(file)
        if file_of.setdefault(key, file) != file:
            raise UserError(f"{file}: frame {key[1]} of video {key[0]} is also {file_of[key].name}; expected one "
                            "file a frame: remove one of them")  # fmt: skip
        for line, text in enumerate(read_text(file).splitlines(), start=1):
            if text.strip():
                rows.append((*key, *_yowo_row(file, line, text, detections, names)))
                places.append((file, line))
    table = pd.DataFrame(rows, columns=DETECTION_COLUMNS if detections else TRUTH_COLUMNS)
    kinds = {"frame": np.int64, "label": np.int64, **dict.fromkeys(BOX_COLUMNS, np.float64)}
    table = table.astype(kinds | ({"score": np.float64} if detections else {}))
    return (_checked_detections if detections else _checked_truth)(table, _FolderLines(folder, places=places))


def _video_and_frame(file: Path) -> tuple[str, int]:
    match = _FRAME_FILE.match(file.name)
    if match is None:
        raise UserError(f"{file}: its name ends in no frame number; expected such as {_EXAMPLE}")
    if int(match["frame"]) > LARGEST_INTEGER:
        raise UserError(f"{file}: its name ends in frame {match['frame']}; expected 0 to {LARGEST_INTEGER}")
    ucf = _UCF_NAME.match(match["video"])
    return f"{ucf['folder']}/{ucf['clip']}" if ucf else match["video"], int(match["frame"])


def _yowo_row(
    file: Path, line: int, text: str, detections: bool, names: Sequence[str] | None
) -> tuple[float | int | str, ...]:
    """x1, y1, x2, y2, label and score or tube of a line: each cell by itself, as a csv's."""
    cells = text.split()
    form = "class score x1 y1 x2 y2" if detections else "class x1 y1 x2 y2"
    columns = ["score", *BOX_COLUMNS] if detections else BOX_COLUMNS
    try:
        if len(cells) != 1 + len(columns):
            raise ValueError(f"{len(cells)} values")
        label = names.index(cells[0]) if names and cells[0] in names else cell_value("label", cells[0]) - 1
        if not 0 <= label <= LARGEST_LABEL:
            raise ValueError(f"class is {cells[0]!r}")
        numbers = [cell_value(name, cell) for name, cell in zip(columns, cells[1:], strict=True)]
    except ValueError as error:
        raise UserError(
            f"{file}, line {line}: {text.strip()!r}: {error}; expected `{form}`, the class as a number from 1 or a "
            "name of the list"
        ) from None
    box = numbers[1:] if detections else numbers
    return *box, label, numbers[0] if detections else ""
