"""A whole network taken as stage 1 as it is (`stage1.weights`): nothing is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from acar.config import Config
from acar.data.class_groups import pose_columns, read_classes
from acar.data.sources import label_map_path
from acar.data.tables import LabelMap
from acar.errors import UserError
from acar.files import finished_folder, sha256_of, write_bytes_atomic, write_json_atomic, write_text_atomic
from acar.models.net import MAX_NAMED, build_network, load_weights, read_weights
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.weights.catalogue import check_fetched, weights_path
from acar.weights.headers import TAKEN_KEY, check_taken, read_weights_header
from acar.weights.structure import in_words


def take_network(config: Config) -> None:
    """Write `stage1/` from `stage1.weights`: model.safetensors, facts.json, config.yaml and origin.json.

    There is no log and no curve. The classifier's columns are taken as the label map's classes in the order of
    their ids.

    Raises:
        UserError: no whole network, one of other classes or shapes than the config's, or values that are not
            finite.
    """
    assert config.stage1.weights is not None
    check_fetched(config.stage1.weights, TAKEN_KEY)
    path = weights_path(config.stage1.weights)
    origin = origin_of(config, "train_stage1")
    map_path = label_map_path(config)
    label_map = read_classes(config)
    poses = pose_columns(label_map)
    check_taken(path, read_weights_header(path), map_path, label_map)
    state = read_weights(path)
    _check_finite(path, state)
    net = build_network(config.model, len(label_map))
    try:
        load_weights(net, path)
    except UserError as error:
        raise UserError(f"{TAKEN_KEY}: {error}\n  The file's: model.backbone: {_words(state)}") from None
    with finished_folder(Paths.of(config).training(1)) as folder:
        weights = {name: value.contiguous() for name, value in net.state_dict().items()}
        write_bytes_atomic(folder / "model.safetensors", save(weights))
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_text_atomic(folder / "config.yaml", text)
        write_json_atomic(folder / "facts.json", _facts(path, net, folder, label_map, poses))
        write_origin(folder, origin)
    print(
        f"stage1: taken from {path} as it is; its {len(label_map)} columns are the classes of {map_path} in the "
        f"order of their ids, {label_map.ids[0]} ({label_map.names[0]}) to {label_map.ids[-1]} "
        f"({label_map.names[-1]}); {len(poses)} of them exclusive",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def _check_finite(path: Path, state: dict[str, Tensor]) -> None:
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        few = ", ".join(broken[:MAX_NAMED]) + (", ..." if len(broken) > MAX_NAMED else "")
        raise UserError(f"{TAKEN_KEY}: {path}: {len(broken)} weights hold values that are not finite: {few}")


def _words(state: dict[str, Tensor]) -> str:
    try:
        return in_words({name: tuple(value.shape) for name, value in state.items()})
    except (UserError, ValueError) as error:  # ValueError: sizes that no config allows
        return str(error)


def _facts(path: Path, net: Any, folder: Path, label_map: LabelMap, poses: list[int]) -> dict[str, Any]:
    return {
        "weights_sha256": sha256_of(folder / "model.safetensors"),
        "parameters": sum(p.numel() for p in net.parameters()),
        "taken_from": str(path),
        "taken_sha256": sha256_of(path),
        "columns": [f"{item.id} {item.name}" for item in label_map.classes],
        "exclusive_columns": poses,
        "torch": torch.__version__,
    }
