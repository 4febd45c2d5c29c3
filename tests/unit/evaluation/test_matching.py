from __future__ import annotations

import numpy as np
import pytest

from acar.evaluation import matching
from acar.evaluation.matching import iou_of_pairs

UNIT = [0.0, 0.0, 1.0, 1.0]
HALF = [0.0, 0.0, 0.5, 1.0]
LEFT = [0.0, 0.0, 0.4, 1.0]


def found(
    boxes: list, truth: list, keys: list | None = None, truth_keys: list | None = None
) -> matching.Matched:
    return matching.match(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(keys if keys is not None else [0] * len(boxes), dtype=np.int64),
        -np.arange(len(boxes)),
        np.array(truth, dtype=np.float64).reshape(-1, 4),
        np.array(truth_keys if truth_keys is not None else [0] * len(truth), dtype=np.int64),
        0.5,
    )


def match(*args: list) -> list[bool]:
    return found(*args).true.tolist()


@pytest.mark.parametrize(
    ("box", "other", "overlap"),
    [
        (UNIT, UNIT, 1.0),
        (UNIT, HALF, 0.5),
        (HALF, [0.5, 0.0, 1.0, 1.0], 0.0),
        (HALF, [0.25, 0.0, 0.75, 1.0], 1 / 3),
        (LEFT, [0.6, 0.6, 0.9, 0.9], 0.0),
        (UNIT, [0.5, 0.5, 0.5, 0.5], 0.0),
    ],
)
def test_iou_by_hand(box: list[float], other: list[float], overlap: float) -> None:
    assert iou_of_pairs(np.array([box]), np.array([other])) == pytest.approx([overlap])


def test_exactly_half_is_enough() -> None:
    assert match([HALF], [UNIT]) == [True]


def test_second_claim_on_a_box_is_a_duplicate() -> None:
    assert match([HALF, UNIT], [UNIT]) == [True, False]


def test_no_fallback_to_the_second_best_box() -> None:
    nearly = [0.0, 0.0, 0.95, 1.0]
    assert match([UNIT, UNIT], [UNIT, nearly]) == [True, False]


def test_first_of_two_equally_overlapped_boxes_is_claimed() -> None:
    assert match([UNIT, UNIT], [UNIT, UNIT]) == [True, False]


def test_keys_keep_images_and_classes_apart() -> None:
    assert match([UNIT, UNIT, UNIT], [UNIT, UNIT], [5, 3, 4], [3, 5]) == [True, True, False]


def test_nothing_to_match() -> None:
    assert match([], [UNIT]) == []
    assert match([UNIT], []) == [False]
    assert match([], []) == []


def test_what_a_detection_is_nearest_to_is_told_also_below_the_threshold() -> None:
    result = found([LEFT, UNIT, UNIT], [[0.6, 0.6, 0.9, 0.9], UNIT], [0, 0, 7])
    assert result.nearest.tolist() == [1, 1, -1]
    assert result.overlap == pytest.approx([0.4, 1.0, 0.0])
    assert result.claimed(0.5).tolist() == [-1, 1, -1]


def test_the_best_scored_claim_counts_whatever_its_place() -> None:
    boxes, truth, keys = np.array([HALF, UNIT]), np.array([UNIT]), np.zeros(2, np.int64)
    result = matching.match(boxes, keys, np.array([0.1, 0.2]), truth, keys[:1], 0.5)
    assert result.true.tolist() == [False, True]


def test_boxes_without_area_overlap_nowhere() -> None:
    point = np.array([[0.5, 0.5, 0.5, 0.5]])
    assert iou_of_pairs(point, point).tolist() == [0.0]


def test_single_precision_decides_at_the_threshold() -> None:
    """A third of 1 + 2: in float64 just below a half, in float32 sides a half."""
    box, truth = np.array([[0.1, 0.0, 0.4, 1.0]]), np.array([[0.1, 0.0, 0.7, 1.0]])
    double = iou_of_pairs(box, truth)[0]
    single = iou_of_pairs(box.astype(np.float32), truth.astype(np.float32))[0]
    assert double != single and double == pytest.approx(single)
