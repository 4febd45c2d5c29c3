"""What a bank's rows come from, and whether a rebuilt shard could differ from the one that was sealed.

Never imports torch or zarr: Snakemake asks while it builds the DAG.
"""

from __future__ import annotations

import json
from typing import Any

from acar.config import Config, Split
from acar.files import sha256_of
from acar.paths import Paths
from acar.provenance import digest_of


def shard_source(config: Config, split: Split, shard: int) -> dict[str, Any]:
    """The facts of a shard's origin (`acar.bank.layout.REQUIRED_FACTS` and the ingested videos).

    Raises:
        FileNotFoundError: stage 1's weights, the shard's boxes or its videos are not there.
    """
    paths = Paths.of(config)
    stored = config.bank.model_dump(exclude={"batch_clips"})
    return {
        "split": split,
        "shard": shard,
        "weights_sha256": sha256_of(paths.training(1) / "model.safetensors"),
        "boxes_sha256": sha256_of(paths.boxes(split, shard) / "boxes.parquet"),
        "videos_sha256": sha256_of(paths.ingest(split, shard) / "videos.parquet"),
        "config_sha256": digest_of(
            [config.clip, config.model, config.compute.precision, stored, config.data.span_s]
        ),
    }


def rebuilt_is_the_same(config: Config, split: Split) -> bool:
    """Whether any shard of the sealed bank, extracted again now, would be the one that was sealed.

    Extraction depends on the facts of a shard's source alone; the manifest keeps them, also for a shard whose
    folder was lost since. False without a readable manifest.
    """
    n_shards = getattr(config.data, split).shards
    try:
        manifest = json.loads((Paths.of(config).bank(split) / "manifest.json").read_text(encoding="utf-8"))
        sealed = [{**manifest["provenance"], **shard} for shard in manifest["shards"]]
        now = [shard_source(config, split, shard) for shard in range(n_shards)]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    compared = ("weights_sha256", "config_sha256", "boxes_sha256", "videos_sha256")
    return [[s.get(key) for key in compared] for s in sealed] == [[s[key] for key in compared] for s in now]
