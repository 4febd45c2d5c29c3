"""Ingest of every kind of source: rates, rotation, sizes, damage, frame folders, resuming."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from video_samples import HEIGHT, WIDTH, number_of, numbered, tenths, write_audio, write_source

from acar.config import Config, parse_config
from acar.data import decode
from acar.data.tables import read_videos
from acar.data.video import FrameReader
from acar.errors import UserError
from acar.paths import Paths
from acar.stages import ingest

TRANSCODE = ingest.transcode


class Place:
    """A data set of one's own in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.videos, self.labels = root, root / "videos", root / "val.csv"
        self.videos.mkdir()
        (root / "map.pbtxt").write_text('item { name: "stand" id: 1 }')

    def config(
        self, *, shards: int = 1, span_s: tuple[float, float] | None = None, **settings: Any
    ) -> Config:
        files = {"labels": str(self.labels), "shards": shards}
        return parse_config({
            "run": {"results": str(self.root / "results")},
            "data": {"source": "files", "videos": str(self.videos), "span_s": span_s,
                     "label_map": str(self.root / "map.pbtxt"), "train": files, "val": files},
            "model": {"backbone": {"spatial_strides": [1, 1, 1, 1]}},  # reads frames of 12 px
            "ingest": {"short_side_px": HEIGHT, "fps": 10, "gop_frames": 6, "crf": 10, **settings},
        })  # fmt: skip

    def label(self, *rows: tuple[str, float]) -> None:
        self.labels.write_text("".join(f"{video},{time_s},.1,.1,.5,.5,1,0\n" for video, time_s in rows))

    def ingest(self, *, shard: int = 0, **settings: Any) -> pd.DataFrame:
        config = self.config(**settings)
        ingest.run(config, "val", shard)
        assert not Paths.of(config).work(f"ingest-val-{shard:03d}").exists()
        return read_videos([Paths.of(config).ingest("val", shard)]).set_index("video", drop=False)

    def ingest_one(self, video: str, label_s: float = 0.0, **settings: Any) -> tuple[pd.Series, np.ndarray]:
        self.label((video, label_s))
        row = self.ingest(**settings).loc[video]
        return row, FrameReader(row).read(range(row["n_frames"]))

    def refusal(self, video: str, label_s: float = 0.0, **settings: Any) -> str:
        self.label((video, label_s))
        with pytest.raises(UserError) as error:
            self.ingest(**settings)
        message = str(error.value)
        assert f"`{video}`" in message and "ingest.on_error: skip" in message and str(self.labels) in message
        return message


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def numbers(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "ts"])
def test_containers_give_every_frame(place: Place, suffix: str) -> None:
    codec = "libx264" if suffix == "ts" else "mpeg4"  # x264: B-frames, and a clock that starts at 1.4 s
    write_source(place.videos / f"v.{suffix}", tenths(25), codec=codec)
    row, frames = place.ingest_one("v")
    assert numbers(frames) == list(range(25))
    assert (row["kind"], row["path"], row["fps"], row["n_frames"]) == ("video", "v.mp4", 10.0, 25)
    assert (row["width"], row["height"], row["start_s"], row["duration_s"]) == (WIDTH, HEIGHT, 0.0, 2.5)
    assert (row["status"], row["reason"]) == ("ok", "")


