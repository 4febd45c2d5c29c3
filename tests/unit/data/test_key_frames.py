"""Training key frames against a plain loop, and where a detected box takes its labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from acar.config import BoxesConfig
from acar.data.key_frames import annotated_actors, training_key_frames
from acar.data.tables import ActionClass, LabelMap

LABEL_MAP = LabelMap((ActionClass(2, "stand", "pose"), ActionClass(5, "sit", "pose"), ActionClass(9, "talk")))
BOXES = [(0.1, 0.1, 0.3, 0.9), (0.5, 0.1, 0.8, 0.9), (0.1, 0.1, 0.3, 0.8)]
ROWS = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
    st.sampled_from(BOXES),
    st.sampled_from([2, 5, 7, 9, None]),
)


def labels(rows) -> pd.DataFrame:
    table = pd.DataFrame(
        [(v, float(t), *box, action) for v, t, box, action in rows],
        columns=["video", "time_s", "x1", "y1", "x2", "y2", "action_id"],
    )
    return table.astype({"action_id": "Int64", "time_s": float})


def by_loop(rows):
    """{(video, second): {box: set of columns}}."""
    found: dict = {}
    for video, second, box, action in rows:
        actions = found.setdefault((video, float(second)), {}).setdefault(box, set())
        if action in LABEL_MAP.index_of:
            actions.add(LABEL_MAP.index_of[action])
    return found


@given(st.lists(ROWS, min_size=1, max_size=25))
def test_actors_equal_a_plain_loop(rows):
    found, expected = annotated_actors(labels(rows), LABEL_MAP), by_loop(rows)
    assert list(found) == sorted(expected)
    for key, frame in found.items():
        assert (frame.video, frame.time_s) == key and frame.boxes_xyxy_norm.dtype == np.float32
        actors = {
            tuple(np.round(box.astype(float), 6)): set(np.flatnonzero(target))
            for box, target in zip(frame.boxes_xyxy_norm, frame.targets, strict=True)
        }
        assert actors == expected[key]


def detected(*rows) -> pd.DataFrame:
    table = pd.DataFrame(
        [(v, float(t), *box, score) for v, t, box, score in rows],
        columns=["video", "time_s", "x1", "y1", "x2", "y2", "score"],
    )
    return table.astype({"time_s": float})


def test_a_detected_box_takes_the_labels_of_the_box_it_overlaps():
    truth = labels([("a", 1, BOXES[0], 2), ("a", 1, BOXES[0], 9), ("b", 1, BOXES[1], 5)])
    near, far = (0.11, 0.1, 0.3, 0.9), (0.6, 0.1, 0.9, 0.9)
    boxes = detected(("a", 1, near, 0.95), ("a", 1, far, 0.95), ("a", 1, near, 0.5), ("a", 2, near, 0.99))
    frames = training_key_frames(truth, boxes, LABEL_MAP, BoxesConfig(train_score=0.9), {"a"})
    assert [(frame.video, frame.time_s) for frame in frames] == [("a", 1.0)]
    assert frames[0].boxes_xyxy_norm.shape == (3, 4)
    assert frames[0].targets.tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 0]]
    alone = training_key_frames(truth, boxes, LABEL_MAP, BoxesConfig(train_with_detected=False), {"a"})
    assert alone[0].targets.tolist() == [[1, 0, 1]]


def test_no_detected_box_at_all():
    truth = labels([("a", 1, BOXES[0], 2)])
    frames = training_key_frames(truth, detected(), LABEL_MAP, BoxesConfig(), {"a"})
    assert len(frames) == 1 and len(frames[0].targets) == 1
