"""Which detections find a ground-truth box, by the PASCAL VOC rule of the AVA evaluation."""

from __future__ import annotations

import numpy as np


def iou_of_pairs(a_N4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """Intersection over union of row n of `a_N4` with row n of `b_N4`.

    Args:
        a_N4: (N, 4) float64 boxes x1, y1, x2, y2, any unit.
        b_N4: (N, 4) float64 in the same unit. Of each pair at least one box has an area.

    Returns:
        (N,) float64. Computed in the order of the official evaluator, so that an overlap of exactly 0.5 falls
        on the same side.
    """
    width = np.minimum(a_N4[:, 2], b_N4[:, 2]) - np.maximum(a_N4[:, 0], b_N4[:, 0])
    height = np.minimum(a_N4[:, 3], b_N4[:, 3]) - np.maximum(a_N4[:, 1], b_N4[:, 1])
    shared = np.maximum(height, 0.0) * np.maximum(width, 0.0)
    return shared / (_areas(a_N4) + _areas(b_N4) - shared)


def true_positives(
    boxes_N4: np.ndarray, key_N: np.ndarray, truth_boxes_M4: np.ndarray, truth_key_M: np.ndarray, iou: float
) -> np.ndarray:
    """Mark the detections that find a ground-truth box.

    A detection may only claim the ground-truth box that it overlaps most (the first one, if several), and
    only if by at least `iou`; the best-scored claim is true, every later one is a duplicate. There is no
    fallback to the second-best box.

    Args:
        boxes_N4: (N, 4) float64 detections by falling score.
        key_N: (N,) int64; only boxes of one key (an image and a class) meet.
        truth_boxes_M4: (M, 4) float64.
        truth_key_M: (M,) int64.
        iou: least overlap, 0..1.

    Returns:
        (N,) bool.
    """
    true_N = np.zeros(len(boxes_N4), dtype=bool)
    detection, truth = _pairs(key_N, truth_key_M)
    if len(detection) == 0:
        return true_N
    overlap = iou_of_pairs(boxes_N4[detection], truth_boxes_M4[truth])
    rows, first, count = np.unique(detection, return_index=True, return_counts=True)
    best = np.maximum.reduceat(overlap, first)
    # The first pair of each detection that reaches its best overlap.
    reached = np.flatnonzero(overlap == np.repeat(best, count))
    _, places = np.unique(detection[reached], return_index=True)
    claimed = truth[reached[places]]
    claims = best >= iou
    _, winners = np.unique(claimed[claims], return_index=True)
    true_N[rows[claims][winners]] = True
    return true_N


def _pairs(key_N: np.ndarray, truth_key_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, m) of all pairs of one key, by n, then by m."""
    order = np.argsort(truth_key_M, kind="stable")
    left = np.searchsorted(truth_key_M[order], key_N, side="left")
    count = np.searchsorted(truth_key_M[order], key_N, side="right") - left
    detection = np.repeat(np.arange(len(key_N)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, order[np.repeat(left, count) + within]


def _areas(boxes_N4: np.ndarray) -> np.ndarray:
    return (boxes_N4[:, 3] - boxes_N4[:, 1]) * (boxes_N4[:, 2] - boxes_N4[:, 0])
