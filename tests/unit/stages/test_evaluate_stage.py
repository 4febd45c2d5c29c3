"""The evaluate stage on a hand-made run of two shards."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from acar.config import Config, parse_config
from acar.errors import UserError
from acar.paths import Paths
from acar.stages import evaluate

BOX = "0.1,0.1,0.5,0.9"
FAR = "0.6,0.1,0.9,0.9"
LABEL_MAP = """
item { name: "stand" id: 1 group: "pose" }
item { name: "sit" id: 2 group: "pose" }
item { name: "recall" id: 3 group: "long-term" }
item { name: "never" id: 4 }
"""
LABELS = f"""a,0902,{BOX},1,0
a,0902,{BOX},3,0
a,0902,{FAR},2,1
a,0903,{BOX},1,0
b,0902,{BOX},1,0
broken,0902,{BOX},2,0
"""
DETECTIONS = {
    0: f"a,0902,{BOX},1,0.9\na,0902,{FAR},2,0.8\na,0902,{FAR},3,0.7\n"
    f"a,0902,{BOX},3,0.6\na,0903,{BOX},2,0.99\n",
    1: f"b,0902,{FAR},1,0.95\n",
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_run(tmp_path, "synthetic")


def make_run(root: Path, source: str) -> Config:
    config = parse_config(
        {
            "run": {"results": str(root)},
            "clip": {"frames": 8, "stride": 2},
            "ingest": {"fps": 10},
            "data": {
                "source": source,
                "videos": str(root / "data" / "videos"),
                "label_map": str(root / "data" / "label_map.pbtxt"),
                "train": {"labels": str(root / "data" / "val.csv")},
                "val": {"shards": 2, "labels": str(root / "data" / "val.csv")},
            },
        }
    )
    paths = Paths.of(config)
    paths.data.mkdir()
    (paths.data / "val.csv").write_text(LABELS)
    (paths.data / "val_excluded.csv").write_text("a,903\n")
    (paths.data / "label_map.pbtxt").write_text(LABEL_MAP)
    law = [
        {"name": "stand", "group": "pose", "clip_only_ap": None},
        {"name": "recall", "group": "long_term", "clip_only_ap": 0.4},
    ]
    (paths.data / "law.json").write_text(json.dumps({"hint_free_reach_s": 0.85, "classes": law}))
    for shard, videos in enumerate([["a", "broken"], ["b"]]):
        make_shard(paths, shard, videos)
    return config


def make_shard(paths: Paths, shard: int, videos: list[str]) -> None:
    folders = [paths.ingest("val", shard), paths.boxes("val", shard), paths.predictions("stage1", shard)]
    for folder in folders:
        folder.mkdir(parents=True)
    ok = [video != "broken" for video in videos]
    table = pd.DataFrame({"video": videos, "path": [f"{video}.mp4" for video in videos]})
    table["status"] = ["ok" if fine else "skipped" for fine in ok]
    table["reason"] = ["" if fine else "no frames" for fine in ok]
    table.to_parquet(folders[0] / "videos.parquet")
    boxes = pd.DataFrame({"video": videos[:1], "time_s": [902.0], "x1": [0.1], "y1": [0.1], "x2": [0.5]})
    boxes.assign(y2=0.9, score=0.9).to_parquet(folders[1] / "boxes.parquet")
    (folders[2] / "detections.csv").write_text(DETECTIONS[shard])


def test_metrics(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.run(config, "stage1")
    folder = Paths.of(config).evaluation("stage1")
    metrics = json.loads((folder / "metrics.json").read_text())
    by_name = {item["name"]: item for item in metrics["classes"]}
    # stand: the detection of video b misses and outscores the hit; one of two found.
    assert by_name["stand"] == {
        "id": 1, "name": "stand", "group": "pose", "ap": 0.25, "positives": 2, "share": 2 / 3,
        "chance": 0.25, "clip_only": None, "pr": [[0.5, 0.5]], "ap_least": 0.25, "ap_most": 0.25,
        "rows": 2, "found": 1,
        "errors": {"true": 1, "duplicate": 0, "wrong_class": 0, "localisation": 0, "both": 0, "background": 1},
        "missed_by_detector": 1, "box_but_not_found": 0, "ceiling": 0.5, "taken_for_it": [],
    }  # fmt: skip
    assert (by_name["sit"]["ap"], by_name["recall"]["ap"], by_name["never"]["ap"]) == (1.0, 0.5, None)
    assert by_name["recall"]["clip_only"] == 0.4
    assert metrics["mAP"] == pytest.approx((0.25 + 1.0 + 0.5) / 3)
    assert metrics["metric_name"] == "PascalBoxes_Precision/mAP@0.5IOU"
    assert metrics["groups"] == {
        "pose": {"mAP": 0.625, "chance": 0.625, "clip_only": None, "classes": [1, 2]},
        "long-term": {"mAP": 0.5, "chance": 0.5, "clip_only": 0.4, "classes": [3]},
    }
    assert metrics["n_ground_truth_boxes"] == 3 and metrics["n_detections"] == 5
    assert metrics["detector"]["n_ground_truth"] == 3
    assert metrics["detector"]["recall50"] == pytest.approx(2 / 3)
    assert metrics["skipped"] == [{"video": "broken", "reason": "no frames"}]
    printed = capsys.readouterr().out
    assert "long-term" in printed and "1 video(s) skipped" in printed


def test_per_class_csv(config: Config) -> None:
    evaluate.run(config, "stage1")
    table = pd.read_csv(Paths.of(config).evaluation("stage1") / "per_class.csv")
    assert table.columns.tolist() == [
        "id",
        "name",
        "group",
        "ap",
        "positives",
        "share",
        "chance",
        "clip_only",
        "rows",
        "found",
        "ap_least",
        "ap_most",
        "ceiling",
    ]
    assert table["name"].tolist() == ["stand", "sit", "recall", "never"]
    assert table["ap"].isna().tolist() == [False, False, False, True]


def test_a_clip_that_reaches_too_far_has_no_clip_only_figure(config: Config) -> None:
    path = Paths.of(config).data / "law.json"
    assert evaluate.read_clip_only(path, 0.8) == {"recall": 0.4}
    assert evaluate.read_clip_only(path, 0.9) == {}


def test_own_files_without_exclusions_or_law(tmp_path: Path) -> None:
    config = make_run(tmp_path, "files")
    evaluate.run(config, "stage1")
    metrics = json.loads((Paths.of(config).evaluation("stage1") / "metrics.json").read_text())
    assert metrics["classes"][0]["positives"] == 3
    assert {item["clip_only"] for item in metrics["classes"]} == {None}


def test_missing_predictions_name_the_remedy(config: Config) -> None:
    with pytest.raises(UserError, match="acar predict --variant stage2"):
        evaluate.run(config, "stage2")
    assert not Paths.of(config).evaluation("stage2").exists()
