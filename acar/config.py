"""The typed configuration: one class a section of `config.yaml`, every key with its unit and source.

Never imports torch, so that building the DAG stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from acar.config_problems import checked_groups, explain
from acar.errors import UserError

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


class Section(BaseModel):
    """A config section: unknown keys are refused, values are immutable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name] if info.field_name else None
        if isinstance(value, bool) and field is not None and field.annotation in (int, float):
            raise ValueError(f"expected a number, not {str(value).lower()}")
        return value


class RunConfig(Section):
    """Where results go and what the jobs run on."""

    results: str = Field("results", min_length=1)
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    train_gpus: int = Field(8, ge=1, description="most GPUs one training job asks for")


class SplitConfig(Section):
    """One split's files (unused when `data.source` is `synthetic`) and its number of jobs per stage."""

    labels: str | None = Field(None, description="AVA-format csv")
    excluded: str | None = Field(None, description="csv of video,time key frames left out of evaluation")
    shards: int = Field(1, ge=1, le=1000, description="jobs that each sharded stage is split into")


class DataConfig(Section):
    """The data set: drawn by `acar synthesize`, or real files with AVA-format labels."""

    source: Literal["synthetic", "files"] = "synthetic"
    videos: str | None = Field(None, description="folder of video files or frame folders, named by video id")
    label_map: str | None = None
    class_groups: dict[str, list[int | str]] | None = Field(
        None,
        description="names or ids of each group's classes, the exclusive ones as `pose`; null: the label map's",
    )
    span_s: tuple[float, float] | None = Field(
        None, description="first and last key-frame second of every video (AVA: 902, 1798); null: whole video"
    )
    key_frames: Literal["seconds", "labelled", "both"] = Field(
        "seconds",
        description="where persons are looked for and scored: every whole second, the labels' times, or both",
    )
    train: SplitConfig = SplitConfig()
    val: SplitConfig = SplitConfig()

    @field_validator("class_groups", mode="before")
    @classmethod
    def _groups_are_lists(cls, value: Any) -> Any:
        return checked_groups(value)

    @model_validator(mode="after")
    def _span_is_ordered(self) -> DataConfig:
        if self.span_s is not None and self.span_s[0] > self.span_s[1]:
            raise ValueError(
                f"data.span_s: [{self.span_s[0]:g}, {self.span_s[1]:g}]; expected [first, last] second, "
                "the first not after the last"
            )
        return self

    @model_validator(mode="after")
    def _files_are_named(self) -> DataConfig:
        if self.source == "files":
            missing = [k for k in ("videos", "label_map") if getattr(self, k) is None]
            missing += [f"{s}.labels" for s in SPLITS if getattr(self, s).labels is None]
            if missing:
                raise ValueError(f"`data.source: files` needs data.{', data.'.join(missing)}")
        return self


class SynthesizeConfig(Section):
    """The drawn data set (docs/drawn-data.md states its law)."""

    seed: int = Field(0, ge=0)
    train_videos: int = Field(64, ge=1)
    val_videos: int = Field(56, ge=1)
    video_s: int = Field(24, ge=4, description="length of each video, seconds")
    fps: int = Field(10, ge=4)
    short_side_px: int = Field(128, ge=48)
    aspect_ratios: list[PositiveFloat] = Field(
        [4 / 3, 1.0], min_length=1, description="width / height, in turn by video"
    )
    max_actors: int = Field(4, ge=2)
    event_probability: float = Field(0.09, gt=0, lt=1, description="chance a second of each scene event")
    window_radius_s: int = Field(3, ge=1, description="a long-term class looks this far to both sides")
    cutaway_probability: float = Field(0.04, ge=0, lt=1, description="chance that a key frame shows no actor")


class IngestConfig(Section):
    """Decoding to constant-rate, short-GOP H.264."""

    short_side_px: int = Field(256, ge=16)
    fps: float = Field(30.0, gt=0)
    gop_frames: int = Field(15, ge=1)
    crf: int = Field(18, ge=0, le=51)
    on_error: Literal["stop", "skip"] = "stop"
    margin_s: float = Field(2.0, ge=0, description="kept on both sides of data.span_s")


