"""UCF101-24's annotations as the pipeline's labels."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ucf24 import PYANNOT, TUBES, dump
from video_samples import tenths, write_source

from acar import cli
from acar.data import ucf24_convert
from acar.data.key_times import named_times
from acar.data.tables import check_labels, read_label_map, read_labels
from acar.data.ucf24 import read_annotations
from acar.data.ucf24_convert import OUTPUTS, labels_table, split_videos
from acar.errors import UserError

RUN, DIVE = "Run/v_Run_g08_c01", "Dive/v_Dive_g01_c01"


def test_labels_of_every_frame_and_where_nobody_acts(tmp_path: Path) -> None:
    annotations = read_annotations(dump(tmp_path, PYANNOT))
    labels = labels_table(annotations, {RUN: 10.0})
    assert labels["time_s"].tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert labels["action_id"].isna().tolist() == [True, False, False, True, True]
    acting = labels.iloc[1]
    assert (acting["action_id"], acting["actor_id"]) == (2, "0")
    assert acting[["x1", "y1", "x2", "y2"]].tolist() == [177 / 320, 53 / 240, 317 / 320, 233 / 240]
    only = labels_table(annotations, {RUN: 10.0}, background=False)
    assert only["time_s"].tolist() == [0.1, 0.2]


def test_every_other_frame_at_an_odd_rate(tmp_path: Path) -> None:
    labels = labels_table(read_annotations(dump(tmp_path, PYANNOT)), {RUN: 30000 / 1001, DIVE: 25.0}, every=2)
    assert labels[["video", "time_s"]].drop_duplicates().values.tolist() == [
        [DIVE, 0.0], [RUN, 0.0], [RUN, 0.066733], [RUN, 0.133467],
    ]  # fmt: skip


def test_boxes_are_cut_at_the_frame(tmp_path: Path) -> None:
    tubes = {**TUBES, "resolution": {"brush/one": (40, 25), "clap/two": (100, 200)}}
    labels = labels_table(read_annotations(dump(tmp_path, tubes)), {"brush/one": 10.0}, background=False)
    assert labels["x2"].tolist() == [1.0, 1.0] and labels["x1"].tolist() == [0.4, 0.44]


def test_splits_by_group_or_as_listed(tmp_path: Path) -> None:
    by_group = read_annotations(dump(tmp_path, PYANNOT))
    assert split_videos(by_group) == ([RUN], [DIVE]) and split_videos(by_group, 2) == ([DIVE], [RUN])
    listed = read_annotations(dump(tmp_path, TUBES))
    assert split_videos(listed) == (["brush/one"], ["clap/two"])
    with pytest.raises(UserError, match="split 2: there are 1"):
        split_videos(listed, 2)
    with pytest.raises(UserError, match="split 4: there are 1, 2, 3"):
        split_videos(by_group, 4)


def test_the_groups_give_the_published_numbers(shared: Path) -> None:
    """2,284 and 910: the test list's 914 less four without corrected annotations."""
    train, test = split_videos(read_annotations(shared / "data" / "ucf24" / "pyannot.pkl"))
    assert (len(train), len(test)) == (2284, 910)


def convert(tmp_path: Path, *arguments: str) -> int:
    return cli.main(["convert-ucf24", str(tmp_path / "file.pkl"), str(tmp_path / "out"), *arguments])


def test_the_command_writes_what_the_pipeline_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump(tmp_path, PYANNOT)
    assert convert(tmp_path, "--fps", "10") == 0
    assert (
        "1 train videos, 2 train key frames, 2 train boxes, 1 val videos, 2 val key frames, 3 val boxes"
        in (capsys.readouterr().out)
    )
    label_map = read_label_map(tmp_path / "out" / "label_map.pbtxt")
    assert label_map.groups() == {"pose": [1, 2]} and label_map.names == ["Dive", "Run"]
    labels = read_labels(tmp_path / "out" / "val.csv")
    assert check_labels(labels, label_map, "val.csv")["action_id"].tolist() == [1, 1, 1]
    assert labels["actor_id"].tolist() == ["0", "0", "1"]
    assert (tmp_path / "out" / "train_videos.txt").read_text() == f"{RUN}\n"


def test_key_frames_where_nobody_acts_are_named(tmp_path: Path) -> None:
    dump(tmp_path, PYANNOT)
    assert convert(tmp_path, "--fps", "10", "--split", "2") == 0
    assert named_times(tmp_path / "out" / "val.csv") == {RUN: [0.0, 0.1, 0.2, 0.3, 0.4]}
    assert len(read_labels(tmp_path / "out" / "val.csv")) == 2
    assert convert(tmp_path, "--fps", "10", "--split", "2", "--annotated-only") == 0
    assert named_times(tmp_path / "out" / "val.csv") == {RUN: [0.1, 0.2]}


