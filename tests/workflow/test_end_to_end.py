"""The whole DAG on a drawn data set of seconds and on three real clips: every stage is the real one."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
import zarr
from tiny import tiny_values
from workflow_runs import run_snakemake

from acar.config import parse_config
from acar.data.tables import read_detections

DETECTOR = {
    "architecture": "fasterrcnn_mobilenet_v3_small_fpn",
    "min_side_px": 64,
    "max_side_px": 128,
    "iterations": 3,
    "batch_images": 2,
    "warmup_iterations": 1,
    "keep_score": 0.0,
    "max_boxes": 3,
}

pytestmark = pytest.mark.slow


def snakemake(folder: Path, values: dict, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder` with `values` over config.yaml."""
    override = folder / "override.yaml"
    override.write_text(yaml.safe_dump(values))
    return run_snakemake(folder, "--cores", "2", "--resources", "gpu=1", "--configfile", override, *arguments)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A finished run; untrained detectors score low, so every use keeps every box."""
    folder = tmp_path_factory.mktemp("a drawn run")  # spaces in every path
    values = tiny_values(
        folder / "results",
        detector=DETECTOR,
        boxes={"train_score": 0.0},
        bank={"min_score": 0.0},
        predict={"min_score": 0.0, "wrong_bank": True},
        synthesize={"aspect_ratios": [1.0]},
        data={"train": {"shards": 2}, "val": {"shards": 1}},
    )
    done = snakemake(folder, values)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder, values


def test_every_stage_left_its_artefact(drawn):
    folder, _ = drawn
    results = folder / "results"
    for name in ("stage1", "stage2"):
        assert (results / name / "model.safetensors").is_file()
        assert len((results / name / "metrics.jsonl").read_text().splitlines()) == 4
    for variant in ("stage1", "stage2", "stage2_wrong_bank"):
        metrics = json.loads((results / "evaluation" / variant / "metrics.json").read_text())
        assert len(metrics["classes"]) == 10
        assert all(0 <= c["ap"] <= 1 for c in metrics["classes"] if c["positives"])
    page = (results / "report" / "report.html").read_text()
    assert "recall_lamp" in page and "data:image/" in page


def test_the_bank_holds_every_detected_actor_of_every_second(drawn):
    folder, _ = drawn
    for split, shards in (("train", 2), ("val", 1)):
        boxes = pd.concat(
            pd.read_parquet(folder / f"results/boxes/{split}/shard-{k:03d}/boxes.parquet")
            for k in range(shards)
        )
        index = pd.read_parquet(folder / f"results/bank/{split}/index.parquet")
        assert index["length"].sum() == len(boxes) > 0
        assert sorted(set(index["time_s"])) == [0, 1, 2, 3, 4, 5]
        rows = sum(
            arrays["relation"].shape[0]
            for k in range(shards)
            for _, arrays in zarr.open_group(
                folder / f"results/bank/{split}/shard-{k:03d}/rows.zarr", mode="r"
            ).groups()
        )
        assert rows == len(boxes)


def test_predictions_score_every_class_of_every_box(drawn):
    folder, _ = drawn
    found = read_detections(folder / "results/predictions/stage2/shard-000/detections.csv")
    assert set(found["action_id"]) == set(range(1, 11))
    assert len(found) % 10 == 0 and found["score"].between(0, 1).all()
    poses = found[found["action_id"] <= 3].groupby(["video", "time_s", "x1", "y1", "x2", "y2"])["score"].sum()
    assert poses.sub(1).abs().max() < 1e-4, "the poses are exclusive"


def test_the_bank_and_the_wrong_bank_change_what_is_predicted(drawn):
    folder, _ = drawn
    tables = [
        read_detections(folder / f"results/predictions/{variant}/shard-000/detections.csv")["score"]
        for variant in ("stage2", "stage2_wrong_bank")
    ]
    assert not tables[0].equals(tables[1])


def test_a_second_call_does_nothing(drawn):
    folder, values = drawn
    done = snakemake(folder, values)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_one_stage_again_by_hand_gives_the_same_bytes(drawn):
    folder, _ = drawn
    shard = folder / "results/bank/val/shard-000"
    before = {path.relative_to(shard): path.read_bytes() for path in shard.rglob("*") if path.is_file()}
    command = [
        sys.executable,
        "-m",
        "acar.cli",
        "extract-bank",
        "--config",
        str(folder / "results/config.yaml"),
    ]
    done = subprocess.run(
        [*command, "--split", "val", "--shard", "0"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    after = {path.relative_to(shard): path.read_bytes() for path in shard.rglob("*") if path.is_file()}
    before.pop(Path(".snakemake_timestamp"), None)
    assert after == before


def test_snakemakes_own_report(drawn):
    folder, values = drawn
    done = snakemake(folder, values, "--report", str(folder / "snakemake-report.html"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "snakemake-report.html").stat().st_size > 10_000


def test_real_clips_to_the_end(shared, tmp_path):
    """Two clips of a film to train, one to validate; boxes imported from the labels."""
    clips = shared / "data" / "ava_clips"
    rows = list(csv.reader((clips / "labels.csv").open()))
    for split, videos in (("train", "12"), ("val", "3")):
        with (tmp_path / f"{split}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(row for row in rows if row[0] in videos)
    data = {"source": "files", "videos": str(clips), "label_map": str(clips / "label_map.pbtxt")}
    data["class_groups"] = {"pose": ["bow", "stand", "sit", "walk"]}
    values = tiny_values(
        tmp_path / "results",
        data={**data, **{split: {"labels": str(tmp_path / f"{split}.csv")} for split in ("train", "val")}},
        detector={
            "source": "boxes", "boxes": {split: str(tmp_path / f"{split}.csv") for split in ("train", "val")},
        },
    )  # fmt: skip
    values["data"]["train"]["shards"] = 1
    values["predict"]["wrong_bank"] = False  # one video has no other to take rows from
    del values["synthesize"]
    parse_config(values)
    done = snakemake(tmp_path, values)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    metrics = json.loads((tmp_path / "results/evaluation/stage2/metrics.json").read_text())
    assert {c["name"] for c in metrics["classes"]} == {"talk", "bow", "stand", "sit", "walk"}
    assert metrics["detector"]["recall50"] == 1.0
    page = (tmp_path / "results/report/report.html").read_text()
    assert "proves the path" in page
    check_poses_of_real_clips(tmp_path / "results", metrics, page)


def check_poses_of_real_clips(results: Path, metrics: dict, page: str) -> None:
    """One softmax over the four poses (ids 2 to 5) in training and prediction; their figures in metrics."""
    for stage in ("stage1", "stage2"):
        assert json.loads((results / stage / "facts.json").read_text())["exclusive_columns"] == [1, 2, 3, 4]
        found = read_detections(results / f"predictions/{stage}/shard-000/detections.csv")
        actor = ["video", "time_s", "x1", "y1", "x2", "y2"]
        sums = found[found["action_id"] >= 2].groupby(actor)["score"].sum()
        assert len(sums) and sums.sub(1).abs().max() < 1e-4, "the poses are exclusive"
        assert found.groupby(actor)["score"].sum().sub(1).abs().max() > 1e-3, "talk is not one of them"
    poses = [item for item in metrics["classes"] if item["group"] == "pose"]
    assert [item["id"] for item in poses] == metrics["groups"]["pose"]["classes"] == [2, 3, 4, 5]
    aps = [item["ap"] for item in poses if item["ap"] is not None]
    assert metrics["groups"]["pose"]["mAP"] == pytest.approx(sum(aps) / len(aps))
    assert list(metrics["groups"]) == ["pose"] and ">pose<" in page
