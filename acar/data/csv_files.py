"""Headerless csv files: a fast path, and a careful one that finds the line to blame. Never imports torch."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from acar.data.csv_rows import csv_rows
from acar.data.findings import MALFORMED, NO_AREA, OUT_OF_RANGE, SHOWN, Findings
from acar.data.input_files import check_input, check_text
from acar.errors import UserError
from acar.files import atomic_path

BOX_COLUMNS = ["x1", "y1", "x2", "y2"]
DECIMALS = 6
"""Of times, read; of boxes and scores, written."""
LATEST_S = 1e9
"""Of all readers: up to it a time keeps its six decimals, and key frames stay apart."""
BOX_SLOP = 1e-3
"""How far a labelled or detected person box may reach out of the frame (rounding) before it is refused."""

_TEXT = {"video", "actor_id", "tube"}
_INTEGER = {"action_id", "frame", "label"}
LARGEST_INTEGER = 2**53  # beyond it not every whole number is a float
_MAY_BE_EMPTY = {"action_id", "actor_id", "tube", *BOX_COLUMNS}


@dataclass(frozen=True)
class Lines:
    """Tells which line of the file a row of the frame came from (lines without text are not rows).

    Attributes:
        path: the file.
        rows: number (from 0) among the lines with text of each row of the frame; None: all of them, in order.
        found: collects problems; None: the first one is raised.
        spoilt: numbers of the rows that have a problem, if they are collected.
    """

    path: Path
    rows: np.ndarray | None = None
    found: Findings | None = None
    spoilt: set[int] = field(default_factory=set)

    def of_rows(self, kept: np.ndarray) -> Lines:
        """The same for a frame of the rows `kept` of this one."""
        return Lines(self.path, self._numbers(kept), self.found, self.spoilt)

    def spoil(self, rows: np.ndarray) -> None:
        """Mark rows of the frame as having a problem."""
        self.spoilt.update(self._numbers(rows).tolist())

    def good(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of the frame without a problem; the frame itself if there is none."""
        if not self.spoilt:
            return frame
        bad = np.isin(self._numbers(np.arange(len(frame))), sorted(self.spoilt))
        return frame[~bad].reset_index(drop=True)

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows) if self.rows is None else self.rows[rows]

    def place(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}, line {self.number(row)}"

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


def read_csv(
    path: Path, names: list[str], *, n_required: int, bare: int = 0, found: Findings | None = None
) -> tuple[pd.DataFrame, Lines]:
    """Read a headerless csv into the columns `names`, of which those after `n_required` may be absent.

    Args:
        path: the file.
        names: of the columns.
        n_required: how many of them every line has.
        bare: lines of only so many cells are read too, the rest empty; 0: none.
        found: collects malformed lines, which are left out; None: the first one is raised.
    """
    check_input(path)
    check_text(path)
    width = max((len(cells) for _, cells in itertools.islice(csv_rows(path), 100)), default=0)
    frame, rows = None, None
    if n_required <= width <= len(names):
        frame = _read_fast(path, names[:width])
        filled = _filled_up(path, bare, width) if frame is None and bare else None
        if filled is not None:
            frame = _read_fast(filled, names[:width])
    if frame is None:
        frame, rows = _read_carefully(path, names, n_required, bare, found)
    for name in names:
        if name not in frame:
            frame[name] = "" if name in _TEXT else np.nan
    lines = Lines(path, rows, found)
    refuse(frame["video"] == "", lines, lambda row: "no video id; add it or remove the row", frame)
    if "time_s" in names:
        frame["time_s"] = frame["time_s"].round(DECIMALS)
        check_finite(frame, lines, ["time_s"])
        late = frame["time_s"].abs().between(LATEST_S, math.inf, inclusive="neither")
        told = f"expected seconds, at most {LATEST_S:g}; correct or remove the row"
        refuse(late, lines, lambda row: f"time_s is {row.time_s:g}; {told}", frame)
    return frame[names], lines


def _filled_up(path: Path, bare: int, width: int) -> io.BytesIO | None:
    """The file with empty cells behind its lines of `bare` cells; None if that is not to be told simply."""
    content = path.read_bytes()
    if b'"' in content:
        return None
    cells = rb",".join([rb"[^,\r\n]+"] * bare)
    return io.BytesIO(re.sub(rb"(?m)^(" + cells + rb")(?=\r?$)", rb"\1" + b"," * (width - bare), content))


