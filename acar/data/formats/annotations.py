"""The one table that all annotation files are read into, and what their readers share. Never imports torch."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, BOX_SLOP, DECIMALS, LATEST_S
from acar.data.findings import MALFORMED, NO_AREA, OUT_OF_RANGE, Findings, complain
from acar.data.label_map import LabelMap

KEY_FRAME = ["video", "time_s"]
COLUMNS = [*KEY_FRAME, *BOX_COLUMNS, "action_id", "actor_id", "score"]
_TYPES = {"video": "str", "action_id": "Int64", "actor_id": "str"}
_FRACTIONS = "expected x1,y1,x2,y2 as fractions 0..1 of the frame's width and height (divide pixels by them)"

shown = reprlib.Repr()
shown.maxstring = shown.maxother = shown.maxlong = 60
shown.maxlevel, shown.maxlist, shown.maxtuple, shown.maxdict, shown.maxarray = 2, 5, 5, 4, 5


def key_frames_of(values: Iterable[tuple[str, float]] = ()) -> pd.DataFrame:
    """A table of video str, time_s float64, rounded to 6 decimals."""
    frame = pd.DataFrame(list(values), columns=KEY_FRAME).astype({"video": "str", "time_s": "float64"})
    return frame.assign(time_s=frame["time_s"].round(DECIMALS))


@dataclass(frozen=True)
class Annotations:
    """What a file says of persons.

    Attributes:
        rows: video str, time_s float64 (s), x1 y1 x2 y2 float64 (0..1 of the frame), action_id Int64 (NA: none),
            actor_id str (empty: none), score float64 (NaN: none). A row a person and action.
        label_map: the classes, if the file has them.
        notes: what of the file is not in the rows, for people.
        nobody: video str, time_s float64 of each key frame that was looked at and has no rows: nobody was there.
    """

    rows: pd.DataFrame
    label_map: LabelMap | None = None
    notes: list[str] = field(default_factory=list)
    nobody: pd.DataFrame = field(default_factory=key_frames_of)

    def __post_init__(self) -> None:
        """Each key frame is named once, and not at all if it has rows."""
        nobody = self.nobody.drop_duplicates(ignore_index=True)
        if len(nobody):
            places = pd.MultiIndex.from_frame(self.rows[KEY_FRAME].drop_duplicates())
            nobody = nobody[~pd.MultiIndex.from_frame(nobody).isin(places)].reset_index(drop=True)
        object.__setattr__(self, "nobody", nobody)

    def n_boxes(self) -> int:
        """Distinct boxes of distinct key frames."""
        return len(self.rows.drop_duplicates(["video", "time_s", *BOX_COLUMNS]))

    def n_key_frames(self) -> int:
        """Distinct videos and seconds with rows."""
        return len(self.rows.drop_duplicates(KEY_FRAME))

    def n_videos(self) -> int:
        """Distinct videos, also those where nobody is."""
        return len({*self.rows["video"].unique(), *self.nobody["video"].unique()})


def rows_of(values: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """A table of rows in the order of `COLUMNS`; None stands for NA and NaN, times are rounded to 6 decimals."""
    frame = pd.DataFrame(list(values), columns=COLUMNS)
    frame = frame.astype({name: _TYPES.get(name, "float64") for name in COLUMNS})
    frame["time_s"] = frame["time_s"].round(DECIMALS)
    return frame


def with_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the columns that it lacks, empty, in the order of `COLUMNS`."""
    empty = {
        "action_id": pd.array([pd.NA] * len(frame), dtype="Int64"),
        "actor_id": pd.Series([""] * len(frame), dtype="str"),
        "score": np.nan,
    }
    missing = {name: value for name, value in empty.items() if name not in frame}
    return frame.reset_index(drop=True).assign(**missing)[COLUMNS]


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by every column, so that two files that say the same give equal tables."""
    return rows.sort_values(COLUMNS, kind="stable", ignore_index=True)


def by_key_frame(rows: pd.DataFrame) -> Iterator[tuple[str, float, list[tuple[Any, ...]]]]:
    """Video, second and rows (as tuples) of each key frame, sorted by video and second, rows in their order."""
    ordered = rows.sort_values(["video", "time_s"], kind="stable")
    listed = list(zip(*(ordered[name].tolist() for name in ordered.columns), strict=True))
    places = list(zip(ordered["video"].tolist(), ordered["time_s"].tolist(), strict=True))
    start = 0
    for end in range(1, len(listed) + 1):
        if end == len(listed) or places[end] != places[start]:
            yield *places[start], listed[start:end]
            start = end


def number_of(value: Any) -> float | None:
    """A finite number as float; None if `value` is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole_number_of(value: Any) -> int | None:
    """A whole number of at most 15 digits, also if it is a float without a fraction; None if `value` is none."""
    number = number_of(value)
    return int(number) if number is not None and number.is_integer() and abs(number) < 1e15 else None


def time_of(value: Any) -> float | None:
    """A time in seconds given as a number or as text (`0902`); None if `value` is none, or beyond `LATEST_S`."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{0,15})?", value.strip()):
        value = float(value)
    time_s = number_of(value)
    return None if time_s is None or is_late(time_s) else time_s


def is_late(time_s: float) -> bool:
    """Whether a time is beyond what any reader takes: such a one is not written, either."""
    return abs(round(time_s, DECIMALS)) > LATEST_S


def numbers_of(value: Any, most: int) -> list[float] | None:
    """Finite numbers of a list, a tuple or a one-dimensional array of at most `most`; None if `value` is none."""
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "iuf":
            return None
        value = value.tolist() if len(value) <= most else None
    if not isinstance(value, list | tuple) or len(value) > most:
        return None
    numbers = [number_of(item) for item in value]
    return None if None in numbers else [number for number in numbers if number is not None]


def text_of(value: Any) -> str | None:
    """A video's or person's id that a csv file can hold, too: text without control characters; None if none."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62:
        value = str(value)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        return None
    return value.strip()


def box_fits(
    path: Path, place: str, box: Sequence[float], found: Findings | None, *, may_be_empty: bool = False
) -> bool:
    """Whether a box is inside of the frame, up to rounding, and has an area.

    Raises:
        UserError: it is not, and `found` is None. A box without area is passed over with `may_be_empty`.
    """
    told = ",".join(f"{value:g}" for value in box)
    if not all(-BOX_SLOP <= value <= 1 + BOX_SLOP for value in box):
        complain(path, place, f"box {told} is outside the frame; {_FRACTIONS}", found, OUT_OF_RANGE)
        return False
    if box[0] < box[2] and box[1] < box[3]:
        return True
    if not may_be_empty:
        complain(
            path, place, f"box {told} has no area; expected x1 < x2 and y1 < y2; correct or remove it", found,
            NO_AREA,
        )  # fmt: skip
    return False


def malformed(path: Path, place: str, complaint: str, found: Findings | None) -> None:
    """Note a part of the file that cannot be read.

    Raises:
        UserError: `found` is None.
    """
    complain(path, place, complaint, found, MALFORMED)
