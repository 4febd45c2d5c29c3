"""Train stage 2: relations to the bank's window (paper section 3.3, eq. 5)."""

from __future__ import annotations

from acar.config import Config
from acar.training.stage import train_stage


def run(config: Config) -> None:
    """Write `stage2/`; see `acar.training.stage.train_stage`."""
    train_stage(config, stage=2)
