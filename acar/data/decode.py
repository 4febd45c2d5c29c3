"""Any file that FFmpeg reads, as upright frames at a constant rate.

Time 0 is the container's start time, as for `ffmpeg -ss` and players. The sample aspect ratio is ignored:
frames keep their stored pixels, as in the authors' preparation of AVA (boxes are relative, so nothing moves).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.stream import Disposition

from acar.data.encode import to_yuv420p
from acar.data.frame_folder import BadVideoError

Item = TypeVar("Item")
SEEK_FROM_S = 30.0  # a cut that begins later is sought, not decoded up to
SEEK_EARLY_S = 10.0  # land this far before it: past the open GOP that a seek may fall into
LONGEST_STILL_S = 600.0  # a longer jump of the clock is a broken time stamp, not a still picture
# Raw streams state no duration; FFmpeg guesses one from the bit rate.
RAW_FORMATS = frozenset({"h264", "hevc", "m4v", "mjpeg", "mpegvideo"})
DEFAULT_RATE = 25.0  # of a stream that states none
TIME_SLACK_S = 1e-6


@dataclass(frozen=True)
class Header:
    """What a video file says of itself.

    Attributes:
        width: stored px, before any turn; height likewise.
        rate: average frames a second.
        duration_s: the length that it claims; None: none.
    """

    width: int
    height: int
    rate: float
    duration_s: float | None


def read_header(path: Path) -> Header:
    """Read a file's header; nothing is decoded.

    Raises:
        BadVideoError: it is empty, is not a video or holds no picture stream.
    """
    with SourceVideo(path, look_inside=False) as source:
        stream = source.stream
        return Header(stream.width, stream.height, source.rate, source.declared_s)


class SourceVideo:
    """One open source file.

    `width` and `height` are upright (px), `rate` is the average frame rate, `declared_s` the duration that
    the file claims (None: none). After iteration `damaged` counts undecodable packets and corrupt frames.
    """

    def __init__(self, path: Path, *, look_inside: bool = True) -> None:
        """Open `path`; BadVideoError if it is empty, is not a video or holds no picture stream.

        Without `look_inside` no frame is decoded, and size and orientation stay unknown.
        """
        self.path, self.damaged = path, 0
        self._open()
        if not look_inside:
            return
        try:
            first = next((frame for _, _, frame in self.timed_frames()), None)
        except av.FFmpegError as error:
            raise BadVideoError(f"no frame of it can be decoded ({error.strerror})") from None
        if first is None:
            raise BadVideoError("no frame of it can be decoded")
        self.orientation = orientation_of(first)
        size = (first.width, first.height)
        self.width, self.height = reversed(size) if self.orientation.transpose else size
        self._reopen()

    def timed_frames(self, from_s: float = 0.0) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """(time_s, duration_s, frame) in order, times increasing; may leave out what is before `from_s`.

        Raises:
            BadVideoError: the clock jumps by more than `LONGEST_STILL_S`.
        """
        last_s = -np.inf
        sought = from_s > SEEK_FROM_S and self._seek(from_s - SEEK_EARLY_S)
        for frame in self._frames():
            tick_s = float(frame.time_base or 0)
            duration_s = frame.duration * tick_s or 1 / self.rate
            if frame.pts is not None:
                time_s = frame.pts * tick_s - self.start_s
            else:
                time_s = max(last_s, -1 / self.rate) + 1 / self.rate
            if sought and np.isinf(last_s) and (frame.pts is None or time_s > from_s):
                self._reopen()  # the file's index is wrong: decode from the beginning
                yield from self.timed_frames()
                return
            if time_s > max(last_s, 0.0 if not sought else time_s) + LONGEST_STILL_S:
                raise BadVideoError(f"its time stamps jump from {max(last_s, 0.0):.2f} to {time_s:.2f} s")
            self.damaged += bool(frame.is_corrupt and time_s >= from_s)
            if time_s > last_s:  # a clock that jumps back would show frames out of order
                last_s = time_s
                yield time_s, duration_s, frame

    def close(self) -> None:
        """Free the decoder."""
        self.container.close()

    def __enter__(self) -> SourceVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if self.path.stat().st_size == 0:
            raise BadVideoError("the file is empty (0 bytes)")
        try:
            self.container = av.open(str(self.path), metadata_errors="ignore")
        except (av.FFmpegError, ValueError) as error:
            told = getattr(error, "strerror", error)
            raise BadVideoError(f"FFmpeg cannot open it ({told}): cut off, or not a video") from None
        pictures = [s for s in self.container.streams.video if not s.disposition & Disposition.attached_pic]
        if not pictures:
            kinds = ", ".join(stream.type for stream in self.container.streams) or "none"
            self.container.close()
            raise BadVideoError(f"it holds no video stream (streams: {kinds})")
        self.stream = pictures[0]
        if self.stream.codec_context is None:
            self.container.close()
            raise BadVideoError("FFmpeg knows no decoder for its video stream")
        self.stream.thread_type, self.stream.codec_context.thread_count = "NONE", 1
        self.rate = float(self.stream.average_rate or self.stream.guessed_rate or DEFAULT_RATE)
        start = self.container.start_time
        self.start_s = 0.0 if start is None else start / av.time_base
        self.declared_s = self._declared_s()

    def _reopen(self) -> None:
        self.container.close()
        self.damaged = 0
        self._open()

    def _declared_s(self) -> float | None:
        if self.container.format.name in RAW_FORMATS:
            return None
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        written = self.stream.metadata.get("DURATION", "")  # Matroska: 00:00:10.033000000
        try:
            hours, minutes, seconds = written.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return self.container.duration / av.time_base if self.container.duration else None

    def _seek(self, time_s: float) -> bool:
        try:
            self.container.seek(int((time_s + self.start_s) * av.time_base), backward=True)
        except av.FFmpegError:
            self._reopen()
            return False
        return True

    def _frames(self) -> Iterator[av.VideoFrame]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet, self.damaged = None, self.damaged + 1  # the container breaks off: flush what was read
            try:
                yield from self.stream.codec_context.decode(packet)
            except EOFError:
                return  # flushed already: demux ends with an empty packet
            except av.FFmpegError:
                self.damaged += 1
            if packet is None:
                return


def constant_rate(
    timed: Iterable[tuple[float, float, Item]],
    *, fps: float, source_rate: float, start_s: float = 0.0, stop_s: float | None = None,
) -> Iterator[Item]:  # fmt: skip
    """Resample (time_s, duration_s, item) with increasing times to one item every 1 / fps seconds.

    Item k is the latest that begins at or before `start_s + k / fps`, plus half a frame of the faster of the
    two rates, so that rounded time stamps (Matroska: 1 ms) neither double nor drop frames. Before the first
    item the first is shown, in gaps the last; the end is the end of the last item, or `stop_s` inclusive.
    Yields nothing if the last item ends before `start_s`, else at least one.
    """
    tolerance_s = _tolerance_s(fps, source_rate)
    limit = _most_frames(fps, start_s, stop_s)
    k, end_s = 0, -np.inf
    held: Item | None = None
    for time_s, duration_s, item in timed:
        while held is not None and start_s + k / fps + tolerance_s < time_s and k != limit:
            yield held
            k += 1
        if k == limit:
            return
        held, end_s = item, time_s + duration_s
    if held is None:
        return
    total = _n_shown(end_s, fps, start_s)
    for _ in range(k, total if limit is None else min(total, limit)):
        yield held


def n_constant_rate(
    last_s: float,
    end_s: float,
    *,
    fps: float,
    source_rate: float,
    start_s: float = 0.0,
    stop_s: float | None = None,
) -> int:
    """How many items `constant_rate` yields.

    Args:
        last_s: when the last item begins; -inf if it is the only one.
        end_s: when it ends; the others are as in `constant_rate`.
    """
    tolerance_s, limit = _tolerance_s(fps, source_rate), _most_frames(fps, start_s, stop_s)
    k = max(0, int((last_s - start_s) * fps) - 1) if np.isfinite(last_s) else 0
    while start_s + k / fps + tolerance_s < last_s:  # what is yielded before the last item is met
        k += 1
    total = max(k, _n_shown(end_s, fps, start_s))
    return total if limit is None else min(total, limit)


def _tolerance_s(fps: float, source_rate: float) -> float:
    return 0.5 / max(fps, source_rate) - TIME_SLACK_S


def _n_shown(end_s: float, fps: float, start_s: float) -> int:
    return 0 if end_s <= start_s else max(1, round((end_s - start_s) * fps))


def _most_frames(fps: float, start_s: float, stop_s: float | None) -> int | None:
    return None if stop_s is None else round((stop_s - start_s) * fps) + 1


@dataclass(frozen=True)
class Orientation:
    """How to set a stored frame upright: swap rows and columns first, then mirror."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """Set a (H, W, 3) array upright."""
        frame = frame.transpose(1, 0, 2) if self.transpose else frame
        frame = frame[:, ::-1] if self.flip_x else frame
        return np.ascontiguousarray(frame[::-1] if self.flip_y else frame)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The display matrix of a frame, to the nearest quarter turn; identity if it has none.

    The matrix maps a stored point (x, y) to (a x + c y, b x + d y) on the display.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    if abs(a) >= abs(b):
        return Orientation(False, flip_x=a < 0, flip_y=d < 0)
    return Orientation(True, flip_x=c < 0, flip_y=b < 0)


def fitted_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """(width, height) scaled so that the shorter is `short_side_px`; both rounded to even numbers."""
    scale = short_side_px / min(width, height)
    even_width, even_height = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    return even_width, even_height


def upright(
    frame: av.VideoFrame, orientation: Orientation, width: int, height: int
) -> av.VideoFrame | np.ndarray:
    """A frame scaled to upright `width` x `height`: yuv420p, or RGB (H, W, 3) where it had to be turned."""
    stored_width, stored_height = (height, width) if orientation.transpose else (width, height)
    interpolation = "AREA" if stored_width < frame.width else "BICUBIC"
    if orientation == Orientation():
        return to_yuv420p(frame, width=width, height=height, interpolation=interpolation)
    rgb = frame.reformat(stored_width, stored_height, "rgb24", interpolation=interpolation, threads=1)
    return orientation.apply(rgb.to_ndarray())
