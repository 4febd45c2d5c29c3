"""One reader of the run's parquet tables, which names the file and the stage to rerun when it cannot read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acar.errors import UserError


def read_parquet(path: str | Path, columns: Collection[str], remedy: str) -> pd.DataFrame:
    """Read a whole table that must have `columns` (others may be there too).

    Args:
        path: the file.
        columns: what the caller relies on.
        remedy: how to make the file anew, e.g. "rerun `acar ingest` for this shard"; ends each message.

    Raises:
        UserError: no such file, not a whole parquet file, or a column is absent or there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path.parent}: no {path.name}; {remedy}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        repeated = _repeated_columns(path)
        if repeated:
            raise UserError(
                f"{path}: has column {', '.join(repeated)} more than once, so another program wrote it; leave each "
                f"column once, or {remedy}"
            ) from None
        told = str(error).strip().split("\n")[0]
        raise UserError(f"{path}: not a readable parquet table, perhaps cut off ({told}); {remedy}") from None
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise UserError(
            f"{path}: has no column {', '.join(absent)} (it has {', '.join(map(str, table.columns))}), so "
            f"another program wrote it; {remedy}"
        )
    return table


def _repeated_columns(path: Path) -> list[str]:
    """The names that more than one column has; none of a file that cannot be read at all."""
    try:
        names = pq.read_schema(path).names
    except (OSError, ValueError, pa.ArrowException):
        return []
    return sorted({name for name in names if names.count(name) > 1})
