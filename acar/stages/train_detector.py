"""Train the person detector on the train split's boxes."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from acar.config import Config
from acar.data.sources import excluded_path, labels_path
from acar.data.tables import check_any_usable, read_excluded, read_labels, read_videos
from acar.detection.faster_rcnn import build_detector
from acar.detection.key_images import KeyImage, KeyImageReader, key_images
from acar.detection.train import Batches, fit
from acar.devices import resolve_device
from acar.errors import UserError
from acar.files import finished_folder, sha256_of, write_json_atomic
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths

IMAGES_IN_MEMORY_MIB = 2048.0


def run(config: Config) -> None:
    """Write `detector/`: model.safetensors, metrics.jsonl, facts.json.

    A run that was killed goes on from `work/detector/` as if it had not been.

    Raises:
        UserError: `detector.source` is not `train`, or no labelled key frame lies in an ingested video.
    """
    if config.detector.source != "train":
        raise UserError(
            f"detector.source is `{config.detector.source}`: there is nothing to train; set it to `train`, "
            "or go on with `acar detect`"
        )
    paths, origin = Paths.of(config), origin_of(config, "train_detector")
    device = resolve_device(config.run.device)
    images, videos = _training_images(config, paths)
    run_key = _run_key(config, images)
    torch.manual_seed(config.run.seed)
    model = build_detector(config.detector)
    reader = KeyImageReader(images, videos, IMAGES_IN_MEMORY_MIB)
    batches = Batches(images, reader.read, config.detector.batch_images, config.run.seed)
    checkpoint = paths.work("detector") / "checkpoint.pt"
    metrics = fit(model, batches, config.detector, device=device, checkpoint=checkpoint, run_key=run_key)
    with finished_folder(paths.detector) as folder:
        weights = folder / "model.safetensors"
        # Not save_file: that makes a file which only its owner may read.
        weights.write_bytes(save({name: value.cpu() for name, value in model.state_dict().items()}))
        lines = [json.dumps(line) for line in metrics]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        facts = _facts(config, images, model, weights, run_key)
        facts |= {"device": device.type, "wall_s": metrics[-1]["elapsed_s"]}
        write_json_atomic(folder / "facts.json", facts)
        write_origin(folder, origin)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


def _training_images(config: Config, paths: Paths) -> tuple[list[KeyImage], pd.DataFrame]:
    shards = range(config.data.train.shards)
    videos = read_videos([paths.ingest("train", shard) for shard in shards])
    check_any_usable(videos, "train")
    labels_file, excluded_file = labels_path(config, "train"), excluded_path(config, "train")
    excluded = read_excluded(excluded_file) if excluded_file is not None else set()
    images = key_images(
        read_labels(labels_file), videos, config.data.span_s, excluded,
        unlabelled_seconds=config.data.key_frames != "labelled",
    )  # fmt: skip
    if not any(len(image.boxes_xyxy_norm) for image in images):
        raise UserError(
            f"{labels_file}: none of its key frames lies in the {len(videos)} ingested train videos; check "
            "that video ids and times (seconds of the source video) agree, and data.span_s"
        )
    empty = sum(len(image.boxes_xyxy_norm) == 0 for image in images)
    print(f"train detector: {len(images)} key frames, {empty} without people", file=sys.stderr, flush=True)
    return images, videos


def _run_key(config: Config, images: list[KeyImage]) -> str:
    """Digest of everything that the trained weights follow from, up to the device."""
    digest = hashlib.sha256(_section_digest(config).encode())
    digest.update(json.dumps([config.run.seed, torch.__version__]).encode())
    for image in images:
        digest.update(f"{image.video}\0{image.time_s}\0{image.frame}\0".encode())
        digest.update(image.boxes_xyxy_norm.tobytes())
    return digest.hexdigest()


def _section_digest(config: Config) -> str:
    # How often it is saved is not part of it: a training goes on under another interval.
    section = config.detector.model_dump(mode="json", exclude={"checkpoint_every"})
    text = json.dumps(section, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(
    config: Config, images: list[KeyImage], model: torch.nn.Module, weights: Path, run_key: str
) -> dict[str, Any]:
    return {
        "architecture": config.detector.architecture,
        "config_sha256": _section_digest(config),
        "run_sha256": run_key,
        "weights_sha256": sha256_of(weights),
        "seed": config.run.seed,
        "iterations": config.detector.iterations,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "n_images": len(images),
        "n_images_without_people": sum(len(image.boxes_xyxy_norm) == 0 for image in images),
        "n_boxes": sum(len(image.boxes_xyxy_norm) for image in images),
    }
