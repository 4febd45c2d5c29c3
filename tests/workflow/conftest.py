from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from workflow_runs import run_snakemake


@pytest.fixture
def snakemake(tmp_path: Path) -> Callable:
    """`run_snakemake` in `tmp_path`."""
    return partial(run_snakemake, tmp_path)


@pytest.fixture
def overrides(tmp_path: Path) -> Callable[[dict], Path]:
    """Write a config to lay over the default one."""

    def write(values: dict) -> Path:
        path = tmp_path / "overrides.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write
