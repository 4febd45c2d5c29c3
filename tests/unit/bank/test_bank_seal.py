"""Sealing refuses every hole and names it; what it writes depends on the shards' bytes alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from bank_samples import Sample, files_below, usual_sample

from acar.bank.reader import BankReader
from acar.bank.seal import seal
from acar.errors import UserError

MAPS = "shard-000/rows.zarr/3x4/relation/c/1/0/0/0"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    (MAPS, Path.unlink, "relation/c/1/0/0/0 is missing"),
    (MAPS, _cut, r"relation/c/1/0/0/0 has \d+ bytes, its facts expect \d+"),
    (MAPS, lambda p: p.write_bytes(b""), "has 0 bytes"),
    (MAPS, lambda p: _flip(p, 3), "relation/c/1/0/0/0 is damaged"),
    (MAPS, lambda p: _flip(p, -9), "relation/c/1/0/0/0 is damaged"),
    ("shard-000/rows.zarr/3x4/time_s/c/0", Path.unlink, "time_s/c/0 is missing"),
    ("shard-000/rows.zarr/3x4/relation/zarr.json", lambda p: _flip(p, 9), "zarr.json is damaged"),
    ("shard-000/seconds.parquet", Path.unlink, "seconds.parquet cannot be read"),
    ("shard-000/facts.json", Path.unlink, "has no facts.json"),
    ("shard-000/facts.json", lambda p: p.write_text("{"), "facts.json or seconds.parquet cannot be read"),
    ("shard-000", shutil.rmtree, "shard-000: is missing"),
]


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES, ids=[f"{d[2][:30]}" for d in DAMAGES])
def test_holes_are_refused_with_the_command_that_mends_them(
    damaged_root: Path, sample: Sample, where: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(damaged_root / "bank/val" / where)
    with pytest.raises(UserError, match=message) as caught:
        sample.seal(damaged_root)
    assert "shard-000: " in str(caught.value)
    assert "acar extract-bank --config CONFIG --split val --shard 0" in str(caught.value)
    assert not (damaged_root / "bank/val/manifest.json").exists()
    with pytest.raises(UserError, match="not a sealed bank"):
        BankReader(damaged_root / "bank/val")


def _as_if_written_so(shard: Path, relative: str) -> None:
    """Make the facts agree with a damaged file, as if the writer itself had gone wrong."""
    from acar.files import sha256_of

    facts = json.loads((shard / "facts.json").read_text())
    facts["files"][relative] = {
        "bytes": (shard / relative).stat().st_size, "sha256": sha256_of(shard / relative)
    }  # fmt: skip
    (shard / "facts.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("position", [2, -9])
def test_chunks_are_decoded_not_only_hashed(damaged_root: Path, sample: Sample, position: int) -> None:
    _flip(damaged_root / "bank/val" / MAPS, position)
    _as_if_written_so(damaged_root / "bank/val/shard-000", MAPS.partition("/")[2])
    with pytest.raises(UserError, match="cannot be decoded"):
        sample.seal(damaged_root)


def test_wrong_row_count_is_told_by_number(damaged_root: Path, sample: Sample) -> None:
    shard = damaged_root / "bank/val/shard-001"
    seconds = pd.read_parquet(shard / "seconds.parquet")
    seconds.loc[0, "actors"] += 2
    seconds.to_parquet(shard / "seconds.parquet")
    _as_if_written_so(shard, "seconds.parquet")
    with pytest.raises(UserError, match=r"shard-001: 4 rows of grid 3x3, index expects 6"):
        sample.seal(damaged_root)


def test_rows_of_another_second_are_refused(damaged_root: Path, sample: Sample) -> None:
    shard = damaged_root / "bank/val/shard-000"
    seconds = pd.read_parquet(shard / "seconds.parquet")
    seconds.loc[0, "actors"], seconds.loc[1, "actors"] = 3, 2  # the same sum
    seconds.to_parquet(shard / "seconds.parquet")
    _as_if_written_so(shard, "seconds.parquet")
    with pytest.raises(UserError, match="shard-000: 3x4: row 2 is of second 1, index expects 0"):
        sample.seal(damaged_root)


@pytest.mark.parametrize("what", ["weights_sha256", "config_sha256"])
def test_shards_of_another_origin_are_refused(damaged_root: Path, sample: Sample, what: str) -> None:
    sample.write_shard(damaged_root, 1, **{what: "x" * 64})
    with pytest.raises(UserError, match=f"shard-001: {what} is xxxxxxxxxxxx..., shard-000 has "):
        sample.seal(damaged_root)


def test_shards_of_another_split_or_place_are_refused(damaged_root: Path, sample: Sample) -> None:
    bank = damaged_root / "bank/val"
    shutil.rmtree(bank / "shard-001")
    shutil.copytree(bank / "shard-000", bank / "shard-001")
    with pytest.raises(UserError, match="shard-001: holds shard 0 of split 'val'"):
        sample.seal(damaged_root)
    with pytest.raises(UserError, match="holds shard 0 of split 'val', expected shard 0 of split 'train'"):
        seal(bank, "train", 1)


def test_seconds_that_ingest_expects_must_be_there(damaged_root: Path) -> None:
    sample = usual_sample()
    expected = [[(v.name, t) for v in sample.of_shard(k) for t in v.seconds] for k in range(2)]
    expected[1].append(("f", 1.0))
    with pytest.raises(
        UserError, match=r"shard-001: 7 seconds, ingest expects 8; missing: video 'f', second 1"
    ):
        seal(damaged_root / "bank/val", "val", 2, expected=expected)


def test_a_video_in_two_shards_is_refused(tmp_path: Path) -> None:
    sample = usual_sample()
    sample.write_shard(tmp_path, 0)
    writer = sample.writer(tmp_path / "work/1", 1)
    sample.add(writer, sample.by_name("a"))
    writer.finish(tmp_path / "bank/val/shard-001")
    with pytest.raises(UserError, match="shard-001: video 'a' is in shard-000 too"):
        seal(tmp_path / "bank/val", "val", 2)


def test_sealing_again_or_after_an_unchanged_rebuild_gives_the_same_bytes(
    damaged_root: Path, sample: Sample
) -> None:
    before = files_below(damaged_root / "bank")
    sample.write_shard(damaged_root, 1)
    sample.seal(damaged_root)
    assert files_below(damaged_root / "bank") == before


def test_further_files_and_shards_do_not_disturb(damaged_root: Path, sample: Sample) -> None:
    before = (damaged_root / "bank/val/manifest.json").read_bytes()
    (damaged_root / "bank/val/shard-000/.snakemake_timestamp").touch()
    shutil.copytree(damaged_root / "bank/val/shard-001", damaged_root / "bank/val/shard-007")
    sample.seal(damaged_root)
    assert (damaged_root / "bank/val/manifest.json").read_bytes() == before


def test_index_has_every_second(sealed_root: Path, sample: Sample) -> None:
    index = pd.read_parquet(sealed_root / "bank/val/index.parquet")
    assert list(index.columns) == ["video", "time_s", "shard", "grid", "start", "length"]
    for video in sample.videos:
        rows = index[index["video"] == video.name]
        assert rows["time_s"].tolist() == video.seconds
        assert rows["length"].tolist() == video.actors
        assert (rows["start"].diff().dropna() == rows["length"][:-1].to_numpy()).all()
    assert index[["video", "time_s"]].equals(index[["video", "time_s"]].sort_values(["video", "time_s"]))


def test_manifest_counts_and_fill(sealed_root: Path, sample: Sample) -> None:
    manifest = json.loads((sealed_root / "bank/val/manifest.json").read_text())
    actors = [n for video in sample.videos for n in video.actors]
    assert manifest["rows"] == sum(actors)
    assert (manifest["seconds"], manifest["empty_seconds"]) == (len(actors), actors.count(0))
    maps = [v.maps(sample.number(v.name)) for v in sample.videos if v.grid == (3, 3)]
    values = [float(x) for m in maps for x in m.ravel()]
    fill = manifest["grids"]["3x3"]["fill"]
    assert fill["nonzero_fraction"] == pytest.approx(sum(x != 0 for x in values) / len(values), rel=1e-5)
    assert fill["mean"] == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert (fill["min"], fill["max"]) == (min(values), max(values))


@pytest.mark.parametrize("name", ["index.parquet", "shard-001/facts.json"])
def test_reader_refuses_what_was_not_sealed(damaged_root: Path, name: str) -> None:
    with open(damaged_root / "bank/val" / name, "ab") as stream:
        stream.write(b" ")
    with pytest.raises(UserError, match=f"{name}: missing or not the one that was sealed"):
        BankReader(damaged_root / "bank/val")


@pytest.mark.parametrize(
    "damage", [Path.unlink, _cut, lambda p: _flip(p, 3)], ids=["deleted", "cut", "flipped"]
)
@pytest.mark.parametrize("array", ["relation/c/{}/0/0/0", "boxes/c/{}/0", "score/c/{}"])
def test_reader_names_the_shard_of_damage_done_after_sealing(
    damaged_root: Path, damage: Callable[[Path], object], array: str
) -> None:
    damage(damaged_root / "bank/val/shard-000/rows.zarr/3x4" / array.format(1))
    reader = BankReader(damaged_root / "bank/val")
    with pytest.raises(UserError) as told:
        reader.window("a", 4, 3)
    name = array.split("/")[0]
    where = r"rows? \d+.*, seconds? \d" if name == "relation" or damage is Path.unlink else "all rows"
    expected = (
        rf"bank/val/shard-000: {name} \({where}.*\) for video 'a' cannot be read: .*make the shard again: "
    )
    assert re.search(expected, str(told.value))
    assert re.search(
        "`acar extract-bank --config .* --split val --shard 0`, then `acar seal-bank ", str(told.value)
    )


@pytest.mark.parametrize("name", ["relation", "boxes", "score"])
def test_reader_refuses_metadata_that_was_not_sealed(damaged_root: Path, name: str) -> None:
    file = damaged_root / "bank/val/shard-000/rows.zarr/3x4" / name / "zarr.json"
    file.write_text(file.read_text().replace("little", "big"))
    with pytest.raises(UserError, match=rf"shard-000: {name} .*zarr.json is not the one that was sealed"):
        BankReader(damaged_root / "bank/val").window("a", 4, 3)
