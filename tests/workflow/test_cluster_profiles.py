"""The cluster profiles, against a faked Slurm that writes down what each job asked for and runs it."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_cluster.slurm import install, read_options
from workflow_runs import REPOSITORY, job_counts, run_snakemake

pytestmark = pytest.mark.slow

SMALL = {
    "run": {"train_gpus": 2},
    "data": {"train": {"shards": 1}},
    "predict": {"wrong_bank": False},
}
ASKED = {
    "resources": {
        "account": "lab",
        "cpu_partition": "short",
        "gpu_partition": "gpus",
        "train_stage1": {"partition": "long", "mem_mib": 48000, "runtime_min": 2880, "threads": 6},
    }
}
# Partition, minutes, MiB, threads and GPUs of each stage's jobs.
FLAGS = {
    "synthesize": ("short", "60", "4000", "1", None),
    "ingest": ("short", "720", "4000", "2", None),
    "train_detector": ("gpus", "720", "32000", "8", "1"),
    "detect": ("gpus", "720", "16000", "8", "1"),
    "train_stage1": ("long", "2880", "48000", "6", "2"),
    "extract_bank": ("gpus", "1440", "32000", "8", "1"),
    "seal_bank": ("short", "240", "16000", "4", None),
    "train_stage2": ("gpus", "4320", "64000", "8", "2"),
    "predict": ("gpus", "720", "32000", "8", "1"),
    "evaluate": ("short", "120", "8000", "1", None),
    "report": ("short", "60", "8000", "1", None),
}
ONCE = {"train_detector", "train_stage1", "train_stage2", "synthesize", "report"}  # the others: two jobs
OPTIONS = ("--partition", "--time", "--mem", "--cpus-per-task", "--gpus")
ONE_SHARD = "results/bank/train/shard-000"
QUICK = (
    "--latency-wait",
    "5",
    "--seconds-between-status-checks",
    "1",
    "--max-status-checks-per-second",
    "20",
)
QUICK_SLURM = ("--slurm-init-seconds-before-status-checks", "1")


class Cluster:
    """A working folder, and the faked cluster that its jobs run on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "cluster/calls.jsonl"

    def run(self, profile: str, *arguments: str, config: dict | None = None) -> str:
        """Snakemake by a profile of the repository; returns what it said."""
        (self.folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
        (self.folder / "more.yaml").write_text(yaml.safe_dump(config or {}))
        self.calls.unlink(missing_ok=True)
        answer = run_snakemake(
            self.folder, "--profile", REPOSITORY / "profiles" / profile, *QUICK, *arguments,
            "--configfile", "small.yaml", "more.yaml", stubs=True,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    def submitted(self) -> list[tuple[str, dict[str, str]]]:
        """Rule and options of each job that sbatch was given since the last run began."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        found = [read_options(json.loads(line)["arguments"])[0] for line in lines]
        return [(_rule(options), options) for options in found]


def _rule(options: dict[str, str]) -> str:
    if "--comment" in options:  # by the slurm executor: rule_extract_bank_wildcards_train_000
        return options["--comment"].removeprefix("rule_").partition("_wildcards_")[0]
    return options["--job-name"].removeprefix("acar-").partition("-")[0]


def _flags(options: dict[str, str]) -> tuple[str | None, ...]:
    return tuple(options.get(name) for name in OPTIONS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    programs = install(folder / "cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_CLUSTER", str(folder / "cluster"))
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        yield Cluster(folder)


@pytest.fixture(scope="module")
def finished(cluster) -> tuple[Cluster, list[tuple[str, dict[str, str]]]]:
    """The whole DAG through `profiles/cluster-generic`, and what its jobs asked for."""
    cluster.run("cluster-generic", config=ASKED)
    return cluster, cluster.submitted()


def test_every_stage_asks_for_what_the_config_says(finished):
    cluster, jobs = finished
    assert (cluster.folder / "results/report/report.html").is_file()
    assert {rule: _flags(options) for rule, options in jobs} == FLAGS
    assert Counter(rule for rule, _ in jobs) == {rule: 1 if rule in ONCE else 2 for rule in FLAGS}
    for rule, options in jobs:
        assert options["--account"] == "lab" and "--gres" not in options
        assert options.get("--nodes") == ("1" if FLAGS[rule][-1] else None)
        assert options["--output"].startswith(f".snakemake/cluster_logs/{rule}")


def test_other_resources_rerun_nothing(finished):
    cluster, _ = finished
    changed = {"resources": {"gpus_as": "gres", "ingest": {"threads": 7}}, "run": {"train_gpus": 3}}
    assert job_counts(cluster.run("cluster-generic", "--dry-run", config=changed)) == {}


def test_one_shard_alone_is_one_job(finished):
    cluster, _ = finished
    shutil.rmtree(cluster.folder / ONE_SHARD)
    cluster.run("cluster-generic", ONE_SHARD)
    [(rule, options)] = cluster.submitted()
    assert options["--job-name"] == "acar-extract_bank-train-000"
    assert _flags(options) == (None, *FLAGS[rule][1:]), "the cluster chooses the partition"
    assert "--account" not in options
    assert (cluster.folder / ONE_SHARD / "facts.json").is_file()


def test_the_slurm_executor_asks_for_the_same(finished):
    cluster, _ = finished
    asked = {"resources": {"account": "lab", "gpu_partition": "gpus"}}
    cluster.run("slurm", *QUICK_SLURM, "--force", ONE_SHARD, "results/bank/val/manifest.json", config=asked)
    jobs = dict(cluster.submitted())
    assert set(jobs) == {"extract_bank", "seal_bank"} and len(cluster.submitted()) == 2
    assert _flags(jobs["extract_bank"]) == FLAGS["extract_bank"]
    assert _flags(jobs["seal_bank"]) == ("batch", *FLAGS["seal_bank"][1:]), "the cluster's default partition"
    for options in jobs.values():
        assert options["--account"] == "lab" and "--gres" not in options and "--requeue" in options
