"""Several processes, one effective batch: gradients are summed by hand, so ranks may differ in clips and actors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from acar.errors import UserError


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
        """Replace each gradient by its sum over processes; a process without clips contributes zeros.

        Raises:
            UserError: (as all calls here) another process has ended.
        """
        if self.world == 1:
            return
        chosen = [p for p in parameters if p.requires_grad]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in chosen if p.grad is not None])
        with self._together():
            dist.all_reduce(flat)
        offset = 0
        for parameter in chosen:
            assert parameter.grad is not None
            size = parameter.grad.numel()
            parameter.grad.copy_(flat[offset : offset + size].view_as(parameter.grad))
            offset += size

    def sum_values(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over processes; all give equally many."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with self._together():
            dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def same_weights(self, net: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.world > 1:
            with self._together():
                for tensor in (*net.parameters(), *net.buffers()):
                    dist.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            with self._together():
                dist.barrier()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Say it plainly when another process has ended in the middle: that one has told why."""
        try:
            yield
        except RuntimeError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise UserError(
                f"process {self.rank + 1} of {self.world} stops: another process of this training is gone; see "
                f"what that one said ({lines[0][:150]})"
            ) from error

    def close(self) -> None:
        """Leave the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()
