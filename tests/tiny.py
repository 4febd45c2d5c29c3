"""A drawn data set of seconds, ingested and boxed, for tests of the training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from acar.config import Config, parse_config
from acar.data.tables import read_labels
from acar.files import finished_folder
from acar.paths import Paths
from acar.stages import ingest, synthesize

TRAIN = {
    "iterations": 4,
    "batch_clips": 6,
    "micro_batch_clips": 1,  # equal forward passes: processes then differ in the order of sums alone
    "base_lr": 0.05,
    "warmup_iterations": 1,
    "milestones": [3],
    "workers": 0,
    "cache_mib": 64,
    "checkpoint_every": 2,
    "log_every": 1,
}


def tiny_values(results: Path, **sections: dict) -> dict:
    """Two short videos a split, a network of a few thousand weights, no dropout, as a nested dict."""
    values: dict = {
        "run": {"results": str(results), "device": "cpu"},
        "synthesize": {
            "train_videos": 2, "val_videos": 2, "video_s": 6, "short_side_px": 64, "window_radius_s": 2,
        },
        "ingest": {"short_side_px": 64, "fps": 10, "gop_frames": 8},
        "clip": {"frames": 4, "stride": 2},
        "model": {
            "backbone": {
                "depths": [1, 1, 1, 1], "width": 4, "fast_ratio": 2, "alpha": 2, "lateral_kernel": 3,
                "spatial_strides": [1, 2, 1, 1], "last_dilation": 1, "norm": "group",
            },
            "head": {
                "reduce_channels": 8, "hidden_channels": 8, "encoder_norm": "group", "downsample": "none",
                "hr2o_depth": 1, "dropout": 0.0,
            },
        },
        "stage1": TRAIN,
        "stage2": {**TRAIN, "window": {"radius_s": 2, "exclude_radius_s": 0}},
        "bank": {"batch_clips": 4},
        "predict": {"min_score": 0.5, "batch_clips": 4, "examples": 2},
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return values


def tiny_config(results: Path, **sections: dict) -> Config:
    """`tiny_values` as a typed config."""
    return parse_config(tiny_values(results, **sections))


def prepare(config: Config) -> None:
    """Draw, ingest and take the ground-truth boxes as detected ones."""
    paths = Paths.of(config)
    synthesize.run(config)
    for split in ("train", "val"):
        ingest.run(config, split, 0)
        boxes = read_labels(paths.data / f"{split}.csv")[["video", "time_s", "x1", "y1", "x2", "y2"]]
        boxes = boxes.drop_duplicates().assign(score=0.95)
        with finished_folder(paths.boxes(split, 0)) as folder:
            pd.DataFrame(boxes).to_parquet(folder / "boxes.parquet")
