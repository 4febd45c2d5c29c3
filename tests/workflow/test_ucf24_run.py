"""UCF101-24's path on two real clips with their published annotations: a network of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_frames import plain_frame_ap, rows_of
from test_presets import merged
from tiny import TRAIN, tiny_values

from acar import cli
from acar.config import Config, parse_config
from acar.data.tables import read_boxes, read_detections, read_labels
from acar.paths import Paths
from acar.report.collect import collect
from acar.report.page import render
from acar.stages import detect, evaluate, ingest, predict, train_detector
from acar.training.stage import train_stage
from acar.workflow import variants

CLIPS = ["SoccerJuggling/v_SoccerJuggling_g23_c01", "SoccerJuggling/v_SoccerJuggling_g24_c01"]
EVERY = 12
FPS = 29.97002997  # of these two files


def run_config(root: Path, published: Config) -> Config:
    """The preset's way through the pipeline, with a thin network and a detector trained on the two clips."""
    values = tiny_values(root / "results")
    values |= {
        "data": {
            "source": "files", "videos": str(root / "videos"), "label_map": str(root / "made" / "label_map.pbtxt"),
            "key_frames": published.data.key_frames, "train": {"labels": str(root / "made" / "train.csv")},
            "val": {"labels": str(root / "made" / "val.csv")},
        },
        "ingest": {"short_side_px": 96, "fps": FPS},
        "detector": {
            "iterations": 30, "warmup_iterations": 5, "batch_images": 4, "min_side_px": 96, "max_side_px": 128,
            "architecture": "fasterrcnn_mobilenet_v3_small_fpn", "max_boxes": 3,
            "keep_score": published.detector.keep_score,
            "extra": {"rpn_post_nms_top_n_test": 20, "rpn_post_nms_top_n_train": 50},
        },
        "boxes": {"train_with_detected": published.boxes.train_with_detected},
        "clip": {"frames": 4, "stride": published.clip.stride},
        "predict": {"min_score": published.predict.min_score, "batch_clips": 8, "examples": 1},
        "stage1": {**TRAIN, "iterations": 6, "milestones": [4]},
        "evaluation": {"protocol": published.evaluation.protocol},
    }  # fmt: skip
    values["model"]["head"]["memory"] = published.model.head.memory
    return parse_config(values)


@pytest.mark.slow
def test_two_real_clips(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    pickle = shared / "data" / "ucf24" / "pyannot.pkl"
    for clip in CLIPS:
        video = tmp_path / "videos" / f"{clip}.avi"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.symlink_to(shared / "data" / "ucf24" / video.name)
    tested = tmp_path / "testlist.txt"  # in split 1 both clips are of the training
    tested.write_text(f"{CLIPS[1]}.avi 19\n")
    arguments = ["convert-ucf24", str(pickle), str(tmp_path / "made"), "--videos", str(tmp_path / "videos")]
    assert cli.main([*arguments, "--present", "--test-list", str(tested), "--every", str(EVERY)]) == 0
    config = run_config(tmp_path, merged("ucf24"))
    metrics = run(config)
    check_figures(config, metrics)
    page = render(collect(config))
    assert "Video-mAP" in page and "frame-mAP@0.5" in page
    print(capsys.readouterr().out)


def run(config: Config) -> dict[str, Any]:
    for split in ("train", "val"):
        ingest.run(config, split, 0)
    train_detector.run(config)
    for split in ("train", "val"):
        detect.run(config, split, 0)
    train_stage(config, 1)
    assert variants(config) == ["stage1"]
    predict.run(config, "stage1", 0)
    evaluate.run(config, "stage1")
    return json.loads((Paths.of(config).evaluation("stage1") / "metrics.json").read_text())


def check_figures(config: Config, metrics: dict[str, Any]) -> None:
    paths, labels = Paths.of(config), read_labels(str(config.data.val.labels))
    # Every frame of the clip is annotated: 251 frames, every 12th.
    assert len(labels) == 21 == metrics["n_ground_truth_boxes"]
    times = set(labels["time_s"])
    assert times == {round(frame * 1001 / 30000, 6) for frame in range(0, 251, EVERY)}
    boxes = read_boxes([paths.boxes("val", 0)])
    detections = read_detections(paths.predictions("stage1", 0) / "detections.csv")
    assert set(boxes["time_s"]) <= times and set(detections["time_s"]) == set(boxes["time_s"])
    assert len(detections) == 24 * len(boxes) == metrics["n_detections"]
    # A softmax over all 24 classes.
    sums = detections.groupby(["video", "time_s", "x1", "y1", "x2", "y2"])["score"].sum()
    np.testing.assert_allclose(sums, 1.0, atol=1e-4)
    juggling = next(item for item in metrics["classes"] if item["name"] == "SoccerJuggling")
    assert juggling["positives"] == 21 and juggling["ap"] == metrics["mAP"]
    assert metrics["n_annotated_tubes"] == 1 and metrics["n_tubes"] >= 24
    assert set(metrics["video_mAP"]) == {"0.2", "0.5", "0.75", "0.5:0.95"}
    values = [*metrics["video_mAP"].values(), metrics["mAP"]]
    assert all(0.0 <= value <= 1.0 for value in values)
    # The figure again, by loops, from the files: key frames by their second, boxes in 0..1.
    by_second = [
        table.assign(frame=table["time_s"], label=table["action_id"]) for table in (labels, detections)
    ]
    expected = plain_frame_ap(*map(rows_of, by_second), juggling["id"], 0.5, 0.0, False, False)
    assert juggling["ap"] == pytest.approx(expected, abs=1e-9)
    assert metrics["frame_mAP"]["moc_act"] is None  # 23 classes have detections and no ground truth
    assert metrics["frame_mAP"]["road_gurkirt"] == pytest.approx(metrics["mAP"] / 24, abs=1e-6)
