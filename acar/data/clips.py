"""Seconds, frame numbers and the frames of a clip. Times are source seconds, indices count from frame 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

END_SLACK = 1e-3  # of a frame: a video's end, up to rounding, is not inside of it


def frame_index(video: Mapping[str, Any], time_s: float) -> int:
    """Frame of the ingested video that is nearest to source time `time_s`; may lie outside 0..n_frames-1.

    The last frame is shown until the video ends, 1 / fps after it begins: there is no later one to be nearer. So a
    label of the source's own last frame has a frame, whatever the two rates are.

    Args:
        video: a row of the videos table, with `start_s` (source time of frame 0), `fps` and `n_frames`.
        time_s: source time, seconds.
    """
    return int(frames_at(video, time_s))


def frames_at(video: Mapping[str, Any], time_s: Any) -> np.ndarray:
    """As `frame_index`, of an array of times: float64 of its shape."""
    return frame_indices(time_s, float(video["start_s"]), float(video["fps"]), int(video["n_frames"]))


def frame_indices(time_s: Any, start_s: Any, fps: Any, n_frames: Any) -> np.ndarray:
    """As `frame_index`, of arrays that fit each other: float64, NaN where an argument is."""
    place = (np.asarray(time_s, dtype=float) - start_s) * fps
    frame = np.rint(place)
    return np.where((frame == n_frames) & (place < n_frames - END_SLACK), frame - 1, frame)


def keyframe_seconds(video: Mapping[str, Any], span_s: tuple[float, float] | None) -> list[int]:
    """Whole seconds whose frame exists, in order; the bank has rows at every one of them (paper section 3.3).

    Args:
        video: a row of the videos table, with `start_s`, `fps` and `n_frames`.
        span_s: first and last second allowed (both included), or None for the whole video.
    """
    last_frame = int(video["n_frames"]) - 1
    half_frame_s = 0.5 / float(video["fps"])
    first_s = math.floor(float(video["start_s"]) - half_frame_s)
    last_s = math.ceil(float(video["start_s"]) + last_frame / float(video["fps"]) + half_frame_s)
    low_s, high_s = span_s if span_s is not None else (-math.inf, math.inf)
    seconds = np.arange(first_s, last_s + 1)
    frame = frames_at(video, seconds)
    shown = (low_s <= seconds) & (seconds <= high_s) & (frame >= 0) & (frame <= last_frame)
    return [int(second) for second in seconds[shown]]


def clip_indices(center: int, n_frames: int, frames: int, stride: int) -> np.ndarray:
    """Frame numbers of the clip around frame `center`: int64 (frames,), within 0..n_frames-1.

    Step i shows frame center + (i - frames // 2) * stride; beyond the ends the border frame is repeated.
    """
    assert n_frames > 0 and frames > 0 and stride > 0, (n_frames, frames, stride)
    steps = (np.arange(frames, dtype=np.int64) - frames // 2) * stride
    return np.clip(center + steps, 0, n_frames - 1)
