"""Ensembles of tables: by hand, against plain loops, what must not change, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acar.data.tables import DETECTION_COLUMNS
from acar.ensemble.average import weighted_mean
from acar.ensemble.combine import Settings, ensemble, normalised
from acar.errors import UserError

BOX, NEAR, FAR = (0.1, 0.1, 0.5, 0.9), (0.1004, 0.0996, 0.5, 0.901), (0.6, 0.1, 0.9, 0.9)
AVERAGE = Settings(unmatched="average")
LOGITS = Settings("logits", exclusive=(1, 2))
Row = tuple[str, float, tuple[float, ...], int, float]


def table(rows: Sequence[Row]) -> pd.DataFrame:
    frame = pd.DataFrame([(v, t, *box, a, s) for v, t, box, a, s in rows], columns=DETECTION_COLUMNS)
    kinds = {"video": "str", "action_id": np.int64, "time_s": float}
    return frame.astype(kinds | dict.fromkeys(["x1", "y1", "x2", "y2", "score"], float))


def one(*scores: float, box: tuple[float, ...] = BOX) -> pd.DataFrame:
    """One actor whose classes 1, 2, ... have the scores."""
    return table([("a", 902.0, box, number, score) for number, score in enumerate(scores, start=1)])


def micros(value: float) -> int:
    return round(value * 1e6)


def plain_actors(boxes: dict[tuple, set[int]]) -> dict[tuple, tuple]:
    """A name for each box of a key frame, the same for boxes of one actor."""
    group = {box: [box] for box in boxes}
    runs = {box: set(found) for box, found in boxes.items()}
    pairs = []
    for p in boxes:
        for q in boxes:
            difference = max(abs(x - y) for x, y in zip(p, q))
            if p < q and difference <= 1000:
                pairs.append((difference, p, q))
    for _, p, q in sorted(pairs):
        if group[p] is not group[q] and not runs[p] & runs[q]:
            joined, together = group[p] + group[q], runs[p] | runs[q]
            for box in joined:
                group[box], runs[box] = joined, together
    return {box: min(found) for box, found in group.items()}


def plain_rows(tables: Sequence[pd.DataFrame]) -> dict[tuple, dict[int, Any]]:
    """By (video, time, actor, occurrence, class): each run's row. In the order of the ensemble."""
    boxes: dict[tuple, dict[tuple, set[int]]] = {}
    for run, rows in enumerate(tables):
        for row in rows.itertuples():
            box = tuple(map(micros, (row.x1, row.y1, row.x2, row.y2)))
            boxes.setdefault((row.video, micros(row.time_s)), {}).setdefault(box, set()).add(run)
    actors = {frame: plain_actors(found) for frame, found in boxes.items()}
    shared: dict[tuple, dict[int, Any]] = {}
    for run, rows in enumerate(tables):
        for row in rows.itertuples():
            frame = (row.video, micros(row.time_s))
            actor = actors[frame][tuple(map(micros, (row.x1, row.y1, row.x2, row.y2)))]
            times = 0
            while run in shared.get((*frame, actor, times, row.action_id), {}):
                times += 1
            shared.setdefault((*frame, actor, times, row.action_id), {})[run] = row
    return shared


def plain_mean(values: dict[int, float], weights: Sequence[float]) -> float:
    return sum(weights[run] * value for run, value in values.items()) / sum(weights[run] for run in values)


def plain_ensemble(
    tables: Sequence[pd.DataFrame], weights: Sequence[float], how: Settings
) -> list[tuple[str, float, float, float, float, float, int, float]]:
    shared = plain_rows(tables)
    scores: dict[tuple, dict[int, float]] = {}
    for key, found in shared.items():
        scores[key] = {run: row.score for run, row in found.items()}
        if how.unmatched == "zero":
            scores[key] = {run: scores[key].get(run, 0.0) for run in range(len(tables))}
    rows = []
    for key, found in shared.items():
        first = found[min(found)]
        value = plain_value(key, scores, weights, how)
        rows.append(
            (first.video, first.time_s, first.x1, first.y1, first.x2, first.y2, first.action_id, value)
        )
    return rows


