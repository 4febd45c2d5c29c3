"""Trainings in which some clips give a NaN; as a program, under torchrun: `poison.py CONFIG CLIP...`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from acar.data.clip_dataset import TrainingClips, network_input
from acar.errors import UserError

PLAIN = TrainingClips.__getitem__


def white(clip: dict[str, Any]) -> dict[str, Any]:
    """A clip that `nan_where_white` knows again."""
    return clip | {"frames": np.full_like(clip["frames"], 255)}


def nan_where_white(frames: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """`network_input`, NaN for white clips; batch norm then spreads it over all clips of the pass."""
    found = network_input(frames, *arguments)
    found[(frames == 255).flatten(1).all(1)] = torch.nan
    return found


def getitem(bad: set[str]) -> Any:
    """`TrainingClips.__getitem__` that whitens the clips named `video@second`."""

    def found(self: TrainingClips, slot: Any) -> dict[str, Any]:
        clip = PLAIN(self, slot)
        return white(clip) if clip["name"] in bad else clip

    return found


def main(config_path: str, *bad: str) -> None:
    from acar.config import load_config
    from acar.training import loop
    from acar.training.stage import train_stage

    TrainingClips.__getitem__ = getitem(set(bad))  # type: ignore[method-assign]
    loop.network_input = nan_where_white  # type: ignore[attr-defined]
    try:
        train_stage(load_config(config_path), 1)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
