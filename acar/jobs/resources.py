"""What each stage's jobs ask for: threads, memory, time, partition and GPUs, as the rules' `resources`.

The names are those that the slurm executor plugin reads; `acar/jobs/cluster.py` reads the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acar.config import Config, StageResources
from acar.workflow import gpu_job_threads

# What `--resources` counts where GPUs are asked for by `--gres`. It must not be called `gpu`: the slurm
# executor would ask for `--gpus` as well, and twice the GPUs is not what those clusters understand.
GRES_COUNT = "gres_gpu"


def stage_threads(config: Config, stage: str, cores: int | None) -> int:
    """Threads of a stage's jobs.

    Args:
        config: the merged config.
        stage: a rule's name, e.g. `extract_bank`.
        cores: `snakemake --cores`; None on a cluster whose jobs run elsewhere.
    """
    asked = _of_stage(config, stage).threads
    if asked is not None:
        return asked
    if stage == "detect" and config.detector.source == "boxes":  # copies a table
        return 1
    return gpu_job_threads(config, cores)


def stage_resources(
    config: Config, stage: str, *, gpu: int = 0, offered: int | None = None
) -> dict[str, int | str]:
    """A rule's `resources`; what the cluster is to choose is left out.

    Args:
        config: the merged config.
        stage: a rule's name.
        gpu: GPUs a job.
        offered: `snakemake --resources gpu=N`, of which a job takes no more; None: any number.
    """
    asked, common = _of_stage(config, stage), config.resources
    partition = asked.partition or (common.gpu_partition if gpu else common.cpu_partition)
    named = {"slurm_partition": partition, "slurm_account": common.account}
    return {
        **_gpus(config, gpu if offered is None else min(gpu, offered)),
        "mem_mb": asked.mem_mib,  # sbatch counts in MiB
        "runtime": asked.runtime_min,
        **{name: value for name, value in named.items() if value is not None},
    }


def gpus_asked(wildcards: Any, resources: Any) -> int:
    """GPUs that a job's evaluated resources ask for, whatever they are called; for the rules' `params`."""
    return int(resources.get(GRES_COUNT, resources.get("gpu", 0)))


def gpus_offered(budgets: Mapping[str, Any]) -> int | None:
    """What `snakemake --resources gpu=N` offers, of Snakemake's global resources; None without it."""
    return int(budgets["gpu"].value) if "gpu" in budgets else None


def _of_stage(config: Config, stage: str) -> StageResources:
    section = getattr(config.resources, stage)
    assert isinstance(section, StageResources), stage
    return section


def _gpus(config: Config, count: int) -> dict[str, int | str]:
    model, as_gres = config.resources.gpu_model, config.resources.gpus_as == "gres"
    asked: dict[str, int | str] = {GRES_COUNT if as_gres else "gpu": count}
    if count == 0:
        return asked
    # Without it, a cluster may take the GPUs from several machines, and a job's processes share one.
    asked["nodes"] = 1
    if as_gres:
        asked["gres"] = ":".join(["gpu", *([model] if model else []), str(count)])
    elif model:
        asked["gpu_model"] = model
    return asked
