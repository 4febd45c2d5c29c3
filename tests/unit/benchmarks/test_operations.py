"""The counts by arithmetic are those that torch counts in the modules themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from operations import (
    HeadShape,
    allowed_ratio,
    main,
    our_head,
    our_relation_network,
    our_window,
    plain_head,
    plain_relation_network,
    plain_window,
    total,
)
from plain.head import PlainHead
from plain.relation_network import PlainRelationNetwork
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from acar.config import HeadConfig
from acar.models.head import ActorContextHead
from acar.models.hr2o import HR2O, BankBatch, Memory
from acar.models.relations.relation_network import RelationNetwork

SLOW, FAST = 16, 4
# At least two actors a clip: of one, einsum makes an elementwise product, which torch does not count.
CLIPS = [(1,), (2,), (5,), (3, 2, 4), (1, 3, 1)]


def shape(downsample: bool, mlp_kernel: int = 3) -> HeadShape:
    return HeadShape(SLOW + FAST, 8, 6, h=9, w=8, downsample=downsample, mlp_kernel=mlp_kernel, classes=5)


def counted(work: Callable[[], Tensor], backward: bool = False) -> int:
    """Multiply-adds that torch counts."""
    with FlopCounterMode(display=False) as counter:
        value = work()
        if backward:
            value.sum().backward()
    return counter.get_total_flops() // 2


def head(side: str, s: HeadShape) -> nn.Module:
    if side == "plain":
        return PlainHead(
            SLOW, FAST, s.classes, reduce=s.c, hidden=s.d, downsample=s.downsample, mlp_kernel=s.mlp_kernel
        )
    config = HeadConfig(
        reduce_channels=s.c, hidden_channels=s.d, hr2o_mlp_kernel=s.mlp_kernel,
        downsample="max2x2" if s.downsample else "none",
    )  # fmt: skip
    return ActorContextHead(config, (SLOW, FAST), s.classes)


def clip_index_of(actors: tuple[int, ...]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(actors)), torch.tensor(actors))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("side", ["plain", "ours"])
@pytest.mark.parametrize(("downsample", "mlp_kernel"), [(True, 3), (False, 1)])
@pytest.mark.parametrize("actors", CLIPS)
def test_head(actors, downsample, mlp_kernel, side, training, backward) -> None:
    s, b = shape(downsample, mlp_kernel), len(actors)
    slow = torch.randn(b, SLOW, 2, s.h, s.w).requires_grad_(backward)
    fast = torch.randn(b, FAST, 4, s.h, s.w).requires_grad_(backward)
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7]]).repeat(sum(actors), 1)
    module = head(side, s).train(training)
    maps = (slow, fast) if side == "plain" else ((slow, fast),)
    found = counted(lambda: module(*maps, boxes, clip_index_of(actors)), backward)
    pooled = our_head(s, actors, pooled_before_last=not training)
    terms = plain_head(s, actors) if side == "plain" else pooled
    # Of one actor over itself torch counts no product; the fused kernel's backward pass makes one of them anew.
    slack = total({"attention": terms["attention"]}, backward=backward)
    assert abs(found - total(terms, backward=backward)) <= slack


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("build", "formula"),
    [(PlainRelationNetwork, plain_relation_network), (RelationNetwork, our_relation_network)],
)
@pytest.mark.parametrize("actors", CLIPS)
def test_relation_network(actors, build, formula, backward) -> None:
    s = shape(downsample=True)
    network = build(s.c, s.d, s.downsample)
    features = torch.randn(sum(actors), s.c).requires_grad_(backward)
    context = torch.randn(len(actors), s.c, s.h, s.w).requires_grad_(backward)
    found = counted(lambda: network(features, context, clip_index_of(actors)), backward)
    assert found == total(formula(s, actors), backward=backward)


def test_window_recomputed() -> None:
    """Keys and values of a window's 7 rows beside its 2 actors, twice."""
    s = shape(downsample=True)
    h, w = 4, 3
    block = HR2O(s.d, s.mlp_kernel, 0.0).eval()
    clip_index, rows = torch.zeros(2, dtype=torch.int64), torch.randn(7, s.d, h, w)
    memory = Memory.over(clip_index, 1, BankBatch(rows, torch.zeros(7, dtype=torch.int64)), rows)
    with torch.no_grad():
        found = counted(lambda: block(block(torch.randn(2, s.d, h, w), memory), memory))
    assert found == total(plain_window(s, actors=2, rows=7))


def test_window_with_keys_once_a_row() -> None:
    s = shape(downsample=True)
    plain, ours = plain_window(s, actors=2, rows=42), our_window(s, actors=2, rows=42, new_rows=2)
    per_row = s.depth * s.related_cells * 2 * 9 * s.d**2
    assert total(plain) - total(ours) == 40 * per_row


def test_released_head_counts_by_hand() -> None:
    terms = plain_head(HeadShape(), [30])
    assert terms["encoder 1x1"] == 30 * 320 * 2048 * 512
    assert terms["encoder 3x3"] == 30 * 252 * 9 * 512 * 512
    assert terms["q, k, v"] == 2 * 30 * 63 * 27 * 512 * 512
    assert allowed_ratio(terms, our_head(HeadShape(), [30])) == pytest.approx(1.18, abs=0.01)


def test_document_has_the_tables_that_the_counts_give(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) > 20
    text = (Path(__file__).parents[3] / "docs" / "speed.md").read_text()
    assert not [line for line in lines if line not in text]
