"""Person boxes from elsewhere: csv files and mmaction2's proposal pickles. Never imports torch."""

from __future__ import annotations

import collections
import itertools
import pickle
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, BOX_SLOP, check_boxes, csv_rows, read_csv
from acar.data.tables import PERSON_BOX_COLUMNS, read_box_csv, read_labels
from acar.detection.boxes import boxes_table, in_order
from acar.errors import UserError

SNIFF_ROWS = 100_000


def import_boxes(path: str | Path) -> pd.DataFrame:
    """Read a box file as a boxes table (video, time_s, x1, y1, x2, y2 in 0..1, score), in canonical order.

    By suffix:
        .csv: video, time, x1, y1, x2, y2 [, action] [, score], no header, as FAIR's detections for AVA
            (score last) or AVA's own labels (person id last: each distinct box counts with score 1).
        .pkl, .pickle: mmaction2 proposals, a dict "video,0902" -> array (N, 5) with scores or (N, 4) without.

    Boxes of a pickle that have no area are dropped, and counted on stderr.

    Raises:
        UserError: unknown suffix, or the file is malformed; names the row or entry.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"detector.boxes: {path}: no such file")
    if path.suffix == ".csv":
        return in_order(_read_csv(path))
    if path.suffix in (".pkl", ".pickle"):
        return _read_proposals(path)
    raise UserError(f"detector.boxes: {path}: unknown suffix {path.suffix!r}; expected .csv, .pkl or .pickle")


def _read_csv(path: Path) -> pd.DataFrame:
    rows = _first_rows(path)
    width = len(rows[0]) if rows else len(PERSON_BOX_COLUMNS)
    if width == 6:
        return _read_bare_csv(path)
    # A last column of whole numbers only holds action ids (7 columns) or person ids (8), not scores.
    last = [row[-1].strip() for row in rows]
    if rows and all(_is_id(cell) for cell in last):
        labels = read_labels(path)
        return labels.assign(score=1.0)[PERSON_BOX_COLUMNS].drop_duplicates(ignore_index=True)
    return read_box_csv(path)


def _is_id(cell: str) -> bool:
    """Whether a cell of the last column is an id (or empty), not a score."""
    try:
        float(cell or "nan")
    except ValueError:
        return True
    return cell == "" or cell.isdigit()


def _first_rows(path: Path) -> list[list[str]]:
    return [cells for _, cells in itertools.islice(csv_rows(path), SNIFF_ROWS)]


def _read_bare_csv(path: Path) -> pd.DataFrame:
    """Boxes without action and score."""
    table, lines = read_csv(path, ["video", "time_s", *BOX_COLUMNS], n_required=6)
    check_boxes(table, lines, clip=True)
    return table.assign(score=1.0).drop_duplicates(ignore_index=True)


def _read_proposals(path: Path) -> pd.DataFrame:
    proposals = read_plain_pickle(path)
    if not isinstance(proposals, dict):
        raise UserError(
            f"{path}: expected a dict 'video,0902' -> array (N, 4 or 5), found {type(proposals).__name__}"
        )
    videos: list[str] = []
    times: list[float] = []
    arrays = [np.zeros((0, 5))]
    for key, value in proposals.items():
        video, time_s = _proposal_key(path, key)
        array = _proposal_array(path, key, value)
        videos += [video] * len(array)
        times += [time_s] * len(array)
        arrays.append(array)
    rows = np.concatenate(arrays)
    table = boxes_table(videos, times, np.clip(rows[:, :4], 0, 1), rows[:, 4])
    _say_dropped(path, len(rows) - len(table))
    return table


def _proposal_key(path: Path, key: Any) -> tuple[str, float]:
    try:
        video, second = key.rsplit(",", 1)
        time_s = float(second)
        if not (video and np.isfinite(time_s)):
            raise ValueError
    except (AttributeError, ValueError):
        raise UserError(f"{path}, entry {key!r}: expected a key such as 'video,0902'") from None
    return video, time_s


def _proposal_array(path: Path, key: str, value: Any) -> np.ndarray:
    """One key frame's boxes and scores: float64 (N, 5)."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{path}, entry {key!r}: expected an array of numbers") from None
    if array.size == 0:
        return np.zeros((0, 5))
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise UserError(f"{path}, entry {key!r}: array of shape {array.shape}; expected (N, 4) or (N, 5)")
    _check_fractions(array[:, :4], f"{path}, entry {key!r}")
    if array.shape[1] == 4:
        return np.concatenate([array, np.ones((len(array), 1))], axis=1)
    bad = np.flatnonzero(~((array[:, 4] >= 0) & (array[:, 4] <= 1)))
    if len(bad):
        raise UserError(f"{path}, entry {key!r}: row {bad[0]}: score {array[bad[0], 4]:g}; expected 0..1")
    return array


def _check_fractions(boxes_N4: np.ndarray, where: str) -> None:
    inside = (boxes_N4 >= -BOX_SLOP) & (boxes_N4 <= 1 + BOX_SLOP)  # false for NaN too
    bad = np.flatnonzero(~inside.all(axis=1))
    if len(bad):
        text = ",".join(f"{value:g}" for value in boxes_N4[bad[0]])
        raise UserError(
            f"{where}: row {bad[0]}: box {text}; expected {','.join(BOX_COLUMNS)} as fractions 0..1 of the "
            "frame's width and height (divide pixels by them)"
        )


def _say_dropped(path: Path, count: int) -> None:
    if count:
        print(f"{path}: dropped {count} box(es) without area", file=sys.stderr, flush=True)


# Pickles run code when read. This reader calls nothing but what rebuilds numpy arrays of numbers.


def read_plain_pickle(path: str | Path) -> Any:
    """Read a pickle of numpy arrays and plain containers without running code from it.

    Raises:
        UserError: the file names anything else, or is not a pickle.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            # latin1: pickles that Python 2 wrote hold array bytes as str.
            return _PlainUnpickler(stream, encoding="latin1").load()
    except _RefusedError as error:
        raise UserError(
            f"{path}: refused: the pickle asks for {error}, and only numpy arrays and plain containers are "
            "read (anything else could run code); convert the file to csv where you trust it"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise UserError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from None


class _RefusedError(Exception):
    pass


def _reconstruct(subtype: Any, shape: Any, dtype: Any) -> np.ndarray:
    if subtype is not np.ndarray:
        raise _RefusedError(f"an array of type {subtype!r}")
    return np.ndarray.__new__(np.ndarray, shape, _dtype(dtype))


def _dtype(name: Any, *_flags: Any) -> np.dtype:
    # A copy: the state that the pickle gives it next must not reach numpy's own dtype.
    dtype = np.dtype(name.decode("ascii") if isinstance(name, bytes) else name, copy=True)
    if dtype.kind not in "biuf":
        raise _RefusedError(f"a numpy dtype {dtype}, not of plain numbers,")
    return dtype


def _scalar(dtype: np.dtype, data: bytes | str) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype, count=1)[0]


def _from_buffer(data: Any, dtype: np.dtype, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


_NUMPY_CORES = ("numpy.core", "numpy._core")  # numpy 1 and 2
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    # How protocols 0 to 2 write the data of an empty array.
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _NUMPY_CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _NUMPY_CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _NUMPY_CORES},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return _ALLOWED[module, name]
