"""Sections of what jobs ask a cluster for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from acar.config.section import Section


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
