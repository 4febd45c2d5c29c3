"""A network in ACAR-Net's layout, imported and taken as stage 1, predicts what the trained one predicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TRAIN, prepare, tiny_config

from acar import cli
from acar.cli import main
from acar.config import Config, parse_config
from acar.errors import UserError
from acar.origins.status import survey
from acar.paths import Paths
from acar.stages import evaluate, extract_bank, predict, report, seal_bank, train_stage1, train_stage2
from acar.workflow import config_text, stage_digest

# As released: batch norms that are not trained further, encoders without a norm.
MODEL = {
    "backbone": {
        "depths": [1, 1, 1, 1], "width": 4, "fast_ratio": 2, "alpha": 2, "lateral_kernel": 3,
        "spatial_strides": [1, 2, 1, 1], "last_dilation": 1, "norm": "frozen_batch",
    },
    "head": {
        "reduce_channels": 8, "hidden_channels": 8, "encoder_norm": "none", "downsample": "none",
        "hr2o_depth": 2, "dropout": 0.0,
    },
}  # fmt: skip
SHORT = {**TRAIN, "iterations": 2, "batch_clips": 2, "milestones": []}


def settings(results: Path, **sections: dict) -> Config:
    return tiny_config(
        results,
        **{
            "model": MODEL, "stage1": SHORT, "stage2": {**SHORT, "window": {"radius_s": 2}},
            "synthesize": {"video_s": 5, "aspect_ratios": [1.0, 4 / 3]}, **sections,
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Stage 1 trained and predicted; beside it network.safetensors, by way of ACAR-Net's own file."""
    torch.set_num_threads(1)
    config = settings(tmp_path_factory.mktemp("trained") / "results")
    prepare(config)
    train_stage1.run(config)
    predict.run(config, "stage1", 0)
    evaluate.run(config, "stage1")
    paths, folder = Paths.of(config), Paths.of(config).root.parent
    model = paths.training(1) / "model.safetensors"
    assert main(["export-weights", str(model), str(folder / "net.pth.tar")]) == 0
    assert main(["import-weights", str(folder / "net.pth.tar"), str(network(config))]) == 0
    return config


def network(trained: Config) -> Path:
    return Paths.of(trained).root.parent / "network.safetensors"


@pytest.fixture
def taking(trained: Config, tmp_path: Path) -> Config:
    """The same data in another results folder, and the network as `stage1.weights`."""
    return beside(trained, tmp_path / "results", stage1={**SHORT, "weights": str(network(trained))})


def beside(trained: Config, root: Path, **sections: dict) -> Config:
    root.mkdir()
    for name in ("data", "ingest", "boxes"):
        (root / name).symlink_to(Paths.of(trained).root / name)
    return settings(root, **sections)


def test_the_taken_network_predicts_what_the_trained_one_does(
    trained: Config, taking: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = Paths.of(taking), Paths.of(trained)
    train_stage1.run(taking)
    assert "its 10 columns are the classes of" in capsys.readouterr().err
    names = {path.name for path in ours.training(1).iterdir()}
    assert names == {"model.safetensors", "facts.json", "config.yaml", "origin.json"}
    weights = [(paths.training(1) / "model.safetensors").read_bytes() for paths in (ours, theirs)]
    assert weights[0] == weights[1]
    predict.run(taking, "stage1", 0)
    evaluate.run(taking, "stage1")
    found = [(p.predictions("stage1", 0) / "detections.csv").read_bytes() for p in (ours, theirs)]
    assert found[0] == found[1] and found[0].count(b"\n") > 100
    metrics = [(p.evaluation("stage1") / "metrics.json").read_text() for p in (ours, theirs)]
    assert metrics[0] == metrics[1]
    report.run(taking)  # copes with a stage without a log
    page = ours.report.read_text()
    assert "was not trained by this run" in page and "network.safetensors" in page
    assert "No training log was found" not in page
    assert main(["headline", "--config", str(_written(taking))]) == 0


def test_a_bank_and_stage_2_build_on_it(taking: Config) -> None:
    train_stage1.run(taking)
    for split in ("train", "val"):
        extract_bank.run(taking, split, 0)
        seal_bank.run(taking, split)
    train_stage2.run(taking)
    predict.run(taking, "stage2", 0)
    facts = json.loads((Paths.of(taking).training(2) / "facts.json").read_text())
    taken = json.loads((Paths.of(taking).training(1) / "facts.json").read_text())
    assert facts["sources"]["bank_weights"] == taken["weights_sha256"]


def test_released_padding_changes_nothing_at_inference(trained: Config, tmp_path: Path) -> None:
    """A batch of predict is of one video, so of one size, though the videos differ: nothing is padded."""
    config = beside(
        trained,
        tmp_path / "results",
        stage1={"weights": str(network(trained))},
        model={**MODEL, "batch_padding": "released"},
        predict={"batch_clips": 4},
    )
    train_stage1.run(config)
    predict.run(config, "stage1", 0)
    found = [(Paths.of(c).predictions("stage1", 0) / "detections.csv") for c in (config, trained)]
    assert found[0].read_bytes() == found[1].read_bytes()


def test_the_files_content_is_an_input_and_training_settings_are_not(taking: Config, tmp_path: Path) -> None:
    changed = tmp_path / "mine.safetensors"
    shutil.copyfile(taking.stage1.weights, changed)
    config = with_stage1(taking, weights=str(changed))
    train_stage1.run(config)
    assert state_of_stage1(config) == ("current", [])
    assert state_of_stage1(with_stage1(config, iterations=99, base_lr=9.0)) == ("current", [])
    state = load_file(changed)
    state["head.fc2.weight"] += 1
    save_file(state, changed)
    assert state_of_stage1(config) == ("stale", [f"input `network` is another one: {changed}"])
    asked = with_stage1(config, weights=None)
    assert stage_digest(asked, "train_stage1").keys() > {"stage1", "boxes"}
    assert state_of_stage1(asked)[0] == "stale"


def with_stage1(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"stage1": config.stage1.model_copy(update=changes)})


