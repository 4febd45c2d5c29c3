"""Several processes, one effective batch: gradients are summed by hand, so ranks may differ in clips and actors."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


class Processes:
    """This process among those that `torchrun` started (alone without it).

    Attributes:
        rank, world: this process and their number.
        device: where this process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.device = device
        if device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over processes; a process without clips contributes zeros."""
        if self.world == 1:
            return
        chosen = [p for p in parameters if p.requires_grad]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in chosen if p.grad is not None])
        dist.all_reduce(flat)
        offset = 0
        for parameter in chosen:
            assert parameter.grad is not None
            size = parameter.grad.numel()
            parameter.grad.copy_(flat[offset : offset + size].view_as(parameter.grad))
            offset += size

    def sum_value(self, value: float) -> float:
        """The sum of a number over processes."""
        if self.world == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total.item())

    def same_weights(self, net: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.world > 1:
            for tensor in (*net.parameters(), *net.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()