class DetectorConfig(Section):
    """Person detection with torchvision's Faster R-CNN, or imported boxes."""

    source: Literal["train", "weights", "boxes"] = "train"
    architecture: Literal[
        "fasterrcnn_mobilenet_v3_small_fpn",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
    ] = "fasterrcnn_resnet50_fpn_v2"
    weights: str | None = Field(None, description="path or torchvision weights name (e.g. COCO_V1)")
    boxes: dict[Split, str] | None = Field(None, description="csv or pkl of person boxes, a split")
    min_side_px: int = Field(256, ge=32)
    max_side_px: int = Field(512, ge=32)
    iterations: int = Field(1000, ge=1)
    batch_images: int = Field(8, ge=1)
    base_lr: float = Field(0.02, gt=0)
    warmup_iterations: int = Field(100, ge=0)
    keep_score: float = Field(0.05, ge=0, le=1, description="boxes below are not even written")
    nms_iou: float = Field(0.5, gt=0, le=1)
    max_boxes: int = Field(50, ge=1, description="a key frame")
    checkpoint_every: int = Field(100, ge=1, description="iterations")
    extra: dict[str, Any] = Field(
        default_factory=dict, description="passed on to torchvision's FasterRCNN; also anchor_sizes_px"
    )

    @model_validator(mode="after")
    def _source_has_its_file(self) -> DetectorConfig:
        if self.source == "weights" and not self.weights:
            raise ValueError("`detector.source: weights` needs detector.weights")
        if self.min_side_px > self.max_side_px:
            raise ValueError(
                f"detector.min_side_px {self.min_side_px} is above detector.max_side_px {self.max_side_px}"
            )
        if self.source == "boxes" and not (self.boxes and set(self.boxes) == set(SPLITS)):
            raise ValueError("`detector.source: boxes` needs detector.boxes.train and detector.boxes.val")
        return self


class BoxesConfig(Section):
    """Which detected boxes training takes; `bank.min_score` and `predict.min_score` are the other uses'."""

    train_score: float = Field(0.9, ge=0, le=1, description="training clips; 0.9 in the authors' files")
    train_with_detected: bool = Field(True, description="ground-truth boxes and detected ones (section 4.1)")
    label_iou: float = Field(
        0.75, gt=0, le=1, description="a detected box takes the labels of the box it overlaps so"
    )


class ClipConfig(Section):
    """The frames around a key frame that the network sees (paper section 4.1)."""

    frames: int = Field(32, ge=1, description="frames of the fast pathway")
    stride: int = Field(2, ge=1, description="in frames of the ingested video")


Intensity = Annotated[float, Field(ge=0, le=1)]
I3D_WIDTH = 64  # channels of I3D's stem
I3D_WIDTH_STEP = 8  # widths at which all of I3D's channels are whole numbers


class BackboneConfig(Section):
    """SlowFast or I3D; width and depths below the published ones make thin networks.

    I3D has no `depths`, `fast_ratio`, `alpha`, `lateral_kernel`, `lateral_norm` and `slow_frames`: they are left
    alone, so that `kind` can be switched over any preset. What would add parts to the network is refused.
    """

    kind: Literal["slowfast", "i3d"] = "slowfast"
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)
    width: int = Field(64, ge=4, description="channels of the (slow) stem; 64 in R50, R101 and I3D")
    fast_ratio: int = Field(8, ge=1, description="slow channels over fast channels (1 / beta)")
    alpha: int = Field(4, ge=1, description="fast frames a slow frame")
    temporal_blocks: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="first blocks of res2..res5 with a temporal kernel; null: all"
    )
    nonlocal_blocks: tuple[int, ...] = Field(
        (), description="blocks of the slow res4 (from 0) with a non-local block behind them"
    )
    lateral_kernel: int = Field(7, ge=1)
    lateral_norm: bool = Field(True, description="norm and ReLU after the lateral convolution")
    slow_frames: Literal["linspace", "stride"] = "linspace"
    spatial_strides: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2, 1)
    last_dilation: int = Field(2, ge=1, description="res5 at doubled resolution (section 4.1)")
    norm: Literal["batch", "frozen_batch", "group"] = "frozen_batch"
    weights: str | None = Field(
        None, min_length=1, description="initial: safetensors, or a name that fetch-weights knows"
    )
    mean: tuple[Intensity, Intensity, Intensity] = Field((0.45, 0.45, 0.45), description="RGB in 0..1")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.225, 0.225, 0.225)

    @field_validator("lateral_kernel")
    @classmethod
    def _kernel_has_a_middle(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"{value} frames; expected an odd number")
        return value

    @model_validator(mode="after")
    def _nonlocal_blocks_are_there(self) -> BackboneConfig:
        absent = [block for block in self.nonlocal_blocks if not 0 <= block < self.depths[2]]
        if absent:
            raise ValueError(
                f"backbone.nonlocal_blocks names block {absent[0]}; res4 has {self.depths[2]}, counted from 0"
            )
        if len(set(self.nonlocal_blocks)) < len(self.nonlocal_blocks):
            raise ValueError(f"backbone.nonlocal_blocks {list(self.nonlocal_blocks)} names a block twice")
        return self

    @model_validator(mode="after")
    def _i3d_can_be_built(self) -> BackboneConfig:
        if self.kind != "i3d":
            return self
        if self.nonlocal_blocks or self.temporal_blocks:
            key = "nonlocal_blocks" if self.nonlocal_blocks else "temporal_blocks"
            raise ValueError(f"backbone.{key}: kind: i3d has none; leave the key out, or set kind: slowfast")
        if self.width % I3D_WIDTH_STEP:
            raise ValueError(
                f"backbone.width {self.width}; kind: i3d needs a multiple of {I3D_WIDTH_STEP} "
                f"(published {I3D_WIDTH})"
            )
        if self.spatial_strides[0] != 1:
            raise ValueError(
                f"backbone.spatial_strides {list(self.spatial_strides)}; kind: i3d has no stride before "
                "Conv3d_2b: the first must be 1 (published [1, 2, 2, 2])"
            )
        return self


