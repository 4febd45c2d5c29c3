"""The best-scored rows of each image, as a reader that fills a heap of limited size ends up with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TieKeys = Callable[[np.ndarray], list[np.ndarray]]


def best_of_images(image_N: np.ndarray, scores_N: np.ndarray, most: int, tie_keys: TieKeys) -> np.ndarray:
    """Places of each image's `most` best-scored rows.

    Rows that tie with the last place are told apart as the official reader does. It fills a heap of (score,
    action id, y1, x1, y2, x2) and lets a further row replace the least one only if its score is greater. So a
    tied row enters if fewer than `most` rows as good came before it, and those that are least by the rest of
    the entry leave again for better-scored ones.

    Args:
        image_N: (N,) integer.
        scores_N: (N,) float.
        most: rows an image.
        tie_keys: of some places, the values that tell tied rows apart, the most important first.

    Returns:
        Sorted places, int64.
    """
    by_image = np.argsort(image_N, kind="stable")
    ordered = image_N[by_image]
    starts = np.flatnonzero(np.diff(ordered, prepend=-2))
    counts = np.diff(starts, append=len(ordered))
    kept = [by_image[_places(starts[counts <= most], counts[counts <= most])]]
    for count in np.unique(counts[counts > most]).tolist():
        # All images of one number of rows at once, a line each.
        rows = by_image[starts[counts == count][:, None] + np.arange(count)]
        kept.append(rows[_kept(rows, scores_N[rows], most, tie_keys)])
    return np.sort(np.concatenate(kept))


def _places(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ranges start to start + count, one after another."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


def _kept(rows: np.ndarray, scores: np.ndarray, most: int, tie_keys: TieKeys) -> np.ndarray:
    """Which of (I, K) rows stay, K > most; bool."""
    least = np.partition(scores, scores.shape[1] - most, axis=1)[:, -most][:, None]
    as_good = scores >= least
    contested = np.flatnonzero(as_good.sum(axis=1) > most)
    if not len(contested):
        return as_good
    good, above = as_good[contested], scores[contested] > least[contested]
    entered = good & ~above & (np.cumsum(good, axis=1) <= most)
    line, place = np.nonzero(entered)
    keys = [-key for key in reversed(tie_keys(rows[contested[line], place]))]
    order = np.lexsort((*keys, line))
    line, place = line[order], place[order]
    rank = np.arange(len(line)) - np.searchsorted(line, line)
    stays = rank < (most - above.sum(axis=1))[line]
    good = above
    good[line[stays], place[stays]] = True
    as_good[contested] = good
    return as_good
