"""`extract_bank` and `predict` of a tiny run: broken off at any video, they end with the bytes of an unbroken run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tiny import TRAIN, prepare, tiny_config

from acar.bank.reader import BankReader
from acar.config import Config
from acar.data.clip_dataset import network_input
from acar.data.inference_clips import actor_clips, video_actors
from acar.data.sources import labels_path
from acar.data.tables import read_boxes, read_detections, read_labels, read_videos, write_labels
from acar.detection.faster_rcnn import SMALL, build_detector
from acar.files import sha256_of
from acar.models.loss import scores
from acar.paths import Paths
from acar.stages import detect, extract_bank, predict, seal_bank
from acar.training.stage import train_stage

N_VIDEOS = 3
VARIANTS = ("stage1", "stage2", "stage2_wrong_bank")
REAL_PREDICT, REAL_EXTRACT = predict._predict_video, extract_bank._extract_video


class Broken(BaseException):
    """A kill, as far as one process can play it."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Config:
    """A whole run of three val videos; the middle one has no detected actor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    short = {**TRAIN, "iterations": 2, "batch_clips": 2, "milestones": []}
    config = tiny_config(
        tmp_path_factory.mktemp("run") / "results",
        synthesize={"val_videos": N_VIDEOS, "video_s": 5, "aspect_ratios": [1.0]},
        stage1=short,
        stage2={**short, "window": {"radius_s": 2}},
        predict={"wrong_bank": True},
    )
    prepare(config)
    table = Paths.of(config).boxes("val", 0) / "boxes.parquet"
    boxes = pd.read_parquet(table)
    boxes[boxes["video"] != sorted(set(boxes["video"]))[1]].to_parquet(table)
    train_stage(config, 1)
    for split in ("train", "val"):
        extract_bank.run(config, split, 0)
        seal_bank.run(config, split)
    train_stage(config, 2)
    for variant in VARIANTS:
        predict.run(config, variant, 0)
    torch.set_num_threads(before)
    return config


@pytest.fixture
def config(unbroken, tmp_path) -> Config:
    """The same inputs under another results folder, without predictions."""
    root = tmp_path / "results"
    root.mkdir()
    for source in Paths.of(unbroken).root.iterdir():
        if source.name in ("boxes", "data"):
            shutil.copytree(source, root / source.name)  # tests change these
        elif source.name not in ("predictions", "work"):
            (root / source.name).symlink_to(source)
    return unbroken.model_copy(update={"run": unbroken.run.model_copy(update={"results": str(root)})})


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def predictions(config: Config, variant: str) -> dict[str, bytes]:
    return content(Paths.of(config).predictions(variant, 0))


def with_section(config: Config, section: str, **changes) -> Config:
    changed = getattr(config, section).model_copy(update=changes)
    return config.model_copy(update={section: changed})


def break_at(monkeypatch, video: int | None) -> list[str]:
    """Note the videos that are predicted, and break off at number `video` of this run."""
    seen: list[str] = []

    def predict_video(config, predictor, record, actors):
        if len(seen) == video:
            raise Broken
        seen.append(str(record["video"]))
        return REAL_PREDICT(config, predictor, record, actors)

    monkeypatch.setattr(predict, "_predict_video", predict_video)
    return seen


def broken_run(config: Config, monkeypatch, video: int, variant: str = "stage2") -> None:
    break_at(monkeypatch, video)
    with pytest.raises(Broken):
        predict.run(config, variant, 0)
    assert not Paths.of(config).predictions(variant, 0).exists()


def test_the_unbroken_run_has_rows_of_the_videos_with_actors(unbroken):
    for variant in VARIANTS:
        folder = Paths.of(unbroken).predictions(variant, 0)
        assert len(set(read_detections(folder / "detections.csv")["video"])) == N_VIDEOS - 1
        assert not Paths.of(unbroken).work(f"predict-{variant}-000").exists()
        assert (folder / "examples.npz").is_file() == (variant == "stage2")


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_scores_are_those_of_each_window_read_and_projected_anew(unbroken, variant):
    predictor = predict.trained_scorer(unbroken, variant)
    found = read_detections(Paths.of(unbroken).predictions(variant, 0) / "detections.csv")
    videos = read_videos([Paths.of(unbroken).ingest("val", 0)])
    boxes = read_boxes([Paths.of(unbroken).boxes("val", 0)])
    chosen = set(found["time_s"])
    for _, record in videos.iterrows():
        actors = video_actors(record["video"], boxes, unbroken.predict.min_score, chosen)
        expected = [
            scores(
                predictor.net(
                    network_input(clips.frames, unbroken.model.backbone, predictor.device),
                    clips.boxes_xyxy_norm, clips.clip_index, clips.bank(predictor.device),
                ),
                predictor.pose,
            )
            for _, clips in actor_clips(
                record, actors, unbroken.clip, 1, len(predictor.label_map), predictor.bank, predictor.window
            )
        ]  # fmt: skip
        own = found[found["video"] == record["video"]]["score"].to_numpy()
        assert len(own) == sum(values.numel() for values in expected)
        if len(own):
            plain = torch.cat(expected).flatten().detach().numpy()
            np.testing.assert_allclose(own, plain, atol=2e-6)  # written with six decimals


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_over_views_are_of_the_same_boxes_and_go_to_the_report(config, unbroken, variant):
    views = with_section(config, "predict", short_sides_px=[48, 64, 80], flip=True)
    predict.run(views, variant, 0)
    folder = Paths.of(config).predictions(variant, 0)
    found, single = (
        read_detections(Paths.of(run).predictions(variant, 0) / "detections.csv") for run in (views, unbroken)
    )
    keys = [name for name in found.columns if name != "score"]
    pd.testing.assert_frame_equal(found[keys], single[keys])
    assert (found["score"] - single["score"]).abs().max() > 1e-4
    assert json.loads((folder / "facts.json").read_text())["views"] == 6
    if variant == "stage2":
        with np.load(folder / "examples.npz") as examples:
            scores_shown, boxes_shown = examples["0/scores"], examples["0/boxes"]
            meta = json.loads(str(examples["0/meta"]))
        own = found[(found["video"] == meta["video"]) & (found["time_s"] == meta["time_s"])]
        assert len(own) == scores_shown.size and len(boxes_shown) == len(scores_shown)
        np.testing.assert_allclose(own["score"], scores_shown.flatten(), atol=2e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("video", range(N_VIDEOS))
def test_an_interrupted_prediction_goes_on_after_the_last_whole_video(
    config, unbroken, monkeypatch, capsys, variant, video
):
    broken_run(config, monkeypatch, video, variant)
    capsys.readouterr()
    seen = break_at(monkeypatch, None)
    predict.run(config, variant, 0)
    assert len(seen) == N_VIDEOS - video
    line = f"predict {variant} 0: going on after {video} of {N_VIDEOS} videos"
    assert (line in capsys.readouterr().err) == (video > 0)
    assert predictions(config, variant) == predictions(unbroken, variant)
    assert not Paths.of(config).work(f"predict-{variant}-000").exists()


def test_a_break_at_the_examples_predicts_nothing_again(config, unbroken, monkeypatch):
    def breaks(*_):
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(predict, "save_examples", breaks)
        with pytest.raises(Broken):
            predict.run(config, "stage2", 0)
    seen = break_at(monkeypatch, None)
    predict.run(config, "stage2", 0)
    assert seen == [] and predictions(config, "stage2") == predictions(unbroken, "stage2")


@pytest.mark.parametrize(
    ("variant", "changed", "told"),
    [
        ("stage1", "boxes", "boxes"),
        ("stage1", "labels", "labels"),
        ("stage1", "label map", "label map"),
        ("stage1", "threshold", "predict.min_score"),
        ("stage1", "sizes", "predict.short_sides_px"),
        ("stage1", "flip", "predict.flip"),
        ("stage2", "window", "stage2.window"),
        ("stage2_wrong_bank", "seed", "run.seed"),
        ("stage1", "seed", None),
        ("stage2", "examples", None),
        ("stage2", "batch", None),
    ],
)
def test_kept_videos_of_other_inputs_are_dropped(config, monkeypatch, capsys, variant, changed, told):
    broken_run(config, monkeypatch, 1, variant)
    labels = labels_path(config, "val")
    if changed == "boxes":
        table = Paths.of(config).boxes("val", 0) / "boxes.parquet"
        pd.read_parquet(table).assign(score=0.9).to_parquet(table)
    elif changed == "labels":
        labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    elif changed == "label map":
        label_map = labels.with_name("label_map.pbtxt")
        label_map.write_text(label_map.read_text() + "\n")
    changes = {
        "threshold": ("predict", {"min_score": 0.4}),
        "sizes": ("predict", {"short_sides_px": [48, 64]}),
        "flip": ("predict", {"flip": True}),
        "window": ("stage2", {"window": config.stage2.window.model_copy(update={"radius_s": 1})}),
        "seed": ("run", {"seed": config.run.seed + 1}),
        "examples": ("predict", {"examples": 1}),
        "batch": ("predict", {"batch_clips": 1}),
    }
    if changed in changes:
        config = with_section(config, changes[changed][0], **changes[changed][1])
    capsys.readouterr()
    broken_run(config, monkeypatch, 1, variant)
    said = capsys.readouterr().err
    if told is None:
        assert f"going on after 1 of {N_VIDEOS} videos" in said and "anew" not in said
    else:
        assert f"kept videos are of another {told}; starting anew" in said and "going on" not in said


@pytest.mark.parametrize("video", range(N_VIDEOS))
def test_an_interrupted_extraction_goes_on_after_the_last_whole_video(
    config, unbroken, monkeypatch, capsys, video
):
    (Paths.of(config).root / "bank").unlink()
    seen: list[str] = []

    def extract_video(*arguments):
        if len(seen) == video and not went_on:
            raise Broken
        seen.append(arguments[3]["video"])
        REAL_EXTRACT(*arguments)

    went_on = False
    monkeypatch.setattr(extract_bank, "_extract_video", extract_video)
    with pytest.raises(Broken):
        extract_bank.run(config, "val", 0)
    went_on = True
    capsys.readouterr()
    extract_bank.run(config, "val", 0)
    assert len(seen) == len(set(seen)) == N_VIDEOS
    line = f"extract-bank val 0: going on after {video} of {N_VIDEOS} videos"
    assert (line in capsys.readouterr().err) == (video > 0)
    shard = Paths.of(config).bank_shard("val", 0)
    assert content(shard) == content(Paths.of(unbroken).bank_shard("val", 0))


def give_detector(config: Config) -> None:
    """What train_detector leaves, untrained: it finds something everywhere."""
    folder = Paths.of(config).detector
    folder.mkdir()
    save_file(build_detector(config.detector).state_dict(), folder / "model.safetensors")
    facts = {"weights_sha256": sha256_of(folder / "model.safetensors")}
    (folder / "facts.json").write_text(json.dumps(facts))


def test_persons_are_found_and_scored_at_labels_between_seconds(config):
    """`data.key_frames: both` under a bank, whose rows stay at whole seconds."""
    torch.manual_seed(0)
    paths, csv = Paths.of(config), labels_path(config, "val")
    config = with_section(config, "data", key_frames="both")
    config = with_section(config, "detector", architecture=SMALL, keep_score=0.0, max_boxes=2,
                          min_side_px=64, max_side_px=64)  # fmt: skip
    config = with_section(config, "predict", min_score=0.0, examples=0)
    labels = read_labels(csv)
    moved, *others = sorted(set(labels["video"]))
    is_moved = labels["video"] == moved
    labels.loc[is_moved, "time_s"] += 0.4
    write_labels(labels, csv)
    give_detector(config)
    detect.run(config, "val", 0)
    (paths.root / "bank").unlink()
    extract_bank.run(config, "val", 0)
    seal_bank.run(config, "val")
    predict.run(config, "stage2", 0)

    at = set(labels[["video", "time_s"]].itertuples(index=False, name=None))
    boxes = read_boxes([paths.boxes("val", 0)])
    looked_at = set(boxes[["video", "time_s"]].itertuples(index=False, name=None))
    seconds = {key for key in looked_at if key[1].is_integer()}
    assert looked_at - seconds == {key for key in at if key[0] == moved} and len(seconds) == 5 * N_VIDEOS
    bank = BankReader(paths.bank("val"), reads=["relation"])
    rows = bank.window(moved, 2.4, 10.0)
    assert set(rows.time_s) == {time_s for video, time_s in seconds if video == moved}
    found = read_detections(paths.predictions("stage2", 0) / "detections.csv")
    scored = set(found[["video", "time_s"]].itertuples(index=False, name=None))
    assert {key for key in scored if key[0] == moved} == {key for key in at if key[0] == moved}
    assert all(time_s.is_integer() for video, time_s in scored if video in others) and at <= scored
