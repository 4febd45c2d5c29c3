"""mmaction2's proposal pickles: a dictionary "video,0902" -> array (N, 5) with scores or (N, 4) without.

Never imports torch.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, format_time
from acar.data.findings import Findings
from acar.data.formats.annotations import (
    COLUMNS,
    Annotations,
    box_fits,
    key_frames_of,
    malformed,
    numbers_of,
    rows_of,
    shown,
    text_of,
    time_of,
)
from acar.data.plain_pickle import load_plain_pickle
from acar.data.tables import best_scored
from acar.errors import UserError
from acar.files import write_bytes_atomic

MOST_BOXES = 100_000  # of a key frame


def read_proposals(path: Path, found: Findings | None = None) -> Annotations:
    """Read proposals, boxes as given; those without area are left out and noted.

    Raises:
        UserError: no pickle of a dictionary, or (if `found` is None) a malformed entry; names entry and row.
    """
    proposals = load_plain_pickle(path)
    if not isinstance(proposals, dict):
        raise UserError(
            f"{path}: expected a dict 'video,0902' -> array (N, 4 or 5), found {type(proposals).__name__}"
        )
    rows: list[tuple[Any, ...]] = []
    nobody: list[tuple[str, float]] = []
    dropped = 0
    for key, value in proposals.items():
        place = f"entry {shown.repr(key)}"
        parts = _key(key)
        if parts is None:
            malformed(path, place, "expected a key such as 'video,0902'", found)
            continue
        if (isinstance(value, np.ndarray) and value.size == 0) or (
            isinstance(value, list | tuple) and not value
        ):
            nobody.append(parts)
            continue
        for number, box in enumerate(_boxes(path, place, value, found)):
            score = box[4] if len(box) == 5 else 1.0
            where = f"{place}: row {number}"
            if not 0 <= score <= 1:
                malformed(path, where, f"score {score:g}; expected 0..1", found)
            elif box_fits(path, where, box[:4], found, may_be_empty=True):
                rows.append((*parts, *box[:4], None, "", score))
            else:
                dropped += not (box[0] < box[2] and box[1] < box[3])
    notes = [f"dropped {dropped} box(es) without area"] if dropped else []
    return Annotations(rows_of(rows), None, notes, key_frames_of(nobody))


def write_proposals(annotations: Annotations, path: Path) -> None:
    """Write proposals, float64 (N, 5): one entry a key frame with boxes, each once; a missing score as 1."""
    rows = annotations.rows.assign(score=annotations.rows["score"].fillna(1.0))
    rows = rows[["video", "time_s", *BOX_COLUMNS, "score"]].drop_duplicates(ignore_index=True)
    boxes = rows[[*BOX_COLUMNS, "score"]].to_numpy(np.float64)
    groups = rows.groupby(["video", "time_s"], sort=True).indices
    proposals = {f"{video},{format_time(time_s)}": boxes[at] for (video, time_s), at in groups.items()}
    write_bytes_atomic(path, pickle.dumps(proposals, protocol=4))


def _key(key: Any) -> tuple[str, float] | None:
    if not isinstance(key, str) or "," not in key:
        return None
    name, second = key.rsplit(",", 1)
    video, time_s = text_of(name), time_of(second)
    return None if video is None or time_s is None else (video, time_s)


def _boxes(path: Path, place: str, value: Any, found: Findings | None) -> list[list[float]]:
    """The rows of one key frame, each of 4 or of 5 numbers."""
    if isinstance(value, np.ndarray):
        shape = f"array of shape {value.shape}"
        if value.dtype.kind not in "iuf":
            malformed(path, place, "expected an array of numbers", found)
            return []
        if value.ndim != 2 or value.shape[1] not in (4, 5) or len(value) > MOST_BOXES:
            malformed(path, place, f"{shape}; expected (N, 4) or (N, 5)", found)
            return []
        listed: list[Any] = value.tolist()
    elif isinstance(value, list | tuple) and len(value) <= MOST_BOXES:
        listed = list(value)
    else:
        malformed(path, place, "expected an array of numbers", found)
        return []
    boxes = []
    for number, row in enumerate(listed):
        box = numbers_of(row, 5)
        if box is None or len(box) not in (4, 5):
            told = f"row {number}: {shown.repr(row)}; expected an array of numbers, 4 or 5 a row"
            malformed(path, place, told, found)
        else:
            boxes.append(box)
    return boxes


def as_boxes(annotations: Annotations) -> tuple[pd.DataFrame, list[str]]:
    """The rows as person boxes: video, time_s, x1, y1, x2, y2, score.

    Each box counts once, with the best of its scores; a missing one is 1.

    Returns:
        the boxes, and what to tell of them.
    """
    rows = annotations.rows.assign(score=annotations.rows["score"].fillna(1.0))[[*COLUMNS[:6], "score"]]
    boxes = best_scored(rows)
    several = 0 if len(boxes) == len(rows) else len(rows.drop_duplicates()) - len(boxes)
    return boxes, [f"{several} score(s) of boxes with several left out: the best counts"] if several else []
