"""Writing constant-rate, short-GOP H.264: what `FrameReader` reads by frame number."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

MAX_RATE_DENOMINATOR = 1001  # 30000/1001 and its kin stay exact


def exact_rate(fps: float) -> Fraction:
    """Frames a second as a small fraction: 29.97002997 becomes 30000/1001."""
    return Fraction(fps).limit_denominator(MAX_RATE_DENOMINATOR)


class VideoWriter:
    """Write frame k with presentation time k / fps: no B-frames, a key frame every `gop_frames`.

    One encoder thread, so equal frames give equal bytes. Sides must be even (yuv420p). Use it as a context
    manager; `n_frames` counts what was written.
    """

    def __init__(
        self, path: str | Path, *, width: int, height: int, fps: float, gop_frames: int = 15, crf: int = 18
    ) -> None:
        assert width % 2 == 0 and height % 2 == 0, (width, height)
        self.width, self.height, self.n_frames = width, height, 0
        rate = exact_rate(fps)
        self._time_base = 1 / rate
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.gop_size, context.max_b_frames = gop_frames, 0
        context.thread_count = 1
        context.colorspace, context.color_range = int(Colorspace.ITU601), int(ColorRange.MPEG)
        # sc_threshold=0: no extra key frames at cuts, so that a seek never decodes more than one GOP.
        self._stream.options = {
            "preset": "veryfast", "crf": str(crf), "sc_threshold": "0", "keyint_min": str(gop_frames),
            "threads": "1",
            "mbtree": "0",  # with it x264 gives other bytes for the same frames about once in a hundred videos
        }  # fmt: skip

    def write(self, frame: np.ndarray | av.VideoFrame) -> None:
        """Append one frame: uint8 RGB (height, width, 3), or what `to_yuv420p` returned."""
        if isinstance(frame, np.ndarray):
            frame = to_yuv420p(av.VideoFrame.from_ndarray(frame, format="rgb24"))
        assert (frame.width, frame.height) == (self.width, self.height), (frame.width, frame.height)
        frame.pts, frame.time_base, frame.duration = self.n_frames, self._time_base, 1
        frame.pict_type = 0  # a decoded frame carries its source's type, which the encoder would obey
        self._container.mux(self._stream.encode(frame))
        self.n_frames += 1

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        if self.n_frames:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()


def to_yuv420p(
    frame: av.VideoFrame,
    *, width: int | None = None, height: int | None = None, interpolation: str = "BICUBIC",
) -> av.VideoFrame:  # fmt: skip
    """Scale and convert any frame to yuv420p, BT.601, limited range (the only kind of file we write)."""
    return frame.reformat(
        width=width, height=height, format="yuv420p", interpolation=interpolation,
        dst_colorspace="ITU601", dst_color_range="MPEG", threads=1,
    )  # fmt: skip


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], *, fps: float, gop_frames: int = 15, crf: int = 18
) -> int:
    """Write uint8 RGB frames (H, W, 3), H and W even, to an mp4; returns how many. At least one is needed."""
    writer: VideoWriter | None = None
    for frame in frames:
        if writer is None:
            height, width = frame.shape[:2]
            writer = VideoWriter(path, width=width, height=height, fps=fps, gop_frames=gop_frames, crf=crf)
        writer.write(np.ascontiguousarray(frame))
    assert writer is not None, "no frames to write"
    writer.close()
    return writer.n_frames
