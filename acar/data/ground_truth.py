"""The evaluation's ground truth: AVA label csv files as the official evaluators take them. Never imports torch.

`read_labels` is for training and stricter: it refuses boxes without area and leaves out key frames without boxes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, check_range, read_csv, refuse
from acar.data.tables import LABEL_COLUMNS
from acar.errors import UserError


def read_ground_truth(path: str | Path) -> pd.DataFrame:
    """Read an AVA label csv: video, time[, x1, y1, x2, y2, action id[, person id]].

    Boxes stay as given. Those without area count as ground truth that nothing finds; inverted ones, at which the
    official evaluators stop, are refused. A row of video and time alone (or with the rest empty) says that the key
    frame was annotated and nobody was found; an empty action id is a person without an action.

    Returns:
        video str, time_s float64, x1 y1 x2 y2 float64 (NaN: nobody), action_id Int64 (NA: none), actor_id str.

    Raises:
        UserError: no such file, no rows, not UTF-8, or a malformed row; names file, line and value.
    """
    path = Path(path)
    frame, lines = read_csv(path, LABEL_COLUMNS, n_required=2)
    nobody = frame[BOX_COLUMNS].isna().all(axis=1) & frame["action_id"].isna()
    if nobody.all():
        raise UserError(
            f"{path}: no rows; expected lines of {','.join(LABEL_COLUMNS)} without a header; write the labels there, "
            "or name another file"
        )
    for name in BOX_COLUMNS:
        missing = frame[name].isna() & ~nobody
        refuse(missing, lines, partial(_empty, name), frame)
    check_range(frame[~nobody], lines.of_rows((~nobody).to_numpy().nonzero()[0]), -1.0, 2.0)
    inverted = (frame["x1"] > frame["x2"]) | (frame["y1"] > frame["y2"])
    refuse(inverted, lines, _inverted, frame)
    refuse(frame["action_id"].lt(1).fillna(False), lines,
           lambda row: f"action id is {row.action_id}; expected 1, 2, ... or nothing", frame)  # fmt: skip
    refuse_scores_as_ids(frame["actor_id"], path, "person ids")
    return frame


def refuse_scores_as_ids(ids: pd.Series, path: Path, what: str) -> None:
    """Refuse a table whose ids can only be scores: all numbers from 0 to 1, some of them fractions.

    Files of detections have the score where ground truth has the id, and would else pass for it.

    Args:
        ids: of persons or tubes.
        path: the file.
        what: the ids, for the message.

    Raises:
        UserError: names one of them.
    """
    numbers = pd.to_numeric(pd.Series(ids.unique(), dtype=object), errors="coerce").to_numpy(np.float64)
    if ((numbers >= 0) & (numbers <= 1)).all() and (numbers % 1 != 0).any():
        seen = next(text for text in ids if float(text) % 1)
        raise UserError(
            f"{path}: its {what} are numbers from 0 to 1, such as {seen}, which are scores: this is a file of "
            "detections, and ground truth was expected; were --groundtruth and --detections swapped?"
        )


def _empty(name: str, _: Any) -> str:
    return f"{name} is empty; expected a number, or the row to hold video and time alone"


def _inverted(row: Any) -> str:
    box = ",".join(f"{row[name]:g}" for name in BOX_COLUMNS)
    return f"box {box} is inverted; expected x1 <= x2 and y1 <= y2; correct or remove the row"