def plain_value(
    key: tuple, scores: dict[tuple, dict[int, float]], weights: Sequence[float], how: Settings
) -> float:
    if how.average == "scores":
        return plain_mean(scores[key], weights)
    inside = {
        k: {run: min(max(score, 1e-7), 1 - 1e-7) for run, score in found.items()}
        for k, found in scores.items()
    }
    if key[-1] not in how.exclusive:
        odds = {run: math.log(p / (1 - p)) for run, p in inside[key].items()}
        return 1 / (1 + math.exp(-plain_mean(odds, weights)))
    siblings = [k for k in inside if k[:-1] == key[:-1] and k[-1] in how.exclusive]
    logs = {k: plain_mean({run: math.log(p) for run, p in inside[k].items()}, weights) for k in siblings}
    softmax = math.exp(logs[key]) / sum(math.exp(value) for value in logs.values())
    carried = {
        run: math.log(sum(inside[k].get(run, 0.0) for k in siblings))
        for run in range(len(weights))
        if any(run in inside[k] for k in siblings)
    }
    return min(softmax * math.exp(plain_mean(carried, weights)), 1.0)


STEP = st.sampled_from([0, 0, 0, 400, 1000, 1001])
PLACE = st.sampled_from([(200_000, 100_000, 500_000, 900_000), (201_500, 100_000, 500_000, 900_000),
                         (700_000, 100_000, 900_000, 800_000)])  # fmt: skip
SCORE = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 10**6).map(lambda k: k / 1e6))


@st.composite
def a_table(draw: st.DrawFn) -> pd.DataFrame:
    """Few key frames, boxes near each other, rows that repeat; exclusive classes 1 and 2 at most .5 each."""
    box = st.tuples(PLACE, st.tuples(STEP, STEP, STEP, STEP)).map(
        lambda pair: tuple((edge + step) / 1e6 for edge, step in zip(*pair))
    )
    row = st.tuples(
        st.sampled_from("ab"), st.sampled_from([902.0, 903.5]), box, st.sampled_from([1, 2, 3]), SCORE
    )
    rows = draw(st.lists(row, min_size=1, max_size=14))
    return table([(v, t, b, a, round(s / 2, 6) if a < 3 else s) for v, t, b, a, s in rows])


WEIGHT = st.floats(0.01, 100)
RELAXED = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
HOW = st.builds(Settings, st.sampled_from(["scores", "logits"]), st.sampled_from(["average", "zero"]),
                st.sampled_from([(), (1, 2)]))  # fmt: skip


@RELAXED
@given(data=st.data(), tables=st.lists(a_table(), min_size=1, max_size=4), how=HOW)
def test_as_in_plain_loops(data: st.DataObject, tables: list[pd.DataFrame], how: Settings) -> None:
    weights = data.draw(st.lists(WEIGHT, min_size=len(tables), max_size=len(tables)))
    wanted = pd.DataFrame(plain_ensemble(tables, weights, how), columns=DETECTION_COLUMNS)
    found = ensemble(tables, weights, how)
    assert (
        found[DETECTION_COLUMNS[:-1]].to_numpy().tolist()
        == wanted[DETECTION_COLUMNS[:-1]].to_numpy().tolist()
    )
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=0, atol=5.1e-7)


@RELAXED
@given(rows=a_table(), weights=st.lists(WEIGHT, min_size=1, max_size=4), how=HOW)
def test_a_run_with_itself_is_itself(rows: pd.DataFrame, weights: list[float], how: Settings) -> None:
    refusing = Settings(how.average, "refuse", how.exclusive)
    pd.testing.assert_frame_equal(ensemble([rows] * len(weights), weights, refusing), rows, check_exact=True)


@RELAXED
@given(data=st.data(), tables=st.lists(a_table(), min_size=2, max_size=4), how=HOW)
def test_the_order_of_the_runs_changes_no_score(
    data: st.DataObject, tables: list[pd.DataFrame], how: Settings
) -> None:
    weights = data.draw(st.lists(WEIGHT, min_size=len(tables), max_size=len(tables)))
    order = data.draw(st.permutations(range(len(tables))))
    given_, permuted = (
        ensemble([tables[k] for k in places], [weights[k] for k in places], how)
        for places in (range(len(tables)), order)
    )
    rows = [
        sorted(found[["video", "time_s", "action_id", "score"]].to_numpy().tolist())
        for found in (given_, permuted)
    ]
    assert rows[0] == rows[1]


@RELAXED
@given(data=st.data(), rows=a_table(), decimals=st.sampled_from([3, 6]))
def test_a_shuffled_run_in_fewer_decimals_matches(
    data: st.DataObject, rows: pd.DataFrame, decimals: int
) -> None:
    edges = ["x1", "y1", "x2", "y2"]
    boxes = rows.assign(**{edge: rows[edge].round(2) for edge in edges})  # distinct ones now differ by .01
    boxes = boxes.drop_duplicates(DETECTION_COLUMNS[:-1], ignore_index=True)
    moved = boxes.assign(**{edge: boxes[edge] + data.draw(st.integers(-499, 499)) / 1e6 for edge in edges})
    other = moved.sample(frac=1, random_state=data.draw(st.integers(0, 99))).round(
        dict.fromkeys(edges, decimals)
    )
    pd.testing.assert_frame_equal(ensemble([boxes, other], [1, 3]), boxes, check_exact=True)