def test_what_is_written_is_constant_rate_with_short_gops(place: Place) -> None:
    write_source(place.videos / "v.mp4", tenths(25))
    row, _ = place.ingest_one("v")
    with av.open(row["location"]) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        times = [packet.pts * stream.time_base for packet in packets]
        assert times == [Fraction(k, 10) for k in range(25)]
        assert [packet.dts for packet in packets] == [packet.pts for packet in packets]  # no B-frames
        assert [k for k, packet in enumerate(packets) if packet.is_keyframe] == [0, 6, 12, 18, 24]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_variable_rate_shows_the_frame_of_the_moment(place: Place) -> None:
    times = [0.0, 0.033, 0.5, 0.533, 0.567, 1.2, 1.9]
    write_source(place.videos / "v.mkv", times)
    _, frames = place.ingest_one("v")
    shown = [max(i for i, t in enumerate(times) if t < (k + 0.5) / 10) for k in range(len(frames))]
    assert numbers(frames) == shown
    assert len(frames) == 20


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "corner"),  # the corner of the display where the stored top left comes to lie
    [
        (1, 0, 0, 1, "top left"),
        (0, 1, -1, 0, "top right"),  # a telephone held upright: a quarter turn clockwise
        (-1, 0, 0, -1, "bottom right"),
        (0, -1, 1, 0, "bottom left"),
        (-1, 0, 0, 1, "top right"),
    ],
)
def test_rotation_metadata_is_applied(place: Place, a: int, b: int, c: int, d: int, corner: str) -> None:
    image = np.full((HEIGHT, WIDTH, 3), 40, dtype=np.uint8)
    image[:16, :16] = 220
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    write_source(place.videos / "v.mp4", tenths(3), images=[image] * 3, matrix=matrix)
    row, frames = place.ingest_one("v")
    expected = (WIDTH, HEIGHT) if b == 0 else (HEIGHT, WIDTH)
    assert (row["width"], row["height"]) == expected
    rows = {"top": slice(4, 12), "bottom": slice(-12, -4)}
    columns = {"left": slice(4, 12), "right": slice(-12, -4)}
    for vertical, y in rows.items():
        for horizontal, x in columns.items():
            bright = frames[-1][y, x].mean() > 150
            assert bright == (corner == f"{vertical} {horizontal}"), (vertical, horizontal)


def test_odd_sizes_become_even_and_are_scaled_up(place: Place) -> None:
    image = np.full((13, 17, 3), 40, dtype=np.uint8)
    image[:, :8] = 200
    write_source(
        place.videos / "v.mkv", tenths(4), codec="ffv1", pixels="bgr0", size=(17, 13), images=[image] * 4
    )
    row, frames = place.ingest_one("v", short_side_px=16)
    assert (row["width"], row["height"]) == (20, 16)
    assert frames[0][:, 2].mean() > 150 > frames[0][:, -3].mean()


def test_portrait_keeps_its_short_side(place: Place) -> None:
    write_source(place.videos / "v.mp4", tenths(2), size=(HEIGHT, WIDTH))
    row, _ = place.ingest_one("v", short_side_px=24)
    assert (row["width"], row["height"]) == (24, 40)


def test_one_frame(place: Place) -> None:
    write_source(place.videos / "v.mp4", [0.0], images=[numbered(7)])
    _, frames = place.ingest_one("v")
    assert numbers(frames) == [7]


def test_cut_to_the_span(place: Place) -> None:
    write_source(place.videos / "v.mp4", tenths(80))
    row, frames = place.ingest_one("v", 4.0, span_s=(3.0, 5.0), margin_s=1.0)
    assert numbers(frames) == list(range(20, 61))  # 6.0 s itself is there
    assert (row["start_s"], row["duration_s"]) == (2.0, 4.1)


def test_a_far_cut_is_sought_and_equals_decoding_from_the_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(place.videos / "v.mp4", tenths(480))
    _, sought = place.ingest_one("v", 45.0, span_s=(44.0, 46.0), margin_s=1.0)
    assert numbers(sought) == list(range(430, 471))
    monkeypatch.setattr(decode, "SEEK_EARLY_S", -3.0)  # lands behind the cut, as a wrong index would
    _, missed = place.ingest_one("v", 45.0, span_s=(44.0, 46.0), margin_s=1.0)
    monkeypatch.setattr(decode, "SEEK_FROM_S", float("inf"))
    _, sequential = place.ingest_one("v", 45.0, span_s=(44.0, 46.0), margin_s=1.0)
    np.testing.assert_array_equal(sought, sequential)
    np.testing.assert_array_equal(missed, sequential)


def test_a_cut_behind_the_end(place: Place) -> None:
    write_source(place.videos / "v.mp4", tenths(20))
    assert "ends before second 900" in place.refusal("v", 902, span_s=(902, 1798))


