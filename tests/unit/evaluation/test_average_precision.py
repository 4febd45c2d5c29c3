from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acar.evaluation.average_precision import average_precision, precision_and_recall, thinned_curve

hits = st.lists(st.booleans(), min_size=1, max_size=30)


def ap(true: list[bool], n_positives: int) -> float:
    return average_precision(np.array(true, dtype=bool), n_positives)


def test_by_hand() -> None:
    # Precisions at the hits: 1/1 and 2/3, each for half of the recall.
    assert ap([True, False, True], 2) == pytest.approx((1 + 2 / 3) / 2)
    # A later hit at higher precision lifts the earlier one (envelope): hits at 1/2, 2/3.
    assert ap([False, True, True], 2) == pytest.approx(2 / 3)
    # Half of the recall is never reached.
    assert ap([True], 2) == pytest.approx(0.5)


def test_undefined_and_zero() -> None:
    assert math.isnan(ap([False], 0))
    assert ap([], 3) == 0.0
    assert ap([False, False], 3) == 0.0


@given(hits, st.integers(0, 5))
def test_equals_the_sum_over_positives_of_the_best_later_precision(true: list[bool], missed: int) -> None:
    n_positives = sum(true) + missed
    if n_positives == 0:
        return
    precisions = [sum(true[: k + 1]) / (k + 1) for k in range(len(true))]
    best = [max(precisions[k:]) for k in range(len(true)) if true[k]]
    assert ap(true, n_positives) == pytest.approx(sum(best) / n_positives)


@given(hits, st.data())
def test_moving_a_hit_before_a_miss_never_hurts(true: list[bool], data: st.DataObject) -> None:
    places = [k for k in range(len(true) - 1) if not true[k] and true[k + 1]]
    if not places:
        return
    k = data.draw(st.sampled_from(places))
    better = [*true[:k], True, False, *true[k + 2 :]]
    assert ap(better, sum(true)) >= ap(true, sum(true)) - 1e-12


@given(hits, st.integers(0, 5))
def test_trailing_misses_change_nothing_and_leading_ones_never_help(true: list[bool], missed: int) -> None:
    n_positives = sum(true) + missed
    if n_positives == 0:
        return
    assert ap([*true, False, False], n_positives) == ap(true, n_positives)
    assert ap([False, *true], n_positives) <= ap(true, n_positives) + 1e-12


@given(st.integers(1, 400))
def test_perfect_is_one(n: int) -> None:
    assert ap([True] * n, n) == pytest.approx(1.0, abs=1e-12)


@given(st.lists(st.booleans(), min_size=0, max_size=400), st.integers(2, 50))
def test_thinned_curve_keeps_the_ends(true: list[bool], points: int) -> None:
    n_positives = sum(true) + 1
    precision, recall = precision_and_recall(np.array(true, dtype=bool), n_positives)
    curve = thinned_curve(precision, recall, points)
    assert len(curve) == min(points, sum(true))
    assert curve == sorted(curve, key=lambda point: point[0])
    if curve:
        assert curve[-1][0] == pytest.approx(sum(true) / n_positives, abs=1e-4)
        assert curve[0][0] == pytest.approx(1 / n_positives, abs=1e-4)
