"""What the Snakemake rules ask: which jobs there are, which files they need, and what reruns them.

Everything here is plain Python on the typed config, and nothing imports torch, so the DAG is built quickly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from acar.config import Config, Split
from acar.data.sources import excluded_path, label_map_path, labels_path, videos_folder
from acar.files import existing_folder, write_text_atomic
from acar.paths import Paths
from acar.provenance import digest_of
from acar.weights.catalogue import check_fetched, weights_path

_TRAINING = ("clip", "model", "compute", "boxes", "data.class_groups.pose", "run.seed")
_DETECTOR = ("source", "architecture", "weights", "min_side_px", "max_side_px", "extra")

# The config that each stage reads, as dotted keys; `{split}` stands for the job's split. A change in one of
# them reruns the stage, and nothing else of the config does. Files named in the config are the rules' inputs.
STAGE_KEYS: dict[str, tuple[str, ...]] = {
    "synthesize": ("synthesize",),
    "ingest": ("ingest", "data.source", "data.span_s", "data.{split}.shards"),
    "train_detector": (
        *(f"detector.{key}" for key in _DETECTOR),
        *(f"detector.{key}" for key in ("iterations", "batch_images", "base_lr", "warmup_iterations")),
        "data.span_s",
        "data.key_frames",
        "run.seed",
    ),
    "detect": (
        *(f"detector.{key}" for key in _DETECTOR),
        *(f"detector.{key}" for key in ("keep_score", "nms_iou", "max_boxes")),
        "data.span_s",
        "data.key_frames",
        "data.{split}.shards",
    ),
    "train_stage1": (*_TRAINING, "stage1"),
    "extract_bank": ("clip", "model", "compute", "bank", "data.span_s", "data.{split}.shards"),
    "seal_bank": ("data.span_s", "data.{split}.shards"),
    "train_stage2": (*_TRAINING, "stage2"),
    "predict": ("clip", "model", "compute", "data.class_groups.pose", "data.span_s", "data.key_frames",
                "data.{split}.shards", "predict.min_score", "predict.short_sides_px", "predict.flip",
                "predict.examples"),
    "evaluate": ("data.span_s", "data.key_frames", "data.class_groups", "evaluation"),
}  # fmt: skip

# Keys inside those sections that change how fast or how loudly a stage works, not what it writes (those of `compute`
# no more than `run.device` does: the order of sums, so the last bits).
NEUTRAL_KEYS = frozenset(
    f"{section}.{key}"
    for section, keys in {
        "stage1": ("workers", "cache_mib", "checkpoint_every", "log_every"),
        "stage2": ("workers", "cache_mib", "checkpoint_every", "log_every"),
        "bank": ("batch_clips",),
        "compute": ("memory_format", "compile", "checkpoint_activations"),
        "detector": ("checkpoint_every",),
    }.items()
    for key in keys
)

# What `train_stage1` reads in place of its keys where it takes a network (`stage1.weights`): all settings of a
# training change nothing then.
TAKING_KEYS = ("model", "data.class_groups.pose", "stage1.weights")

# Threads of a GPU job: decoding and data loading, which keep one device busy.
GPU_JOB_THREADS = 8


def stage_config(config: Config, stage: str, split: Split | None = None) -> dict[str, Any]:
    """The part of the config that `stage` reads, by dotted key, without what changes no result.

    Args:
        config: the merged config.
        stage: a rule's name, e.g. `extract_bank`.
        split: the job's split; required where the stage's keys differ by split.
    """
    if stage == "report":  # it prints the whole config
        return {key: value
                for part in STAGE_KEYS
                for key, value in stage_config(config, part, split or "val").items()}  # fmt: skip
    listed = TAKING_KEYS if stage == "train_stage1" and not trains_stage1(config) else STAGE_KEYS[stage]
    assert split is not None or not any("{split}" in key for key in listed), stage
    keys = [key.format(split=split) for key in listed]
    return {key: _without_neutral(key, _lookup(config, key)) for key in keys}


def stage_digest(config: Config, stage: str, split: Split | None = None) -> dict[str, str]:
    """A short digest of each key of `stage_config`; Snakemake reruns the job when one differs."""
    return {key: digest_of(value)[:12] for key, value in stage_config(config, stage, split).items()}


def _lookup(config: Config, key: str) -> Any:
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        if value is None:  # `data.class_groups.pose` where the label map tells the groups
            return None
        value = value[part]
    return value


def _without_neutral(key: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if f"{key}.{name}" not in NEUTRAL_KEYS}


def shards(config: Config, split: Split) -> list[str]:
    """The shard wildcards of a split: `["000", "001", ...]`."""
    return [f"{shard:03d}" for shard in range(getattr(config.data, split).shards)]


def variants(config: Config) -> list[str]:
    """The predictions that are made and evaluated, in the report's order."""
    if not has_stage2(config):
        return ["stage1"]
    return ["stage1", "stage2"] + (["stage2_wrong_bank"] if config.predict.wrong_bank else [])


def has_stage2(config: Config) -> bool:
    """Whether the head reads a bank: without one, stage 2 would be stage 1 again."""
    return config.model.head.memory != "none"


def trains_stage1(config: Config) -> bool:
    """Whether stage 1 is trained here; else its network is taken as `stage1.weights` has it."""
    return config.stage1.weights is None


def stage1_gpus(config: Config) -> int:
    """GPUs that stage 1 asks for: none to take a network."""
    return config.run.train_gpus if trains_stage1(config) else 0


def splits_ingested(config: Config) -> list[Split]:
    """The splits whose videos are needed: a taken network without stage 2 needs no training split."""
    return ["train", "val"] if config.detector.source == "train" else splits_boxed(config)


