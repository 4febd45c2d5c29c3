"""Training Faster R-CNN. Every iteration's randomness follows from (seed, iteration), so that a resumed run
goes on exactly as an uninterrupted one would."""

from __future__ import annotations

import functools
import math
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
from acar.files import atomic_path
from acar.progress import Progress, progress

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
GRAD_CLIP_NORM = 10.0  # from scratch the first steps can be wild
FLIP_PROBABILITY = 0.5
LOG_EVERY = 20
CHECKPOINT_EVERY_S = 60.0

Batch = tuple[list[np.ndarray], list[np.ndarray]]
"""Frames uint8 (H, W, 3) and their boxes float32 (N, 4), xyxy in pixels."""


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
        settings: iterations, learning rates.
        device: where to compute.
        checkpoint: file written now and then; left for the caller to remove once the result is safe.
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
    first, metrics = _resume(model, optimizer, checkpoint, run_key)
    bar: Progress[None] = progress(total=settings.iterations, desc="train detector", unit="iterations")
    bar.resume_at(first)
    window: list[dict[str, float]] = []
    window_start = saved = time.monotonic()
    started = window_start - (metrics[-1]["elapsed_s"] if metrics else 0.0)  # as if never interrupted
    with ThreadPoolExecutor(max_workers=1) as pool:  # reads the next batch meanwhile
        coming = pool.submit(batches, first)
        for iteration in range(first, settings.iterations):
            frames, boxes = coming.result()
            if iteration + 1 < settings.iterations:
                coming = pool.submit(batches, iteration + 1)
            lr = learning_rate(settings, iteration)
            torch.manual_seed(batches.seed * 1_000_003 + iteration)
            window.append(_step(model, optimizer, frames, boxes, lr, batches, iteration))
            done = iteration + 1
            now = time.monotonic()
            if done % LOG_EVERY == 0 or done == settings.iterations:
                rate = len(window) * settings.batch_images / max(now - window_start, 1e-9)
                metrics.append({**_summary(done, window, lr, rate), "elapsed_s": round(now - started, 1)})
                window, window_start = [], now
            # Only with an empty window, so that a resumed run logs the same means.
            if not window and now - saved >= CHECKPOINT_EVERY_S and done < settings.iterations:
                _save(model, optimizer, checkpoint, run_key, done, metrics)
                saved = time.monotonic()
            bar.update(note=f"loss {metrics[-1]['loss']:.3f}" if metrics else "")
    bar.close()
    return metrics


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
    metrics: list[dict[str, Any]],
) -> None:
    state = {"run_key": run_key, "iteration": iteration, "metrics": metrics}
    with atomic_path(checkpoint) as temporary:
        torch.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, temporary)


def _resume(
    model: FasterRCNN, optimizer: torch.optim.Optimizer, checkpoint: Path, run_key: str
) -> tuple[int, list[dict[str, Any]]]:
    """Iterations done and their metrics, after loading the checkpoint; 0 and none without a fitting one."""
    if not checkpoint.is_file():
        return 0, []
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{checkpoint}: unreadable checkpoint ({error}); remove it to start afresh") from None
    if state["run_key"] != run_key:
        print(f"{checkpoint}: of another config or data set, starting afresh", file=sys.stderr, flush=True)
        return 0, []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["iteration"], state["metrics"]
