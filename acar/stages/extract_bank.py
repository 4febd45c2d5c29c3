"""Fill one shard of a split's bank with maps L^i or features A^i of every detected actor (paper section 3.3)."""

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
    d, c = row_channels(config)
    writer = ShardWriter(
        paths.work(f"bank-{split}-{shard:03d}"), config.bank, d=d, c=c,
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
    d, c = row_channels(config)
    found = _features(config, net, device, record, actors, n_classes)
    none = np.zeros((0, d, *grid), np.float16), np.zeros((0, c), np.float16)
    writer.add_video(
        video,
        grid=grid,
        seconds=seconds,
        time_s=_per_actor_times(actors),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *actors.boxes_xyxy_norm]),
        score=np.concatenate([np.zeros(0, np.float32), *actors.scores]),
        maps=np.concatenate([none[0], *(maps for maps, _ in found)]) if d else None,
        actors=np.concatenate([none[1], *(features for _, features in found)]) if c else None,
    )


def row_channels(config: Config) -> tuple[int, int]:
    """Channels d of the maps and c of the actor features that the bank's rows hold; 0 where it holds none."""
    head, rows = config.model.head, config.bank.rows
    return head.hidden_channels * (rows != "actor"), head.reduce_channels * (rows != "relation")


def _features(
    config: Config, net: Any, device: torch.device, record: Any, actors: VideoActors, n_classes: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """F^i (K, d, h, w) and A^i (K, C) of each batch of clips, float16, in the order of the actors.

    Where no maps are stored, (K, 0) takes their place.
    """
    found = []
    for _, clips in actor_clips(record, actors, config.clip, config.bank.batch_clips, n_classes):
        with torch.inference_mode():
            frames = network_input(clips.frames, config.model.backbone, device)
            maps, features = net.bank_rows(
                frames, clips.boxes_xyxy_norm.to(device), clips.clip_index.to(device),
                with_maps=config.bank.rows != "actor",
            )  # fmt: skip
        found.append((_half(features[:, :0] if maps is None else maps), _half(features)))
    return found


def _half(values: torch.Tensor) -> np.ndarray:
    return values.to(torch.float16).cpu().numpy()


def _per_actor_times(actors: VideoActors) -> np.ndarray:
    counts = [len(scores) for scores in actors.scores]
    return np.repeat(np.array(actors.times_s, np.float64), counts)
