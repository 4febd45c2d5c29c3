"""What a change reruns: the stages that read the changed key and what follows from them, nothing else."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
import yaml
from workflow_runs import job_counts, run_snakemake

from acar.config import load_config

pytestmark = pytest.mark.slow

SMALL = {"data": {"train": {"shards": 1}}, "predict": {"wrong_bank": False}}
AFTER_STAGE2 = {"train_stage2", "predict", "evaluate", "report"}
AFTER_STAGE1 = AFTER_STAGE2 | {"train_stage1", "extract_bank", "seal_bank"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A working folder in which every job has run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    answer = _run(folder, "--cores", "2", "--resources", "gpu=1")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder


def _run(folder: Path, *arguments: str, changed: dict | None = None):
    (folder / "changed.yaml").write_text(yaml.safe_dump(changed or {}))
    files = ("--configfile", "small.yaml", "changed.yaml")
    return run_snakemake(folder, *arguments, *files, stubs=True)


def _would_run(folder: Path, changed: dict | None = None) -> set[str]:
    answer = _run(folder, "--dry-run", changed=changed)
    assert answer.returncode == 0, answer.stderr
    return set(job_counts(answer.stdout)) - {"all"}


def test_a_second_call_has_nothing_to_do(finished):
    answer = _run(finished, "--cores", "2", "--resources", "gpu=1")
    assert "Nothing to be done" in answer.stderr + answer.stdout
    config = load_config(finished / "results/config.yaml")
    assert config.data.train.shards == 1 and config.data.val.shards == 1
    assert (finished / "results/timings/predict/stage2-000.tsv").is_file()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {
                "run": {"device": "cpu", "train_gpus": 3},
                "stage1": {"log_every": 7},
                "bank": {"batch_clips": 1},
            },
            set(),
        ),
        ({"evaluation": {"iou": 0.6}}, {"evaluate", "report"}),
        ({"predict": {"min_score": 0.6}}, {"predict", "evaluate", "report"}),
        ({"stage2": {"window": {"radius_s": 9}}}, AFTER_STAGE2),
        ({"bank": {"zstd_level": 0}}, AFTER_STAGE2 | {"extract_bank", "seal_bank"}),
        ({"boxes": {"train_score": 0.85}}, AFTER_STAGE1),
        ({"run": {"seed": 1}}, AFTER_STAGE1 | {"train_detector", "detect"}),
    ],
)
def test_a_changed_key_reruns_its_stages(finished, changed, expected):
    assert _would_run(finished, changed) == expected


def test_a_bank_sealed_again_unchanged_does_not_retrain(finished):
    manifest = finished / "results/bank/train/manifest.json"
    later = time.time() + 60
    before = manifest.stat()
    try:
        os.utime(manifest, (later, later))
        assert _would_run(finished) == set()
        manifest.write_text('{"rows": 1}')
        os.utime(manifest, (later, later))
        assert _would_run(finished) == AFTER_STAGE2
    finally:
        manifest.write_text("{}")
        os.utime(manifest, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_run_follows_a_killed_one(finished):
    """Snakemake's locks of a dead run are removed; those of a living one hold."""
    locks = finished / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/report/report.html\n")
    (finished / "results/report/report.html").unlink()
    with open(finished / ".snakemake/acar.owners") as living:
        fcntl.flock(living, fcntl.LOCK_SH)
        refused = _run(finished, "--cores", "2", "--resources", "gpu=1")
        assert refused.returncode != 0 and "lock" in refused.stderr.lower()
    answer = _run(finished, "--cores", "2", "--resources", "gpu=1")
    assert answer.returncode == 0, answer.stderr
    assert (finished / "results/report/report.html").is_file()
