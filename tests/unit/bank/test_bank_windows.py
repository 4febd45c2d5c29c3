"""Every window of an address-coded bank equals the rows found by brute force."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bank_samples import D, Sample, Video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acar.bank.layout import flip_maps
from acar.bank.reader import BankReader, BankRows, check_compatible, check_same_source
from acar.bank.wrong_video import WrongVideoBank
from acar.config import BankConfig
from acar.errors import UserError


def brute_force(
    sample: Sample, name: str, time_s: float, radius_s: float, exclude_radius_s: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Maps and seconds of a window, by looking at each row of the video."""
    video = sample.by_name(name)
    distance = np.abs(video.time_s - time_s)
    keep = distance <= radius_s
    if exclude_radius_s is not None:
        keep &= distance > exclude_radius_s
    return video.maps(sample.number(name))[keep], video.time_s[keep]


def assert_window(
    sample: Sample, reader: BankReader, name: str, time_s: float, radius_s: float, exclude: float | None
) -> None:
    rows = reader.window(name, time_s, radius_s, exclude)
    maps, times = brute_force(sample, name, time_s, radius_s, exclude)
    assert rows.maps.dtype == np.float16 and rows.maps.shape[1:] == (D, *sample.by_name(name).grid)
    np.testing.assert_array_equal(rows.maps, maps)
    np.testing.assert_array_equal(rows.time_s, times)
    assert rows.boxes.shape == (len(maps), 4) and rows.score.shape == (len(maps),) and rows.video == name


@pytest.mark.parametrize("cache_mib", [0, 64])
def test_every_window_of_every_video(sample: Sample, sealed_root: Path, cache_mib: int) -> None:
    reader = BankReader(sealed_root / "bank/val", cache_mib=cache_mib)
    for video in sample.videos:
        middles = [video.first_s - 1, *video.seconds, video.seconds[-1] + 1, video.first_s + 0.5]
        for time_s in middles:
            for radius_s in (0, 1, 2.5, 100):
                for exclude in (None, 0, 1, 200):
                    assert_window(sample, reader, video.name, time_s, radius_s, exclude)


def test_rows_by_number(sample: Sample, sealed_root: Path) -> None:
    """Windows are those rows, a row keeps its number, and no later window reaches back before `first`."""
    reader = BankReader(sealed_root / "bank/val")
    for video in sample.videos:
        whole = reader.rows_of(video.name, video.seconds[0], 1e6)
        assert len(whole.numbers) == len(video.time_s)
        middles = np.arange(video.first_s - 3, video.seconds[-1] + 4)
        for radius_s, exclude in ((0, None), (2, None), (2, 1), (1, 1)):
            windows = [reader.rows_of(video.name, t, radius_s, exclude) for t in middles]
            for place, (time_s, window) in enumerate(zip(middles, windows, strict=True)):
                places = window.numbers - whole.first
                maps, times = brute_force(sample, video.name, time_s, radius_s, exclude)
                np.testing.assert_array_equal(video.time_s[places], times)
                np.testing.assert_array_equal(reader.read(video.name, window.numbers).maps, maps)
                assert window.first - whole.first == (video.time_s < time_s - radius_s).sum()
                assert all((later.numbers >= window.first).all() for later in windows[place:])


def test_boxes_and_scores_belong_to_their_rows(sample: Sample, sealed_root: Path) -> None:
    reader = BankReader(sealed_root / "bank/val")
    whole = reader.window("e", 2, 100)
    np.testing.assert_allclose(whole.boxes[:, 0], 0.1 + np.arange(28) / 1000, rtol=1e-6)
    part = reader.window("e", 3, 1)  # seconds 2..4: rows 12..27
    np.testing.assert_array_equal(part.boxes, whole.boxes[12:])
    np.testing.assert_array_equal(part.score, whole.score[12:])


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    counts = st.lists(st.integers(0, 5), min_size=1, max_size=8)
    grids = st.sampled_from([(2, 3), (3, 2), (1, 1)])
    actors = draw(st.lists(counts, min_size=1, max_size=5))
    first_s = st.sampled_from([0.0, 902.0])
    videos = [Video(f"v{i}", draw(grids), list(found), draw(first_s)) for i, found in enumerate(actors)]
    layout = BankConfig(
        chunk_kib=1, rows_per_shard=draw(st.integers(1, 9)), zstd_level=draw(st.sampled_from([0, 3]))
    )
    return Sample(videos, n_shards=draw(st.integers(1, 3)), settings=layout)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(samples(), st.floats(-2, 10), st.integers(0, 6), st.none() | st.integers(0, 3))
