"""A loss that is not finite: named and stopped at, or left out and counted."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import prepare, tiny_config

sys.path.insert(0, str(Path(__file__).parent))

import poison

from acar.config import Config
from acar.data.clip_dataset import TrainingClips
from acar.errors import UserError
from acar.paths import Paths
from acar.report.collect import collect
from acar.report.page import render
from acar.training import loop, stage
from acar.training.stage import train_stage
from acar.workflow import write_config

SHORT = {"iterations": 3, "milestones": [], "on_nan": "skip", "micro_batch_clips": 3, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Config:
    """Drawn, ingested and boxed."""
    config = tiny_config(tmp_path_factory.mktemp("run") / "results")
    prepare(config)
    torch.set_num_threads(1)
    return config


def fresh(inputs: Config, folder: Path, **stage1: object) -> Config:
    """The same inputs under another results folder, with other settings of stage 1."""
    config = tiny_config(folder, stage1={**inputs.stage1.model_dump(), **SHORT, **stage1})
    folder.mkdir()
    for name in ("data", "ingest", "boxes"):
        (folder / name).symlink_to(Paths.of(inputs).root / name)
    return config


def clips_of(config: Config, iteration: int) -> list[str]:
    """The clips of an iteration, in the order of their batch."""
    found: list[str] = []

    def note(training, *_):
        frames = training.clips.key_frames
        found.extend(loop.name_of(frames[slot.item]) for slot in training.plan.batch(iteration))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_iteration", note)
        train_stage(config, 1)
    return found


def facts_of(config: Config) -> dict:
    return json.loads((Paths.of(config).training(1) / "facts.json").read_text())


def weights_of(config: Config) -> dict[str, torch.Tensor]:
    return load_file(Paths.of(config).training(1) / "model.safetensors")


def log_of(config: Config) -> list[dict]:
    lines = (Paths.of(config).training(1) / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "clips_per_s"} for line in lines]


def die_in_the_third(monkeypatch) -> Callable[[], None]:
    """Interrupt the third iteration; returns what ends that."""
    real = loop._iteration

    def dies(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_iteration", dies)
    return lambda: monkeypatch.setattr(loop, "_iteration", real)


@pytest.fixture
def bad(inputs, tmp_path, monkeypatch) -> str:
    """A clip of the second iteration; the network is given NaN for it."""
    name = clips_of(fresh(inputs, tmp_path / "look"), 1)[1]
    monkeypatch.setattr(TrainingClips, "__getitem__", poison.getitem({name}))
    monkeypatch.setattr(loop, "network_input", poison.nan_where_white)
    return name


def test_stops_and_names_the_guilty_clip_of_several(inputs, bad, tmp_path):
    config = fresh(inputs, tmp_path / "results", on_nan="stop")
    with pytest.raises(UserError) as told:
        train_stage(config, 1)
    assert f"stage1: the loss is not finite at clip {bad} (video@second)" in str(told.value)
    assert "stage1.on_nan: skip" in str(told.value)
    assert not Paths.of(config).training(1).exists()


def test_skips_only_the_guilty_clip_and_counts_it(inputs, bad, tmp_path, monkeypatch):
    config = fresh(inputs, tmp_path / "results", micro_batch_clips=1, iterations=2)
    train_stage(config, 1)
    [skipped] = facts_of(config)["skipped_clips"]
    assert skipped["clip"] == bad and skipped["times"] == sum(line["skipped"] for line in log_of(config)) > 0
    assert all(torch.isfinite(value).all() for value in weights_of(config).values())
    page = render(collect(config))
    assert bad in page and "left out of training because" in page

    # The loss is the mean over the others: as if the clip had no actors. No further iteration is compared: in
    # flat drawings pooling meets ties, which the last bit decides.
    without = fresh(inputs, tmp_path / "without", micro_batch_clips=1, iterations=2)
    monkeypatch.setattr(TrainingClips, "__getitem__", poison.PLAIN)
    monkeypatch.setattr(stage, "_training_data", _without_actors_of(bad))
    train_stage(without, 1)
    apart = {
        name: float((weights_of(without)[name] - v).abs().max()) for name, v in weights_of(config).items()
    }
    assert max(apart.values()) <= 1e-6, sorted(apart.items(), key=lambda item: -item[1])[:5]
    assert [line["actors"] for line in log_of(config)] == [line["actors"] for line in log_of(without)]


def _without_actors_of(bad: str):
    real = stage._training_data

    def found(*arguments):
        frames, videos = real(*arguments)
        return [
            dataclasses.replace(f, boxes_xyxy_norm=f.boxes_xyxy_norm[:0], targets=f.targets[:0])
            if loop.name_of(f) == bad else f
            for f in frames
        ], videos  # fmt: skip

    return found


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_nan_that_batch_norm_spreads_is_traced_to_its_clip(inputs, tmp_path, monkeypatch, norm):
    config = fresh(inputs, tmp_path / "results")
    backbone = config.model.backbone.model_copy(update={"norm": norm})
    config = config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})
    look = fresh(inputs, tmp_path / "look")
    name = clips_of(look, 0)[0]
    monkeypatch.setattr(TrainingClips, "__getitem__", poison.getitem({name}))
    monkeypatch.setattr(loop, "network_input", poison.nan_where_white)
    train_stage(config, 1)
    assert [item["clip"] for item in facts_of(config)["skipped_clips"]] == [name]
    assert all(torch.isfinite(value).all() for value in weights_of(config).values()), "the averages too"


def test_a_resumed_run_counts_as_an_unbroken_one(inputs, bad, tmp_path, monkeypatch):
    unbroken, config = (fresh(inputs, tmp_path / name, log_every=3) for name in ("unbroken", "results"))
    train_stage(unbroken, 1)
    revive = die_in_the_third(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_stage(config, 1)
    revive()
    train_stage(config, 1)
    assert facts_of(config)["resumed_from"] == 2
    assert facts_of(config)["skipped_clips"] == facts_of(unbroken)["skipped_clips"] != []
    assert log_of(config) == log_of(unbroken)
    assert all(torch.equal(value, weights_of(unbroken)[name]) for name, value in weights_of(config).items())


def test_a_run_that_stopped_goes_on_without_the_clip_but_not_back(inputs, bad, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    stop = fresh(inputs, folder, on_nan="stop")
    skip = tiny_config(folder, stage1={**inputs.stage1.model_dump(), **SHORT})
    with pytest.raises(UserError, match="not finite"):
        train_stage(stop, 1)
    revive = die_in_the_third(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_stage(skip, 1)
    revive()
    with pytest.raises(
        UserError, match=r"clips were left out up to iteration 2, \d in all; set stage1.on_nan: skip"
    ):
        train_stage(stop, 1)
    train_stage(skip, 1)
    assert facts_of(skip)["resumed_from"] == 2 and facts_of(skip)["skipped_clips"][0]["clip"] == bad


def test_a_network_that_has_diverged_stops_even_under_skip(inputs, tmp_path, monkeypatch):
    config = fresh(inputs, tmp_path / "results")
    real = poison.PLAIN
    monkeypatch.setattr(TrainingClips, "__getitem__", lambda *a: poison.white(real(*a)))
    monkeypatch.setattr(loop, "network_input", poison.nan_where_white)
    with pytest.raises(
        UserError, match="iteration 1: no clip has a finite loss: the network itself has diverged"
    ):
        train_stage(config, 1)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_refused(inputs, tmp_path, monkeypatch, clip_norm):
    config = fresh(inputs, tmp_path / "results", grad_clip_norm=clip_norm)

    def spoiled(self, parameters):
        next(iter(parameters)).grad[0] = torch.nan

    monkeypatch.setattr(loop.Processes, "sum_gradients", spoiled)
    with pytest.raises(UserError, match=r"iteration 1: the gradient is nan at clips train_\d+@\d+, "):
        train_stage(config, 1)


def test_poses_do_not_hide_a_nan(inputs):
    """The exclusive classes' loss raises at a NaN; it must not come to that."""
    logits = torch.tensor([[0.5, 1.0, 2.0], [torch.nan, 0.0, 0.0]])
    targets, pose = torch.zeros(2, 3), torch.tensor([0, 1])
    assert loop.finite_loss(logits, targets, pose) is None
    assert loop.guilty_clips(logits, targets, torch.tensor([3, 5]), pose) == [5]


