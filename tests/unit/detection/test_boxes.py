"""Overlap, normalisation, labels of detected boxes and detector quality."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from acar.detection.boxes import (
    boxes_table,
    detector_quality,
    in_order,
    iou_matrix,
    label_detected,
    select,
    to_norm,
    to_px,
)

LABEL_ROW = {"action_id": 1, "actor_id": "0"}
fractions = st.floats(0, 1, width=32)


@st.composite
def boxes_norm(draw, max_size: int = 5) -> np.ndarray:
    corners = draw(st.lists(st.tuples(fractions, fractions, fractions, fractions), max_size=max_size))
    box = np.array(corners, np.float64).reshape(-1, 4)
    low, high = np.minimum(box[:, :2], box[:, 2:]), np.maximum(box[:, :2], box[:, 2:])
    return np.concatenate([low, high], axis=1)


def labels_of(rows: list[tuple[str, float, list[float]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"video": video, "time_s": time_s, **dict(zip(["x1", "y1", "x2", "y2"], box)), **LABEL_ROW}
            for video, time_s, box in rows
        ],
        columns=["video", "time_s", "x1", "y1", "x2", "y2", "action_id", "actor_id"],
    )


def test_iou_by_hand():
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1]])
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(iou_matrix(a, b), [[1 / 7, 1, 0], [0, 1 / 4, 0]])


@settings(deadline=None)
@given(boxes_norm(), boxes_norm())
def test_iou_is_symmetric_bounded_and_one_with_itself(a, b):
    overlap = iou_matrix(a, b)
    assert overlap.shape == (len(a), len(b))
    assert ((overlap >= 0) & (overlap <= 1 + 1e-12)).all()
    np.testing.assert_array_equal(overlap, iou_matrix(b, a).T)
    own = np.diag(iou_matrix(a, a))
    has_area = (a[:, 2:] - a[:, :2]).prod(axis=1) > 0
    np.testing.assert_allclose(own, has_area.astype(float), atol=1e-9)


@settings(deadline=None)
@given(boxes_norm(), boxes_norm())
def test_iou_agrees_with_torchvision(a, b):
    theirs = box_iou(torch.from_numpy(a), torch.from_numpy(b)).nan_to_num(0.0).numpy()
    np.testing.assert_allclose(iou_matrix(a, b), theirs, atol=1e-9)


@settings(deadline=None)
@given(boxes_norm(), st.integers(1, 4000), st.integers(1, 4000))
def test_pixels_and_fractions_round_trip(boxes, width_px, height_px):
    there = to_px(boxes, width_px, height_px)
    assert (there[:, [0, 2]] <= width_px).all() and (there[:, [1, 3]] <= height_px).all()
    np.testing.assert_allclose(to_norm(there, width_px, height_px), boxes, atol=1e-12)


def test_norm_cuts_at_the_frame():
    np.testing.assert_array_equal(to_norm(np.array([[-5, 10, 50, 120]]), 100, 100), [[0, 0.1, 0.5, 1]])


def test_table_drops_boxes_without_area_and_orders():
    table = boxes_table(
        ["b", "a", "a", "a"],
        [1, 2, 1, 1],
        [[0, 0, 1, 1], [0, 0, 1, 1], [0.5, 0, 0.5, 1], [0, 0, 0.5, 1]],
        [0.1, 0.2, 0.3, 0.4],
    )
    kept = table[["video", "time_s", "score"]].to_numpy().tolist()
    assert kept == [["a", 1, 0.4], ["a", 2, 0.2], ["b", 1, 0.1]]
    empty = boxes_table([], [], [], [])
    assert len(empty) == 0 and list(empty.columns) == list(table.columns)
    assert (empty.dtypes == table.dtypes).all()


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)))
def test_order_does_not_depend_on_the_order_given(order):
    scores, boxes = [0.5, 0.5, 0.9, 0.1, 0.2, 0.3], [[0, 0, 0.1 * n, 1] for n in range(1, 7)]
    rows = boxes_table(["a"] * 6, [1, 1, 1, 2, 2, 2], boxes, scores)
    pd.testing.assert_frame_equal(in_order(rows.iloc[list(order)]), rows)
    assert rows["score"].tolist() == [0.9, 0.5, 0.5, 0.3, 0.2, 0.1]


def test_select_keeps_the_threshold_itself():
    rows = boxes_table(["a"] * 3, [1] * 3, [[0, 0, 1, 1]] * 3, [0.9, 0.85, 0.8])
    assert select(rows, 0.85)["score"].tolist() == [0.9, 0.85]


def test_detected_box_takes_the_labels_of_its_best_overlap():
    truth = np.array([[0, 0, 0.4, 1], [0.5, 0, 0.9, 1]])
    targets = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
    detected = np.array([[0.5, 0, 0.88, 1], [0.2, 0, 0.7, 1], [0, 0, 0.4, 1], [0.01, 0, 0.4, 1]])
    given_targets = label_detected(detected, truth, targets, 0.75)
    assert given_targets.dtype == np.uint8
    np.testing.assert_array_equal(given_targets, [[0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]])


@settings(deadline=None)
@given(boxes_norm(), boxes_norm(), st.floats(0.05, 1))
def test_labels_come_from_a_box_that_overlaps_enough(detected, truth, iou):
    targets = np.eye(len(truth), 7, dtype=np.uint8)
    given_targets = label_detected(detected, truth, targets, iou)
    overlap = iou_matrix(detected, truth)
    assert given_targets.shape == (len(detected), 7)
    for row, target in enumerate(given_targets):
        if target.any():
            source = int(target.argmax())
            assert overlap[row, source] == overlap[row].max() >= iou
        else:
            assert not len(truth) or overlap[row].max() < iou


def test_quality_by_hand():
    # Two persons; by score: hit, duplicate (miss), hit. Precision at recall 1/2 is 1, at 1 it is 2/3.
    labels = labels_of([("a", 1, [0, 0, 0.5, 1]), ("a", 1, [0, 0, 0.5, 1]), ("a", 2, [0.5, 0, 1, 1])])
    boxes = boxes_table(
        ["a", "a", "a", "a"],
        [1, 1, 2, 3],
        [[0, 0, 0.5, 1], [0, 0, 0.45, 1], [0.5, 0, 1, 0.9], [0, 0, 1, 1]],
        [0.9, 0.8, 0.7, 0.99],
    )
    quality = detector_quality(boxes, labels)
    assert quality["ap50"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert quality["recall50"] == 1.0
    assert (quality["n_boxes"], quality["n_ground_truth"]) == (3, 2)  # second 3 is not labelled
    assert quality["pr"] == [[0.5, 1.0], [0.5, 0.5], [1.0, pytest.approx(2 / 3)]]


def test_quality_second_best_overlap_may_be_claimed():
    labels = labels_of([("a", 1, [0, 0, 0.5, 1]), ("a", 1, [0.05, 0, 0.55, 1])])
    boxes = boxes_table(["a"] * 2, [1, 1], [[0, 0, 0.5, 1], [0, 0, 0.5, 0.99]], [0.9, 0.8])
    assert detector_quality(boxes, labels)["recall50"] == 1.0


def test_quality_without_boxes_or_persons():
    nothing = boxes_table([], [], [], [])
    labels = labels_of([("a", 1, [0, 0, 0.5, 1])])
    assert detector_quality(nothing, labels) == {
        "ap50": 0.0, "recall50": 0.0, "n_boxes": 0, "n_ground_truth": 1, "pr": []
    }  # fmt: skip
    assert detector_quality(nothing, labels_of([]))["ap50"] is None


def test_quality_keeps_at_most_101_points():
    box = [0, 0, 0.5, 1]
    labels = labels_of([("a", second, box) for second in range(300)])
    boxes = boxes_table(["a"] * 300, list(range(300)), [box] * 300, np.linspace(0.1, 1, 300))
    quality = detector_quality(boxes, labels)
    assert quality["ap50"] == pytest.approx(1.0)
    assert len(quality["pr"]) == 101 and quality["pr"][-1] == [1.0, 1.0]


def test_boxes_and_importing_do_not_load_torch():
    modules = "acar.detection.boxes, acar.detection.importing, acar.data.clips"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
