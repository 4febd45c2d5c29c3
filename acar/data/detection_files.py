"""Detections on disk: AVA's result csv, which counts, and the same rows as parquet, which reads faster.

The parquet file names the digest of the csv that it goes with: a csv that somebody has edited or replaced is read
itself. Never imports torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acar.data.csv_files import BOX_COLUMNS, DECIMALS, LARGEST_INTEGER, LATEST_S, Lines
from acar.data.input_files import check_input
from acar.data.parquet import read_parquet
from acar.data.tables import DETECTION_COLUMNS, read_detections, write_detections
from acar.errors import UserError
from acar.files import atomic_path, sha256_of

CSV_NAME, PARQUET_NAME = "detections.csv", "detections.parquet"
_DIGEST = b"acar.csv_sha256"


def write_detection_files(detections: pd.DataFrame, folder: str | Path) -> None:
    """Write `detections.csv` and `detections.parquet` of the same rows; boxes and scores keep 6 decimals."""
    folder = Path(folder)
    numbers = [*BOX_COLUMNS, "score"]
    rounded = detections[DETECTION_COLUMNS].assign(
        **{name: np.round(detections[name].to_numpy(np.float64), DECIMALS) for name in numbers},
        time_s=detections["time_s"].round(DECIMALS),
    )
    write_detections(rounded, folder / CSV_NAME)
    write_detection_parquet(rounded, folder / PARQUET_NAME, sha256_of(folder / CSV_NAME))


def write_detection_parquet(detections: pd.DataFrame, path: str | Path, csv_sha256: str = "") -> None:
    """Write the columns of a result csv as parquet, atomically; `csv_sha256` is of the csv with the same rows."""
    table = pa.Table.from_pandas(detections[DETECTION_COLUMNS], preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _DIGEST: csv_sha256.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_detection_files(folder: str | Path, *, scored: bool = False) -> pd.DataFrame:
    """Read a folder's `detections.csv`, from the parquet file beside it if that holds the same rows.

    Args:
        folder: e.g. results/predictions/stage2/shard-000.
        scored: a row without a score is malformed, not 1.0.

    Raises:
        UserError: no such csv, or a malformed row.
    """
    csv, parquet = Path(folder) / CSV_NAME, Path(folder) / PARQUET_NAME
    return _read_parquet(parquet) if _goes_with(parquet, csv) else read_detections(csv, scored=scored)


def read_any_detections(path: str | Path, *, scored: bool = False) -> pd.DataFrame:
    """Read detections from an AVA result csv or a parquet file with its columns, told by content.

    Args:
        path: the file.
        scored: a row without a score is malformed, not 1.0.

    Raises:
        UserError: no such file, or a malformed one.
    """
    path = Path(path)
    check_input(path)
    return _read_parquet(path) if _is_parquet(path) else read_detections(path, scored=scored)


def place_of_row(path: str | Path, row: int) -> str:
    """Where a row (from 0) of what `read_any_detections` gave is in the file: `line 3`, or `row 3` of parquet."""
    path = Path(path)
    return f"row {row + 1}" if _is_parquet(path) else f"line {Lines(path).number(row)}"


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) == b"PAR1"


def _goes_with(parquet: Path, csv: Path) -> bool:
    if not (parquet.is_file() and csv.is_file()):
        return False
    try:
        digest = (pq.read_schema(parquet).metadata or {}).get(_DIGEST, b"")
    except (OSError, pa.ArrowException):
        return False
    return digest.decode("utf-8", "replace") == sha256_of(csv)


def _read_parquet(path: Path) -> pd.DataFrame:
    """The checks of `read_detections`, with row numbers for lines."""
    table = read_parquet(path, DETECTION_COLUMNS, "write it anew, or take the csv")[DETECTION_COLUMNS]
    for name in ("action_id", "time_s", *BOX_COLUMNS, "score"):
        if _is_boolean(table[name]):
            raise UserError(f"{path}: column {name} is of true and false; expected numbers; write it anew")
    try:
        table = table.astype({"video": "str"} | dict.fromkeys(["time_s", *BOX_COLUMNS, "score"], np.float64))
        table["action_id"] = _whole(path, table, "action_id")
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a column is not of numbers ({error}); write it anew") from None
    names = table["video"].unique()
    if any(pd.isna(name) or name != name.strip() or not name for name in names):
        table["video"] = table["video"].str.strip()
        nameless = (table["video"].isna() | (table["video"] == "")).to_numpy()
        _refuse(path, table, "video", nameless, "expected a video's id")
    _refuse(
        path,
        table,
        "time_s",
        table["time_s"].abs().to_numpy() > LATEST_S,
        f"expected seconds up to {LATEST_S:g}",
    )
    for name in ("time_s", *BOX_COLUMNS, "score"):
        _refuse(path, table, name, ~np.isfinite(table[name].to_numpy()), "expected a number")
    for name in BOX_COLUMNS:
        outside = ~table[name].between(-1.0, 2.0).to_numpy()
        _refuse(path, table, name, outside, "expected fractions 0..1 of the frame")
    table["time_s"] = table["time_s"].round(DECIMALS)
    return table


def _is_boolean(column: pd.Series) -> bool:
    """Whether a column holds truth values, some of them absent perhaps: cast, True would be class 1."""
    if column.dtype == object:
        return pd.api.types.infer_dtype(column, skipna=True) == "boolean"
    return pd.api.types.is_bool_dtype(column)


def _whole(path: Path, table: pd.DataFrame, name: str) -> np.ndarray:
    """(N,) int64 of a column of whole numbers, whatever type they have."""
    if isinstance(table[name].dtype, np.dtype) and table[name].dtype.kind == "i":
        return table[name].to_numpy(np.int64)
    numbers = table[name].to_numpy(np.float64, na_value=np.nan)
    not_whole = ~(np.abs(numbers) <= LARGEST_INTEGER) | (numbers % 1 != 0)
    _refuse(path, table, name, not_whole, "expected a whole number")
    return numbers.astype(np.int64)


def _refuse(path: Path, table: pd.DataFrame, name: str, bad: np.ndarray, wanted: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        value = table[name].iloc[rows[0]]
        raise UserError(
            f"{path}, row {rows[0] + 1}: {name} is {value}; {wanted}; correct or remove the row "
            f"({len(rows)} such row(s))"
        )