def torchrun(config: Config, bad: str) -> subprocess.CompletedProcess[str]:
    """Train with two processes, `bad` being the clip that gives NaN."""
    write_config(config)
    command = [
        sys.executable, "-m", "acar.training.torchrun", "--standalone", "--nproc-per-node", "2",
        poison.__file__, str(Paths.of(config).config), bad,
    ]  # fmt: skip
    path = {"PYTHONPATH": str(Path(loop.__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | path)


@pytest.mark.slow
def test_two_processes_skip_the_same_clip(inputs, bad, tmp_path):
    alone, config = (fresh(inputs, tmp_path / name, micro_batch_clips=1) for name in ("alone", "results"))
    train_stage(alone, 1)
    done = torchrun(config, bad)
    assert done.returncode == 0, done.stderr[-3000:]
    assert facts_of(config)["processes"] == 2
    assert facts_of(config)["skipped_clips"] == facts_of(alone)["skipped_clips"] != []
    for name, value in weights_of(alone).items():
        torch.testing.assert_close(weights_of(config)[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
def test_one_of_two_processes_stops_with_its_message(inputs, bad, tmp_path):
    done = torchrun(fresh(inputs, tmp_path / "results", on_nan="stop"), bad)
    assert done.returncode == 2, done.stderr[-3000:]
    assert f"stage1: the loss is not finite at clip {bad} (video@second)" in done.stderr
    assert "Traceback" not in done.stderr
