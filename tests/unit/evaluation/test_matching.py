from __future__ import annotations

import numpy as np
import pytest

from acar.evaluation.matching import iou_of_pairs, true_positives

UNIT = [0.0, 0.0, 1.0, 1.0]
HALF = [0.0, 0.0, 0.5, 1.0]
LEFT = [0.0, 0.0, 0.4, 1.0]


def match(boxes: list, truth: list, keys: list | None = None, truth_keys: list | None = None) -> list[bool]:
    return true_positives(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(keys if keys is not None else [0] * len(boxes), dtype=np.int64),
        np.array(truth, dtype=np.float64).reshape(-1, 4),
        np.array(truth_keys if truth_keys is not None else [0] * len(truth), dtype=np.int64),
        0.5,
    ).tolist()


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
