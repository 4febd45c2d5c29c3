"""The one training loop: stage 1 and stage 2 differ in the bank rows their clips carry."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from acar.config import BackboneConfig, TrainConfig
from acar.data.clip_dataset import Clips, TrainingClips, network_input
from acar.data.key_frames import KeyFrame
from acar.errors import UserError
from acar.progress import Progress, progress
from acar.training.board import Board
from acar.training.checkpoint import Checkpointer, Tally
from acar.training.distributed import Processes
from acar.training.finite import KeptBuffers, finite_loss, guilty_clips, without_clips
from acar.training.loading import micro_batches, name_of
from acar.training.plan import BatchPlan
from acar.training.schedule import learning_rate


@dataclass(frozen=True)
class Outcome:
    """Where a training started, and how often each clip (video@second) was left out."""

    started_at: int
    skipped_clips: dict[str, int]


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


def run_training(training: Training) -> Outcome:
    """Train to the last iteration, from the newest checkpoint if there is one.

    Raises:
        UserError: the loss of a clip is not finite (names it; under `on_nan: skip` only if no clip of an
            iteration is left), or a gradient; the disk is full; the checkpoint is damaged.
    """
    settings, processes = training.settings, training.processes
    optimizer = make_optimizer(training.net, settings)
    first, tally = training.checkpoints.restore(training.net, optimizer)
    if tally.skipped_clips and settings.on_nan == "stop":
        n_skipped = sum(tally.skipped_clips.values())
        raise UserError(
            f"{training.checkpoints.path}: clips were left out up to iteration {first}, {n_skipped} in all; "
            f"set {training.name}.on_nan: skip again, or remove this file to start the training afresh"
        )
    processes.same_weights(training.net)
    log = _Log(training, first, tally) if processes.first else None
    batches = micro_batches(training.clips, training.plan, settings, first)
    for iteration in range(first, settings.iterations):
        tally.count(*_iteration(training, optimizer, batches, iteration))
        done = iteration + 1
        if log is not None:
            log.update(iteration)
        if processes.first and (done % settings.checkpoint_every == 0 or done == settings.iterations):
            training.checkpoints.save(done, training.net, optimizer, tally)
        if log is not None:
            log.show()
    if log is not None:
        log.close()
    processes.wait()
    return Outcome(first, dict(sorted(tally.skipped_clips.items())))


def _iteration(
    training: Training, optimizer: torch.optim.Optimizer, batches: Iterator[Clips], iteration: int
) -> tuple[float, int, list[str]]:
    """One step on one effective batch.

    Returns:
        The mean loss an actor, the number of actors, and the clips that were left out; over all processes.
    """
    processes, plan = training.processes, training.plan
    torch.manual_seed(training.seed * 1_000_003 + iteration * 1_009 + processes.rank)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(training.settings, iteration)
    optimizer.zero_grad(set_to_none=True)
    batch = plan.batch(iteration)
    frames = [training.clips.key_frames[slot.item] for slot in batch]
    actors = sum(len(frame.targets) for frame in frames)
    total, is_gone = 0.0, [0.0] * len(batch)
    for slots in plan.micro_batches(iteration):
        value, gone = _forward_backward(training, next(batches), actors)
        total += value
        for clip in gone:
            is_gone[slots[clip].position - batch[0].position] = 1.0
    processes.sum_gradients(training.net.parameters())
    total, *is_gone = processes.sum_values([total, *is_gone])
    skipped = [frame for frame, gone in zip(frames, is_gone, strict=True) if gone]
    left = actors - sum(len(frame.targets) for frame in skipped)
    if skipped:
        total = _mean_over_the_rest(training, iteration, total, actors, left)
    _check_gradient(training, iteration, frames)
    optimizer.step()
    return total, left, [name_of(frame) for frame in skipped]


def _forward_backward(training: Training, clips: Clips, actors: int) -> tuple[float, list[int]]:
    """Add the gradient of this micro-batch's share of the batch's mean over actors.

    Returns:
        That share, and the numbers of the clips that were left out of it.
    """
    skips = training.settings.on_nan == "skip"
    buffers = KeptBuffers(training.net) if skips else None
    found, guilty = _loss(training, clips)
    gone: list[int] = []
    while found is None:
        if len(guilty) in (0, len(clips.names)):
            guilty = _guilty_alone(training, clips, buffers)
        if buffers is None:
            raise _not_finite(training, [clips.names[clip] for clip in guilty])
        buffers.restore()
        here = [clip for clip in range(len(clips.names) + len(gone)) if clip not in gone]
        gone += [here[clip] for clip in guilty]
        if len(guilty) == len(clips.names):
            return 0.0, gone
        clips = without_clips(clips, guilty)
        found, guilty = _loss(training, clips)
    loss = found / max(actors, 1)
    loss.backward()
    return float(loss.detach()), gone


def _loss(training: Training, clips: Clips) -> tuple[torch.Tensor | None, list[int]]:
    """The sum over the clips' actors; or None, and the clips whose own actors' loss is not finite."""
    device = training.processes.device
    pose, targets = training.pose.to(device), clips.targets.to(device)
    logits = training.net(
        network_input(clips.frames, training.backbone, device, clips.sizes_px),
        clips.boxes_xyxy_norm.to(device), clips.clip_index.to(device), bank=clips.bank(device),
        sizes_px=None if clips.sizes_px is None else clips.sizes_px.to(device),
    )  # fmt: skip
    total = finite_loss(logits, targets, pose)
    return total, [] if total is not None else guilty_clips(logits, targets, clips.clip_index, pose)


def _guilty_alone(training: Training, clips: Clips, buffers: KeptBuffers | None) -> list[int]:
    """Which clips have no finite loss by themselves: batch norm spreads one clip's NaN over its micro-batch."""
    everyone = list(range(len(clips.names)))
    found = []
    with torch.no_grad():
        for clip in everyone:
            if buffers is not None:
                buffers.restore()
            alone = without_clips(clips, [other for other in everyone if other != clip])
            if _loss(training, alone)[0] is None:
                found.append(clip)
    return found or everyone


