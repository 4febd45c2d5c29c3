"""The drawn data set as a stage: files that the rest reads, and labels that follow from the files alone."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from acar.config import Config, parse_config
from acar.data.encode import write_video
from acar.data.synthetic.draw import Painter
from acar.data.synthetic.law import CLASSES, simulate_video
from acar.data.synthetic.scene import FIXTURE_Y, LAMP_DIAMETER, arrange_scene
from acar.data.tables import read_excluded, read_label_map, read_labels
from acar.files import sha256_of
from acar.paths import Paths
from acar.stages import synthesize

SIZES = {
    "train_videos": 3, "val_videos": 2, "video_s": 8, "fps": 5, "short_side_px": 64, "window_radius_s": 2,
    "event_probability": 0.35, "cutaway_probability": 0.2,
}  # fmt: skip
ID = {item.name: item.id for item in CLASSES}


def config_in(folder: Path, **sizes: float) -> Config:
    return parse_config({"run": {"results": str(folder)}, "synthesize": SIZES | sizes})


def digests(config: Config) -> dict[str, str]:
    data = Paths.of(config).data
    return {str(p.relative_to(data)): sha256_of(p) for p in sorted(data.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = config_in(tmp_path_factory.mktemp("drawn"))
    synthesize.run(config)
    return config


def actors_of(config: Config, split: str) -> pd.DataFrame:
    """One row an annotated actor: video, time_s, actor_id, and `ids`, the set of its classes."""
    labels = read_labels(Paths.of(config).data / f"{split}.csv")
    return labels.groupby(["video", "time_s", "actor_id"])["action_id"].agg(set).rename("ids").reset_index()


def test_same_seed_same_bytes_and_another_seed_other_bytes(drawn, tmp_path):
    again, other = config_in(tmp_path / "again"), config_in(tmp_path / "other", seed=1)
    synthesize.run(again)
    synthesize.run(other)
    assert digests(again) == digests(drawn)
    changed = {name for name, digest in digests(other).items() if digest != digests(drawn)[name]}
    assert changed >= {name for name in digests(drawn) if name.startswith("videos/")}
    assert changed >= {"train.csv", "val.csv", "law.json"}


def test_tables_parse(drawn):
    data = Paths.of(drawn).data
    label_map = read_label_map(data / "label_map.pbtxt")
    assert label_map.ids == [item.id for item in CLASSES]
    assert label_map.groups()["pose"] == [ID["stand"], ID["crouch"], ID["sway"]]
    for split, n_videos in (("train", 3), ("val", 2)):
        labels = read_labels(data / f"{split}.csv")
        assert labels["video"].nunique() == n_videos
        assert set(labels["time_s"]) <= {float(second) for second in range(1, 8)}
        assert {video for video, _ in read_excluded(data / f"{split}_excluded.csv")} <= set(labels["video"])
        assert (actors_of(drawn, split)["ids"].map(lambda ids: len(ids & {1, 2, 3})) == 1).all()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("event", ["lamp", "sign"])
def test_long_term_labels_follow_from_the_csv_alone(drawn, split, event):
    """A second counts if the csv shows the event in it; excluded seconds count, seconds without a row do not."""
    actors, radius_s = actors_of(drawn, split), drawn.synthesize.window_radius_s
    lit = {(a.video, a.time_s) for a in actors.itertuples() if ID[f"{event}_lit"] in a.ids}
    found = {ID[f"recall_{event}"] in ids for ids in actors["ids"]}
    assert lit and found == {True, False}
    for actor in actors.itertuples():
        near = any(v == actor.video and 0 < abs(s - actor.time_s) <= radius_s for v, s in lit)
        assert (ID[f"recall_{event}"] in actor.ids) == near, actor


def test_law_states_what_the_files_hold(drawn):
    law = json.loads((Paths.of(drawn).data / "law.json").read_text())
    assert [item["name"] for item in law["classes"]] == list(ID)
    for split in ("train", "val"):
        key_frames = law["splits"][split]["key_frames"]
        with_actors = len(actors_of(drawn, split)[["video", "time_s"]].drop_duplicates())
        assert law["splits"][split]["key_frames_without_actors"] == key_frames - with_actors > 0
    figures = {item["name"]: item["clip_only_ap"] for item in law["classes"]}
    long_term = {figures.pop("recall_lamp"), figures.pop("recall_sign")}
    assert len(long_term) == 1 and 0 < long_term.pop() < 1
    assert set(figures.values()) == {1.0}


def test_compression_leaves_no_visible_trace_of_a_mark(drawn, tmp_path):
    """Decoded, the lamp's disk is as dark 0.2 s before and after a lit second as when nothing was lit."""
    config = drawn.synthesize.model_copy(update={"fps": 10, "short_side_px": 128})
    script = simulate_video(config, "train", 0)
    script.lamp[:], script.sign[:] = False, False
    script.lamp[[2, 5]] = True
    scene = arrange_scene(config, "train", 0, script.n_actors)
    painter = Painter(script, scene)
    write_video(tmp_path / "v.mp4", [painter.frame(k / 10) for k in range(80)], fps=10)
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]).astype(float)
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]] + 0.5
    distance = np.hypot(columns - scene.lamp_x * scene.unit_px, rows - FIXTURE_Y * scene.unit_px)
    brightness = frames[:, distance < 0.8 * LAMP_DIAMETER / 2 * scene.unit_px, 1].mean(axis=1)
    lit = np.isin(np.arange(80), [19, 20, 21, 49, 50, 51])
    assert brightness[lit].min() > 200
    assert np.ptp(brightness[~lit]) < 2.0


def test_a_failed_run_leaves_no_data(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(synthesize, "write_tables", fail)
    config = config_in(tmp_path, train_videos=1, val_videos=1, video_s=4)
    with pytest.raises(OSError, match="disk full"):
        synthesize.run(config)
    assert not Paths.of(config).data.exists()