def splits_boxed(config: Config) -> list[Split]:
    """The splits whose person boxes are needed."""
    return ["train", "val"] if trains_stage1(config) or has_stage2(config) else ["val"]


def weights_read(config: Config) -> dict[str, str]:
    """The weights that this run's networks start from, by config key: files or names of the catalogue."""
    named = {"stage1.weights": config.stage1.weights}
    if trains_stage1(config) or has_stage2(config):
        named["model.backbone.weights"] = config.model.backbone.weights
    return {key: weights for key, weights in named.items() if weights is not None}


def check_weights_fetched(config: Config) -> None:
    """Refuse weights of the catalogue that this run reads and that are not fetched yet.

    Raises:
        UserError: see `acar.weights.catalogue.check_fetched`.
    """
    for key, weights in weights_read(config).items():
        check_fetched(weights, key)


def check_results_folder(config: Config) -> None:
    """Refuse a `run.results` that is no folder; who only looks need not be able to write there.

    Raises:
        UserError: something else is in its place, such as a file, or it cannot be looked at.
    """
    existing_folder(f"run.results: {config.run.results}", Paths.of(config).root.absolute())


def examples_variant(config: Config) -> str:
    """The variant whose first shard's prediction saves the report's examples."""
    return "stage2" if has_stage2(config) else "stage1"


def label_source(config: Config, split: Split) -> str:
    """What names a split's videos: its labels csv, or the drawn data set's folder."""
    drawn = config.data.source == "synthetic"
    return str(Paths.of(config).data if drawn else labels_path(config, split))


def video_folders(config: Config) -> list[str]:
    """The folder of the user's videos; none where they are drawn (`label_source` holds them then)."""
    return [] if config.data.source == "synthetic" else [str(videos_folder(config))]


def annotation_files(config: Config, split: Split) -> dict[str, str]:
    """The split's labels, excluded key frames (if any) and the label map, as rule inputs."""
    if config.data.source == "synthetic":
        return {"data": str(Paths.of(config).data)}
    files = {"labels": str(labels_path(config, split)), "label_map": str(label_map_path(config))}
    excluded = excluded_path(config, split)
    return files | ({} if excluded is None else {"excluded": str(excluded)})


def stage1_files(config: Config) -> dict[str, str]:
    """What stage 1 is made from apart from videos and boxes, as rule inputs.

    For a training the labels and the initial backbone; for a network that is taken its file, and the label map
    for the number of classes.
    """
    if config.stage1.weights is None:
        return annotation_files(config, "train") | backbone_files(config)
    drawn = config.data.source == "synthetic"
    label_map = {"data": str(Paths.of(config).data)} if drawn else {"label_map": str(label_map_path(config))}
    return label_map | {"network": str(weights_path(config.stage1.weights))}


def backbone_files(config: Config) -> dict[str, str]:
    """The initial backbone weights that a training starts from, if any."""
    weights = config.model.backbone.weights
    return {} if weights is None else {"backbone": str(weights_path(weights))}


def detector_files(config: Config, split: Split) -> dict[str, str]:
    """Where detect takes its boxes from: the trained detector, a weights file or an imported box file."""
    detector = config.detector
    if detector.source == "train":
        return {"detector": str(Paths.of(config).detector)}
    if detector.source == "boxes":
        assert detector.boxes is not None
        return {"box_file": detector.boxes[split]}
    return initial_detector_files(config)


def reads_bank(variant: str) -> bool:
    """Whether a variant is predicted with the val split's bank."""
    return variant != "stage1"


def trained_files(config: Config, variant: str) -> dict[str, str]:
    """The weights that a variant is predicted with."""
    return {"weights": str(Paths.of(config).training(2 if reads_bank(variant) else 1))}


def key_frame_files(config: Config, split: Split) -> dict[str, str]:
    """The labels where they say which frames the persons are looked for in; whole seconds need none."""
    return {} if config.data.key_frames == "seconds" else {"labels": label_source(config, split)}


def initial_detector_files(config: Config) -> dict[str, str]:
    """`detector.weights` if it is a file; a torchvision weights name such as `COCO_V1` is none."""
    weights = config.detector.weights
    is_file = weights is not None and ("/" in weights or Path(weights).suffix != "")
    return {"weights": weights} if weights is not None and is_file else {}


def gpu_job_threads(config: Config, cores: int | None, environ: Mapping[str, str] = os.environ) -> int:
    """Threads of a job that computes on a GPU, or on the CPU where this machine shows no GPU.

    Args:
        config: the merged config (`run.device: cpu` counts as no GPU).
        cores: `snakemake --cores`; None on a cluster whose jobs run elsewhere.
        environ: for `CUDA_VISIBLE_DEVICES`.
    """
    if cores is None or (config.run.device != "cpu" and _a_gpu_is_here(environ)):
        return GPU_JOB_THREADS
    return cores


def _a_gpu_is_here(environ: Mapping[str, str]) -> bool:
    # A look at the device files: asking the driver can take seconds, and every `snakemake -n` comes by here.
    if environ.get("CUDA_VISIBLE_DEVICES", "any").strip() in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))


def config_text(config: Config) -> str:
    """The merged config as YAML, every key spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def write_config(config: Config) -> None:
    """Write the config that the jobs read, unless the file says the same already."""
    path, text = Paths.of(config).config, config_text(config)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text_atomic(path, text)


def put_acar_on_path() -> None:
    """Let the jobs' shells find the `acar` of the environment that runs Snakemake, activated or not."""
    programs = Path(sys.executable).parent
    if (programs / "acar").exists():
        os.environ["PATH"] = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
