"""Person boxes from elsewhere, in any of the formats of `acar.data.formats`. Never imports torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from acar.data.csv_files import BOX_COLUMNS
from acar.data.findings import Findings
from acar.data.formats.proposals import as_boxes
from acar.data.formats.registry import read_annotations
from acar.data.tables import PERSON_BOX_COLUMNS
from acar.detection.boxes import in_order
from acar.errors import UserError


def import_boxes(path: str | Path, *, found: Findings | None = None) -> pd.DataFrame:
    """Read a box file as a boxes table (video, time_s, x1, y1, x2, y2 in 0..1, score), in canonical order.

    The format is told by content: csv as FAIR's detections for AVA (score last) or AVA's own labels (each distinct
    box counts with score 1), mmaction2's proposals, ACAR-Net's annotations (score 1), COCO json whose images state
    `video` and `time_s`. A box repeated, once an action, counts once with the best of its scores. Boxes of a pickle
    that have no area are dropped; that and what else was left out is counted on stderr.

    Args:
        path: the file.
        found: collects malformed rows and entries, which are left out; None: the first one is raised.

    Raises:
        UserError: no such file, none of these formats, or the file is malformed; names the row or entry.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"detector.boxes: {path}: no such file; put person boxes there, or have them found by "
            "`detector.source: weights` or `train`"
        )
    annotations = read_annotations(path, found=found)
    boxes, notes = as_boxes(annotations)
    for note in [*annotations.notes, *notes]:
        print(f"{path}: {note}", file=sys.stderr, flush=True)
    boxes[BOX_COLUMNS] = boxes[BOX_COLUMNS].clip(0.0, 1.0)
    has_area = (boxes["x1"] < boxes["x2"]) & (
        boxes["y1"] < boxes["y2"]
    )  # no longer, where it lay on the border
    return in_order(boxes[has_area][PERSON_BOX_COLUMNS].drop_duplicates(ignore_index=True))
