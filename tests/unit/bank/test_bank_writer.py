"""The writer: resumed after a break at any point, it gives the bytes of an unbroken run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from bank_samples import SETTINGS, D, Sample, Video, files_below

import acar.bank.writer as writer_module
from acar.bank.layout import GridLayout, chunk_file, open_array, parse_chunk_file
from acar.bank.writer import ShardWriter
from acar.config import BankConfig
from acar.errors import UserError


class Break(Exception):
    """Stands for a kill."""


class Breaker:
    """Counts the steps that change what survives a kill; raises before or after the chosen one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.at, self.after = -1, False
        # Every rename of a file or folder (zarr's chunks too), the removal of staged files, the journal.
        for owner, name in ((os, "replace"), (os, "rename"), (Path, "unlink"), (ShardWriter, "_append")):
            monkeypatch.setattr(owner, name, self._wrap(name, getattr(owner, name)))
        monkeypatch.setattr(writer_module.shutil, "rmtree", self._wrap("rmtree", writer_module.shutil.rmtree))

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name == "unlink" and kwargs:  # of a temporary name that is gone already
                return function(*args, **kwargs)
            number = len(self.steps)
            self.steps.append(name)
            if number == self.at and not self.after:
                raise Break
            value = function(*args, **kwargs)
            if number == self.at and self.after:
                raise Break
            return value

        return wrapped

    def arm(self, at: int, after: bool) -> None:
        self.steps, self.at, self.after = [], at, after


def small_sample() -> Sample:
    """Zarr shards filled by one video, by several, and not filled; a video without rows."""
    return Sample(
        [
            Video("a", (1, 2), [2, 0, 1]),
            Video("b", (1, 2), [2]),
            Video("c", (1, 2), [0, 0]),
            Video("d", (1, 2), [3, 5]),
        ],
        n_shards=1,
        settings=BankConfig(chunk_kib=1, rows_per_shard=4, zstd_level=1),
    )


def test_broken_anywhere_and_rerun_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = small_sample()
    sample.write_shard(tmp_path / "whole", 0)
    expected = files_below(tmp_path / "whole/bank")
    breaker = Breaker(monkeypatch)
    sample.write_shard(tmp_path / "counted", 0)
    steps = breaker.steps
    assert {name: steps.count(name) for name in ("_append", "unlink", "rename")} == {
        "_append": 5, "unlink": 2, "rename": 1
    }  # fmt: skip
    # Nothing is done between two renames, so "after" one of them is "before" the next step.
    points = [(at, False) for at in range(len(steps))]
    points += [(at, True) for at, name in enumerate(steps) if name != "replace"]
    for at, after in points:
        root = tmp_path / f"{at}-{after}"
        breaker.arm(at, after)
        with pytest.raises(Break):
            sample.write_shard(root, 0)
        breaker.arm(-1, False)
        sample.write_shard(root, 0)
        assert files_below(root) == {f"bank/{name}": content for name, content in expected.items()}, (
            at,
            after,
        )


def test_finished_videos_are_skipped_and_survive(tmp_path: Path) -> None:
    sample = small_sample()
    writer = sample.writer(tmp_path / "work/0", 0)
    for video in sample.videos[:3]:
        sample.add(writer, video)
    again = sample.writer(tmp_path / "work/0", 0)
    assert again.finished == {"a", "b", "c"}  # c has no rows, and is finished all the same


@pytest.mark.parametrize("torn", [b'{"video": "d", "gr', b"\x00\x00"])
def test_torn_journal_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    sample = small_sample()
    sample.write_shard(tmp_path / "whole", 0)
    writer = sample.writer(tmp_path / "work/0", 0)
    for video in sample.videos[:3]:
        sample.add(writer, video)
    with open(tmp_path / "work/0/journal.jsonl", "ab") as stream:
        stream.write(torn)
    sample.write_shard(tmp_path, 0)
    assert files_below(tmp_path / "bank") == files_below(tmp_path / "whole/bank")


def test_leftovers_of_a_kill_do_not_reach_the_shard(tmp_path: Path) -> None:
    sample = small_sample()
    sample.write_shard(tmp_path / "whole", 0)
    writer = sample.writer(tmp_path / "work/0", 0)
    sample.add(writer, sample.videos[0])
    for leftover in ("staged/.0000001.npz.7.tmp.npz", "shard/rows.zarr/1x2/.zarr.json.7.tmp.json",
                     "shard/rows.zarr/1x2/relation/c/5/0/0/0", "shard/facts.json"):  # fmt: skip
        path = tmp_path / "work/0" / leftover
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    sample.write_shard(tmp_path, 0)
    assert files_below(tmp_path / "bank") == files_below(tmp_path / "whole/bank")


@pytest.mark.parametrize("change", [{"weights_sha256": "other"}, {"boxes_sha256": "other"}])
def test_work_of_another_origin_is_started_over(tmp_path: Path, change: dict[str, str]) -> None:
    sample = small_sample()
    sample.add(sample.writer(tmp_path / "work", 0), sample.videos[0])
    assert sample.writer(tmp_path / "work", 0).finished == {"a"}
    assert sample.writer(tmp_path / "work", 0, **change).finished == set()


