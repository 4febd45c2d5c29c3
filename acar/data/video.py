"""Reading ingested videos by frame number.

A record is a row of the videos table (see `acar.data.tables.read_videos`): an mp4 that `acar ingest` wrote
(frame k has presentation time k / fps) or a folder of numbered images. Frames are uint8 RGB (T, H, W, 3).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import pandas as pd
from PIL import Image

from acar.errors import UserError

Record: TypeAlias = Mapping[str, Any] | pd.Series
MAX_OPEN_READERS = 8
RECENT_BYTES = 32 * 2**20  # a 32-frame clip of 256x340 is 8 MiB
ASPECT_TOLERANCE = 0.03  # a frame whose width/height differs by more was not made from the same video


class FrameReader:
    """Exact frames of one video, decoded on demand.

    The decoder is opened at the first read, kept open, and only moved when that is shorter than decoding on,
    so increasing requests are sequential. The frames of the last short read are kept, because clips at
    neighbouring seconds share half of theirs. Pickling drops the decoder: worker processes may get a reader.
    """

    def __init__(self, record: Record, *, threads: int = 1) -> None:
        """`threads`: decoding threads of this reader (0 lets FFmpeg choose)."""
        self.video, self.location = str(record["video"]), Path(record["location"])
        self.kind, self.fps = str(record["kind"]), float(record["fps"])
        self.n_frames, self.width, self.height = (int(record[k]) for k in ("n_frames", "width", "height"))
        self.pattern = str(record["pattern"]) if self.kind == "frames" else ""
        self.first_number = int(record["first_number"]) if self.kind == "frames" else 0
        self.threads = threads
        self._decoder: _Decoder | None = None
        self._recent: dict[int, np.ndarray] = {}

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames `indices` (any order, repeats allowed, each in 0..n_frames-1) as uint8 RGB (T, H, W, 3).

        Raises:
            UserError: the file or an image of it is gone, cannot be decoded or has another size or length
                than its record.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        assert np.all((wanted >= 0) & (wanted < self.n_frames)), (wanted, self.n_frames)
        out = np.empty((len(wanted), self.height, self.width, 3), dtype=np.uint8)
        seen = dict(self._recent)
        for place in np.argsort(wanted, kind="stable"):
            index = int(wanted[place])
            if index not in seen:
                seen[index] = self._frame(index)
            out[place] = seen[index]
            if out.nbytes > RECENT_BYTES:
                seen.clear()  # a long read holds no second copy of its frames; repeats are neighbours here
                seen[index] = out[place]
        self._recent = {i: seen[i] for i in set(wanted.tolist())} if out.nbytes <= RECENT_BYTES else {}
        return out

    def close(self) -> None:
        """Free the decoder; the next read opens it again."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._recent = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None, "_recent": {}}

    def _frame(self, index: int) -> np.ndarray:
        if self.kind == "frames":
            return self._image(index)
        try:
            if self._decoder is None:
                self._decoder = _Decoder(self.location, self.fps, self.threads)
            frame = self._decoder.frame(index)
        except (av.FFmpegError, EOFError) as error:
            self.close()
            raise UserError(
                f"{self.location}: cannot read frame {index} of video `{self.video}` ({error}); expected "
                f"{self.n_frames} frames; rerun ingest"
            ) from None
        if frame.shape[:2] != (self.height, self.width):
            raise UserError(
                f"{self.location}: frame {index} is {frame.shape[1]}x{frame.shape[0]}, the videos table says "
                f"{self.width}x{self.height}; rerun ingest"
            )
        return frame

    def _image(self, index: int) -> np.ndarray:
        path = self.location / (self.pattern % (self.first_number + index))
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
        except (OSError, SyntaxError) as error:  # Pillow reports some broken PNGs as SyntaxError
            raise UserError(
                f"{path}: cannot read frame {index} of `{self.video}` ({error}); extract its frames again"
            ) from None
        if rgb.size != (self.width, self.height):
            ratio = (rgb.width * self.height) / (rgb.height * self.width)
            # Rounding a small frame to even sides may alter its aspect by more than the tolerance.
            slack = ASPECT_TOLERANCE + 2 / min(self.width, self.height)
            if abs(ratio - 1) > slack:
                raise UserError(
                    f"{path}: image is {rgb.width}x{rgb.height}, which does not scale to the "
                    f"{self.width}x{self.height} of its folder's first image; one folder holds one video"
                )
            rgb = rgb.resize((self.width, self.height), Image.Resampling.BICUBIC)
        return np.asarray(rgb)


