"""Number formats of the network: float32, TF32 inside CUDA's products, bfloat16 by autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    for operations in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        operations.fp32_precision = "tf32" if tf32 else "ieee"


def in_own_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """For methods of a network with `autocast_dtype`: run under autocast to it (None: as it is).

    The outermost such call gives its reduced-precision results back as float32.
    """

    @functools.wraps(method)
    def run(self: Any, *arguments: Any, **keywords: Any) -> Any:
        kind = next(self.parameters()).device.type
        if self.autocast_dtype is None or torch.is_autocast_enabled(kind):
            return method(self, *arguments, **keywords)
        with torch.autocast(kind, self.autocast_dtype):
            return _as_float32(method(self, *arguments, **keywords))

    return run


def _as_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, list | tuple):
        return type(value)(_as_float32(item) for item in value)
    return value
