"""AVA's frame-level mAP, as published evaluators compute it (acar.evaluation.ava_protocols tells them apart).

An image is a (video, second). By the protocol of the authors' code its 50 best-scored rows over all classes count;
detections on images without ground truth are false positives; excluded key frames and classes outside the
label map are dropped from both sides; inverted and zero-size detections are dropped, after they took their
place among the 50.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.data.tables import LabelMap
from acar.evaluation.ava_match import AvaMatch, match_ava
from acar.evaluation.ava_protocols import RELEASED, Protocol
from acar.evaluation.average_precision import (
    average_precision,
    precision_and_recall,
    thinned_curve,
    tie_bounds,
)


@dataclass(frozen=True)
class AvaResult:
    """The figures of one evaluation; arrays are by column of the label map (C classes).

    Attributes:
        ap: (C,) float64 in 0..1; NaN for a class without ground truth, or that the protocol leaves undefined.
        bounds: (C, 2) float64, the least and greatest AP over all orders of equal scores; NaN as `ap`.
        positives: (C,) int64 ground-truth boxes.
        rows: (C,) int64 detections that were scored, after the cap and the exclusions.
        found: (C,) int64 of them, true positives.
        shares: (C,) float64, the share of annotated actors that carry the class. NaN without actors.
        chance: (C,) float64, the AP of scores that know nothing, on the same detected boxes; NaN as `ap`. Of the
            class's rows a share hits, at any rank, up to the recall of the boxes: AP = share * recall. On the
            ground truth's own boxes it equals `shares`.
        curves: C lists of at most 100 [recall, precision] by rising recall.
        n_ground_truth_boxes: annotated actors: distinct boxes, with or without an action of the label map.
        match: the rows behind the figures, for the diagnosis.
    """

    ap: np.ndarray
    bounds: np.ndarray
    positives: np.ndarray
    rows: np.ndarray
    found: np.ndarray
    shares: np.ndarray
    chance: np.ndarray
    curves: list[list[list[float]]]
    n_ground_truth_boxes: int
    match: AvaMatch

    @property
    def mean_ap(self) -> float:
        """Mean over the classes that have an AP; NaN if there is none."""
        return mean_defined(self.ap)

    @property
    def n_detections(self) -> int:
        """Rows that were scored."""
        return int(self.rows.sum())


def mean_defined(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def evaluate_ava(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    label_map: LabelMap,
    excluded: Collection[tuple[str, float]] = frozenset(),
    iou: float = 0.5,
    protocol: Protocol = RELEASED,
) -> AvaResult:
    """Score `detections` by a protocol.

    Args:
        ground_truth: as `read_ground_truth(path)` or `read_labels(path, clip=False)` gives it.
        detections: as `read_detections` gives it. Rows of equal score count in the order given.
        label_map: the evaluated classes.
        excluded: (video, time_s) of key frames left out.
        iou: least overlap of a true positive, above 0, to 1.
        protocol: whose conventions.

    Raises:
        UserError: a row without a video id.
        InvertedBoxError: a box that the protocol's evaluator stops at (a UserError).
    """
    match = match_ava(ground_truth, detections, label_map, excluded, iou, protocol)
    parts = match.of_classes(match.matched.true)
    positives = match.truth.positives
    defined = match.defined_positives.tolist()
    scores = match.of_classes(match.scores)
    bounds = [tie_bounds(part, of, n) for part, of, n in zip(parts, scores, defined)]
    return AvaResult(
        ap=np.array([average_precision(part, n) for part, n in zip(parts, defined)]),
        bounds=np.array(bounds).reshape(-1, 2),
        positives=positives,
        rows=np.diff(match.bounds),
        found=np.array([int(part.sum()) for part in parts]),
        shares=_shares(match, len(label_map)),
        chance=np.array([_chance(part, n) for part, n in zip(parts, defined)]),
        curves=[
            thinned_curve(*precision_and_recall(part, int(n))) if n else []
            for part, n in zip(parts, positives)
        ],
        n_ground_truth_boxes=len(match.truth.actor_image),
        match=match,
    )


def _chance(true: np.ndarray, n_positives: int) -> float:
    """AP of random scores for a class: (N,) bool hits among its rows, and its number of ground-truth boxes."""
    if n_positives == 0:
        return float("nan")
    return float(true.mean() * true.sum() / n_positives) if len(true) else 0.0


def _shares(match: AvaMatch, n_classes: int) -> np.ndarray:
    """The share of the annotated actors that carries each class."""
    n_actors = len(match.truth.actor_image)
    if n_actors == 0:
        return np.full(n_classes, np.nan)
    carried = np.unique(match.truth.actor * n_classes + match.truth.column)
    return np.bincount(carried % n_classes, minlength=n_classes) / n_actors
