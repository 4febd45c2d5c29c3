"""The averages of an ensemble, for the rows of one video. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acar.ensemble.runs import Run, VideoRows
from acar.errors import UserError

INSIDE = 1e-7
"""Logarithms take scores this far inside 0..1: a score that rounding made 0 or 1 is no veto."""
MOST_EXCLUSIVE = 1.1
"""Exclusive probabilities of an actor sum to 1, up to rounding to 2 decimals."""


@dataclass(frozen=True)
class Shared:
    """The U different rows of one video over R runs.

    Attributes:
        scores: (R, U) float64; 0 where a run lacks the row.
        place: (R, U) int64 places among the run's rows of the video; -1 where a run lacks the row.
        exclusive: (U,) bool, of a class of the exclusive ones.
        actor: (U,) int64 number of its actor.
    """

    scores: np.ndarray
    place: np.ndarray
    exclusive: np.ndarray
    actor: np.ndarray

    @property
    def has(self) -> np.ndarray:
        """(R, U) bool: which run has which row."""
        return self.place >= 0


def average_scores(rows: Shared, share_R: np.ndarray, average: str, unmatched: str) -> np.ndarray:
    """(U,) float64 in 0..1.

    Args:
        rows: of one video.
        share_R: (R,) weights.
        average: `scores` or `logits`.
        unmatched: under `average` a run that lacks a row does not count there, otherwise as a score of 0.
    """
    counts = rows.has if unmatched == "average" else np.ones_like(rows.has)
    if average == "scores":
        return weighted_mean(rows.scores, share_R, counts)
    inside = np.clip(rows.scores, INSIDE, 1 - INSIDE)
    odds = weighted_mean(np.log(inside / (1 - inside)), share_R, counts)
    found = 1 / (1 + np.exp(-odds))
    if rows.exclusive.any():
        columns = np.flatnonzero(rows.exclusive)
        _, actor = np.unique(rows.actor[columns], return_inverse=True)
        found[columns] = _softmax(inside[:, columns], actor, share_R, counts[:, columns])
    return found


def weighted_mean(values_RU: np.ndarray, share_R: np.ndarray, counts_RU: np.ndarray) -> np.ndarray:
    """(U,) means over the runs that count, at least one a column; the order of the runs changes no bit."""
    parts = np.where(counts_RU, share_R[:, None], 0.0)
    return _total(parts * values_RU) / _total(parts)


def _softmax(
    inside_RU: np.ndarray, actor_U: np.ndarray, share_R: np.ndarray, counts_RU: np.ndarray
) -> np.ndarray:
    """Softmax over each actor's rows of the mean log probabilities, times what the rows sum to in the runs.

    That is the weighted geometric mean of the runs' sums: 1 where a run has all exclusive classes, but for the file's
    rounding, and less where rows of low scores were left out. So one run alone stays as it is.
    """
    product = np.exp(weighted_mean(np.log(inside_RU), share_R, counts_RU))
    n_actors = int(actor_U.max()) + 1
    sums_RA = np.stack([np.bincount(actor_U, run, n_actors) for run in np.where(counts_RU, inside_RU, 0.0)])
    present = sums_RA > 0
    logs = np.log(np.where(present, sums_RA, 1.0))
    carried = np.exp(weighted_mean(logs, share_R, present))
    factor = carried / np.bincount(actor_U, product, n_actors)
    return np.minimum(product * factor[actor_U], 1.0)


def _total(parts_RU: np.ndarray) -> np.ndarray:
    return np.asarray(np.sort(parts_RU, axis=0).sum(axis=0))


def check_exclusive(rows: Shared, runs: Sequence[Run], rows_R: Sequence[VideoRows]) -> None:
    """Refuse a run in which an actor's exclusive classes sum to more than 1: it scored them by sigmoid.

    Raises:
        UserError: names the run and the actor.
    """
    columns = np.flatnonzero(rows.exclusive)
    if not len(columns):
        return
    actors, actor = np.unique(rows.actor[columns], return_inverse=True)
    for number, run in enumerate(runs):
        sums = np.bincount(actor, rows.scores[number, columns])
        if sums.max() > MOST_EXCLUSIVE:
            row = np.flatnonzero(rows.has[number] & rows.exclusive & (rows.actor == actors[sums.argmax()]))[0]
            place = rows_R[number].place[rows.place[number, row]]
            raise UserError(
                f"{run.name}: the scores of the exclusive classes of one actor ({run.actor_told(place)}) sum to "
                f"{sums.max():.2f}; expected 1, as a softmax gives; if this network scores them by sigmoid, leave "
                "--labelmap out, or take --average scores"
            )
