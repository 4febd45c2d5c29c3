"""What kinds of errors cost AVA's AP: docs/evaluation.md defines each figure.

The kinds follow TIDE (Bolya et al., ECCV 2020) with its thresholds: a row finds a box at IoU .5 and is near one
at .1. They are counted among the N best-scored rows of a class with N ground-truth boxes, as Hoiem et al. (ECCV 2012)
count false positives: an actor is scored for every class, so the rows below say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from acar.evaluation.ava_match import AvaMatch
from acar.evaluation.average_precision import average_precision
from acar.evaluation.matching import Matched, match, pairs_of_keys

NEAR_IOU = 0.1
KINDS = ("true", "duplicate", "wrong_class", "localisation", "both", "background")
"""A row is of the first kind that holds.

true: the first claim on a ground-truth box of its class. duplicate: a later claim. wrong_class: its box finds an
annotated actor who does not carry the class. localisation: it is near a box of its class. both: it is near an
actor without the class. background: it is near nobody. (TIDE asks for localisation before wrong class; here
whom a box shows does not hang on the class, so that comes first.)
"""
SIZES = (("small", 0.0, 1 / 16), ("medium", 1 / 16, 1 / 4), ("large", 1 / 4, np.inf))
"""Parts of the frame's area from, to below: a quarter and a half of its sides."""
CROWDS = (("1", 1, 1), ("2", 2, 2), ("3-4", 3, 4), ("5 and more", 5, np.inf))
"""Annotated actors in the key frame, from, to."""
SHOWN_CONFUSIONS = 3


@dataclass(frozen=True)
class Seen:
    """What the detected boxes show whatever their scores.

    Attributes:
        actors: the (B,) boxes against all annotated actors.
        reachable: (M,) bool, ground-truth rows that a row of their class on some detected box would claim.
        shown: (A,) bool, the annotated actors that some detected box overlaps by enough.
        boxed: (M,) bool, the same of ground-truth rows.
    """

    actors: Matched
    reachable: np.ndarray
    shown: np.ndarray
    boxed: np.ndarray


def diagnose(found: AvaMatch) -> dict[str, Any]:
    """The `diagnosis` of metrics.json; shares and APs in 0..1, undefined ones None."""
    seen = _seen(found)
    kinds = _kinds(found, seen)
    counted = _within_budget(found)
    base = _class_aps(found, found.matched.true, np.ones(len(kinds), bool), found.defined_positives)
    counts = _table(found, kinds[counted], found.column[counted])
    truth_column, n_classes = found.truth.column, len(found.bounds) - 1
    hit = np.zeros(len(truth_column), dtype=bool)
    hit[found.matched.nearest[found.matched.true]] = True
    no_box = np.bincount(truth_column[~seen.boxed], minlength=n_classes)
    unfound = np.bincount(truth_column[~hit & seen.boxed], minlength=n_classes)
    gains = _gains(found, kinds, base, no_box)
    ceiling = _ratio(np.bincount(truth_column[seen.reachable], minlength=n_classes), found.defined_positives)
    return {
        "iou": found.iou,
        "near_iou": NEAR_IOU,
        "counted_rows": int(counted.sum()),
        "errors": [
            {"kind": kind, "rows": int(counts[:, k].sum()), "mAP_gain": gains.get(kind)}
            for k, kind in enumerate(KINDS)
        ],
        "missed": {
            "by_detector": int(no_box.sum()),
            "box_but_not_found": int(unfound.sum()),
            "mAP_gain_of_detector": gains["missed"],
        },
        "ceiling": {
            "mAP": mean_or_none(ceiling),
            "actors": len(seen.shown),
            "actors_with_box": int(seen.shown.sum()),
        },
        "by_size": _by_size(found),
        "by_actors": _by_actors(found),
        "classes": [
            {
                "errors": dict(zip(KINDS, counts[c].tolist())),
                "missed_by_detector": int(no_box[c]),
                "box_but_not_found": int(unfound[c]),
                "ceiling": None if np.isnan(ceiling[c]) else float(ceiling[c]),
                "taken_for_it": confused,
            }
            for c, confused in enumerate(_confusions(found, seen, kinds, counted))
        ],
    }


def mean_or_none(values: np.ndarray) -> float | None:
    """Mean of the values that are not NaN; None without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _seen(found: AvaMatch) -> Seen:
    truth, n_classes, rounded = found.truth, len(found.bounds) - 1, found.protocol.rounded
    solid = (found.boxes[:, 0] < found.boxes[:, 2]) & (found.boxes[:, 1] < found.boxes[:, 3])
    boxes, image = rounded(found.boxes), np.where(solid, found.box_image, -1)
    truth_boxes, actor_boxes = rounded(truth.boxes), rounded(truth.actor_boxes)
    no_score = np.zeros(len(boxes))
    actors = match(boxes, image, no_score, actor_boxes, truth.actor_image, found.iou)
    # A row of each class that is there on each box, as a detector with perfect scores would have it.
    box, row = pairs_of_keys(image, truth.image)
    wanted = np.unique(box * n_classes + truth.column[row])
    box, column = wanted // n_classes, wanted % n_classes
    perfect = match(
        boxes[box], image[box] * n_classes + column, no_score[box],
        truth_boxes, truth.image * n_classes + truth.column, found.iou,
    )  # fmt: skip
    reachable = np.zeros(len(truth.column), dtype=bool)
    reachable[perfect.nearest[perfect.true]] = True
    best = match(actor_boxes, truth.actor_image, np.zeros(len(actor_boxes)), boxes, image, found.iou)
    shown = best.overlap >= found.iou
    return Seen(actors, reachable, shown, shown[truth.actor])


def _kinds(found: AvaMatch, seen: Seen) -> np.ndarray:
    """(N,) int64 places in `KINDS`."""
    own, anyone = found.matched.overlap, seen.actors.overlap[found.box_of_row]
    conditions = [
        found.matched.true, own >= found.iou, anyone >= found.iou, own >= NEAR_IOU, anyone >= NEAR_IOU,
    ]  # fmt: skip
    return np.select(conditions, range(5), 5)


def _within_budget(found: AvaMatch) -> np.ndarray:
    """(N,) bool: the best-scored rows of each class, as many as it has ground-truth boxes."""
    place = np.arange(len(found.rows)) - np.repeat(found.bounds[:-1], np.diff(found.bounds))
    return place < found.truth.positives[found.column]


def _table(found: AvaMatch, kinds: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(C, kinds) counts."""
    n = len(KINDS)
    return np.bincount(column * n + kinds, minlength=(len(found.bounds) - 1) * n).reshape(-1, n)


