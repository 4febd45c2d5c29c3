"""Csv files: AVA's labels (v2.1, v2.2, Kinetics), and boxes with scores as FAIR's. Never imports torch."""

from __future__ import annotations

import itertools
from pathlib import Path

from acar.data.csv_files import csv_rows, write_csv
from acar.data.findings import Findings
from acar.data.formats.annotations import Annotations, with_columns
from acar.data.tables import DETECTION_COLUMNS, read_labels, read_scored, write_labels

SNIFF_ROWS = 100_000


def read_ava(path: Path, found: Findings | None = None) -> Annotations:
    """An AVA label csv; see `acar.data.tables.read_labels`. Boxes stay as given."""
    return Annotations(with_columns(read_labels(path, clip=False, found=found)))


def write_ava(annotations: Annotations, path: Path) -> None:
    """Write an AVA label csv; boxes in as many digits as they have."""
    write_labels(annotations.rows, path)


def read_fair(path: Path, found: Findings | None = None) -> Annotations:
    """Boxes with scores; see `acar.data.tables.read_scored`. Boxes stay as given."""
    return Annotations(with_columns(read_scored(path, clip=False, found=found)))


def write_fair(annotations: Annotations, path: Path) -> None:
    """Write FAIR's 8 columns: video, time, box, action id, score; a missing score becomes 1."""
    rows = annotations.rows
    write_csv(rows.assign(score=rows["score"].fillna(1.0))[DETECTION_COLUMNS], path, exact=True)


def csv_format(path: Path) -> str:
    """`ava`, `fair` or `exclusions`, by the number of columns and what the last one holds.

    A last column of whole numbers, of text or of nothing is action ids (of 7) or person ids (of 8), not scores.
    """
    rows = [cells for _, cells in itertools.islice(csv_rows(path), SNIFF_ROWS)]
    width = max(map(len, rows), default=0)
    if width == 2:
        return "exclusions"
    last = [cells[-1].strip() for cells in rows if len(cells) > 2]
    return "ava" if width in (7, 8) and all(map(_is_id, last)) else "fair"


def _is_id(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return True
    return cell == "" or cell.isdigit() or cell == "-1"
