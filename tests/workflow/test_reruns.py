"""What a change reruns: exactly the jobs that README's table names."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from workflow_runs import REPOSITORY, STUBS, job_counts, run_snakemake

from acar import __version__
from acar.config import load_config
from acar.jobs.owners import living

pytestmark = pytest.mark.slow

GROUPS = {"pose": ["stand", "crouch", "sway"], "object": [4]}
SMALL = {"data": {"train": {"shards": 2}, "class_groups": GROUPS}, "predict": {"wrong_bank": False}}
AFTER_PREDICT = {"evaluate": 2, "report": 1}
AFTER_STAGE2 = {"train_stage2": 1, "predict": 1, "evaluate": 1, "report": 1}
BANKS = {"extract_bank": 3, "seal_bank": 2}
AFTER_STAGE1 = {**AFTER_STAGE2, **BANKS, "train_stage1": 1, "predict": 2, "evaluate": 2}
FROM_BOXES = {**AFTER_STAGE1, "detect": 3}
FROM_VIDEOS = {**FROM_BOXES, "ingest": 3, "train_detector": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A working folder in which every job has run, beside a copy of the workflow."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, folder / name)
    for name in ("rules", "workflow", "profiles", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    answer = _run(folder, "--cores", "2", "--resources", "gpu=1")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder


def _run(folder: Path, *arguments: str, changed: dict | None = None):
    (folder / "changed.yaml").write_text(yaml.safe_dump(changed or {}))
    files = ("--configfile", "small.yaml", "changed.yaml")
    return run_snakemake(folder, *arguments, *files, stubs=True, snakefile=folder / "Snakefile")


def _would_run(folder: Path, *arguments: str, changed: dict | None = None) -> dict[str, int]:
    answer = _run(folder, "--dry-run", *arguments, changed=changed)
    assert answer.returncode == 0, answer.stderr
    return {rule: count for rule, count in job_counts(answer.stdout).items() if rule != "all"}


def test_a_second_call_has_nothing_to_do(finished):
    answer = _run(finished, "--cores", "2", "--resources", "gpu=1")
    assert "Nothing to be done" in answer.stderr + answer.stdout
    config = load_config(finished / "results/config.yaml")
    assert config.data.train.shards == 2 and config.data.val.shards == 1
    assert (finished / "results/timings/predict/stage2-000.tsv").is_file()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({"evaluation": {"iou": 0.6}}, AFTER_PREDICT, id="evaluation"),
        pytest.param(
            {"predict": {"min_score": 0.6}}, {"predict": 2, **AFTER_PREDICT}, id="predict.min_score"
        ),
        pytest.param(
            {"predict": {"short_sides_px": [32, 48], "flip": True}},
            {"predict": 2, **AFTER_PREDICT},
            id="views",
        ),
        pytest.param({"stage2": {"base_lr": 0.001}}, AFTER_STAGE2, id="stage2.base_lr"),
        pytest.param({"stage2": {"window": {"radius_s": 9}}}, AFTER_STAGE2, id="bank window"),
        pytest.param({"bank": {"zstd_level": 0}}, {**AFTER_STAGE2, **BANKS}, id="bank"),
        pytest.param({"boxes": {"train_score": 0.85}}, AFTER_STAGE1, id="boxes"),
        pytest.param({"data": {"class_groups": {"pose": ["stand"]}}}, AFTER_STAGE1, id="poses"),
        pytest.param(
            {"data": {"class_groups": {"object": [], "things": [4]}}}, AFTER_PREDICT, id="other groups"
        ),
        pytest.param(
            {"data": {"class_groups": {"pose": ["sway", "crouch", "stand"]}}}, {}, id="order of poses"
        ),
        pytest.param({"stage1": {"iterations": 9}}, AFTER_STAGE1, id="stage1.iterations"),
        pytest.param({"detector": {"keep_score": 0.1}}, FROM_BOXES, id="detector threshold"),
        pytest.param({"run": {"seed": 1}}, {**FROM_BOXES, "train_detector": 1}, id="run.seed"),
        pytest.param({"compute": {"precision": "bf16"}}, AFTER_STAGE1, id="compute.precision"),
        pytest.param({"ingest": {"crf": 20}}, FROM_VIDEOS, id="ingest"),
    ],
)
def test_a_changed_key_reruns_its_stages(finished, changed, expected):
    assert _would_run(finished, changed=changed) == expected


def test_keys_that_change_no_result_rerun_nothing(finished):
    faster = {"workers": 1, "cache_mib": 1, "checkpoint_every": 9, "log_every": 7}
    changed = {
        "run": {"device": "cpu", "train_gpus": 3},
        "stage1": faster,
        "stage2": faster,
        "bank": {"batch_clips": 1},
        "detector": {"checkpoint_every": 3},
        "compute": {"memory_format": "contiguous", "compile": "all", "checkpoint_activations": "all"},
        "resources": {"train_stage1": {"runtime_min": 77}},
    }
    assert _would_run(finished, changed=changed) == {}
    assert _would_run(finished, "--resources", "gpu=4") == {}


def test_a_comment_reruns_nothing(finished):
    names = ("Snakefile", "rules/stage1.smk", "config.yaml")
    texts = {finished / name: (finished / name).read_text() for name in names}
    try:
        for path, text in texts.items():
            path.write_text(text + "\n# a comment\n")
        assert _would_run(finished) == {}
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_edited_code_reruns_nothing(finished):
    """Neither the digest in a stage's origin nor a newer module is a reason."""
    path = finished / "results/stage1/origin.json"
    before = path.read_text()
    origin = json.loads(before)
    assert origin["code"].startswith(__version__ + "+")
    try:
        path.write_text(json.dumps({**origin, "code": "0.0.1+another"}))
        os.utime(REPOSITORY / "acar" / "stages" / "train_stage1.py")
        assert _would_run(finished) == {}
    finally:
        path.write_text(before)


