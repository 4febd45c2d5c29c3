"""Training Faster R-CNN. Every iteration's randomness follows from (seed, iteration), so that a resumed run
goes on exactly as an uninterrupted one would."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.models.detection.faster_rcnn import FasterRCNN

from acar.config import DetectorConfig
from acar.detection.boxes import to_px
from acar.detection.faster_rcnn import PERSON, images_to_tensors
from acar.detection.key_images import KeyImage
from acar.errors import UserError
from acar.progress import Progress, progress
from acar.training.checkpoint import read_checkpoint, unfitting, write_checkpoint

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
GRAD_CLIP_NORM = 10.0  # from scratch the first steps can be wild
FLIP_PROBABILITY = 0.5
LOG_EVERY = 20

Batch = tuple[list[np.ndarray], list[np.ndarray]]
"""Frames uint8 (H, W, 3) and their boxes float32 (N, 4), xyxy in pixels."""


@dataclass
class _Log:
    """Metrics, and what has been counted since their last line: all of it outlives an interruption.

    Attributes:
        metrics: the lines so far.
        window: the losses of each iteration behind the last line.
        spent_s: computing time up to now, over all resumed runs.
        line_s: `spent_s` at the last line.
    """

    metrics: list[dict[str, Any]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)
    spent_s: float = 0.0
    line_s: float = 0.0

    def line(self, iteration: int, lr: float, batch_images: int) -> None:
        """Add the means of the window as a line, and empty the window."""
        rate = len(self.window) * batch_images / max(self.spent_s - self.line_s, 1e-9)
        elapsed_s = round(self.spent_s, 1)
        self.metrics.append({**_summary(iteration, self.window, lr, rate), "elapsed_s": elapsed_s})
        self.window, self.line_s = [], self.spent_s


@dataclass
class Batches:
    """The batch of each iteration: epochs are permutations laid end to end, flips are drawn anew."""

    images: Sequence[KeyImage]
    read: Callable[[int], np.ndarray]
    batch_images: int
    seed: int
    _order: Callable[[int], np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        @functools.lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.images))

        self._order = order

    def indices(self, iteration: int) -> list[int]:
        """Which images iteration `iteration` (from 0) sees."""
        places = range(iteration * self.batch_images, (iteration + 1) * self.batch_images)
        return [int(self._order(place // len(self.images))[place % len(self.images)]) for place in places]

    def __call__(self, iteration: int) -> Batch:
        """The frames and boxes of iteration `iteration`, flipped at random."""
        chosen = self.indices(iteration)
        flips = np.random.default_rng([self.seed, 1, iteration]).random(len(chosen)) < FLIP_PROBABILITY
        frames, boxes = [], []
        for index, flip in zip(chosen, flips, strict=True):
            frame = self.read(index)
            boxes_px = to_px(self.images[index].boxes_xyxy_norm, frame.shape[1], frame.shape[0])
            if flip:
                frame = frame[:, ::-1]
                boxes_px = boxes_px[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [frame.shape[1], 0, frame.shape[1], 0]
            frames.append(frame)
            boxes.append(boxes_px.astype(np.float32))
        return frames, boxes


def learning_rate(settings: DetectorConfig, iteration: int) -> float:
    """Linear warm-up to `base_lr`, then a cosine to zero; `iteration` from 0."""
    warmup = min(settings.warmup_iterations, settings.iterations)
    if iteration < warmup:
        return settings.base_lr * (iteration + 1) / warmup
    done = (iteration - warmup) / max(1, settings.iterations - warmup)
    return settings.base_lr * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    model: FasterRCNN,
    batches: Batches,
    settings: DetectorConfig,
    *,
    device: torch.device,
    checkpoint: Path,
    run_key: str,
) -> list[dict[str, Any]]:
    """Train `model` in place, going on from `checkpoint` if that is of the same `run_key`.

    Args:
        model: untrained, on any device; ends on `device`.
        batches: see `Batches`; its seed also seeds the sampling of proposals.
        settings: iterations, learning rates, iterations between checkpoints.
        device: where to compute.
        checkpoint: file written every `checkpoint_every` iterations and at the end; left for the caller to
            remove once the result is safe.
        run_key: whatever must be equal for a checkpoint to be gone on from.

    Returns:
        Metrics: dicts of iteration, loss, its parts, lr, images_per_s (means over up to 20 iterations)
        and elapsed_s (computing time up to here, over all resumed runs).

    Raises:
        UserError: the loss is not finite; names the key frames of the batch.
    """
    model.to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=settings.base_lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    first, log = _resume(model, optimizer, checkpoint, run_key)
    bar: Progress[None] = progress(total=settings.iterations, desc="train detector", unit="iterations")
    if first:
        bar.resume_at(first, f"at iteration {first} of {settings.iterations}")
    started = time.monotonic() - log.spent_s  # as if never interrupted
    for iteration, (frames, boxes) in _read_ahead(batches, first, settings.iterations):
        lr = learning_rate(settings, iteration)
        torch.manual_seed(batches.seed * 1_000_003 + iteration)
        log.window.append(_step(model, optimizer, frames, boxes, lr, batches, iteration))
        log.spent_s, done = time.monotonic() - started, iteration + 1
        if done % LOG_EVERY == 0 or done == settings.iterations:
            log.line(done, lr, settings.batch_images)
        if done % settings.checkpoint_every == 0 or done == settings.iterations:
            _save(model, optimizer, checkpoint, run_key, done, log)
        bar.update(note=f"loss {log.metrics[-1]['loss']:.3f}" if log.metrics else "")
    bar.close()
    return log.metrics


def _read_ahead(batches: Batches, first: int, end: int) -> Iterator[tuple[int, Batch]]:
    """Iterations first..end-1 with their batches; the next one is read while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(batches, first) if first < end else None
        for iteration in range(first, end):
            assert coming is not None
            batch = coming.result()
            coming = pool.submit(batches, iteration + 1) if iteration + 1 < end else None
            yield iteration, batch


