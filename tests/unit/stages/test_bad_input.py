"""What people really have, through the command line: a message that says what, where and what to do, status 2,
no trace, and nothing lost of what was finished."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny import TRAIN, tiny_values
from video_samples import numbered, tenths, write_audio, write_source

from acar import cli
from acar.config import Config, parse_config
from acar.data.clip_dataset import TrainingClips, collate, network_input
from acar.data.key_frames import KeyFrame
from acar.data.tables import read_videos
from acar.detection.faster_rcnn import SMALL, build_detector, detect_people
from acar.models.net import build_network
from acar.paths import Paths
from acar.report.collect import collect
from acar.stages import ingest
from acar.training.plan import Slot

GOOD = "a,1,.1,.1,.5,.9,1,0\n"
LABEL_MAP = (
    'item { name: "stand" id: 1 group: "pose" }\nitem { name: "wave" id: 2 }\nitem { name: "x" id: 9 }\n'
)


class Project:
    """A user's own data set: two train videos, one val video, and the command line to run on them."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.videos, self.train, self.val = root / "videos", root / "train.csv", root / "val.csv"
        self.videos.mkdir()
        for name in "abc":
            write_source(self.videos / f"{name}.mp4", tenths(25))
        self.train.write_text(GOOD + GOOD.replace("a,", "b,"))
        self.val.write_text(GOOD.replace("a,", "c,"))
        (root / "map.pbtxt").write_text(LABEL_MAP)
        self.values = tiny_values(root / "results", data={
            "source": "files", "videos": str(self.videos), "label_map": str(root / "map.pbtxt"),
            "train": {"labels": str(self.train)}, "val": {"labels": str(self.val)},
        })  # fmt: skip

    @property
    def config(self) -> Config:
        return parse_config(self.values)

    @property
    def paths(self) -> Paths:
        return Paths.of(self.config)

    def set(self, section: str, **values: Any) -> None:
        self.values[section] = {**self.values.get(section, {}), **values}

    def acar(self, verb: str, *ids: str) -> tuple[int, str]:
        """Exit status and what was said on stderr."""
        file = self.root / "config.yaml"
        file.write_text(yaml.safe_dump(self.values))
        self.capsys.readouterr()
        status = cli.main([verb, "--config", str(file), *ids])
        said = self.capsys.readouterr().err
        assert "Traceback" not in said
        return status, said

    def ingest(self, split: str = "train", shard: int = 0) -> tuple[int, str]:
        return self.acar("ingest", "--split", split, "--shard", str(shard))

    def refusal(self, verb: str, *ids: str) -> str:
        status, said = self.acar(verb, *ids)
        assert status == 2, said
        assert f"acar {verb}: " in said
        return said[said.index(f"acar {verb}: ") :]

    def ingest_refusal(self, split: str = "train") -> str:
        return self.refusal("ingest", "--split", split, "--shard", "0")

    def files(self) -> dict[str, bytes]:
        """Everything that finished stages left."""
        root = self.paths.root
        kept = [p for p in sorted(root.rglob("*")) if p.is_file() and p.relative_to(root).parts[0] != "work"]
        return {str(path.relative_to(root)): path.read_bytes() for path in kept}

    def give_boxes(self, split: str, score: float = 0.95, videos: str = "abc") -> None:
        """Boxes of seconds 0 to 2, as `detect` would leave them."""
        seconds = [(video, second) for video in videos for second in (0.0, 1.0, 2.0)]
        table = pd.DataFrame(seconds, columns=["video", "time_s"])
        table = table.astype({"video": "str", "time_s": float})
        folder = self.paths.boxes(split, 0)
        folder.mkdir(parents=True, exist_ok=True)
        table = table.assign(x1=0.1, y1=0.1, x2=0.5, y2=0.9, score=score)
        table.to_parquet(folder / "boxes.parquet", index=False)


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):  # commands change them for good
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return Project(tmp_path, capsys)


