from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_runs import REPOSITORY, job_counts

from acar.config import Config, ModelConfig, Stage1Config, Stage2Config, parse_config
from acar.data.class_groups import pose_columns, read_classes
from acar.workflow import shards, variants

PRESETS = REPOSITORY / "workflow" / "presets"


def merged(*presets: str) -> Config:
    values = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for preset in presets:
        values = _over(values, _read(preset))
    return parse_config(values, source=" + ".join(presets))


def _read(preset: str) -> dict[str, Any]:
    return yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())


def _over(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: _over(base.get(key), value) for key, value in over.items()}


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}.{key}" if prefix else key)
    return found


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_fit_the_typed_config(preset):
    assert merged(preset).data.source == "files"


def test_ava_r50_is_the_published_setting():
    """The typed defaults are the paper's; whatever the demo changes, the preset must change back."""
    config = merged("ava_r50")
    ours = {"weights": config.model.backbone.weights}
    assert config.model.backbone == ModelConfig().backbone.model_copy(update=ours)
    assert config.model.head == ModelConfig().head
    speed = {name: getattr(config.stage1, name) for name in ("micro_batch_clips", "workers")}
    assert config.stage1 == Stage1Config().model_copy(update=speed)
    assert config.stage2 == Stage2Config().model_copy(update=speed)
    published = Config()
    for section in ("ingest", "boxes", "clip", "bank", "predict", "evaluation"):
        assert getattr(config, section) == getattr(published, section), section


def test_ava_r101_differs_from_r50_only_where_its_head_comment_says():
    r50 = _leaves(merged("ava_r50").model_dump(mode="json"))
    r101 = _leaves(merged("ava_r101").model_dump(mode="json"))
    differing = {key for key in r50 | r101 if r50.get(key) != r101.get(key)}
    assert differing == {
        "run.results",
        *(f"model.backbone.{k}" for k in ("depths", "lateral_kernel", "lateral_norm", "slow_frames")),
        *(f"model.backbone.{k}" for k in ("weights", "mean", "std")),
        *(f"model.head.{k}" for k in ("hr2o_depth", "hr2o_mlp_kernel")),
        *(f"{stage}.micro_batch_clips" for stage in ("stage1", "stage2")),
    }


def test_ucf24_is_section_5_over_the_published_ava_setting():
    config, ava = merged("ucf24"), _leaves(merged("ava_r50").model_dump(mode="json"))
    stage1 = config.stage1
    assert (stage1.iterations, stage1.base_lr, stage1.milestones) == (5400, 0.002, [4900, 5100])
    assert stage1.warmup_iterations == 5400 // 4 and stage1.gamma == 0.1
    assert (config.clip.frames, config.clip.stride, config.model.backbone.alpha) == (32, 1, 4)
    assert not config.boxes.train_with_detected and variants(config) == ["stage1"]
    assert config.predict.min_score == config.detector.keep_score == 0.0
    ours = _leaves(config.model_dump(mode="json"))
    differing = {
        key for key in ava if ours.get(key) != ava[key] and key.split(".")[0] in ("model", "clip", "stage1")
    }
    assert differing == {
        "clip.stride", "model.backbone.weights", "model.head.memory",
        *(f"stage1.{key}" for key in ("iterations", "base_lr", "warmup_iterations", "milestones")),
    }  # fmt: skip
    r50_8x4 = yaml.safe_load((PRESETS / "backbones" / "r50_8x4.yaml").read_text())
    assert {key: ours[key] for key in _leaves({k: r50_8x4[k] for k in ("clip", "model")})} == _leaves(
        {k: r50_8x4[k] for k in ("clip", "model")}
    )


def _differing(one: Config, other: Config) -> set[str]:
    left, right = _leaves(one.model_dump(mode="json")), _leaves(other.model_dump(mode="json"))
    return {key for key in left | right if left.get(key) != right.get(key)}


