"""Banks of actor features (memory: lfb), alone or beside maps: the right rows at every second."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from bank_samples import D, Sample, usual_sample

from acar.bank.inspect import describe
from acar.bank.layout import open_array
from acar.bank.reader import BankReader, check_compatible, check_same_source
from acar.bank.scan import scan_file
from acar.bank.wrong_video import WrongVideoBank
from acar.errors import UserError
from acar.files import sha256_of

C = 3


@pytest.fixture(scope="module", params=["actor", "both"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sample]:
    sample = usual_sample(d=0 if request.param == "actor" else D, c=C)
    return sample.write(tmp_path_factory.mktemp("bank")), sample


def test_windows_bring_the_rows_of_their_seconds(written: tuple[Path, Sample]) -> None:
    bank, sample = written
    reader = BankReader(bank)
    for video in sample.videos:
        number = sample.number(video.name)
        for time_s in video.seconds:
            rows = reader.window(video.name, time_s, 2, exclude_radius_s=0)
            away = np.abs(video.time_s - time_s)
            keep = (away <= 2) & (away > 0)
            assert rows.actors.dtype == np.float16 and len(rows) == keep.sum()
            np.testing.assert_array_equal(rows.actors, video.features(number)[keep])
            expected = video.maps(number)[keep] if sample.d else np.zeros((keep.sum(), 0, *video.grid))
            np.testing.assert_array_equal(rows.maps, expected)
            np.testing.assert_array_equal(rows.time_s, video.time_s[keep])


def test_only_what_is_asked_for_is_read(written: tuple[Path, Sample]) -> None:
    bank, _ = written
    reader = BankReader(bank, reads=["actor"])
    assert (reader.d, reader.c) == (0, C)
    rows = reader.window("e", 3, 2)
    assert rows.maps.shape == (28, 0, 3, 3) and rows.actors.shape == (28, C)
    assert reader.window("d", 1, 1).actors.shape == (0, C)
    assert BankReader(bank, reads=["relation"]).window("e", 3, 2).actors.shape == (28, 0)
    other = WrongVideoBank(reader, 0)
    assert other.c == C and other.window("e", 3, 2).actors.shape[1] == C


def test_plain_tools_read_them(written: tuple[Path, Sample]) -> None:
    bank, sample = written
    grid = zarr.open_group(bank / "shard-000/rows.zarr", mode="r")["3x4"]
    assert grid["actor"].metadata.dimension_names == ("row", "actor_channel")
    assert ("relation" in grid) == bool(sample.d)
    np.testing.assert_array_equal(grid["actor"][14:32], sample.by_name("c").features(2))
    text = describe(bank)
    assert f"actor features of c = {C}" in text and (f"maps of d = {D}" in text) == bool(sample.d)


def test_a_head_that_reads_something_else_is_refused(written: tuple[Path, Sample], sealed_root: Path) -> None:
    bank, sample = written
    manifest, maps_only = BankReader(bank).manifest, BankReader(sealed_root / "bank/val").manifest
    check_compatible(manifest, c=C, split="val")
    with pytest.raises(UserError, match=r"holds actor features of 3 channels, .* reduce_channels 8"):
        check_compatible(manifest, c=8, split="val")
    with pytest.raises(UserError, match=r"no actor features \(bank.rows\)"):
        check_compatible(maps_only, c=C, split="val")
    if not sample.d:
        with pytest.raises(UserError, match="holds maps of d = 0"):
            check_compatible(manifest, d=D, split="val")
    with pytest.raises(UserError, match=r"differ in .*c"):
        check_same_source(manifest, maps_only)


def test_damage_is_found_by_sealing_and_by_reading(written: tuple[Path, Sample], tmp_path: Path) -> None:
    sealed, sample = written
    root = tmp_path / "copy"
    shutil.copytree(sealed, root / "bank" / "val")
    file = root / "bank/val/shard-000/rows.zarr/3x4/actor/c/0/0"
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(UserError, match=r"actor .*cannot be read.*extract-bank"):
        BankReader(root / "bank/val", cache_mib=0).window("a", 0, 9)
    with pytest.raises(UserError, match="actor/c/0/0 is damaged"):
        sample.seal(root)


def test_values_that_are_not_finite_are_refused_when_written_and_when_sealed(tmp_path: Path) -> None:
    sample = usual_sample(c=C)
    video = sample.by_name("a")
    writer = sample.writer(tmp_path / "work", 0)
    features = video.features(0).copy()
    features[3, 1] = np.inf
    with pytest.raises(UserError, match="second 1: actor of row 3 is not finite"):
        writer.add_video(
            "a", grid=video.grid, seconds=video.seconds, time_s=video.time_s, boxes=np.zeros((14, 4)),
            score=np.ones(14), maps=video.maps(0), actors=features,
        )  # fmt: skip
    bank = sample.write(tmp_path)
    shard = bank / "shard-000"
    open_array(shard, "3x4", "actor", "r+")[5] = np.nan
    file = "rows.zarr/3x4/actor/c/0/0"
    facts = {"bytes": (shard / file).stat().st_size, "sha256": sha256_of(shard / file)}
    problem = scan_file(shard, file, facts, {"3x4": 8, "3x3": 8}).problem
    assert problem is not None and "actor feature of row 5 is not finite" in problem


def test_an_interrupted_shard_goes_on_to_the_same_bytes(tmp_path: Path, written: tuple[Path, Sample]) -> None:
    sealed, sample = written
    videos = sample.of_shard(0)
    for video in videos[: len(videos) // 2]:
        writer = sample.writer(tmp_path / "work" / "0", 0)  # a new process each time
        sample.add(writer, video)
    sample.write_shard(tmp_path, 0)
    ours, theirs = tmp_path / "bank/val/shard-000", sealed / "shard-000"
    assert (ours / "facts.json").read_bytes() == (theirs / "facts.json").read_bytes()
