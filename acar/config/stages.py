"""Sections of what is done with the network: trainings, the bank, prediction and evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from acar.config.section import Section

LEAST_SIDE_PX, MOST_SIDE_PX = 16, 4320  # short side of a view; the most is that of 8K films


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
    milestones: list[int] = Field([33000, 34000])
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

    @property
    def n_views(self) -> int:
        """How many views a clip is scored in."""
        return len(self.short_sides_px or (None,)) * (1 + self.flip)

    @field_validator("short_sides_px")
    @classmethod
    def _views_differ(cls, sides: list[int] | None) -> list[int] | None:
        if sides is None:
            return None
        for side in sides:
            if not LEAST_SIDE_PX <= side <= MOST_SIDE_PX:
                raise ValueError(f"{side} pixels; expected {LEAST_SIDE_PX} to {MOST_SIDE_PX}")
        if len({round(side / 2) for side in sides}) < len(sides):  # as ingest rounds them
            raise ValueError(f"{sides}: two are the same even number of pixels; a view would count twice")
        return sides


class EvaluationConfig(Section):
    """AVA's rules, or frame-mAP and video-mAP as for UCF101-24."""

    protocol: Literal["ava", "ucf24"] = "ava"
    iou: float = Field(0.5, gt=0, le=1)
