"""A thin network and ragged batches for tests of the settings of `compute`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acar.config import BackboneConfig, ComputeConfig, HeadConfig, ModelConfig
from acar.models.compute import prepared
from acar.models.hr2o import BankBatch
from acar.models.loss import action_loss
from acar.models.net import ActionNet, build_network

CLASSES = 5
BACKBONE: dict[str, Any] = {
    "width": 4, "fast_ratio": 2, "alpha": 2, "lateral_kernel": 3,
    "spatial_strides": [1, 2, 1, 1], "last_dilation": 1, "norm": "frozen_batch",
}  # fmt: skip
HEAD: dict[str, Any] = {
    "reduce_channels": 8, "hidden_channels": 8, "encoder_norm": "group", "downsample": "none", "hr2o_depth": 2,
    "dropout": 0.0,
}  # fmt: skip


def network(
    settings: dict[str, str],
    norm: str = "frozen_batch",
    device: str = "cpu",
    depths: tuple[int, ...] = (2, 1, 1, 1),
    **head: Any,
) -> ActionNet:
    """The same weights at every call, in train mode."""
    torch.manual_seed(0)
    model = ModelConfig(
        backbone=BackboneConfig(**(BACKBONE | {"norm": norm, "depths": depths})),
        head=HeadConfig(**(HEAD | head)),
    )
    net = build_network(model, CLASSES)
    return prepared(net, ComputeConfig(**settings), torch.device(device)).train()


def batch(
    counts: list[int], rows: list[int] | None = None, height: int = 64, seed: int = 0, memory: str = "acfb"
) -> tuple[Tensor, Tensor, Tensor, BankBatch | None]:
    """Frames, boxes, clip index and bank of clips with so many actors and (None: no bank) bank rows each."""
    g = torch.Generator().manual_seed(seed)
    n = sum(counts)
    corners = 0.5 * torch.rand((n, 2), generator=g)
    boxes = torch.cat([corners, corners + 0.1 + 0.4 * torch.rand((n, 2), generator=g)], 1)
    frames = torch.rand((len(counts), 3, 4, height, 64), generator=g)
    bank = None
    if rows is not None:
        maps = torch.rand((sum(rows), 8, height // 8 - 2, 6), generator=g)
        actors = torch.rand((sum(rows), 8), generator=g)
        bank = BankBatch(
            maps if memory == "acfb" else None, _index(rows), actors=actors if memory == "lfb" else None
        )
    return frames, boxes, _index(counts), bank


def _index(counts: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


@dataclass
class Step:
    """What one training step gives."""

    logits: Tensor
    loss: float
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def step(net: ActionNet, counts: list[int], **keywords: Any) -> Step:
    """Forward and backward pass with the same dropout at every call."""
    device = next(net.parameters()).device
    frames, boxes, clip_index, bank = batch(counts, **keywords)
    torch.manual_seed(7)
    net.zero_grad(set_to_none=True)
    bank = None if bank is None else bank.to(device)
    logits = net(frames.to(device), boxes.to(device), clip_index.to(device), bank=bank)
    targets = (torch.arange(logits.numel(), device=device).reshape(logits.shape) % 3 == 0).float()
    loss = action_loss(logits, targets, torch.arange(2, device=device))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    return Step(logits.detach(), loss.item(), gradients, buffers)


def apart(one: Step, other: Step) -> tuple[float, float]:
    """Relative difference of the logits (largest) and of the whole gradient (Euclidean)."""
    logits = (one.logits.cpu() - other.logits.cpu()).abs().max() / one.logits.abs().max().cpu()
    assert one.gradients.keys() == other.gradients.keys()
    whole = [torch.cat([g.flatten().cpu() for g in s.gradients.values()]) for s in (one, other)]
    return float(logits), float((whole[0] - whole[1]).norm() / whole[0].norm())