def _read_fast(source: Path | io.BytesIO, names: list[str]) -> pd.DataFrame | None:
    """The whole file by Arrow, or None if any value does not fit its column."""
    types = {name: _arrow_type(name) for name in names}
    options = pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False)
    try:
        table = pyarrow.csv.read_csv(
            source, read_options=pyarrow.csv.ReadOptions(column_names=names), convert_options=options
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
        elif name in _INTEGER:
            whole = _whole_numbers(table[name])
            if whole is None:
                return None
            table = table.set_column(place, name, whole)
    frame = table.to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get, split_blocks=True, self_destruct=True
    )
    del table
    pa.default_memory_pool().release_unused()  # of millions of rows: else the text read stays with the process
    return frame


def _any_nan(column: pa.ChunkedArray) -> bool:
    return bool(pa.compute.any(pa.compute.is_nan(column)).as_py())


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Floats as int64, or None if any has a fraction or is too large."""
    most = pa.compute.max(pa.compute.abs(column)).as_py()
    if most is not None and most > LARGEST_INTEGER:
        return None
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _arrow_type(name: str) -> pa.DataType:
    """Integers as floats: Arrow's integers may be written `0x3`."""
    return pa.string() if name in _TEXT else pa.float64()


def _read_carefully(
    path: Path, names: list[str], n_required: int, bare: int, found: Findings | None
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Row by row in Python: slow, forgiving about spaces and absent last columns, exact about errors.

    Returns:
        the frame, and which lines with text its rows are (None: all).
    """
    rows: list[list[Any]] = []
    kept: list[int] = []
    lost = 0
    for number, (line, cells) in enumerate(csv_rows(path)):
        try:
            values = _values(path, number, line, names, cells, n_required, bare)
        except UserError as error:
            if found is None:
                raise
            found.add(path, MALFORMED, [str(error).removeprefix(f"{path}, ")], 1)
            lost += 1
            continue
        kept.append(number)
        rows.append(values + ["" if name in _TEXT else None for name in names[len(cells) :]])
    frame = pd.DataFrame(rows, columns=names)
    kinds = {name: "str" if name in _TEXT else "Int64" if name in _INTEGER else "float64" for name in names}
    return frame.astype(kinds), np.array(kept, dtype=np.int64) if lost else None


def _values(
    path: Path, number: int, line: int, names: list[str], cells: list[str], n_required: int, bare: int
) -> list[Any]:
    """The cells of a row, the `number`th from 0."""
    if not n_required <= len(cells) <= len(names) and len(cells) != (bare or -1):
        raise UserError(f"{path}, line {line}: {len(cells)} columns; expected {_form(names, n_required)} "
                        "(no header); add what is missing or remove what is too much")  # fmt: skip
    try:
        return [cell_value(name, cell.strip()) for name, cell in zip(names, cells)]
    except ValueError as error:
        is_header = number == 0 and not any(map(_begins_as_number, cells[1:]))
        remedy = (
            "these csv files have no header: remove this line" if is_header else "correct or remove the row"
        )
        raise UserError(f"{path}, line {line}: {error}; {remedy}") from None


def _begins_as_number(cell: str) -> bool:
    """Whether it may be meant as a number (`90x`), which no name of a header's column is."""
    return re.match(r"\s*([-+.]*[0-9]|[-+]?(nan|inf)\b)", cell, re.IGNORECASE) is not None


def _form(names: list[str], n_required: int) -> str:
    """The columns as text, those that may be absent in brackets."""
    return ",".join(names[:n_required]) + "".join(f"[,{name}]" for name in names[n_required:])


def cell_value(name: str, cell: str) -> Any:
    """What the cell of a column holds.

    Raises:
        ValueError: it is no number, or not a whole one, where it has to be; says what was expected.
    """
    if name in _TEXT:
        return cell
    if cell == "" and name in _MAY_BE_EMPTY:
        return None
    try:
        number = float("" if "_" in cell else cell)  # Python would read 1_0 as 10
    except ValueError:
        number = math.nan
    is_whole = number.is_integer() and abs(number) <= LARGEST_INTEGER
    if math.isnan(number) or (name in _INTEGER and not is_whole):
        raise ValueError(
            f"{name} is {cell!r}; expected {'a whole number' if name in _INTEGER else 'a number'}"
        )
    return int(number) if name in _INTEGER else number


def write_csv(frame: pd.DataFrame, path: Path, *, exact: bool = False) -> None:
    """Write without a header, atomically: times as AVA writes them, boxes and scores with 6 decimals.

    Args:
        frame: columns video, time_s and others.
        path: the file.
        exact: write boxes and scores in as many digits as it takes to read the same numbers again.
    """
    with atomic_path(path) as temporary:
        put_csv(frame, temporary, exact=exact)


def put_csv(frame: pd.DataFrame, path: Path, *, exact: bool = False) -> None:
    """As `write_csv`, but straight to `path`."""
    # Few distinct times: each is formatted once.
    codes, times = pd.factorize(frame["time_s"])
    text = np.array([format_time(time) for time in times], dtype=object)[codes]
    table = pa.Table.from_pandas(frame.assign(time_s=text), preserve_index=False)
    for place, name in enumerate(table.column_names):
        if name in (*BOX_COLUMNS, "score") and not exact:
            fixed = pa.compute.round(table[name].cast(pa.float64()), DECIMALS).cast(
                pa.decimal128(12, DECIMALS)
            )
            table = table.set_column(place, name, fixed)
        elif name == "score":  # 1.0, not 1: a column of whole numbers would pass for one of ids
            codes, scores = pd.factorize(frame[name])
            text = np.array([repr(float(score)) for score in scores], dtype=object)[codes]
            table = table.set_column(place, name, pa.array(text, pa.string()))
    # Arrow's "needed" would quote every text; only odd names need it.
    texts = [text for name in sorted(_TEXT & set(frame.columns)) for text in frame[name].unique()]
    odd = any(re.search(r'[",\s]', text) for text in texts)
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed" if odd else "none")
    # One chunk: before an empty first one pyarrow writes a block of whatever its buffer holds.
    pyarrow.csv.write_csv(table.combine_chunks(), path, write_options=options)


def format_time(time_s: float) -> str:
    """A key frame's second as AVA writes it: `0902`; fractions with at most 6 decimals."""
    if float(time_s).is_integer():
        return f"{int(time_s):04d}"
    return f"{time_s:.{DECIMALS}f}".rstrip("0")


def refuse(
    bad: Any, lines: Lines, complaint: Callable[[Any], str], frame: pd.DataFrame, kind: str = MALFORMED
) -> None:
    """Raise for the first row marked in `bad`, or collect them all if `lines.found` says so."""
    rows = np.flatnonzero(np.asarray(bad, dtype=bool))
    if not len(rows):
        return
    if lines.found is None:
        first = complaint(frame.iloc[rows[0]])
        raise UserError(f"{lines.place(rows[0])}: {first} ({len(rows)} such row(s))")
    places = zip(lines.numbers(rows[:SHOWN].tolist()), rows[:SHOWN], strict=True)
    told = [f"line {line}: {complaint(frame.iloc[row])}" for line, row in places]
    lines.found.add(lines.path, kind, told, len(rows))
    lines.spoil(rows)


def check_finite(frame: pd.DataFrame, lines: Lines, names: list[str]) -> None:
    """Raise for the first row whose value in a column of `names` is empty, NaN or infinite."""
    for name in names:
        bad = ~np.isfinite(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
        refuse(bad, lines, partial(_not_a_number, name), frame)


def _not_a_number(name: str, row: Any) -> str:
    return f"{name} is {row[name]}; expected a number; correct or remove the row"


def check_range(frame: pd.DataFrame, lines: Lines, low: float, high: float) -> np.ndarray:
    """Raise for the first box with a coordinate below `low` or above `high`; bool (N,): which have."""
    boxes = frame[BOX_COLUMNS].to_numpy(dtype=np.float64)
    outside = ((boxes < low) | (boxes > high)).any(axis=1)
    remedy = "expected x1,y1,x2,y2 as fractions 0..1 of its width and height (divide pixels by them)"
    refuse(
        outside,
        lines,
        lambda row: f"box {_box_text(row)} is outside the frame; {remedy}",
        frame,
        OUT_OF_RANGE,
    )
    return outside


def check_boxes(frame: pd.DataFrame, lines: Lines, *, clip: bool) -> None:
    """Boxes must be finite, within the frame up to `BOX_SLOP` and have x1 < x2, y1 < y2; clips in place."""
    check_finite(frame, lines, BOX_COLUMNS)
    outside = check_range(frame, lines, -BOX_SLOP, 1 + BOX_SLOP)
    if clip:
        frame[BOX_COLUMNS] = frame[BOX_COLUMNS].clip(0.0, 1.0)
    empty = ~outside & ((frame["x1"] >= frame["x2"]) | (frame["y1"] >= frame["y2"]))
    refuse(
        empty,
        lines,
        lambda row: (
            f"box {_box_text(row)} has no area; expected x1 < x2 and y1 < y2; correct or remove the row"
        ),
        frame,
        NO_AREA,
    )


def _box_text(row: Any) -> str:
    return ",".join(f"{row[name]:g}" for name in BOX_COLUMNS)
