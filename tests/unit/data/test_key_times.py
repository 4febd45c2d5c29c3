"""Key frames at whole seconds, or where the labels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acar.config import Config, parse_config
from acar.data.key_times import KeyTimes, named_times
from acar.errors import UserError

RECORD: dict[str, Any] = {"video": "a", "start_s": 0.0, "fps": 10.0, "n_frames": 30}
LABELS = """a,0.5,0.1,0.1,0.5,0.5,1,0
a,0.5,0.2,0.1,0.5,0.5,1,1
a,1.25,,,,,,
a,9,0.1,0.1,0.5,0.5,1,0
b,3,0,0,1,1,1,0
"""


def config(folder: Path, **data: Any) -> Config:
    labels = folder / "labels.csv"
    labels.write_text(LABELS)
    files = {"source": "files", "videos": str(folder), "label_map": "map.pbtxt"}
    splits = {split: {"labels": str(labels)} for split in ("train", "val")}
    return parse_config({"data": {**files, **splits, **data}, "model": {"head": {"memory": "none"}}})


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


def test_a_bank_needs_whole_seconds(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data\.key_frames: labelled, but model\.head\.memory: acfb reads a bank"
    ):
        parse_config({"data": {"key_frames": "labelled"}})
