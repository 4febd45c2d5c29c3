"""AVA's frame-level mAP at an IoU of 0.5, as the evaluator that comes with the authors' code computes it.

An image is a (video, second). Its 50 best-scored rows over all classes count; detections on images without
ground truth are false positives; excluded key frames and classes outside the label map are dropped from both
sides; inverted and zero-size detections are dropped, after they took their place among the 50.
(ActivityNet's present script instead ignores detections on images without ground truth.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.data.tables import BOX_COLUMNS, LabelMap
from acar.evaluation.average_precision import average_precision, precision_and_recall, thinned_curve
from acar.evaluation.matching import true_positives

ROWS_PER_IMAGE = 50
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class AvaResult:
    """The figures of one evaluation; arrays are by column of the label map (C classes).

    Attributes:
        ap: (C,) float64 in 0..1; NaN for a class without ground truth.
        positives: (C,) int64 ground-truth boxes.
        shares: (C,) float64, the share of annotated actors that carry the class. NaN without actors.
        chance: (C,) float64, the AP of scores that know nothing, on the same detected boxes; NaN as `ap`. Of the
            class's rows a share hits, at any rank, up to the recall of the boxes: AP = share * recall. On the
            ground truth's own boxes it equals `shares`.
        curves: C lists of at most 100 [recall, precision] by rising recall.
        n_ground_truth_boxes: annotated actors: distinct boxes, with or without an action of the label map.
        n_detections: rows that were scored, after the cap and the exclusions.
    """

    ap: np.ndarray
    positives: np.ndarray
    shares: np.ndarray
    chance: np.ndarray
    curves: list[list[list[float]]]
    n_ground_truth_boxes: int
    n_detections: int

    @property
    def mean_ap(self) -> float:
        """Mean over the classes with ground truth; NaN if there is none."""
        return mean_defined(self.ap)


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
) -> AvaResult:
    """Score `detections` by the protocol above.

    Args:
        ground_truth: as `read_labels(path, clip=False)` gives it.
        detections: as `read_detections` gives it. Rows of equal score count in the order given.
        label_map: the evaluated classes.
        excluded: (video, time_s) of key frames left out.
        iou: least overlap of a true positive, 0..1.
    """
    truth_image, image = _images(ground_truth, detections, excluded)
    truth_column = _columns(ground_truth["action_id"], label_map)
    column = _columns(detections["action_id"], label_map)
    n_actors, shares = _actors(ground_truth, truth_image, truth_column, len(label_map))

    # Order of the official evaluator where a detection overlaps two boxes equally: by falling actor id.
    truth_rows = np.flatnonzero((truth_image >= 0) & (truth_column >= 0))
    truth_rows = truth_rows[np.argsort(-_actor_numbers(ground_truth)[truth_rows], kind="stable")]
    rows = _scored_rows(detections, image, column)

    n_classes = len(label_map)
    true = true_positives(
        _boxes(detections, rows),
        image[rows] * n_classes + column[rows],
        _boxes(ground_truth, truth_rows),
        truth_image[truth_rows] * n_classes + truth_column[truth_rows],
        iou,
    )
    positives = np.bincount(truth_column[truth_rows], minlength=n_classes)
    by_class = np.argsort(column[rows], kind="stable")
    ends = np.cumsum(np.bincount(column[rows], minlength=n_classes))
    parts = np.split(true[by_class], ends[:-1])
    return AvaResult(
        ap=np.array([average_precision(part, int(n)) for part, n in zip(parts, positives)]),
        positives=positives,
        shares=shares,
        chance=np.array([_chance(part, int(n)) for part, n in zip(parts, positives)]),
        curves=[
            thinned_curve(*precision_and_recall(part, int(n))) if n else []
            for part, n in zip(parts, positives)
        ],
        n_ground_truth_boxes=n_actors,
        n_detections=len(rows),
    )


def _chance(true: np.ndarray, n_positives: int) -> float:
    """AP of random scores for a class: (N,) bool hits among its rows, and its number of ground-truth boxes."""
    if n_positives == 0:
        return float("nan")
    return float(true.mean() * true.sum() / n_positives) if len(true) else 0.0


def _images(
    ground_truth: pd.DataFrame, detections: pd.DataFrame, excluded: Collection[tuple[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each (video, second), common to both tables, or -1 if it is excluded; int64."""
    left_out = pd.DataFrame(list(excluded), columns=["video", "time_s"]).astype({"time_s": np.float64})
    tables = [ground_truth, detections, left_out]
    video, _ = pd.factorize(pd.concat([table["video"].astype(str) for table in tables], ignore_index=True))
    times = np.concatenate([table["time_s"].to_numpy(np.float64) for table in tables])
    moment, moments = pd.factorize(np.rint(times * MICROSECONDS).astype(np.int64))
    image, images = pd.factorize(video.astype(np.int64) * len(moments) + moment)
    cut = len(ground_truth), len(ground_truth) + len(detections)
    gone = np.zeros(len(images), dtype=bool)
    gone[image[cut[1] :]] = True
    image[gone[image]] = -1
    return image[: cut[0]], image[cut[0] : cut[1]]


