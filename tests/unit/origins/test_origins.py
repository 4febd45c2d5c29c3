from __future__ import annotations

import json
from pathlib import Path

import pytest

from acar.config import parse_config
from acar.files import write_json_atomic
from acar.origins.record import (
    ORIGIN,
    Artefact,
    Digests,
    artefacts,
    code_version,
    inputs_of,
    origin_of,
    read_origin,
    write_origin,
)
from acar.paths import Paths

PATHS = Paths(Path("r"))


def test_names_places_and_jobs():
    shard = Artefact("extract_bank", split="train", shard=3)
    assert str(shard) == "bank/train/shard-003" and shard.job == "extract-bank-train-3"
    assert shard.ids == {"split": "train", "shard": 3}
    assert shard.declared(PATHS) == shard.folder(PATHS) == PATHS.bank_shard("train", 3)
    assert shard.work(PATHS) == PATHS.work("bank-train-003")
    predicted = Artefact("predict", variant="stage2", shard=1)
    assert predicted.job == "predict-stage2-1" and str(predicted) == "predictions/stage2/shard-001"
    assert Artefact("seal_bank", "val").declared(PATHS) == PATHS.bank("val") / "manifest.json"
    assert Artefact("report").declared(PATHS) == PATHS.report
    assert Artefact("report").work(PATHS) is None


def test_an_origin_holds_no_path_and_no_time(tmp_path):
    found = []
    for name in ("here", "there"):
        config = parse_config({"run": {"results": str(tmp_path / name)}})
        (tmp_path / name / "detector").mkdir(parents=True)
        (tmp_path / name / "detector/model.safetensors").write_bytes(b"weights")
        origin = origin_of(config, "detect", split="val", shard=0)
        write_origin(tmp_path / name, origin)
        found.append((tmp_path / name / ORIGIN).read_bytes())
    assert found[0] == found[1]
    assert read_origin(tmp_path / "here") == origin
    assert origin["config"]["data.val.shards"] == 1
    assert origin["code"] == code_version()


def test_an_absent_or_unreadable_input_has_no_digest(tmp_path):
    config = parse_config({"run": {"results": str(tmp_path)}})
    (tmp_path / "stage1/model.safetensors").mkdir(parents=True)  # a folder in the place of the file
    inputs = origin_of(config, "extract_bank", split="train", shard=0)["inputs"]
    assert inputs == {"data": None, "videos": None, "boxes": None, "weights": None}


def test_one_digest_of_all_shards_in_their_order(tmp_path):
    config = parse_config({"run": {"results": str(tmp_path)}, "data": {"train": {"shards": 2}}})
    paths, seal = Paths.of(config), Artefact("seal_bank", "train")
    given = next(given for given in inputs_of(config, seal) if given.name == "rows")
    for shard, text in enumerate("ab"):
        write_json_atomic(paths.bank_shard("train", shard) / "facts.json", text)
    before = Digests(paths).of(given)
    for shard, text in enumerate("ba"):
        write_json_atomic(paths.bank_shard("train", shard) / "facts.json", text)
    assert before != Digests(paths).of(given)
    (paths.bank_shard("train", 1) / "facts.json").unlink()
    assert Digests(paths).of(given) is None


def test_videos_count_although_their_table_stays_the_same(tmp_path):
    """Another quality gives a clip of another size, in a table that says the same of it."""
    config = parse_config({"run": {"results": str(tmp_path)}})
    ingest = Artefact("ingest", "train", 0)
    folder = ingest.folder(Paths.of(config))
    folder.mkdir(parents=True)
    given = next(g for g in inputs_of(config, Artefact("detect", "train", 0)) if g.name == "videos")
    digests = []
    for size in (100, 90, 100):
        (folder / "videos.parquet").write_bytes(b"table")
        (folder / "a.mp4").write_bytes(bytes(size))
        write_origin(folder, origin_of(config, "ingest", **ingest.ids))
        (folder / ".snakemake_timestamp").touch()
        digests.append(Digests(Paths.of(config)).of(given))
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}', b"\xff"])
def test_an_unreadable_origin_is_none(tmp_path, text):
    (tmp_path / ORIGIN).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_origin(tmp_path) is None
    assert read_origin(tmp_path / "absent") is None


def test_only_what_the_config_asks_for_is_expected():
    def stages(**sections: dict) -> list[str]:
        return [artefact.stage for artefact in artefacts(parse_config(sections))]

    files = {"source": "files", "videos": "v", "label_map": "m"} | {
        s: {"labels": "l"} for s in ("train", "val")
    }
    assert stages()[0] == "synthesize" and stages()[-1] == "report"
    assert "synthesize" not in stages(data=files)
    assert "train_detector" not in stages(detector={"source": "weights", "weights": "COCO_V1"})
    assert stages(predict={"wrong_bank": True}).count("evaluate") == 3
    assert stages(data={"val": {"shards": 4}}).count("predict") == 8


def test_origins_are_plain_json():
    config = parse_config({})
    for artefact in artefacts(config):
        origin = origin_of(config, artefact.stage, **artefact.ids)
        assert json.loads(json.dumps(origin)) == origin
