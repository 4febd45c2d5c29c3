"""Headerless csv files: a fast path, and a careful one that finds the line to blame. Never imports torch."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from acar.errors import UserError
from acar.files import atomic_path

BOX_COLUMNS = ["x1", "y1", "x2", "y2"]
DECIMALS = 6
"""Of times, read; of boxes and scores, written."""
BOX_SLOP = 1e-3
"""How far a labelled or detected person box may reach out of the frame (rounding) before it is refused."""

_TEXT = {"video", "actor_id", "tube"}
_INTEGER = {"action_id", "frame", "label"}
_LARGEST_INTEGER = 2**53  # beyond it not every whole number is a float
_MAY_BE_EMPTY = {"action_id", "actor_id", "tube", *BOX_COLUMNS}


@dataclass(frozen=True)
class Lines:
    """Tells which line of the file a row of the frame came from (lines without text are not rows)."""

    path: Path
    rows: np.ndarray | None = None

    def of_rows(self, kept: np.ndarray) -> Lines:
        """The same for a frame of the rows `kept` of this one."""
        return Lines(self.path, kept if self.rows is None else self.rows[kept])

    def number(self, row: int) -> int:
        """Line (from 1) of a row; reads the file again."""
        return self.numbers([row])[0]

    def numbers(self, rows: Sequence[int]) -> list[int]:
        """Lines (from 1) of some rows; reads the file again, once."""
        wanted = [row if self.rows is None else int(self.rows[row]) for row in rows]
        missing, found = set(wanted), dict[int, int]()
        for index, (line, _) in enumerate(csv_rows(self.path)):
            if index in missing:
                missing.remove(index)
                found[index] = line
            if not missing:
                return [found[index] for index in wanted]
        raise AssertionError(f"{self.path} changed while it was read")


def read_csv(path: Path, names: list[str], *, n_required: int) -> tuple[pd.DataFrame, Lines]:
    """Read a headerless csv into the columns `names`, of which those after `n_required` may be absent."""
    width = first_row_width(path)
    frame = _read_fast(path, names[:width]) if n_required <= width <= len(names) else None
    if frame is None:
        frame = _read_carefully(path, names, n_required)
    for name in names:
        if name not in frame:
            frame[name] = "" if name in _TEXT else np.nan
    lines = Lines(path)
    refuse(frame["video"] == "", lines, lambda row: "no video id; add it or remove the row", frame)
    if "time_s" in names:
        frame["time_s"] = frame["time_s"].round(DECIMALS)
        check_finite(frame, lines, ["time_s"])
    return frame[names], lines


def _read_fast(path: Path, names: list[str]) -> pd.DataFrame | None:
    """The whole file by Arrow, or None if any value does not fit its column."""
    types = {name: _arrow_type(name) for name in names}
    options = pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False)
    try:
        table = pyarrow.csv.read_csv(
            path, read_options=pyarrow.csv.ReadOptions(column_names=names), convert_options=options
        )
    except pa.ArrowInvalid:
        return None
    required = [name for name in names if name not in _MAY_BE_EMPTY]
    if any(table[name].null_count for name in required):
        return None
    if any(pa.types.is_floating(column.type) and _any_nan(column) for column in table.columns):
        return None
    for place, name in enumerate(names):
        if name in _TEXT:
            table = table.set_column(place, name, pa.compute.utf8_trim_whitespace(table[name]))
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def _any_nan(column: pa.ChunkedArray) -> bool:
    return bool(pa.compute.any(pa.compute.is_nan(column)).as_py())


def _arrow_type(name: str) -> pa.DataType:
    return pa.string() if name in _TEXT else pa.int64() if name in _INTEGER else pa.float64()


def _read_carefully(path: Path, names: list[str], n_required: int) -> pd.DataFrame:
    """Row by row in Python: slow, forgiving about spaces and absent last columns, exact about errors."""
    rows: list[list[Any]] = []
    for line, cells in csv_rows(path):
        if not n_required <= len(cells) <= len(names):
            raise UserError(f"{path}, line {line}: {len(cells)} columns; expected {_form(names, n_required)} "
                            "(no header); add what is missing or remove what is too much")  # fmt: skip
        values = [_value(path, line, name, cell.strip()) for name, cell in zip(names, cells)]
        rows.append(values + ["" if name in _TEXT else None for name in names[len(cells) :]])
    frame = pd.DataFrame(rows, columns=names)
    kinds = {name: "str" if name in _TEXT else "Int64" if name in _INTEGER else "float64" for name in names}
    return frame.astype(kinds)


def _form(names: list[str], n_required: int) -> str:
    """The columns as text, those that may be absent in brackets."""
    return ",".join(names[:n_required]) + "".join(f"[,{name}]" for name in names[n_required:])


def _value(path: Path, line: int, name: str, cell: str) -> Any:
    if name in _TEXT:
        return cell
    if cell == "" and name in _MAY_BE_EMPTY:
        return None
    try:
        number = float(cell)
        if math.isnan(number) or (name in _INTEGER and abs(number) > _LARGEST_INTEGER):
            raise ValueError(number)
        return int(number) if name in _INTEGER and number.is_integer() else _no_fraction(name, number)
    except ValueError:
        is_header = line == 1 and name in ("time_s", "frame")
        header = "; these csv files have no header: remove this line" if is_header else ""
        wanted = "a whole number" if name in _INTEGER else "a number"
        remedy = header or "; correct or remove the row"
        raise UserError(f"{path}, line {line}: {name} is {cell!r}; expected {wanted}{remedy}") from None


def _no_fraction(name: str, number: float) -> float:
    if name in _INTEGER:
        raise ValueError(number)
    return number


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells of every line that holds any text.

    Raises:
        UserError: not UTF-8, or not csv; names the line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {_first_line_not_utf8(path)}: not UTF-8 text ({error.reason}); "
                        "save the file as UTF-8 csv") from None  # fmt: skip
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not csv: {error}") from None


def _first_line_not_utf8(path: Path) -> int:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError(f"{path} changed while it was read")


def first_row_width(path: Path) -> int:
    """Number of cells in the first line with any text; 0 for an empty file.

    Raises:
        UserError: no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return next((len(cells) for _, cells in csv_rows(path)), 0)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write without a header, atomically: times as AVA writes them, boxes and scores with 6 decimals."""
    # Few distinct times: each is formatted once.
    codes, times = pd.factorize(frame["time_s"])
    text = np.array([format_time(time) for time in times], dtype=object)[codes]
    table = pa.Table.from_pandas(frame.assign(time_s=text), preserve_index=False)
    for place, name in enumerate(table.column_names):
        if name in (*BOX_COLUMNS, "score"):
            fixed = pa.compute.round(table[name].cast(pa.float64()), DECIMALS).cast(
                pa.decimal128(12, DECIMALS)
            )
            table = table.set_column(place, name, fixed)
    # Arrow's "needed" would quote every text; only odd names need it.
    odd = any(re.search(r'[",\s]', video) for video in frame["video"].unique())
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed" if odd else "none")
    with atomic_path(path) as temporary:
        # One chunk: before an empty first one pyarrow writes a block of whatever its buffer holds.
        pyarrow.csv.write_csv(table.combine_chunks(), temporary, write_options=options)


def format_time(time_s: float) -> str:
    """A key frame's second as AVA writes it: `0902`; fractions with at most 6 decimals."""
    if float(time_s).is_integer():
        return f"{int(time_s):04d}"
    return f"{time_s:.{DECIMALS}f}".rstrip("0")


