"""Frame-mAP against loops, and its corners."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_frames import plain_frame_ap, plain_iou, rows_of

from acar.errors import UserError
from acar.evaluation.frame_map import frame_map
from acar.evaluation.frame_protocols import PROTOCOLS, overlaps

COLUMNS = ["video", "frame", "x1", "y1", "x2", "y2", "label"]
side = st.integers(0, 6)
box = st.tuples(side, side, st.integers(1, 6), st.integers(1, 6)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
place = st.tuples(st.sampled_from("ab"), st.integers(1, 2), box, st.integers(0, 2))
places = st.lists(place, max_size=12)


def table(found: list) -> pd.DataFrame:
    rows = [(video, frame, *map(float, box), label) for video, frame, box, label in found]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"frame": np.int64, "label": np.int64})


def scored(found: list, order: list[int]) -> pd.DataFrame:
    """Distinct scores: what ties do is another test's matter."""
    return table(found).assign(score=[1 / (1 + k) for k in order])


@settings(max_examples=80)
@given(
    places,
    places,
    st.randoms(use_true_random=False),
    st.sampled_from(sorted(PROTOCOLS)),
    st.sampled_from([0.3, 0.5]),
)
def test_every_protocol_agrees_with_loops(truth, found, random, name, iou) -> None:
    order = list(range(len(found)))
    random.shuffle(order)
    truth_table, detections, protocol = table(truth), scored(found, order), PROTOCOLS[name]
    expected = [
        plain_frame_ap(rows_of(truth_table), rows_of(detections), label, iou, protocol.pixel, protocol.remaining,
                       protocol.trapezoid)
        for label in range(3)
    ]  # fmt: skip
    impossible = any(ap is None and (detections["label"] == label).any() for label, ap in enumerate(expected))
    if protocol.trapezoid and impossible:
        with pytest.raises(UserError, match="divides by zero"):
            frame_map(truth_table, detections, list("xyz"), protocol, iou)
        return
    result = frame_map(truth_table, detections, list("xyz"), protocol, iou)
    absent = 0.0 if protocol.over_all else np.nan
    wanted = [absent if ap is None else ap for ap in expected]
    np.testing.assert_allclose(result.ap, wanted, atol=1e-6 if protocol.single else 1e-12)
    counted = [ap for ap in wanted if not np.isnan(ap)]
    assert result.mean_ap == pytest.approx(np.mean(counted) if counted else np.nan, abs=1e-6, nan_ok=True)
    assert result.positives.tolist() == [int((truth_table["label"] == label).sum()) for label in range(3)]


@given(box, box, st.sampled_from([0.0, 1.0]))
def test_overlap_agrees_with_loops(a, b, pixel) -> None:
    pair = np.array([a], float), np.array([b], float)
    assert overlaps(*pair, pixel)[0] == pytest.approx(plain_iou(a, b, pixel), abs=1e-15)


def test_an_overlap_of_exactly_one_half_counts() -> None:
    truth, found = [("a", 1, (0, 0, 4, 2), 0)], [("a", 1, (0, 0, 4, 1), 0)]
    for name, ap in {"mmaction2_multisports": 1.0, "yowo_padilla": 1.0, "road_gurkirt": 1.0}.items():
        assert frame_map(table(truth), scored(found, [0]), ["x"], PROTOCOLS[name]).ap[0] == ap


def test_a_second_claim_is_false_or_falls_back() -> None:
    truth = [("a", 1, (0, 0, 10, 10), 0), ("a", 1, (0, 0, 10, 8), 0)]
    found = [("a", 1, (0, 0, 10, 10), 0), ("a", 1, (0, 0, 10, 10), 0)]
    tables = table(truth), scored(found, [0, 1])
    assert frame_map(*tables, ["x"], PROTOCOLS["mmaction2_multisports"]).ap[0] == 0.5
    assert frame_map(*tables, ["x"], PROTOCOLS["road_gurkirt"]).ap[0] == 1.0


def test_equal_scores_count_in_the_order_given() -> None:
    truth = table([("a", 1, (0, 0, 4, 4), 0)])
    hit, miss = ("a", 1, (0, 0, 4, 4), 0), ("a", 1, (9, 9, 12, 12), 0)
    protocol = PROTOCOLS["mmaction2_multisports"]
    first = frame_map(truth, table([hit, miss]).assign(score=0.5), ["x"], protocol)
    last = frame_map(truth, table([miss, hit]).assign(score=0.5), ["x"], protocol)
    assert (first.ap[0], last.ap[0]) == (1.0, 0.5)


def test_nothing_detected() -> None:
    result = frame_map(table([("a", 1, (0, 0, 4, 4), 0)]), scored([], []), ["x", "y"], PROTOCOLS["moc_act"])
    assert result.ap.tolist() == [0.0, 0.0] and result.mean_ap == 0.0 and result.curves == [[], []]
