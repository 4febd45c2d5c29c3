"""Seconds, frame numbers and clips, at the borders too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from acar.data.clips import clip_indices, frame_index, keyframe_seconds

VIDEO = {"start_s": 900.0, "fps": 30.0, "n_frames": 27_030}


def test_ava_key_frames():
    seconds = keyframe_seconds(VIDEO, (902, 1798))
    assert seconds == list(range(902, 1799))  # 897 key frames
    assert frame_index(VIDEO, 902) == 60
    assert keyframe_seconds(VIDEO, None) == list(range(900, 1801))


@pytest.mark.parametrize(
    ("start_s", "fps", "n_frames", "expected"),
    [
        (0.0, 10.0, 240, list(range(24))),
        (0.0, 10.0, 241, list(range(25))),
        (0.5, 10.0, 10, [1]),
        (0.5, 10.0, 5, []),
        (-0.04, 25.0, 2, [0]),
        (3.01, 25.0, 1, [3]),  # 3 s is a quarter of a frame before the first: that frame is nearest
        (0.0, 1.0, 3, [0, 1, 2]),
    ],
)
def test_whole_seconds_with_a_frame(start_s, fps, n_frames, expected):
    assert keyframe_seconds({"start_s": start_s, "fps": fps, "n_frames": n_frames}, None) == expected


@pytest.mark.parametrize(
    ("time_s", "frame"),
    [
        (8.341666, 208),
        (8.359, 208),
        (8.36, 209),
        (8.38, 210),
        (8.3, 208),
        (8.0, 200),
        (-0.01, 0),
        (-0.03, -1),
    ],
)
def test_the_last_frame_is_shown_until_the_video_ends(time_s, frame):
    """251 frames of 30000/1001 a second, ingested at 25: 209 frames, the last of which begins at 8.32 s."""
    assert frame_index({"start_s": 0.0, "fps": 25.0, "n_frames": 209}, time_s) == frame


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(1, 120), st.floats(0.5, 240), st.integers(0, 1000))
def test_every_frame_of_a_source_has_one_of_the_ingested(n_frames, rate, fps_by_rate, start_s):
    """The time of the source's last frame, at any ingest rate above half of the source's."""
    fps = max(fps_by_rate, 0.6 * rate)
    n_ingested = max(1, round(n_frames / rate * fps))
    record = {"start_s": float(start_s), "fps": fps, "n_frames": n_ingested}
    assert 0 <= frame_index(record, start_s + (n_frames - 1) / rate) < n_ingested


@settings(deadline=None)
@given(st.floats(-5, 50), st.floats(0.5, 60), st.integers(1, 300), st.floats(-10, 60), st.floats(0, 30))
def test_key_frames_are_exactly_the_seconds_with_frames_in_the_span(start_s, fps, n_frames, low_s, length_s):
    video = {"start_s": start_s, "fps": fps, "n_frames": n_frames}
    high_s = low_s + length_s
    places = {t: (t - start_s) * fps for t in range(-20, 700)}
    with_frame = [
        t for t, place in places.items() if 0 <= round(place) < n_frames or n_frames - 1 < place < n_frames
    ]
    assume(all(abs(place - n_frames) > 0.01 for place in places.values()))  # at its very end rounding decides
    assert keyframe_seconds(video, None) == with_frame
    assert keyframe_seconds(video, (low_s, high_s)) == [t for t in with_frame if low_s <= t <= high_s]


def test_clip_by_hand():
    assert clip_indices(60, 100, 8, 2).tolist() == [52, 54, 56, 58, 60, 62, 64, 66]
    assert clip_indices(2, 100, 8, 2).tolist() == [0, 0, 0, 0, 2, 4, 6, 8]
    assert clip_indices(97, 100, 5, 3).tolist() == [91, 94, 97, 99, 99]


@settings(deadline=None)
@given(st.integers(-10, 400), st.integers(1, 300), st.integers(1, 40), st.integers(1, 8))
def test_clip_is_centred_even_and_inside(center, n_frames, frames, stride):
    indices = clip_indices(center, n_frames, frames, stride)
    assert indices.dtype == np.int64 and indices.shape == (frames,)
    assert indices.min() >= 0 and indices.max() <= n_frames - 1
    assert indices[frames // 2] == min(max(center, 0), n_frames - 1)
    inner = (indices > 0) & (indices < n_frames - 1)
    steps = np.diff(indices)
    assert ((steps >= 0) & (steps <= stride)).all()
    assert (steps[inner[1:] & inner[:-1]] == stride).all()
