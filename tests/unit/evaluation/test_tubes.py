"""Linking, trimming and the overlap of tubes against loops, and the rules one by one."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_frames import plain_link, plain_tube_iou, rows_of

from acar.errors import UserError
from acar.evaluation.tubes import LinkSettings, Tube, action_parts, link, truth_tubes, tube_overlap

COLUMNS = ["video", "frame", "x1", "y1", "x2", "y2", "label", "score"]
LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)


def detections(*rows: tuple) -> pd.DataFrame:
    """Rows of frame, box, score, of one video and class."""
    found = [("a", frame, *box, 0, score) for frame, box, score in rows]
    return pd.DataFrame(found, columns=COLUMNS).astype({"frame": np.int64, "label": np.int64})


def linked(table: pd.DataFrame, **changed: float | None) -> list[tuple[list[int], float]]:
    return [(tube.frames.tolist(), round(tube.score, 6)) for tube in link(table, LinkSettings(**changed))]


def test_two_actors_keep_apart() -> None:
    table = detections((1, LEFT, 0.9), (1, RIGHT, 0.8), (2, RIGHT, 0.7), (2, LEFT, 0.5))
    assert linked(table) == [([1, 2], 0.7), ([1, 2], 0.75)]


def test_the_better_tube_chooses_first_and_takes_the_best_scored_box() -> None:
    middle, near = (2.0, 0.0, 12.0, 10.0), (7.0, 0.0, 17.0, 10.0)
    table = detections((1, (0.0, 0.0, 10.0, 10.0), 0.9), (1, (5.0, 0.0, 15.0, 10.0), 0.3), (2, middle, 0.2),
                       (2, near, 0.8))  # fmt: skip
    first, second = link(table, LinkSettings())
    assert first.boxes[1].tolist() == list(near) and second.boxes[1].tolist() == list(middle)


def test_a_tube_ends_after_the_gap() -> None:
    still = detections((1, LEFT, 0.8), (7, LEFT, 0.4))
    assert linked(still, gap_frames=5) == [([1], 0.8), ([7], 0.4)]
    assert linked(still, gap_frames=6) == [([1, 2, 3, 4, 5, 6, 7], 0.6)]


def test_what_is_missing_inside_is_held() -> None:
    moved = (1.0, 0.0, 11.0, 10.0)
    (tube,) = link(detections((1, LEFT, 0.8), (3, moved, 0.8)), LinkSettings())
    assert tube.boxes.tolist() == [list(LEFT), list(LEFT), list(moved)]


def test_frames_of_a_step_are_neighbours() -> None:
    table = detections(*((frame, LEFT, 0.5) for frame in (1, 7, 19)))
    assert linked(table, step=6, gap_frames=1) == [([1, 7], 0.5), ([19], 0.5)]
    assert linked(table, step=6, gap_frames=2) == [([1, 7, 13, 19], 0.5)]


def test_a_gap_that_holds_more_than_is_found_is_refused_before_it_is_filled() -> None:
    # Were it filled, it would be 2 million boxes: enough to tell, and not enough to harm.
    table = detections((1, LEFT, 0.8), (2_000_001, LEFT, 0.4))
    assert linked(table, gap_frames=5) == [([1], 0.8), ([2_000_001], 0.4)]
    with pytest.raises(
        UserError, match=r"video a, label 0: .* between frames 1 and 2000001; --gap 3000000 .* 1999999"
    ):
        link(table, LinkSettings(gap_frames=3_000_000))


def test_what_may_be_held_counts_all_tubes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acar.evaluation.tubes.LEAST_HELD", 0)
    monkeypatch.setattr("acar.evaluation.tubes.HELD_PER_BOX", 2)
    rows = [(1, LEFT, 0.9), (1, RIGHT, 0.8), (6, LEFT, 0.9), (6, RIGHT, 0.8)]
    assert len(linked(detections(*rows), gap_frames=5)) == 2  # twice 4 held, of 4 boxes
    rows = [(frame, LEFT, 0.9) for frame in (1, 6, 11)]  # again 4 each, of 3 boxes
    with pytest.raises(UserError, match=r"between frames 6 and 11; --gap 5 would hold its last one 4 times"):
        link(detections(*rows), LinkSettings(gap_frames=5))


def test_suppression_and_the_number_of_boxes() -> None:
    shifted = (1.0, 0.0, 11.0, 10.0)
    table = detections((1, LEFT, 0.9), (1, shifted, 0.8), (1, RIGHT, 0.7))
    assert linked(table) == [([1], 0.9), ([1], 0.7)]
    assert linked(table, nms_iou=1.0) == [([1], 0.9), ([1], 0.8), ([1], 0.7)]
    assert linked(table, nms_iou=1.0, top_boxes=1) == [([1], 0.9)]
    assert linked(table, min_score=0.75) == [([1], 0.9)]


def test_short_tubes_and_background_go() -> None:
    rows = [(1, LEFT, 0.1), (2, LEFT, 0.9), (3, LEFT, 0.9), (4, LEFT, 0.1), (1, RIGHT, 0.9)]
    assert linked(detections(*rows), min_frames=2) == [([1, 2, 3, 4], 0.5)]
    assert linked(detections(*rows), switch_cost=0.2, min_frames=2) == [([2, 3], 0.9)]


frame_box = st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(2, 5)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + 3))
)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 8), frame_box), max_size=14),
    st.randoms(use_true_random=False),
    st.integers(1, 4), st.sampled_from([0.3, 0.45, 1.0]), st.sampled_from([0.1, 0.4]), st.integers(1, 4),
)  # fmt: skip
def test_linking_agrees_with_loops(rows, random, top, nms, least, gap) -> None:
    # Powers of two: no two sets of scores have one mean, which would leave the order open.
    scores = [2.0**-k for k in range(len(rows))]
    random.shuffle(scores)
    table = detections(*((frame, box, score) for (frame, box), score in zip(rows, scores)))
    expected = plain_link(rows_of(table), top, nms, least, gap)
    found = link(table, LinkSettings(top_boxes=top, nms_iou=nms, link_iou=least, gap_frames=gap))
    as_items = [(tube.frames.tolist(), tube.boxes.tolist(), round(tube.score, 12)) for tube in found]
    wanted = [
        (sorted(tube["boxes"]), [tube["boxes"][frame] for frame in sorted(tube["boxes"])],
         round(sum(tube["scores"]) / len(tube["scores"]), 12))
        for tube in expected
    ]  # fmt: skip
    assert sorted(as_items) == sorted(wanted)


@given(st.lists(st.integers(0, 64), min_size=1, max_size=7), st.integers(0, 96))
def test_trimming_is_the_best_of_all_labellings(scores, cost) -> None:
    values, switch = [score / 64 for score in scores], cost / 64  # exact in binary

    def energy(labels: tuple[int, ...]) -> float:
        changes = sum(a != b for a, b in pairwise(labels))
        return sum(s if label else 1 - s for s, label in zip(values, labels)) - switch * changes

    parts = action_parts(np.array(values), switch)
    labels = tuple(int(any(part.start <= t < part.stop for part in parts)) for t in range(len(values)))
    assert energy(labels) == max(energy(other) for other in product((0, 1), repeat=len(values)))


span = st.tuples(st.integers(1, 6), st.lists(frame_box, min_size=1, max_size=6))


@given(span, span, st.sampled_from([0.0, 1.0]))
def test_tube_overlap_is_time_times_space(a, b, pixel) -> None:
    as_dict = [{start + k: list(box) for k, box in enumerate(boxes)} for start, boxes in (a, b)]
    tubes = [Tube("v", 0, np.array(list(item)), np.array(list(item.values()))) for item in as_dict]
    expected = plain_tube_iou(*as_dict, pixel)
    assert tube_overlap(*tubes, pixel) == pytest.approx(expected, abs=1e-12)
    assert tube_overlap(tubes[1], tubes[0], pixel) == pytest.approx(expected, abs=1e-12)


def test_the_annotated_tubes_of_a_table() -> None:
    rows = [
        ("b", 2, *LEFT, 1, "x"),
        ("b", 1, *RIGHT, 1, "x"),
        ("b", 1, *LEFT, 1, "y"),
        ("a", 5, *LEFT, 0, "x"),
    ]
    found = truth_tubes(pd.DataFrame(rows, columns=[*COLUMNS[:-1], "tube"]))
    assert [(tube.video, tube.label, tube.frames.tolist()) for tube in found] == [
        ("a", 0, [5]), ("b", 1, [1, 2]), ("b", 1, [1]),
    ]  # fmt: skip
    assert found[1].boxes.tolist() == [list(RIGHT), list(LEFT)]


def test_an_annotated_tube_has_one_box_a_frame() -> None:
    rows = [("a", 1, *LEFT, 0, "x"), ("a", 1, *RIGHT, 0, "x")]
    with pytest.raises(UserError, match="video a, frame 1, label 0: tube 'x' has two boxes there"):
        truth_tubes(pd.DataFrame(rows, columns=[*COLUMNS[:-1], "tube"]))
