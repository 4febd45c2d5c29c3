"""Damaged files never end in a trace; `ACAR_FUZZ=5000 pytest -s` on this file reads so many of each format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from format_fuzzer import fuzz, subjects

COUNT = int(os.environ.get("ACAR_FUZZ", "80"))
SEED = int(os.environ.get("ACAR_FUZZ_SEED", "0"))
NAMES = [
    "ava", "fair", "mmaction2", "acar-net", "coco", "label-map-item", "label-map-label", "label-map-list",
    "exclusions",
]  # fmt: skip


def test_every_format_is_damaged(tmp_path: Path) -> None:
    assert list(subjects(tmp_path)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    subject = subjects(tmp_path)[name]
    (tmp_path / "valid").write_bytes(subject.valid)
    subject.read(tmp_path / "valid")
    outcomes = fuzz(tmp_path, name, subject, COUNT, SEED)
    print(f"{name}: {sum(outcomes.values())} damaged files: {dict(outcomes)}")
    assert outcomes["nameless"] == 0 and sum(outcomes.values()) == COUNT
    assert outcomes["refused"] > 0