@RELAXED
@given(values=st.lists(st.tuples(st.floats(-20, 20), WEIGHT), min_size=2, max_size=6), data=st.data())
def test_the_order_of_the_runs_changes_no_bit(values: list[tuple[float, float]], data: st.DataObject) -> None:
    means = [
        weighted_mean(np.array([[value] for value, _ in runs]), np.array([weight for _, weight in runs]),
                      np.ones((len(runs), 1), dtype=bool))[0]
        for runs in (values, data.draw(st.permutations(values)))
    ]  # fmt: skip
    assert means[0] == means[1]
    plain = np.average([value for value, _ in values], weights=[weight for _, weight in values])
    assert means[0] == pytest.approx(plain, abs=1e-9)


def test_means_by_hand() -> None:
    scores = ensemble([one(0.9, 0.2), one(0.3, 0.6)], [2, 1])["score"]
    assert scores.tolist() == [0.7, 0.333333]
    # odds 9 and 1: the mean log-odds are log 3
    assert ensemble([one(0.9), one(0.5)], None, Settings("logits"))["score"].tolist() == [0.75]
    # softmax of (log .8 + log .5) / 2 and (log .2 + log .5) / 2 is 2 : 1; class 3 is by itself
    together = ensemble([one(0.8, 0.2, 0.9), one(0.5, 0.5, 0.5)], None, LOGITS)
    assert together["score"].tolist() == [0.666667, 0.333333, 0.75]
    # twice the weight is the run twice
    twice = [ensemble(runs, weights, LOGITS) for runs, weights in (
        ([one(0.8, 0.2), one(0.5, 0.5)], [2, 1]), ([one(0.8, 0.2), one(0.8, 0.2), one(0.5, 0.5)], None))]  # fmt: skip
    pd.testing.assert_frame_equal(twice[0], twice[1], check_exact=True)


def test_exclusive_rows_that_a_file_leaves_out_take_no_share() -> None:
    """Both files drop poses below .1: what is left sums to .9 and .8, and does not become 1."""
    runs = [one(0.6, 0.3), one(0.6, 0.2)]
    scores = ensemble(runs, None, LOGITS)["score"].to_numpy()
    assert scores.sum() == pytest.approx(math.sqrt(0.9 * 0.8), abs=1e-6)
    assert scores[0] / scores[1] == pytest.approx(math.sqrt(2 * 3), abs=1e-5)


def test_a_rounded_zero_is_no_veto() -> None:
    score = ensemble([one(0.0), one(0.999999)], None, Settings("logits"))["score"][0]
    assert score == pytest.approx(0.24025, abs=1e-4)  # odds 1e-7 and 1e6
    assert ensemble([one(0.0, 1.0)], None, LOGITS)["score"].tolist() == [0.0, 1.0]
    assert ensemble([one(0.0), one(1.0)], None, Settings("logits"))["score"].tolist() == [0.5]


def test_boxes_that_rounding_moved_are_the_first_runs() -> None:
    found = ensemble([one(0.4), one(0.8, box=NEAR)])
    assert found.to_numpy().tolist() == [["a", 902.0, *BOX, 1, 0.6]]
    swapped = ensemble([one(0.8, box=NEAR), one(0.4)])
    assert swapped.to_numpy().tolist() == [["a", 902.0, *NEAR, 1, 0.6]]


def test_the_same_box_is_taken_before_a_near_one() -> None:
    """The second run has one of the first's two boxes, and one that is nearer to it than to the other."""
    low, high = (0.1, 0.1, 0.5, 0.9), (0.1005, 0.1, 0.5, 0.9)
    first = table([("a", 902.0, low, 1, 0.1), ("a", 902.0, high, 1, 0.2)])
    other = table([("a", 902.0, (0.1002, 0.1, 0.5, 0.9), 1, 0.6), ("a", 902.0, low, 1, 0.5)])
    assert ensemble([first, other])["score"].tolist() == [0.3, 0.4]


def test_boxes_further_apart_are_two_actors() -> None:
    apart = (0.101001, *BOX[1:])
    assert len(ensemble([one(0.4), one(0.8, box=(0.101, *BOX[1:]))])) == 1
    assert len(ensemble([one(0.4), one(0.8, box=apart)], settings=AVERAGE)) == 2
    inside_one_run = table([("a", 902.0, BOX, 1, 0.1), ("a", 902.0, NEAR, 1, 0.2)])
    assert ensemble([inside_one_run, inside_one_run])["score"].tolist() == [0.1, 0.2]


