"""The labelled key frames a network is trained on: boxes and multi-hot targets, from tables alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.config import BoxesConfig
from acar.data.tables import LabelMap
from acar.detection.boxes import label_detected

BOX = ["x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class KeyFrame:
    """One labelled second of one video.

    Attributes:
        boxes_xyxy_norm: (N, 4) float32 in 0..1 of the frame.
        targets: (N, C) uint8 multi-hot by column of the label map.
    """

    video: str
    time_s: float
    boxes_xyxy_norm: np.ndarray
    targets: np.ndarray


def annotated_actors(labels: pd.DataFrame, label_map: LabelMap) -> dict[tuple[str, float], KeyFrame]:
    """Ground truth by (video, second), sorted: rows with one box are one actor with several actions.

    Actions outside the label map (as the unevaluated ones of AVA) are ignored.
    """
    keys = ["video", "time_s", *BOX]
    rows = labels.sort_values(keys, kind="stable")
    actor = rows.groupby(keys, sort=False).ngroup().to_numpy()
    column = rows["action_id"].map(label_map.index_of).to_numpy(np.float64, na_value=np.nan)
    known = ~np.isnan(column)
    targets = np.zeros((len(np.unique(actor)), len(label_map)), np.uint8)
    targets[actor[known], column[known].astype(np.int64)] = 1
    actors = rows.iloc[np.flatnonzero(np.diff(actor, prepend=-1))]
    return {key: KeyFrame(*key, boxes, targets[part]) for key, part, boxes in _by_key_frame(actors)}


def _by_key_frame(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, float], slice, np.ndarray]]:
    """(video, second), place and (N, 4) float32 boxes of each run of rows of one key frame."""
    if rows.empty:
        return
    number = rows.groupby(["video", "time_s"], sort=False).ngroup().to_numpy()
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    boxes = rows[BOX].to_numpy(np.float32)
    firsts = rows.iloc[starts]
    ends = [*starts[1:], len(rows)]
    for video, time_s, start, end in zip(firsts["video"], firsts["time_s"], starts, ends, strict=True):
        yield (str(video), float(time_s)), slice(start, end), boxes[start:end]


def training_key_frames(
    labels: pd.DataFrame, boxes: pd.DataFrame, label_map: LabelMap, settings: BoxesConfig, videos: set[str]
) -> list[KeyFrame]:
    """Key frames with ground-truth and detected boxes (paper section 4.1), sorted by (video, second).

    A detected box above `boxes.train_score` takes the labels of the box it overlaps at `boxes.label_iou`, else none.
    Videos not in `videos` (skipped at ingest) are left out.
    """
    truth = annotated_actors(labels[labels["video"].isin(videos)], label_map)
    if not settings.train_with_detected:
        return list(truth.values())
    kept = boxes[boxes["score"] >= settings.train_score].sort_values(["video", "time_s"], kind="stable")
    detected = {key: found for key, _, found in _by_key_frame(kept)}
    return [_with_detected(frame, detected.get(key), settings.label_iou) for key, frame in truth.items()]


def _with_detected(frame: KeyFrame, boxes: np.ndarray | None, iou: float) -> KeyFrame:
    if boxes is None or len(boxes) == 0:
        return frame
    targets = label_detected(boxes, frame.boxes_xyxy_norm, frame.targets, iou)
    return KeyFrame(
        frame.video,
        frame.time_s,
        np.concatenate([frame.boxes_xyxy_norm, boxes]),
        np.concatenate([frame.targets, targets.astype(np.uint8)]),
    )