def _mean_over_the_rest(training: Training, iteration: int, total: float, actors: int, left: int) -> float:
    """Make sums that were divided by all actors means over those left; returns the loss."""
    if left == 0:
        raise UserError(
            f"{training.name}: iteration {iteration + 1}: no clip has a finite loss: the network itself has "
            f"diverged; {_remedy(training.name)}"
        )
    for parameter in training.net.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(actors / left)
    return total * actors / left


def _check_gradient(training: Training, iteration: int, frames: Sequence[KeyFrame]) -> None:
    """Clip the gradient's norm if asked to; refuse one that is not finite: it would make every weight NaN."""
    parameters = [p for p in training.net.parameters() if p.grad is not None]
    most = training.settings.grad_clip_norm
    if most is not None:
        norm = nn.utils.clip_grad_norm_(parameters, most)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not math.isfinite(float(norm)):
        raise UserError(
            f"{training.name}: iteration {iteration + 1}: the gradient is {float(norm)} at clips "
            f"{', '.join(map(name_of, frames))}; {_remedy(training.name)}"
        )


def _not_finite(training: Training, names: Sequence[str]) -> UserError:
    names = list(dict.fromkeys(names))  # a clip may come twice where a batch spans two epochs
    return UserError(
        f"{training.name}: the loss is not finite at {'clip' if len(names) == 1 else 'clips'} "
        f"{', '.join(names)} (video@second); look at their frames and boxes, {_remedy(training.name)}, or "
        f"leave such clips out with {training.name}.on_nan: skip"
    )


def _remedy(name: str) -> str:
    return f"lower {name}.base_lr or set {name}.grad_clip_norm"


class _Log:
    """Progress, metrics.jsonl and TensorBoard of the first process."""

    def __init__(self, training: Training, first: int, tally: Tally) -> None:
        self.settings, self.checkpoints, self.tally = training.settings, training.checkpoints, tally
        self.checkpoints.cut_log(first)
        self.board = Board(self.checkpoints.folder / "tensorboard", first)
        self.progress: Progress[None] = progress(
            total=self.settings.iterations, desc=f"train {training.name}", unit="iterations"
        )
        if first:
            self.progress.resume_at(first, f"at iteration {first} of {self.settings.iterations}")
        self.since, self.counted, self.note = time.monotonic(), 0, ""

    def update(self, iteration: int) -> None:
        """After an iteration was counted: write a line if one is due."""
        tally = self.tally
        loss = tally.loss_sum / tally.iterations
        self.note = f"loss {loss:.4f}"
        done, self.counted = iteration + 1, self.counted + 1
        if done % self.settings.log_every and done != self.settings.iterations:
            return
        spent = max(time.monotonic() - self.since, 1e-9)
        entry = {
            "iteration": done,
            "loss": loss,
            "lr": learning_rate(self.settings, iteration),
            "actors": tally.actors,
            "skipped": tally.skipped,
            "clips_per_s": round(self.counted * self.settings.batch_clips / spent, 2),
        }
        self.checkpoints.append_log(entry)
        self.board.add({key: float(entry[key]) for key in ("loss", "lr", "clips_per_s")}, done)
        tally.new_line()
        self.since, self.counted = time.monotonic(), 0

    def show(self) -> None:
        """Show the iteration; behind its checkpoint, so that what is shown at one is not lost by a kill."""
        self.progress.update(note=self.note)

    def close(self) -> None:
        self.progress.close()
        self.board.close()
