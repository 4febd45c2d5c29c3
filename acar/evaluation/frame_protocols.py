"""The published ways to score boxes or tubes against ground truth, by the name of the code that does so.

They differ in four points: whether a box of x1..x2 is x2 - x1 or x2 - x1 + 1 pixels wide; whether a detection may
claim the ground truth that it overlaps most (a second claim is false) or the best that remains; how the area under
the precision-recall points is taken; and over which classes the mean goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from acar.errors import UserError
from acar.evaluation.average_precision import average_precision


@dataclass(frozen=True)
class Protocol:
    """One evaluator's conventions.

    Attributes:
        pixel: added to a box's width and height: 1 where coordinates name pixels, else 0.
        remaining: a detection claims the best ground truth that nobody has; else the best, or none.
        trapezoid: the area is by the trapezoid rule from (precision 1, recall 0) on, all in float32; else below the
            precision envelope, at every point (PASCAL VOC 2010).
        over_all: the mean goes over all classes, of which those without ground truth count 0; else over those with.
        single: APs are kept in float32.
    """

    name: str
    what: str
    pixel: float = 0.0
    remaining: bool = False
    trapezoid: bool = False
    over_all: bool = False
    single: bool = False


PROTOCOLS = MappingProxyType({
    protocol.name: protocol
    for protocol in (
        Protocol("mmaction2_multisports", "mmaction2's MultiSports metric"),
        Protocol("moc_act", "MOC-Detector's, which is ACT's", pixel=1.0, remaining=True, trapezoid=True,
                 over_all=True, single=True),
        Protocol("yowo_padilla", "YOWO's, which is Padilla's object detection metrics", pixel=1.0),
        Protocol("road_gurkirt", "Singh's realtime-action-detection", remaining=True, over_all=True, single=True),
    )
})  # fmt: skip
DEFAULT_PROTOCOL = "mmaction2_multisports"


def overlaps(a_N4: np.ndarray, b_N4: np.ndarray, pixel: float) -> np.ndarray:
    """Intersection over union of row n of `a_N4` with row n of `b_N4`.

    Args:
        a_N4: (N, 4) float64 boxes x1, y1, x2, y2.
        b_N4: (N, 4) float64.
        pixel: as `Protocol.pixel`, in the boxes' unit.

    Returns:
        (N,) float64; 0 where neither box has an area.
    """
    low, high = np.maximum(a_N4[:, :2], b_N4[:, :2]), np.minimum(a_N4[:, 2:], b_N4[:, 2:])
    shared = np.maximum(high - low + pixel, 0.0).prod(axis=1)
    union = _areas(a_N4, pixel) + _areas(b_N4, pixel) - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)


def _areas(boxes_N4: np.ndarray, pixel: float) -> np.ndarray:
    return (boxes_N4[:, 2:] - boxes_N4[:, :2] + pixel).prod(axis=1)


def by_score(scores_N: np.ndarray) -> np.ndarray:
    """Rows by falling score, equal ones as they come; the published codes leave ties to an unstable sort."""
    return np.argsort(-scores_N, kind="stable")


def claims(
    detection_P: np.ndarray, truth_P: np.ndarray, overlap_P: np.ndarray, scores_N: np.ndarray, iou: float,
    protocol: Protocol,
) -> np.ndarray:  # fmt: skip
    """Which detections find their ground truth.

    Args:
        detection_P: (P,) int64, the detection of each pair that may meet (one image or video, one class).
        truth_P: (P,) int64, its ground truth.
        overlap_P: (P,) float64.
        scores_N: (N,) float64 of all detections.
        iou: least overlap.
        protocol: its matching.

    Returns:
        (N,) bool.
    """
    near = np.flatnonzero(overlap_P >= iou)
    rank_N = np.empty(len(scores_N), np.int64)
    rank_N[by_score(scores_N)] = np.arange(len(scores_N))
    # Each detection's ground truths from the best on, the best-scored detection first.
    near = near[np.lexsort((truth_P[near], -overlap_P[near], rank_N[detection_P[near]]))]
    true_N = np.zeros(len(scores_N), dtype=bool)
    taken: set[int] = set()
    last = -1
    for detection, truth in zip(detection_P[near].tolist(), truth_P[near].tolist()):
        is_best = detection != last
        last = detection
        if true_N[detection] or truth in taken or not (is_best or protocol.remaining):
            continue
        taken.add(truth)
        true_N[detection] = True
    return true_N


def class_ap(true_N: np.ndarray, n_positives: int, protocol: Protocol, name: str) -> float:
    """AP of one class.

    Args:
        true_N: (N,) bool by falling score.
        n_positives: ground truths of the class.
        protocol: its interpolation.
        name: of the class, for the message.

    Returns:
        AP in 0..1. Without ground truth NaN, or 0 where the protocol's mean counts such classes.

    Raises:
        UserError: detections but no ground truth, under a protocol that divides by zero there.
    """
    if n_positives == 0:
        if protocol.trapezoid and len(true_N):
            raise UserError(
                f"class {name}: detections but no ground truth, where {protocol.name} divides by zero; leave its "
                "rows out, or choose another protocol"
            )
        return 0.0 if protocol.over_all else float("nan")
    if protocol.trapezoid:
        return _trapezoid(true_N, n_positives)
    value = average_precision(true_N, n_positives)
    return float(np.float32(value)) if protocol.single else value


def _trapezoid(true_N: np.ndarray, n_positives: int) -> float:
    found = np.concatenate([[0], np.cumsum(true_N)])
    precision = np.concatenate([[1.0], found[1:] / np.arange(1, len(found))]).astype(np.float32)
    recall = (found / n_positives).astype(np.float32)
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) * np.float32(0.5)))


def mean_ap(ap_C: np.ndarray, protocol: Protocol) -> float:
    """Mean over the classes that the protocol counts; NaN if there are none."""
    counted = ap_C if protocol.over_all else ap_C[~np.isnan(ap_C)]
    if not len(counted):
        return float("nan")
    if protocol.trapezoid:  # of percents
        return float((100 * counted.astype(np.float32)).mean()) / 100
    return float(counted.astype(np.float32).mean()) if protocol.single else float(counted.mean())
