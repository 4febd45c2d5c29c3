"""Csv files: AVA's labels (v2.1, v2.2, Kinetics), and boxes with scores as FAIR's. Never imports torch."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, write_csv
from acar.data.csv_rows import csv_rows
from acar.data.findings import Findings
from acar.data.formats.annotations import Annotations, with_columns
from acar.data.tables import DETECTION_COLUMNS, read_key_frames, read_scored, write_labels

SNIFF_ROWS = 100_000


def read_ava(path: Path, found: Findings | None = None) -> Annotations:
    """An AVA label csv; see `acar.data.tables.read_key_frames`. Boxes stay as given."""
    rows, nobody = read_key_frames(path, clip=False, found=found)
    annotations = Annotations(with_columns(rows), nobody=nobody)
    n_again = len(nobody) - len(annotations.nobody)
    if n_again:
        annotations.notes.append(
            f"left out {n_again} row(s) without a person, of key frames that others name"
        )
    return annotations


def write_ava(annotations: Annotations, path: Path) -> None:
    """Write an AVA label csv; boxes in as many digits as they have, empty cells where nobody is."""
    nobody = with_columns(annotations.nobody.assign(**dict.fromkeys(BOX_COLUMNS, np.nan)))
    tables = [table for table in (annotations.rows, nobody) if len(table)]
    write_labels(pd.concat(tables, ignore_index=True) if tables else annotations.rows, path)


def read_fair(path: Path, found: Findings | None = None) -> Annotations:
    """Boxes with scores; see `acar.data.tables.read_scored`. Boxes stay as given."""
    rows = with_columns(read_scored(path, clip=False, found=found))
    notes = []
    if set(rows["score"].unique()) == {0.0, 1.0}:
        notes.append(
            "its last column holds 0 and 1 alone, taken for scores; are they ids, name the format `ava` "
            "(convert-annotations --from ava)"
        )
    return Annotations(rows, notes=notes)


def write_fair(annotations: Annotations, path: Path) -> None:
    """Write FAIR's 8 columns: video, time, box, action id, score; a missing score becomes 1."""
    rows = annotations.rows
    write_csv(rows.assign(score=rows["score"].fillna(1.0))[DETECTION_COLUMNS], path, exact=True)


def csv_format(path: Path) -> str:
    """`ava`, `fair` or `exclusions`, by the number of columns and what the last one holds.

    A last column of whole numbers, of text or of nothing is action ids (of 7) or person ids (of 8), not scores.
    With a point (`1.0`, as pandas writes a column that has gaps) they are ids if there is a gap or one beyond 1; else
    they are scores, which we write so ourselves.
    """
    rows = [cells for _, cells in itertools.islice(csv_rows(path), SNIFF_ROWS)]
    width = max(map(len, rows), default=0)
    if width == 2:
        return "exclusions"
    last = {cells[-1].strip() for cells in rows if len(cells) > 2}
    return "ava" if width in (7, 8) and _are_ids(last) else "fair"


def _are_ids(cells: set[str]) -> bool:
    """Whether different cells of a column are ids, not scores."""
    pointed = {cell for cell in cells if re.fullmatch(r"[0-9]+\.0", cell)}
    if not all(map(_is_id, cells - pointed)):
        return False
    return not pointed or "" in cells or any(float(cell) > 1 for cell in pointed)


def _is_id(cell: str) -> bool:
    """Nothing, a whole number without a point, or no number at all: no score is written so."""
    try:
        float(cell)
    except ValueError:
        return True
    return re.fullmatch(r"[-+]?[0-9]+", cell) is not None
