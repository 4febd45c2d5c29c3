"""Key frames for the report: boxes, scores, and what the actor of interest attends to (paper figure 6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from acar.config import Config
from acar.data.clip_dataset import network_input
from acar.data.clips import frame_index
from acar.data.inference_clips import actor_clips, video_actors
from acar.data.key_frames import KeyFrame
from acar.data.video import FrameReader
from acar.files import atomic_path
from acar.inference.scorer import Scorer

SUPPORTING = 4


def pick_examples(truth: dict[tuple[str, float], KeyFrame], videos: set[str], count: int) -> list[KeyFrame]:
    """The key frames whose actors carry the most different classes, one a video until every video has one."""
    rich = sorted(
        (frame for (video, _), frame in truth.items() if video in videos),
        key=lambda frame: (-int(frame.targets.any(0).sum()), frame.video, frame.time_s),
    )
    first: dict[str, KeyFrame] = {}
    for frame in rich:
        first.setdefault(frame.video, frame)
    rest = [frame for frame in rich if first[frame.video] is not frame]
    return [*first.values(), *rest][:count]


def save_examples(
    path: Path,
    config: Config,
    scorer: Scorer,
    videos: pd.DataFrame,
    boxes: pd.DataFrame,
    chosen: list[KeyFrame],
) -> None:
    """Write the examples that `acar.report.collect` reads; key frames without a kept box are left out."""
    records = {str(row["video"]): row for _, row in videos.iterrows()}
    arrays: dict[str, np.ndarray] = {"classes": np.array(json.dumps(list(scorer.label_map.names)))}
    place = 0
    for frame in chosen:
        found = _example(config, scorer, records[frame.video], boxes, frame)
        if found is not None:
            arrays.update({f"{place}/{name}": value for name, value in found.items()})
            place += 1
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _example(
    config: Config, scorer: Scorer, record: Any, boxes: pd.DataFrame, frame: KeyFrame
) -> dict[str, np.ndarray] | None:
    actors = video_actors(frame.video, boxes, config.predict.min_score, {frame.time_s})
    if not actors.times_s:
        return None
    window, device = scorer.window, scorer.device
    batches = actor_clips(record, actors, config.clip, 1, len(scorer.label_map), scorer.bank, window)
    _, clips = next(iter(batches))
    values = scorer.of(record).scores(clips, actors.times_s)
    inputs = (
        network_input(clips.frames, config.model.backbone, device),
        clips.boxes_xyxy_norm.to(device),
        clips.clip_index.to(device),
    )
    with torch.inference_mode():  # of the clip as it is, whatever the views
        blocks = scorer.net.attention(*inputs, bank=clips.bank(device))
    kept = actors.boxes_xyxy_norm[0]
    actor = int(np.argmax((kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1])))
    example = {
        "frame": _key_frame(record, frame.time_s),
        "boxes": kept,
        "scores": values.astype(np.float32),
        "gt": frame.boxes_xyxy_norm,
        "gt_targets": frame.targets,
        "meta": np.array(json.dumps({"video": frame.video, "time_s": frame.time_s, "actor": actor})),
    }
    if blocks and scorer.bank is not None and window is not None:
        rows = scorer.bank.window(frame.video, frame.time_s, window.radius_s, window.exclude_radius_s)
        example.update(_supporting(record, blocks[-1][0][actor].cpu().numpy(), rows))
    return example


def _supporting(record: Any, attention: np.ndarray, rows: Any) -> dict[str, np.ndarray]:
    """The bank rows that the actor attends to most at any location; `attention` is (M or more, h, w)."""
    attention = attention[: len(rows.time_s)]  # an empty window is padded to one row
    peak = attention.reshape(len(attention), -1).max(1) if len(attention) else np.zeros(0)
    order = np.argsort(-peak, kind="stable")[:SUPPORTING]
    if len(order) == 0:
        return {}
    meta = [{"time_s": float(rows.time_s[j]), "weight": float(peak[j])} for j in order]
    return {
        "attention": attention[order].astype(np.float32),
        "support_frames": np.stack([_key_frame(record, float(rows.time_s[j])) for j in order]),
        "support_boxes": np.asarray(rows.boxes)[order].astype(np.float32),
        "support_meta": np.array(json.dumps(meta)),
    }


def _key_frame(record: Any, time_s: float) -> np.ndarray:
    reader = FrameReader(record)
    try:
        index = min(max(frame_index(record, time_s), 0), int(record["n_frames"]) - 1)
        return reader.read([index])[0]
    finally:
        reader.close()
