"""Seal a split's bank: index and manifest, or the list of its holes (docs/bank.md)."""

from __future__ import annotations

from collections.abc import Iterator

from acar.bank.seal import seal
from acar.config import Config, Split
from acar.data.clips import keyframe_seconds
from acar.data.shards import videos_of_shard
from acar.data.sources import video_ids
from acar.data.tables import read_videos
from acar.paths import Paths


def run(config: Config, split: Split) -> None:
    """Check every shard of `split` against the ingested videos and write the index and the manifest.

    Raises:
        UserError: a shard is missing, damaged, incomplete or does not belong to the others.
    """
    paths = Paths.of(config)
    expected = list(_seconds_of_shards(config, split))
    manifest = seal(paths.bank(split), split, len(expected), expected=expected, config_path=paths.config)
    print(
        f"{paths.bank(split)}: sealed {manifest['rows']} rows of {manifest['seconds']} seconds, "
        f"{manifest['videos']} videos, {manifest['bytes'] / 2**20:.1f} MiB"
    )


def _seconds_of_shards(config: Config, split: Split) -> Iterator[list[tuple[str, float]]]:
    """(video, second) that each shard must cover: every second of each of its usable videos."""
    n_shards = getattr(config.data, split).shards
    videos = read_videos([Paths.of(config).ingest(split, shard) for shard in range(n_shards)])
    usable = {str(row["video"]): row for row in videos[videos["status"] == "ok"].to_dict("records")}
    every_id = video_ids(config, split)
    for shard in range(n_shards):
        mine = [v for v in videos_of_shard(every_id, shard, n_shards) if v in usable]
        yield [(v, float(t)) for v in mine for t in keyframe_seconds(usable[v], config.data.span_s)]
