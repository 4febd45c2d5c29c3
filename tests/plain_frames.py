"""Slow, independent implementations of frame-mAP, tube linking and video-mAP, by loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd

Row = dict[str, Any]


def rows_of(table: pd.DataFrame) -> list[Row]:
    return table.to_dict("records")


def plain_iou(a: list[float], b: list[float], plus: float = 0.0) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0]) + plus
    h = min(a[3], b[3]) - max(a[1], b[1]) + plus
    inter = max(w, 0.0) * max(h, 0.0)
    area = [(c[2] - c[0] + plus) * (c[3] - c[1] + plus) for c in (a, b)]
    union = area[0] + area[1] - inter
    return inter / union if union > 0 else 0.0


def box_of(row: Row) -> list[float]:
    return [row["x1"], row["y1"], row["x2"], row["y2"]]


def plain_hits(
    scored: list[tuple[float, list[tuple[Any, float]]]], iou: float, remaining: bool
) -> list[bool]:
    """Of (score, [(ground truth, overlap) in order]): hits by falling score."""
    taken: set[Any] = set()
    hits = []
    for _, candidates in sorted(scored, key=lambda item: -item[0]):
        near = [item for item in candidates if not (remaining and item[0] in taken)]
        best = max(near, key=lambda item: item[1], default=None)
        hit = best is not None and best[1] >= iou and best[0] not in taken
        if hit:
            taken.add(best[0])
        hits.append(hit)
    return hits


def plain_ap(hits: list[bool], n_positives: int, trapezoid: bool) -> float:
    points, tp = [(0.0, 1.0)], 0
    for place, hit in enumerate(hits, start=1):
        tp += hit
        points.append((tp / n_positives, tp / place))
    if trapezoid:
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    area = 0.0
    for k in range(1, len(points)):
        area += (points[k][0] - points[k - 1][0]) * max(point[1] for point in points[k:])
    return area


def plain_frame_ap(
    truth: list[Row],
    detections: list[Row],
    label: int,
    iou: float,
    plus: float,
    remaining: bool,
    trapezoid: bool,
) -> float | None:
    own = [row for row in truth if row["label"] == label]
    if not own:
        return None
    scored = [
        (
            row["score"],
            [
                (place, plain_iou(box_of(other), box_of(row), plus))
                for place, other in enumerate(own)
                if (other["video"], other["frame"]) == (row["video"], row["frame"])
            ],
        )
        for row in detections
        if row["label"] == label
    ]
    return plain_ap(plain_hits(scored, iou, remaining), len(own), trapezoid)


def plain_link(detections: list[Row], top: int, nms: float, least: float, gap: int) -> list[dict[str, Any]]:
    """Tubes of one video and class: {frame: box} with held boxes, and the score."""
    tubes: list[dict[str, Any]] = []
    for frame in range(max((row["frame"] for row in detections), default=0) + 1):
        boxes = sorted((row for row in detections if row["frame"] == frame), key=lambda row: -row["score"])
        kept: list[Row] = []
        for row in boxes:
            if all(plain_iou(box_of(row), box_of(other)) <= nms for other in kept):
                kept.append(row)
        kept = kept[:top]
        live = [tube for tube in tubes if tube["missed"] < gap]
        for tube in sorted(live, key=lambda tube: -sum(tube["scores"]) / len(tube["scores"])):
            near = [row for row in kept if plain_iou(tube["boxes"][tube["last"]], box_of(row)) >= least]
            if near:
                for held in range(tube["last"] + 1, frame):
                    tube["boxes"][held] = tube["boxes"][tube["last"]]
                tube["boxes"][frame] = box_of(near[0])
                tube["scores"].append(near[0]["score"])
                tube["last"], tube["missed"] = frame, 0
                kept.remove(near[0])
            else:
                tube["missed"] += 1
        tubes += [
            {"boxes": {frame: box_of(row)}, "scores": [row["score"]], "last": frame, "missed": 0}
            for row in kept
        ]
    return tubes


def plain_tube_iou(a: dict[int, list[float]], b: dict[int, list[float]], plus: float) -> float:
    """Overlap in time times mean overlap in space, of tubes without gaps."""
    shared = sorted(set(a) & set(b))
    if not shared:
        return 0.0
    union = max(*a, *b) - min(*a, *b) + 1
    space = sum(plain_iou(a[frame], b[frame], plus) for frame in shared) / len(shared)
    return space * len(shared) / union