def test_a_lost_shard_is_made_again_without_a_training(finished):
    """Rebuilt from what it came from, the bank is what it was: that shard and the seal, nothing after them."""
    shard = finished / "results/bank/train/shard-001"
    shutil.rmtree(shard)
    assert _would_run(finished) == {"extract_bank": 1, "seal_bank": 1}
    answer = _run(finished, "--cores", "2", "--resources", "gpu=1")
    assert answer.returncode == 0 and (shard / "facts.json").is_file(), answer.stderr
    assert _would_run(finished) == {}


def test_a_lost_shard_and_a_changed_key_together(finished):
    """Behind a job that runs Snakemake looks for no further reason; the change must not be lost."""
    shard, aside = finished / "results/bank/val/shard-000", finished / "aside"
    shard.rename(aside)
    one_shard = {"extract_bank": 1, "seal_bank": 1}
    try:
        assert _would_run(finished) == one_shard
        assert _would_run(finished, changed={"predict": {"min_score": 0.6}}) == {
            **one_shard, "predict": 2, **AFTER_PREDICT,
        }  # fmt: skip
        assert _would_run(finished, changed={"stage2": {"base_lr": 0.5}}) == {**one_shard, **AFTER_STAGE2}
        assert _would_run(finished, changed={"bank": {"min_score": 0.1}}) == {**BANKS, **AFTER_STAGE2}
    finally:
        aside.rename(shard)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--forcerun", "train_stage1"), AFTER_STAGE1),
        (("--forcerun", "train_stage2"), AFTER_STAGE2),
        (("--forcerun", "extract_bank"), BANKS),
        (("--force", "results/bank/train/shard-001"), {"extract_bank": 1}),
        (("--force", "results/evaluation/stage2/metrics.json"), {"evaluate": 1}),
    ],
)
def test_one_stage_or_one_shard_again(finished, arguments, expected):
    assert _would_run(finished, *arguments) == expected


def test_a_bank_sealed_again_unchanged_does_not_retrain(finished):
    manifest = finished / "results/bank/train/manifest.json"
    later = time.time() + 60
    before, text = manifest.stat(), manifest.read_text()
    try:
        os.utime(manifest, (later, later))
        assert _would_run(finished) == {}
        manifest.write_text('{"rows": 1}')
        os.utime(manifest, (later, later))
        assert _would_run(finished) == AFTER_STAGE2
    finally:
        manifest.write_text(text)
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


def test_a_job_that_outlives_its_run_is_not_done_again(finished):
    """Snakemake alone is killed; the training it had started ends well. The same command takes that up."""
    command = ["-m", "snakemake", "--snakefile", str(finished / "Snakefile"), "--cores", "1"]
    command += ["--configfile", "small.yaml", "changed.yaml"]
    changed = {"stage1": {"iterations": 299}}
    (finished / "changed.yaml").write_text(yaml.safe_dump(changed))
    stage1 = finished / "results/stage1/origin.json"
    environment = {"PYTHONPATH": os.pathsep.join([str(STUBS), str(REPOSITORY)]), "STUB_SECONDS": "4"}
    main = subprocess.Popen(
        [sys.executable, *command, "--until", "train_stage1"], cwd=finished, env=os.environ | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    owner = finished / "results/work/owners/train-stage1.lock"
    before = stage1.read_text()
    wait_for(lambda: living(owner.parent) and not stage1.exists())
    while not any("train-stage1" in who for who in living(owner.parent)):
        time.sleep(0.05)
    main.kill()
    main.wait()
    wait_for(lambda: living(owner.parent) == [] and stage1.exists())
    assert stage1.read_text() != before
    answer = _run(finished, "--cores", "1", "--until", "train_stage1", changed=changed)
    assert answer.returncode == 0, answer.stderr
    log = (finished / "results/logs/train_stage1.log").read_text()
    assert "stage1: was finished when its run was killed; taken up as it is" in log
    assert _run(finished, "--cores", "1", changed={}).returncode == 0  # as the other tests expect it


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_run_on_the_same_results_is_refused(finished, tmp_path):
    """Wherever it is started, it names the first one's pid and host; a dry run goes on."""
    (finished / "results/report/report.html").unlink()
    hold = "import sys; from pathlib import Path; from acar.jobs.owners import own_run\n"
    hold += "own_run(Path(sys.argv[1])); print(1, flush=True); input()"
    results = finished / "results"
    owner = subprocess.Popen(
        [sys.executable, "-c", hold, str(results / "work/owners")], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert owner.stdout is not None and owner.stdout.readline() == "1\n"
    arguments = (
        "--cores",
        "1",
        "--configfile",
        finished / "small.yaml",
        "--config",
        f"run={{results: {results}}}",
    )
    refused = run_snakemake(tmp_path, *arguments, stubs=True)
    assert refused.returncode != 0
    assert (
        f"run (pid {owner.pid} on {socket.gethostname()}) is at work on this results folder" in refused.stderr
    )
    assert "Traceback" not in refused.stderr
    assert not (finished / "results/report/report.html").exists()
    assert _would_run(finished) == {"report": 1}
    owner.kill()
    owner.wait()
    answer = _run(finished, "--cores", "1")
    assert answer.returncode == 0, answer.stderr
