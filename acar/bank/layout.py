"""How a bank lies on disk (docs/bank.md); no other module names its files, arrays or codecs.

Letters of shapes: rows (one an actor of one second), d channels, H x W the grid of the maps, c channels of actor
features.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from acar.config import BankConfig
from acar.files import write_text_atomic

FORMAT = 1
STORE = "rows.zarr"
SECONDS = "seconds.parquet"
FACTS = "facts.json"
INDEX = "index.parquet"
MANIFEST = "manifest.json"
RELATION = "relation"
ACTOR = "actor"
# What a shard must know of its origin, and which of it may differ between the shards of one bank.
REQUIRED_FACTS = ("split", "shard", "weights_sha256", "boxes_sha256", "config_sha256")
OWN_FACTS = ("shard", "boxes_sha256", "videos_sha256")


@dataclass(frozen=True)
class GridLayout:
    """The arrays that hold all rows of one grid in one shard.

    Attributes:
        d: channels of a map; 0: no maps are stored.
        height, width: of a map, in cells.
        chunk_rows: rows of an inner chunk, the least that is read.
        shard_rows: rows of a Zarr shard (one file), a multiple of `chunk_rows`; written once.
        zstd_level: 0 stores the bytes as they are.
        c: channels of an actor feature; 0: none are stored.
    """

    d: int
    height: int
    width: int
    chunk_rows: int
    shard_rows: int
    zstd_level: int
    c: int = 0

    @classmethod
    def of(cls, settings: BankConfig, d: int, grid: str, c: int = 0) -> GridLayout:
        """Chunks of about `chunk_kib` (of maps, if there are any), shards of at least `rows_per_shard` rows."""
        height, width = parse_grid(grid)
        row_bytes = (d * height * width or c) * np.dtype(np.float16).itemsize
        chunk_rows = min(max(1, settings.chunk_kib * 1024 // row_bytes), settings.rows_per_shard)
        shard_rows = -(-settings.rows_per_shard // chunk_rows) * chunk_rows
        return cls(d, height, width, chunk_rows, shard_rows, settings.zstd_level, c)

    @property
    def grid(self) -> str:
        """Name of the grid, e.g. "7x10"."""
        return grid_name(self.height, self.width)

    def empty(self) -> dict[str, np.ndarray]:
        """No rows, of the right shapes and types."""
        return {name: np.zeros((0, *spec.shape), spec.dtype) for name, spec in self.arrays().items()}

    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays of the grid's group, by name."""
        maps = ArraySpec((self.d, self.height, self.width), "float16", ("channel", "y", "x"), "NaN")
        features = ArraySpec((self.c,), "float16", ("actor_channel",), "NaN")
        return {
            **({RELATION: maps} if self.d else {}),
            **({ACTOR: features} if self.c else {}),
            "boxes": ArraySpec((4,), "float32", ("corner",), "NaN"),
            "score": ArraySpec((), "float32", (), "NaN"),
            "time_s": ArraySpec((), "float64", (), "NaN"),
            "video": ArraySpec((), "int32", (), -1),
        }

    def metadata(self, name: str, rows: int) -> str:
        """The array's `zarr.json` at a length of `rows` (file names of chunks do not depend on it)."""
        spec = self.arrays()[name]
        store: dict[str, Any] = {}
        sharded = name in (RELATION, ACTOR)
        zarr.create_array(
            MemoryStore(store),
            shape=(rows, *spec.shape),
            dtype=spec.dtype,
            chunks=(self.chunk_rows if sharded else self.shard_rows, *spec.shape),
            shards=(self.shard_rows, *spec.shape) if sharded else None,
            filters=None,
            # The checksum is inside the shard too: the sharding codec's own covers its index only.
            compressors=[*([ZstdCodec(level=self.zstd_level)] if self.zstd_level else []), Crc32cCodec()],
            # Not 0: a lost file must not read as a map of a quiet scene.
            fill_value=float("nan") if spec.fill == "NaN" else spec.fill,
            dimension_names=("row", *spec.dimensions),
        )
        return store["zarr.json"].to_bytes().decode("utf-8") + "\n"


@dataclass(frozen=True)
class ArraySpec:
    """One array: its shape, type and dimension names behind the rows, and what a lost chunk reads as."""

    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    fill: float | str


def grid_name(height: int, width: int) -> str:
    """`7x10` for maps 7 cells high and 10 wide."""
    return f"{height}x{width}"


def parse_grid(grid: str) -> tuple[int, int]:
    """(height, width) of a grid's name."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", grid)
    assert match, f"not a grid name: {grid!r}"
    return int(match[1]), int(match[2])


def flip_maps(maps: np.ndarray) -> np.ndarray:
    """Mirror maps (M, d, H, W) left to right, as a horizontally flipped clip sees them; a view, not a copy.

    The bank holds maps of unflipped clips only; a flipped clip's queries must meet flipped keys.
    """
    return maps[..., ::-1]


def chunk_file(grid: str, name: str, shard_index: int) -> str:
    """File of an array's rows [shard_index * shard_rows, ...), relative to the shard's folder."""
    dimensions = {RELATION: 4, ACTOR: 2, "boxes": 2}.get(name, 1)
    return f"{STORE}/{grid}/{name}/c/{shard_index}" + "/0" * (dimensions - 1)


def parse_chunk_file(relative: str) -> tuple[str, str, int] | None:
    """(grid, array, shard index) of a chunk's file; None for any other file of a shard."""
    match = re.fullmatch(rf"{re.escape(STORE)}/(\d+x\d+)/(\w+)/c/(\d+)(?:/0)*", relative)
    return (match[1], match[2], int(match[3])) if match else None


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write the `zarr.json` that makes `folder` a Zarr v3 group."""
    value = {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}
    write_text_atomic(folder / "zarr.json", json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_arrays(shard_folder: Path, layout: GridLayout, rows: int, videos: Sequence[str]) -> None:
    """Write the metadata of a grid's group and of its arrays, all of length `rows`."""
    group = shard_folder / STORE / layout.grid
    write_group(group, {"videos": list(videos)})
    for name in layout.arrays():
        write_text_atomic(group / name / "zarr.json", layout.metadata(name, rows))


def open_array(shard_folder: Path, grid: str, name: str, mode: str = "r") -> zarr.Array:
    """Open one array of a grid; all-zero chunks are written like any others."""
    path = shard_folder / STORE / grid / name
    return zarr.open_array(path, mode=mode, config={"write_empty_chunks": True})  # type: ignore[arg-type]
