"""A video's clips at inference: in order, decoded once, with the boxes kept and the window's bank rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from acar.config import ClipConfig, WindowConfig
from acar.data.clip_dataset import Clips, collate
from acar.data.sequential import sequential_clips

BOX = ["x1", "y1", "x2", "y2"]


class Bank(Protocol):
    """What inference asks of a bank."""

    def window(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> Any:
        """The rows of the window; see `acar.bank.reader.BankReader.window`."""


@dataclass(frozen=True)
class VideoActors:
    """The boxes of one video that are kept, by ascending second; seconds without a box are left out.

    Attributes:
        times_s: the seconds.
        boxes_xyxy_norm: a second, (N, 4) float32 in 0..1 of the frame, N >= 1.
        scores: a second, (N,) float32.
    """

    video: str
    times_s: list[float]
    boxes_xyxy_norm: list[np.ndarray]
    scores: list[np.ndarray]


def video_actors(
    video: str, boxes: pd.DataFrame, min_score: float, times_s: set[float] | None = None
) -> VideoActors:
    """Keep a video's boxes of at least `min_score`, at `times_s` only if given; by falling score in a second."""
    kept = boxes[(boxes["video"] == video) & (boxes["score"] >= min_score)]
    kept = kept.sort_values(["time_s", "score", *BOX], ascending=[True, False, True, True, True, True])
    actors = VideoActors(video, [], [], [])
    for time_s, rows in kept.groupby("time_s", sort=True):
        if times_s is not None and float(time_s) not in times_s:
            continue
        actors.times_s.append(float(time_s))
        actors.boxes_xyxy_norm.append(rows[BOX].to_numpy(np.float32))
        actors.scores.append(rows["score"].to_numpy(np.float32))
    return actors


def actor_clips(
    record: Any,
    actors: VideoActors,
    clip: ClipConfig,
    batch_clips: int,
    n_classes: int,
    bank: Bank | None = None,
    window: WindowConfig | None = None,
) -> Iterator[tuple[range, Clips]]:
    """Yield batches of a video's clips with the range of their places in `actors.times_s`."""
    items: list[dict[str, Any]] = []
    first = 0
    for place, frames in enumerate(sequential_clips(record, actors.times_s, clip)):
        items.append(_item(actors, place, frames, n_classes, bank, window))
        if len(items) == batch_clips or place == len(actors.times_s) - 1:
            yield range(first, place + 1), collate(items)
            first, items = place + 1, []


def _item(
    actors: VideoActors,
    place: int,
    frames: np.ndarray,
    n_classes: int,
    bank: Bank | None,
    window: WindowConfig | None,
) -> dict[str, Any]:
    boxes, time_s, rows = actors.boxes_xyxy_norm[place], actors.times_s[place], None
    if bank is not None and window is not None:
        rows = bank.window(actors.video, time_s, window.radius_s, window.exclude_radius_s)
    return {
        "frames": frames,
        "boxes": boxes,
        "targets": np.zeros((len(boxes), n_classes), np.uint8),
        "name": f"{actors.video}@{time_s:g}",
        "maps": None if rows is None else rows.maps,
        "actors": None if rows is None else rows.actors,
    }
