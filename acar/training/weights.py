"""Trained networks, read back."""

from __future__ import annotations

from typing import Any

import torch

from acar.config import Config
from acar.errors import UserError
from acar.models.net import build_network, load_weights
from acar.paths import Paths


def trained_network(config: Config, stage: int, n_classes: int, device: torch.device) -> Any:
    """The network of a finished stage, in eval mode on `device`.

    Raises:
        UserError: the stage has not been trained, or its weights do not fit the config's model.
    """
    path = Paths.of(config).training(stage) / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: not there; run `acar train-stage{stage}` first")
    net = build_network(config.model, n_classes)
    load_weights(net, path)
    return net.to(device).eval()