def test_rates_are_those_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path, PYANNOT)
    for video in (RUN, DIVE):
        (tmp_path / "videos" / video).parent.mkdir(parents=True)
    write_source(tmp_path / "videos" / f"{RUN}.avi", tenths(5))
    assert convert(tmp_path, "--videos", str(tmp_path / "videos")) == 2
    assert f"video `{DIVE}`: no v_Dive_g01_c01.mp4" in capsys.readouterr().err
    write_source(tmp_path / "videos" / f"{DIVE}.avi", tenths(2))
    assert convert(tmp_path, "--videos", str(tmp_path / "videos")) == 0
    assert named_times(tmp_path / "out" / "train.csv") == {RUN: [0.1, 0.2]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "acar convert-ucf24: give either --videos"),
        (["--fps", "0"], "--fps 0: expected frames a second"),
        (["--fps", "-1"], "--fps -1: expected frames a second"),
        (["--fps", "inf"], "--fps inf: expected frames a second"),
        (["--fps", "nan"], "--fps nan: expected frames a second"),
        (["--fps", "1e9"], "--fps 1e+09: expected frames a second"),
        (["--fps", "10", "--every", "0"], "--every 0: expected 1, 2, ..."),
        (["--videos", "nowhere"], "nowhere: no such folder"),
        (["--fps", "10", "--every", "1" + "0" * 30], "expected 1, 2, ... up to 1000000000"),
        (
            ["--fps", "10", "--test-list", "nowhere.txt"],
            "nowhere.txt: no such file; expected video ids, one a line",
        ),
        (["--fps", "10", "--test-list", "."], ".: a folder; expected a file of video ids, one a line"),
        (["--fps", "10", "--test-list", "/dev/null"], "/dev/null: a pipe or device"),
        (["--fps", "10", "--test-list", "marked.txt"], "marked.txt, line 1: an invisible byte order mark"),
        (
            ["--videos", ".", "--present"],
            "train: none of its 1 videos is in .; looked for files such as Run/v_Run_g08",
        ),
    ],
)
def test_mistakes_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    dump(tmp_path, PYANNOT)
    (tmp_path / "marked.txt").write_text(f"\ufeff\ufeff{RUN}\n", encoding="utf-8")
    assert convert(tmp_path, *arguments) == 2
    assert told in capsys.readouterr().err


def test_a_list_of_test_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path, PYANNOT)
    (tmp_path / "list.txt").write_text(f"{RUN}.avi 2\n\n")
    assert convert(tmp_path, "--fps", "10", "--test-list", str(tmp_path / "list.txt")) == 0
    assert set(named_times(tmp_path / "out" / "val.csv")) == {RUN}
    (tmp_path / "list.txt").write_text("Other/one.avi\n")
    assert convert(tmp_path, "--fps", "10", "--test-list", str(tmp_path / "list.txt")) == 2
    assert "none of the 1 listed videos is annotated, such as 'Other/one'" in capsys.readouterr().err


def test_listed_videos_that_are_not_annotated_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump(tmp_path, PYANNOT)
    path = tmp_path / "list.txt"
    path.write_text(f"{RUN}\nv_Run_g08_c01\nfoo\n")
    assert convert(tmp_path, "--fps", "10", "--test-list", str(path)) == 0
    assert (
        f"{path}: 2 of its 3 video(s) are not annotated and left out, such as 'foo'"
        in capsys.readouterr().err
    )
    path.write_text(f"{RUN}\n")
    assert convert(tmp_path, "--fps", "10", "--test-list", str(path)) == 0
    assert capsys.readouterr().err == ""


def test_a_split_that_fails_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(tmp_path, PYANNOT)
    (tmp_path / "videos" / RUN).parent.mkdir(parents=True)
    write_source(tmp_path / "videos" / f"{RUN}.avi", tenths(5))
    assert convert(tmp_path, "--videos", str(tmp_path / "videos"), "--present") == 2
    assert f"val: none of its 1 videos is in {tmp_path / 'videos'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "list.txt").write_text(f"{RUN}\n{DIVE}\n")
    assert convert(tmp_path, "--fps", "10", "--test-list", str(tmp_path / "list.txt")) == 2
    assert "train: no video is in this split" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "under a file", "a folder in it", "an input in it"])
