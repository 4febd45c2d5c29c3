"""Every stage on a disk that fills up or may not be written: a message, nothing half-written, a good rerun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import tiny_config
from workflow_runs import REPOSITORY, run_snakemake

from acar.paths import Paths
from acar.workflow import write_config

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")]

# How many of its places each stage is broken at; raise it for a sweep of all.
MOST = int(os.environ.get("ACAR_DISK_PLACES", "3"))
TRAINING = {
    "iterations": 2, "batch_clips": 2, "milestones": [], "micro_batch_clips": 1, "warmup_iterations": 1,
    "workers": 0, "checkpoint_every": 1, "log_every": 1, "base_lr": 0.05,
}  # fmt: skip
DETECTOR = {
    "architecture": "fasterrcnn_mobilenet_v3_small_fpn", "min_side_px": 64, "max_side_px": 128, "iterations": 2,
    "batch_images": 1, "warmup_iterations": 1, "keep_score": 0.0, "max_boxes": 3, "checkpoint_every": 1,
}  # fmt: skip
OF_TRAIN, OF_VAL = ("--split", "train", "--shard", "0"), ("--split", "val", "--shard", "0")
STAGES: tuple[tuple[str, ...], ...] = (
    ("synthesize",),
    ("ingest", *OF_TRAIN),
    ("ingest", *OF_VAL),
    ("train-detector",),
    ("detect", *OF_TRAIN),
    ("detect", *OF_VAL),
    ("train-stage1",),
    ("extract-bank", *OF_TRAIN),
    ("extract-bank", *OF_VAL),
    ("seal-bank", "--split", "train"),
    ("seal-bank", "--split", "val"),
    ("train-stage2",),
    ("predict", "--variant", "stage1", "--shard", "0"),
    ("predict", "--variant", "stage2", "--shard", "0"),
    ("evaluate", "--variant", "stage1"),
    ("evaluate", "--variant", "stage2"),
    ("report",),
)
# The file mode of a folder stops root only without these.
AS_A_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps",
             "-dac_override,-dac_read_search"]  # fmt: skip


def full_disk(
    mode: str, config: Path, most: int, *commands: tuple[str, ...], under: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """What tests/full_disk.py finds, a dict a command."""
    words = [word for command in commands for word in ("--", *command)]
    done = subprocess.run(
        [
            *under,
            sys.executable,
            str(REPOSITORY / "tests" / "full_disk.py"),
            mode,
            str(config),
            str(most),
            *words,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: list[dict[str, Any]], n_commands: int) -> None:
    """Each command was broken at least once, and nothing was wrong."""
    assert len(found) == n_commands
    assert [problem for item in found for problem in item["problems"]] == []
    assert all(item["broken"] >= 1 for item in found), found
    for item in found:
        assert all(message.startswith(f"acar {item['verb']}: ") for message in item["messages"]), item


def as_a_user() -> tuple[str, ...]:
    """The command before a command that obeys file modes; skips where root has none."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to change that")
    return tuple(AS_A_USER)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """A config whose stages have all been run, each broken at some of its writes; and what was found."""
    config = tiny_config(
        tmp_path_factory.mktemp("disk") / "results",
        synthesize={
            "train_videos": 2, "val_videos": 2, "video_s": 4, "short_side_px": 64, "window_radius_s": 1,
            "aspect_ratios": [1.0],
        },
        stage1=TRAINING, stage2=TRAINING, detector=DETECTOR, boxes={"train_score": 0.0},
        bank={"min_score": 0.0, "batch_clips": 4, "rows_per_shard": 8, "chunk_kib": 1},
        predict={"min_score": 0.0, "batch_clips": 4, "examples": 2},
    )  # fmt: skip
    write_config(config)
    return Paths.of(config).config, full_disk("limited", Paths.of(config).config, MOST, *STAGES)


def test_a_disk_that_fills_up_at_any_write(swept):
    check(swept[1], len(STAGES))


def test_a_small_disk_that_is_enlarged(swept):
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(swept[0].parent)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no leave to mount a file system in a namespace of one's own (unshare -rm)")
    stages = (("ingest", *OF_VAL), ("train-stage1",), ("extract-bank", *OF_VAL))
    check(full_disk("small", swept[0], 12, *stages, under=("unshare", "-rm")), len(stages))


def test_a_read_only_results_folder(swept):
    stages = (
        ("ingest", *OF_VAL), ("train-stage1",), ("extract-bank", *OF_VAL), ("seal-bank", "--split", "val"),
        ("predict", "--variant", "stage1", "--shard", "0"), ("evaluate", "--variant", "stage1"), ("report",),
    )  # fmt: skip
    check(full_disk("refused", swept[0], 2, *stages, under=as_a_user()), len(stages))


def test_snakemake_refuses_a_read_only_results_folder_at_once(tmp_path):
    (tmp_path / "results").mkdir(mode=0o555)
    (tmp_path / "override.yaml").write_text(yaml.safe_dump({"run": {"results": "results", "device": "cpu"}}))
    done = run_snakemake(tmp_path, "--cores", "1", "--configfile", "override.yaml", under=as_a_user())
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "results/work: permission denied; " in said and "Traceback" not in said
    assert "rule synthesize" not in said and list((tmp_path / "results").iterdir()) == []