def _class_aps(
    found: AvaMatch, true_N: np.ndarray, kept_N: np.ndarray, positives_C: np.ndarray
) -> np.ndarray:
    """(C,) AP over the kept rows; NaN for a class without positives.

    Of what the protocol leaves undefined (`AvaMatch.defined_positives`) there are none: every mean here goes over the
    classes that the mAP goes over, whatever rows are kept.
    """
    parts = zip(found.of_classes(true_N), found.of_classes(kept_N), positives_C)
    return np.array([average_precision(true[kept], int(n)) for true, kept, n in parts])


def _gains(
    found: AvaMatch, kinds: np.ndarray, base: np.ndarray, no_box: np.ndarray
) -> dict[str, float | None]:
    """By how much mAP rises if all rows (not only those counted) of one kind are mended, as TIDE's oracles do."""
    true, n = found.matched.true, found.defined_positives
    gains = {}
    for k, kind in enumerate(KINDS):
        if kind == "true":
            continue
        mended, kept = true, kinds != k
        if kind == "localisation":
            # Of the rows near a box that nobody found, the best-scored gets it right; the others go.
            hit = np.zeros(len(found.truth.column), dtype=bool)
            hit[found.matched.nearest[true]] = True
            near = np.flatnonzero(kinds == k)
            near = near[~hit[found.matched.nearest[near]]]
            _, first = np.unique(found.matched.nearest[near], return_index=True)
            mended, kept = true.copy(), kept.copy()
            mended[near[first]] = kept[near[first]] = True
        gains[kind] = _rise(base, _class_aps(found, mended, kept, n))
    # Without the boxes that nothing shows; a class that has no other is then perfect.
    without = _class_aps(found, true, np.ones(len(true), bool), np.where(n > 0, n - no_box, 0))
    gains["missed"] = _rise(base, np.where((n > 0) & (n == no_box), 1.0, without))
    return gains


def _rise(base: np.ndarray, mended: np.ndarray) -> float | None:
    return mean_or_none(mended - base)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _by_size(found: AvaMatch) -> list[dict[str, Any]]:
    truth, box = _area(found.truth.boxes), _area(found.boxes)[found.box_of_row]
    return [
        {"name": name, "from": low, "to": None if np.isinf(high) else high}
        | _stratum(found, (truth >= low) & (truth < high), (box >= low) & (box < high))
        for name, low, high in SIZES
    ]


def _by_actors(found: AvaMatch) -> list[dict[str, Any]]:
    truth = found.truth
    n_images = 1 + max((int(part.max()) for part in (truth.actor_image, found.image) if len(part)), default=0)
    actors = np.bincount(truth.actor_image, minlength=n_images)
    in_truth, in_row = actors[truth.image], actors[found.image]
    return [
        {"name": name, "images": int(((actors >= low) & (actors <= high)).sum())}
        | _stratum(found, (in_truth >= low) & (in_truth <= high), (in_row >= low) & (in_row <= high))
        for name, low, high in CROWDS
    ]


def _stratum(found: AvaMatch, truth_in: np.ndarray, row_in: np.ndarray) -> dict[str, Any]:
    """mAP over part of the ground truth, as COCO's areas have it.

    A row that claims a box goes where the box goes, one that claims nothing where its own box belongs.
    """
    claimed = found.matched.claimed(found.iou)
    kept = np.where(claimed >= 0, np.append(truth_in, False)[claimed], row_in)
    positives = np.bincount(found.truth.column[truth_in], minlength=len(found.bounds) - 1)
    defined = np.where(found.defined_positives > 0, positives, 0)
    return {
        "mAP": mean_or_none(_class_aps(found, found.matched.true, kept, defined)),
        "classes": int((defined > 0).sum()),
        "positives": int(positives.sum()),
    }


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _confusions(
    found: AvaMatch, seen: Seen, kinds: np.ndarray, counted: np.ndarray
) -> list[list[dict[str, int]]]:
    """By class, the classes that the actors of its wrong-class rows carry: column and rows, the most first."""
    n_classes = len(found.bounds) - 1
    wrong = np.flatnonzero(counted & (kinds == KINDS.index("wrong_class")))
    actor = seen.actors.nearest[found.box_of_row[wrong]]
    row, truth = pairs_of_keys(actor, found.truth.actor)
    pair = found.column[wrong][row] * n_classes + found.truth.column[truth]
    met, rows = np.unique(pair, return_counts=True)  # of many classes few pairs meet
    told: list[list[dict[str, int]]] = [[] for _ in range(n_classes)]
    for place in np.lexsort((met, -rows)).tolist():
        of, other = divmod(int(met[place]), n_classes)
        if len(told[of]) < SHOWN_CONFUSIONS:
            told[of].append({"column": other, "rows": int(rows[place])})
    return told