def test_outputs_are_checked_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file.pkl").write_bytes(b"malformed, and not looked at")
    out = tmp_path / "out"
    more = ["--fps", "10"]
    if place == "file":
        out.write_text("mine")
    elif place == "under a file":
        (tmp_path / "other").write_text("mine")
        out = tmp_path / "other" / "deeper"
    elif place == "a folder in it":
        (out / "val.csv").mkdir(parents=True)
    else:
        out.mkdir()
        (out / "val_videos.txt").write_text(f"{RUN}\n")
        more += ["--test-list", str(out / "val_videos.txt")]
    assert cli.main(["convert-ucf24", str(tmp_path / "file.pkl"), str(out), *more]) == 2
    told = capsys.readouterr().err
    assert str(out) in told and "malformed" not in told and "pickle" not in told


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("failing", range(1, len(OUTPUTS) + 1))
def test_a_file_that_fails_leaves_all_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: int
) -> None:
    """Else the training videos of one split lie beside the test videos of another."""
    dump(tmp_path, PYANNOT)
    assert convert(tmp_path, "--fps", "10") == 0
    before, written = contents(tmp_path / "out"), []
    assert sorted(before) == sorted(OUTPUTS)

    def filling_up(write: Callable[..., None]) -> Callable[..., None]:
        def put(content: Any, path: Path) -> None:
            write(content, path)
            written.append(path.name)
            if len(written) == failing:
                os.truncate(path, path.stat().st_size // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return put

    for name in ("put_csv", "_put_text"):
        monkeypatch.setattr(ucf24_convert, name, filling_up(getattr(ucf24_convert, name)))
    assert convert(tmp_path, "--fps", "10", "--split", "2") == 2
    assert "no space left" in capsys.readouterr().err and len(written) == failing
    assert contents(tmp_path / "out") == before
    monkeypatch.undo()
    assert convert(tmp_path, "--fps", "10", "--split", "2") == 0
    assert not set(read_labels(tmp_path / "out" / "train.csv")["video"]) & set(
        read_labels(tmp_path / "out" / "val.csv")["video"]
    )
    after = contents(tmp_path / "out")
    assert [name for name in OUTPUTS if after[name] == before[name]] == ["label_map.pbtxt"]


@pytest.mark.parametrize("limit", [0, 20, 60, 100, 150])
def test_a_disk_that_is_full_leaves_all_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    """No file may grow beyond so many bytes: the system's own error, at one of the files or another."""
    dump(tmp_path, PYANNOT)
    assert convert(tmp_path, "--fps", "10") == 0
    before = contents(tmp_path / "out")
    assert max(map(len, before.values())) > limit
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = convert(tmp_path, "--fps", "10", "--split", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and "no space left" in said.getvalue()
    assert str(tmp_path / "out") in said.getvalue() and ".tmp" not in said.getvalue()
    assert contents(tmp_path / "out") == before


def test_rates_that_no_video_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dump(tmp_path, PYANNOT)
    for video in (RUN, DIVE):
        (tmp_path / "videos" / video).parent.mkdir(parents=True)
        write_source(tmp_path / "videos" / f"{video}.avi", tenths(5))
    monkeypatch.setattr(ucf24_convert, "RATES", (11.0, 12.0))
    assert convert(tmp_path, "--videos", str(tmp_path / "videos")) == 2
    assert "v_Run_g08_c01.avi: states 10 frames a second; expected 11 to 12; give --fps" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("video", "names", "told"),
    [
        ("a\nb", ["A", "B"], "video 'a\\nb': the id 'a\\nb' has a line break"),
        ("a\ufeffb", ["A", "B"], "video 'a\\ufeffb': the id"),
        ("a\ud800b", ["A", "B"], "half a character"),
        (" v", ["A", "B"], "blanks at its ends"),
        ("v", ["A", "A"], "'A'"),
        ("v", ["A", "B\ud800"], "label 1: the class name 'B\\ud800' has"),
    ],
)
def test_names_that_would_not_be_read_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], video: str, names: list[str], told: str
) -> None:
    tube = [np.array([[1, 1, 1, 10, 10]], np.float32)]
    videos = [video, "other"]
    dump(tmp_path, {
        "labels": names, "gttubes": {video: {0: tube}, "other": {1: tube}}, "nframes": dict.fromkeys(videos, 3),
        "train_videos": [[video]], "test_videos": [["other"]], "resolution": dict.fromkeys(videos, (20, 20)),
    })  # fmt: skip
    assert convert(tmp_path, "--fps", "10") == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()
