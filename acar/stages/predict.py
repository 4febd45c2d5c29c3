"""Score the detected actors of the val split with a trained stage; write AVA's result format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from acar.bank.manifest import MEMORY_ROWS, channels_read, check_compatible
from acar.bank.reader import BankReader
from acar.bank.wrong_video import WrongVideoBank
from acar.config import Config
from acar.data.class_groups import pose_columns, read_classes
from acar.data.detection_files import write_detection_files
from acar.data.inference_clips import BOX, VideoActors, actor_clips, video_actors
from acar.data.key_frames import KeyFrame, annotated_actors
from acar.data.key_times import KeyTimes
from acar.data.pieces import VideoPieces, digest_of_clips
from acar.data.sources import label_map_path, labels_path
from acar.data.tables import (
    LabelMap,
    read_boxes,
    read_labels,
    read_videos,
)
from acar.devices import resolve_device
from acar.errors import UserError
from acar.files import finished_folder, sha256_of, write_json_atomic
from acar.inference.scorer import Scorer
from acar.models.grid import check_frame_sizes
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.progress import progress
from acar.provenance import digest_of
from acar.report.examples import pick_examples, save_examples
from acar.training.weights import trained_facts, trained_network
from acar.workflow import examples_variant, stage_digest

VARIANTS = {"stage1": 1, "stage2": 2, "stage2_wrong_bank": 2}


def run(config: Config, variant: str, shard: int) -> None:
    """Write detections.csv and .parquet (and, for shard 0 of the last stage, the report's examples) of one val shard.

    Persons are scored where `acar.data.key_times.KeyTimes.scored` says: the labels' times, and the whole seconds
    between them or of `data.span_s`. A killed prediction goes on after the last whole video.
    """
    paths = Paths.of(config)
    if variant not in VARIANTS:
        raise UserError(f"--variant {variant}: expected one of {', '.join(VARIANTS)}")
    check_frame_sizes(config)
    videos = read_videos([paths.ingest("val", shard)])
    videos = videos[videos["status"] == "ok"]
    boxes = read_boxes([paths.boxes("val", shard)])
    scorer = trained_scorer(config, variant)
    truth = annotated_actors(read_labels(labels_path(config, "val")), scorer.label_map)
    sources = _sources(config, variant, shard)
    origin = origin_of(config, "predict", variant=variant, shard=shard)
    pieces = VideoPieces(
        paths.work(f"predict-{variant}-{shard:03d}"), sources | _more_sources(config, variant, videos),
        list(videos["video"]),
    )  # fmt: skip
    _predict_videos(config, variant, shard, scorer, videos, boxes, truth, pieces)
    with finished_folder(paths.predictions(variant, shard)) as folder:
        table = pieces.together(_empty_table())
        write_detection_files(table, folder)
        facts = {"variant": variant, "shard": shard, "rows": len(table), "sources": sources}
        facts["views"] = config.predict.n_views
        write_json_atomic(folder / "facts.json", facts)
        if variant == examples_variant(config) and shard == 0 and config.predict.examples:
            chosen = pick_examples(truth, set(videos["video"]), config.predict.examples)
            save_examples(folder / "examples.npz", config, scorer, videos, boxes, chosen)
        write_origin(folder, origin)
    pieces.remove()


def trained_scorer(config: Config, variant: str) -> Scorer:
    """The network of a variant with the val split's bank, if it reads one.

    Raises:
        UserError: the training is not there, or its bank and the val split's do not fit each other.
    """
    paths, stage = Paths.of(config), VARIANTS[variant]
    device = resolve_device(config.run.device)
    label_map = read_classes(config)
    pose = torch.tensor(pose_columns(label_map), dtype=torch.int64)
    net = trained_network(config, stage, len(label_map), device)
    if stage == 1:
        return Scorer(net, device, pose, label_map, config.predict)
    if config.model.head.memory == "none":
        raise UserError(f"--variant {variant}: model.head.memory: none has no stage 2")
    bank: Any = BankReader(paths.bank("val"), reads=[MEMORY_ROWS[config.model.head.memory]])
    trained_on = trained_facts(paths.training(2), "acar train-stage2")["sources"]
    d, c = channels_read(config.model.head)
    check_compatible(bank.manifest, d=d, c=c, split="val", weights_sha256=trained_on["bank_weights"])
    if variant == "stage2_wrong_bank":
        bank = WrongVideoBank(bank, config.run.seed)
    return Scorer(net, device, pose, label_map, config.predict, bank, config.stage2.window)


def _predict_videos(
    config: Config, variant: str, shard: int, scorer: Scorer, videos: pd.DataFrame, boxes: pd.DataFrame,
    truth: dict[tuple[str, float], KeyFrame], pieces: VideoPieces,
) -> None:  # fmt: skip
    """Add the scores of the videos that an interrupted run has not finished."""
    labelled: dict[str, list[float]] = {}
    key_times = KeyTimes(config, "val")
    for video, time_s in truth:
        labelled.setdefault(video, []).append(time_s)
    todo = [record for _, record in videos.iterrows() if record["video"] not in pieces.finished]
    bar = progress(todo, total=len(videos), desc=f"predict {variant} {shard}", unit="videos")
    bar.resume_at(len(pieces.finished))
    for record in bar:
        video = str(record["video"])
        chosen = key_times.scored(record, labelled[video])
        actors = video_actors(video, boxes, config.predict.min_score, chosen)
        pieces.add(video, _predict_video(config, scorer, record, actors))


def _predict_video(config: Config, scorer: Scorer, record: Any, actors: VideoActors) -> pd.DataFrame:
    parts, video_scorer = [_empty_table()], scorer.of(record)
    batches = actor_clips(record, actors, config.clip, config.predict.batch_clips, len(scorer.label_map))
    for places, clips in batches:
        values = video_scorer.scores(clips, [actors.times_s[p] for p in places])
        times = np.repeat([actors.times_s[p] for p in places], [len(actors.scores[p]) for p in places])
        parts.append(_rows(actors.video, times, clips.boxes_xyxy_norm.numpy(), values, scorer.label_map))
    return pd.concat(parts, ignore_index=True)


def _rows(
    video: str, times_s: np.ndarray, boxes: np.ndarray, values: np.ndarray, label_map: LabelMap
) -> pd.DataFrame:
    """One row an actor and class: (K,), (K, 4), (K, C) to K*C rows."""
    n_classes = values.shape[1]
    table = pd.DataFrame(np.repeat(boxes.astype(np.float64), n_classes, axis=0), columns=BOX)
    table.insert(0, "video", video)
    table.insert(1, "time_s", np.repeat(times_s, n_classes))
    table["action_id"] = np.tile(np.array(label_map.ids), len(values))
    table["score"] = values.reshape(-1).astype(np.float64)
    return table


def _empty_table() -> pd.DataFrame:
    columns = {"video": str, "time_s": float, **dict.fromkeys(BOX, float), "action_id": int, "score": float}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def _sources(config: Config, variant: str, shard: int) -> dict[str, str]:
    """Digests of the artefacts that the scores follow from."""
    paths, stage = Paths.of(config), VARIANTS[variant]
    found = {
        "weights": sha256_of(paths.training(stage) / "model.safetensors"),
        "boxes": sha256_of(paths.boxes("val", shard) / "boxes.parquet"),
    }
    if stage == 2:
        found["bank"] = sha256_of(paths.bank("val") / "manifest.json")
    return found


def _more_sources(config: Config, variant: str, videos: pd.DataFrame) -> dict[str, Any]:
    """What else a video's scores follow from; the report's examples are made anew in any case."""
    keys = stage_digest(config, "ingest", "val") | stage_digest(config, "predict", "val")
    del keys["predict.examples"]
    found: dict[str, Any] = {
        "videos": digest_of_clips(videos),
        "labels": sha256_of(labels_path(config, "val")),
        "label map": sha256_of(label_map_path(config)),
        "torch": torch.__version__,
        **keys,
    }
    if VARIANTS[variant] == 2:
        found["stage2.window"] = digest_of(config.stage2.window)
    if variant == "stage2_wrong_bank":
        found["run.seed"] = config.run.seed  # of which video's rows are taken
    return found