def refuse(bad: Any, lines: Lines, complaint: Callable[[Any], str], frame: pd.DataFrame) -> None:
    """Raise for the first row marked in `bad`."""
    rows = np.flatnonzero(np.asarray(bad, dtype=bool))
    if len(rows):
        raise UserError(f"{lines.path}, line {lines.number(rows[0])}: {complaint(frame.iloc[rows[0]])} "
                        f"({len(rows)} such row(s))")  # fmt: skip


def check_finite(frame: pd.DataFrame, lines: Lines, names: list[str]) -> None:
    """Raise for the first row whose value in a column of `names` is empty, NaN or infinite."""
    for name in names:
        bad = ~np.isfinite(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
        refuse(bad, lines, partial(_not_a_number, name), frame)


def _not_a_number(name: str, row: Any) -> str:
    return f"{name} is {row[name]}; expected a number; correct or remove the row"


def check_range(frame: pd.DataFrame, lines: Lines, low: float, high: float) -> None:
    """Raise for the first box with a coordinate below `low` or above `high`."""
    boxes = frame[BOX_COLUMNS].to_numpy(dtype=np.float64)
    outside = ((boxes < low) | (boxes > high)).any(axis=1)
    remedy = "expected x1,y1,x2,y2 as fractions 0..1 of its width and height (divide pixels by them)"
    refuse(outside, lines, lambda row: f"box {_box_text(row)} is outside the frame; {remedy}", frame)


def check_boxes(frame: pd.DataFrame, lines: Lines, *, clip: bool) -> None:
    """Boxes must be finite, within the frame up to `BOX_SLOP` and have x1 < x2, y1 < y2; clips in place."""
    check_finite(frame, lines, BOX_COLUMNS)
    check_range(frame, lines, -BOX_SLOP, 1 + BOX_SLOP)
    if clip:
        frame[BOX_COLUMNS] = frame[BOX_COLUMNS].clip(0.0, 1.0)
    empty = (frame["x1"] >= frame["x2"]) | (frame["y1"] >= frame["y2"])
    refuse(
        empty,
        lines,
        lambda row: (
            f"box {_box_text(row)} has no area; expected x1 < x2 and y1 < y2; correct or remove the row"
        ),
        frame,
    )


def _box_text(row: Any) -> str:
    return ",".join(f"{row[name]:g}" for name in BOX_COLUMNS)
