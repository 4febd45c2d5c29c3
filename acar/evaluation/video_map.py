"""Video-mAP: whole tubes against annotated tubes, at several least overlaps (UCF101-24, JHMDB)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acar.evaluation.frame_map import true_by_class
from acar.evaluation.frame_protocols import Protocol, claims, class_ap, mean_ap
from acar.evaluation.tubes import Tube, tube_overlap

THRESHOLDS = (0.2, 0.5, 0.75)
COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
COCO_NAME = "0.5:0.95"


@dataclass(frozen=True)
class VideoMap:
    """The figures at one least overlap; arrays are by class (C), as in `FrameMap`."""

    ap: np.ndarray
    positives: np.ndarray
    mean_ap: float


def video_map(
    truth: Sequence[Tube],
    tubes: Sequence[Tube],
    names: Sequence[str],
    protocol: Protocol,
    thresholds: Sequence[float] = (*THRESHOLDS, *COCO_THRESHOLDS),
) -> dict[float, VideoMap]:
    """Score tubes by the spatio-temporal overlap; equal scores count in the order given.

    Args:
        truth: annotated tubes.
        tubes: detected ones, scored.
        names: of the classes, by label.
        protocol: one of `PROTOCOLS`; of its conventions all but those of frames hold for tubes alike.
        thresholds: least overlaps of a true positive, each 0..1.

    Raises:
        UserError: see `class_ap`.
    """
    tube_P, truth_P, overlap_P = _pairs(tubes, truth, protocol.pixel)
    scores = np.array([tube.score for tube in tubes], np.float64)
    label_N = np.array([tube.label for tube in tubes], np.int64)
    positives = np.bincount(np.array([tube.label for tube in truth], np.int64), minlength=len(names))
    found = {}
    for threshold in dict.fromkeys(thresholds):
        true = claims(tube_P, truth_P, overlap_P, scores, threshold, protocol)
        parts = true_by_class(true, scores, label_N, len(names))
        ap = np.array([class_ap(part, int(n), protocol, name)
                       for part, n, name in zip(parts, positives, names, strict=True)])  # fmt: skip
        found[threshold] = VideoMap(ap, positives, mean_ap(ap, protocol))
    return found


def mean_over_thresholds(found: dict[float, VideoMap]) -> float:
    """Video-mAP at 0.5:0.95: the mean over `COCO_THRESHOLDS`."""
    return float(np.mean([found[threshold].mean_ap for threshold in COCO_THRESHOLDS]))


def _pairs(
    tubes: Sequence[Tube], truth: Sequence[Tube], pixel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (tube, ground truth) of one video and class, and their overlap."""
    by_key: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, tube in enumerate(truth):
        by_key[tube.video, tube.label].append(place)
    rows = [
        (place, other, tube_overlap(truth[other], tube, pixel))
        for place, tube in enumerate(tubes)
        for other in by_key.get((tube.video, tube.label), [])
    ]
    pairs = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], np.array([row[2] for row in rows], np.float64)
