from __future__ import annotations

from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

from acar.config import Config, parse_config
from acar.jobs.resources import gpus_asked, gpus_offered, stage_resources, stage_threads

CLUSTER = {
    "account": "lab",
    "cpu_partition": "short",
    "gpu_partition": "gpus",
    "train_stage2": {"partition": "long", "runtime_min": 99, "mem_mib": 123, "threads": 5},
}


class JobResources(dict):
    """A job's resources as the slurm executor reads them: by key and by attribute."""

    __getattr__ = dict.__getitem__


def _sbatch(resources: dict[str, int | str], threads: int = 8) -> list[str]:
    """The options that the slurm executor plugin makes of a job's resources."""
    job = SimpleNamespace(resources=JobResources(resources), threads=threads)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    call = get_submit_command(job, dict.fromkeys(names, "")) + set_gres_string(job)
    return [word for word in call.split() if word.startswith(("--gpus", "--gres", "--nodes", "--ntasks"))]


def test_defaults_leave_to_the_cluster_what_it_may_choose():
    assert stage_resources(Config(), "seal_bank") == {"gpu": 0, "mem_mb": 16000, "runtime": 240}
    assert stage_resources(Config(), "predict", gpu=1) == {
        "gpu": 1, "nodes": 1, "mem_mb": 32000, "runtime": 720
    }  # fmt: skip


def test_a_stage_has_its_own_partition_or_that_of_its_kind():
    config = parse_config({"resources": CLUSTER})
    partitions = [
        stage_resources(config, stage, gpu=gpu)["slurm_partition"]
        for stage, gpu in (("ingest", 0), ("detect", 0), ("detect", 1), ("train_stage2", 8))
    ]
    assert partitions == ["short", "short", "gpus", "long"]
    asked = stage_resources(config, "train_stage2", gpu=8)
    assert (asked["runtime"], asked["mem_mb"], asked["slurm_account"]) == (99, 123, "lab")
    assert stage_threads(config, "train_stage2", 64) == 5


def test_threads_that_are_left_open():
    on_cpu = {"run": {"device": "cpu"}}
    assert stage_threads(Config(), "ingest", 64) == 2
    assert stage_threads(Config(), "extract_bank", None) == 8
    assert stage_threads(parse_config(on_cpu), "extract_bank", 12) == 12
    imported = {"detector": {"source": "boxes", "boxes": {"train": "a.csv", "val": "b.csv"}}}
    assert stage_threads(parse_config(on_cpu | imported), "detect", 12) == 1


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        ({}, 2, ["--nodes=1", "--gpus=2"]),
        ({}, 0, ["--ntasks=1"]),
        ({"gpu_model": "a100"}, 2, ["--nodes=1", "--gpus=a100:2"]),
        ({"gpu_model": "a100"}, 0, ["--ntasks=1"]),
        ({"gpus_as": "gres"}, 2, ["--nodes=1", "--gres=gpu:2"]),
        ({"gpus_as": "gres"}, 0, ["--ntasks=1"]),
        ({"gpus_as": "gres", "gpu_model": "a100"}, 2, ["--nodes=1", "--gres=gpu:a100:2"]),
    ],
)
def test_the_slurm_executor_asks_for_gpus_once(asked, gpus, expected):
    resources = stage_resources(parse_config({"resources": asked}), "train_stage1", gpu=gpus)
    assert _sbatch(resources) == expected
    assert gpus_asked(None, resources) == gpus


@pytest.mark.parametrize("gpus_as", ["gpu", "gres"])
def test_a_job_takes_no_more_than_is_offered(gpus_as):
    config = parse_config({"resources": {"gpus_as": gpus_as, "gpu_model": "a100"}})
    assert gpus_asked(None, stage_resources(config, "train_stage1", gpu=8, offered=3)) == 3
    assert _sbatch(stage_resources(config, "train_stage1", gpu=8, offered=0)) == ["--ntasks=1"]
    assert gpus_offered({"gpu": SimpleNamespace(value=3)}) == 3
    assert gpus_offered({"_cores": SimpleNamespace(value=8)}) is None
