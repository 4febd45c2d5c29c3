"""Data sets for the tests of check-data."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
