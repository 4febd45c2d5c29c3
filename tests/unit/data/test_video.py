"""Exact frame access in files that the project wrote, in frame folders, and through the cache."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from acar.data.encode import VideoWriter, write_video
from acar.data.video import FrameCache, FrameReader
from acar.errors import UserError

WIDTH, HEIGHT, N_FRAMES, GOP = 64, 32, 37, 5


def numbered(number: int) -> np.ndarray:
    """A frame whose eight vertical bars spell `number` in binary, low bit left."""
    bits = [(number >> bit) & 1 for bit in range(8)]
    row = np.repeat([200 if bit else 40 for bit in bits], WIDTH // 8)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    centres = frame[frame.shape[0] // 2, frame.shape[1] // 16 :: frame.shape[1] // 8, 0]
    return sum(int(value > 120) << bit for bit, value in enumerate(centres))


def record(path: Path, **changed: Any) -> dict[str, Any]:
    row = {
        "video": path.stem, "location": str(path), "kind": "video", "pattern": None, "first_number": 0,
        "fps": 10.0, "n_frames": N_FRAMES, "width": WIDTH, "height": HEIGHT, "start_s": 0.0, "status": "ok",
        "reason": "",
    }  # fmt: skip
    return {**row, **changed}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    assert write_video(path, map(numbered, range(N_FRAMES)), fps=10, gop_frames=GOP) == N_FRAMES
    return path


@pytest.fixture(scope="module")
def sequential(clip: Path) -> np.ndarray:
    return FrameReader(record(clip)).read(range(N_FRAMES))


def test_every_frame_is_the_one_written(sequential: np.ndarray) -> None:
    assert sequential.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    assert sequential.dtype == np.uint8
    assert [number_of(frame) for frame in sequential] == list(range(N_FRAMES))


@pytest.mark.parametrize("fps", [7, 10, 12.5, 23.976, 29.97, 30000 / 1001, 59.94])
def test_frame_numbers_are_exact_at_any_rate(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "v.mp4", map(numbered, range(60)), fps=fps, gop_frames=7)
    reader = FrameReader(record(tmp_path / "v.mp4", fps=fps, n_frames=60))
    assert [number_of(frame) for frame in reader.read([59, 0, 30, 29, 31, 58])] == [59, 0, 30, 29, 31, 58]


index_lists = st.lists(st.integers(0, N_FRAMES - 1), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reads=st.lists(index_lists, min_size=1, max_size=4))
def test_any_order_equals_sequential(clip: Path, sequential: np.ndarray, reads: list[list[int]]) -> None:
    reader = FrameReader(record(clip))
    for indices in reads:
        np.testing.assert_array_equal(reader.read(indices), sequential[np.array(indices, dtype=int)])
    reader.close()


class CountingContainer:
    """Passes calls on to a container and counts seeks."""

    def __init__(self, container: Any) -> None:
        self.container, self.seeks = container, 0

    def seek(self, *args: Any, **kwargs: Any) -> None:
        self.seeks += 1
        self.container.seek(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)


def test_increasing_reads_do_not_seek(clip: Path) -> None:
    reader = FrameReader(record(clip))
    reader.read([0, 1])
    assert reader._decoder is not None
    counting = reader._decoder.container = CountingContainer(reader._decoder.container)
    reader.read([0, 1, 2, 3])  # overlaps the read before
    reader.read([2, 4])
    assert counting.seeks == 0
    reader.read([30])  # several key frames on: seeking is shorter
    reader.read([4])
    assert counting.seeks == 2
    assert reader._decoder.key_indices == list(range(0, N_FRAMES, GOP))


def test_callers_may_change_what_they_get(clip: Path, sequential: np.ndarray) -> None:
    reader = FrameReader(record(clip))
    reader.read([3, 4])[:] = 0
    np.testing.assert_array_equal(reader.read([4, 3]), sequential[[4, 3]])


def test_one_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", [numbered(9)], fps=30)
    frames = FrameReader(record(tmp_path / "one.mp4", n_frames=1, fps=30)).read([0, 0, 0])
    assert [number_of(frame) for frame in frames] == [9, 9, 9]


def test_no_indices_is_an_empty_array(clip: Path) -> None:
    assert FrameReader(record(clip)).read([]).shape == (0, HEIGHT, WIDTH, 3)


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, map(numbered, range(20)), fps=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_colours_survive(tmp_path: Path) -> None:
    colours = [(200, 60, 30), (20, 160, 220), (128, 128, 128), (10, 200, 40)]
    frame = np.repeat(np.array([colours], dtype=np.uint8), 16, axis=1).repeat(32, axis=0)
    write_video(tmp_path / "c.mp4", [frame], fps=10)
    got = FrameReader(record(tmp_path / "c.mp4", n_frames=1)).read([0])[0]
    for place, colour in enumerate(colours):
        np.testing.assert_allclose(got[16, 16 * place + 8].astype(int), colour, atol=6)


def test_a_failed_write_closes_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(tmp_path / "x.mp4", width=16, height=16, fps=5) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
        raise KeyError


def test_reader_names_a_file_shorter_than_its_record(clip: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4.*frame 40.*rerun ingest"):
        FrameReader(record(clip, n_frames=50)).read([40])


def test_reader_names_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.mp4"):
        FrameReader(record(tmp_path / "gone.mp4")).read([0])


def test_reader_names_a_size_that_differs(clip: Path) -> None:
    with pytest.raises(UserError, match=r"64x32.*128x64"):
        FrameReader(record(clip, width=128, height=64)).read([0])


def test_reader_and_cache_can_be_pickled_while_open(clip: Path, sequential: np.ndarray) -> None:
    reader = FrameReader(record(clip))
    reader.read([5])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read([6]), sequential[[6]])
    for cache_mib in (0, 10):
        cache = FrameCache(pd.DataFrame([record(clip)]), cache_mib)
        cache.read("clip", [1])
        copy = pickle.loads(pickle.dumps(cache))
        assert copy.held_bytes == 0
        np.testing.assert_array_equal(copy.read("clip", [7, 2]), sequential[[7, 2]])


def videos_like(clip: Path, names: str) -> pd.DataFrame:
    return pd.DataFrame([record(clip, video=name) for name in names])


def test_cache_stays_within_its_bytes(clip: Path, sequential: np.ndarray) -> None:
    one_mib = sequential.nbytes / 2**20
    cache = FrameCache(videos_like(clip, "abc"), cache_mib=2.5 * one_mib)
    for video in "abacbca":
        np.testing.assert_array_equal(cache.read(video, [0, 36, 4]), sequential[[0, 36, 4]])
        assert cache.held_bytes <= 2.5 * 2**20 * one_mib
    assert list(cache._whole) == ["c", "a"]  # the two used last
    cache.close()
    assert cache.held_bytes == 0


def test_cache_decodes_directly_what_does_not_fit(clip: Path, sequential: np.ndarray) -> None:
    cache = FrameCache(videos_like(clip, "abcdefghijk"), cache_mib=0)
    for video in "abcdefghijka":
        np.testing.assert_array_equal(cache.read(video, [8, 3]), sequential[[8, 3]])
    assert cache.held_bytes == 0
    assert len(cache._readers) == 8


def test_cache_explains_videos_it_cannot_give(clip: Path) -> None:
    videos = pd.DataFrame([record(clip, status="skipped", reason="the file is empty")])
    cache = FrameCache(videos, 1)
    with pytest.raises(UserError, match=r"`clip` was skipped by ingest \(the file is empty\)"):
        cache.read("clip", [0])
    with pytest.raises(UserError, match="`other`: not among the 1"):
        cache.read("other", [0])


def frame_folder(folder: Path, **changed: Any) -> dict[str, Any]:
    folder.mkdir()
    for number in range(3, 8):
        Image.fromarray(numbered(number)).save(folder / f"img_{number:05d}.png")
    return record(folder, kind="frames", pattern="img_%05d.png", first_number=3, n_frames=5, **changed)


def test_frame_folder_is_read_by_number(tmp_path: Path) -> None:
    row = pd.Series(frame_folder(tmp_path / "v"))
    frames = FrameReader(row).read([4, 0, 2])
    assert [number_of(frame) for frame in frames] == [7, 3, 5]
    np.testing.assert_array_equal(frames[0], numbered(7))


def test_frame_folder_is_scaled_to_its_record(tmp_path: Path) -> None:
    frames = FrameReader(frame_folder(tmp_path / "v", width=32, height=16)).read(range(5))
    assert frames.shape == (5, 16, 32, 3)
    assert [number_of(frame) for frame in frames] == [3, 4, 5, 6, 7]


def test_frame_folder_refuses_bad_images(tmp_path: Path) -> None:
    row = frame_folder(tmp_path / "v")
    Image.fromarray(numbered(1)[:, :40]).save(tmp_path / "v" / "img_00004.png")
    (tmp_path / "v" / "img_00005.png").write_bytes(b"\x89PNG nonsense")
    (tmp_path / "v" / "img_00006.png").unlink()
    for index, what in ((1, "40x32.*one folder holds one video"), (2, "00005"), (3, "00006")):
        with pytest.raises(UserError, match=what):
            FrameReader(row).read([index])
