"""Score one variant's detections by AVA's or UCF101-24's protocol; write metrics.json and per_class.csv."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from acar.config import Config
from acar.data.class_groups import read_classes
from acar.data.detection_files import CSV_NAME, read_detection_files
from acar.data.key_times import KeyTimes
from acar.data.sources import excluded_path, labels_path
from acar.data.tables import (
    LabelMap,
    check_any_usable,
    check_labels,
    labels_in_span,
    labels_without,
    read_boxes,
    read_excluded,
    read_labels,
    read_videos,
)
from acar.detection.boxes import detector_quality
from acar.detection.thresholds import best_score
from acar.errors import UserError
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.metrics import ava_metrics, write_metrics
from acar.evaluation.summary import headline
from acar.evaluation.ucf24 import ucf24_metrics, video_line
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths


@dataclass(frozen=True)
class GroundTruth:
    """What the val split's detections are held against.

    Attributes:
        labels: rows of the videos that were ingested, boxes as given.
        excluded: (video, time_s) of key frames left out.
        skipped: video and reason of those that ingest skipped.
    """

    labels: pd.DataFrame
    label_map: LabelMap
    excluded: set[tuple[str, float]]
    skipped: list[dict[str, str]]

    def scored_labels(self) -> pd.DataFrame:
        """The labels without the excluded key frames."""
        return labels_without(self.labels, self.excluded)


def run(config: Config, variant: str) -> None:
    """Write `evaluation/<variant>/` from the detections of all val shards, and print a short table.

    Videos that ingest skipped are taken out of the ground truth and listed.

    Raises:
        UserError: detections, boxes or labels are missing or malformed, there is not one detection, or every
            video was skipped.
    """
    paths, shards = Paths.of(config), range(config.data.val.shards)
    origin = origin_of(config, "evaluate", variant=variant)
    truth = load_ground_truth(config)
    files = [paths.predictions(variant, k) / CSV_NAME for k in shards]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file; run `acar predict --variant {variant}` for this shard")
    detections = pd.concat([read_detection_files(file.parent) for file in files], ignore_index=True)
    boxes = read_boxes([paths.boxes("val", k) for k in shards])
    if detections.empty:
        raise UserError(
            f"{files[0].parent.parent}: not one detection in the whole val split; predict.min_score is "
            f"{config.predict.min_score:g}, {best_score(boxes)}; lower predict.min_score, or mend the person "
            "boxes, then run detect and predict again"
        )
    if config.evaluation.protocol == "ucf24":
        figures = _tube_figures(config, truth, detections)
    else:
        figures = _ava_figures(config, truth, detections)
    metrics = {
        "variant": variant,
        **figures,
        "detector": detector_quality(boxes, truth.scored_labels()),
        "skipped": truth.skipped,
    }
    folder = paths.evaluation(variant)
    write_metrics(metrics, folder / "metrics.json", folder / "per_class.csv")
    write_origin(paths.evaluation(variant), origin)
    print(headline({variant: metrics}))
    if config.evaluation.protocol == "ucf24":
        print(video_line(metrics))
    if truth.skipped:
        print(f"{len(truth.skipped)} video(s) skipped at ingest are not counted")


def _ava_figures(config: Config, truth: GroundTruth, detections: pd.DataFrame) -> dict[str, Any]:
    result = evaluate_ava(
        truth.labels, detections, truth.label_map, truth.excluded, iou=config.evaluation.iou
    )
    drawn = config.data.source == "synthetic"
    reach_s = config.clip.frames // 2 * config.clip.stride / config.ingest.fps
    clip_only = read_clip_only(Paths.of(config).data / "law.json", reach_s) if drawn else {}
    return ava_metrics(result, truth.label_map, clip_only)


def _tube_figures(config: Config, truth: GroundTruth, detections: pd.DataFrame) -> dict[str, Any]:
    videos = read_videos([Paths.of(config).ingest("val", k) for k in range(config.data.val.shards)])
    videos = videos[videos["status"] == "ok"]
    times = KeyTimes(config, "val")
    key_times = {str(record["video"]): set(times.of(record)) for record in videos.to_dict("records")}
    for table in (truth.labels, detections):  # labels between whole seconds are key frames, too
        for video, time_s in zip(table["video"], table["time_s"]):
            key_times[video].add(float(time_s))
    for video, time_s in truth.excluded:
        key_times.get(video, set()).discard(time_s)
    sorted_times = {video: sorted(found) for video, found in key_times.items()}
    return ucf24_metrics(
        truth.labels, detections, truth.label_map, videos, sorted_times, config.evaluation.iou
    )


def load_ground_truth(config: Config) -> GroundTruth:
    """Labels, label map and exclusions of the val split, without the videos that ingest skipped.

    Raises:
        UserError: a file is missing or malformed.
    """
    path = labels_path(config, "val")
    label_map = read_classes(config)
    labels = check_labels(read_labels(path, clip=False), label_map, path)
    labels = labels_in_span(labels, config.data.span_s)
    exclusions = excluded_path(config, "val")
    videos = read_videos([Paths.of(config).ingest("val", k) for k in range(config.data.val.shards)])
    check_any_usable(videos, "val")
    gone = videos[videos["status"] != "ok"]
    return GroundTruth(
        labels=labels[~labels["video"].isin(gone["video"])].reset_index(drop=True),
        label_map=label_map,
        excluded=read_excluded(exclusions) if exclusions is not None else set(),
        skipped=[{"video": str(v), "reason": str(r)} for v, r in zip(gone["video"], gone["reason"])],
    )


def read_clip_only(path: Path, reach_s: float) -> dict[str, float]:
    """AP of the best clip-only predictor by class name, where the drawn data's law.json states it.

    A clip that reaches `reach_s` to its sides shows marks of the neighbouring seconds if that is too far; what the
    law states for the long-term classes does not hold then, and they are left out.
    """
    if not path.is_file():
        return {}
    law = json.loads(path.read_text(encoding="utf-8"))
    hint_free = reach_s < law["hint_free_reach_s"]
    return {
        item["name"]: float(item["clip_only_ap"])
        for item in law["classes"]
        if item.get("clip_only_ap") is not None and (hint_free or item["group"] != "long_term")
    }
