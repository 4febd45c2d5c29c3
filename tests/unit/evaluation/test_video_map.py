"""Video-mAP against loops, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_frames import plain_ap, plain_hits, plain_tube_iou

from acar.errors import UserError
from acar.evaluation.frame_protocols import PROTOCOLS
from acar.evaluation.tubes import Tube
from acar.evaluation.video_map import COCO_THRESHOLDS, mean_over_thresholds, video_map

BOX = np.array([0.0, 0.0, 10.0, 10.0])


def tube(
    video: str, first: int, last: int, score: float = 1.0, label: int = 0, box: np.ndarray = BOX
) -> Tube:
    frames = np.arange(first, last + 1)
    return Tube(video, label, frames, np.tile(box, (len(frames), 1)), score)


def test_by_hand() -> None:
    """8 of 10 frames: an overlap of 0.8, a hit at up to 0.8; a tube elsewhere outscores it."""
    truth = [tube("a", 1, 10)]
    found = [tube("a", 3, 10, 0.5), tube("b", 1, 10, 0.9)]
    result = video_map(truth, found, ["x", "y"], PROTOCOLS["mmaction2_multisports"])
    assert [result[t].mean_ap for t in (0.2, 0.5, 0.75)] == [0.5, 0.5, 0.5]
    assert np.isnan(result[0.2].ap[1]) and result[0.2].positives.tolist() == [1, 0]
    assert result[0.8].mean_ap == 0.5 and result[0.85].mean_ap == 0.0
    assert mean_over_thresholds(result) == pytest.approx(0.5 * 7 / 10)
    road = video_map(truth, found, ["x", "y"], PROTOCOLS["road_gurkirt"])
    assert road[0.5].mean_ap == 0.25


def test_the_coco_thresholds() -> None:
    assert COCO_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_no_tube_at_all() -> None:
    result = video_map([tube("a", 1, 2)], [], ["x"], PROTOCOLS["mmaction2_multisports"])
    assert {value.mean_ap for value in result.values()} == {0.0}
    with pytest.raises(UserError, match="divides by zero"):
        video_map([], [tube("a", 1, 2)], ["x"], PROTOCOLS["moc_act"])


spans = st.tuples(
    st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 5), st.integers(0, 4), st.integers(0, 1)
)


@settings(max_examples=60)
@given(
    st.lists(spans, max_size=5), st.lists(spans, max_size=7), st.randoms(use_true_random=False),
    st.sampled_from(["mmaction2_multisports", "yowo_padilla", "road_gurkirt"]), st.sampled_from([0.2, 0.5, 0.75]),
)  # fmt: skip
def test_agrees_with_loops(truth, found, random, name, threshold) -> None:
    def made(item: tuple, score: float) -> Tube:
        video, first, length, x, label = item
        return tube(video, first, first + length, score, label, BOX + np.array([x, 0, x, 0]))

    scores = [1 / (1 + k) for k in range(len(found))]
    random.shuffle(scores)
    protocol = PROTOCOLS[name]
    truths, tubes = [made(item, 1.0) for item in truth], [made(*pair) for pair in zip(found, scores)]
    result = video_map(truths, tubes, ["x", "y"], protocol, [threshold])[threshold]
    for label in (0, 1):
        own = [item for item in truths if item.label == label]
        scored = [
            (item.score, [(k, plain_tube_iou(frames(other), frames(item), protocol.pixel))
                          for k, other in enumerate(own) if other.video == item.video])
            for item in tubes if item.label == label
        ]  # fmt: skip
        if own:
            expected = plain_ap(plain_hits(scored, threshold, protocol.remaining), len(own), False)
            assert result.ap[label] == pytest.approx(expected, abs=1e-6)
        else:
            assert result.ap[label] == 0.0 if protocol.over_all else np.isnan(result.ap[label])


def frames(item: Tube) -> dict[int, list[float]]:
    return dict(zip(item.frames.tolist(), item.boxes.tolist()))
