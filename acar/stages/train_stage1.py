"""Train stage 1: relations within the clip (paper section 3.2)."""

from __future__ import annotations

from acar.config import Config
from acar.training.stage import train_stage


def run(config: Config) -> None:
    """Write `stage1/`; see `acar.training.stage.train_stage`."""
    train_stage(config, stage=1)
