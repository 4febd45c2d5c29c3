"""Address-coded banks: every map holds its own (video, second, actor) number."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from acar.bank.seal import seal
from acar.bank.writer import ShardWriter
from acar.config import BankConfig
from acar.data.shards import videos_of_shard
from acar.paths import shard_name

D = 2
SETTINGS = BankConfig(chunk_kib=1, rows_per_shard=8, zstd_level=1)


@dataclass(frozen=True)
class Video:
    """A video's grid and how many actors each of its seconds has."""

    name: str
    grid: tuple[int, int]
    actors: list[int]
    first_s: float = 0.0

    @property
    def seconds(self) -> list[float]:
        return [self.first_s + i for i in range(len(self.actors))]

    @property
    def time_s(self) -> np.ndarray:
        return np.repeat(self.seconds, self.actors)

    def addresses(self, number: int) -> np.ndarray:
        """(R, 3) float16-exact (video, second, actor) of each row."""
        rows = [(number, i, actor) for i, n in enumerate(self.actors) for actor in range(n)]
        return np.array(rows, np.float16).reshape(-1, 3)

    def features(self, number: int) -> np.ndarray:
        """(R, 3): the address itself."""
        return self.addresses(number)

    def maps(self, number: int) -> np.ndarray:
        """(R, 2, H, W): channel 0 holds video * 32 + second, channel 1 the actor, in every cell."""
        address = self.addresses(number)
        height, width = self.grid
        values = np.stack([address[:, 0] * 32 + address[:, 1], address[:, 2]], axis=1)
        return np.broadcast_to(values[:, :, None, None], (len(values), D, height, width)).astype(np.float16)


@dataclass(frozen=True)
class Sample:
    """Videos of a bank split over some shards."""

    videos: list[Video]
    n_shards: int = 2
    settings: BankConfig = SETTINGS
    facts: dict[str, Any] = field(default_factory=dict)
    d: int = D
    c: int = 0

    def number(self, name: str) -> int:
        return sorted(v.name for v in self.videos).index(name)

    def by_name(self, name: str) -> Video:
        return next(v for v in self.videos if v.name == name)

    def of_shard(self, shard: int) -> list[Video]:
        return [self.by_name(n) for n in videos_of_shard([v.name for v in self.videos], shard, self.n_shards)]

    def writer(self, work: Path, shard: int, **other: Any) -> ShardWriter:
        facts = {"split": "val", "shard": shard, "weights_sha256": "w" * 64, "boxes_sha256": f"b{shard}" * 32,
                 "config_sha256": "c" * 64}  # fmt: skip
        return ShardWriter(work, self.settings, self.d, facts | self.facts | other, self.c)

    def add(self, writer: ShardWriter, video: Video) -> None:
        number = self.number(video.name)
        maps, features = video.maps(number), video.features(number)
        boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (len(maps), 1))
        boxes[:, 0] += np.arange(len(maps)) / 1000
        writer.add_video(video.name, grid=video.grid, seconds=video.seconds, time_s=video.time_s,
                         boxes=boxes, score=np.linspace(0.5, 1, len(maps)), maps=maps if self.d else None,
                         actors=features if self.c else None)  # fmt: skip

    def write_shard(self, root: Path, shard: int, **other: Any) -> None:
        writer = self.writer(root / "work" / str(shard), shard, **other)
        for video in self.of_shard(shard):
            if video.name not in writer.finished:
                self.add(writer, video)
        writer.finish(root / "bank" / "val" / shard_name(shard))

    def write(self, root: Path) -> Path:
        """Write and seal all shards; returns the bank's folder."""
        for shard in range(self.n_shards):
            self.write_shard(root, shard)
        self.seal(root)
        return root / "bank" / "val"

    def seal(self, root: Path) -> dict[str, Any]:
        expected = [[(v.name, t) for v in self.of_shard(k) for t in v.seconds] for k in range(self.n_shards)]
        return seal(root / "bank" / "val", "val", self.n_shards, expected=expected, config_path="CONFIG")


def usual_sample(**changes: Any) -> Sample:
    """Two grids, five videos; full Zarr shards, partial ones, empty seconds, a video with no row at all."""
    return Sample(
        [
            Video("a", (3, 4), [2, 3, 0, 1, 4, 2, 2]),
            Video("b", (3, 3), [1, 1, 2]),
            Video("c", (3, 4), [5, 0, 5, 5, 3], first_s=900.0),
            Video("d", (3, 4), [0, 0, 0]),
            Video("e", (3, 3), [0, 12, 0, 7, 9]),
            Video("f", (3, 4), [1]),
        ],
        **changes,
    )


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
