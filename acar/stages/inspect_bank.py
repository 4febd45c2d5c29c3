"""Print what is in a sealed bank or in one of its shards (docs/bank.md)."""

from __future__ import annotations

from pathlib import Path

from acar.bank.inspect import describe


def run(bank: str | Path) -> None:
    """Print rows, bytes, grids, fill and provenance of the bank (or shard) in folder `bank`.

    Raises:
        UserError: the folder is no sealed bank and no shard, or is damaged.
    """
    print(describe(bank))
