from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from acar.config import Config, load_config, parse_config
from acar.errors import UserError
from acar.paths import Paths
from acar.workflow import (
    NEUTRAL_KEYS,
    STAGE_KEYS,
    annotation_files,
    config_text,
    detector_files,
    gpu_job_threads,
    shards,
    stage_digest,
    variants,
    write_config,
)

REPOSITORY = Path(__file__).resolve().parents[2]
# Keys that no stage's digest holds: files that rules declare as inputs (Snakemake sees them change), what
# only decides which jobs there are, and where and on what they run.
FILE_KEYS = {
    "data.videos", "data.label_map", "data.train.labels", "data.val.labels", "data.train.excluded",
    "data.val.excluded", "detector.boxes",
}  # fmt: skip
JOB_KEYS = {"predict.wrong_bank"}
RUN_KEYS = {"run.results", "run.device", "run.train_gpus"}
CLUSTER_KEYS = "resources."
SPEED_KEYS = {"detector.batch_images", "predict.batch_clips"} | NEUTRAL_KEYS


def _typed_keys(section: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in section.model_fields.items():
        kind = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, BaseModel)
        keys |= _typed_keys(kind, f"{prefix}{name}.") if inner else {prefix + name}
    return keys


def _file_keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for name, value in values.items():
        inner = isinstance(value, dict) and value and name != "extra"  # torchvision's own keys
        keys |= _file_keys(value, f"{prefix}{name}.") if inner else {prefix + name}
    return keys


def test_the_default_config_spells_out_every_key_and_no_other():
    values = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert _file_keys(values) == _typed_keys(Config)


def test_every_key_of_the_default_config_is_explained():
    lines = (REPOSITORY / "config.yaml").read_text().splitlines()
    explained = {line.split(":")[0].strip() for line in lines if "#" in line}
    plain = {key.split(".")[-1] for key in _typed_keys(Config) if not key.startswith("synthesize.")}
    assert plain - explained <= {"std", "warmup_start_lr"}


def test_every_key_reruns_a_stage_or_is_known_not_to():
    covered = {key.format(split=split) for keys in STAGE_KEYS.values() for key in keys for split in
               ("train", "val")}  # fmt: skip
    for key in _typed_keys(Config):
        in_digest = any(key == part or key.startswith(part + ".") for part in covered)
        known = key in FILE_KEYS | JOB_KEYS | RUN_KEYS | SPEED_KEYS or key.startswith(CLUSTER_KEYS)
        assert in_digest or known, f"{key}: add it to acar.workflow.STAGE_KEYS"
    assert _typed_keys(Config) >= NEUTRAL_KEYS


@pytest.mark.parametrize("stage", [*STAGE_KEYS, "report"])
def test_digests_of_every_stage(stage):
    config = Config()
    assert stage_digest(config, stage, "train") == stage_digest(config, stage, "train")
    faster = parse_config(
        {
            "stage1": {"workers": 0},
            "stage2": {"log_every": 1},
            "bank": {"batch_clips": 1},
            "resources": {"gpus_as": "gres", "predict": {"mem_mib": 1}},
        }
    )
    assert stage_digest(config, stage, "val") == stage_digest(faster, stage, "val")


def test_digests_tell_which_section_changed():
    before, after = Config(), parse_config({"bank": {"zstd_level": 0}, "data": {"val": {"shards": 5}}})
    old, new = (stage_digest(c, "extract_bank", "val") for c in (before, after))
    assert {key for key in old if old[key] != new[key]} == {"bank", "data.val.shards"}
    assert stage_digest(before, "ingest", "train") == stage_digest(after, "ingest", "train")


