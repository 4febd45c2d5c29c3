"""Seal a split's bank: index and manifest, or the list of its holes (docs/bank.md)."""

from __future__ import annotations

from collections.abc import Iterator

from acar.bank.seal import EmptyBankError, seal
from acar.config import Config, Split
from acar.data.clips import keyframe_seconds
from acar.data.shards import videos_of_shard
from acar.data.sources import video_ids
from acar.data.tables import check_any_usable, read_boxes, read_videos
from acar.detection.thresholds import why_bank_is_empty
from acar.errors import UserError
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths


def run(config: Config, split: Split) -> None:
    """Check every shard of `split` against the ingested videos and write the index and the manifest.

    Raises:
        UserError: a shard is missing, damaged, incomplete or does not belong to the others; every video was
            skipped; or no box of the whole split is good enough for a row.
    """
    paths, origin = Paths.of(config), origin_of(config, "seal_bank", split=split)
    expected = list(_seconds_of_shards(config, split))
    try:
        manifest = seal(
            paths.bank(split), split, len(expected), expected=expected, config_path=paths.config,
            refuse_empty=True,
        )  # fmt: skip
    except EmptyBankError as error:
        boxes = read_boxes([paths.boxes(split, shard) for shard in range(len(expected))])
        raise UserError(f"{error}: {why_bank_is_empty(boxes, config)}") from None
    write_origin(paths.bank(split), origin)
    print(
        f"{paths.bank(split)}: sealed {manifest['rows']} rows of {manifest['seconds']} seconds, "
        f"{manifest['videos']} videos, {manifest['bytes'] / 2**20:.1f} MiB"
    )


def _seconds_of_shards(config: Config, split: Split) -> Iterator[list[tuple[str, float]]]:
    """(video, second) that each shard must cover: every second of each of its usable videos."""
    n_shards = getattr(config.data, split).shards
    videos = read_videos([Paths.of(config).ingest(split, shard) for shard in range(n_shards)])
    check_any_usable(videos, split)
    usable = {str(row["video"]): row for row in videos[videos["status"] == "ok"].to_dict("records")}
    every_id = video_ids(config, split)
    for shard in range(n_shards):
        mine = [v for v in videos_of_shard(every_id, shard, n_shards) if v in usable]
        yield [(v, float(t)) for v in mine for t in keyframe_seconds(usable[v], config.data.span_s)]
