"""Find the persons at every key frame of a shard's videos."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torchvision.models.detection.faster_rcnn import FasterRCNN

from acar.config import Config, Split
from acar.data.clips import frame_index
from acar.data.coverage import has_frame
from acar.data.csv_files import format_time
from acar.data.key_times import KeyTimes
from acar.data.pieces import VideoPieces, digest_of_clips
from acar.data.sources import labels_path
from acar.data.tables import PERSON_BOX_COLUMNS, read_videos, write_box_csv
from acar.data.video import FrameReader
from acar.detection.boxes import boxes_table, in_order, to_norm
from acar.detection.faster_rcnn import detect_people, load_detector
from acar.detection.importing import import_boxes
from acar.detection.thresholds import say_if_none_kept
from acar.devices import resolve_device
from acar.files import finished_folder, sha256_of
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.progress import Progress, progress
from acar.training.weights import trained_weights
from acar.workflow import key_frame_files, stage_digest


def run(config: Config, split: Split, shard: int) -> None:
    """Write the shard's boxes.parquet and boxes.csv: person boxes in 0..1 of the frame, by video and time.

    Boxes are found at every whole second of every ingested video, labelled or not, since the bank has rows at
    all of them (paper section 3.3), or under `data.key_frames: labelled` where the labels are, or under `both` at
    all of these; imported boxes are those of the shard's videos. Skipped videos are left out. The files may be
    empty. A killed detection goes on after the last whole video.

    Raises:
        UserError: no detector or box file, or one that cannot be read or does not fit.
    """
    paths = Paths.of(config)
    videos = read_videos([paths.ingest(split, shard)])
    videos = videos[videos["status"] == "ok"]
    origin = origin_of(config, "detect", split=split, shard=shard)
    pieces = None
    if config.detector.source == "boxes":
        assert config.detector.boxes is not None  # the config refuses this source without files
        boxes = _imported(config.detector.boxes[split], videos, config)
    else:
        pieces = _detected(config, split, shard, videos)
        boxes = in_order(pieces.together(boxes_table([], [], [], [])))
    say_if_none_kept(boxes, config, split, shard)
    with finished_folder(paths.boxes(split, shard)) as folder:
        boxes.to_parquet(folder / "boxes.parquet", index=False)
        write_box_csv(boxes, folder / "boxes.csv")
        write_origin(folder, origin)
    if pieces is not None:
        pieces.remove()


def _detected(config: Config, split: Split, shard: int, videos: pd.DataFrame) -> VideoPieces:
    """The boxes of all videos; those that an interrupted run has finished are not looked at again."""
    paths = Paths.of(config)
    model = _load(config, paths).to(resolve_device(config.run.device)).eval()
    work, source = paths.work(f"detect-{split}-{shard:03d}"), _source(config, split, videos, model)
    pieces, key_times = VideoPieces(work, source, list(videos["video"])), KeyTimes(config, split)
    bar: Progress[None] = progress(total=len(videos), desc=f"detect {split} {shard}", unit="videos")
    bar.resume_at(len(pieces.finished))
    for record in _records(videos):
        if record["video"] not in pieces.finished:
            pieces.add(record["video"], _detect_video(config, model, record, key_times.of(record), bar))
            bar.update()
    bar.close()
    return pieces


def _source(config: Config, split: Split, videos: pd.DataFrame, model: FasterRCNN) -> dict[str, str]:
    """What a video's boxes follow from. The weights as loaded: a published name has no file of ours."""
    weights = save({name: value.cpu().contiguous() for name, value in model.state_dict().items()})
    labels = key_frame_files(config, split)
    return {
        **{name: sha256_of(labels_path(config, split)) for name in labels},
        "detector weights": hashlib.sha256(weights).hexdigest(),
        "videos": digest_of_clips(videos),
        "torch": torch.__version__,
        **stage_digest(config, "ingest", split),
        **stage_digest(config, "detect", split),
    }


def _detect_video(
    config: Config, model: FasterRCNN, record: dict[str, Any], times_s: list[float], bar: Progress[None]
) -> pd.DataFrame:
    reader, size = FrameReader(record), config.detector.batch_images
    tables = [boxes_table([], [], [], [])]
    # A batch never mixes videos: frames of one size need no padding, and decoding runs forward only.
    for start in range(0, len(times_s), size):
        batch = times_s[start : start + size]
        tables.append(_detect_batch(model, reader, record, batch, config.detector.max_boxes))
        bar.update(0, f"key frame {start + len(batch)} of {len(times_s)} of {record['video']}")
    reader.close()
    return pd.concat(tables, ignore_index=True)


def _detect_batch(
    model: FasterRCNN, reader: FrameReader, record: dict[str, Any], times_s: list[float], max_boxes: int
) -> pd.DataFrame:
    frames = reader.read([frame_index(record, time_s) for time_s in times_s])
    found = detect_people(model, list(frames), max_boxes=max_boxes)
    times = [time_s for time_s, (_, score) in zip(times_s, found, strict=True) for _ in score]
    boxes_px = np.concatenate([boxes for boxes, _ in found])
    score = np.concatenate([score for _, score in found])
    boxes_norm = to_norm(boxes_px, int(record["width"]), int(record["height"]))
    return boxes_table([record["video"]] * len(times), times, boxes_norm, score)


def _load(config: Config, paths: Paths) -> FasterRCNN:
    if config.detector.source == "weights":
        assert config.detector.weights is not None
        return load_detector(config.detector, config.detector.weights)
    return load_detector(config.detector, str(trained_weights(paths.detector, "acar train-detector")))


def _imported(path: str, videos: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The file's boxes of `videos`, at times that the videos and `data.span_s` hold, from keep_score up."""
    boxes = import_boxes(path)
    ids = set(videos["video"])
    ours = boxes[boxes["video"].isin(ids) & (boxes["score"] >= config.detector.keep_score)]
    _say_without_boxes(path, ids - set(ours["video"]), ids, boxes)
    ours = ours[ours["time_s"].between(*(config.data.span_s or (-np.inf, np.inf)))]
    held = has_frame(videos, ours)
    _say_beyond(path, ours[~held], len(ours))
    ours = ours[held]
    rank = in_order(ours).groupby(["video", "time_s"]).cumcount()
    return in_order(ours)[rank < config.detector.max_boxes].reset_index(drop=True)[PERSON_BOX_COLUMNS]


def _say_without_boxes(path: str, missing: set[str], ids: set[str], boxes: pd.DataFrame) -> None:
    """Tell of videos without any box in the file: usually their ids do not agree."""
    if missing:
        theirs = boxes["video"].iloc[0] if len(boxes) else "(no rows)"
        print(
            f"{path}: without boxes are {len(missing)} of {len(ids)} videos, such as {min(missing)!r}; "
            f"ids in the file look like {theirs!r}",
            file=sys.stderr,
            flush=True,
        )


def _say_beyond(path: str, beyond: pd.DataFrame, n_boxes: int) -> None:
    """Tell of boxes where their video has no frame: usually their times are by another frame rate."""
    if len(beyond):
        first = beyond.iloc[0]
        print(
            f"{path}: left out are {len(beyond)} of {n_boxes} boxes, which lie before or behind their video, such as "
            f"at second {format_time(first['time_s'])} of `{first['video']}`",
            file=sys.stderr,
            flush=True,
        )


def _records(videos: pd.DataFrame) -> list[dict[str, Any]]:
    return videos.to_dict("records")
