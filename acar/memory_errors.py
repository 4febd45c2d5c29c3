"""Too little memory for a stage, told as the user's to mend. Never imports torch: its errors are known by name."""

from __future__ import annotations

from acar.errors import UserError

_ON_THE_CPU = ("can't allocate memory", "not enough memory")
"""Of the RuntimeErrors of torch's allocator for the CPU, by platform."""
_REMEDIES = {
    "train-detector": "detector.batch_images",
    "detect": "detector.batch_images",
    "train-stage1": "stage1.micro_batch_clips (the effective batch stays)",
    "train-stage2": "stage2.micro_batch_clips (the effective batch stays)",
    "extract-bank": "bank.batch_clips",
    "predict": "predict.batch_clips, or the largest of predict.short_sides_px",
}
"""What to lower, by subcommand."""


def out_of_memory(error: BaseException, verb: str) -> UserError | None:
    """The message for an allocation that failed on a GPU or on the CPU, if `error` is that of one; else None.

    Args:
        error: what ended the subcommand.
        verb: its name.
    """
    of_a_device = type(error).__name__ == "OutOfMemoryError"
    of_the_cpu = isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_THE_CPU)
    if not (of_a_device or of_the_cpu or isinstance(error, MemoryError)):
        return None
    said = (str(error).strip() or "MemoryError").splitlines()[0]
    lower = (
        f"lower {_REMEDIES[verb]}" if verb in _REMEDIES else "close other programs, or take a larger machine"
    )
    return UserError(f"out of memory ({said}); {lower}, and give the same command again")