def test_repeated_rows_go_with_repeated_rows() -> None:
    runs = [table([("a", 902.0, BOX, 1, score) for score in scores]) for scores in ((0.1, 0.5), (0.3, 0.9))]
    assert ensemble(runs)["score"].tolist() == [0.2, 0.7]


def test_rows_that_a_run_lacks() -> None:
    runs = [
        table([("a", 902.0, BOX, 1, 0.4), ("b", 902.0, BOX, 1, 0.6)]),
        table([("c", 1.5, FAR, 1, 0.8), ("a", 902.0, BOX, 1, 0.1), ("a", 903.0, BOX, 1, 0.2)]),
    ]
    averaged = ensemble(runs, [1, 3], AVERAGE)
    assert averaged[["video", "time_s"]].to_numpy().tolist() == [
        ["a", 902],
        ["b", 902],
        ["c", 1.5],
        ["a", 903],
    ]
    assert averaged["score"].tolist() == [0.175, 0.6, 0.8, 0.2]
    assert ensemble(runs, [1, 3], Settings(unmatched="zero"))["score"].tolist() == [0.175, 0.15, 0.6, 0.15]
    with pytest.raises(UserError) as refusal:
        ensemble(runs, names=["mine.csv", "yours.csv"])
    told = str(refusal.value)
    assert told.startswith(
        "yours.csv: no row for one of mine.csv (video b, second 0902, box 0.1,0.1,0.5,0.9, class 1)"
    )
    assert "in all 3 row(s)" in told and "--unmatched average" in told and "--unmatched zero" in told
    with pytest.raises(UserError, match=r"run 2: no row for one of run 1 \(video c, second 1\.5, box 0\.6,"):
        ensemble(runs[::-1])


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ([1.0], "1 for 2 run"),
        ([1.0, 2.0, 3.0], "3 for 2 run"),
        ([1.0, 0.0], "expected numbers above 0"),
        ([1.0, -1.0], "expected numbers above 0"),
        ([math.nan, 1.0], "weights nan 1: expected numbers above 0"),
        ([1.0, math.inf], "expected numbers above 0"),
        ([1e300, 1e-300], "the least is lost"),
    ],
)
def test_weights_are_checked(weights: list[float], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        ensemble([one(0.5), one(0.5)], weights)


def test_weights_of_any_sum() -> None:
    assert normalised([2, 1, 1], 3).tolist() == [0.5, 0.25, 0.25]
    assert normalised([1e308, 1e308], 2).tolist() == [0.5, 0.5]
    assert normalised(None, 4).tolist() == [0.25] * 4
    with pytest.raises(UserError, match="no run"):
        ensemble([])


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (table([]), "run 2: no rows"),
        (
            one(0.5, 1.5),
            r"run 2, row 2 \(video a, second 0902, class 2\): score is 1.5; expected a probability",
        ),
        (one(-3.0, 0.5), r"row 1 .*logits.*1 such row"),
        (one(math.nan, 0.5), "row 1 .*score is nan"),
        (one(0.5), r"run 2: no row of 1 class\(es\) that run 1 has \(2\)"),
        (one(0.5, 0.5, 0.5), r"run 1: no row of 1 class\(es\) that run 2 has \(3\)"),
        (one(0.5, 0.5, box=FAR), "run 2: no row for one of run 1 .* in all 4 row"),
    ],
)
def test_runs_that_do_not_fit_are_refused(second: pd.DataFrame, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        ensemble([one(0.5, 0.5), second])


def test_exclusive_classes_by_sigmoid_are_refused() -> None:
    runs = [one(0.5, 0.5), one(0.7, 0.8)]
    with pytest.raises(UserError, match=r"run 2: .*video a, second 0902, box 0.1,0.1,0.5,0.9\) sum to 1.50"):
        ensemble(runs, None, LOGITS)
    assert (
        len(ensemble(runs, None, Settings("logits")))
        == len(ensemble(runs, None, Settings(exclusive=(1, 2))))
        == 2
    )


def test_float32_rounding_is_no_mistake() -> None:
    assert ensemble([one(1.0000001, -1e-9)])["score"].tolist() == [1.0, 0.0]


def test_many_runs() -> None:
    """More than a machine word has bits, each with a box of its own within rounding."""
    runs = [one(number / 100, box=(0.1 + number / 1e6, 0.1, 0.5, 0.9)) for number in range(70)]
    assert ensemble(runs).to_numpy().tolist() == [["a", 902.0, *BOX, 1, 0.345]]
