"""Boxes by frame, as the evaluations of UCF101-24 and JHMDB take them: csv files and YOWO's text files.

A table has the columns video, frame, x1, y1, x2, y2 in pixels of the source, label (column of the class, from 0) and
tube (ground truth; "" if unknown) or score (detections). Never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, Lines, check_finite, read_csv, refuse
from acar.data.ground_truth import refuse_scores_as_ids
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
    refuse((frame["x1"] > frame["x2"]) | (frame["y1"] > frame["y2"]), lines,
           lambda row: "box is inverted; expected x1 <= x2 and y1 <= y2", frame)  # fmt: skip
    refuse_scores_as_ids(frame["tube"], Path(path), "tube ids")
    frame = _checked(frame, lines)
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
    frame, lines = read_csv(Path(path), DETECTION_COLUMNS, n_required=8)
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
        UserError: no such file, not UTF-8, no name, or one twice.
    """
    path = Path(path)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the class names, a line each") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
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
_FRAME_FILE = re.compile(r"^(?P<video>.+)_(?P<frame>\d+)\.txt$")
_UCF_NAME = re.compile(r"^(?P<folder>[A-Za-z0-9]+)_(?P<clip>v_.+)$")


def read_yowo(folder: str | Path, *, detections: bool, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a folder of YOWO's text files, one a frame.

    Lines are `class x1 y1 x2 y2` (ground truth) or `class score x1 y1 x2 y2` (detections); class is a number from 1
    or one of `names`. A video of UCF101 is named `Class/v_Class_g01_c01`, any other as in the file's name.

    Returns:
        As `read_frame_truth` (tube unknown) or `read_frame_detections`.

    Raises:
        UserError: no such folder, no text file in it, a name without a frame number, or a malformed line.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder}: no text files; expected one a frame, such as "
                        "Basketball_v_Basketball_g01_c01_00009.txt")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for file in files:
        match = _FRAME_FILE.match(file.name)
        if match is None:
            raise UserError(f"{file}: its name ends in no frame number; expected such as "
                            "Basketball_v_Basketball_g01_c01_00009.txt")  # fmt: skip
        ucf = _UCF_NAME.match(match["video"])
        video = f"{ucf['folder']}/{ucf['clip']}" if ucf else match["video"]
        for line, text in enumerate(_lines(file), start=1):
            if text.strip():
                rows.append((video, int(match["frame"]), *_yowo_row(file, line, text, detections, names)))
    columns = DETECTION_COLUMNS if detections else TRUTH_COLUMNS
    table = pd.DataFrame(rows, columns=columns)
    kinds = {"frame": np.int64, "label": np.int64, **dict.fromkeys(BOX_COLUMNS, np.float64)}
    return table.astype(kinds | ({"score": np.float64} if detections else {}))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _yowo_row(
    file: Path, line: int, text: str, detections: bool, names: Sequence[str] | None
) -> tuple[float | int | str, ...]:
    """x1, y1, x2, y2, label and score or tube of a line."""
    cells = text.split()
    form = "class score x1 y1 x2 y2" if detections else "class x1 y1 x2 y2"
    try:
        label = names.index(cells[0]) if names and cells[0] in names else int(cells[0]) - 1
        numbers = [float(cell) for cell in cells[1:]]
    except ValueError:
        numbers, label = [], -1
    box = numbers[1:] if detections else numbers
    if len(cells) != len(form.split()) or not 0 <= label <= LARGEST_LABEL or not np.isfinite(numbers).all():
        raise UserError(f"{file}, line {line}: {text.strip()!r}; expected `{form}`, the class as a number from 1 or "
                        "a name of the list")  # fmt: skip
    return *box, label, numbers[0] if detections else ""