def _step(
    model: FasterRCNN,
    optimizer: torch.optim.Optimizer,
    frames: list[np.ndarray],
    boxes: list[np.ndarray],
    lr: float,
    batches: Batches,
    iteration: int,
) -> dict[str, float]:
    """One update; returns the parts of the loss."""
    device = next(model.parameters()).device
    targets = [
        {
            "boxes": torch.from_numpy(boxes_px).to(device),
            "labels": torch.full((len(boxes_px),), PERSON, dtype=torch.int64, device=device),
        }
        for boxes_px in boxes
    ]
    losses = model(images_to_tensors(frames, device), targets)
    total = sum(losses.values(), torch.zeros((), device=device))
    if not torch.isfinite(total):
        _refuse_loss(losses, batches, iteration)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP_NORM)
    optimizer.step()
    return {"loss": total.item(), **{name: value.item() for name, value in losses.items()}}


def _refuse_loss(losses: dict[str, torch.Tensor], batches: Batches, iteration: int) -> None:
    seen = [batches.images[index] for index in batches.indices(iteration)]
    where = ", ".join(f"{image.video} at {image.time_s:g} s" for image in seen)
    parts = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
    raise UserError(
        f"train detector: loss is not finite at iteration {iteration + 1} ({parts}); key frames: {where}; "
        "lower detector.base_lr or raise detector.warmup_iterations, and look at these boxes"
    )


def _summary(iteration: int, window: list[dict[str, float]], lr: float, rate: float) -> dict[str, Any]:
    means = {name: round(float(np.mean([losses[name] for losses in window])), 6) for name in window[0]}
    return {"iteration": iteration, **means, "lr": round(lr, 8), "images_per_s": round(rate, 2)}


def _save(
    model: FasterRCNN,
    optimizer: torch.optim.Optimizer,
    checkpoint: Path,
    run_key: str,
    iteration: int,
    log: _Log,
) -> None:
    state = {"run_key": run_key, "iteration": iteration, "log": asdict(log)}
    write_checkpoint(checkpoint, {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()})


def _resume(
    model: FasterRCNN, optimizer: torch.optim.Optimizer, checkpoint: Path, run_key: str
) -> tuple[int, _Log]:
    """Iterations done and their log, after loading the checkpoint; 0 and none without a fitting one."""
    if not checkpoint.is_file():
        return 0, _Log()
    state = read_checkpoint(checkpoint, {"run_key", "iteration", "log", "model", "optimizer"})
    if state["run_key"] != run_key:
        print(f"{checkpoint}: of another config or data set, starting afresh", file=sys.stderr, flush=True)
        return 0, _Log()
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["iteration"], _Log(**state["log"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unfitting(checkpoint, error) from error
