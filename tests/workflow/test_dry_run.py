from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workflow_runs import REPOSITORY, job_counts

DEFAULT_JOBS = {
    "synthesize": 1, "ingest": 3, "train_detector": 1, "detect": 3, "train_stage1": 1, "extract_bank": 3,
    "seal_bank": 2, "train_stage2": 1, "predict": 3, "evaluate": 3, "report": 1, "all": 1,
}  # fmt: skip


def test_default_jobs(snakemake, tmp_path):
    answer = snakemake("--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert job_counts(answer.stdout) == DEFAULT_JOBS
    assert "workflow specific profile" in answer.stderr
    assert not (tmp_path / "results").exists(), "a dry run writes nothing"


def test_building_the_dag_does_not_import_torch():
    program = "import sys; import acar.workflow, acar.cli; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_training_takes_what_is_offered(snakemake):
    offered = snakemake("--dry-run", "--resources", "gpu=3").stdout
    assert "acar train-stage1 --config results/config.yaml --gpus 3 " in offered
    assert "acar extract-bank --config results/config.yaml --split train --shard 001 --gpus 1 " in offered


def test_overrides_are_merged_deeply(snakemake, overrides):
    file = overrides({"data": {"val": {"shards": 4}}})
    answer = snakemake("--dry-run", "--configfile", file, "--config", "run={results: elsewhere}")
    assert "elsewhere/ingest/val/shard-003" in answer.stdout
    assert "--config elsewhere/config.yaml" in answer.stdout
    assert job_counts(answer.stdout) == DEFAULT_JOBS | {
        "ingest": 6, "detect": 6, "extract_bank": 6, "predict": 12
    }  # fmt: skip


def test_a_wrong_config_stops_before_anything_runs(snakemake, overrides):
    answer = snakemake("--cores", "1", "--configfile", overrides({"stage2": {"num_prats": 1}}))
    assert answer.returncode != 0
    assert "stage2.num_prats: unknown key" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_imported_boxes_need_no_detector(snakemake, overrides, tmp_path):
    boxes = {split: str(tmp_path / f"{split}.csv") for split in ("train", "val")}
    for path in boxes.values():
        Path(path).touch()
    answer = snakemake(
        "--dry-run", "--configfile", overrides({"detector": {"source": "boxes", "boxes": boxes}})
    )
    counts = job_counts(answer.stdout)
    assert "train_detector" not in counts
    assert counts["detect"] == 3
    assert boxes["val"] in answer.stdout


def test_without_a_bank_the_run_ends_after_stage_1(snakemake, overrides):
    answer = snakemake("--dry-run", "--configfile", overrides({"model": {"head": {"memory": "none"}}}))
    assert answer.returncode == 0, answer.stderr
    without = {"extract_bank", "seal_bank", "train_stage2"}
    assert job_counts(answer.stdout) == {
        name: count for name, count in DEFAULT_JOBS.items() if name not in without
    } | {"predict": 1, "evaluate": 1}
