"""Damaged inputs of a training's readers: weights, facts and bank, also when workers read them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import prepare, tiny_config

from acar import cli
from acar.config import Config
from acar.data.tables import read_label_map
from acar.errors import UserError
from acar.paths import Paths
from acar.stages import extract_bank, seal_bank
from acar.training.stage import train_stage
from acar.training.weights import trained_network, trained_weights
from acar.workflow import write_config

SHORT = {"iterations": 1, "batch_clips": 2, "milestones": [], "cache_mib": 0}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> Config:
    """Everything that stage 2 and predict need, with a loading process."""
    results = tmp_path_factory.mktemp("run") / "results"
    base = tiny_config(results)
    config = tiny_config(
        results,
        synthesize={"aspect_ratios": [1.0]},
        stage1={**base.stage1.model_dump(), **SHORT},
        stage2={**base.stage2.model_dump(), **SHORT, "workers": 1},
    )
    torch.set_num_threads(1)
    prepare(config)
    train_stage(config, 1)
    for split in ("train", "val"):
        extract_bank.run(config, split, 0)
        seal_bank.run(config, split)
    write_config(config)
    return config


class Damaged:
    """Change a file for as long as the block lasts."""

    def __init__(self, path: Path, how: str) -> None:
        self.path, self.how, self.whole = path, how, path.read_bytes()

    def __enter__(self) -> None:
        if self.how == "deleted":
            self.path.unlink()
            return
        content = bytearray(self.whole)
        content[len(content) // 2] ^= 8
        self.path.write_bytes(content[: len(content) // 2] if self.how == "cut" else content)

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.whole)


def chunk_of(config: Config, split: str) -> Path:
    [grid] = sorted((Paths.of(config).bank_shard(split, 0) / "rows.zarr").glob("*x*"))
    return grid / "relation" / "c" / "0" / "0" / "0" / "0"


@pytest.mark.parametrize("how", ["deleted", "cut", "flipped"])
def test_predict_names_the_chunk_and_the_commands_that_mend_it(sealed, capsys, monkeypatch, how):
    paths = Paths.of(sealed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    facts = json.loads((paths.training(1) / "facts.json").read_text())
    facts["sources"]["bank_weights"] = facts["weights_sha256"]
    paths.training(2).mkdir(exist_ok=True)
    (paths.training(2) / "facts.json").write_text(json.dumps(facts))
    (paths.training(2) / "model.safetensors").write_bytes(
        (paths.training(1) / "model.safetensors").read_bytes()
    )
    with Damaged(chunk_of(sealed, "val"), how):
        status = cli.main(["predict", "--config", str(paths.config), "--variant", "stage2", "--shard", "0"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert status == 2 and told.startswith(
        f"acar predict: {paths.bank_shard('val', 0)}: relation (rows 0 to "
    )
    assert (
        ", seconds " in told and f"`acar extract-bank --config {paths.config} --split val --shard 0`" in told
    )


@pytest.mark.slow
def test_a_worker_process_tells_it_as_plainly(sealed):
    command = [sys.executable, "-m", "acar.cli", "train-stage2", "--config", str(Paths.of(sealed).config)]
    with Damaged(chunk_of(sealed, "train"), "flipped"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "worker process" not in done.stderr
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith(f"acar train-stage2: {Paths.of(sealed).bank_shard('train', 0)}: relation (rows ")
    assert "--split train --shard 0`, then `acar seal-bank " in told


@pytest.mark.parametrize("how", ["cut", "flipped"])
@pytest.mark.parametrize("name", ["model.safetensors", "facts.json"])
def test_damaged_results_of_a_training_name_the_stage_to_run_again(sealed, how, name):
    n_classes = len(read_label_map(Paths.of(sealed).data / "label_map.pbtxt"))
    file = Paths.of(sealed).training(1) / name
    with Damaged(file, how), pytest.raises(UserError) as told:
        if name == "facts.json" and how == "flipped":
            file.write_text("[]")
        trained_network(sealed, 1, n_classes, torch.device("cpu"))
    assert str(told.value).startswith(f"{file}: ") and "run `acar train-stage1` again" in str(told.value)


def test_weights_that_are_not_there_or_put_there_by_hand(tmp_path):
    with pytest.raises(UserError, match=r"model.safetensors: not there; run `acar train-detector` first"):
        trained_weights(tmp_path, "acar train-detector")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert trained_weights(tmp_path, "acar train-detector") == tmp_path / "model.safetensors"
