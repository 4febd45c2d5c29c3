"""Which key frames the report shows, and attention over a window without rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from acar.data.key_frames import KeyFrame
from acar.report.examples import _supporting, pick_examples


def frame(video: str, second: int, *classes: int) -> tuple[tuple[str, float], KeyFrame]:
    targets = np.zeros((1, 5), np.uint8)
    targets[0, list(classes)] = 1
    return (video, float(second)), KeyFrame(video, float(second), np.zeros((1, 4), np.float32), targets)


def test_the_richest_key_frame_of_each_video_comes_first():
    truth = dict(
        [frame("a", 1, 0), frame("a", 2, 0, 1, 2), frame("a", 3, 0, 1), frame("b", 1, 4), frame("c", 1, 0, 1)]
    )
    chosen = pick_examples(truth, {"a", "b"}, 3)
    assert [(f.video, f.time_s) for f in chosen] == [("a", 2.0), ("b", 1.0), ("a", 3.0)]


def test_a_window_without_rows_has_no_supporting_actors():
    rows = SimpleNamespace(time_s=np.zeros(0), boxes=np.zeros((0, 4), np.float32))
    assert _supporting({}, np.zeros((1, 3, 4), np.float32), rows) == {}
