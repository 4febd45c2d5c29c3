"""The key-frame images that a detector is trained on. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.data.clips import frame_index, keyframe_seconds
from acar.data.csv_files import BOX_COLUMNS
from acar.data.key_times import reach_of_seconds
from acar.data.video import FrameCache, FrameReader
from acar.progress import progress

MIN_SIDE_PX = 1.0  # thinner boxes are annotation slips: Faster R-CNN cannot regress to them


@dataclass(frozen=True)
class KeyImage:
    """One key frame; `boxes_xyxy_norm` is float32 (N, 4) in 0..1 of the frame, and N may be 0."""

    video: str
    time_s: float
    frame: int
    boxes_xyxy_norm: np.ndarray


def key_images(
    labels: pd.DataFrame,
    videos: pd.DataFrame,
    span_s: tuple[float, float] | None,
    excluded: set[tuple[str, float]],
    *,
    unlabelled_seconds: bool = True,
) -> list[KeyImage]:
    """Labelled key frames with their distinct person boxes, and unlabelled ones as images without people.

    A second without labels counts as one without people only between the first and the last labelled second
    of its video, and not if it is excluded: elsewhere nobody has looked. Labels between whole seconds do not count
    there: who labels at 4.5 and 7.5 s has not looked at 6.

    Args:
        labels: as `acar.data.tables.read_labels`; rows of videos that were not ingested are passed over.
        videos: as `acar.data.tables.read_videos`.
        span_s: first and last key-frame second allowed, or None.
        excluded: (video, time_s) whose annotation is not to be trusted.
        unlabelled_seconds: whether there are images without people; not where key frames are the labels' alone.

    Returns:
        Sorted by (video, time_s).
    """
    by_video = dict(tuple(labels.groupby("video", sort=False)))
    images: list[KeyImage] = []
    for record in videos[videos["status"] == "ok"].sort_values("video").to_dict("records"):
        rows = by_video.get(record["video"])
        if rows is not None:
            seconds = keyframe_seconds(record, span_s) if unlabelled_seconds else []
            images += _images_of_video(record, rows, span_s, excluded, seconds)
    return images


def _images_of_video(
    record: dict, rows: pd.DataFrame, span_s: tuple[float, float] | None, excluded: set[tuple[str, float]],
    seconds: Sequence[int],
) -> list[KeyImage]:  # fmt: skip
    video = record["video"]
    low_s, high_s = span_s if span_s is not None else (-np.inf, np.inf)
    min_side = np.array([MIN_SIDE_PX / record["width"], MIN_SIDE_PX / record["height"]])
    first_s, last_s = reach_of_seconds(rows["time_s"].tolist())
    found: dict[float, np.ndarray] = {
        float(time_s): np.zeros((0, 4), np.float32) for time_s in seconds if first_s < time_s < last_s
    }
    for time_s, persons in rows.groupby("time_s"):
        if low_s <= time_s <= high_s and 0 <= frame_index(record, time_s) < record["n_frames"]:
            boxes = persons[BOX_COLUMNS].drop_duplicates().to_numpy(np.float64)
            wide = (boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1)
            found[float(time_s)] = boxes[wide].astype(np.float32)
    return [
        KeyImage(video, time_s, frame_index(record, time_s), found[time_s])
        for time_s in sorted(found)
        if (video, time_s) not in excluded
    ]


class KeyImageReader:
    """Reads the frames of key images: all held in memory if they fit, else decoded one by one."""

    def __init__(self, images: Sequence[KeyImage], videos: pd.DataFrame, memory_mib: float) -> None:
        """`images` sorted by (video, time_s), `videos` as `read_videos`; decodes now if all fit."""
        self.images = images
        size = videos.set_index("video")[["width", "height"]].prod(axis=1) * 3
        total = sum(int(size[image.video]) for image in images)
        self._cache = FrameCache(videos, 0)
        self._held = _decode_all(images, videos) if total <= memory_mib * 2**20 else None

    def read(self, index: int) -> np.ndarray:
        """Frame of `images[index]`: uint8 (H, W, 3) RGB."""
        if self._held is not None:
            return self._held[index]
        image = self.images[index]
        return self._cache.read(image.video, [image.frame])[0]


def _decode_all(images: Sequence[KeyImage], videos: pd.DataFrame) -> list[np.ndarray]:
    """Frames of all `images`, each video decoded once, in order."""
    records = {record["video"]: record for record in videos.to_dict("records")}
    frames: list[np.ndarray] = []
    reader: FrameReader | None = None
    for image in progress(images, total=len(images), desc="key frames", unit="images"):
        if reader is None or reader.video != image.video:
            if reader is not None:
                reader.close()
            reader = FrameReader(records[image.video])
        frames.append(reader.read([image.frame])[0])
    if reader is not None:
        reader.close()
    return frames
