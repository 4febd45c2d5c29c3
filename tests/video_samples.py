"""Small source videos whose frames tell their number, and a file of sound alone."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, BITS = 80, 48, 10
TICKS = 1000  # of a source second


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame whose ten vertical bars spell `number` in binary, low bit left."""
    bits = np.array([200 if (number >> bit) & 1 else 40 for bit in range(BITS)], dtype=np.uint8)
    row = bits[np.arange(width) * BITS // width]
    return np.repeat(np.broadcast_to(row[None, :, None], (height, width, 1)), 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    centres = [round((bit + 0.5) * width / BITS - 0.5) for bit in range(BITS)]
    return sum(int(frame[height // 2, x, 0] > 120) << bit for bit, x in enumerate(centres))


def write_source(
    path: Path, times_s: Iterable[float], *, codec: str = "mpeg4", pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT), matrix: tuple[int, ...] | None = None,
    images: list[np.ndarray] | None = None,
) -> None:  # fmt: skip
    """A source video that shows frame k (numbered, or images[k]) from times_s[k] on."""
    with av.open(str(path), "w") as container:
        # A real rate is needed by AVI, whose frames have no time stamps.
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.options = {"q": "3"} if codec == "mpeg4" else {}
        stream.codec_context.gop_size = 6
        time_base = Fraction(1, 10) if path.suffix == ".avi" else Fraction(1, TICKS)
        stream.codec_context.time_base = time_base
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for k, time_s in enumerate(times_s):
            image = numbered(k, *size) if images is None else images[k]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def tenths(n: int) -> list[float]:
    return [k / 10 for k in range(n)]


def write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
