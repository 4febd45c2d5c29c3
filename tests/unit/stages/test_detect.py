"""`detect` and `train_detector` on a store of two tiny videos."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from acar.config import Config, parse_config
from acar.data.tables import PERSON_BOX_COLUMNS, read_box_csv
from acar.detection import train
from acar.detection.faster_rcnn import SMALL, build_detector
from acar.errors import UserError
from acar.files import sha256_of
from acar.paths import Paths
from acar.stages import detect, train_detector

FPS, N_FRAMES, WIDTH, HEIGHT = 2, 12, 64, 48
REAL_BATCH = detect._detect_batch
START_S = {"a": 0.0, "b": 100.0, "skipped": 0.0}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def store(folder: Path) -> None:
    """An ingest shard of frame folders, 6 s each; video `b` starts at second 100."""
    rng = np.random.default_rng(0)
    for video in ("a", "b"):
        (folder / video).mkdir(parents=True)
        for frame in range(N_FRAMES):
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / video / f"{frame:02d}.png")
    table = pd.DataFrame({"video": list(START_S), "path": list(START_S), "start_s": list(START_S.values())})
    same = {"kind": "frames", "pattern": "%02d.png", "first_number": 0, "fps": float(FPS),
            "n_frames": N_FRAMES, "width": WIDTH, "height": HEIGHT, "duration_s": 6.0,
            "status": "ok", "reason": ""}  # fmt: skip
    table = table.assign(**same)
    table.loc[table["video"] == "skipped", ["status", "reason", "n_frames"]] = ["skipped", "broken", 0]
    table.to_parquet(folder / "videos.parquet", index=False)


@pytest.fixture
def config(tmp_path) -> Config:
    box = "0.1,0.1,0.5,0.9"
    labels = tmp_path / "labels.csv"
    labels.write_text(f"a,1,{box},1,0\na,1,{box},2,0\na,3,{box},1,0\nb,101,{box},1,0\n")
    values = {
        "run": {"results": str(tmp_path / "results"), "device": "cpu"},
        "data": {"source": "files", "videos": str(tmp_path), "label_map": str(tmp_path / "map.pbtxt"),
                 "train": {"labels": str(labels)}, "val": {"labels": str(labels)}},
        "detector": {"min_side_px": HEIGHT, "max_side_px": WIDTH, "iterations": 3, "batch_images": 2,
                     "warmup_iterations": 1, "keep_score": 0.0, "max_boxes": 3},
    }  # fmt: skip
    config = with_detector(parse_config(values), architecture=SMALL)
    for split in ("train", "val"):
        store(Paths.of(config).ingest(split, 0))
    return config


def with_detector(config: Config, **changes) -> Config:
    return config.model_copy(update={"detector": config.detector.model_copy(update=changes)})


def with_span(config: Config, span_s: tuple[float, float]) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"span_s": span_s})})


def boxes_of(config: Config) -> pd.DataFrame:
    return pd.read_parquet(Paths.of(config).boxes("val", 0) / "boxes.parquet")


def give_weights(config: Config, seed: int = 0) -> None:
    """What train_detector leaves, untrained."""
    torch.manual_seed(seed)
    folder = Paths.of(config).detector
    folder.mkdir(parents=True, exist_ok=True)
    save_file(build_detector(config.detector).state_dict(), folder / "model.safetensors")
    facts = {"weights_sha256": sha256_of(folder / "model.safetensors")}
    (folder / "facts.json").write_text(json.dumps(facts))


def test_every_second_of_every_video_gets_boxes(config):
    give_weights(config)
    detect.run(config, split="val", shard=0)
    boxes = boxes_of(config)
    assert list(boxes.columns) == PERSON_BOX_COLUMNS
    keys = set(zip(boxes["video"], boxes["time_s"], strict=True))
    assert keys == {("a", float(t)) for t in range(6)} | {("b", float(t)) for t in range(100, 106)}
    assert boxes.groupby(["video", "time_s"]).size().max() == config.detector.max_boxes
    corners = boxes[["x1", "y1", "x2", "y2"]].to_numpy()
    assert ((corners >= 0) & (corners <= 1)).all() and (corners[:, :2] < corners[:, 2:]).all()
    order = boxes.sort_values(["video", "time_s", "score"], ascending=[True, True, False], kind="stable")
    pd.testing.assert_frame_equal(order, boxes)
    csv = read_box_csv(Paths.of(config).boxes("val", 0) / "boxes.csv")
    assert csv[["video", "time_s"]].equals(boxes[["video", "time_s"]])
    np.testing.assert_allclose(csv[["x1", "score"]], boxes[["x1", "score"]], atol=1e-6)


def test_span_and_repeat(config):
    give_weights(config)
    config = with_span(config, (2, 101))
    detect.run(config, split="val", shard=0)
    first = boxes_of(config)
    assert sorted(set(first["time_s"])) == [2, 3, 4, 5, 100, 101]
    detect.run(config, split="val", shard=0)
    pd.testing.assert_frame_equal(boxes_of(config), first)


def labelled(config: Config, text: str, key_frames: str = "labelled") -> Config:
    """The same with key frames where the labels say; nobody is at a second without a box."""
    Path(str(config.data.val.labels)).write_text(text)
    data = config.data.model_copy(update={"key_frames": key_frames})
    return config.model_copy(update={"data": data})


def test_boxes_where_the_labels_are(config):
    give_weights(config)
    config = labelled(
        config, "a,1.5,0,0,0.5,0.9,1,0\na,2.04,,,,,,\nb,101,0,0,0.5,0.9,1,0\nb,200,0,0,1,1,1,0\n"
    )
    detect.run(config, split="val", shard=0)
    boxes = boxes_of(config)
    assert set(zip(boxes["video"], boxes["time_s"], strict=True)) == {("a", 1.5), ("a", 2.04), ("b", 101.0)}


def test_boxes_at_whole_seconds_and_where_the_labels_are(config):
    give_weights(config)
    config = labelled(config, "a,1.5,0,0,0.5,0.9,1,0\na,2.04\nb,101,0,0,0.5,0.9,1,0\n", "both")
    detect.run(config, split="val", shard=0)
    boxes = boxes_of(config)
    seconds = {("a", float(t)) for t in range(6)} | {("b", float(t)) for t in range(100, 106)}
    assert set(zip(boxes["video"], boxes["time_s"], strict=True)) == seconds | {("a", 1.5), ("a", 2.04)}


def test_an_interrupted_detection_starts_over_where_other_frames_are_labelled(config, monkeypatch):
    give_weights(config)
    config = labelled(config, "a,1,0,0,1,1,1,0\nb,101,0,0,1,1,1,0\n")

    def stop_at_b(model, reader, record, times_s, max_boxes):
        if record["video"] == "b":
            raise Broken
        return REAL_BATCH(model, reader, record, times_s, max_boxes)

    monkeypatch.setattr(detect, "_detect_batch", stop_at_b)
    with pytest.raises(Broken):
        detect.run(config, split="val", shard=0)
    monkeypatch.setattr(detect, "_detect_batch", REAL_BATCH)
    detect.run(labelled(config, "a,2,0,0,1,1,1,0\nb,101,0,0,1,1,1,0\n"), split="val", shard=0)
    assert set(boxes_of(config)["time_s"]) == {2.0, 101.0}


def test_nothing_found_is_an_empty_table(config):
    give_weights(config)
    detect.run(with_span(config, (50, 60)), split="val", shard=0)
    boxes = boxes_of(config)
    assert len(boxes) == 0 and boxes.dtypes["x1"] == np.float64
    config = with_detector(config, keep_score=1.0)
    detect.run(config, split="val", shard=0)
    assert len(boxes_of(config)) == 0
    assert len(read_box_csv(Paths.of(config).boxes("val", 0) / "boxes.csv")) == 0


class Broken(BaseException):
    """A kill, as far as one process can play it."""


def break_at_batch(monkeypatch, batch: int | None, seen: list[str]) -> None:
    """Note the video of each batch that is detected, and break off at number `batch`."""
    real = REAL_BATCH

    def detect_batch(model, reader, record, *rest):
        if batch is not None and len(seen) == batch:
            raise Broken
        seen.append(record["video"])
        return real(model, reader, record, *rest)

    monkeypatch.setattr(detect, "_detect_batch", detect_batch)


def three_videos(config: Config) -> Config:
    """A third video `c` without any second in the span, so without boxes, and four batches of the others."""
    give_weights(config)
    folder = Paths.of(config).ingest("val", 0)
    table = pd.read_parquet(folder / "videos.parquet")
    last = table[table["video"] == "b"].assign(video="c", start_s=900.0)
    pd.concat([table, last], ignore_index=True).to_parquet(folder / "videos.parquet", index=False)
    return with_detector(with_span(config, (0, 200)), batch_images=3)


def artefact(config: Config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Paths.of(config).boxes("val", 0).iterdir())}


@pytest.mark.parametrize(
    ("batch", "finished", "again"),
    [(0, 0, "aabb"), (1, 0, "aabb"), (2, 1, "bb"), (3, 1, "bb")],
)
def test_an_interrupted_detection_goes_on_after_the_last_whole_video(
    config, monkeypatch, capsys, batch, finished, again
):
    config = three_videos(config)
    detect.run(config, split="val", shard=0)
    unbroken = artefact(config)
    shutil.rmtree(Paths.of(config).boxes("val", 0))
    break_at_batch(monkeypatch, batch, [])
    with pytest.raises(Broken):
        detect.run(config, split="val", shard=0)
    assert not Paths.of(config).boxes("val", 0).exists()
    break_at_batch(monkeypatch, None, seen := [])
    capsys.readouterr()
    detect.run(config, split="val", shard=0)
    said = capsys.readouterr().err
    assert "".join(seen) == again and artefact(config) == unbroken
    assert (f"detect val 0: going on after {finished} of 3 videos" in said) == (finished > 0)
    assert not Paths.of(config).work("detect-val-000").exists()


def test_a_break_behind_the_last_video_detects_nothing_again(config, monkeypatch):
    config = three_videos(config)
    detect.run(config, split="val", shard=0)
    unbroken = artefact(config)

    def breaks(*_):
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(detect, "write_box_csv", breaks)
        with pytest.raises(Broken):
            detect.run(config, split="val", shard=0)
    break_at_batch(monkeypatch, 0, seen := [])
    detect.run(config, split="val", shard=0)
    assert seen == [] and artefact(config) == unbroken


@pytest.mark.parametrize("changed", ["weights", "threshold", "videos", "clips", "nothing", "loudness"])
def test_kept_videos_of_other_inputs_are_dropped(config, monkeypatch, capsys, changed):
    config = three_videos(config)
    break_at_batch(monkeypatch, 2, [])
    with pytest.raises(Broken):
        detect.run(config, split="val", shard=0)
    paths, told = Paths.of(config), {"weights": "detector weights", "threshold": "detector.keep_score"}
    videos = paths.ingest("val", 0) / "videos.parquet"
    if changed == "weights":
        give_weights(config, seed=1)
    elif changed == "threshold":
        config = with_detector(config, keep_score=0.3)
    elif changed == "videos":
        pd.read_parquet(videos).assign(width=WIDTH + 2).to_parquet(videos, index=False)
    elif changed == "clips":
        os.utime(videos.parent / "b", ns=(1, 1))
    elif changed == "loudness":
        config = with_detector(config, checkpoint_every=3)
    break_at_batch(monkeypatch, 0, [])
    with pytest.raises(Broken):
        detect.run(config, split="val", shard=0)
    said = capsys.readouterr().err
    if changed in ("nothing", "loudness"):
        assert "going on after 1 of 3 videos" in said
    else:
        assert (
            f"are of another {told.get(changed, 'videos')}; starting anew" in said and "going on" not in said
        )


def test_weights_of_a_file(config, tmp_path):
    give_weights(config)
    weights = Paths.of(config).detector / "model.safetensors"
    detect.run(config, split="val", shard=0)
    trained = boxes_of(config)
    weights.rename(tmp_path / "mine.safetensors")
    with pytest.raises(UserError, match="train-detector"):
        detect.run(config, split="val", shard=0)
    config = with_detector(config, source="weights", weights=str(tmp_path / "mine.safetensors"))
    detect.run(config, split="val", shard=0)
    pd.testing.assert_frame_equal(boxes_of(config), trained)


def test_imported_boxes_are_those_of_the_videos(config, tmp_path, capsys):
    row = np.array([[0.1, 0.2, 0.3, 0.4, 0.9]])
    many = np.concatenate([row * [1, 1, 1 + s, 1, s] for s in (0.1, 0.5, 0.9, 1.0)])
    proposals = {"a,0000": row, "a,0002": many, "a,0006": row, "skipped,0001": row, "other,0001": row}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(proposals))
    files = {"train": str(tmp_path / "p.pkl"), "val": str(tmp_path / "p.pkl")}
    config = with_detector(config, source="boxes", boxes=files, keep_score=0.05, max_boxes=2)
    detect.run(config, split="val", shard=0)
    boxes = boxes_of(config)  # second 6 is beyond the last frame
    assert boxes[["video", "time_s"]].to_numpy().tolist() == [["a", 0], ["a", 2], ["a", 2]]
    np.testing.assert_allclose(boxes["score"], [0.9, 0.9, 0.81])
    told = capsys.readouterr().err
    assert "1 of 2 videos, such as 'b'" in told
    assert (
        "left out are 1 of 6 boxes, which lie before or behind their video, such as at second 0006 of `a`"
        in told
    )
    config = with_span(config, (0, 5))  # what is cut off on purpose is not told
    detect.run(config, split="val", shard=0)
    assert len(boxes_of(config)) == 3 and "left out" not in capsys.readouterr().err
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"other,0001": row}))
    detect.run(config, split="val", shard=0)
    assert len(boxes_of(config)) == 0 and list(boxes_of(config).columns) == PERSON_BOX_COLUMNS


def test_train_detector_writes_weights_facts_and_metrics(config):
    train_detector.run(config)
    paths = Paths.of(config)
    facts = json.loads((paths.detector / "facts.json").read_text())
    assert facts["weights_sha256"] == sha256_of(paths.detector / "model.safetensors")
    # Seconds 1 and 3 of `a` and 101 of `b` are labelled; 2 lies between labelled ones.
    assert (facts["n_images"], facts["n_images_without_people"], facts["n_boxes"]) == (4, 1, 3)
    lines = [json.loads(line) for line in (paths.detector / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == 3 and np.isfinite(lines[-1]["loss"])
    assert not paths.work("detector").exists()
    detect.run(config, split="val", shard=0)


def test_train_detector_goes_on_after_a_kill(config, monkeypatch, capsys):
    train_detector.run(config)
    weights = Paths.of(config).detector / "model.safetensors"
    whole = load_file(weights)
    weights.unlink()
    config = with_detector(config, checkpoint_every=1)
    real_step = train._step

    def killed_at_the_last(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(train, "_step", killed_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        train_detector.run(config)
    assert not weights.exists() and (Paths.of(config).work("detector") / "checkpoint.pt").is_file()
    monkeypatch.setattr(train, "_step", real_step)
    train_detector.run(with_detector(config, checkpoint_every=7))  # how often it is saved does not matter
    assert "train detector: going on at iteration 2 of 3" in capsys.readouterr().err
    resumed = load_file(weights)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_train_detector_refuses_what_it_cannot_do(config, tmp_path):
    with pytest.raises(UserError, match="nothing to train"):
        train_detector.run(with_detector(config, source="weights", weights="COCO_V1"))
    (tmp_path / "labels.csv").write_text("elsewhere,1,0.1,0.1,0.5,0.9,1,0\n")
    with pytest.raises(UserError, match="none of its key frames"):
        train_detector.run(config)