class HeadConfig(Section):
    """RoI features, relation operator and classifier (paper section 3.2, tables 1a-1f)."""

    reduce_channels: int = Field(1024, ge=1, description="C of X and A^i after the 1x1 reduction")
    hidden_channels: int = Field(512, ge=1, description="d of F^i (section 3.2)")
    roi_size: int = Field(7, ge=1)
    encoder_norm: Literal["none", "group"] = Field("none", description="after each encoder convolution")
    downsample: Literal["none", "max2x2"] = "max2x2"
    relation: Literal["baseline", "acrn", "sto", "aia", "hr2o"] = Field("hr2o", description="table 1a")
    hr2o_design: Literal["avg", "rn", "nl"] = Field("nl", description="table 1c")
    order: Literal["context_first", "actor_first"] = Field("context_first", description="table 1d")
    memory: Literal["none", "lfb", "acfb"] = Field("acfb", description="what stage 2 reads, table 1f")
    hr2o_depth: int = Field(2, ge=0, description="blocks of hr2o, sto and aia, table 1e")
    hr2o_mlp_kernel: Literal[1, 3] = 3
    dropout: float = Field(0.2, ge=0, lt=1, description="in each attention block (eq. 2)")

    @model_validator(mode="after")
    def _relation_can_be_built(self) -> HeadConfig:
        if self.order == "actor_first" and (self.relation, self.hr2o_design) != ("hr2o", "nl"):
            raise ValueError("head.order: actor_first needs relation: hr2o and hr2o_design: nl (section 4.2)")
        readable = self.readable_memories()
        if self.memory != "none" and self.relation in ("hr2o", "sto") and not self.hr2o_depth:
            raise ValueError(
                f"head.memory: {self.memory}; without a block (head.hr2o_depth: 0) nothing reads it; "
                "set memory: none"
            )
        if self.memory not in readable:
            raise ValueError(
                f"head.memory: {self.memory}; a head of relation {self.relation}, hr2o_design "
                f"{self.hr2o_design} and order {self.order} can read {' or '.join(readable)}"
            )
        return self

    def readable_memories(self) -> tuple[str, ...]:
        """The values of `memory` that fit the other keys."""
        if self.relation in ("baseline", "acrn", "aia") or not self.hr2o_depth:
            return ("none",)
        if self.relation == "sto" or self.order == "actor_first" or self.hr2o_design == "rn":
            return ("none", "lfb")  # they relate actor features, not maps
        return ("none", "lfb", "acfb")


class ModelConfig(Section):
    """The network of both stages."""

    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    batch_padding: Literal["exact", "released"] = Field(
        "exact",
        description="clips of several frame sizes in one batch: each by itself, or zero-padded together",
    )


Part = Literal["none", "backbone", "head", "all"]


class ComputeConfig(Section):
    """How the network is computed in the trainings, the extraction and the prediction (`acar.models.compute`)."""

    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="tf32: of products on CUDA; bf16: autocast, logits and loss in float32"
    )
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    compile: Part = Field("none", description="what torch.compile translates")
    checkpoint_activations: Part = Field(
        "none", description="what a training computes again in the backward pass instead of keeping it"
    )


