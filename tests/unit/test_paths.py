from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acar.config import parse_config
from acar.data.shards import videos_of_shard
from acar.paths import Paths, shard_name


def test_everything_lies_under_the_results_folder():
    paths = Paths.of(parse_config({"run": {"results": "out"}}))
    for path in (paths.config, paths.data, paths.ingest("train", 0), paths.report, paths.work("x")):
        assert path.is_relative_to("out")


def test_numbers_and_wildcards_make_the_same_names():
    paths = Paths(Path("r"))
    assert shard_name(3) == shard_name("003") == "shard-003"
    for folder in (paths.ingest, paths.boxes, paths.bank_shard):
        pattern = str(folder("{split}", "{shard}"))
        assert pattern.format(split="val", shard="012") == str(folder("val", 12))
    assert str(paths.predictions("{variant}", "{shard}")).format(variant="stage1", shard="000") == str(
        paths.predictions("stage1", 0)
    )


def test_no_artefact_lies_inside_another_jobs_folder():
    paths = Paths(Path("r"))
    folders = [paths.data, paths.detector, paths.training(1), paths.training(2), paths.work("stage1")]
    for split in ("train", "val"):
        folders += [paths.bank(split) / "manifest.json"]
        folders += [f(split, 0) for f in (paths.ingest, paths.boxes, paths.bank_shard)]
    folders += [paths.predictions("stage1", 0), paths.evaluation("stage1"), paths.report]
    for one, other in combinations(folders, 2):
        assert not one.is_relative_to(other) and not other.is_relative_to(one), (one, other)


@given(st.sets(st.text("abcdef_-0123456789", min_size=1), max_size=30), st.integers(1, 9))
def test_shards_part_the_videos(videos, n_shards):
    parts = [videos_of_shard(sorted(videos), shard, n_shards) for shard in range(n_shards)]
    assert sorted(video for part in parts for video in part) == sorted(videos)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_beyond_the_last_is_our_mistake():
    with pytest.raises(AssertionError):
        videos_of_shard(["a"], 2, 2)
