"""A head fed with rows projected once a video equals the head fed with each window's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from drawn_bank import Rows
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.config import HeadConfig, WindowConfig
from acar.data.video_windows import VideoWindows
from acar.errors import UserError
from acar.models.grid import encoded_grid
from acar.models.heads import build_head
from acar.models.hr2o import BankBatch

C, D = 5, 4
KINDS: dict[str, dict[str, Any]] = {
    "acfb": {"memory": "acfb"},
    "lfb": {"memory": "lfb"},
    "1x1": {"memory": "acfb", "hr2o_mlp_kernel": 1, "downsample": "none"},
    "avg": {"memory": "acfb", "hr2o_design": "avg"},
    "avg, lfb": {"memory": "lfb", "hr2o_design": "avg"},
    "rn": {"memory": "lfb", "hr2o_design": "rn"},
    "sto": {"memory": "lfb", "relation": "sto"},
    "actor first": {"memory": "lfb", "order": "actor_first"},
}


def uncached(bank: Rows, times_s: Sequence[float], window: WindowConfig) -> BankBatch:
    """The windows' rows one after another, a row as often as it is in a window."""
    found = [bank.rows_of("v", t, window.radius_s, window.exclude_radius_s).numbers for t in times_s]
    numbers = np.concatenate(found)
    clips = torch.arange(len(times_s)).repeat_interleave(torch.tensor([len(rows) for rows in found]))
    maps = torch.from_numpy(bank.maps[numbers]).double() if bank.d else None
    return BankBatch(maps, clips, actors=torch.from_numpy(bank.actors[numbers]).double() if bank.c else None)


seconds = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=14)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(
    seconds=seconds, radius_s=st.integers(0, 5), exclude=st.sampled_from([None, 0, 1, 7]),
    batch=st.integers(1, 6), size=st.sampled_from([(4, 4), (3, 9), (8, 7), (10, 11)]),
)  # fmt: skip
def test_whole_videos(
    kind: str, seconds: list[tuple[int, int]], radius_s: int, exclude: int | None, batch: int,
    size: tuple[int, int],
) -> None:  # fmt: skip
    """Of each second the bank's rows and the clip's actors, neither the same number; no clip without actors."""
    torch.manual_seed(0)
    config = HeadConfig(reduce_channels=C, hidden_channels=D, **KINDS[kind])
    head = build_head(config, (6, 2), 3).double().eval()
    lfb = config.memory == "lfb"
    grid = encoded_grid(config, *size)
    bank = Rows([rows for rows, _ in seconds], grid, 0 if lfb else D, C if lfb else 0)
    window = WindowConfig(radius_s=radius_s, exclude_radius_s=exclude)
    windows = VideoWindows(bank, "v", window, lambda m, a: head.project_rows(m, a, grid), torch.device("cpu"))
    clips = [(float(t), actors) for t, (_, actors) in enumerate(seconds) if actors]
    for start in range(0, len(clips), batch):
        times_s = [t for t, _ in clips[start : start + batch]]
        counts = torch.tensor([n for _, n in clips[start : start + batch]])
        context = torch.randn(len(times_s), C, *size, dtype=torch.float64)
        actors = torch.randn(int(counts.sum()), C, dtype=torch.float64)
        inputs = context, actors, torch.arange(len(times_s)).repeat_interleave(counts)
        with torch.inference_mode():
            found = head.reason(*inputs, windows.batch(times_s))
            expected = head.reason(*inputs, uncached(bank, times_s, window))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        spanned = (bank.time_s >= times_s[0] - radius_s) & (bank.time_s <= times_s[-1] + radius_s)
        assert len(windows.rows) <= spanned.sum()
    assert len(bank.read_numbers) == len(set(bank.read_numbers)), "a row was read twice"


def test_rows_of_another_grid_are_refused() -> None:
    head = build_head(HeadConfig(reduce_channels=C, hidden_channels=D), (6, 2), 3)
    windows = VideoWindows(
        Rows([1], (2, 4), D, 0), "v", WindowConfig(radius_s=1),
        lambda m, a: head.project_rows(m, a, (2, 3)), torch.device("cpu"),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"\(4, 2, 4\).*\(4, 2, 3\).*extract the bank"):
        windows.batch([0.0])
