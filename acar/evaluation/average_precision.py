"""Average precision as the official AVA evaluator computes it (PASCAL VOC 2010: all points)."""

from __future__ import annotations

import numpy as np

MAX_CURVE_POINTS = 100


def precision_and_recall(true_N: np.ndarray, n_positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection.

    Args:
        true_N: (N,) bool by falling score: whether the detection is a true positive.
        n_positives: ground-truth boxes of the class, at least 1.

    Returns:
        precision (N,) and recall (N,), float64.
    """
    found = np.cumsum(true_N, dtype=np.float64)
    return found / np.arange(1, len(true_N) + 1), found / n_positives


def average_precision(true_N: np.ndarray, n_positives: int) -> float:
    """Area under the precision envelope.

    Args:
        true_N: (N,) bool by falling score.
        n_positives: ground-truth boxes of the class.

    Returns:
        AP in 0..1; 0 without detections; NaN (undefined) without ground truth.
    """
    if n_positives == 0:
        return float("nan")
    if len(true_N) == 0:
        return 0.0
    precision, recall = precision_and_recall(true_N, n_positives)
    recall = np.concatenate([[0.0], recall])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * envelope[steps]))


def tie_bounds(true_N: np.ndarray, scores_N: np.ndarray, n_positives: int) -> tuple[float, float]:
    """Least and greatest AP over all orders of equal scores.

    The official evaluators sort by an unstable sort, so that with ties theirs lies anywhere between.

    Args:
        true_N: (N,) bool by falling score.
        scores_N: (N,) float, falling.
        n_positives: ground-truth boxes of the class.
    """
    tie = np.cumsum(np.diff(scores_N, prepend=np.inf) != 0)
    # Of the rows of one score the false ones first, or the true ones.
    orders = (np.argsort(2 * tie + sign * true_N, kind="stable") for sign in (1, -1))
    least, most = (average_precision(true_N[order], n_positives) for order in orders)
    return least, most


def thinned_curve(
    precision: np.ndarray, recall: np.ndarray, points: int = MAX_CURVE_POINTS
) -> list[list[float]]:
    """At most `points` pairs [recall, precision] by rising recall, ends included; 4 decimals.

    Only places where recall rises are kept: there precision peaks, and the rest draws vertical strokes.
    """
    steps = np.flatnonzero(np.diff(recall, prepend=0.0) > 0)
    if len(steps) > points:
        steps = steps[np.linspace(0, len(steps) - 1, points).round().astype(np.int64)]
    return np.stack([recall[steps], precision[steps]], axis=1).round(4).tolist()
