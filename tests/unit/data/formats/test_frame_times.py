"""Times that are computed from numbered images: within what readers take, whatever rate and beginning are given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acar import cli
from acar.data.csv_files import BOX_SLOP, LATEST_S
from acar.data.formats.annotations import Annotations, rows_of
from acar.data.formats.frame_names import RATES, FrameNames
from acar.data.formats.registry import FORMATS, Settings, read_annotations
from acar.data.ucf24 import MOST_FRAMES
from acar.errors import UserError

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BOX = [0.25, 0.5, 0.25, 0.25]
RATE = st.one_of(st.floats(), st.floats(*RATES), st.sampled_from([1e308, 1e-320, 1e-9, 0.0, -1.0, *RATES]))
SECOND = st.one_of(st.floats(), st.floats(-2e9, 2e9), st.sampled_from([1e308, LATEST_S, -LATEST_S, -0.0]))
NUMBER = st.one_of(st.integers(0, 100_000), st.integers(0, 10**12 - 1))


def run(*arguments: Any) -> int:
    return cli.main(["convert-annotations", *map(str, arguments)])


def numbered(path: Path, *numbers: int) -> Path:
    images = [{"id": n, "width": 1, "height": 1, "file_name": f"v/image_{n:06d}.jpg"} for n in numbers]
    boxes = [{"image_id": n, "bbox": BOX, "score": 0.5} for n in numbers]
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    return path


@pytest.mark.parametrize("target", ["ava", "fair", "mmaction2", "coco"])
@QUICK
@given(rate=RATE, first_s=SECOND, number=NUMBER)
@example(rate=30.0, first_s=1e308, number=1)
@example(rate=1e-320, first_s=0.0, number=61)
@example(rate=1e-9, first_s=0.0, number=61)
@example(rate=RATES[0], first_s=LATEST_S, number=1)
@example(rate=RATES[0], first_s=0.0, number=1_000_002)
def test_what_was_converted_can_be_read(
    tmp_path: Path, target: str, rate: float, first_s: float, number: int
) -> None:
    source, written = numbered(tmp_path / "c.json", number), tmp_path / "written"
    written.unlink(missing_ok=True)
    status = run(source, written, "--to", target, f"--fps={rate}", f"--first-second={first_s}")
    fits = RATES[0] <= rate <= RATES[1] and abs(first_s) <= LATEST_S
    if status == 0:
        assert fits
        (time_s,) = read_annotations(written, named=target).rows["time_s"]
        assert time_s == pytest.approx(first_s + (number - 1) / rate, abs=2e-6) and abs(time_s) <= LATEST_S
    else:
        before = target == "coco" and number == 0  # whose file names begin with image 1
        assert status == 2 and not written.exists()
        assert not fits or before or abs(first_s + (number - 1) / rate) > LATEST_S


@pytest.mark.parametrize("target", ["coco", "acar-net"])
@QUICK
@given(rate=RATE, first_s=SECOND, time_s=st.floats(-LATEST_S, LATEST_S))
@example(rate=1e308, first_s=0.0, time_s=1.0)
@example(rate=RATES[1], first_s=-LATEST_S, time_s=LATEST_S)
def test_numbers_of_images_are_those_of_their_seconds(
    tmp_path: Path, target: str, rate: float, first_s: float, time_s: float
) -> None:
    source, written = tmp_path / "a.csv", tmp_path / "written"
    written.unlink(missing_ok=True)
    source.write_text(f"v,{time_s:.6f},0.1,0.2,0.3,0.4,\n")
    status = run(
        source, written, "--to", target, "--from", "ava", f"--fps={rate}", f"--first-second={first_s}"
    )
    fits = RATES[0] <= rate <= RATES[1] and abs(first_s) <= LATEST_S
    if status == 0:
        assert fits and read_annotations(written, named=target).rows["time_s"].tolist() == [round(time_s, 6)]
    else:
        assert status == 2 and not written.exists() and (not fits or time_s < first_s)


def test_late_images_are_told_by_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = numbered(tmp_path / "c.json", 1, 999_999_999_999)
    assert run(source, tmp_path / "z", "--to", "fair", "--fps", "30", "--first-second", "900") == 2
    told = capsys.readouterr().err
    assert "c.json, image 1: file_name 'v/image_999999999999.jpg'" in told
    assert "is at second 3.33333e+10 by --first-second 900 and --fps 30; expected at most 1e+09" in told


def test_no_video_s_last_frame_is_late() -> None:
    """So `convert-ucf24` writes no time that its readers refuse."""
    assert MOST_FRAMES / RATES[0] <= LATEST_S
    assert round(1 / RATES[1], 6) > 0


@pytest.mark.parametrize("size_px", [(1, 1), (640, 480), (341, 257), (99999, 3)])
@settings(max_examples=25)
@given(
    ends=st.lists(st.floats(-BOX_SLOP, 1 + BOX_SLOP), min_size=2, max_size=2, unique=True).map(sorted),
    ulps=st.integers(0, 3),
)
@example(ends=[0.3, 1 + BOX_SLOP], ulps=0)
@example(ends=[-BOX_SLOP, 1 + BOX_SLOP], ulps=0)
def test_every_box_is_read_again_from_pixels(
    tmp_path_factory: pytest.TempPathFactory, size_px: tuple[int, int], ends: list[float], ulps: int
) -> None:
    """Also those that reach out of the frame as far as they may, or are hardly there."""
    low, high = ends
    if ulps:
        low = min(low, 1.0)
        high = low + ulps * float(np.spacing(low))
    path = tmp_path_factory.mktemp("x") / "x.json"
    rows = rows_of([("v", 1.0, low, low, high, high, None, "", 0.5)])
    FORMATS["coco"].write(Annotations(rows), path, Settings(size_px=size_px))
    again = read_annotations(path).rows
    np.testing.assert_allclose(again[["x1", "y1", "x2", "y2"]], [[low, low, high, high]], rtol=0, atol=1e-9)


def test_images_before_the_first_say_which(tmp_path: Path) -> None:
    rows = rows_of([("v", 1.0, 0, 0, 1, 1, None, "", 0.5)])
    frames = Settings(FrameNames(first_s=2.0))
    with pytest.raises(UserError, match=re.escape("second 1 of video v would be image -29")):
        FORMATS["coco"].write(Annotations(rows), tmp_path / "x", frames)
