"""The rows of a video that are held: each projected once, and none longer than a window can need it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acar.models.hr2o import Projected
from acar.models.projected_rows import GROWTH, ProjectedRows

BLOCK = nn.Identity()


class Numbers:
    """Projects row n to (n, ...) and notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, numbers: np.ndarray) -> Projected:
        self.asked += numbers.tolist()
        rows = torch.from_numpy(numbers).float()
        return {BLOCK: (rows[:, None].expand(-1, 3), -rows)}


# Of each key frame: steps of the window's first and last row, and a share of the rows in its middle to leave out.
moves = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(moves=moves, batch=st.integers(1, 5))
def test_windows_that_move_forward(moves: list[tuple[int, int, bool]], batch: int) -> None:
    project = Numbers()
    held = ProjectedRows(project)
    first = last = most = 0
    windows = []
    for first_step, last_step, with_gap in moves:
        first, last = first + first_step, max(first + first_step, last + last_step)
        numbers = np.arange(first, last)
        windows.append((first, numbers[abs(numbers - (first + last) // 2) > 1] if with_gap else numbers))
    for start in range(0, len(windows), batch):
        chosen = windows[start : start + batch]
        found = held.batch([numbers for _, numbers in chosen], chosen[0][0])
        positive, negative = (rows[found.row_index] for rows in found.projected[BLOCK])
        expected = np.concatenate([numbers for _, numbers in chosen])
        assert positive.shape == (len(expected), 3) and (positive[:, 1].numpy() == expected).all()
        assert (negative.numpy() == -expected).all()
        lengths = [len(numbers) for _, numbers in chosen]
        assert found.clip_index.tolist() == np.repeat(np.arange(len(chosen)), lengths).tolist()
        most = max(most, len(held))
        seen = set().union(*(numbers.tolist() for _, numbers in windows[: start + batch]))
        assert len(held) == len([row for row in seen if row >= chosen[0][0]])
        assert len(found.projected[BLOCK][0]) <= max(1, GROWTH * most)
    assert len(project.asked) == len(set(project.asked)), "a row was projected twice"


def test_no_rows_at_all() -> None:
    held = ProjectedRows(Numbers())
    for _ in range(2):
        found = held.batch([np.zeros(0, np.int64)] * 3, 0)
        assert found.projected[BLOCK][0].shape == (1, 3)  # to attend to, and dropped
        assert len(found.clip_index) == len(found.row_index) == 0


def test_rows_leave_when_the_window_has_passed_them() -> None:
    held = ProjectedRows(Numbers())
    for first in range(0, 400, 2):
        found = held.batch([np.arange(first, first + 40)], first)
        assert len(held) == 40
    assert len(found.projected[BLOCK][0]) <= 40 * GROWTH
