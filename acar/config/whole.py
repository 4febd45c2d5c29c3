"""The whole config, what must fit between its sections, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from acar.config.data import BoxesConfig, DataConfig, DetectorConfig, IngestConfig, SynthesizeConfig
from acar.config.model import ClipConfig, ComputeConfig, ModelConfig
from acar.config.problems import explain
from acar.config.resources import ResourcesConfig
from acar.config.section import Section
from acar.config.stages import BankConfig, EvaluationConfig, PredictConfig, Stage1Config, Stage2Config
from acar.errors import UserError


class RunConfig(Section):
    """Where results go and what the jobs run on."""

    results: str = Field("results", min_length=1)
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    train_gpus: int = Field(8, ge=1, description="most GPUs one training job asks for")


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
