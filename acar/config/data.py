"""Sections of the data: where it is, how it is drawn or decoded, and whose boxes it has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from acar.config.groups import checked_groups
from acar.config.section import Section

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


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
