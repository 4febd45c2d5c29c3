"""Stage 1: relations within the clip (paper section 3.2), trained or taken as released."""

from __future__ import annotations

from acar.config import Config
from acar.training.stage import train_stage
from acar.training.taken import take_network
from acar.workflow import trains_stage1


def run(config: Config) -> None:
    """Write `stage1/`; see `acar.training.stage.train_stage`, and `take_network` for `stage1.weights`."""
    if trains_stage1(config):
        train_stage(config, stage=1)
    else:
        take_network(config)
