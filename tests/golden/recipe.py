"""Reproducible weights that need no file: each entry is drawn from a generator seeded with its own name.

Golden outputs of the authors' code were computed with these weights under the released names.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import nn

RESIDUAL_GAIN = 0.2  # "tame": the last norm of each residual block, else the variance doubles block by block
ATTENTION_GAIN = 0.5  # "tame": queries and keys, else attention is one-hot


def draw(name: str, shape: tuple[int, ...], tame: bool) -> torch.Tensor:
    """The value of one state-dict entry: float32, or int64 zero for a BatchNorm counter."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif name.endswith("weight") and len(shape) > 1:
        value = noise * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("weight"):
        value = 1 + 0.1 * noise
    else:  # bias, running_mean
        value = 0.1 * noise
    if tame and ".bn3." in name and name.endswith((".weight", ".bias")):
        value = value * RESIDUAL_GAIN
    if tame and name.endswith(("conv_q.weight", "conv_k.weight")):
        value = value * ATTENTION_GAIN
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def fill(module: nn.Module, *, tame: bool = False, parts: tuple[str, ...] = ()) -> None:
    """Fill a module; `parts` are first name components after which the released names have `.module`."""
    state = {}
    for name, value in module.state_dict().items():
        first, _, rest = name.partition(".")
        released = f"{first}.module.{rest}" if first in parts else name
        state[name] = draw(released, tuple(value.shape), tame)
    module.load_state_dict(state)


def relative_error(value: torch.Tensor, reference: np.ndarray) -> float:
    """max |difference| / max |reference|."""
    reference = np.asarray(reference, dtype=np.float64)
    return float(np.abs(value.detach().double().numpy() - reference).max() / np.abs(reference).max())
