"""Person boxes: overlap, selection, labels for detected boxes, and a detector's quality. Never imports torch.

Boxes are xyxy, x to the right and y down; `_norm` in 0..1 of the frame, `_px` in pixels. A boxes table has
the columns video, time_s, x1, y1, x2, y2, score (`acar.data.tables.PERSON_BOX_COLUMNS`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, DECIMALS
from acar.data.tables import PERSON_BOX_COLUMNS

PR_POINTS = 101  # at most so many points of the precision-recall curve go into metrics.json


def iou_matrix(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: float64 (N, M). A pair without area has overlap 0."""
    a_N4, b_M4 = np.asarray(a_N4, np.float64).reshape(-1, 4), np.asarray(b_M4, np.float64).reshape(-1, 4)
    low = np.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    high = np.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = _areas(a_N4)[:, None] + _areas(b_M4)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def to_norm(boxes_xyxy_px: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Boxes in pixels as float64 (N, 4) in 0..1 of the frame, cut at its borders."""
    size = np.array([width_px, height_px, width_px, height_px], np.float64)
    return np.clip(np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4) / size, 0.0, 1.0)


def to_px(boxes_xyxy_norm: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Boxes in 0..1 of the frame as float64 (N, 4) pixels."""
    size = np.array([width_px, height_px, width_px, height_px], np.float64)
    return np.asarray(boxes_xyxy_norm, np.float64).reshape(-1, 4) * size


def boxes_table(video: list[str], time_s: list[float], boxes_xyxy_norm: Any, score: Any) -> pd.DataFrame:
    """A boxes table from its columns, in canonical order; boxes without area are left out.

    Args:
        video: N video ids.
        time_s: N source times, seconds.
        boxes_xyxy_norm: (N, 4) in 0..1 of the frame.
        score: (N,).
    """
    boxes = np.asarray(boxes_xyxy_norm, np.float64).reshape(-1, 4)
    table = pd.DataFrame({"video": pd.Series(video, dtype="str"), "time_s": np.asarray(time_s, np.float64)})
    table["time_s"] = table["time_s"].round(DECIMALS)
    table[BOX_COLUMNS] = boxes
    table["score"] = np.asarray(score, np.float64)
    return in_order(table[_areas(boxes) > 0])


def in_order(boxes: pd.DataFrame) -> pd.DataFrame:
    """Rows by video, then time, then falling score (ties by box, so that equal inputs give equal files)."""
    keys = ["video", "time_s", "score", *BOX_COLUMNS]
    ordered = boxes[PERSON_BOX_COLUMNS].sort_values(
        keys, ascending=[True, True, False, True, True, True, True], kind="stable", ignore_index=True
    )
    return ordered


def select(boxes: pd.DataFrame, min_score: float) -> pd.DataFrame:
    """The rows of a boxes table that score at least `min_score`, in their order."""
    return boxes[boxes["score"] >= min_score].reset_index(drop=True)


def label_detected(
    detected_N4: np.ndarray, truth_M4: np.ndarray, truth_targets_MC: np.ndarray, iou: float
) -> np.ndarray:
    """Targets of detected boxes (paper section 4.1 trains with them; the IoU is `boxes.label_iou`).

    Each detected box takes the labels of the ground-truth box that it overlaps most, if by at least `iou`;
    otherwise none. Two detected boxes may take the labels of the same person.

    Returns:
        (N, C), dtype of `truth_targets_MC`.
    """
    targets_NC = np.zeros((len(detected_N4), truth_targets_MC.shape[1]), truth_targets_MC.dtype)
    if len(detected_N4) == 0 or len(truth_M4) == 0:
        return targets_NC
    overlap_NM = iou_matrix(detected_N4, truth_M4)
    best_N = overlap_NM.argmax(axis=1)
    good_N = overlap_NM[np.arange(len(best_N)), best_N] >= iou
    targets_NC[good_N] = truth_targets_MC[best_N[good_N]]
    return targets_NC


def detector_quality(boxes: pd.DataFrame, labels: pd.DataFrame, iou: float = 0.5) -> dict[str, Any]:
    """How well `boxes` find the annotated persons, over the key frames that `labels` annotates.

    A person is a distinct (video, time, box) of `labels`, whatever its actions. By falling score, a detected
    box claims the yet unclaimed person of its key frame that it overlaps most, if by at least `iou`.
    Boxes at key frames without labels are left out.

    Returns:
        ap50: all-point interpolated average precision at `iou`, recall50: share of persons found at any
        score, n_boxes, n_ground_truth, pr: at most 101 [recall, precision] points by rising recall.
        Without annotated persons, ap50 and recall50 are None.
    """
    truth = _by_key_frame(labels.drop_duplicates(["video", "time_s", *BOX_COLUMNS]), BOX_COLUMNS)
    n_truth = sum(len(persons) for persons in truth.values())
    scores, hits = [np.zeros(0)], [np.zeros(0, bool)]
    for key, rows in _by_key_frame(in_order(boxes), [*BOX_COLUMNS, "score"]).items():
        if key in truth:
            scores.append(rows[:, 4])
            hits.append(_claims(rows[:, :4], truth[key], iou))
    score, hit = np.concatenate(scores), np.concatenate(hits)
    found = {"n_boxes": len(score), "n_ground_truth": n_truth}
    if n_truth == 0:
        return {"ap50": None, "recall50": None, **found, "pr": []}
    hit = hit[np.argsort(-score, kind="stable")]
    recall, precision = np.cumsum(hit) / n_truth, np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return {
        "ap50": _average_precision(recall, precision),
        "recall50": float(hit.sum() / n_truth),
        **found,
        "pr": _thinned(recall, precision),
    }


def _by_key_frame(table: pd.DataFrame, columns: list[str]) -> dict[tuple[str, float], np.ndarray]:
    """float64 (n, len(columns)) by (video, time_s), rows in the order of the table."""
    values = table[columns].to_numpy(np.float64)
    # One pass over positions: a frame for each of AVA's 64,000 groups would take minutes.
    groups = table.groupby(["video", "time_s"], sort=True).indices
    return {key: values[rows] for key, rows in groups.items()}


def _claims(boxes_N4: np.ndarray, persons_M4: np.ndarray, iou: float) -> np.ndarray:
    """Which boxes, best score first, claim a person: bool (N,)."""
    overlap_NM = iou_matrix(boxes_N4, persons_M4)
    hit_N = np.zeros(len(boxes_N4), bool)
    for row, overlap_M in enumerate(overlap_NM):
        best = int(overlap_M.argmax())
        if overlap_M[best] >= iou:
            hit_N[row] = True
            overlap_NM[:, best] = -1.0
    return hit_N


def _average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the precision envelope (precision at a recall = the best at that recall or beyond)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _thinned(recall: np.ndarray, precision: np.ndarray) -> list[list[float]]:
    kept = np.unique(np.linspace(0, len(recall) - 1, min(PR_POINTS, len(recall))).round().astype(int))
    return [[float(recall[row]), float(precision[row])] for row in kept]


def _areas(boxes_N4: np.ndarray) -> np.ndarray:
    return np.clip(boxes_N4[:, 2:] - boxes_N4[:, :2], 0, None).prod(axis=1)
