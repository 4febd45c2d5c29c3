"""Tables of finished videos: whatever is killed, the whole is the same, and no finished video is done twice."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.data.pieces import VideoPieces, digest_of_clips

VIDEOS = ["a", "b/c", "empty", "z"]
COLUMNS = {"video": str, "time_s": float, "action_id": int, "score": float}
EMPTY = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
STEPS = ("replace", "unlink", "rmdir", "mkdir")  # whatever changes a name on the disk, shutil's rmtree too


class Killed(BaseException):
    """What no handler of the code under test may see as an error of its own."""


class Killer:
    """Kills at a step of the file system; from then on nothing changes any more, as if the process were gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for name in STEPS:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))
        real = pd.DataFrame.to_parquet

        def torn(table: pd.DataFrame, path: Path, **options: object) -> None:
            real(table, path, **options)
            if self._dies():
                os.truncate(path, path.stat().st_size // 2)
                raise Killed

        monkeypatch.setattr(pd.DataFrame, "to_parquet", torn)

    def after(self, steps: int | None) -> None:
        self.left = steps

    def _dies(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0

    def _guarded(self, real):
        def step(*arguments, **options):
            if self._dies():
                raise Killed
            return real(*arguments, **options)

        return step


def table_of(video: str, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng([seed, VIDEOS.index(video)])
    n = 0 if video == "empty" else int(rng.integers(1, 40))
    columns = {
        "video": [video] * n,
        "time_s": rng.random(n),
        "action_id": rng.integers(1, 9, n),
        "score": rng.random(n),
    }
    return pd.DataFrame(columns).astype(EMPTY.dtypes.to_dict())


def job(work: Path, done: Counter[str], seed: int = 0) -> bytes:
    """What a stage does: open, add what is not finished, put together, remove."""
    pieces = VideoPieces(work, {"weights": f"w{seed}"}, VIDEOS)
    for video in VIDEOS:
        if video not in pieces.finished:
            pieces.add(video, table_of(video, seed))
            done[video] += 1
    whole = pieces.together(EMPTY)
    artefact = work.parent / "artefact"
    with open(artefact, "wb") as stream:  # not by name: it would be a step of its own
        whole.sort_values(["video", "time_s"], kind="stable").to_json(stream, double_precision=15)
    pieces.remove()
    return artefact.read_bytes() + repr(whole.dtypes.to_dict()).encode()


def test_tables_come_back_as_they_were_in_order(tmp_path):
    pieces = VideoPieces(tmp_path / "work", {}, VIDEOS)
    for video in reversed(VIDEOS):
        pieces.add(video, table_of(video))
    expected = pd.concat([table_of(video) for video in VIDEOS], ignore_index=True)
    pd.testing.assert_frame_equal(pieces.together(EMPTY), expected, check_exact=True)
    pieces.remove()
    assert not (tmp_path / "work").exists()


def test_without_videos_and_without_rows_the_types_stay(tmp_path):
    none = VideoPieces(tmp_path / "none", {}, [])
    pd.testing.assert_frame_equal(none.together(EMPTY), EMPTY)
    only_empty = VideoPieces(tmp_path / "empty", {}, ["empty"])
    only_empty.add("empty", table_of("empty"))
    pd.testing.assert_frame_equal(only_empty.together(EMPTY), EMPTY)


def test_a_kill_between_any_two_steps(tmp_path, monkeypatch):
    killer = Killer(monkeypatch)
    unbroken = job(tmp_path / "work", Counter())
    steps = 0
    while True:
        work, done = tmp_path / f"{steps}" / "work", Counter[str]()
        killer.after(steps)
        try:
            job(work, done)
        except Killed:
            killer.after(None)
            before = dict(done)
            finished_all = (work.parent / "artefact").exists()  # then it was `remove` that was killed
            assert job(work, done) == unbroken
            assert finished_all or all(done[video] == 1 for video in before), (steps, done)
            assert not work.exists()
            steps += 1
            continue
        break
    assert steps > 3 * len(VIDEOS), "each video writes, renames and clears up"


@settings(max_examples=30)
@given(kills=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), max_size=5))
def test_any_interruptions_under_changing_sources_give_the_same(tmp_path_factory, kills):
    folder = tmp_path_factory.mktemp("pieces")
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch)
        unbroken = job(folder / "unbroken" / "work", Counter())
        for seed, steps in kills:
            killer.after(steps)
            with contextlib.suppress(Killed):
                job(folder / "work", Counter(), seed)
            killer.after(None)
        assert job(folder / "work", Counter()) == unbroken
    shutil.rmtree(folder)


