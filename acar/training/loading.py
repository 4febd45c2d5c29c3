"""The clips of each micro-batch, read in this process or by others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from acar.config import TrainConfig
from acar.data.clip_dataset import Clips, TrainingClips, collate
from acar.data.key_frames import KeyFrame
from acar.errors import UserError
from acar.training.plan import BatchPlan, Slot


def name_of(frame: KeyFrame) -> str:
    """`video@second`, as messages name a clip."""
    return f"{frame.video}@{frame.time_s:g}"


def micro_batches(
    clips: TrainingClips, plan: BatchPlan, settings: TrainConfig, first: int
) -> Iterator[Clips]:
    """This process's micro-batches from iteration `first` on, in the plan's order.

    Raises:
        UserError: (while iterating) a video or the bank cannot be read, or a loading process has died.
    """
    options: dict[str, Any] = {}
    if settings.workers:
        # Forking after zarr ran can deadlock, so workers are spawned.
        options = {"multiprocessing_context": "spawn", "prefetch_factor": 4}
    loader = DataLoader(
        _Told(clips),
        batch_sampler=plan.stream(first, settings.iterations),  # type: ignore[arg-type]
        collate_fn=_collate,
        num_workers=settings.workers,
        **options,
    )
    batches = iter(loader)
    while True:
        try:
            found = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            raise _worker_is_gone(error, settings.workers) or error from error
        if isinstance(found, UserError):
            raise found
        yield found


def _worker_is_gone(error: RuntimeError, workers: int) -> UserError | None:
    """torch tells of a killed loading process, or of full shared memory, by a `RuntimeError` only."""
    text = " ".join(str(error).split())
    signs = ("DataLoader worker (pid", "shared memory", "No space left on device")
    if not any(sign in text for sign in signs):
        return None
    return UserError(
        f"one of the {workers} loading processes is gone ({text[-200:]}); memory or /dev/shm may be short: give "
        "the job more (for containers `--shm-size`), or load in the training process itself with `workers: 0`"
    )


class _Told(Dataset[Any]):
    """Clips, or the user's error in place of one: raised in a worker, it would arrive with a trace for text."""

    def __init__(self, clips: TrainingClips) -> None:
        self.clips = clips

    def __getitem__(self, slot: Slot) -> dict[str, Any] | UserError:
        try:
            return self.clips[slot]
        except UserError as error:
            return UserError(str(error))


def _collate(items: Sequence[Any]) -> Clips | UserError:
    errors = [item for item in items if isinstance(item, UserError)]
    return errors[0] if errors else collate(items)