BAD_ROWS = {
    "a missing column": ("a,1,.1,.1,.5,.9\n", "6 columns; expected video,time_s,x1,y1,x2,y2,action_id[,actor_id]"),
    "a non-number": (GOOD.replace(".5", "wide"), "x2 is 'wide'; expected a number; correct or remove the row"),
    "x1 = x2": (GOOD.replace(".5", ".1"), "box 0.1,0.1,0.1,0.9 has no area; expected x1 < x2 and y1 < y2"),
    "x1 > x2": (GOOD.replace(".5", ".05"), "has no area; expected x1 < x2 and y1 < y2; correct or remove"),
    "pixels": (GOOD.replace(".5", "50"), "box 0.1,0.1,50,0.9 is outside the frame; expected x1,y1,x2,y2 as"),
    "an unknown class": (GOOD.replace(",1,0", ",10,0"), "action id 10 not in the label map, whose last is 9"),
    "a repeated row": (GOOD, "repeats line 1 (same video, second, box, action and person; 1 such row(s))"),
    "not UTF-8": (b"caf\xe9" + GOOD[1:].encode(), "not UTF-8 text (invalid continuation byte); save the file"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(BAD_ROWS))
def test_a_bad_row_stops_ingest_with_its_line(project: Project, what: str) -> None:
    assert project.ingest()[0] == 0
    finished = project.files()
    row, told = BAD_ROWS[what]
    text = GOOD + "\n" + GOOD.replace("a,", "b,")  # an empty line counts as one
    project.train.write_bytes(text.encode() + (row if isinstance(row, bytes) else row.encode()))
    said = project.ingest_refusal()
    assert f"{project.train}, line 4: " in said and told in said
    assert project.files() == finished


def test_an_empty_csv(project: Project) -> None:
    project.train.write_text("\n \n")
    assert f"{project.train}: no rows; expected lines of video,time_s" in project.ingest_refusal()


def test_repeated_rows_are_taken_once_on_request(project: Project) -> None:
    other_person = GOOD.replace(",1,0", ",1,7")
    project.train.write_text(GOOD + GOOD.replace("a,", "b,") + other_person)
    assert project.ingest() == (0, project.ingest()[1]) and "repeat" not in project.ingest()[1]
    project.train.write_text(GOOD + GOOD.replace("a,", "b,") + GOOD + GOOD)
    assert "line 3: repeats line 1" in (said := project.ingest_refusal()) and "2 such row(s)" in said
    assert "ingest.on_error: skip" in said
    project.set("ingest", on_error="skip")
    status, said = project.ingest()
    assert status == 0
    assert (
        "2 repeated row(s), each taken once in training: line 3 repeats line 1, line 4 repeats line 1" in said
    )
    assert any("2 repeated row(s)" in note for note in collect(project.config).notes)


def test_a_class_in_a_gap_of_the_label_map_is_told(project: Project) -> None:
    project.train.write_text(GOOD + GOOD.replace(",1,0", ",5,0"))
    status, said = project.ingest()
    assert status == 0
    assert (
        "1 row(s) have a class that the label map leaves out, so they are persons without an action: 5"
        in said
    )


def test_a_video_of_the_csv_that_is_absent(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(ingest, "transcode", lambda source, *_: decoded.append(source))
    project.train.write_text(GOOD + "".join(GOOD.replace("a,", f"gone{k},") for k in range(8)))
    said = project.ingest_refusal()
    assert f"video `gone0` of {project.train}: no gone0.mp4 (or other video file)" in said
    assert "7 more: gone1, gone2, gone3, gone4, gone5 and 2 more" in said and "on_error: skip" in said
    assert not decoded  # it is told before hours of decoding


def test_a_link_to_nowhere(project: Project) -> None:
    (project.videos / "a.mp4").unlink()
    (project.videos / "a.mp4").symlink_to("elsewhere.mp4")
    assert "is a link to elsewhere.mp4, which does not exist" in project.ingest_refusal()


def test_a_video_without_labels_is_a_warning(project: Project) -> None:
    assert "warning" not in project.ingest()[1]
    for name in ("u.mp4", "v.mkv", "notes.txt", ".hidden.mp4"):
        (project.videos / name).touch()
    (project.videos / "frames").mkdir()
    (project.videos / "class").mkdir()
    write_source(project.videos / "class" / "w.mp4", tenths(25))
    (project.videos / "class" / "spare.mp4").touch()
    project.train.write_text(GOOD + GOOD.replace("a,", "class/w,"))
    status, said = project.ingest()
    assert status == 0
    told = "5 video(s) are named by neither split's labels and not used: b.mp4, class/spare.mp4, frames, u.mp4, v.mkv"
    assert said.count(told) == 1 and f"{project.videos}: " in said
    assert "neither" not in project.ingest("val")[1]  # the folder is the same


def make_bad(videos: Path, what: str) -> None:
    target = videos / "b.mp4"
    whole = target.read_bytes()
    if what == "truncated":
        target.write_bytes(whole[: len(whole) // 2])
    elif what == "empty":
        target.write_bytes(b"")
    elif what == "audio only":
        write_audio(target)
    elif what == "no video at all":
        target.write_bytes(b"<html>404</html>" * 50)
    elif what == "cut while copying":
        target.unlink()
        write_source(videos / "b.mkv", tenths(90))
        whole = (videos / "b.mkv").read_bytes()
        (videos / "b.mkv").write_bytes(whole[: len(whole) // 2])
    elif what == "shorter than its labels":
        write_source(target, tenths(5))
    elif what == "a strip":
        target.unlink()
        strip = [np.zeros((4096, 4, 3), np.uint8)] * 2
        write_source(videos / "b.mkv", tenths(2), codec="ffv1", pixels="bgr0", size=(4, 4096), images=strip)


BAD_VIDEOS = {
    "truncated": "FFmpeg cannot open it",  # an mp4's index is at its end
    "empty": "the file is empty (0 bytes)",
    "audio only": "it holds no video stream (streams: audio)",
    "no video at all": "FFmpeg cannot open it",
    "cut while copying": "truncated: its pictures end at",
    "shorter than its labels": "it covers 0.00 to 0.40 s, its labels reach from 1 to 1 s",
    "a strip": "its 4x4096 px would become 64x65536 at ingest.short_side_px; expected sides of at most 16384 px",
}


@pytest.mark.parametrize("what", list(BAD_VIDEOS))
def test_a_bad_video_stops_ingest_and_what_was_decoded_is_kept(
    project: Project, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bad(project.videos, what)
    said = project.ingest_refusal()
    assert "video `b`: " in said and f"{project.videos}/b.m" in said and BAD_VIDEOS[what] in said
    assert "replace the source, remove the video's rows" in said and "`ingest.on_error: skip`" in said
    decoded: list[str] = []
    real = ingest.transcode
    monkeypatch.setattr(ingest, "transcode", lambda s, *rest: decoded.append(s.stem) or real(s, *rest))
    project.set("ingest", on_error="skip")
    status, said = project.ingest()
    assert status == 0 and "video `b` skipped: " in said
    assert "a" not in decoded  # it was kept, also under the other setting
    troubles = [t for t in collect(project.config).splits["train"].troubles if t.is_skipped]
    assert [trouble.video for trouble in troubles] == ["b"] and BAD_VIDEOS[what] in troubles[0].reason


def test_every_video_of_a_split_skipped(project: Project) -> None:
    project.set("ingest", on_error="skip")
    (project.videos / "c.mp4").write_bytes(b"")
    said = project.ingest_refusal("val")
    assert (
        "data.val: ingest skipped every one of its 1 video(s)" in said
        and "`c`: " in said
        and "0 bytes" in said
    )


def test_every_video_of_a_split_of_several_shards_skipped(project: Project) -> None:
    """A shard knows of itself alone: the first stages that read them all refuse."""
    project.set("ingest", on_error="skip")
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            (project.videos / f"{name}.mp4").write_bytes(b"")
        labels = {"labels": str(project.root / f"{split}.csv"), "shards": 2}
        project.set("data", **{split: labels})
        assert [project.ingest(split, shard)[0] for shard in (0, 1)] == [0, 0]
    told = "ingest skipped every one of its"
    assert f"data.train: {told} 2 video(s)" in project.refusal("train-stage1")
    assert f"data.train: {told} 2 video(s)" in project.refusal("train-detector")
    assert f"data.val: {told} 1 video(s)" in project.refusal("seal-bank", "--split", "val")
    assert f"data.val: {told} 1 video(s)" in project.refusal("evaluate", "--variant", "stage1")


def test_frames_too_small_for_the_network_are_told_before_decoding(project: Project) -> None:
    project.set("ingest", short_side_px=16)
    assert "raise ingest.short_side_px, or lower model.backbone.spatial_strides" in project.ingest_refusal()
    assert not (project.paths.root / "work" / "ingest-train-000").exists()


def one_frame(videos: Path) -> None:
    write_source(videos / "a.mp4", [0.0], images=[numbered(7)])


def variable_rate(videos: Path) -> None:
    write_source(videos / "a.mp4", [0.0, 0.033, 0.5, 0.533, 0.567, 1.2, 1.9])


def rotated(videos: Path) -> None:
    one = 1 << 16
    write_source(videos / "a.mp4", tenths(12), matrix=(0, one, 0, -one, 0, 0, 0, 0, 1 << 30))


def tiny_frames(videos: Path) -> None:
    (videos / "a.mp4").unlink()
    images = [np.full((13, 17, 3), 40 + 10 * k, np.uint8) for k in range(12)]
    write_source(videos / "a.mkv", tenths(12), codec="ffv1", pixels="bgr0", size=(17, 13), images=images)


def wide_frames(videos: Path) -> None:
    write_source(videos / "a.mp4", tenths(12), size=(400, 20))


def long_frames(videos: Path) -> None:
    write_source(videos / "a.mp4", tenths(12), size=(20, 400))


ODD_VIDEOS = {  # maker: the labelled second, upright width and height
    one_frame: (0, (106, 64)),
    variable_rate: (1, (106, 64)),
    rotated: (1, (64, 106)),
    tiny_frames: (1, (84, 64)),
    wide_frames: (1, (1280, 64)),
    long_frames: (1, (64, 1280)),
}


@pytest.mark.parametrize("make", list(ODD_VIDEOS), ids=lambda make: make.__name__)
def test_odd_videos_are_read_to_the_end(project: Project, make: Any) -> None:
    """From file to logits: ingest, the clip around the labelled second, the network; and the detector."""
    second, size = ODD_VIDEOS[make]
    make(project.videos)
    project.train.write_text(GOOD.replace("a,1,", f"a,{second},"))
    assert project.ingest()[0] == 0
    check_logits_and_detector(project, "a", second, size)


def check_logits_and_detector(project: Project, video: str, second: int, size: tuple[int, int]) -> None:
    config = project.config
    table = read_videos([project.paths.ingest("train", 0)]).set_index("video", drop=False)
    row = table.loc[video]
    assert (row["width"], row["height"]) == size and row["status"] == "ok"
    frame = KeyFrame(
        video, float(second), np.array([[0.1, 0.1, 0.5, 0.9]], np.float32), np.ones((1, 3), np.uint8)
    )
    clips = collate([TrainingClips([frame], table, config.clip, config.stage1, 0)[Slot(0, 0)]])
    assert clips.frames.shape == (1, config.clip.frames, size[1], size[0], 3)
    torch.manual_seed(0)
    net = build_network(config.model, 3).eval()
    with torch.inference_mode():
        pixels = network_input(clips.frames, config.model.backbone, torch.device("cpu"))
        logits = net(pixels, clips.boxes_xyxy_norm, clips.clip_index)
        detector = {"architecture": SMALL, "min_side_px": 64, "max_side_px": 128, "keep_score": 0.0}
        model = build_detector(parse_config({"detector": detector}).detector).eval()
        ((boxes, scores),) = detect_people(model, [clips.frames[0, 0].numpy()], max_boxes=3)
    assert logits.shape == (1, 3) and torch.isfinite(logits).all()
    assert len(boxes) == len(scores) <= 3 and np.isfinite(boxes).all()


def test_broken_metadata(project: Project, shared: Path) -> None:
    (source,) = (shared / "data" / "clips").glob("hmdb51*.avi")
    (project.videos / source.name).symlink_to(source)
    project.train.write_text(GOOD.replace("a,", f"{source.stem},"))
    assert project.ingest()[0] == 0
    row = read_videos([project.paths.ingest("train", 0)]).iloc[0]
    assert row["n_frames"] > 20
    check_logits_and_detector(project, source.stem, 1, (row["width"], row["height"]))
    assert row["height"] == 64


def test_a_video_without_a_detected_person(project: Project) -> None:
    """Everything goes on: it has no bank rows and no predictions, but its labels are trained on and evaluated."""
    write_source(project.videos / "d.mp4", tenths(25))
    project.val.write_text(GOOD.replace("a,", "c,") + GOOD.replace("a,", "d,"))
    project.set("predict", min_score=0.5, examples=2)
    for name in ("stage1", "stage2"):
        project.set(name, **{**TRAIN, "iterations": 1, "batch_clips": 2, "milestones": []})
    for split, seen in (("train", "a"), ("val", "c")):
        assert project.ingest(split)[0] == 0
        project.give_boxes(split, videos=seen)
    for verb, *ids in (
        ("train-stage1",),
        *(("extract-bank", "--split", split, "--shard", "0") for split in ("train", "val")),
        *(("seal-bank", "--split", split) for split in ("train", "val")),
        ("train-stage2",),
        *(("predict", "--variant", variant, "--shard", "0") for variant in ("stage1", "stage2")),
        *(("evaluate", "--variant", variant) for variant in ("stage1", "stage2")),
    ):
        status, said = project.acar(verb, *ids)
        assert status == 0, (verb, said)
    rows = pd.read_csv(project.paths.predictions("stage2", 0) / "detections.csv", header=None)
    assert set(rows[0]) == {"c"}
    index = pd.read_parquet(project.paths.bank("val") / "index.parquet").groupby("video")["length"].sum()
    assert index.to_dict() == {"c": 3, "d": 0}
    metrics = yaml.safe_load((project.paths.evaluation("stage2") / "metrics.json").read_text())
    assert metrics["n_ground_truth_boxes"] == 2

    # Then no box of the whole split is good enough.
    finished = {
        k: v for k, v in project.files().items() if not k.startswith(("bank/val", "boxes", "predictions"))
    }
    project.set("bank", min_score=0.99)
    assert project.acar("extract-bank", "--split", "val", "--shard", "0")[0] == 0
    said = project.refusal("seal-bank", "--split", "val")
    assert "no row in any of its 6 seconds: bank.min_score is 0.99, best of 3 boxes 0.95" in said
    assert "lower bank.min_score and extract again" in said
    assert not (project.paths.bank("val") / "manifest.json").exists()
    project.set("predict", min_score=0.97)
    assert project.acar("predict", "--variant", "stage1", "--shard", "0")[0] == 0
    said = project.refusal("evaluate", "--variant", "stage1")
    assert "not one detection in the whole val split; predict.min_score is 0.97, best of 3 boxes 0.95" in said
    assert "lower predict.min_score" in said
    assert finished.items() <= project.files().items()


def test_detect_warns_of_a_shard_without_a_good_box(project: Project) -> None:
    boxes = project.root / "boxes.csv"
    boxes.write_text("c,1,.1,.1,.5,.9,,0.4\n")
    project.set("detector", source="boxes", boxes={"train": str(boxes), "val": str(boxes)})
    assert project.ingest("val")[0] == 0
    status, said = project.acar("detect", "--split", "val", "--shard", "0")
    assert status == 0
    for key in ("bank.min_score", "predict.min_score"):
        assert f"detect val 0: warning: no box reaches {key} 0.5 (best of 1 boxes 0.4); lower it" in said
    boxes.write_text("c,1,.1,.1,.5,.9,,0.6\n")
    assert "warning" not in project.acar("detect", "--split", "val", "--shard", "0")[1]


BAD_BOXES = {
    "c,1,.1,.1,.5,.9,,high\n": "line 2: score is 'high'; expected a number",
    "c,1,.1,.1,.5,.9,,85\n": "line 2: score is 85; expected 0..1",
    "c,1,.5,.1,.1,.9,,.5\n": "line 2: box 0.5,0.1,0.1,0.9 has no area",
    "c,1,10,10,50,90,,.5\n": "line 2: box 10,10,50,90 is outside the frame",
    "c,1,.1,.1\n": "line 2: 4 columns",
    "caf\xe9,1,.1,.1,.5,.9,,.5\n": "line 2: not UTF-8 text",
}


@pytest.mark.parametrize("row", list(BAD_BOXES))
def test_bad_rows_of_a_box_file(project: Project, row: str) -> None:
    boxes = project.root / "boxes.csv"
    boxes.write_bytes(("c,1,.1,.1,.5,.9,,0.4\n" + row).encode("latin1"))
    project.set("detector", source="boxes", boxes={"train": str(boxes), "val": str(boxes)})
    assert project.ingest("val")[0] == 0
    said = project.refusal("detect", "--split", "val", "--shard", "0")
    assert f"{boxes}, {BAD_BOXES[row]}" in said


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    content = {"garbage": b"PK not parquet" * 99, "empty": b"", "truncated": whole[: len(whole) // 2]}
    path.write_bytes(content[how])


@pytest.mark.parametrize("how", ["garbage", "empty", "truncated", "foreign"])
def test_damaged_tables_name_the_stage_to_rerun(project: Project, how: str) -> None:
    for split in ("train", "val"):
        assert project.ingest(split)[0] == 0
        project.give_boxes(split)
    boxes, videos = (
        project.paths.boxes("train", 0) / "boxes.parquet",
        project.paths.ingest("train", 0) / "videos.parquet",
    )
    for table, remedy in (
        (boxes, "rerun `acar detect` for this shard"),
        (videos, "run `acar ingest` for this shard"),
    ):
        whole = table.read_bytes()
        if how == "foreign":
            pd.DataFrame({"id": [1]}).to_parquet(table)
        else:
            damage(table, how)
        said = project.refusal("train-stage1")
        assert str(table) in said and remedy in said
        assert ("has no column video" if how == "foreign" else "not a readable parquet table") in said
        table.write_bytes(whole)
    damage(project.paths.ingest("val", 0) / "videos.parquet", "garbage")
    assert "run `acar ingest`" in project.refusal("seal-bank", "--split", "val")


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00garbage", b"[1, 2]", b"{}", b'{"format": 1}'])
def test_looking_at_absent_or_garbage_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    """`inspect-bank`, `headline` and `show-config` tell what is wrong."""
    bank, shard, metrics = (tmp_path / name for name in ("bank", "bank/shard-000", "evaluation/stage1"))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"run": {"results": str(tmp_path)}}))
    if content is not None:
        for folder, name in ((shard, "facts.json"), (metrics, "metrics.json"), (bank, "manifest.json")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        (tmp_path / "garbage.yaml").write_bytes(content)
    commands = {"inspect-bank": ["--bank", str(bank)], "headline": ["--config", str(config)]}
    for verb, arguments in commands.items():
        expected = 0 if (verb, content) == ("headline", None) else 2
        assert cli.main([verb, *arguments]) == expected
        said = capsys.readouterr().err
        assert "Traceback" not in said and (expected == 0 or str(tmp_path) in said)
    assert cli.main(["inspect-bank", "--bank", str(shard)]) == 2
    assert str(shard) in capsys.readouterr().err
    for verb in ("show-config", "headline"):
        status = cli.main([verb, "--config", str(tmp_path / "garbage.yaml")])
        # Without a section every key has its default; Snakemake, which show-config merges with, wants one.
        fine = content == b"{}" or (content, verb) == (b"", "headline")
        assert status == (0 if fine else 2), verb
        assert fine or "garbage.yaml" in capsys.readouterr().err
