"""Which boxes of several runs are one actor: the same ones, then the nearest within what rounding explains.

Never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acar.ensemble.runs import VideoRows

TOLERANCE = 1000
"""Millionths of the frame by which the corners of one box may differ: peers' files have 3 decimals."""


@dataclass(frozen=True)
class ActorNumbers:
    """The A actors of a video over all R runs; an actor has at most one box a run.

    Attributes:
        of_rows: for each run the (N,) int64 actor of each row; numbers are below `most`, not all are taken.
        most: above all numbers.
        rounded: how many actors have boxes that differ between runs.
    """

    of_rows: list[np.ndarray]
    most: int
    rounded: int


def match_boxes(rows_R: Sequence[VideoRows]) -> ActorNumbers:
    """Number the actors of one video.

    Boxes of one key frame with equal corners (at 6 decimals) are one actor. Of the others the pairs whose largest
    corner difference is at most `TOLERANCE` are joined, the nearest first, unless both sides have boxes of one
    run already. Equally near ones are joined in the order of their corners, so that the runs' order tells nothing.
    """
    heads = [_heads(rows) for rows in rows_R]
    keys = np.concatenate(
        [np.column_stack([rows.micros[head], rows.boxes[head]]) for rows, head in zip(rows_R, heads)]
    ).astype(np.int64)
    box_K5, box_of_head = _distinct(keys)
    run_of_head = np.repeat(np.arange(len(rows_R)), [len(head) for head in heads])
    has_KR = np.zeros((len(box_K5), len(rows_R)), dtype=bool)
    has_KR[box_of_head, run_of_head] = True
    actor_of_box, rounded = _joined(box_K5, has_KR)
    actor_of_head = np.split(actor_of_box[box_of_head], np.cumsum([len(head) for head in heads])[:-1])
    of_rows = [
        np.repeat(actors, np.diff(head, append=len(rows.micros)))
        for rows, head, actors in zip(rows_R, heads, actor_of_head)
    ]
    return ActorNumbers(of_rows, len(box_K5), rounded)


def _heads(rows: VideoRows) -> np.ndarray:
    """Where runs of rows with one time and box begin: an actor's rows mostly follow each other."""
    if not len(rows.micros):
        return np.zeros(0, np.int64)
    changes = (rows.micros[1:] != rows.micros[:-1]) | (rows.boxes[1:] != rows.boxes[:-1]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _distinct(keys_H5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The K different lines, sorted by time and corners, and of each line given which it is."""
    order = np.lexsort(keys_H5.T[::-1])
    ordered = keys_H5[order]
    starts = np.ones(len(ordered), dtype=bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(starts) - 1
    return ordered[starts], number


def _joined(box_K5: np.ndarray, has_KR: np.ndarray) -> tuple[np.ndarray, int]:
    """The actor of each box (the number of its first box), and how many actors have several."""
    actor = np.arange(len(box_K5))
    one, two = _near_pairs(box_K5, has_KR)
    root = {box: box for box in np.unique(np.concatenate([one, two])).tolist()}
    # The runs of an actor as the bits of a number, since there may be more than 64.
    runs = {box: int.from_bytes(np.packbits(has_KR[box]).tobytes()) for box in root}
    for first, second in zip(one.tolist(), two.tolist()):
        a, b = _find(root, first), _find(root, second)
        if a != b and not runs[a] & runs[b]:
            a, b = min(a, b), max(a, b)
            root[b] = a
            runs[a] |= runs[b]
    found = {box: _find(root, box) for box in root}
    if found:
        actor[list(found)] = list(found.values())
    return actor, len({a for box, a in found.items() if a != box})


def _find(root: dict[int, int], box: int) -> int:
    while root[box] != box:
        box = root[box]
    return box


def _near_pairs(box_K5: np.ndarray, has_KR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of boxes of different runs that may be one actor, the nearest first."""
    open_ = np.flatnonzero(~has_KR.all(axis=1))  # a box that every run has is settled
    box, has = box_K5[open_], has_KR[open_]
    firsts, seconds = [], []
    at = np.arange(len(box))
    for step in range(1, len(box)):
        # Sorted by time and x1: once the next one is too far off, so are all behind it.
        at = at[at + step < len(box)]
        near = (box[at, 0] == box[at + step, 0]) & (box[at + step, 1] - box[at, 1] <= TOLERANCE)
        at = at[near]
        if not len(at):
            break
        close = (np.abs(box[at, 1:] - box[at + step, 1:]) <= TOLERANCE).all(axis=1)
        apart = ~(has[at] & has[at + step]).any(axis=1)
        firsts.append(at[close & apart])
        seconds.append(firsts[-1] + step)
    if not firsts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    one, two = np.concatenate(firsts), np.concatenate(seconds)
    difference = np.abs(box[one, 1:] - box[two, 1:]).max(axis=1)
    order = np.lexsort((two, one, difference))
    return open_[one[order]], open_[two[order]]
