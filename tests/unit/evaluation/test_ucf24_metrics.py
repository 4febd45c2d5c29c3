"""The figures of metrics.json under `evaluation.protocol: ucf24`."""

from __future__ import annotations

import pandas as pd
import pytest

from acar.data.label_map import ActionClass, LabelMap
from acar.errors import UserError
from acar.evaluation.ucf24 import ucf24_metrics, video_line

NAMES = LabelMap((ActionClass(1, "run"), ActionClass(2, "dive")))
VIDEOS = pd.DataFrame({"video": ["a", "b"], "width": [100, 50], "height": [100, 50]})
TIMES = {"a": [0.0, 0.24, 0.48, 1.0], "b": [0.0]}
BOX, FAR = (0.1, 0.1, 0.5, 0.9), (0.6, 0.1, 0.9, 0.9)
COLUMNS = ["video", "time_s", "x1", "y1", "x2", "y2", "action_id"]


def figures(labels: list[tuple], detections: list[tuple]) -> dict:
    truth = pd.DataFrame(labels, columns=[*COLUMNS, "actor_id"]).astype({"action_id": "Int64"})
    found = pd.DataFrame(detections, columns=[*COLUMNS, "score"])
    return ucf24_metrics(truth, found, NAMES, VIDEOS, TIMES, 0.5)


def test_by_hand() -> None:
    """Three key frames of an actor: two found, and a better-scored box where nobody is."""
    labels = [("a", time_s, *BOX, 1, "x") for time_s in (0.0, 0.24, 0.48)] + [("a", 0.0, *FAR, pd.NA, "y")]
    detections = [("a", 0.24, *BOX, 1, 0.5), ("a", 0.48, *BOX, 1, 0.5), ("a", 1.0, *FAR, 1, 0.9)]
    metrics = figures(labels, detections)
    assert metrics["mAP"] == pytest.approx(2 / 3 * 2 / 3)
    run, dive = metrics["classes"]
    assert (run["positives"], run["ap"], dive["ap"]) == (3, metrics["mAP"], None)
    assert metrics["frame_mAP"]["road_gurkirt"] == pytest.approx(metrics["mAP"] / 2)
    assert metrics["frame_mAP"]["mmaction2_multisports"] == metrics["mAP"]
    # The tube has two of the three key frames; the better-scored one is false.
    assert metrics["video_mAP"] == pytest.approx({"0.2": 0.5, "0.5": 0.5, "0.75": 0.0, "0.5:0.95": 0.2})
    assert (metrics["n_tubes"], metrics["n_annotated_tubes"], metrics["n_ground_truth_boxes"]) == (2, 1, 3)
    assert video_line(metrics).startswith("video-mAP, % at 0.2: 50.0, 0.5: 50.0, 0.75: 0.0, 0.5:0.95: 20.0")


def test_rows_elsewhere_do_not_count() -> None:
    """Seconds that were not looked at, videos that were not ingested, classes beyond the map."""
    labels = [("b", 0.0, *BOX, 2, "x")]
    elsewhere = [("b", 0.5, *BOX, 2, 0.9), ("gone", 0.0, *BOX, 2, 0.9), ("b", 0.0, *BOX, 7, 0.9)]
    detections = [("b", 0.0, *BOX, 2, 0.5), *elsewhere]
    metrics = figures(labels, detections)
    assert metrics["mAP"] == 1.0 and metrics["n_detections"] == 1


def test_nothing_detected() -> None:
    metrics = figures([("b", 0.0, *BOX, 2, "x")], [])
    assert metrics["mAP"] == 0.0 and set(metrics["video_mAP"].values()) == {0.0}


def test_two_boxes_of_a_class_and_person_are_no_tube() -> None:
    labels = [("a", 0.0, *BOX, 1, ""), ("a", 0.24, *BOX, 1, ""), ("a", 0.24, *FAR, 1, "")]
    with pytest.raises(UserError, match=r"video a, second 0\.24: two boxes of 'run' without a person id"):
        figures(labels, [("a", 0.24, *BOX, 1, 0.5)])
    named = [(*row[:-1], "x") for row in labels]
    with pytest.raises(UserError, match="two boxes of 'run' of person 'x'"):
        figures(named, [("a", 0.24, *BOX, 1, 0.5)])
    # Labels that tell them apart, and a person of two classes, are fine.
    apart = [*labels[:2], ("a", 0.24, *FAR, 1, "y"), ("a", 0.24, *BOX, 2, "")]
    assert figures(apart, [("a", 0.24, *BOX, 1, 0.5)])["n_annotated_tubes"] == 3
