"""Number formats of the network: float32, TF32 inside CUDA's products, bfloat16 by autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


class Float32Linear(nn.Linear):
    """A linear layer that computes in its weights' precision, also under autocast: the last one, whose logits
    bfloat16 would round to three digits."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) of any floating dtype to (..., out) of the weights'."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def set_cuda_float32(tf32: bool) -> None:
    """Let this process's float32 convolutions and matrix products on CUDA round their factors to TF32, or not.

    Both are said: PyTorch's own default is TF32 for convolutions and float32 for matrix products.
    """
    for operations in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
        operations.fp32_precision = "tf32" if tf32 else "ieee"


def in_own_precision(method: Callable[P, R]) -> Callable[P, R]:
    """For methods of a network with `autocast_dtype`: run under autocast to it (None: as it is).

    The outermost such call gives its reduced-precision results back as float32.
    """

    @functools.wraps(method)
    def run(*arguments: P.args, **keywords: P.kwargs) -> R:
        net = cast(Any, arguments[0])
        kind = next(net.parameters()).device.type
        if net.autocast_dtype is None or torch.is_autocast_enabled(kind):
            return method(*arguments, **keywords)
        with torch.autocast(kind, net.autocast_dtype):
            return cast(R, _as_float32(method(*arguments, **keywords)))

    return run


def _as_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, list | tuple):
        return type(value)(_as_float32(item) for item in value)
    return value
