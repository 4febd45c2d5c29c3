"""Which videos are a job's."""

from __future__ import annotations

from collections.abc import Sequence


def videos_of_shard(video_ids: Sequence[str], shard: int, n_shards: int) -> list[str]:
    """Every `n_shards`-th video id in sorted order, from `shard` on; may be empty."""
    assert 0 <= shard < n_shards, (shard, n_shards)
    return sorted(video_ids)[shard::n_shards]
