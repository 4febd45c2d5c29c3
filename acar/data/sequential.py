"""Clips of a whole video in order: each frame is decoded once though neighbouring clips share many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from acar.config import ClipConfig
from acar.data.clip_dataset import frame_indices
from acar.data.video import FrameReader


def sequential_clips(record: Any, times_s: Sequence[float], clip: ClipConfig) -> Iterator[np.ndarray]:
    """Yield (T, H, W, 3) uint8 RGB for each second of ascending `times_s` of one ingested video.

    Holds no more frames than one clip needs.
    """
    reader = FrameReader(record)
    held: dict[int, np.ndarray] = {}
    try:
        for time_s in times_s:
            indices = [int(i) for i in frame_indices(record, time_s, clip)]
            held = {i: frame for i, frame in held.items() if i >= min(indices)}
            missing = sorted(set(indices) - held.keys())
            if missing:
                held.update(zip(missing, reader.read(missing), strict=True))
            yield np.stack([held[i] for i in indices])
    finally:
        reader.close()
