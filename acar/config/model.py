"""Sections of the network: its clips, its parts, and how it is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from acar.config.section import Section


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
