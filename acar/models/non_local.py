"""Non-local block of a backbone (Wang et al. 2018), in the form of PySlowFast's R101 + NL (tables 2 and 3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

POOL = (2, 2, 2)  # frames and cells that keys and values are max-pooled over


class NonLocal(nn.Module):
    """X' = X + norm(W (1/P sum_p <theta(X_t), phi(X_p)> g(X_p))): all frames and cells t over the P pooled ones p.

    Inputs: X (B, C, T, H, W) behind a residual block of the slow pathway's res4. Parameters: 4 C d + 3 d + 3 C;
    with d = C / 2 and the norm's 2 C; names and biases as PySlowFast's.
    Reading: the paper's R101 + NL is "downloaded from SlowFast's official repository"; its configs have the
    instantiation `dot_product`, without a softmax, so that the sum over p runs first: a (d, d) matrix a clip in place
    of one of (T H W, P).
    """

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        inner = channels // 2
        self.conv_theta = nn.Conv3d(channels, inner, 1)
        self.conv_phi = nn.Conv3d(channels, inner, 1)
        self.conv_g = nn.Conv3d(channels, inner, 1)
        self.conv_out = nn.Conv3d(inner, channels, 1)
        self.bn = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same; T, H and W at least 2."""
        pooled = F.max_pool3d(x, POOL, POOL)
        theta = self.conv_theta(x)
        phi, g = self.conv_phi(pooled).flatten(2), self.conv_g(pooled).flatten(2)
        summed = g @ phi.transpose(1, 2) / phi.shape[2]
        found = (summed @ theta.flatten(2)).unflatten(2, theta.shape[2:])
        return x + self.bn(self.conv_out(found))
