"""`batch_padding: exact`: what shares a clip's batch changes nothing; `released`: it does, and only by padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acar.config import ModelConfig
from acar.errors import UserError
from acar.models.grid import grid_of
from acar.models.hr2o import BankBatch
from acar.models.mixed_sizes import cells, in_groups
from acar.models.net import ActionNet, build_network

C, D = 6, 4
KINDS: dict[str, dict[str, Any]] = {
    "nl": {},
    "avg": {"hr2o_design": "avg"},
    "rn": {"hr2o_design": "rn", "memory": "lfb"},
    "lfb": {"memory": "lfb"},
    "actor_first": {"order": "actor_first", "memory": "lfb"},
    "sto": {"relation": "sto", "memory": "lfb"},
    "acrn": {"relation": "acrn", "memory": "none"},
    "aia": {"relation": "aia", "memory": "none"},
    "baseline": {"relation": "baseline", "memory": "none"},
}
SIZES = [(48, 64), (64, 48), (56, 56), (48, 80)]


def network(kind: str, batch_padding: str = "exact") -> ActionNet:
    torch.manual_seed(0)
    values = {
        "backbone": {
            "depths": (1, 1, 1, 1), "width": 8, "alpha": 2, "spatial_strides": (1, 2, 1, 1), "norm": "group",
        },
        "head": {"reduce_channels": C, "hidden_channels": D, "hr2o_depth": 2, "encoder_norm": "group"}
        | KINDS[kind],
        "batch_padding": batch_padding,
    }  # fmt: skip
    return build_network(ModelConfig.model_validate(values), 5).eval()


class Clip:
    """A clip of its own size, its boxes and its bank rows, the same for the same seed."""

    def __init__(self, net: ActionNet, size: tuple[int, int], actors: int, rows: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.size = size
        self.frames = torch.randn(3, 4, *size, generator=draw)
        corners = torch.rand(actors, 2, generator=draw) / 2
        self.boxes = torch.cat([corners, corners + 0.4], dim=1)
        self.maps = torch.randn(rows, D, *grid_of(net.config, *size), generator=draw)
        self.rows = torch.randn(rows, C, generator=draw)


def run(net: ActionNet, clips: list[Clip], with_bank: bool) -> list[Tensor]:
    """Logits of each clip, all in one zero-padded batch."""
    height, width = (max(clip.size[i] for clip in clips) for i in (0, 1))
    frames = torch.zeros(len(clips), 3, 4, height, width)
    grids = [clip.maps.shape[2:] for clip in clips]
    maps = torch.zeros(0, D, max(g[0] for g in grids), max(g[1] for g in grids))
    for i, clip in enumerate(clips):
        frames[i, ..., : clip.size[0], : clip.size[1]] = clip.frames
        own = maps.new_zeros(len(clip.maps), *maps.shape[1:])
        own[..., : clip.maps.shape[2], : clip.maps.shape[3]] = clip.maps
        maps = torch.cat([maps, own])
    actors = torch.tensor([len(clip.boxes) for clip in clips])
    rows = torch.tensor([len(clip.rows) for clip in clips])
    numbers = torch.arange(len(clips))
    bank = BankBatch(maps, numbers.repeat_interleave(rows), actors=torch.cat([c.rows for c in clips]))
    logits = net(
        frames, torch.cat([c.boxes for c in clips]), numbers.repeat_interleave(actors),
        bank if with_bank else None, sizes_px=torch.tensor([clip.size for clip in clips]),
    )  # fmt: skip
    return list(logits.split(actors.tolist()))


others = st.lists(
    st.tuples(st.sampled_from(SIZES), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3
)


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=8)
@given(
    mine=st.tuples(st.sampled_from(SIZES), st.integers(1, 3), st.integers(0, 3)),
    others=others,
    place=st.integers(0, 3),
    with_bank=st.booleans(),
)
@torch.no_grad()
def test_a_clips_output_does_not_depend_on_its_batch(
    kind: str, mine: Any, others: list[Any], place: int, with_bank: bool
) -> None:
    net = network(kind)
    with_bank = with_bank and net.config.head.memory != "none"
    clip = Clip(net, *mine, seed=1)
    batch = [Clip(net, *other, seed=2 + i) for i, other in enumerate(others)]
    place = min(place, len(batch))
    alone = run(net, [clip], with_bank)[0]
    together = run(net, [*batch[:place], clip, *batch[place:]], with_bank)[place]
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()


@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_released_padding_leaks_into_padded_clips_only(kind: str) -> None:
    exact, released = network(kind), network(kind, "released")
    with_bank = exact.config.head.memory != "none"
    small, large = Clip(exact, (48, 64), 2, 2, 1), Clip(exact, (48, 80), 3, 1, 2)
    expected, leaked = (run(net, [small, large], with_bank) for net in (exact, released))
    torch.testing.assert_close(leaked[1], expected[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(leaked[0], expected[0], rtol=1e-3, atol=1e-4)


def test_gradients_reach_every_weight_through_a_mixed_batch() -> None:
    net = network("nl")
    logits = run(net, [Clip(net, (48, 64), 2, 2, 1), Clip(net, (64, 48), 0, 1, 2)], True)
    torch.cat(logits).pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_clip_too_small_for_the_encoder_is_refused_in_both_modes() -> None:
    for mode in ("exact", "released"):
        net = network("nl", mode)
        frames = torch.zeros(2, 3, 4, 48, 64)
        sizes = torch.tensor([[48, 64], [48, 16]])
        with pytest.raises(UserError, match=r"48x16 px .* needs at least 3x3"):
            net(frames, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1]), sizes_px=sizes)


def test_groups_keep_the_order_of_the_actors() -> None:
    sizes, clip_index = torch.tensor([[5, 7], [5, 5], [5, 7]]), torch.tensor([0, 1, 1, 2])
    found = in_groups(sizes, clip_index, lambda g: torch.stack([g.actors, g.clips[g.clip_index]], dim=1))
    assert found.tolist() == [[0, 0], [1, 1], [2, 1], [3, 2]]


@pytest.mark.parametrize(
    ("total", "size", "padded", "expected"), [(5, 56, 80, 4), (16, 256, 256, 16), (10, 71, 100, 8)]
)
def test_cells_of_a_clip_inside_a_padded_map(total: int, size: int, padded: int, expected: int) -> None:
    assert cells(total, size, padded) == expected
