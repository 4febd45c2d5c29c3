"""The typed configuration: one class a section of `config.yaml`, every key with its unit and source.

Never imports torch, so that building the DAG stays quick.
"""

from acar.config.data import (
    SPLITS,
    BoxesConfig,
    DataConfig,
    DetectorConfig,
    IngestConfig,
    Split,
    SplitConfig,
    SynthesizeConfig,
)
from acar.config.model import (
    I3D_WIDTH,
    I3D_WIDTH_STEP,
    BackboneConfig,
    ClipConfig,
    ComputeConfig,
    HeadConfig,
    Intensity,
    ModelConfig,
    Part,
)
from acar.config.resources import ResourcesConfig, StageResources
from acar.config.section import Section
from acar.config.stages import (
    BankConfig,
    EvaluationConfig,
    PredictConfig,
    Stage1Config,
    Stage2Config,
    TrainConfig,
    WindowConfig,
)
from acar.config.whole import Config, RunConfig, load_config, parse_config

__all__ = [
    "I3D_WIDTH",
    "I3D_WIDTH_STEP",
    "SPLITS",
    "BackboneConfig",
    "BankConfig",
    "BoxesConfig",
    "ClipConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "DetectorConfig",
    "EvaluationConfig",
    "HeadConfig",
    "IngestConfig",
    "Intensity",
    "ModelConfig",
    "Part",
    "PredictConfig",
    "ResourcesConfig",
    "RunConfig",
    "Section",
    "Split",
    "SplitConfig",
    "Stage1Config",
    "Stage2Config",
    "StageResources",
    "SynthesizeConfig",
    "TrainConfig",
    "WindowConfig",
    "load_config",
    "parse_config",
]
