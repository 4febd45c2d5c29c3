"""When a video file's pictures end, as its packets say. Decodes nothing, and never imports torch.

A header tells a length, which may be that of the sound. `ingest` counts decoded frames; their times and durations are
those of the packets, so a look at the last seconds' packets tells what it will find.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av

from acar.data.decode import Header, SourceVideo

TAIL_S = 10.0  # so much before the declared end is read: no key frames lie farther apart in ordinary files


@dataclass(frozen=True)
class PictureEnd:
    """Where the last picture ends.

    Seconds are those from the container's start, as `acar.data.decode.constant_rate` counts them.

    Attributes:
        last_s: where it begins; -inf if it is the only one.
        end_s: where it ends.
        rate: average pictures a second.
        is_exact: whether every packet states its time; else the end is that of as many pictures at the average rate.
    """

    last_s: float
    end_s: float
    rate: float
    is_exact: bool

    @classmethod
    def of_header(cls, header: Header) -> PictureEnd | None:
        """As a header tells it; None if it tells no length."""
        if header.duration_s is None:
            return None
        return cls(header.duration_s - 1 / header.rate, header.duration_s, header.rate, True)


def picture_end(path: Path, declared_s: float | None) -> PictureEnd | None:
    """Where the pictures of a file end; None if it has no packets of any.

    Args:
        path: a file that `acar.data.decode.read_header` reads.
        declared_s: the length that its header tells; None: the whole file is read.

    Raises:
        BadVideoError: the file is empty, is not a video or holds no picture stream.
    """
    if declared_s is not None and declared_s > TAIL_S:
        with SourceVideo(path, look_inside=False) as source:
            if _sought(source, declared_s - TAIL_S):
                found = _last(source)
                if found is not None and found.is_exact:
                    return found
    with SourceVideo(path, look_inside=False) as source:
        return _last(source)


def _sought(source: SourceVideo, time_s: float) -> bool:
    try:
        source.container.seek(int((time_s + source.start_s) * av.time_base), backward=True)
    except av.FFmpegError:
        return False
    return True


def _last(source: SourceVideo) -> PictureEnd | None:
    """The end of the last picture from where the container stands."""
    count, unstated, last_s, end_s = 0, 0, float("-inf"), 0.0
    with suppress(av.FFmpegError):  # the container breaks off: what was read stands, as for decoding
        for packet in source.container.demux(source.stream):
            if not packet.size or packet.is_discard:
                continue
            count += 1
            if packet.pts is None:
                unstated += 1
                continue
            tick_s = float(packet.time_base)
            time_s = packet.pts * tick_s - source.start_s
            if time_s > last_s:
                last_s, end_s = time_s, time_s + ((packet.duration or 0) * tick_s or 1 / source.rate)
    if not count:
        return None
    if unstated:
        return PictureEnd((count - 1) / source.rate, count / source.rate, source.rate, False)
    return PictureEnd(last_s if count > 1 else float("-inf"), end_s, source.rate, True)