def _columns(action_ids: pd.Series, label_map: LabelMap) -> np.ndarray:
    """Column of each id in the label map, or -1 (no action, or a class that is not evaluated); int64."""
    ids = action_ids.to_numpy(dtype=np.int64, na_value=-1) if len(action_ids) else np.zeros(0, np.int64)
    return pd.Index(label_map.ids).get_indexer(ids).astype(np.int64)


def _actors(
    ground_truth: pd.DataFrame, image: np.ndarray, column: np.ndarray, n_classes: int
) -> tuple[int, np.ndarray]:
    """Number of distinct annotated boxes, and the share of them that carries each class."""
    rows = np.flatnonzero(image >= 0)
    table = ground_truth[BOX_COLUMNS].iloc[rows].assign(image=image[rows])
    actor = table.groupby(["image", *BOX_COLUMNS], sort=False).ngroup().to_numpy()
    n_actors = int(actor.max()) + 1 if len(actor) else 0
    if n_actors == 0:
        return 0, np.full(n_classes, np.nan)
    labelled = column[rows] >= 0
    carried = np.unique(actor[labelled] * n_classes + column[rows][labelled])
    return n_actors, np.bincount(carried % n_classes, minlength=n_classes) / n_actors


def _actor_numbers(ground_truth: pd.DataFrame) -> np.ndarray:
    """Actor ids as numbers (an absent or non-numeric id counts as 1, as the official reader has it)."""
    if "actor_id" not in ground_truth:
        return np.ones(len(ground_truth))
    codes, texts = pd.factorize(ground_truth["actor_id"])
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").fillna(1.0).to_numpy(np.float64)
    return numbers[codes]


def _scored_rows(detections: pd.DataFrame, image: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Rows of `detections` that count, by falling score (equal ones in the order of the table)."""
    rows = np.flatnonzero((image >= 0) & (column >= 0))
    scores = detections["score"].to_numpy(np.float64)
    rows = rows[_best_of_images(image[rows], scores[rows], detections, rows)]
    boxes = _boxes(detections, rows)
    rows = rows[(boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])]
    return rows[np.argsort(-scores[rows], kind="stable")]


def _best_of_images(
    image: np.ndarray, scores: np.ndarray, detections: pd.DataFrame, rows: np.ndarray
) -> np.ndarray:
    """Places (sorted) within `rows` of each image's `ROWS_PER_IMAGE` best rows."""
    order = np.lexsort((-scores, image))
    sorted_image, sorted_scores = image[order], scores[order]
    start = np.searchsorted(sorted_image, sorted_image)
    rank = np.arange(len(order)) - start
    kept = rank < ROWS_PER_IMAGE
    # Images whose 50th and 51st best row tie: which of the tied ones stay is a matter of arrival.
    last = np.flatnonzero((rank == ROWS_PER_IMAGE - 1)[:-1] & (sorted_image[:-1] == sorted_image[1:])
                          & (sorted_scores[:-1] == sorted_scores[1:]))  # fmt: skip
    if len(last):
        owner = np.searchsorted(sorted_image[last], sorted_image)
        inside = owner < len(last)
        inside[inside] = sorted_image[last][owner[inside]] == sorted_image[inside]
        contested = np.flatnonzero(inside)
        threshold = sorted_scores[last][owner[contested]]
        tied = contested[sorted_scores[contested] == threshold]
        above = contested[sorted_scores[contested] > threshold]
        kept[tied] = False
        kept[_tied_that_stay(order, sorted_image, tied, above, detections, rows)] = True
    return np.sort(order[kept])


def _tied_that_stay(
    order: np.ndarray,
    sorted_image: np.ndarray,
    tied: np.ndarray,
    above: np.ndarray,
    detections: pd.DataFrame,
    rows: np.ndarray,
) -> np.ndarray:
    """Of the rows tied at the 50th place of their image, those that the official reader ends up with.

    It fills a heap of (score, action id, y1, x1, y2, x2) and lets a further row replace the least only if its
    score is greater. So a tied row enters if fewer than 50 rows as good came before it, and the least by
    (action id, y1, x1, y2, x2) leave again for better-scored ones.
    """
    as_good = np.concatenate([tied, above])
    as_good = as_good[np.lexsort((order[as_good], sorted_image[as_good]))]
    images = sorted_image[as_good]
    arrival = np.empty(len(order), dtype=np.int64)
    arrival[as_good] = np.arange(len(as_good)) - np.searchsorted(images, images)
    entered = tied[arrival[tied] < ROWS_PER_IMAGE]
    table = detections.iloc[rows[order[entered]]]
    keys = [-table[name].to_numpy(np.float64) for name in ("x2", "y2", "x1", "y1", "action_id")]
    entered = entered[np.lexsort((*keys, sorted_image[entered]))]
    images = sorted_image[entered]
    rank = np.arange(len(entered)) - np.searchsorted(images, images)
    above_images = np.sort(sorted_image[above])
    n_above = np.searchsorted(above_images, images, "right") - np.searchsorted(above_images, images, "left")
    return entered[rank < ROWS_PER_IMAGE - n_above]


def _boxes(table: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """(N, 4) float64 of the given rows."""
    return np.stack([table[name].to_numpy(np.float64)[rows] for name in BOX_COLUMNS], axis=1)
