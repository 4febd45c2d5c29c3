"""Key frames at whole seconds, or where the labels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.config import Config, parse_config
from acar.data.clips import frame_index, keyframe_seconds
from acar.data.findings import Findings
from acar.data.key_times import KeyTimes, named_times, reach_of_seconds
from acar.errors import UserError

RECORD: dict[str, Any] = {"video": "a", "start_s": 0.0, "fps": 10.0, "n_frames": 30}
LABELS = """a,0.5,0.1,0.1,0.5,0.5,1,0
a,0.5,0.2,0.1,0.5,0.5,1,1
a,1.25,,,,,,
a,9,0.1,0.1,0.5,0.5,1,0
b,3,0,0,1,1,1,0
"""


def config(folder: Path, /, memory: str = "none", **data: Any) -> Config:
    labels = folder / "labels.csv"
    labels.write_text(LABELS)
    files = {"source": "files", "videos": str(folder), "label_map": "map.pbtxt"}
    splits = {split: {"labels": str(labels)} for split in ("train", "val")}
    return parse_config({"data": {**files, **splits, **data}, "model": {"head": {"memory": memory}}})


def test_the_named_times_are_those_where_nobody_is_too(tmp_path: Path) -> None:
    config(tmp_path)
    assert named_times(tmp_path / "labels.csv") == {"a": [0.5, 1.25, 9.0], "b": [3.0]}


def test_whole_seconds(tmp_path: Path) -> None:
    assert KeyTimes(config(tmp_path), "val").of(RECORD) == [0.0, 1.0, 2.0, 3.0][:3]
    assert KeyTimes(config(tmp_path, span_s=[1, 5]), "val").of(RECORD) == [1.0, 2.0]


def test_labelled_times_that_have_a_frame(tmp_path: Path) -> None:
    times = KeyTimes(config(tmp_path, key_frames="labelled"), "val")
    assert times.of(RECORD) == [0.5, 1.25]  # second 9 is behind the end
    assert times.of({**RECORD, "video": "unknown"}) == []
    assert KeyTimes(config(tmp_path, key_frames="labelled", span_s=[1, 5]), "val").of(RECORD) == [1.25]


def test_lines_of_a_video_and_a_time_alone(tmp_path: Path) -> None:
    """As AVA-Kinetics has them where nobody is; other malformed lines are collected or raised."""
    path = tmp_path / "labels.csv"
    path.write_text("a,0.5,0.1,0.1,0.5,0.5,1\na,5.5\nb,7.25\n")
    assert named_times(path) == {"a": [0.5, 5.5], "b": [7.25]}
    path.write_text("a,0.5,0.1,0.1,0.5,0.5,1\na,5.5\na,1,2,3\n")
    with pytest.raises(UserError, match="line 3: 4 columns"):
        named_times(path)
    found = Findings()
    assert named_times(path, found=found) == {"a": [0.5, 5.5]} and len(found) == 1


def test_both(tmp_path: Path) -> None:
    times = KeyTimes(config(tmp_path, memory="acfb", key_frames="both"), "val")
    assert times.of(RECORD) == [0.0, 0.5, 1.0, 1.25, 2.0]
    assert times.of({**RECORD, "video": "unknown"}) == [0.0, 1.0, 2.0]
    spanned = KeyTimes(config(tmp_path, key_frames="both", span_s=[1, 5]), "val")
    assert spanned.of(RECORD) == [1.0, 1.25, 2.0] and spanned.scored(RECORD, [0.5]) == {1.0, 1.25, 2.0}


def test_where_persons_are_scored(tmp_path: Path) -> None:
    """Labels at fractions say nothing about the whole seconds between them."""
    scored = {
        (mode, labelled_s): KeyTimes(config(tmp_path, key_frames=mode), "val").scored(RECORD, labelled_s)
        for mode in ("seconds", "labelled", "both")
        for labelled_s in ((0.5, 2.5), (0.5, 1.0, 2.0), (1.0,))
    }
    assert scored == {
        ("seconds", (0.5, 2.5)): {0.5, 2.5},
        ("seconds", (0.5, 1.0, 2.0)): {0.5, 1.0, 2.0},
        ("seconds", (1.0,)): {1.0},
        ("labelled", (0.5, 2.5)): {0.5, 1.25},
        ("labelled", (0.5, 1.0, 2.0)): {0.5, 1.25},
        ("labelled", (1.0,)): {0.5, 1.25},
        ("both", (0.5, 2.5)): {0.5, 1.25, 2.5},
        ("both", (0.5, 1.0, 2.0)): {0.5, 1.0, 1.25, 2.0},
        ("both", (1.0,)): {0.5, 1.0, 1.25},
    }
    assert reach_of_seconds([0.5]) == (float("inf"), float("-inf"))


times_s = st.lists(st.integers(-3_000_000, 60_000_000).map(lambda n: n / 1_000_000), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    times=times_s,
    start_s=st.floats(-3, 30),
    fps=st.floats(1, 60),
    n_frames=st.integers(1, 600),
    span_s=st.none() | st.tuples(st.integers(-5, 40), st.integers(0, 20)).map(lambda s: (s[0], s[0] + s[1])),
)
def test_both_is_the_whole_seconds_and_the_labelled_times(
    tmp_path_factory: pytest.TempPathFactory, times: list[float], start_s: float, fps: float, n_frames: int,
    span_s: tuple[float, float] | None,
) -> None:  # fmt: skip
    folder = tmp_path_factory.getbasetemp() / "both"
    folder.mkdir(exist_ok=True)
    made = {mode: config(folder, key_frames=mode, span_s=span_s) for mode in ("seconds", "labelled", "both")}
    (folder / "labels.csv").write_text("".join(f"a,{time_s:.6f},0,0,1,1,1,0\n" for time_s in times))
    record = {"video": "a", "start_s": start_s, "fps": fps, "n_frames": n_frames}
    found = {mode: KeyTimes(each, "val") for mode, each in made.items()}
    both = found["both"].of(record)
    assert both == sorted(set(both)) == sorted({*found["seconds"].of(record), *found["labelled"].of(record)})
    assert all(0 <= frame_index(record, time_s) < n_frames for time_s in both)
    # The bank's rows do not depend on the labels.
    seconds = {float(second) for second in keyframe_seconds(record, span_s)}
    assert seconds <= set(both) and set(both) - seconds <= set(times)
    labelled_s = sorted(set(times))
    scored = {mode: keys.scored(record, labelled_s) for mode, keys in found.items()}
    assert scored["both"] == scored["seconds"] | scored["labelled"]
    for time_s in scored["both"] - set(labelled_s):
        low_s, high_s = span_s or (labelled_s[0], labelled_s[-1])
        assert time_s in seconds and low_s <= time_s <= high_s


def test_a_bank_needs_whole_seconds(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data\.key_frames: labelled, but model\.head\.memory: acfb reads a bank"
    ):
        parse_config({"data": {"key_frames": "labelled"}})
