"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests share the cores with one another and with what they start; torch's threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data, if this machine has it."""
    folder = Path(os.environ.get("ACAR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder} (set ACAR_SHARED)")
    return folder
