"""Which device a job computes on."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Literal

from acar.errors import UserError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]


def resolve_device(name: DeviceName) -> torch.device:
    """The device that `run.device` asks for.

    `auto` takes CUDA where there is a device and otherwise the CPU, saying so once a process on stderr.

    Raises:
        UserError: `cuda` is asked for and no CUDA device is visible.
    """
    # Imported here so that building the DAG, which may import this module, does not load torch.
    import torch

    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cuda":
        raise UserError(
            "run.device: `cuda` was asked for and torch sees no CUDA device; check the driver and "
            "CUDA_VISIBLE_DEVICES, or set run.device to `auto` or `cpu`"
        )
    _say_cpu_once()
    return torch.device("cpu")


@functools.cache
def _say_cpu_once() -> None:
    if os.environ.get("RANK", "0") != "0":  # one of several processes of a training
        return
    print("run.device auto: no CUDA device, computing on the CPU", file=sys.stderr, flush=True)