def test_windows_of_drawn_banks(sample: Sample, offset_s: float, radius_s: int, exclude: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reader = BankReader(sample.write(Path(folder)), cache_mib=0)
        assert reader.videos == [video.name for video in sample.videos]
        for video in sample.videos:
            for time_s in (*video.seconds, video.first_s + round(offset_s, 2)):
                assert_window(sample, reader, video.name, time_s, radius_s, exclude)


def test_empty_is_ordinary(sealed_root: Path) -> None:
    reader = BankReader(sealed_root / "bank/val")
    for window in (
        reader.window("d", 1, 10),  # a video without a row
        reader.window("a", 2, 0),  # a second without one
        reader.window("a", 500, 3),  # far outside
        reader.window("a", 3, 1, exclude_radius_s=1),  # all left out
    ):
        assert len(window) == 0
        assert window.maps.shape == (0, D, 3, 4) and window.maps.dtype == np.float16
        assert window.boxes.shape == (0, 4) and window.score.shape == window.time_s.shape == (0,)
    assert reader.grid_of("d") == (3, 4)


def test_windows_are_the_callers_own(sealed_root: Path) -> None:
    reader = BankReader(sealed_root / "bank/val")
    first = reader.window("a", 3, 10)
    first.maps[:], first.boxes[:], first.score[:] = 7, 7, 7
    second = reader.window("a", 3, 10)
    assert not (second.maps == 7).all() and not (second.boxes == 7).any() and not (second.score == 7).any()


def test_cache_is_bounded_and_reads_repeatedly_used_videos_whole(
    sealed_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = BankReader(sealed_root / "bank/val", cache_mib=1)
    monkeypatch.setattr(BankReader, "_bank_fits", False)
    reads: list[slice] = []
    original = BankReader._read_features
    monkeypatch.setattr(
        BankReader,
        "_read_features",
        lambda self, number, name, rows: (reads.append(rows), original(self, number, name, rows))[1],
    )
    for time_s in range(7):
        reader.window("a", time_s, 1)
    assert len(reads) == 2  # one window, then the whole video
    reader.cache_mib = 0
    reader.window("e", 1, 1)
    reader.window("e", 1, 1)
    assert len(reads) == 4 and reader._cached_bytes == 14 * D * 12 * 2


def test_unknown_video_is_named(sealed_root: Path) -> None:
    with pytest.raises(UserError, match="no video 'nobody' in this bank"):
        BankReader(sealed_root / "bank/val").window("nobody", 0, 1)


def test_pickles_before_and_after_reading(sample: Sample, sealed_root: Path) -> None:
    reader = BankReader(sealed_root / "bank/val")
    reader.window("a", 3, 2)
    copy = pickle.loads(pickle.dumps(reader))
    assert_window(sample, copy, "a", 3, 2, None)
    assert len(pickle.dumps(reader)) < 10_000


def _read_in_child(reader: BankReader, connection: object) -> None:
    connection.send(reader.window("e", 3, 2).maps.sum(dtype=np.float64))  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_read_in_a_child_process(sealed_root: Path, method: str) -> None:
    reader = BankReader(sealed_root / "bank/val", cache_mib=0)
    expected = reader.window("e", 3, 2).maps.sum(dtype=np.float64)  # the parent's arrays are open now
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=_read_in_child, args=(reader, theirs), daemon=True)
    child.start()
    assert ours.poll(60), "the child hangs"
    assert ours.recv() == expected
    child.join()


def test_wrong_video_bank_never_shows_the_video_itself(sample: Sample, sealed_root: Path) -> None:
    reader = BankReader(sealed_root / "bank/val")
    wrong = WrongVideoBank(reader, seed=3)
    assert sorted(wrong.taken_from.values()) == wrong.videos == reader.videos
    for video in sample.videos:
        other = sample.by_name(wrong.taken_from[video.name])
        assert other.name != video.name and other.grid == video.grid
        for time_s in video.seconds:
            rows: BankRows = wrong.window(video.name, time_s, 2, 0)
            clamped = min(max(time_s, other.seconds[0]), other.seconds[-1])
            maps, times = brute_force(sample, other.name, clamped, 2, 0)
            assert rows.video == other.name and rows.maps.shape[1:] == (D, *video.grid)
            np.testing.assert_array_equal(rows.maps, maps)
            np.testing.assert_array_equal(rows.time_s, times)
    assert WrongVideoBank(reader, seed=3).taken_from == wrong.taken_from
    assert len({tuple(WrongVideoBank(reader, seed).taken_from.values()) for seed in range(8)}) > 1


def test_wrong_video_bank_needs_two_videos_of_a_grid(tmp_path: Path) -> None:
    bank = Sample([Video("a", (2, 2), [1]), Video("b", (2, 3), [1])], n_shards=1).write(tmp_path)
    with pytest.raises(UserError, match="only video of grid 2x2"):
        WrongVideoBank(BankReader(bank), 0)


def test_check_compatible(sealed_root: Path) -> None:
    manifest = BankReader(sealed_root / "bank/val").manifest
    check_compatible(manifest, d=D, split="val", grids=[(3, 4)], weights_sha256="w" * 64)
    for wrong, message in (
        ({"d": 512, "split": "val"}, "d = 2, model.head.hidden_channels is 512"),
        ({"d": D, "split": "train"}, "is of split 'val', expected 'train'"),
        ({"d": D, "split": "val", "grids": [(3, 4), (7, 9)]}, "has grids 3x3, 3x4, not 7x9"),
        ({"d": D, "split": "val", "weights_sha256": "x" * 64}, "weights wwwwwwwwwwww, expected xxx"),
    ):
        with pytest.raises(UserError, match=message):
            check_compatible(manifest, **wrong)  # type: ignore[arg-type]


def test_train_and_val_banks_come_from_the_same_weights(sealed_root: Path) -> None:
    manifest = BankReader(sealed_root / "bank/val").manifest
    check_same_source(manifest | {"split": "train"}, manifest)
    other = manifest | {"provenance": manifest["provenance"] | {"weights_sha256": "x" * 64}}
    with pytest.raises(UserError, match="differ in weights_sha256"):
        check_same_source(other, manifest)


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 5))
def test_flip_maps_mirrors_columns(rows: int, height: int, width: int) -> None:
    maps = np.arange(rows * D * height * width, dtype=np.float16).reshape(rows, D, height, width)
    flipped = flip_maps(maps)
    for x in range(width):
        np.testing.assert_array_equal(flipped[..., x], maps[..., width - 1 - x])
    np.testing.assert_array_equal(flip_maps(flipped), maps)
