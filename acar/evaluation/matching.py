"""Which detections find a ground-truth box, by the PASCAL VOC rule of the AVA evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Matched:
    """What each of N detections found.

    Attributes:
        true: (N,) bool.
        nearest: (N,) int64, the ground-truth box that it overlaps most (the first one, if several); -1 where none of
            its key is there.
        overlap: (N,) float64, by how much; 0 without any.
    """

    true: np.ndarray
    nearest: np.ndarray
    overlap: np.ndarray

    def claimed(self, iou: float) -> np.ndarray:
        """(N,) int64: `nearest` where it is overlapped by at least `iou`, else -1."""
        return np.where(self.overlap >= iou, self.nearest, -1)


def iou_of_pairs(a_N4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """Intersection over union of row n of `a_N4` with row n of `b_N4`.

    Args:
        a_N4: (N, 4) float64 or float32 boxes x1, y1, x2, y2, any unit.
        b_N4: (N, 4) in the same unit and type. Of each pair at least one box has an area.

    Returns:
        (N,) float64. Computed in the order of the official evaluators, so that an overlap of exactly 0.5 falls
        on the same side; of float32 boxes sides and areas are float32 and the rest float64, as in mmaction2.
    """
    width = np.minimum(a_N4[:, 2], b_N4[:, 2]) - np.maximum(a_N4[:, 0], b_N4[:, 0])
    height = np.minimum(a_N4[:, 3], b_N4[:, 3]) - np.maximum(a_N4[:, 1], b_N4[:, 1])
    shared = np.maximum(height.astype(np.float64), 0.0) * np.maximum(width.astype(np.float64), 0.0)
    union = (_areas(a_N4) + _areas(b_N4)) - shared
    # Two boxes without area overlap nowhere: 0 / 0 in the evaluators, which passes no threshold either.
    return np.divide(shared, union, out=np.zeros_like(shared), where=union != 0)


def match(
    boxes_N4: np.ndarray,
    key_N: np.ndarray,
    scores_N: np.ndarray,
    truth_boxes_M4: np.ndarray,
    truth_key_M: np.ndarray,
    iou: float,
) -> Matched:
    """Hold detections against ground truth.

    A detection may only claim the ground-truth box that it overlaps most (the first one, if several), and
    only if by at least `iou`; the best-scored claim is true (the first one, if several), every other one is a
    duplicate. There is no fallback to the second-best box.

    Args:
        boxes_N4: (N, 4) detections.
        key_N: (N,) int64; only boxes of one key (an image and a class) meet.
        scores_N: (N,) float.
        truth_boxes_M4: (M, 4), of the same type as `boxes_N4`.
        truth_key_M: (M,) int64.
        iou: least overlap, above 0, to 1.
    """
    true = np.zeros(len(boxes_N4), dtype=bool)
    nearest = np.full(len(boxes_N4), -1, dtype=np.int64)
    best = np.zeros(len(boxes_N4))
    detection, truth = pairs_of_keys(key_N, truth_key_M)
    if len(detection):
        overlap = iou_of_pairs(boxes_N4[detection], truth_boxes_M4[truth])
        first = np.flatnonzero(np.diff(detection, prepend=-1))
        rows, count = detection[first], np.diff(first, append=len(detection))
        best[rows] = np.maximum.reduceat(overlap, first)
        # The first pair of each detection that reaches its best overlap.
        reached = np.flatnonzero(overlap == np.repeat(best[rows], count))
        reached = reached[np.flatnonzero(np.diff(detection[reached], prepend=-1))]
        nearest[rows] = truth[reached]
        claims = rows[best[rows] >= iou]
        claims = claims[np.argsort(-scores_N[claims], kind="stable")]
        _, winners = np.unique(nearest[claims], return_index=True)
        true[claims[winners]] = True
    return Matched(true, nearest, best)


def pairs_of_keys(key_N: np.ndarray, truth_key_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, m) of all pairs of one key, by n, then by m; int64."""
    order = np.argsort(truth_key_M, kind="stable")
    left = np.searchsorted(truth_key_M[order], key_N, side="left")
    count = np.searchsorted(truth_key_M[order], key_N, side="right") - left
    detection = np.repeat(np.arange(len(key_N)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, order[np.repeat(left, count) + within]


def _areas(boxes_N4: np.ndarray) -> np.ndarray:
    return (boxes_N4[:, 3] - boxes_N4[:, 1]) * (boxes_N4[:, 2] - boxes_N4[:, 0])