def state_of_stage1(config: Config) -> tuple[str, list[str]]:
    row = next(row for row in survey(config).rows if row.artefact.stage == "train_stage1")
    return row.state, row.because


def _written(config: Config) -> Path:
    path = Paths.of(config).config
    path.write_text(config_text(config))
    return path


def test_by_hand_it_leases_no_gpu(taking: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def leased(*_: object) -> None:
        raise AssertionError("a lease")

    monkeypatch.setattr(cli, "_leased", leased)
    assert main(["train-stage1", "--config", str(_written(taking)), "--gpus", "2"]) == 0
    assert (Paths.of(taking).training(1) / "model.safetensors").is_file()


def rewritten(trained: Config, path: Path, change: str) -> Path:
    """The network's file, changed."""
    state = load_file(network(trained))
    metadata: dict[str, str] = {}
    if change == "backbone":
        state = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    elif change == "partial":
        del state["head.fc1.weight"]
        metadata = {"acar.partial": "1"}
    elif change == "no classifier":
        del state["head.fc2.weight"]
    elif change == "classes":
        state["head.fc2.weight"] = state["head.fc2.weight"].repeat(6, 1)
    elif change == "missing":
        del state["head.conv2.weight"]
    elif change == "shape":
        state["head.conv1.weight"] = torch.zeros(8, 32, 1, 1)
    elif change == "nan":
        state["backbone.slow_conv1.weight"][0] = float("nan")
    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("backbone", r"not a whole network.*goes into model\.backbone\.weights"),
        ("partial", r"lacks weights, `acar import-weights --partial` wrote it"),
        ("no classifier", r"has no classifier.*without --drop-classifier"),
        ("classes", r"60 classes \(head\.fc2\.weight \(60, 16\)\), but .*label_map\.pbtxt has 10.*the 60 evaluated"),
        ("missing", r"do not fit this network.*1 missing: head\.conv2\.weight"),
        ("shape", r"conv1\.weight \(8, 32, 1, 1\), expected \(8, 16, 1, 1\).*The file's: .*depths: \[1, 1, 1, 1\]"),
        ("nan", r"1 weights hold values that are not finite: backbone\.slow_conv1\.weight"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_told(trained: Config, tmp_path: Path, change: str, told: str) -> None:
    path = rewritten(trained, tmp_path / "x.safetensors", change)
    config = beside(trained, tmp_path / "results", stage1={"weights": str(path)})
    with pytest.raises(UserError, match=rf"(?s)stage1\.weights: .*{told}"):
        train_stage1.run(config)
    assert not Paths.of(config).training(1).exists()


def test_a_checkpoint_that_is_not_imported_and_a_wrong_name_are_refused(
    trained: Config, tmp_path: Path
) -> None:
    released = str(network(trained).with_name("net.pth.tar"))
    config = beside(trained, tmp_path / "results", stage1={"weights": released})
    with pytest.raises(UserError, match="convert other checkpoints with `acar import-weights`"):
        train_stage1.run(config)
    with pytest.raises(UserError, match=r"stage1\.weights: slowfast_r50_8x8_k: no such file.*did you mean"):
        train_stage1.run(with_stage1(config, weights="slowfast_r50_8x8_k"))
    with pytest.raises(UserError, match=r"stage1\.weights"):
        parse_config({"stage1": {"weights": ""}})
    with pytest.raises(UserError, match=r"stage2\.weights: unknown key"):
        parse_config({"stage2": {"weights": "x"}})
