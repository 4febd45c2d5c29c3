"""Which times an ingested video shows: one rule for `ingest`, `detect` and `check-data`. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from acar.config import Config
from acar.data.clips import frame_index, frame_indices

# Missing or damaged material is concealed (frames are repeated) up to a second, or a twentieth of the video.
LOST_S, LOST_SHARE = 1.0, 0.05


def cut_of(config: Config) -> tuple[float, float | None]:
    """First and last second that ingest keeps; (0, None) for the whole video."""
    if config.data.span_s is None:
        return 0.0, None
    first_s, last_s = config.data.span_s
    return max(0.0, first_s - config.ingest.margin_s), last_s + config.ingest.margin_s


def most_lost_s(length_s: float) -> float:
    """Seconds that may be missing of a video of `length_s`; with more it is truncated or damaged."""
    return max(LOST_S, LOST_SHARE * length_s)


def folder_start_s(config: Config, n_frames: int, fps: float, last_labelled_s: float) -> float:
    """Source time of a frame folder's first image.

    That is second 0. Only if the labels do not fit that and `data.span_s` is set, the folder is taken for the cut
    that ingest itself would make: it begins `margin_s` before the span (AVA: at 900 s, as its folders are extracted).
    """
    return 0.0 if last_labelled_s <= n_frames / fps + 1 / fps else cut_of(config)[0]


def uncovered(row: Mapping[str, Any], labelled_s: tuple[float, float], *, cut: bool) -> str | None:
    """Why a video cannot be used with its labels: every labelled second must have a frame; None if all have.

    Args:
        row: of the videos table, with `start_s`, `fps` and `n_frames`.
        labelled_s: first and last labelled time.
        cut: whether `data.span_s` cuts the videos.
    """
    if row["start_s"] <= labelled_s[0] and frame_index(row, labelled_s[1]) < row["n_frames"]:
        return None
    return beyond(row, "labels reach", labelled_s, cut=cut)


def beyond(row: Mapping[str, Any], what: str, reach_s: tuple[float, float], *, cut: bool) -> str:
    """What to say of a video that does not hold the first or the last time of something."""
    first_s, end_s = row["start_s"], row["start_s"] + max(0, row["n_frames"] - 1) / row["fps"]
    covers = "it covers (after the cut to data.span_s)" if cut else "it covers"
    return f"{covers} {first_s:.2f} to {end_s:.2f} s, its {what} from {reach_s[0]:g} to {reach_s[1]:g} s"


def has_frame(videos: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Which rows lie at a time that their video has a frame for: bool (N,); False for videos that are not named.

    Args:
        videos: the columns video (unique), start_s, fps and n_frames.
        rows: (N) at least the columns video and time_s.
    """
    known = videos.set_index("video")
    start_s, fps, n_frames = (
        rows["video"].map(known[name]).to_numpy(dtype=float) for name in ("start_s", "fps", "n_frames")
    )
    frame = frame_indices(rows["time_s"], start_s, fps, n_frames)
    return (frame >= 0) & (frame < n_frames)