class _Decoder:
    """An open file and the place in it."""

    def __init__(self, path: Path, fps: float, threads: int) -> None:
        self.container = av.open(str(path), metadata_errors="ignore")
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "NONE" if threads == 1 else "AUTO"
        self.stream.codec_context.thread_count = threads
        self.frames_per_tick = float(self.stream.time_base or 0) * fps
        self.key_indices = sorted(
            self._index_of(entry.timestamp) for entry in self.stream.index_entries if entry.is_keyframe
        )
        self.next_index = 0
        self.coming: Iterator[av.VideoFrame] = self.container.decode(self.stream)

    def frame(self, index: int) -> np.ndarray:
        """RGB frame `index`; EOFError if the file ends before it."""
        key = self.key_indices[max(bisect_right(self.key_indices, index) - 1, 0)] if self.key_indices else 0
        if index < self.next_index or key > self.next_index:
            self.container.seek(round(key / self.frames_per_tick), stream=self.stream, backward=True)
            self.coming = self.container.decode(self.stream)
        for frame in self.coming:
            found = self._index_of(frame.pts)
            self.next_index = found + 1
            if found == index:
                return frame.to_ndarray(format="rgb24")
            if found > index:
                raise EOFError(f"frame {found} follows where {index} was expected")
        raise EOFError(f"the file ends before frame {index}")

    def close(self) -> None:
        self.container.close()

    def _index_of(self, pts: int | None) -> int:
        if pts is None:
            raise EOFError("a frame has no time stamp")
        return round(pts * self.frames_per_tick)


class FrameCache:
    """Frames of many videos, kept whole in at most `cache_mib` MiB; the least recently used go first.

    A video that does not fit (every one, if `cache_mib` is 0) is decoded by seeking, with up to
    `MAX_OPEN_READERS` decoders kept open. Opened lazily and picklable: a copy starts empty.
    """

    def __init__(self, videos: pd.DataFrame, cache_mib: float, *, threads: int = 1) -> None:
        """`videos`: rows of `read_videos`; skipped ones may be among them."""
        self.records: dict[str, dict[str, Any]] = {row["video"]: row for row in videos.to_dict("records")}
        self.cache_bytes, self.threads = int(cache_mib * 2**20), threads
        self.held_bytes = 0
        self._whole: OrderedDict[str, np.ndarray] = OrderedDict()
        self._readers: OrderedDict[str, FrameReader] = OrderedDict()

    def read(self, video: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames of `video` as uint8 RGB (T, H, W, 3), a copy; see `FrameReader.read`.

        Raises:
            UserError: `video` is not in the table, was skipped by ingest, or cannot be read.
        """
        record = self._record(video)
        size = int(record["n_frames"]) * int(record["height"]) * int(record["width"]) * 3
        if size > self.cache_bytes:
            return self._reader(record).read(indices)
        if video in self._whole:
            self._whole.move_to_end(video)
        else:
            self._make_room(size)
            reader = FrameReader(record, threads=self.threads)
            self._whole[video] = reader.read(range(reader.n_frames))
            self.held_bytes += size
            reader.close()
        return self._whole[video][np.asarray(indices, dtype=np.int64)]

    def close(self) -> None:
        """Free every decoder and frame."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._whole.clear()
        self.held_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_whole": OrderedDict(), "_readers": OrderedDict(), "held_bytes": 0}

    def _record(self, video: str) -> dict[str, Any]:
        record = self.records.get(video)
        if record is None:
            raise UserError(f"video `{video}`: not among the {len(self.records)} ingested ones; rerun ingest")
        if record["status"] != "ok":
            raise UserError(f"video `{video}` was skipped by ingest ({record['reason']}): it has no frames")
        return record

    def _make_room(self, size: int) -> None:
        while self._whole and self.held_bytes + size > self.cache_bytes:
            _, frames = self._whole.popitem(last=False)
            self.held_bytes -= frames.nbytes

    def _reader(self, record: dict[str, Any]) -> FrameReader:
        video = record["video"]
        if video not in self._readers:
            if len(self._readers) >= MAX_OPEN_READERS:
                self._readers.popitem(last=False)[1].close()
            self._readers[video] = FrameReader(record, threads=self.threads)
        self._readers.move_to_end(video)
        return self._readers[video]
