"""A job that ended after its Snakemake was killed is not made again."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from acar.config import Config, parse_config
from acar.origins.finished import INCOMPLETE, set_aside_finished, take_up_finished
from acar.origins.record import Artefact, origin_of, write_origin
from acar.paths import Paths


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A results folder with a finished stage 1, in the working folder."""
    monkeypatch.chdir(tmp_path)
    config = parse_config({})
    folder = Paths.of(config).training(1)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("weights")
    write_origin(folder, origin_of(config, "train_stage1"))
    return config


def mark(path: Path) -> None:
    INCOMPLETE.mkdir(parents=True, exist_ok=True)
    (INCOMPLETE / base64.urlsafe_b64encode(str(path).encode()).decode()).write_text("{}")


def test_only_what_snakemake_takes_for_incomplete_is_moved(config):
    assert set_aside_finished(config) == []
    mark(Paths.of(config).training(2))
    assert set_aside_finished(config) == []
    mark(Paths.of(config).training(1))
    assert set_aside_finished(config) == [Artefact("train_stage1")]
    assert not Paths.of(config).training(1).exists()


def test_the_job_takes_it_up(config, capsys):
    mark(Paths.of(config).training(1))
    set_aside_finished(config)
    assert take_up_finished(config, "train_stage1", {})
    assert (Paths.of(config).training(1) / "model.safetensors").read_text() == "weights"
    assert "stage1: was finished when its run was killed" in capsys.readouterr().err
    assert not take_up_finished(config, "train_stage1", {})


def test_what_came_from_something_else_is_removed(config):
    mark(Paths.of(config).training(1))
    set_aside_finished(config)
    changed = config.model_copy(update={"stage1": config.stage1.model_copy(update={"base_lr": 0.5})})
    assert not take_up_finished(changed, "train_stage1", {})
    assert not take_up_finished(config, "train_stage1", {})
    assert not Paths.of(config).training(1).exists()


def test_a_long_name_is_cut_into_folders(config):
    name = base64.urlsafe_b64encode(str(Paths.of(config).training(1)).encode()).decode()
    (INCOMPLETE / f"@{name[:5]}").mkdir(parents=True)
    (INCOMPLETE / f"@{name[:5]}" / name[5:]).write_text("{}")
    (INCOMPLETE / "migration_underway").write_text("")
    assert set_aside_finished(config) == [Artefact("train_stage1")]
