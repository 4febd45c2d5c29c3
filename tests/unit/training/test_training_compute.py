"""Trainings and what follows from them under the settings of `compute`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tiny import TRAIN, prepare, tiny_config
from torch import nn

from acar.bank.source import rebuilt_is_the_same
from acar.config import Config
from acar.data.tables import read_detections
from acar.models.compute import set_memory_format
from acar.paths import Paths
from acar.stages import extract_bank, predict, seal_bank
from acar.training.distributed import Processes
from acar.training.stage import train_stage
from acar.workflow import stage_digest

SHORT = {**TRAIN, "iterations": 2, "batch_clips": 3, "micro_batch_clips": 2, "milestones": []}
NEUTRAL = {"memory_format": "contiguous", "compile": "none", "checkpoint_activations": "all"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Config:
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("run") / "results")
    prepare(config)
    return config


def other(drawn: Config, root: Path, **compute: str) -> Config:
    """The same inputs, computed otherwise."""
    root.mkdir()
    for name in ("data", "ingest", "boxes"):
        (root / name).symlink_to(Paths.of(drawn).root / name)
    short: dict[str, Any] = {"stage1": SHORT, "stage2": {**SHORT, "window": {"radius_s": 2}}}
    return tiny_config(root, compute=compute, **short)


def weights_of(config: Config) -> dict[str, torch.Tensor]:
    return load_file(Paths.of(config).training(1) / "model.safetensors")


def test_a_training_that_recomputes_gives_the_same_weights(drawn, tmp_path):
    plain = other(drawn, tmp_path / "plain")
    saving = other(drawn, tmp_path / "saving", checkpoint_activations="all")
    for config in (plain, saving):
        train_stage(config, 1)
    one, two = weights_of(plain), weights_of(saving)
    assert list(one) == list(two)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    facts = json.loads((Paths.of(saving).training(1) / "facts.json").read_text())
    assert facts["compute"]["checkpoint_activations"] == "all"


def test_both_stages_in_bf16(drawn, tmp_path):
    plain, config = other(drawn, tmp_path / "plain"), other(drawn, tmp_path / "bf16", precision="bf16")
    for each in (plain, config):
        train_stage(each, 1)
    differ = [
        float((weights_of(plain)[name] - value).abs().max()) for name, value in weights_of(config).items()
    ]
    assert 0 < max(differ) < 0.1
    for split in ("train", "val"):
        extract_bank.run(config, split, 0)
        seal_bank.run(config, split)
    train_stage(config, 2)
    for variant in ("stage1", "stage2"):
        predict.run(config, variant, 0)
        found = read_detections(Paths.of(config).predictions(variant, 0) / "detections.csv")
        assert len(found) and np.isfinite(found["score"]).all() and found["score"].between(0, 1).all()


def test_only_precision_is_a_reason_to_run_again(drawn, tmp_path):
    plain, bf16 = other(drawn, tmp_path / "plain"), other(drawn, tmp_path / "bf16", precision="bf16")
    neutral = other(drawn, tmp_path / "neutral", **NEUTRAL)
    for stage in ("train_stage1", "extract_bank", "train_stage2", "predict", "report"):
        digests = [stage_digest(config, stage, "val") for config in (plain, bf16, neutral)]
        assert {key for key in digests[0] if digests[0][key] != digests[1][key]} >= {"compute"}, stage
        assert digests[0] == digests[2], stage
    for stage in ("train_detector", "detect", "seal_bank", "evaluate", "ingest"):
        assert stage_digest(plain, stage, "val") == stage_digest(bf16, stage, "val")


def test_a_bank_of_another_precision_is_not_the_same(drawn, tmp_path):
    config = other(drawn, tmp_path / "plain")
    train_stage(config, 1)
    extract_bank.run(config, "val", 0)
    seal_bank.run(config, "val")
    assert rebuilt_is_the_same(config, "val")
    for settings, same in ((NEUTRAL, True), ({"precision": "bf16"}, False)):
        changed = config.model_copy(update={"compute": config.compute.model_copy(update=settings)})
        assert rebuilt_is_the_same(changed, "val") == same


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_gradients_in_any_memory_order_are_summed_over_processes(memory_format, monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda flat: flat.mul_(2))
    processes = Processes(torch.device("cpu"))
    processes.world = 2
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    set_memory_format(net, memory_format)
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    before = [p.grad.clone() for p in net.parameters()]
    processes.sum_gradients(net.parameters())
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(net.parameters(), before))
