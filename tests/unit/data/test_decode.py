"""Resampling by presentation time, sizes, orientation and frame-folder naming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acar.data.decode import Orientation, constant_rate, fitted_size, n_constant_rate
from acar.data.frame_folder import BadVideoError, FrameFolder, read_frame_folder


def at_rate(rate: float, n: int, *, jitter_s: float = 0.0) -> list[tuple[float, float, int]]:
    signs = np.where(np.arange(n) % 2, -1, 1)
    return [(k / rate + jitter_s * signs[k], 1 / rate, k) for k in range(n)]


@pytest.mark.parametrize("rate", [10, 23.976, 25, 30, 59.94])
def test_the_same_rate_is_the_identity_despite_rounded_stamps(rate: float) -> None:
    timed = at_rate(rate, 200, jitter_s=0.0005)
    assert list(constant_rate(timed, fps=rate, source_rate=rate)) == list(range(200))


def test_three_to_one_takes_every_third() -> None:
    assert list(constant_rate(at_rate(30, 30), fps=10, source_rate=30)) == list(range(0, 30, 3))


def test_one_to_three_shows_the_frame_of_the_moment() -> None:
    assert list(constant_rate(at_rate(10, 3), fps=30, source_rate=10)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_still_picture_is_repeated_and_a_late_start_filled() -> None:
    timed = [(0.2, 0.1, "a"), (0.3, 0.1, "b"), (1.0, 0.1, "c")]
    assert "".join(constant_rate(timed, fps=10, source_rate=10)) == "aaa" + "b" * 7 + "c"


def test_cut_keeps_the_last_second_and_ends() -> None:
    timed = at_rate(10, 100)
    cut = list(constant_rate(timed, fps=5, source_rate=10, start_s=2.0, stop_s=4.0))
    assert cut == list(range(20, 41, 2))  # 4.0 s itself is there
    assert list(constant_rate(timed, fps=5, source_rate=10, start_s=9.0, stop_s=20.0)) == [90, 92, 94, 96, 98]
    assert list(constant_rate(timed, fps=5, source_rate=10, start_s=10.0, stop_s=20.0)) == []


def test_a_cut_stops_reading() -> None:
    timed = iter(at_rate(10, 1000))
    list(constant_rate(timed, fps=10, source_rate=10, stop_s=2.0))
    assert next(timed)[2] < 30


gaps = st.lists(st.floats(0.001, 0.9), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(gaps_s=gaps, fps=st.sampled_from([3.0, 10.0, 29.97]), rate=st.sampled_from([5.0, 10.0, 30.0]),
       start_s=st.sampled_from([0.0, 0.7]))  # fmt: skip
def test_equals_the_search_over_all_frames(
    gaps_s: list[float], fps: float, rate: float, start_s: float
) -> None:
    times = np.cumsum(gaps_s)
    timed = [(float(t), 1 / rate, i) for i, t in enumerate(times)]
    got = list(constant_rate(timed, fps=fps, source_rate=rate, start_s=start_s))
    end_s = times[-1] + 1 / rate
    expected_n = 0 if end_s <= start_s else max(1, round((end_s - start_s) * fps))
    # A frame that begins within the tolerance of the end is still shown before the end is known.
    assert expected_n <= len(got) <= expected_n + 1
    tolerance_s = 0.5 / max(fps, rate) - 1e-6
    for k, item in enumerate(got):
        begun = np.flatnonzero(times <= start_s + k / fps + tolerance_s)
        assert item == (begun[-1] if len(begun) else 0)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1920, 1080), 256, (456, 256)),
        ((1080, 1920), 256, (256, 456)),
        ((17, 13), 16, (20, 16)),
        ((340, 256), 256, (340, 256)),
        ((320, 240), 256, (342, 256)),
        ((101, 101), 33, (32, 32)),
    ],
)
def test_fitted_size(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert fitted_size(*size, short_side) == expected


@given(width=st.integers(8, 4000), height=st.integers(8, 4000), short_side=st.integers(16, 600))
def test_fitted_sizes_are_even_and_keep_the_aspect(width: int, height: int, short_side: int) -> None:
    fitted = fitted_size(width, height, short_side)
    assert all(side % 2 == 0 for side in fitted)
    assert abs(min(fitted) - short_side) <= 1
    scale = short_side / min(width, height)
    assert abs(fitted[0] - width * scale) <= 1 and abs(fitted[1] - height * scale) <= 1


def test_orientation_turns_as_numpy_does() -> None:
    image = np.arange(24).reshape(2, 4, 3)
    np.testing.assert_array_equal(Orientation(True, True, False).apply(image), np.rot90(image, -1))
    np.testing.assert_array_equal(Orientation(True, False, True).apply(image), np.rot90(image))
    np.testing.assert_array_equal(Orientation(False, True, True).apply(image), np.rot90(image, 2))


def folder_of(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (20, 10)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("template", "first", "pattern"),
    [
        ("v1_%06d.jpg", 1, "v1_%06d.jpg"),
        ("image_%06d.jpg", 27001, "image_%06d.jpg"),
        ("img_%05d.jpg", 0, "img_%05d.jpg"),
        ("100%%-frame%d.png", 8, "100%%-frame%01d.png"),
        ("%04d.JPG", 1, "%04d.JPG"),
    ],
)
def test_frame_names(tmp_path: Path, template: str, first: int, pattern: str) -> None:
    folder = folder_of(tmp_path / "v1", [template % number for number in range(first, first + 4)])
    (folder / "notes.txt").touch()
    assert read_frame_folder(folder, "v1") == FrameFolder(pattern, first, 4, 20, 10)


def test_known_series_win_over_others(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "v", [f"{p}{k:05d}.jpg" for p in ("img_", "flow_x_", "flow_y_") for k in (1, 2)]
    )
    assert read_frame_folder(folder, "v").pattern == "img_%05d.jpg"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no numbered images"),
        (["img_00001.jpg", "img_00002.jpg", "img_00004.jpg"], "img_00003.jpg is missing"),
        (["left_1.jpg", "right_1.jpg"], "several series"),
    ],
)
def test_unusable_folders(tmp_path: Path, names: list[str], reason: str) -> None:
    with pytest.raises(BadVideoError, match=reason):
        read_frame_folder(folder_of(tmp_path / "v", names), "v")


def test_a_broken_first_image(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "v", ["1.jpg", "2.jpg"])
    (folder / "1.jpg").write_bytes(b"")
    with pytest.raises(BadVideoError, match=r"1\.jpg cannot be read"):
        read_frame_folder(folder, "v")


def test_the_number_of_frames_follows_from_the_last_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        n, fps, rate = (
            int(rng.integers(1, 12)),
            float(rng.choice([7, 10, 12.5, 30])),
            float(rng.choice([10, 30, 2000])),
        )
        times_s = np.sort(rng.choice(2000, n, replace=False)) / 1000
        duration_s, start_s = float(rng.choice([1 / rate, 0.3])), float(rng.choice([0, 0.5, 1.9]))
        stop_s = None if rng.random() < 0.5 else start_s + float(rng.choice([0, 0.7]))
        values = {"fps": fps, "source_rate": rate, "start_s": start_s, "stop_s": stop_s}
        items = [(float(time_s), duration_s, k) for k, time_s in enumerate(times_s)]
        shown = list(constant_rate(items, **values))
        last_s = items[-1][0] if n > 1 else float("-inf")
        assert len(shown) == n_constant_rate(last_s, items[-1][0] + duration_s, **values)
