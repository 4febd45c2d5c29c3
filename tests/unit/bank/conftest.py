"""A sealed, address-coded bank to read from, and copies of it to damage."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bank_samples import Sample, usual_sample


@pytest.fixture(scope="package", autouse=True)
def no_fsync() -> Iterator[None]:
    """Thousands of small files: no test cuts the power, so none waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def sample() -> Sample:
    return usual_sample()


@pytest.fixture(scope="session")
def sealed_root(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Path:
    """Holds bank/val; not to be changed by tests."""
    root = tmp_path_factory.mktemp("bank")
    sample.write(root)
    return root


@pytest.fixture
def damaged_root(tmp_path: Path, sealed_root: Path) -> Path:
    """A copy of the sealed bank."""
    return Path(shutil.copytree(sealed_root, tmp_path / "copy"))
