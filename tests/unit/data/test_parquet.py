"""Tables that cannot be read name the file and the way to a new one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acar.data.parquet import read_parquet
from acar.data.tables import PERSON_BOX_COLUMNS, read_boxes
from acar.detection.boxes import boxes_table
from acar.errors import UserError


def test_a_whole_table(tmp_path: Path) -> None:
    table = pd.DataFrame({"video": ["a", "b"], "other": [1, 2]})
    table.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "t.parquet", ["video"], "rerun x"), table)


@pytest.mark.parametrize("n_bytes", [0, 3, 200, -1])
def test_cut_off(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"video": ["a"] * 99}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(UserError, match=r"t\.parquet: not a readable parquet table.*; rerun x") as error:
        read_parquet(path, ["video"], "rerun x")
    assert "\n" not in str(error.value)


def test_absent_and_foreign(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no t\.parquet; rerun x"):
        read_parquet(tmp_path / "t.parquet", ["video"], "rerun x")
    pd.DataFrame({"id": [1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"has no column video, time_s \(it has id\).*; rerun x"):
        read_parquet(tmp_path / "t.parquet", ["video", "time_s"], "rerun x")


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array([1.0]), pa.array([2.0])]
    pq.write_table(pa.Table.from_arrays(columns, names=["video", "x1", "x1"]), tmp_path / "t.parquet")
    with pytest.raises(
        UserError, match=r"t\.parquet: has column x1 more than once.*; leave .* once, or rerun x"
    ):
        read_parquet(tmp_path / "t.parquet", ["video"], "rerun x")


def test_boxes_of_shards_follow_each_other(tmp_path: Path) -> None:
    for shard, videos in (("s0", ["b"]), ("s1", []), ("s2", ["a"])):
        (tmp_path / shard).mkdir()
        boxes = boxes_table(videos, [1.0] * len(videos), [[0, 0, 1, 1]] * len(videos), [0.5] * len(videos))
        boxes.to_parquet(tmp_path / shard / "boxes.parquet", index=False)
    table = read_boxes([tmp_path / "s0", tmp_path / "s1", tmp_path / "s2"])
    assert table["video"].tolist() == ["b", "a"] and table.columns.tolist() == PERSON_BOX_COLUMNS
    with pytest.raises(UserError, match=r"s3: no boxes\.parquet; rerun `acar detect`"):
        read_boxes([tmp_path / "s3"])
