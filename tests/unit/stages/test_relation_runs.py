"""Both stages with other relations than the published one: what the bank holds is what the head reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file
from tiny import TRAIN, prepare, tiny_config, tiny_values

from acar.config import Config, ModelConfig, parse_config
from acar.data.tables import read_detections, read_videos
from acar.errors import UserError
from acar.models.grid import grid_of
from acar.models.net import build_network
from acar.origins.record import artefacts
from acar.paths import Paths
from acar.report.collect import collect
from acar.stages import evaluate, extract_bank, predict, seal_bank
from acar.training import loop
from acar.training.stage import train_stage
from acar.weights.importing import import_weights
from acar.workflow import examples_variant, has_stage2, variants

SHORT = {**TRAIN, "iterations": 2, "batch_clips": 2, "micro_batch_clips": 2, "milestones": []}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Config:
    torch.set_num_threads(1)
    config = tiny_config(
        tmp_path_factory.mktemp("run") / "results", synthesize={"video_s": 5, "aspect_ratios": [1.0, 1.5]}
    )
    prepare(config)
    return config


def other(
    prepared: Config, root: Path, head: dict[str, Any], batch_padding: str = "exact",
    backbone: dict[str, Any] | None = None, **sections: Any,
) -> Config:  # fmt: skip
    """The same inputs with another head, or another backbone."""
    root.mkdir()
    for name in ("data", "ingest", "boxes"):
        (root / name).symlink_to(Paths.of(prepared).root / name)
    values = tiny_values(root, synthesize={"video_s": 5, "aspect_ratios": [1.0, 1.5]}, **sections)
    values["model"]["head"] |= head
    values["model"]["backbone"] |= backbone or {}
    values["stage1"], values["stage2"] = SHORT, {**SHORT, "window": {"radius_s": 2}}
    values["model"]["batch_padding"] = batch_padding
    return parse_config(values)


def both_stages(config: Config) -> None:
    train_stage(config, 1)
    if has_stage2(config):
        for split in ("train", "val"):
            extract_bank.run(config, split, 0)
            seal_bank.run(config, split)
        train_stage(config, 2)
    for variant in variants(config):
        predict.run(config, variant, 0)
        evaluate.run(config, variant)


@pytest.mark.parametrize(
    ("head", "rows", "arrays"),
    [
        ({"memory": "lfb"}, "actor", {"actor"}),
        ({"memory": "lfb", "hr2o_design": "rn"}, "both", {"actor", "relation"}),
        ({"memory": "lfb", "relation": "sto"}, "actor", {"actor"}),
        ({"memory": "acfb", "hr2o_design": "avg"}, "both", {"actor", "relation"}),
    ],
)
def test_a_run_with_a_bank(
    prepared: Config, tmp_path: Path, head: dict[str, str], rows: str, arrays: set[str]
) -> None:
    config = other(prepared, tmp_path / "results", head, bank={"batch_clips": 4, "rows": rows})
    both_stages(config)
    group = zarr.open_group(Paths.of(config).bank_shard("val", 0) / "rows.zarr", mode="r")
    for _, grid in group.groups():
        assert {"actor", "relation"} & set(grid.array_keys()) == arrays
        assert all(np.isfinite(grid[name][:]).all() for name in arrays)
    first, second = (
        read_detections(Paths.of(config).predictions(variant, 0) / "detections.csv")
        for variant in ("stage1", "stage2")
    )
    assert len(first) == len(second) > 0


@pytest.mark.parametrize("relation", ["baseline", "acrn", "aia", "sto"])
def test_a_run_without_a_bank_ends_after_stage_1(prepared: Config, tmp_path: Path, relation: str) -> None:
    config = other(prepared, tmp_path / "results", {"relation": relation, "memory": "none"})
    assert variants(config) == ["stage1"] and examples_variant(config) == "stage1"
    stages = {artefact.stage for artefact in artefacts(config)}
    assert not stages & {"extract_bank", "seal_bank", "train_stage2"}
    both_stages(config)
    assert len(read_detections(Paths.of(config).predictions("stage1", 0) / "detections.csv")) > 0
    run = collect(config)
    assert set(run.metrics) == {"stage1"} and run.examples
    with pytest.raises(UserError, match="memory: none has no stage 2"):
        train_stage(config, 2)


def test_a_run_with_i3d_from_imported_weights(prepared: Config, tmp_path: Path) -> None:
    """Trained from weights, banked, trained with the bank, predicted, and attention looked at."""
    model = ModelConfig.model_validate({"backbone": {"kind": "i3d", "width": 8, "norm": "frozen_batch"}})
    torch.manual_seed(0)
    state = build_network(model, 1).backbone.state_dict()
    mean = state["Mixed_5c.b0.bn.running_mean"].normal_(std=0.1)
    save_file(state, tmp_path / "own.safetensors")
    import_weights(tmp_path / "own.safetensors", tmp_path / "i3d.safetensors")
    config = other(
        prepared, tmp_path / "results", {}, backbone={
            "kind": "i3d", "width": 8, "spatial_strides": [1, 2, 1, 1], "norm": "frozen_batch", "alpha": 3,
            "weights": str(tmp_path / "i3d.safetensors"), "mean": [0.5] * 3, "std": [0.5] * 3,
        },
    )  # fmt: skip
    both_stages(config)
    video = read_videos([Paths.of(config).ingest("val", 0)]).iloc[0]
    group = zarr.open_group(Paths.of(config).bank_shard("val", 0) / "rows.zarr", mode="r")
    h, w = grid_of(config.model, int(video["height"]), int(video["width"]))
    assert f"{h}x{w}" in dict(group.groups())
    trained = load_file(Paths.of(config).training(2) / "model.safetensors")
    assert torch.equal(trained["backbone.Mixed_5c.b0.bn.running_mean"], mean)  # frozen: as it was loaded
    kernel = "Mixed_5c.b0.conv3d.weight"
    assert not torch.equal(trained[f"backbone.{kernel}"], state[kernel])
    assert len(read_detections(Paths.of(config).predictions("stage2", 0) / "detections.csv")) > 0
    run = collect(config)
    assert set(run.metrics) == {"stage1", "stage2"} and run.examples


def test_released_padding_mixes_sizes_in_training(
    prepared: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = other(prepared, tmp_path / "results", {}, batch_padding="released")
    seen, real = [], loop._loss

    def looked_at(training: Any, clips: Any) -> Any:
        seen.append(clips)
        return real(training, clips)

    monkeypatch.setattr(loop, "_loss", looked_at)
    both_stages(config)
    mixed = [clips for clips in seen if clips.sizes_px is not None]
    assert mixed and all(len(clips.names) == 2 for clips in seen)
    assert any(clips.bank_maps is not None for clips in mixed)


def test_a_bank_without_what_the_head_reads_is_refused_with_the_config() -> None:
    with pytest.raises(UserError, match=r"memory: lfb reads actor rows; set bank\.rows: actor or both"):
        parse_config({"model": {"head": {"memory": "lfb"}}})
    with pytest.raises(UserError, match="sto has actor features only"):
        parse_config({"model": {"head": {"memory": "lfb", "relation": "sto"}}, "bank": {"rows": "both"}})