class WindowConfig(Section):
    """Which bank rows a clip attends to (paper section 3.3)."""

    radius_s: int = Field(10, ge=0, description="w; the window [t-w, t+w] is 2w+1 seconds")
    exclude_radius_s: int | None = Field(
        None, ge=0, description="leave out rows at most so far from t; null: none (the paper's window)"
    )


class TrainConfig(Section):
    """One stage's training (paper section 4.1). All counts are iterations of the effective batch."""

    iterations: int = Field(35000, ge=1)
    batch_clips: int = Field(32, ge=1, description="effective batch, whatever the number of GPUs")
    micro_batch_clips: int = Field(8, ge=1, description="clips a forward pass on one device")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float = Field(0.064, gt=0)
    warmup_iterations: int = Field(6000, ge=0)
    warmup_start_lr: float = Field(0.0, ge=0)
    milestones: list[int] = [33000, 34000]
    gamma: float = Field(0.1, gt=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(1e-7, ge=0)
    grad_clip_norm: float | None = Field(None, gt=0)
    flip_probability: float = Field(0.5, ge=0, le=1)
    box_jitter: float = Field(0.075, ge=0, lt=0.5, description="of the box side, each edge")
    workers: int = Field(4, ge=0, description="data loading processes")
    cache_mib: int = Field(0, ge=0, description="decoded frames kept in memory; 0: decode each clip")
    on_nan: Literal["stop", "skip"] = Field("stop", description="at a loss that is not finite")
    checkpoint_every: int = Field(500, ge=1)
    log_every: int = Field(20, ge=1)

    @model_validator(mode="after")
    def _milestones_ascend(self) -> TrainConfig:
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"milestones {self.milestones}; expected iterations in ascending order")
        return self


class Stage1Config(TrainConfig):
    """Stage 1: trained, or a whole network that is taken as it is."""

    weights: str | None = Field(
        None, min_length=1, description="a whole network, safetensors or a name; then nothing is trained"
    )


class Stage2Config(TrainConfig):
    """Stage 2: the same loop, with a bank."""

    window: WindowConfig = WindowConfig()


class BankConfig(Section):
    """Which actors have rows, of what, and how they are stored."""

    rows: Literal["relation", "actor", "both"] = Field(
        "relation", description="maps L^i (head.memory: acfb), actor features A^i (lfb) or both"
    )
    min_score: float = Field(0.5, ge=0, le=1, description="boxes kept for the bank; not stated in the paper")
    chunk_kib: int = Field(512, ge=1, description="read unit")
    rows_per_shard: int = Field(512, ge=1, description="write unit of a Zarr array")
    zstd_level: int = Field(3, ge=0, le=22, description="0: no compression")
    batch_clips: int = Field(8, ge=1)


class PredictConfig(Section):
    """Inference over the val split."""

    min_score: float = Field(0.85, ge=0, le=1, description="boxes kept at inference; paper section 4.1")
    short_sides_px: list[int] | None = Field(
        None, min_length=1, description="short side of each view; null: one, as ingested"
    )
    flip: bool = Field(False, description="a mirrored view beside each")
    batch_clips: int = Field(8, ge=1)
    wrong_bank: bool = Field(False, description="also predict with every row taken from another video")
    examples: int = Field(6, ge=0, description="key frames drawn in the report")

    @field_validator("short_sides_px")
    @classmethod
    def _views_differ(cls, sides: list[int] | None) -> list[int] | None:
        small = [side for side in sides or () if side < 16]
        if small:
            raise ValueError(f"{small[0]} pixels; expected 16 or more")
        if sides is not None and len(set(sides)) < len(sides):
            raise ValueError(f"{sides} names a short side twice")
        return sides


class EvaluationConfig(Section):
    """AVA's rules, or frame-mAP and video-mAP as for UCF101-24."""

    protocol: Literal["ava", "ucf24"] = "ava"
    iou: float = Field(0.5, gt=0, le=1)


class StageResources(Section):
    """What one job of a stage asks a cluster for."""

    mem_mib: int = Field(8000, ge=1)
    runtime_min: int = Field(720, ge=1)
    threads: int | None = Field(None, ge=1, description="null: as many as keep one GPU busy")
    partition: str | None = Field(None, min_length=1, description="null: that of the kind of stage")


