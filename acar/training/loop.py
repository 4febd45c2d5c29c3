"""The one training loop: stage 1 and stage 2 differ in the bank rows their clips carry."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from acar.config import BackboneConfig, TrainConfig
from acar.data.clip_dataset import Clips, TrainingClips, collate, network_input
from acar.errors import UserError
from acar.models.loss import action_loss
from acar.progress import Progress, progress
from acar.training.checkpoint import Checkpointer
from acar.training.distributed import Processes
from acar.training.plan import BatchPlan
from acar.training.schedule import learning_rate


@dataclass
class Training:
    """Everything one training needs.

    Attributes:
        net: in train mode, on the processes' device.
        pose: (P,) int64 columns of the exclusive classes.
        seed: of dropout, a iteration and process.
    """

    net: nn.Module
    backbone: BackboneConfig
    settings: TrainConfig
    clips: TrainingClips
    plan: BatchPlan
    pose: torch.Tensor
    processes: Processes
    checkpoints: Checkpointer
    seed: int
    name: str


def make_optimizer(net: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum as in the paper (section 4.1), or AdamW."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.base_lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=settings.base_lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def run_training(training: Training) -> int:
    """Train to the last iteration, from the newest checkpoint if there is one; returns where it started.

    Raises:
        UserError: the loss of a clip is not finite (names the clips of its forward pass).
    """
    settings, processes = training.settings, training.processes
    optimizer = make_optimizer(training.net, settings)
    first = training.checkpoints.restore(training.net, optimizer)
    processes.same_weights(training.net)
    log = _Log(training, first) if processes.first else None
    batches = _micro_batches(training, first)
    for iteration in range(first, settings.iterations):
        loss, actors = _iteration(training, optimizer, batches, iteration)
        done = iteration + 1
        if log is not None:
            log.count(iteration, loss, actors)
        if processes.first and (done % settings.checkpoint_every == 0 or done == settings.iterations):
            training.checkpoints.save(done, training.net, optimizer)
    if log is not None:
        log.close()
    processes.wait()
    return first


def _iteration(
    training: Training, optimizer: torch.optim.Optimizer, batches: Iterator[Clips], iteration: int
) -> tuple[float, int]:
    """One step on one effective batch; returns the mean loss an actor and the number of actors."""
    processes, plan = training.processes, training.plan
    torch.manual_seed(training.seed * 1_000_003 + iteration * 1_009 + processes.rank)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(training.settings, iteration)
    optimizer.zero_grad(set_to_none=True)
    actors = sum(len(training.clips.key_frames[slot.item].targets) for slot in plan.batch(iteration))
    total = 0.0
    for _ in plan.micro_batches(iteration):
        total += _forward_backward(training, next(batches), actors)
    processes.sum_gradients(training.net.parameters())
    if training.settings.grad_clip_norm is not None:
        nn.utils.clip_grad_norm_(training.net.parameters(), training.settings.grad_clip_norm)
    optimizer.step()
    return processes.sum_value(total), actors


def _forward_backward(training: Training, clips: Clips, actors: int) -> float:
    """Add the gradient of this micro-batch's share of the batch's mean over actors; returns that share."""
    device = training.processes.device
    frames = network_input(clips.frames, training.backbone, device)
    logits = training.net(
        frames, clips.boxes_xyxy_norm.to(device), clips.clip_index.to(device), bank=clips.bank(device)
    )
    loss = action_loss(logits, clips.targets.to(device), training.pose.to(device)) / max(actors, 1)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(
            f"{training.name}: the loss is {value} at clips {', '.join(clips.names)}; lower "
            f"{training.name}.base_lr, set {training.name}.grad_clip_norm, or look at these clips' frames and boxes"
        )
    loss.backward()
    return value


def _micro_batches(training: Training, first: int) -> Iterator[Clips]:
    settings = training.settings
    options: dict[str, Any] = {}
    if settings.workers:
        # Forking after zarr ran can deadlock, so workers are spawned.
        options = {"multiprocessing_context": "spawn", "prefetch_factor": 4}
    loader = DataLoader(
        training.clips,
        batch_sampler=training.plan.stream(first, settings.iterations),  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=settings.workers,
        **options,
    )
    return iter(loader)


class _Log:
    """Progress, metrics.jsonl and TensorBoard of the first process."""

    def __init__(self, training: Training, first: int) -> None:
        self.settings, self.checkpoints = training.settings, training.checkpoints
        self.checkpoints.cut_log(first)
        self.board = SummaryWriter(str(self.checkpoints.folder / "tensorboard"), purge_step=first)
        self.progress: Progress[None] = progress(
            total=self.settings.iterations, desc=training.name, unit="iterations"
        )
        self.progress.resume_at(first)
        self.sum = self.actors = self.count_since = 0.0
        self.since = time.monotonic()

    def count(self, iteration: int, loss: float, actors: int) -> None:
        self.sum, self.actors, self.count_since = self.sum + loss, self.actors + actors, self.count_since + 1
        self.progress.update(note=f"loss {self.sum / self.count_since:.4f}")
        done = iteration + 1
        if done % self.settings.log_every and done != self.settings.iterations:
            return
        spent = max(time.monotonic() - self.since, 1e-9)
        entry = {
            "iteration": done,
            "loss": self.sum / self.count_since,
            "lr": learning_rate(self.settings, iteration),
            "actors": int(self.actors),
            "clips_per_s": round(self.count_since * self.settings.batch_clips / spent, 2),
        }
        self.checkpoints.append_log(entry)
        for key in ("loss", "lr", "clips_per_s"):
            self.board.add_scalar(key, entry[key], done)
        self.sum = self.actors = self.count_since = 0.0
        self.since = time.monotonic()

    def close(self) -> None:
        self.progress.close()
        self.board.close()