def make_bad(videos: Path, what: str) -> None:
    if what == "audio":
        write_audio(videos / "bad.mp4")
    elif what == "empty":
        (videos / "bad.mp4").touch()
    elif what == "garbage":
        (videos / "bad.mp4").write_bytes(b"this is not a video\n" * 100)
    elif what == "folder":
        (videos / "bad").mkdir()
    elif what != "absent":
        suffix = what.removeprefix("cut ")
        write_source(videos / f"bad.{suffix}", tenths(80))
        whole = (videos / f"bad.{suffix}").read_bytes()
        (videos / f"bad.{suffix}").write_bytes(whole[: len(whole) // 2])


REASONS = {
    "audio": "holds no video stream (streams: audio)",
    "empty": "empty (0 bytes)",
    "garbage": "FFmpeg cannot open it",
    "folder": "no numbered images",
    "absent": "no bad.mp4 (or other video file) and no frame folder bad/",
    "cut mp4": "FFmpeg cannot open it",  # its index is at the end
    "cut avi": "truncated: its pictures end at",
    "cut mkv": "truncated: its pictures end at",
}


@pytest.mark.parametrize("what", list(REASONS))
def test_bad_sources_stop_with_their_name(place: Place, what: str) -> None:
    make_bad(place.videos, what)
    message = place.refusal("bad")
    assert REASONS[what] in message and str(place.videos) in message


@pytest.mark.parametrize("what", list(REASONS))
def test_bad_sources_are_skipped_on_request(
    place: Place, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bad(place.videos, what)
    write_source(place.videos / "good.mp4", tenths(12))
    place.label(("good", 0), ("bad", 0))
    table = place.ingest(on_error="skip")
    assert table["status"].to_dict() == {"bad": "skipped", "good": "ok"}
    assert REASONS[what] in table.loc["bad", "reason"]
    assert "`bad` skipped" in capsys.readouterr().err
    folder = Paths.of(place.config()).ingest("val", 0)
    assert sorted(path.name for path in folder.iterdir()) == ["good.mp4", "origin.json", "videos.parquet"]


def test_labels_beyond_the_end_are_refused(place: Place) -> None:
    write_source(place.videos / "v.mp4", tenths(20))
    assert "covers 0.00 to 1.90 s, its labels reach from 3 to 3 s" in place.refusal("v", 3)
    # Detection and prediction look at the frame of a second: the very end has none.
    assert "labels reach from 2 to 2 s" in place.refusal("v", 2)
    place.ingest_one("v", 1)


def test_damage_of_a_few_packets_is_noted(place: Place) -> None:
    write_source(place.videos / "v.avi", tenths(80))
    data = bytearray((place.videos / "v.avi").read_bytes())
    chunk = data.index(b"00dc", len(data) // 2)  # one packet's payload becomes noise
    size = int.from_bytes(data[chunk + 4 : chunk + 8], "little")
    data[chunk + 8 : chunk + 8 + size] = b"\xff" * size
    (place.videos / "v.avi").write_bytes(data)
    row, frames = place.ingest_one("v")
    assert row["status"] == "ok" and len(frames) == 80
    assert "concealed" in row["reason"]


@pytest.mark.parametrize(
    ("template", "first"), [("v_%06d.jpg", 1), ("image_%06d.jpg", 1), ("img_%05d.jpg", 0), ("f%d.png", 98)]
)
def test_frame_folders_stay_where_they_are(place: Place, template: str, first: int) -> None:
    (place.videos / "v").mkdir()
    for k in range(12):
        Image.fromarray(numbered(k)).save(place.videos / "v" / (template % (first + k)), quality=95)
    row, frames = place.ingest_one("v", 1.0)
    assert numbers(frames) == list(range(12))
    assert (row["kind"], row["location"], row["first_number"]) == ("frames", str(place.videos / "v"), first)
    assert (row["start_s"], row["duration_s"], row["fps"]) == (0.0, 1.2, 10.0)


def test_a_frame_folder_of_a_cut_video_begins_at_the_cut(place: Place) -> None:
    (place.videos / "v").mkdir()
    for k in range(50):
        Image.fromarray(numbered(k)).save(place.videos / "v" / f"v_{k + 1:06d}.jpg")
    row, _ = place.ingest_one("v", 903, span_s=(902, 903), margin_s=2)
    assert row["start_s"] == 900.0
    assert "labels reach from 906 to 906" in place.refusal("v", 906, span_s=(902, 906), margin_s=2)


def test_ids_find_one_source_each(place: Place) -> None:
    write_source(place.videos / "v.mp4", tenths(2))
    (place.videos / "v.txt").touch()
    (place.videos / "v.srt").touch()
    (place.videos / "class a").mkdir()
    write_source(place.videos / "class a" / "w.1.avi", tenths(2))
    place.label(("v", 0), ("class a/w.1", 0))
    table = place.ingest()
    assert numbers(FrameReader(table.loc["class a/w.1"]).read([0, 1])) == [0, 1]
    write_source(place.videos / "v.mkv", tenths(2))
    assert "several sources" in place.refusal("v")
    place.label(("../v", 0))
    with pytest.raises(UserError, match=r"no `\.\.`"):
        place.ingest(on_error="skip")


def test_an_absent_folder_is_never_skipped(place: Place) -> None:
    place.label(("v", 0))
    place.videos.rmdir()
    with pytest.raises(UserError, match=r"no such folder \(data\.videos\)"):
        place.ingest(on_error="skip")


def test_shards_share_out_the_videos(place: Place) -> None:
    for name in "abc":
        write_source(place.videos / f"{name}.mp4", tenths(2))
    place.label(*((name, 0) for name in "cab"))
    shards = [place.ingest(shards=4, shard=shard) for shard in range(4)]
    assert [list(table.index) for table in shards] == [["a"], ["b"], ["c"], []]
    config = place.config(shards=4)
    together = read_videos([Paths.of(config).ingest("val", shard) for shard in range(4)])
    assert list(together["video"]) == ["a", "b", "c"]
    assert list(together.dtypes[["n_frames", "fps"]]) == [np.int64, np.float64]


def files_of(place: Place) -> dict[str, bytes]:
    folder = Paths.of(place.config()).ingest("val", 0)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupted:
    """Stands in for `transcode`: counts calls and fails in the middle of call number `fail_at`."""

    def __init__(self, fail_at: int) -> None:
        self.fail_at, self.done = fail_at, [""]

    def __call__(self, source: Path, target: Path, config: Config) -> dict[str, Any]:
        if len(self.done) == self.fail_at:
            target.write_bytes(b"half a video")
            raise KeyboardInterrupt
        self.done.append(source.stem)
        return TRANSCODE(source, target, config)


def test_resuming_gives_the_same_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write_source(place.videos / f"{name}.mp4", tenths(5 + ord(name) % 3))
    place.label(*((name, 0) for name in "abc"))
    place.ingest()
    unbroken = files_of(place)

    first = Interrupted(fail_at=2)
    monkeypatch.setattr(ingest, "transcode", first)
    with pytest.raises(KeyboardInterrupt):
        place.ingest()
    assert files_of(place) == unbroken  # the earlier result stands until the new one is whole
    work = Paths.of(place.config()).work("ingest-val-000")
    (work / "store" / ".b.mp4.77.tmp.mp4").write_bytes(b"left by a kill")

    second = Interrupted(fail_at=99)
    monkeypatch.setattr(ingest, "transcode", second)
    place.ingest()
    assert first.done[1:] == ["a"] and second.done[1:] == ["b", "c"]
    assert files_of(place) == unbroken


def test_kept_videos_of_other_settings_or_sources_are_redone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        write_source(place.videos / f"{name}.mp4", tenths(5))
    place.label(*((name, 0) for name in "abc"))
    monkeypatch.setattr(ingest, "transcode", Interrupted(fail_at=3))
    with pytest.raises(KeyboardInterrupt):
        place.ingest()
    write_source(place.videos / "a.mp4", tenths(9))
    again = Interrupted(fail_at=2)
    monkeypatch.setattr(ingest, "transcode", again)
    with pytest.raises(KeyboardInterrupt):
        place.ingest()
    assert again.done[1:] == ["a"]  # b is kept, c is where it broke off
    assert "ingest val 0: going on after 1 of 3 videos" in capsys.readouterr().err
    changed = Interrupted(fail_at=99)
    monkeypatch.setattr(ingest, "transcode", changed)
    place.ingest(crf=30)
    assert changed.done[1:] == ["a", "b", "c"]


def test_real_files(shared: Path, tmp_path: Path) -> None:
    place = Place(tmp_path)
    sources = sorted(
        path for name in ("clips", "ava_clips", "ucf24") for path in (shared / "data" / name).iterdir()
    )
    sources = [path for path in sources if path.suffix in (".avi", ".mp4") and path.stat().st_size < 2**20]
    for path in sources:
        (place.videos / path.name).symlink_to(path)
    place.label(*((path.stem, 2) for path in sources))
    table = place.ingest(fps=5, span_s=(2, 2), margin_s=0.5)
    assert len(table) == len(sources) > 4
    assert (table["status"] == "ok").all()
    for row in table.to_dict("records"):
        frames = FrameReader(row).read([0, row["n_frames"] - 1])
        assert frames.shape == (2, row["height"], row["width"], 3)
        assert 10 < frames.mean() < 245