class ResourcesConfig(Section):
    """What the jobs ask a cluster for; changes no result. One section a stage, named like its rule."""

    gpus_as: Literal["gpu", "gres"] = Field("gpu", description="sbatch --gpus=N or --gres=gpu:N")
    gpu_model: str | None = Field(None, pattern=r"^[A-Za-z0-9_.]+$", description="as the cluster calls it")
    account: str | None = Field(None, min_length=1)
    cpu_partition: str | None = Field(None, min_length=1, description="of stages without a GPU")
    gpu_partition: str | None = Field(None, min_length=1, description="of stages on GPUs")
    synthesize: StageResources = StageResources(mem_mib=4000, runtime_min=60, threads=1)
    ingest: StageResources = StageResources(mem_mib=4000, threads=2)
    train_detector: StageResources = StageResources(mem_mib=32000)
    detect: StageResources = StageResources(mem_mib=16000)
    train_stage1: StageResources = StageResources(mem_mib=64000, runtime_min=4320)
    extract_bank: StageResources = StageResources(mem_mib=32000, runtime_min=1440)
    seal_bank: StageResources = StageResources(mem_mib=16000, runtime_min=240, threads=4)
    train_stage2: StageResources = StageResources(mem_mib=64000, runtime_min=4320)
    predict: StageResources = StageResources(mem_mib=32000)
    evaluate: StageResources = StageResources(runtime_min=120, threads=1)
    report: StageResources = StageResources(runtime_min=60, threads=1)


class Config(Section):
    """The whole of `config.yaml`."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    ingest: IngestConfig = IngestConfig()
    detector: DetectorConfig = DetectorConfig()
    boxes: BoxesConfig = BoxesConfig()
    clip: ClipConfig = ClipConfig()
    model: ModelConfig = ModelConfig()
    compute: ComputeConfig = ComputeConfig()
    stage1: Stage1Config = Stage1Config()
    bank: BankConfig = BankConfig()
    stage2: Stage2Config = Stage2Config()
    predict: PredictConfig = PredictConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _bank_has_what_is_read(self) -> Config:
        needed = {"acfb": "relation", "lfb": "actor"}.get(self.model.head.memory)
        if needed is not None and self.bank.rows not in (needed, "both"):
            raise ValueError(
                f"bank.rows: {self.bank.rows}, but model.head.memory: {self.model.head.memory} reads "
                f"{needed} rows; set bank.rows: {needed} or both"
            )
        if self.model.head.relation == "sto" and self.bank.rows != "actor" and needed is not None:
            raise ValueError(f"bank.rows: {self.bank.rows}; a head of relation sto has actor features only")
        return self

    @model_validator(mode="after")
    def _bank_has_seconds(self) -> Config:
        if self.data.key_frames == "labelled" and self.model.head.memory != "none":
            raise ValueError(
                f"data.key_frames: labelled, but model.head.memory: {self.model.head.memory} reads a bank, which has "
                "rows at whole seconds; set model.head.memory: none, or data.key_frames: both (or seconds)"
            )
        return self

    @model_validator(mode="after")
    def _pathways_fit(self) -> Config:
        alpha, backbone = self.model.backbone.alpha, self.model.backbone
        if backbone.kind != "slowfast":
            return self
        if self.clip.frames % alpha:
            raise ValueError(
                f"clip.frames {self.clip.frames} is not a multiple of model.backbone.alpha {alpha}"
            )
        if backbone.nonlocal_blocks and self.clip.frames // alpha < 2:
            raise ValueError(
                f"model.backbone.nonlocal_blocks need 2 slow frames at least; clip.frames {self.clip.frames} and "
                f"alpha {alpha} give {self.clip.frames // alpha}"
            )
        if backbone.width % backbone.fast_ratio:
            raise ValueError(
                f"model.backbone.width {backbone.width} is not a multiple of fast_ratio {backbone.fast_ratio}"
            )
        return self


def parse_config(values: dict[str, Any], *, source: str = "config") -> Config:
    """Check a nested dict against the typed config.

    Raises:
        UserError: unknown key, wrong type or impossible value; names the key, the value and what is allowed.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [explain(item, Config) for item in error.errors()]
        raise UserError(f"{source}: {len(lines)} problem(s)\n  " + "\n  ".join(lines)) from None


def load_config(path: str | Path) -> Config:
    """Read one YAML file into the typed config.

    Raises:
        UserError: the file is absent, is not YAML, or does not fit the typed config.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such config file; pass --config PATH")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected sections (`run:`, `data:`, ...), found {type(values).__name__}")
    return parse_config(values, source=str(path))
