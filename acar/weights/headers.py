"""What the header of a weights file tells: whether it is one at all, and of what. Imports no torch."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from acar.data.label_map import LabelMap
from acar.errors import UserError
from acar.weights.names import is_classifier, is_whole

TAKEN_KEY = "stage1.weights"
"""The config's key of a network that is taken as it is."""
PARTIAL = "acar.partial"
"""In the metadata of a file that lacks some weights on purpose."""
PICKLE = b"\x80"


@dataclass(frozen=True)
class WeightsHeader:
    """Names and shapes of a safetensors file's weights.

    Attributes:
        shapes: by name.
        is_partial: whether `acar import-weights --partial` wrote it.
    """

    shapes: dict[str, tuple[int, ...]]
    is_partial: bool


def read_weights_header(path: Path) -> WeightsHeader:
    """Read the header of a safetensors file, and no tensor.

    Raises:
        UserError: the file is absent or not safetensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return WeightsHeader(shapes, PARTIAL in (file.metadata() or {}))
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a safetensors file ({error}); convert other checkpoints with `acar import-weights`"
        ) from None


def check_taken(path: Path, header: WeightsHeader, map_path: Path, label_map: LabelMap | None) -> None:
    """Refuse a file that is no whole network, or one of other classes than the label map's.

    Args:
        path: of `stage1.weights`, for messages.
        header: its header.
        map_path: of the label map.
        label_map: its classes; None: not known, so not looked at.

    Raises:
        UserError: says which.
    """
    heads = [name for name in header.shapes if name.startswith("head.")]
    classifiers = [name for name in heads if is_classifier(name)]
    if not is_whole(header.shapes):
        raise UserError(
            f"{TAKEN_KEY}: {path}: not a whole network: none of its {len(header.shapes)} weights is a head's; a "
            "backbone goes into model.backbone.weights, for a training to start from"
        )
    if header.is_partial:
        raise UserError(
            f"{TAKEN_KEY}: {path}: lacks weights, `acar import-weights --partial` wrote it; a network that is taken "
            "as it is must be whole: import it without --partial"
        )
    if not classifiers:
        raise UserError(
            f"{TAKEN_KEY}: {path}: has no classifier among its {len(heads)} weights of the head; import it without "
            "--drop-classifier, or train on its backbone (model.backbone.weights)"
        )
    if label_map is not None:
        _check_classes(path, classifiers[0], header.shapes[classifiers[0]], map_path, len(label_map))


def _check_classes(path: Path, name: str, shape: tuple[int, ...], map_path: Path, n_classes: int) -> None:
    found = shape[0] if shape else 0
    if found != n_classes:
        raise UserError(
            f"{TAKEN_KEY}: {path}: {found} classes ({name} {shape}), but {map_path} has {n_classes}; data.label_map "
            "must name the classes that the network was trained on, and no other"
            + (" (AVA: the 60 evaluated ones, ava_action_list_v2.2_for_activitynet_2019.pbtxt)"
               if found == 60 else "")
        )  # fmt: skip


def check_state_dict(path: Path) -> None:
    """Refuse a file that cannot hold a state dict: one that is absent, or neither safetensors nor torch's.

    Raises:
        UserError: says which.
    """
    if not path.is_file():
        raise UserError(f"detector.weights: {path}: no such file")
    if path.suffix == ".safetensors":
        read_weights_header(path)
        return
    with open(path, "rb") as stream:
        first = stream.read(1)
    if first != PICKLE and not zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
        raise UserError(f"{path}: not a readable state dict; expected what torch.save writes, or safetensors")
