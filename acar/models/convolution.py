"""Convolutions of the relation blocks: zero-padded so that maps keep their size, without bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def same_convolution(maps: Tensor, weight: Tensor) -> Tensor:
    """(K, c, h, w) by a kernel (d, c, k, k), k odd, to (K, d, h, w)."""
    return F.conv2d(maps, weight, padding=weight.shape[2] // 2)


def mean_of_convolution(maps: Tensor, weight: Tensor) -> Tensor:
    """Spatial means (K, d) of `same_convolution`, without its maps: exact, and k^2 products for k^2 h w.

    A convolution is linear, so its mean is its kernel applied to the sums that each of its k x k places sees.
    """
    k, (h, w) = weight.shape[2], maps.shape[2:]
    seen = torch.kron(_seen(k, h, maps), _seen(k, w, maps))  # (k * k, h * w)
    sums = F.linear(maps.flatten(2), seen)
    return F.linear(sums.flatten(1), weight.flatten(1)) / (h * w)


def _seen(k: int, n: int, like: Tensor) -> Tensor:
    """(k, n) of `like`'s dtype: 1 where place a of the kernel meets cell y on its way over n padded cells."""
    cell = torch.arange(n, device=like.device) - (torch.arange(k, device=like.device)[:, None] - k // 2)
    return ((cell >= 0) & (cell < n)).to(like.dtype)