POSES, ANY_GROUP = "data.class_groups.pose", "data.class_groups"


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        (None, {"pose": ["sit"]}, {POSES, ANY_GROUP}),
        (None, {}, {POSES, ANY_GROUP}),
        ({"pose": ["sit"]}, {"pose": ["sit", 3]}, {POSES, ANY_GROUP}),
        ({"object": ["sit"]}, {"pose": ["sit"]}, {POSES, ANY_GROUP}),
        ({"pose": ["sit"], "object": [3]}, {"pose": ["sit"], "things": [3]}, {ANY_GROUP}),
        ({"pose": ["sit"]}, {"pose": ["sit"], "person": [9]}, {ANY_GROUP}),
        ({"object": [3]}, {}, {ANY_GROUP}),
        ({"pose": []}, {}, set()),
        ({"pose": ["sit", 3, "bow"]}, {"pose": ["bow", "sit", 3]}, set()),
    ],
)
def test_poses_rerun_trainings_and_other_groups_the_evaluation(before, after, keys):
    network = {"stage1": {"weights": "network.safetensors"}}
    for stage in (*STAGE_KEYS, "report"):
        for more in ({}, network):
            configs = (parse_config({"data": {"class_groups": groups}, **more}) for groups in (before, after))
            old, new = (stage_digest(config, stage, "val") for config in configs)
            changed = {key for key in old | new if old.get(key) != new.get(key)}
            reads = {"train_stage1", "train_stage2", "predict"}
            expected = keys if stage == "report" else keys & ({POSES} if stage in reads else set())
            assert changed == (keys & {ANY_GROUP} if stage == "evaluate" else expected), stage


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"stage1": {"iterashions": 1}}, "stage1.iterashions: unknown key; did you mean `iterations`?"),
        ({"model": {"head": {"depth_of_it": 1}}}, "model.head.depth_of_it: unknown key"),
        ({"clip": {"frames": "many"}}, "clip.frames"),
        ({"data": {"source": "files"}}, "data.videos, data.label_map, data.train.labels, data.val.labels"),
        ({"detector": {"source": "boxes", "boxes": {"train": "a.csv"}}}, "detector.boxes.val"),
        ({"evaluation": {"iou": 0}}, "evaluation.iou: expected greater than 0; found 0"),
        ({"stage1": {"optimizer": "adm"}}, "expected 'sgd' or 'adamw'; found 'adm'; did you mean `adamw`?"),
        ({"stag1": {}}, "stag1: unknown key; did you mean `stage1`?"),
        ({"run": 5}, "run: expected a section with keys such as results, seed"),
        ({"run": {"seed": True}}, "run.seed: expected a number, not true"),
        ({"run": {"results": ""}}, "run.results"),
        (
            {"data": {"val": {"shards": 5000}}},
            "data.val.shards: expected less than or equal to 1000; found 5000",
        ),
        (
            {"model": {"backbone": {"spatial_strides": [0, 1, 1, 1]}}},
            "spatial_strides.0: expected greater than 0",
        ),
        ({"model": {"backbone": {"lateral_kernel": 2}}}, "lateral_kernel: 2 frames; expected an odd number"),
        ({"model": {"backbone": {"std": [0, 0, 0]}}}, "model.backbone.std.0: expected greater than 0"),
        (
            {"model": {"backbone": {"mean": [123.7, 116.3, 103.5]}}},
            "mean.0: expected less than or equal to 1",
        ),
        ({"model": {"backbone": {"depths": [1, 0, 1, 1]}}}, "depths.1: expected greater than 0; found 0"),
        ({"model": {"backbone": {"temporal_blocks": [-1, 0, 0, 0]}}}, "temporal_blocks.0: expected greater"),
        ({"model": {"backbone": {"nonlocal_blocks": [2, 2]}}}, "nonlocal_blocks [2, 2] names a block twice"),
        ({"model": {"backbone": {"weights": ""}}}, "model.backbone.weights"),
        (
            {"model": {"head": {"hr2o_depth": 0}}},
            "memory: acfb; without a block (head.hr2o_depth: 0) nothing",
        ),
        ({"stage1": {"base_lr": float("inf")}}, "stage1.base_lr: expected a finite number"),
        ({"clip": {"frames": 7}}, "clip.frames 7 is not a multiple of model.backbone.alpha 4"),
        ({"data": {"span_s": [5, 3]}}, "data.span_s: [5, 3]; expected [first, last] second"),
        ({"detector": {"min_side_px": 600}}, "detector.min_side_px 600 is above detector.max_side_px 512"),
        ({"detector": {"boxes": {"trian": "a"}}}, "detector.boxes.trian: expected 'train' or 'val'"),
        (
            {"data": {"pose_classes": ["a: b", "sit"]}},
            "write `class_groups: {pose: ['a: b', sit]}`, or nothing",
        ),
        (
            {"data": {"pose_classes": []}},
            "data.pose_classes: replaced by `data.class_groups`, which names all",
        ),
        ({"data": {"pose_classes": "bow"}}, "write `class_groups: {pose: [bow]}`"),
        ({"data": {"class_groups": {"pose": [2.0]}}}, "found 2.0; an id is a whole number: 2"),
        ({"data": {"class_groups": {"pose": [["bow"]]}}}, "one list a group, without lists in it"),
        ({"predict": {"short_sides_px": 256}}, "expected a list, such as [256]; found 256"),
        ({"predict": {"short_sides_px": []}}, "expected at least 1 in the list, or null; found []"),
        ({"stage1": {"milestones": [True]}}, "stage1.milestones: expected a number, not true"),
        ({"data": {"span_s": [True, 5]}}, "data.span_s: expected a number, not true"),
        ({"data": {"span_s": [1]}}, "data.span_s: [1] ends too early"),
        ({"predict": {1: 2}}, "a key is 1; expected a word"),
        ({"data": {"pose_classes": []}}, "write `class_groups: {pose: []}` for a sigmoid each"),
        ({"data": {"pose_classes": None}}, "remove the line: `class_groups: null` is the default"),
        ({"data": {"class_group": {}}}, "data.class_group: unknown key; did you mean `class_groups`?"),
        (
            {"data": {"class_groups": ["sit"]}},
            "found ['sit']; exclusive classes are `class_groups: {pose: [sit]}`",
        ),
        ({"data": {"class_groups": "sit"}}, "data.class_groups: expected a list of classes for each group"),
        ({"data": {"class_groups": {"pose": "sit"}}}, "data.class_groups: pose: expected a list of classes"),
        (
            {"data": {"class_groups": {"pose": None}}},
            "pose: expected a list of classes, as in `class_groups:",
        ),
        (
            {"data": {"class_groups": {"poses": ["sit"]}}},
            "called 'poses'; that of the exclusive classes is `pose`",
        ),
        ({"data": {"class_groups": {1: ["sit"]}}}, "a group is called 1; expected a word"),
        ({"data": {"class_groups": {" ": ["sit"]}}}, "a group is called ' '; expected a word"),
        ({"data": {"class_groups": {"pose": [True]}}}, "pose: expected names and ids; found True; quote"),
        ({"data": {"class_groups": {"pose": [1.5]}}}, "pose: expected names and ids; found 1.5; quote"),
    ],
)
def test_mistakes_are_named(values, told):
    with pytest.raises(UserError) as error:
        parse_config(values, source="my.yaml")
    assert told in str(error.value) and "my.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["run: [", "- a\n- b\n", "just text"])
def test_a_file_that_is_no_config_is_refused(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load_config(path)
    with pytest.raises(UserError, match="no such config file"):
        load_config(tmp_path / "absent.yaml")


def test_the_merged_config_reads_back_and_is_written_once(tmp_path):
    config = parse_config({"run": {"results": str(tmp_path)}, "data": {"span_s": [902, 1798]}})
    write_config(config)
    path = Paths.of(config).config
    assert load_config(path) == config
    assert path.read_text() == config_text(config)
    os.utime(path, (1, 1))
    write_config(config)
    assert path.stat().st_mtime == 1, "the same text is not written again"


def test_shards_and_variants():
    config = parse_config({"data": {"train": {"shards": 2}}, "predict": {"wrong_bank": True}})
    assert shards(config, "train") == ["000", "001"]
    assert variants(config) == ["stage1", "stage2", "stage2_wrong_bank"]
    assert variants(Config()) == ["stage1", "stage2"]


def test_inputs_of_real_and_drawn_data():
    assert annotation_files(Config(), "train") == {"data": "results/data"}
    values = {"source": "files", "videos": "v", "label_map": "m", "train": {"labels": "t"}}
    config = parse_config({"data": values | {"val": {"labels": "l", "excluded": "x"}}})
    assert annotation_files(config, "train") == {"labels": "t", "label_map": "m"}
    assert annotation_files(config, "val") == {"labels": "l", "label_map": "m", "excluded": "x"}


@pytest.mark.parametrize(
    ("detector", "files"),
    [
        ({"source": "train"}, {"detector": "results/detector"}),
        ({"source": "weights", "weights": "COCO_V1"}, {}),
        ({"source": "weights", "weights": "w/person.pth"}, {"weights": "w/person.pth"}),
        ({"source": "boxes", "boxes": {"train": "a.csv", "val": "b.pkl"}}, {"box_file": "b.pkl"}),
    ],
)
def test_where_boxes_come_from(detector, files):
    assert detector_files(parse_config({"detector": detector}), "val") == files


def test_threads_of_gpu_jobs():
    on_cpu = parse_config({"run": {"device": "cpu"}})
    assert gpu_job_threads(on_cpu, 12) == 12
    assert gpu_job_threads(Config(), 12, {"CUDA_VISIBLE_DEVICES": ""}) == 12
    assert gpu_job_threads(Config(), None, {"CUDA_VISIBLE_DEVICES": ""}) == 8