def test_work_that_lost_a_file_is_started_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = small_sample()
    sample.add(sample.writer(tmp_path / "work", 0), sample.videos[0])
    (tmp_path / "work/staged/0000000.npz").unlink()
    assert sample.writer(tmp_path / "work", 0).finished == set()
    assert "0000000.npz is lost; the shard starts over" in capsys.readouterr().err


def test_full_shards_are_written_once(tmp_path: Path) -> None:
    sample = small_sample()
    writer = sample.writer(tmp_path / "work", 0)
    for video in sample.videos[:2]:
        sample.add(writer, video)
    first = tmp_path / "work/shard" / chunk_file("1x2", "relation", 0)
    before = (first.stat().st_ino, first.stat().st_mtime_ns)
    sample.add(writer, sample.videos[3])
    writer.finish(tmp_path / "final")
    final = tmp_path / "final" / chunk_file("1x2", "relation", 0)
    assert (final.stat().st_ino, final.stat().st_mtime_ns) == before
    assert not (tmp_path / "work").exists()


def test_all_zero_maps_are_written_like_any_other(tmp_path: Path) -> None:
    writer = small_sample().writer(tmp_path / "work", 0)
    zeros = np.zeros((4, D, 1, 2), np.float16)
    writer.add_video("a", grid=(1, 2), seconds=[0], time_s=np.zeros(4), boxes=np.zeros((4, 4)),
                     score=np.zeros(4), maps=zeros)  # fmt: skip
    writer.finish(tmp_path / "final")
    assert (tmp_path / "final" / chunk_file("1x2", "relation", 0)).stat().st_size > 0
    np.testing.assert_array_equal(open_array(tmp_path / "final", "1x2", "relation")[:], zeros)
    (tmp_path / "final" / chunk_file("1x2", "relation", 0)).unlink()
    assert np.isnan(open_array(tmp_path / "final", "1x2", "relation")[:]).all()  # lost is not zero


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_that_float16_cannot_hold_are_refused_by_place(tmp_path: Path, value: float) -> None:
    maps = np.zeros((3, D, 1, 2), np.float32)
    maps[2, 1, 0, 1] = value
    writer = small_sample().writer(tmp_path / "work", 0)
    with pytest.raises(UserError, match="video 'a', second 7: relation of row 2 is not finite"):
        writer.add_video("a", grid=(1, 2), seconds=[6, 7], time_s=np.array([6, 6, 7]),
                         boxes=np.zeros((3, 4)), score=np.zeros(3), maps=maps)  # fmt: skip


def test_empty_shard(tmp_path: Path) -> None:
    sample = Sample([Video("a", (1, 2), [1])], n_shards=3)  # more shards than videos
    bank = sample.write(tmp_path)
    assert sorted(p.name for p in bank.iterdir()) == [
        "index.parquet", "manifest.json", "shard-000", "shard-001", "shard-002"
    ]  # fmt: skip
    assert list(zarr.open_group(bank / "shard-001/rows.zarr", mode="r").keys()) == []


def test_the_version_of_the_code_is_no_part_of_what_is_sealed(tmp_path: Path) -> None:
    """It lies in origin.json; in the facts it would rebuild every reader of the bank after each edit."""
    names = ("split", "weights_sha256", "boxes_sha256", "config_sha256")
    for code in ("1.0+aaa", "1.0+bbb"):
        writer = ShardWriter(tmp_path / "work", SETTINGS, D, dict.fromkeys(names, "x") | {"shard": 0})
        origin = {"stage": "extract_bank", "config": {}, "inputs": {}, "code": code}
        writer.finish(tmp_path / code, origin)
    old, new = (files_below(tmp_path / code) for code in ("1.0+aaa", "1.0+bbb"))
    assert {str(name) for name in old if old[name] != new[name]} == {"origin.json"}


def test_layout_of_settings() -> None:
    layout = GridLayout.of(BankConfig(chunk_kib=512, rows_per_shard=512), d=512, grid="7x10")
    assert (layout.chunk_rows, layout.shard_rows) == (7, 518)  # 70 KiB a row; a multiple of the chunk
    tiny = GridLayout.of(BankConfig(chunk_kib=1, rows_per_shard=4), d=512, grid="7x10")
    assert (tiny.chunk_rows, tiny.shard_rows) == (1, 4)
    wide = GridLayout.of(BankConfig(chunk_kib=512, rows_per_shard=4), d=2, grid="1x1")
    assert (wide.chunk_rows, wide.shard_rows) == (4, 4)
    for name in layout.arrays():
        assert parse_chunk_file(chunk_file("7x10", name, 3)) == ("7x10", name, 3)
    assert parse_chunk_file("rows.zarr/7x10/relation/zarr.json") is None


def test_facts_must_say_where_the_rows_come_from(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="facts need"):
        ShardWriter(tmp_path / "work", SETTINGS, D, {"split": "val"})
