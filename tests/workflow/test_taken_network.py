"""A network in ACAR-Net's layout through the whole workflow: its file, no training split, detections and mAP."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from snakemake.utils import update_config
from tiny import TRAIN, prepare, tiny_values
from workflow_runs import REPOSITORY, job_counts, run_snakemake

from acar.cli import main
from acar.config import parse_config
from acar.paths import Paths
from acar.stages import predict, train_stage1

pytestmark = pytest.mark.slow

RUN = {"ingest": 1, "detect": 1, "train_stage1": 1, "predict": 1, "evaluate": 1, "report": 1, "all": 1}
AGAIN = {name: RUN[name] for name in ("train_stage1", "predict", "evaluate", "report", "all")}


def test_a_released_network_from_its_file_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = tiny_values(
        tmp_path / "trained", synthesize={"aspect_ratios": [1.0]}, data={"train": {"shards": 1}}
    )
    drawn["model"]["backbone"]["norm"], drawn["model"]["head"]["encoder_norm"] = "frozen_batch", "none"
    drawn["stage1"] = {**TRAIN, "iterations": 2, "batch_clips": 2, "milestones": []}
    values = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    update_config(values, drawn)
    trained = parse_config(values)
    prepare(trained)
    train_stage1.run(trained)
    predict.run(trained, "stage1", 0)
    source, released = Paths.of(trained).training(1) / "model.safetensors", tmp_path / "net.pth.tar"
    assert main(["export-weights", str(source), str(released)]) == 0
    assert main(["import-weights", str(released), str(tmp_path / "net.safetensors")]) == 0
    assert main(["import-weights", str(released), str(tmp_path / "other.safetensors")]) == 0

    override = write(tmp_path, user_values(drawn, Paths.of(trained)))
    done = run_snakemake(tmp_path, "--cores", "1", "--configfile", override)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert job_counts(done.stdout + done.stderr) == RUN
    results = Paths(tmp_path / "results")
    detections = [p.predictions("stage1", 0) / "detections.csv" for p in (results, Paths.of(trained))]
    assert detections[0].read_bytes() == detections[1].read_bytes()
    assert json.loads((results.evaluation("stage1") / "metrics.json").read_text())["mAP"] > 0
    assert "was not trained by this run" in results.report.read_text()
    assert main(["status", "--check", "--config", str(results.config)]) == 0

    def asked(**stage1: object) -> dict[str, int]:
        values = user_values(drawn, Paths.of(trained))
        values["stage1"] |= stage1
        answer = run_snakemake(tmp_path, "--dry-run", "--cores", "1", "--configfile", write(tmp_path, values))
        assert answer.returncode == 0, answer.stderr
        return job_counts(answer.stdout + answer.stderr)

    network = tmp_path / "net.safetensors"
    assert asked() == asked(iterations=9) == {}
    os.utime(network)  # newer, of the same content
    assert asked() == {}
    assert asked(weights=str(tmp_path / "other.safetensors")) == AGAIN
    state = load_file(network)
    state["head.fc2.weight"] *= 2
    save_file(state, network)
    assert asked() == AGAIN
    assert main(["status", "--check", "--config", str(results.config)]) == 1


def user_values(drawn: dict, data: Paths) -> dict:
    """The drawn videos as a user's own, with a training split that is named and not there."""
    boxes = str(data.root.parent / "boxes.csv")
    if not Path(boxes).exists():
        lines = (data.data / "val.csv").read_text().splitlines()
        rows = dict.fromkeys(",".join(line.split(",")[:6]) for line in lines)
        Path(boxes).write_text("".join(f"{row},0.95\n" for row in rows))
    values = {name: section for name, section in drawn.items() if name != "synthesize"}
    values["run"] = {"results": "results", "device": "cpu"}
    values["data"] = {
        "source": "files", "videos": str(data.data / "videos"),
        "label_map": str(data.data / "label_map.pbtxt"),
        "train": {"labels": "absent.csv", "excluded": None, "shards": 1},
        "val": {"labels": str(data.data / "val.csv"), "excluded": str(data.data / "val_excluded.csv"), "shards": 1},
    }  # fmt: skip
    values["detector"] = {"source": "boxes", "boxes": {"train": "absent.csv", "val": boxes}}
    values["model"] = {**drawn["model"], "head": {**drawn["model"]["head"], "memory": "none"}}
    values["model"]["backbone"] = {**drawn["model"]["backbone"], "weights": "absent.safetensors"}
    values["stage1"] = {"weights": str(data.root.parent / "net.safetensors")}
    return values


def write(folder: Path, values: dict) -> Path:
    path = folder / "override.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
