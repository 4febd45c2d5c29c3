"""Frame-mAP: each frame's boxes against its ground truth, as for UCF101-24 and JHMDB (paper section 5, table 5).

A table of boxes has the columns video, frame (from 1), x1, y1, x2, y2 (any unit that is one in both tables; pixels
where the protocol counts them), label (column of the class, from 0) and, of detections, score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS
from acar.evaluation.average_precision import precision_and_recall, thinned_curve
from acar.evaluation.frame_protocols import Protocol, by_score, claims, class_ap, mean_ap, overlaps


@dataclass(frozen=True)
class FrameMap:
    """The figures of one evaluation; arrays are by class (C).

    Attributes:
        ap: (C,) float64 in 0..1; NaN where the protocol leaves a class without ground truth out.
        positives: (C,) int64 ground-truth boxes.
        detections: (C,) int64 detected boxes.
        mean_ap: as the protocol means it; NaN without a class to count.
        curves: C lists of at most 100 [recall, precision] by rising recall.
    """

    ap: np.ndarray
    positives: np.ndarray
    detections: np.ndarray
    mean_ap: float
    curves: list[list[list[float]]]


def frame_map(
    truth: pd.DataFrame, detections: pd.DataFrame, names: Sequence[str], protocol: Protocol, iou: float = 0.5
) -> FrameMap:
    """Score detected boxes frame by frame.

    A detection in a frame without ground truth of its class is false. Equal scores count in the order given.

    Args:
        truth: boxes with their labels.
        detections: the same with scores, one row a box and class.
        names: of the classes, by label.
        protocol: one of `PROTOCOLS`.
        iou: least overlap of a true positive, 0..1.

    Raises:
        UserError: see `class_ap`.
    """
    detection_P, truth_P = _pairs(detections, truth)
    boxes, truth_boxes = (table[BOX_COLUMNS].to_numpy(np.float64) for table in (detections, truth))
    overlap_P = overlaps(truth_boxes[truth_P], boxes[detection_P], protocol.pixel)
    scores = detections["score"].to_numpy(np.float64)
    true = claims(detection_P, truth_P, overlap_P, scores, iou, protocol)
    labels = [table["label"].to_numpy(np.int64) for table in (truth, detections)]
    positives, found = (np.bincount(label, minlength=len(names)) for label in labels)
    parts = true_by_class(true, scores, labels[1], len(names))
    ap = np.array([class_ap(part, int(n), protocol, name)
                   for part, n, name in zip(parts, positives, names, strict=True)])  # fmt: skip
    curves = [
        thinned_curve(*precision_and_recall(part, int(n))) if n else [] for part, n in zip(parts, positives)
    ]
    return FrameMap(ap, positives, found, mean_ap(ap, protocol), curves)


def true_by_class(
    true_N: np.ndarray, scores_N: np.ndarray, label_N: np.ndarray, n_classes: int
) -> list[np.ndarray]:
    """`true_N` of each class by falling score."""
    order = by_score(scores_N)
    order = order[np.argsort(label_N[order], kind="stable")]
    ends = np.cumsum(np.bincount(label_N, minlength=n_classes))
    return np.split(true_N[order], ends[:-1])


def _pairs(detections: pd.DataFrame, truth: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows (detection, ground truth) of one video, frame and class."""
    keys = ["video", "frame", "label"]
    left = detections[keys].assign(detection=np.arange(len(detections)))
    right = truth[keys].assign(truth=np.arange(len(truth)))
    met = left.merge(right, on=keys)
    return met["detection"].to_numpy(np.int64), met["truth"].to_numpy(np.int64)
