"""Files of the drawn data set: repeatable, whole, and in AVA's formats."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from acar.config import Config, parse_config
from acar.data.synthetic.law import CLASSES, simulate_video
from acar.data.tables import read_excluded, read_label_map, read_labels
from acar.files import sha256_of
from acar.stages import synthesize


def _config(results: Path, **changes: object) -> Config:
    small = {
        "train_videos": 3,
        "val_videos": 2,
        "video_s": 6,
        "short_side_px": 96,
        "cutaway_probability": 0.2,
    }
    return parse_config({"run": {"results": str(results)}, "synthesize": small | changes})


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("drawn")
    synthesize.run(_config(results))
    return results / "data"


def test_same_seed_same_bytes(data: Path, tmp_path: Path) -> None:
    synthesize.run(_config(tmp_path))
    assert _digests(tmp_path / "data") == _digests(data)
    assert set(_digests(data)) == {
        "label_map.pbtxt", "law.json", "origin.json",
        "train.csv", "train_excluded.csv", "val.csv", "val_excluded.csv",
        *(f"videos/train_{i:03d}.mp4" for i in range(3)), *(f"videos/val_{i:03d}.mp4" for i in range(2)),
    }  # fmt: skip


def test_worker_processes_give_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesize, "FEW_VIDEOS", 0)
    monkeypatch.setattr(synthesize.os, "sched_getaffinity", lambda _: {0, 1})
    synthesize.run(_config(tmp_path))
    assert _digests(tmp_path / "data") == _digests(data)


def test_another_seed_differs(data: Path, tmp_path: Path) -> None:
    synthesize.run(_config(tmp_path, seed=1))
    same = set(_digests(tmp_path / "data").items()) & set(_digests(data).items())
    assert {name for name, _ in same} <= {"label_map.pbtxt", "train_excluded.csv", "val_excluded.csv"}


def test_adding_videos_keeps_the_old_ones(data: Path, tmp_path: Path) -> None:
    synthesize.run(_config(tmp_path, train_videos=4))
    more, before = _digests(tmp_path / "data"), _digests(data)
    assert all(more[name] == digest for name, digest in before.items() if name.startswith("videos/"))


def test_labels_parse_and_agree_with_the_scripts(data: Path, tmp_path: Path) -> None:
    config = _config(tmp_path).synthesize
    label_map = read_label_map(data / "label_map.pbtxt")
    assert [(c.id, c.name, c.group) for c in label_map.classes] == [(c.id, c.name, c.group) for c in CLASSES]
    labels = read_labels(data / "val.csv")
    empty = 0
    for index in range(config.val_videos):
        script = simulate_video(config, "val", index)
        mine = labels[labels["video"] == script.video]
        seconds = set(mine["time_s"].astype(int))
        empty += len(script.key_seconds) - len(seconds)
        assert seconds == {s for s in script.key_seconds if not script.cutaway[s]}
        for (second, actor), rows in mine.groupby(["time_s", "actor_id"]):
            wanted = {c.id for k, c in enumerate(CLASSES) if script.labels[int(actor), int(second), k]}
            assert set(rows["action_id"]) == wanted
            assert len(rows[["x1", "y1", "x2", "y2"]].drop_duplicates()) == 1
    assert empty > 0, "no key frame without actors in this seed"
    boxes = labels[["x1", "y1", "x2", "y2"]]
    assert boxes.min().min() >= 0 and boxes.max().max() <= 1


def test_excluded_key_frames_are_those_of_the_scripts(tmp_path: Path) -> None:
    config = _config(tmp_path, train_videos=1, val_videos=40, video_s=8, fps=4, short_side_px=48)
    scripts = [simulate_video(config.synthesize, "val", index) for index in range(40)]
    wanted = {
        (script.video, float(s)) for script in scripts for s in script.key_seconds if script.excluded[s]
    }
    assert 0 < len(wanted) < 20
    synthesize.run(config)
    assert read_excluded(tmp_path / "data" / "val_excluded.csv") == wanted


def test_law_counts_what_the_files_hold(data: Path) -> None:
    law = json.loads((data / "law.json").read_text())
    for split in ("train", "val"):
        labels, excluded = read_labels(data / f"{split}.csv"), read_excluded(data / f"{split}_excluded.csv")
        kept = labels[[key not in excluded for key in zip(labels["video"], labels["time_s"], strict=True)]]
        actors = kept[["video", "time_s", "actor_id"]].drop_duplicates()
        assert law["splits"][split]["evaluated_actors"] == len(actors)
        for entry in law["classes"]:
            positives = int((kept["action_id"] == entry["id"]).sum())
            assert entry["positives"][split] == positives
            assert entry["prevalence"][split] == pytest.approx(positives / len(actors))
    assert all(c["clip_only_ap"] == 1.0 for c in law["classes"] if c["group"] != "long_term")
    assert all(0 < c["clip_only_ap"] < 1 for c in law["classes"] if c["group"] == "long_term")


def test_videos_are_h264_of_the_asked_length(data: Path) -> None:
    for path in sorted((data / "videos").iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
            assert float(stream.average_rate) == 10.0 and frames == 60


def test_a_failed_run_leaves_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(synthesize, "write_tables", fail)
    with pytest.raises(OSError, match="disk full"):
        synthesize.run(_config(tmp_path, train_videos=1, val_videos=1))
    assert not (tmp_path / "data").exists()
