"""Signs that two files do not belong together: neither is malformed, and the figures would mislead."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def warn(verb: str, *told: str | None) -> None:
    """Print what is told, a line each, to stderr; None is passed over."""
    for text in told:
        if text is not None:
            print(f"{verb}: warning: {text}", file=sys.stderr, flush=True)


def unknown_videos(
    named: Iterable[str], annotated: Iterable[str], path: Path, groundtruth: Path
) -> str | None:
    """What to say if a file names videos that the ground truth has not; None if it has them all.

    Args:
        named: the videos of the file, in any number of repeats.
        annotated: those of the ground truth.
        path: the file.
        groundtruth: the other one.
    """
    here, there = set(named), set(annotated)
    strangers = sorted(here - there)
    if not strangers:
        return None
    known = len(here) - len(strangers)
    return (
        f"{path}: {known} of its {len(here)} video(s) are in {groundtruth}; ids look like {strangers[0]!r} here and "
        f"{min(there)!r} there" + ("" if known else ", so nothing can match")
    )


def ids_as_scores(scores_N: np.ndarray, path: Path) -> str | None:
    """What to say if scores can hardly be any: whole numbers alone, some above 1; None if they can.

    Args:
        scores_N: (N,) float64.
        path: the file.
    """
    if not len(scores_N) or scores_N.max() <= 1 or (scores_N % 1 != 0).any():
        return None
    return (
        f"{path}: its scores are whole numbers, up to {scores_N.max():g}; is it a file of ground truth, whose last "
        "column holds ids of persons or tubes?"
    )
