from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from acar.errors import UserError
from acar.jobs.cluster import job_properties, main, sbatch_command, status

JOB = {
    "rule": "extract_bank",
    "wildcards": {"split": "train", "shard": "003"},
    "threads": 8,
    "resources": {"gpu": 1, "nodes": 1, "mem_mb": 32000, "runtime": 1440, "tmpdir": "<TBD>"},
}


@pytest.fixture
def program(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Write a command of Slurm's as a shell script; no other command is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(tmp_path)

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(JOB)}\ntrue\n")
    return path


def test_a_job_in_sbatchs_words():
    command = sbatch_command(JOB, Path("job.sh"))
    assert command == [
        "sbatch", "--parsable", "--no-requeue", "--job-name=acar-extract_bank-train-003",
        "--output=.snakemake/cluster_logs/extract_bank-train-003-%j.log", "--ntasks=1", "--cpus-per-task=8",
        "--mem=32000", "--time=1440", "--nodes=1", "--gpus=1", "job.sh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"gpu": 0}, []),
        ({"gpu": 2, "gpu_model": "a100"}, ["--gpus=a100:2"]),
        ({"gres_gpu": 2, "gres": "gpu:a100:2"}, ["--gres=gpu:a100:2"]),
        ({"slurm_partition": "long", "slurm_account": "lab"}, ["--partition=long", "--account=lab"]),
    ],
)
def test_what_is_asked_for_only_where_it_is_named(resources, expected):
    job = JOB | {"resources": {"mem_mb": 1, "runtime": 1} | resources}
    command = sbatch_command(job, Path("job.sh"))
    assert command[command.index("--time=1") + 1 : -1] == expected


@pytest.mark.parametrize("said", ["1234", "1234;cluster", "Welcome to the cluster\n1234"])
def test_submit_prints_the_jobs_id(program, script, capsys, said):
    program("sbatch", f"echo '{said}'")
    assert main(["submit", str(script)]) == 0
    assert capsys.readouterr().out == "1234\n"
    assert Path(".snakemake/cluster_logs").is_dir(), "Slurm writes no log into a missing folder"


def test_a_refused_job_is_told_in_slurms_words(program, script, capsys):
    assert main(["submit", str(script)]) == 2
    assert "sbatch: no such command here" in capsys.readouterr().err
    program("sbatch", "echo 'invalid partition specified: long' >&2; exit 1")
    assert main(["submit", str(script)]) == 2
    assert "invalid partition specified: long" in capsys.readouterr().err
    script.write_text("true\n")
    with pytest.raises(UserError, match="expected a job script"):
        job_properties(script)
    assert main(["cancel", "1"]) == 2


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PENDING", "running"), ("RUNNING", "running"), ("COMPLETING", "running"), ("COMPLETED", "success"),
        ("FAILED", "failed"), ("CANCELLED by 1000", "failed"), ("TIMEOUT", "failed"),
        ("OUT_OF_MEMORY", "failed"), ("NODE_FAIL", "failed"), ("PREEMPTED", "failed"),
    ],
)  # fmt: skip
def test_status_by_accounting(program, state, expected):
    program("sacct", f"echo '{state}'")
    assert status("1234") == expected


@pytest.mark.parametrize(
    ("squeue", "expected"),
    [
        ("echo RUNNING", "running"),
        ("echo COMPLETED", "success"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "failed"),
        ("true", "failed"),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "running"),
    ],
)
@pytest.mark.parametrize("accounting", [True, False])
def test_status_by_the_queue_where_accounting_knows_nothing(program, accounting, squeue, expected):
    if accounting:
        program("sacct", "true")
    program("squeue", squeue)
    assert status("1234") == expected