@pytest.mark.parametrize("network", ["ava_r50", "ava_r101"])
def test_a_preset_of_data_changes_data_alone(network):
    """Any of them goes over any preset of a network; AVA v2.2 is what those name themselves."""
    alone = merged(network)
    assert _differing(alone, merged(network, "ava_v22")) == {"run.results"}
    files = {
        "data.label_map",
        *(f"data.{split}.{file}" for split in ("train", "val") for file in ("labels", "excluded")),
    }
    assert _differing(alone, merged(network, "ava_v21")) == {"run.results", "detector.boxes.train", *files}
    kinetics = _differing(alone, merged(network, "ava_kinetics"))
    assert kinetics == {
        "run.results", "data.videos", "data.span_s", "data.key_frames", "ingest.on_error",
        "detector.boxes.train", "detector.boxes.val",
        *(f"data.{split}.{key}" for split in ("train", "val") for key in ("labels", "excluded", "shards")),
    }  # fmt: skip


@pytest.mark.parametrize("data", ["ava_v21", "ava_v22", "ava_kinetics"])
def test_a_preset_of_data_leaves_the_network_to_others(data):
    over_none = merged(data)
    plain = parse_config(yaml.safe_load((REPOSITORY / "config.yaml").read_text()))
    for section in ("clip", "model", "boxes", "stage1", "bank", "stage2", "predict", "evaluation"):
        assert getattr(over_none, section) == getattr(plain, section), section
    assert set(_read(data)) == {"run", "data", "ingest", "detector"}


AVA_PRESETS = ("ava_r50", "ava_r101", "ava_v21", "ava_v22", "ava_kinetics")


@pytest.mark.parametrize("preset", AVA_PRESETS)
def test_the_groups_of_ava_are_those_of_the_released_code(preset: str, shared: Path):
    """Softmax over the columns 0 to 12 of the official list of 60, as the released loss has it."""
    values = merged(preset).model_dump(mode="json")
    listed = shared / "data/ava_files/ava_action_list_v2.2_for_activitynet_2019.pbtxt"
    values["data"]["label_map"] = str(listed)
    label_map = read_classes(parse_config(values))
    assert pose_columns(label_map) == list(range(13))
    assert {name: len(ids) for name, ids in label_map.groups().items()} == {
        "pose": 13, "object": 32, "person": 15
    }  # fmt: skip
    names = [line.split('"')[1] for line in listed.read_text().splitlines() if "name:" in line]
    assert [item.name for item in label_map.classes if item.group == "pose"] == names[:13]


def test_ava_r50_jobs(snakemake, tmp_path):
    config = merged("ava_r50")
    data, boxes = config.data, config.detector.boxes
    assert boxes is not None and config.model.backbone.weights is not None
    files = [data.label_map, *boxes.values(), config.model.backbone.weights]
    files += [file for split in (data.train, data.val) for file in (split.labels, split.excluded)]
    for file in files:
        path = tmp_path / str(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / str(data.videos)).mkdir(parents=True)
    answer = snakemake("--dry-run", "--resources", "gpu=8", "--configfile", PRESETS / "ava_r50.yaml")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    n_train, n_val = len(shards(config, "train")), len(shards(config, "val"))
    assert (n_train, n_val) == (32, 16)
    assert job_counts(answer.stdout) == {
        "ingest": n_train + n_val, "detect": n_train + n_val, "extract_bank": n_train + n_val,
        "train_stage1": 1, "train_stage2": 1, "seal_bank": 2, "predict": len(variants(config)) * n_val,
        "evaluate": 2, "report": 1, "all": 1,
    }  # fmt: skip


@pytest.mark.parametrize("network", ["ava_r101", "ucf24", "clips"])
def test_the_preset_of_views_changes_prediction_alone(network):
    changed = merged(network, "inference/multi_view")
    assert _differing(merged(network), changed) == {"predict.short_sides_px", "predict.flip"}
    assert changed.predict.n_views == 6  # "3 scales and horizontal flips" (table 4)
