"""Trained networks, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from acar.config import Config
from acar.errors import UserError
from acar.files import sha256_of
from acar.models.compute import prepared
from acar.models.net import build_network, load_weights
from acar.paths import Paths


def trained_network(config: Config, stage: int, n_classes: int, device: torch.device) -> Any:
    """The network of a finished stage, in eval mode on `device`.

    Raises:
        UserError: the stage is not there, or its weights do not fit the config's model.
    """
    path = trained_weights(Paths.of(config).training(stage), f"acar train-stage{stage}")
    net = build_network(config.model, n_classes)
    load_weights(net, path)
    return prepared(net, config.compute, device).eval()


def trained_weights(folder: Path, command: str) -> Path:
    """The model.safetensors in the folder of a finished training: the one that it wrote, if facts.json tells.

    Args:
        folder: `stage1/`, `stage2/` or `detector/`.
        command: that makes the folder anew, for the message.

    Raises:
        UserError: the weights are absent, or they or facts.json are damaged.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: not there; run `{command}` first")
    if not (folder / "facts.json").is_file():
        return path  # put there by hand
    expected, found = trained_facts(folder, command).get("weights_sha256"), sha256_of(path)
    if found != expected:
        raise UserError(
            f"{path}: damaged or replaced: its SHA-256 is {found[:12]}, facts.json beside it says "
            f"{str(expected)[:12]}; run `{command}` again"
        )
    return path


def trained_facts(folder: Path, command: str) -> dict[str, Any]:
    """The facts.json in the folder of a finished training.

    Raises:
        UserError: it is absent or damaged.
    """
    path = folder / "facts.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not there; run `{command}` again") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); run `{command}` again") from None
    if not isinstance(facts, dict):
        raise UserError(f"{path}: holds no JSON object; run `{command}` again")
    return facts
