"""Fill one shard of a split's bank with the first-order maps L^i of every detected actor (paper section 3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from acar.bank.source import shard_source
from acar.bank.writer import ShardWriter
from acar.config import Config, Split
from acar.data.clip_dataset import network_input
from acar.data.clips import keyframe_seconds
from acar.data.inference_clips import VideoActors, actor_clips, video_actors
from acar.data.sources import label_map_path
from acar.data.tables import read_boxes, read_label_map, read_videos
from acar.devices import resolve_device
from acar.models.grid import grid_of
from acar.origins.record import origin_of
from acar.paths import Paths
from acar.progress import progress
from acar.training.weights import trained_network


def run(config: Config, split: Split, shard: int) -> None:
    """Write `bank/<split>/shard-<shard>`: rows for every key-frame second, labelled or not.

    A killed run goes on after the last whole video.
    """
    paths, origin = Paths.of(config), origin_of(config, "extract_bank", split=split, shard=shard)
    videos = read_videos([paths.ingest(split, shard)])
    videos = videos[videos["status"] == "ok"]
    boxes = read_boxes([paths.boxes(split, shard)])
    n_classes = len(read_label_map(label_map_path(config)))
    device = resolve_device(config.run.device)
    net = trained_network(config, 1, n_classes, device)
    writer = ShardWriter(
        paths.work(f"bank-{split}-{shard:03d}"), config.bank, d=config.model.head.hidden_channels,
        facts=shard_source(config, split, shard),
    )  # fmt: skip
    todo = [record for _, record in videos.iterrows() if record["video"] not in writer.finished]
    bar = progress(todo, total=len(videos), desc=f"extract-bank {split} {shard}", unit="videos")
    bar.resume_at(len(videos) - len(todo))
    for record in bar:
        _extract_video(config, net, device, record, boxes, n_classes, writer)
    writer.finish(paths.bank_shard(split, shard), origin)


def _extract_video(
    config: Config, net: Any, device: torch.device, record: Any, boxes: pd.DataFrame, n_classes: int,
    writer: ShardWriter,
) -> None:  # fmt: skip
    video = str(record["video"])
    seconds = [float(t) for t in keyframe_seconds(record, config.data.span_s)]
    actors = video_actors(video, boxes, config.bank.min_score, set(seconds))
    grid = grid_of(config.model, int(record["height"]), int(record["width"]))
    maps = _first_order_maps(config, net, device, record, actors, n_classes)
    shape = (0, config.model.head.hidden_channels, *grid)
    writer.add_video(
        video,
        grid=grid,
        seconds=seconds,
        time_s=_per_actor_times(actors),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *actors.boxes_xyxy_norm]),
        score=np.concatenate([np.zeros(0, np.float32), *actors.scores]),
        maps=np.concatenate([np.zeros(shape, np.float16), *maps]),
    )


def _first_order_maps(
    config: Config, net: Any, device: torch.device, record: Any, actors: VideoActors, n_classes: int
) -> list[np.ndarray]:
    """F^i of each batch of clips, (K, d, h, w) float16, in the order of the actors."""
    found = []
    for _, clips in actor_clips(record, actors, config.clip, config.bank.batch_clips, n_classes):
        with torch.inference_mode():
            frames = network_input(clips.frames, config.model.backbone, device)
            maps = net.first_order(frames, clips.boxes_xyxy_norm.to(device), clips.clip_index.to(device))
        found.append(maps.to(torch.float16).cpu().numpy())
    return found


def _per_actor_times(actors: VideoActors) -> np.ndarray:
    counts = [len(scores) for scores in actors.scores]
    return np.repeat(np.array(actors.times_s, np.float64), counts)
