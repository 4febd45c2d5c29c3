"""LFB: a bank of actor features in place of the actor-context maps (table 1f, "HR2O + LFB")."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ActorRowsAsMaps(nn.Module):
    """L^j_xy = W A^j at every location: zeroth-order rows in the form in which HR2O reads a bank (eq. 5).

    Inputs: the bank's actor features A (M, C), the stage-1 network's RoI features.
    Parameters: C d.
    Reading: the paper replaces ACFB by LFB and leaves the operator as it is. HR2O makes keys and values of maps of d
    channels, and a vector holds no place; so it is reduced to d channels and tiled, as the encoder tiles A^i.
    """

    def __init__(self, context_channels: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(context_channels, channels, bias=False)

    def forward(self, actors: Tensor, h: int, w: int) -> Tensor:
        """(M, C) to (M, d, h, w), a view of (M, d)."""
        return self.reduce(actors)[:, :, None, None].expand(-1, -1, h, w)


def distinct_grid(h: int, w: int) -> tuple[int, int]:
    """The grid on which a 3x3 convolution of a constant map takes all the values it takes on (h, w)."""
    return min(h, 3), min(w, 3)


def distinct_locations(h: int, w: int, device: torch.device) -> Tensor:
    """(h*w,) int64: where on `distinct_grid` (flattened) each location's value stands, edges at the edges."""

    def places(n: int) -> Tensor:
        place = torch.ones(n, dtype=torch.int64, device=device)
        place[-1] = min(n, 3) - 1
        place[0] = 0
        return place

    return (places(h)[:, None] * min(w, 3) + places(w)).flatten()
