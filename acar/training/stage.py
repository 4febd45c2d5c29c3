"""From config to a trained network: what `train-stage1` and `train-stage2` share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import save

from acar.bank.manifest import MEMORY_ROWS, channels_read, check_compatible, check_same_source
from acar.bank.reader import BankReader
from acar.config import Config, Stage2Config, TrainConfig
from acar.data.class_groups import pose_columns, read_classes
from acar.data.clip_dataset import TrainingClips
from acar.data.key_frames import KeyFrame, training_key_frames
from acar.data.sources import excluded_path, label_map_path, labels_path
from acar.data.tables import (
    LabelMap,
    check_any_usable,
    check_labels,
    labels_in_span,
    labels_without,
    read_boxes,
    read_excluded,
    read_labels,
    read_videos,
)
from acar.devices import resolve_device
from acar.errors import UserError
from acar.files import finished_folder, sha256_of, write_bytes_atomic, write_json_atomic, write_text_atomic
from acar.models.compute import prepared
from acar.models.net import build_network, load_backbone_weights
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.provenance import digest_of, digest_of_files
from acar.training.checkpoint import Checkpointer
from acar.training.distributed import Processes
from acar.training.loop import Outcome, Training, run_training
from acar.training.plan import BatchPlan
from acar.weights.catalogue import check_fetched, weights_path

# Settings of how fast or how loudly a training goes, not of what comes out.
# `on_nan` is among them so that a training that stopped at a clip goes on without it.
NEUTRAL = {"workers", "cache_mib", "checkpoint_every", "log_every", "on_nan"}


def train_stage(config: Config, stage: int) -> None:
    """Train stage 1 (no bank) or stage 2 (with the sealed bank) and write its folder.

    Stage 2 is a new network, not stage 1 continued (paper section 3.3).

    Raises:
        UserError: labels, boxes or bank do not fit each other or the config.
    """
    paths = Paths.of(config)
    settings: TrainConfig = config.stage1 if stage == 1 else config.stage2
    processes = Processes(resolve_device(config.run.device))
    seed = 2 * config.run.seed + stage
    label_map = read_classes(config)
    poses = pose_columns(label_map)
    key_frames, videos = _training_data(config, label_map)
    bank = _training_bank(config) if stage == 2 else None
    window = config.stage2.window if stage == 2 else None
    clips = TrainingClips(key_frames, videos, config.clip, settings, seed, bank, window)
    # As released: a micro-batch takes clips as they come, whatever their sizes, and pads them.
    mixed = config.model.batch_padding == "released"
    plan = BatchPlan(
        [(0, 0)] * len(clips) if mixed else clips.sizes(),
        settings.batch_clips,
        settings.micro_batch_clips,
        seed,
        processes.rank,
        processes.world,
    )
    net = _new_network(config, len(label_map), seed, processes.device)
    sources, origin = _sources(config, stage, settings, poses), origin_of(config, f"train_stage{stage}")
    training = Training(
        net, config.model.backbone, settings, clips, plan,
        torch.tensor(poses, dtype=torch.int64),
        processes, Checkpointer(paths.work(f"stage{stage}"), digest_of(sources)), seed, f"stage{stage}",
    )  # fmt: skip
    outcome = run_training(training)
    if processes.first:
        _finish(config, stage, training, sources, outcome, origin)
    processes.wait()
    processes.close()


def _training_data(config: Config, label_map: LabelMap) -> tuple[list[KeyFrame], pd.DataFrame]:
    paths, shards = Paths.of(config), range(config.data.train.shards)
    labels_csv = labels_path(config, "train")
    labels = read_labels(labels_csv)
    labels = labels_in_span(check_labels(labels, label_map, labels_csv), config.data.span_s)
    excluded = excluded_path(config, "train")
    labels = labels_without(labels, read_excluded(excluded) if excluded else ())
    videos = read_videos([paths.ingest("train", k) for k in shards])
    check_any_usable(videos, "train")
    videos = videos[videos["status"] == "ok"].reset_index(drop=True)
    boxes = read_boxes([paths.boxes("train", k) for k in shards])
    key_frames = training_key_frames(labels, boxes, label_map, config.boxes, set(videos["video"]))
    if not key_frames:
        raise UserError(f"{labels_csv}: no labelled key frame in any ingested video; check ids and seconds")
    return key_frames, videos


def _training_bank(config: Config) -> BankReader:
    paths, memory = Paths.of(config), config.model.head.memory
    if memory == "none":
        raise UserError(
            "model.head.memory: none has no stage 2: nothing would differ from stage 1; set it to acfb or lfb"
        )
    bank = BankReader(paths.bank("train"), reads=[MEMORY_ROWS[memory]])
    d, c = channels_read(config.model.head)
    check_compatible(bank.manifest, d=d, c=c, split="train")
    check_same_source(bank.manifest, BankReader(paths.bank("val")).manifest)
    return bank


def _new_network(config: Config, n_classes: int, seed: int, device: torch.device) -> Any:
    torch.manual_seed(seed)
    net = build_network(config.model, n_classes)
    if config.model.backbone.weights:
        check_fetched(config.model.backbone.weights)
        load_backbone_weights(net, weights_path(config.model.backbone.weights))
    return prepared(net, config.compute, device).train()


def _sources(config: Config, stage: int, settings: TrainConfig, poses: list[int]) -> dict[str, Any]:
    """Digests of what the weights depend on; `poses` as columns."""
    paths = Paths.of(config)
    shards = range(config.data.train.shards)
    found = {
        "settings": digest_of(settings.model_dump(exclude=NEUTRAL)),
        "network": digest_of([config.model, config.compute.precision, config.clip, config.boxes, poses]),
        "seed": config.run.seed,
        "labels": sha256_of(labels_path(config, "train")),
        "excluded": _digest_if_any(excluded_path(config, "train")),
        "label_map": sha256_of(label_map_path(config)),
        "videos": digest_of_files(paths.ingest("train", k) / "videos.parquet" for k in shards),
        "boxes": digest_of_files(paths.boxes("train", k) / "boxes.parquet" for k in shards),
    }
    if isinstance(settings, Stage2Config):
        found["bank"] = sha256_of(paths.bank("train") / "manifest.json")
        found["bank_weights"] = BankReader(paths.bank("train")).manifest["provenance"]["weights_sha256"]
    return found


def _digest_if_any(path: Path | None) -> str | None:
    return sha256_of(path) if path is not None else None


def _finish(
    config: Config, stage: int, training: Training, sources: dict[str, Any], outcome: Outcome,
    origin: dict[str, Any],
) -> None:  # fmt: skip
    """Write the declared folder; the checkpoint goes once it stands."""
    work = training.checkpoints.folder
    with finished_folder(Paths.of(config).training(stage)) as folder:
        weights = {
            name: value.detach().cpu().contiguous() for name, value in training.net.state_dict().items()
        }
        # Not save_file: it would keep others from reading the file.
        write_bytes_atomic(folder / "model.safetensors", save(weights))
        shutil.copyfile(training.checkpoints.log, folder / "metrics.jsonl")
        (folder / "tensorboard").mkdir()
        for events in sorted((work / "tensorboard").glob("*")):  # copytree would hide why a copy failed
            shutil.copyfile(events, folder / "tensorboard" / events.name)
        write_text_atomic(
            folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        )
        facts = {
            "weights_sha256": sha256_of(folder / "model.safetensors"),
            "parameters": sum(p.numel() for p in training.net.parameters()),
            "iterations": training.settings.iterations,
            "key_frames": len(training.clips),
            "actors": int(sum(len(frame.targets) for frame in training.clips.key_frames)),
            "exclusive_columns": training.pose.tolist(),
            "processes": training.processes.world,
            "threads": torch.get_num_threads(),
            "device": str(training.processes.device),
            "compute": config.compute.model_dump(mode="json"),
            "torch": torch.__version__,
            "resumed_from": outcome.started_at,
            "skipped_clips": [{"clip": c, "times": n} for c, n in outcome.skipped_clips.items()],
            "sources": sources,
        }
        write_json_atomic(folder / "facts.json", facts)
        write_origin(folder, origin)
    shutil.rmtree(work, ignore_errors=True)