def test_another_source_is_dropped_and_named(tmp_path, capsys):
    first = VideoPieces(tmp_path, {"weights": "1", "labels": "x"}, VIDEOS)
    first.add("a", table_of("a"))
    assert VideoPieces(tmp_path, {"weights": "1", "labels": "x"}, VIDEOS).finished == {"a"}
    assert capsys.readouterr().err == ""
    assert VideoPieces(tmp_path, {"weights": "2", "labels": "x"}, VIDEOS).finished == set()
    assert capsys.readouterr().err == f"{tmp_path}: kept videos are of another weights; starting anew\n"
    assert [path.name for path in tmp_path.iterdir()] == ["source.json"]
    assert VideoPieces(tmp_path, {"weights": "2", "labels": "x"}, VIDEOS[1:]).finished == set()
    assert "another list of videos" in capsys.readouterr().err


def test_a_source_file_that_is_none_is_dropped(tmp_path, capsys):
    VideoPieces(tmp_path, {"weights": "1"}, VIDEOS).add("a", table_of("a"))
    (tmp_path / "source.json").write_text("[1, ")
    assert VideoPieces(tmp_path, {"weights": "1"}, VIDEOS).finished == set()
    assert "starting anew" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage", "nothing"])
def test_a_damaged_file_is_made_again(tmp_path, capsys, damage):
    pieces = VideoPieces(tmp_path, {}, VIDEOS)
    pieces.add("a", table_of("a"))
    pieces.add("z", table_of("z"))
    file = tmp_path / "0000003.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 8] ^= 16  # within the values of a column
    file.write_bytes(
        {"cut": content[:-9], "flip": content, "garbage": b"PAR1 or not", "nothing": b""}[damage]
    )
    again = VideoPieces(tmp_path, {}, VIDEOS)
    assert again.finished == {"a"} and not file.exists()
    assert f"{file}: damaged" in capsys.readouterr().err
    again.add("z", table_of("z"))
    assert VideoPieces(tmp_path, {}, VIDEOS).finished == {"a", "z"}


def test_temporary_and_foreign_files_are_cleared_away(tmp_path):
    pieces = VideoPieces(tmp_path, {}, VIDEOS)
    pieces.add("a", table_of("a"))
    for name in (".0000001.parquet.77.tmp.parquet", "0000009.parquet", ".source.json.77.tmp.json"):
        (tmp_path / name).write_bytes(b"torn")
    assert VideoPieces(tmp_path, {}, VIDEOS).finished == {"a"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000.parquet", "source.json"]


def test_folders_named_like_partitions_add_no_columns(tmp_path):
    pieces = VideoPieces(tmp_path / "run=3", {}, ["a"])
    pieces.add("a", table_of("a"))
    assert list(pieces.together(EMPTY).columns) == list(EMPTY.columns)


def test_clips_of_equal_tables_differ_by_what_lies_on_the_disk(tmp_path):
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"frames")
    videos = pd.DataFrame({"video": ["a"], "n_frames": [9], "pattern": [None], "location": [str(clip)]})
    first = digest_of_clips(videos)
    assert digest_of_clips(videos) == first
    assert digest_of_clips(videos.assign(n_frames=8)) != first
    status = clip.stat()
    clip.write_bytes(b"others")
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns + 10**6))
    assert digest_of_clips(videos) != first
    clip.unlink()
    assert digest_of_clips(videos) != first
