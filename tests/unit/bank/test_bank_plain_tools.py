"""A bank is opened, and inspected, without our reader: zarr, dask, xarray, and `acar inspect-bank`."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import pytest
import zarr
from bank_samples import Sample

from acar.errors import UserError
from acar.stages import inspect_bank


@pytest.mark.filterwarnings("error")
def test_zarr_opens_it_without_warnings(sealed_root: Path, sample: Sample) -> None:
    group = zarr.open_group(sealed_root / "bank/val/shard-000/rows.zarr", mode="r")
    grid = group["3x4"]
    relation = grid["relation"]
    assert relation.metadata.dimension_names == ("row", "channel", "y", "x")
    assert relation.dtype == np.float16 and relation.shards[0] == 8
    assert dict(group.attrs) == {"d": 2, "c": 0, "split": "val", "shard": 0}
    names = [grid.attrs["videos"][i] for i in grid["video"][:]]
    assert names == ["a"] * 14 + ["c"] * 18
    np.testing.assert_array_equal(relation[14:32], sample.by_name("c").maps(2))
    np.testing.assert_array_equal(grid["time_s"][14:32], sample.by_name("c").time_s)


def test_index_leads_to_rows_with_pandas_and_zarr(sealed_root: Path, sample: Sample) -> None:
    bank = sealed_root / "bank/val"
    index = pd.read_parquet(bank / "index.parquet")
    row = index[(index["video"] == "e") & (index["time_s"] == 3)].iloc[0]
    group = zarr.open_group(bank / f"shard-{row['shard']:03d}" / "rows.zarr", mode="r")
    maps = group[row["grid"]]["relation"][row["start"] : row["start"] + row["length"]]
    np.testing.assert_array_equal(maps, sample.by_name("e").maps(4)[12:19])


def test_dask_opens_it(sealed_root: Path) -> None:
    maps = dask.array.from_zarr(str(sealed_root / "bank/val/shard-000/rows.zarr"), component="3x4/relation")
    assert maps.shape == (32, 2, 3, 4)
    assert np.isfinite(float(maps.astype("float32").mean().compute(scheduler="sync")))


def test_xarray_opens_it(sealed_root: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is not one of our dependencies")
    rows = xarray.open_zarr(sealed_root / "bank/val/shard-000/rows.zarr/3x4", consolidated=False)
    assert rows["relation"].dims == ("row", "channel", "y", "x")
    assert rows["boxes"].dims == ("row", "corner") and rows["time_s"].dims == ("row",)
    assert int((rows["video"] == rows.attrs["videos"].index("c")).sum()) == 18


def test_codecs_are_checked_inside_the_shard(sealed_root: Path) -> None:
    path = sealed_root / "bank/val/shard-000/rows.zarr/3x4/relation/zarr.json"
    sharding = json.loads(path.read_text())["codecs"][0]
    assert sharding["name"] == "sharding_indexed"
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "zstd", "crc32c"]
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]


def test_inspect_a_sealed_bank(sealed_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_bank.run(sealed_root / "bank/val")
    text = capsys.readouterr().out
    for expected in (
        "sealed bank of split val",
        "rows      65",
        "24, 7 with no row",
        "3x4",
        "w" * 64,
        "shard-001",
    ):
        assert expected in text


def test_inspect_one_shard(sealed_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_bank.run(sealed_root / "bank/val/shard-000")
    text = capsys.readouterr().out
    for expected in ("shard 0 of split val", "rows      60", "3x3", "0.9464", "boxes_sha256"):
        assert expected in text


def test_inspect_says_what_a_folder_is_not(damaged_root: Path) -> None:
    (damaged_root / "bank/val/manifest.json").unlink()
    with pytest.raises(UserError, match="not sealed yet; finished shards: shard-000, shard-001"):
        inspect_bank.run(damaged_root / "bank/val")
    with pytest.raises(UserError, match="neither a bank"):
        inspect_bank.run(damaged_root)
    (damaged_root / "bank/val/shard-000/rows.zarr/3x4/relation/c/0/0/0/0").unlink()
    with pytest.raises(UserError, match="is missing; rerun extract_bank for shard 0"):
        inspect_bank.run(damaged_root / "bank/val/shard-000")
