"""At the border of a video check-data says what ingest does."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from check_place import Place
from PIL import Image
from video_samples import numbered, tenths, write_source

from acar.data.check.boxes import _held, _used
from acar.data.check.survey import check_data
from acar.data.decode import read_header
from acar.data.picture_end import picture_end
from acar.data.tables import read_videos
from acar.detection.importing import import_boxes
from acar.errors import UserError
from acar.paths import Paths
from acar.stages import detect, ingest

BOX = "0.1,0.1,0.5,0.9,1,0"


def write_with_sound(path: Path, n_pictures: int, sound_s: float) -> None:
    """Pictures ten a second, and sound that goes on longer."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 80, 48, "yuv420p"
        audio: Any = container.add_stream("aac", rate=8000, layout="mono")
        for k in range(n_pictures):
            frame = av.VideoFrame.from_ndarray(numbered(k), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for k in range(round(sound_s * 8000 / 1024)):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 8000, 1024 * k
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def make(place: Place, kind: str) -> float:
    """A source for video b; returns when its pictures end."""
    videos = place.folder / "videos"
    (videos / "b.mp4").unlink()
    if kind == "frames":
        (videos / "b").mkdir()
        for k in range(25):
            Image.fromarray(numbered(k)).save(videos / "b" / f"img_{k + 1:05d}.jpg")
    elif kind.startswith("sound"):
        write_with_sound(videos / f"b.{kind.split()[1]}", 25, 4.0)
    elif kind == "uneven mkv":
        write_source(videos / "b.mkv", [0.0, 0.03, 0.5, 1.2, 1.9, 2.37])
    else:
        suffix = kind.split()[-1]
        codec = "libx264" if suffix in ("ts", "mov") else "mpeg4"
        write_source(videos / f"b.{suffix}", tenths(25), codec=codec)
    return 2.47 if kind == "uneven mkv" else 2.5


def verdicts(place: Place) -> tuple[bool, bool]:
    """Whether check-data says that a run would stop, and whether ingest does."""
    place.values["ingest"] |= {"short_side_px": 48}
    place.values["model"] = {"backbone": {"spatial_strides": [1, 1, 1, 1]}}
    survey = check_data(place.config)
    try:
        ingest.run(place.config, "val", 0)
    except UserError as error:
        told = [problem.text for problem in survey.problems if problem.stops]
        assert not told or str(error).split("it covers")[1].split(";")[0] in told[0]
        return survey.would_stop, True
    return survey.would_stop, False


@pytest.mark.parametrize(
    ("kind", "fps"),
    [(kind, 10) for kind in ("avi", "mov", "ts", "uneven mkv", "sound mkv", "frames")]
    + [(kind, 12.5) for kind in ("mp4", "uneven mkv")],
)
def test_labels_at_the_end(place: Place, kind: str, fps: float) -> None:
    end_s = make(place, kind)
    place.values["ingest"]["fps"] = fps
    n_frames = 25 if kind == "frames" else round(end_s * fps)
    stopped = set()
    for frames in (-0.6, -0.4, 0, 0.9):
        time_s = n_frames / fps + frames / fps
        place.write("val.csv", f"b,1,{BOX}\nb,{time_s:.6f},{BOX}\n")
        said, done = verdicts(place)
        assert said == done, (kind, fps, frames)
        stopped.add(done)
        assert not any("only decoding shows" in text for text in place.warnings())
    assert stopped == {True, False}


@pytest.mark.parametrize("kind", ["mp4", "frames"])
@pytest.mark.parametrize("times_s", [(0.4, 1), (0.5, 1), (1, 2.04), (1, 2.06), (2.9, 3)])
def test_labels_around_a_cut(place: Place, kind: str, times_s: tuple[float, float]) -> None:
    make(place, kind)
    place.values["data"]["span_s"] = [1, 1.5]
    place.values["ingest"]["margin_s"] = 0.5
    place.write("train.csv", f"a,1,{BOX}\n")
    place.write("val.csv", f"b,1.2,{BOX}\n" + "".join(f"b,{time_s},{BOX}\n" for time_s in times_s))
    said, done = verdicts(place)
    assert said == done


@pytest.mark.parametrize("span_s", [None, (1, 1.5)])
def test_boxes_that_are_held_are_those_that_detect_keeps(
    place: Place, span_s: tuple[float, float] | None
) -> None:
    make(place, "mov")
    place.values["data"]["span_s"] = span_s
    place.values["ingest"]["margin_s"] = 0.5
    place.write("val.csv", f"b,1,{BOX}\n")
    times_s = (0, 0.4, 0.44, 0.46, 1, 1.5, 1.6, 2, 2.04, 2.06, 2.4, 2.44, 2.46, 2.5, 3, 40)
    boxes = "".join(f"{video},{time_s},0.1,0.1,0.5,0.9,,0.95\n" for video in "bz" for time_s in times_s)
    file = place.write("boxes.csv", boxes)
    place.values["detector"] = {"source": "boxes", "boxes": {"train": file, "val": file}}
    assert verdicts(place) == (True, False)  # of video a, which is train's, the file has none
    config = place.config
    (val,) = [facts for facts in check_data(config).splits if facts.split == "val"]
    kept = detect._imported(file, read_videos([Paths.of(config).ingest("val", 0)]), config)
    held = _held(config, val, _used(config, val, import_boxes(file)))
    assert held["time_s"].tolist() == kept["time_s"].tolist() and 2 <= len(held) < len(times_s)


@pytest.mark.parametrize(("clip", "n_frames"), [("g23", 240), ("g24", 251)])
@pytest.mark.parametrize("fps", [25, 30])
def test_labels_of_a_real_clips_last_frame(
    place: Place, shared: Path, clip: str, n_frames: int, fps: float
) -> None:
    """Of UCF101, at 30000 / 1001 frames a second; its preset ingests at 25."""
    (place.folder / "videos" / "b.mp4").unlink()
    source = shared / "data" / "ucf24" / f"v_SoccerJuggling_{clip}_c01.avi"
    (place.folder / "videos" / "b.avi").symlink_to(source.resolve())
    place.values["ingest"]["fps"] = fps
    place.write("val.csv", f"b,0,{BOX}\nb,{(n_frames - 1) * 1001 / 30000:.6f},{BOX}\n")
    assert verdicts(place) == (False, False)
    place.write("val.csv", f"b,0,{BOX}\nb,{(n_frames + 1) * 1001 / 30000:.6f},{BOX}\n")
    assert verdicts(place) == (True, True)


def test_where_nothing_tells_the_end_it_is_no_stop(place: Place) -> None:
    """Raw H.264 states no times: 25 pictures last a second at the 25 a second that FFmpeg takes them for."""
    (place.folder / "videos" / "b.mp4").unlink()
    write_source(place.folder / "videos" / "b.h264", tenths(25), codec="libx264")
    (place.folder / "videos" / "b.h264").rename(place.folder / "videos" / "b.m2v")
    place.write("val.csv", f"b,0,{BOX}\nb,0.9,{BOX}\n")
    assert verdicts(place) == (False, False) and not any("decoding" in text for text in place.warnings())
    place.write("val.csv", f"b,0,{BOX}\nb,1,{BOX}\n")
    assert verdicts(place) == (False, True)
    (told,) = [text for text in place.warnings() if "decoding" in text]
    assert (
        "val.csv: of 1 video(s) only decoding shows whether they hold all of their labels\nvideo `b`: "
        in told
    )
    assert told.endswith("it covers 0.00 to 0.90 s, its labels reach from 0 to 1 s, if its header is right")
    place.write("val.csv", f"b,0,{BOX}\nb,30,{BOX}\n")
    assert verdicts(place) == (True, True)


def test_the_end_of_pictures_is_not_that_of_the_sound(tmp_path: Path) -> None:
    write_with_sound(tmp_path / "v.mkv", 130, 20.0)
    header = read_header(tmp_path / "v.mkv")
    for declared_s in (header.duration_s, 20.0, None, 1e4):
        end = picture_end(tmp_path / "v.mkv", declared_s)
        assert end is not None and end.is_exact and end.end_s == pytest.approx(13.0)
