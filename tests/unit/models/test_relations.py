"""Every relation operator against a slow reference: loops over clips, actors and cells in float64."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from acar.config import HeadConfig, parse_config
from acar.errors import UserError
from acar.models.actor_head import ActorHead
from acar.models.head import ActorContextHead
from acar.models.heads import build_head
from acar.models.hr2o import HR2O, BankBatch, Memory, Ragged
from acar.models.non_local import NonLocal
from acar.models.relations.actor_attention import ActorAttention
from acar.models.relations.aia import AIA, ContextAttention
from acar.models.relations.average import Average
from acar.models.relations.lfb import ActorRowsAsMaps, distinct_grid, distinct_locations
from acar.models.relations.relation_network import RelationNetwork, mean_of_rectified_sums
from acar.models.relations.sto import STO
from acar.models.roi import roi_features

C, D, H, W, CLASSES = 6, 4, 6, 7, 3
SLOW, FAST = 8, 4

counts_of_clips = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4)


def config(**keys: Any) -> HeadConfig:
    return HeadConfig(
        **{"reduce_channels": C, "hidden_channels": D, "hr2o_depth": 2, "dropout": 0.0, "memory": "none"}
        | keys
    )


def indices(counts: list[int]) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def fresh(module: nn.Module) -> nn.Module:
    """In float64, with affine norms that are not the identity."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


# --- references ---------------------------------------------------------------------------------------------


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def attend(block: Any, query: Tensor, rows: list[Tensor]) -> Tensor:
    """One actor's S' from the rows that it attends to."""
    if not rows:
        return query
    q = block.query.weight @ query
    dots = [float(q @ (block.key.weight @ row)) / math.sqrt(len(q)) for row in rows]
    total = sum(math.exp(dot) for dot in dots)
    found = sum(math.exp(dot) / total * (block.value.weight @ row) for dot, row in zip(dots, rows))
    return query + block.out.weight @ layer_norm(found, block.norm).clamp(min=0)


def loop_attention(block: ActorAttention, actors: Tensor, rows: Tensor) -> Tensor:
    return torch.stack([attend(block, actor, list(rows)) for actor in actors]) if len(actors) else actors


def loop_sto(op: STO, actors: Tensor, bank_actors: Tensor | None) -> Tensor:
    state = actors @ op.reduce.weight.T
    for block in op.blocks:
        rows = state if bank_actors is None else bank_actors @ op.reduce.weight.T
        state = loop_attention(block, state, rows)
    return state


def loop_aia(op: AIA, actors: Tensor, context: Tensor) -> Tensor:
    cells = [context[:, y, x] for y in range(H) for x in range(W)]
    state = actors @ op.reduce.weight.T
    for of_actors, of_context in zip(op.actor_blocks, op.context_blocks):
        state = loop_attention(of_actors, state, state)
        state = torch.stack([attend(of_context, s, cells) for s in state]) if len(state) else state
    return state


def loop_rn(op: RelationNetwork, actors: Tensor, context: Tensor, others: Tensor) -> Tensor:
    """Triplets formed, both layers on each (eq. 3), then their mean (eq. 4)."""
    found = []
    for actor in actors:
        pairs = []
        for other in others:
            triplet = torch.cat([t[:, None, None].expand(-1, H, W) for t in (actor, other)] + [context])
            pairs.append(op.conv2(F.relu(op.conv1(triplet[None])))[0])
        mean = sum(pairs) / len(pairs) if pairs else randn(D, H - 2, W - 2) * 0
        found.append(F.max_pool2d(mean[None], 3, 2, 1)[0] if op.downsample else mean)
    return torch.stack(found) if found else randn(0, D, H - 2, W - 2)


def loop_average(features: Tensor, rows: Tensor) -> Tensor:
    found = [f + (sum(rows) / len(rows) if len(rows) else 0) for f in features]
    return torch.stack(found) if found else features


def loop_encode(head: ActorContextHead, actors: Tensor, context: Tensor) -> Tensor:
    """Tile, concatenate, convolve, one actor at a time (section 3.2)."""
    found = []
    for actor in actors:
        pair = torch.cat([context, actor[:, None, None].expand(-1, H, W)])[None]
        found.append(F.max_pool2d(F.relu(head.conv2(F.relu(head.conv1(pair)))), 3, 2, 1)[0])
    return torch.stack(found)


# --- operators ----------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(counts=counts_of_clips, with_bank=st.booleans())
@torch.no_grad()
def test_actor_attention(counts: list[tuple[int, int]], with_bank: bool) -> None:
    op = fresh(ActorAttention(C, D, 0.0))
    clip, row_clip = indices([a for a, _ in counts]), indices([r for _, r in counts])
    actors, rows = randn(len(clip), C), randn(len(row_clip), C)
    bank = BankBatch(None, row_clip, actors=rows) if with_bank else None
    out = op(actors, Memory.over(clip, len(counts), bank, rows if with_bank else None))
    for b in range(len(counts)):
        source = rows[row_clip == b] if with_bank else actors[clip == b]
        torch.testing.assert_close(out[clip == b], loop_attention(op, actors[clip == b], source))


@settings(max_examples=20)
@given(counts=counts_of_clips, with_bank=st.booleans())
@torch.no_grad()
def test_sto(counts: list[tuple[int, int]], with_bank: bool) -> None:
    op = fresh(STO(config(relation="sto", memory="lfb")))
    clip, row_clip = indices([a for a, _ in counts]), indices([r for _, r in counts])
    actors, rows, context = randn(len(clip), C), randn(len(row_clip), C), randn(len(counts), C, H, W)
    out = op(actors, context, clip, BankBatch(None, row_clip, actors=rows) if with_bank else None)
    for b in range(len(counts)):
        source = rows[row_clip == b] if with_bank else None
        torch.testing.assert_close(out[clip == b], loop_sto(op, actors[clip == b], source))


@settings(max_examples=20)
@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=4))
@torch.no_grad()
def test_aia(counts: list[int]) -> None:
    op = fresh(AIA(config(relation="aia")))
    clip = indices(counts)
    actors, context = randn(len(clip), C), randn(len(counts), C, H, W)
    out = op(actors, context, clip)
    for b in range(len(counts)):
        torch.testing.assert_close(out[clip == b], loop_aia(op, actors[clip == b], context[b]))


@settings(max_examples=20)
@given(counts=counts_of_clips, with_bank=st.booleans(), downsample=st.booleans())
@torch.no_grad()
def test_relation_network(counts: list[tuple[int, int]], with_bank: bool, downsample: bool) -> None:
    op = fresh(RelationNetwork(C, D, downsample))
    clip, row_clip = indices([a for a, _ in counts]), indices([r for _, r in counts])
    actors, rows, context = randn(len(clip), C), randn(len(row_clip), C), randn(len(counts), C, H, W)
    out = op(actors, context, clip, BankBatch(None, row_clip, actors=rows) if with_bank else None)
    for b in range(len(counts)):
        mine = clip == b
        if not mine.any():
            continue
        source = rows[row_clip == b] if with_bank else actors[mine]
        torch.testing.assert_close(out[mine], loop_rn(op, actors[mine], context[b], source))


def test_relation_network_gradients() -> None:
    """Of sorting, tabled sums and bisection."""
    op = fresh(RelationNetwork(2, 2, False))
    clip = indices([2, 1])
    actors, context = randn(3, 2).requires_grad_(), randn(2, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, x: op(a, x, clip), (actors, context))


def paired_sums(maps: Tensor, vectors: Tensor, clip: Tensor, row_clip: Tensor) -> Tensor:
    means = []
    for i in range(len(maps)):
        of_clip = [vectors[j] for j in range(len(vectors)) if row_clip[j] == clip[i]]
        total = sum(torch.relu(maps[i] + v[:, None, None]) for v in of_clip)
        means.append(total / len(of_clip) if of_clip else maps[i] * 0)
    return torch.stack(means) if means else maps


@settings(max_examples=40)
@given(
    counts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=3),
    few_values=st.booleans(),
    seed=st.integers(0, 99),
)
def test_mean_of_rectified_sums(counts: list[tuple[int, int]], few_values: bool, seed: int) -> None:
    """Values and gradients against the sum over pairs; `few_values` makes ties, zeros and kinks."""
    torch.manual_seed(seed)
    clip, row_clip = indices([a for a, _ in counts]), indices([r for _, r in counts])
    maps, vectors = torch.randn(len(clip), 3, 2, 2), torch.randn(len(row_clip), 3)
    if few_values:
        maps, vectors = maps.round(), vectors.round()
    maps, vectors = maps.requires_grad_(), vectors.requires_grad_()
    queries, keys = Ragged(clip, len(counts)), Ragged(row_clip, len(counts))
    found = mean_of_rectified_sums(maps, vectors, queries, keys)
    expected = paired_sums(maps, vectors, clip, row_clip)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    grads = [
        torch.autograd.grad((out * weights).sum(), [maps, vectors], allow_unused=True)
        for out in (found, expected)
    ]
    for own, true in zip(*grads, strict=True):
        torch.testing.assert_close(own, torch.zeros_like(own) if true is None else true)


@torch.no_grad()
def test_mean_of_rectified_sums_in_half_precision() -> None:
    """The cancelling sums are of float32: the result is as exact as its type."""
    clip = indices([6])
    maps, vectors = 100 * torch.randn(6, 8, 3, 3), 100 * torch.randn(6, 8)
    maps, vectors = maps.bfloat16(), vectors.bfloat16()
    both = Ragged(clip, 1)
    found = mean_of_rectified_sums(maps, vectors, both, both)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, paired_sums(maps.float(), vectors.float(), clip, clip).bfloat16())


@settings(max_examples=20)
@given(counts=counts_of_clips, with_bank=st.booleans())
@torch.no_grad()
def test_average(counts: list[tuple[int, int]], with_bank: bool) -> None:
    clip, row_clip = indices([a for a, _ in counts]), indices([r for _, r in counts])
    features, rows = randn(len(clip), D, H, W), randn(len(row_clip), D, H, W)
    memory = Memory.of(clip, len(counts), BankBatch(rows, row_clip) if with_bank else None, features)
    out = Average()(features, memory)
    for b in range(len(counts)):
        source = rows[row_clip == b] if with_bank else features[clip == b]
        torch.testing.assert_close(out[clip == b], loop_average(features[clip == b], source))


@torch.no_grad()
def test_actor_rows_as_maps() -> None:
    op = fresh(ActorRowsAsMaps(C, D))
    rows = randn(3, C)
    maps = op(rows, 2, 3)
    for j in range(3):
        for y in range(2):
            for x in range(3):
                torch.testing.assert_close(maps[j, :, y, x], op.reduce.weight @ rows[j])


@pytest.mark.parametrize("kind", ["sto", "rn", "actor_first", "lfb"])
@torch.no_grad()
def test_shared_rows_equal_repeated_rows(kind: str) -> None:
    head = whole_head(kind)
    rows, row_index, row_clip = randn(4, C), torch.tensor([0, 1, 2, 1, 2, 3]), indices([3, 3])
    actors, context, clip = randn(3, C), randn(2, C, H, W), indices([1, 2])
    shared = BankBatch(None, row_clip, row_index, actors=rows)
    repeated = BankBatch(None, row_clip, actors=rows[row_index])
    outs = [head.reason(context, actors, clip, bank) for bank in (shared, repeated)]
    torch.testing.assert_close(*outs)
    assert not torch.allclose(outs[0], head.reason(context, actors, clip, None))


# --- heads --------------------------------------------------------------------------------------------------

HEADS: dict[str, dict[str, Any]] = {
    "baseline": {"relation": "baseline"},
    "acrn": {"relation": "acrn"},
    "sto": {"relation": "sto", "memory": "lfb"},
    "aia": {"relation": "aia"},
    "avg": {"hr2o_design": "avg", "memory": "acfb"},
    "rn": {"hr2o_design": "rn", "memory": "lfb"},
    "nl": {"memory": "acfb"},
    "lfb": {"memory": "lfb"},
    "actor_first": {"order": "actor_first", "memory": "lfb"},
}


def whole_head(kind: str) -> Any:
    return fresh(build_head(config(**HEADS[kind]), (SLOW, FAST), CLASSES))


def loop_logits(head: Any, actors: Tensor, context: Tensor, bank: BankBatch | None) -> Tensor:
    """Logits of one clip's actors A (N, C) with X (C, H, W), the bank's rows all being the clip's."""
    if isinstance(head, ActorHead):
        rows = None if bank is None else bank.actors
        sto = isinstance(head.relation, STO)
        related = loop_sto(head.relation, actors, rows) if sto else loop_aia(head.relation, actors, context)
    else:
        if head.config.order == "actor_first":
            for block in head.hr2o:
                actors = loop_attention(block, actors, actors if bank is None else bank.actors)
        maps = loop_encode(head, actors, context)
        h, w = maps.shape[2:]
        source = None
        if bank is not None and head.config.memory == "lfb":
            source = head.lfb(bank.actors, h, w) if hasattr(head, "lfb") else None
        elif bank is not None:
            source = bank.maps
        for block in [] if head.config.order == "actor_first" else head.hr2o:
            if isinstance(block, RelationNetwork):
                maps = maps + loop_rn(block, actors, context, actors if bank is None else bank.actors)
            elif isinstance(block, Average):
                maps = loop_average(maps, maps if source is None else source)
            else:  # against its own loops in test_hr2o.py
                clip = torch.zeros(len(maps), dtype=torch.int64)
                rows = (
                    None if source is None else BankBatch(source, torch.zeros(len(source), dtype=torch.int64))
                )
                maps = block(maps, Memory.of(clip, 1, rows, maps))
        related = maps.mean((2, 3))
    return torch.stack(
        [
            head.fc2.weight @ torch.cat([(head.fc1.weight @ a).clamp(min=0), r])
            for a, r in zip(actors, related)
        ]
    )


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "baseline"])
@pytest.mark.parametrize("with_bank", [False, True])
@torch.no_grad()
def test_head_equals_its_reference(kind: str, with_bank: bool) -> None:
    if with_bank and HEADS[kind].get("memory", "none") == "none":
        return
    head = whole_head(kind)
    slow, fast = randn(3, SLOW, 2, H, W), randn(3, FAST, 4, H, W)
    corners = torch.rand(4, 2, dtype=torch.float64) / 2
    boxes, clip = torch.cat([corners, corners + 0.4], dim=1), torch.tensor([0, 0, 0, 2])
    maps, row_clip = randn(4, D, 2, 3), torch.tensor([0, 2, 2, 2])
    bank = BankBatch(maps, row_clip, actors=randn(4, C)) if with_bank else None
    out = head((slow, fast), boxes, clip, bank)
    assert out.shape == (4, CLASSES)
    context = torch.stack(
        [head.conv_reduce(torch.cat([s.mean(1), f.mean(1)])[None])[0] for s, f in zip(slow, fast)]
    )
    for b in (0, 2):
        mine, rows = clip == b, row_clip == b
        actors = roi_features(context[b : b + 1], boxes[mine], clip[mine] * 0, 7)
        own = BankBatch(bank.maps[rows], row_clip[rows] * 0, actors=bank.actors[rows]) if bank else None
        torch.testing.assert_close(out[mine], loop_logits(head, actors, context[b], own))


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (3, 2), (4, 3), (7, 9)])
@torch.no_grad()
def test_keys_of_a_tiled_vector_are_those_of_a_smaller_tile(grid: tuple[int, int]) -> None:
    conv = fresh(nn.Conv2d(D, D, 3, padding=1, bias=False))
    vectors = randn(3, D, 1, 1)
    small = conv(vectors.expand(-1, -1, *distinct_grid(*grid))).flatten(2)
    spread = small[..., distinct_locations(*grid, vectors.device)].unflatten(2, grid)
    torch.testing.assert_close(spread, conv(vectors.expand(-1, -1, *grid)))


@torch.no_grad()
def test_baseline_is_linear_in_the_raw_actor_feature() -> None:
    head = whole_head("baseline")
    slow, fast = randn(2, SLOW, 2, H, W), randn(2, FAST, 4, H, W)
    boxes, clip = torch.tensor([[0.1, 0.1, 0.6, 0.9]]).double().repeat(2, 1), torch.tensor([1, 0])
    out = head((slow, fast), boxes, clip)
    for k, b in enumerate(clip.tolist()):
        maps = torch.cat([slow[b].mean(1), fast[b].mean(1)])[None]
        torch.testing.assert_close(
            out[k], head.fc.weight @ roi_features(maps, boxes[k : k + 1], torch.tensor([0]), 7)[0]
        )


C_AVA, D_AVA = 1024, 512
COUNTED: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "baseline": (
        lambda: build_head(published(relation="baseline"), (2048, 256), 60),
        {"width": 2304, "classes": 60},
    ),
    "acrn": (
        lambda: build_head(published(relation="acrn"), (2048, 256), 60),
        {"width": 2304, "C": C_AVA, "d": D_AVA, "classes": 60, "blocks": 0},
    ),
    "hr2o": (
        lambda: build_head(published(), (2048, 256), 60),
        {"width": 2304, "C": C_AVA, "d": D_AVA, "classes": 60, "blocks": 2 * (36 * D_AVA**2 + 2 * D_AVA)},
    ),
    "nl": (lambda: HR2O(D_AVA, 3, 0.2), {"d": D_AVA, "k": 3}),
    "nl of 1x1": (lambda: HR2O(D_AVA, 1, 0.2), {"d": D_AVA, "k": 1}),
    "avg": (Average, {}),
    "rn": (lambda: RelationNetwork(C_AVA, D_AVA, True), {"C": C_AVA, "d": D_AVA}),
    "lfb": (lambda: ActorRowsAsMaps(C_AVA, D_AVA), {"C": C_AVA, "d": D_AVA}),
    "actor_first": (lambda: ActorAttention(C_AVA, D_AVA, 0.2), {"channels": C_AVA, "inner": D_AVA}),
    "sto": (lambda: STO(published(relation="sto")), {"C": C_AVA, "d": D_AVA, "depth": 2}),
    "aia's objects": (lambda: ContextAttention(C_AVA, D_AVA, 0.2), {"C": C_AVA, "d": D_AVA}),
    "aia": (lambda: AIA(published(relation="aia")), {"C": C_AVA, "d": D_AVA, "depth": 2}),
    "non-local": (lambda: NonLocal(C_AVA, nn.BatchNorm3d(C_AVA)), {"C": C_AVA, "d": D_AVA}),
}


def published(**keys: Any) -> HeadConfig:
    return HeadConfig(**({"memory": "none"} | keys))


@pytest.mark.parametrize("kind", list(COUNTED))
def test_parameter_counts_are_those_of_the_docstrings(kind: str) -> None:
    """The formula behind `Parameters:`, read from the docstring itself."""
    build, sizes = COUNTED[kind]
    with torch.device("meta"):
        module = build()
    written = re.search(r"Parameters: ([\w\s^+()]+?)[;.](?:\s|$)", type(module).__doc__ or "")
    assert written, type(module)
    factors = re.sub(r"(?<=[\w)])\s+(?=[\w(])", "*", written[1].replace("^", "**").strip())
    assert set(re.findall(r"[A-Za-z]+", factors)) == set(sizes), written[1]
    assert sum(p.numel() for p in module.parameters()) == eval(factors, {"__builtins__": {}}, sizes)


@pytest.mark.parametrize("kind", list(HEADS))
def test_every_weight_gets_a_gradient_and_none_from_empty_clips(kind: str) -> None:
    head = build_head(config(**HEADS[kind]), (SLOW, FAST), CLASSES)
    slow, fast = torch.randn(2, SLOW, 2, H, W), torch.randn(2, FAST, 4, H, W)
    logits = head((slow, fast), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert logits.shape == (0, CLASSES)
    memory = HEADS[kind].get("memory", "none")
    bank = BankBatch(torch.randn(2, D, 2, 3), torch.tensor([0, 1]), actors=torch.randn(2, C))
    boxes = torch.tensor([[0.0, 0.0, 0.6, 0.9], [0.1, 0.2, 0.9, 1.0]])
    head((slow, fast), boxes, torch.tensor([0, 1]), bank if memory != "none" else None).pow(
        2
    ).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("keys", "readable"),
    [
        ({"relation": "baseline"}, "none"),
        ({"relation": "acrn", "memory": "lfb"}, "none"),
        ({"relation": "aia"}, "none"),
        ({"relation": "sto"}, "none or lfb"),
        ({"hr2o_design": "rn"}, "none or lfb"),
        ({"order": "actor_first"}, "none or lfb"),
    ],
)
def test_a_memory_that_the_relation_cannot_read_is_refused(keys: dict[str, str], readable: str) -> None:
    with pytest.raises(UserError, match=f"can read {readable}"):
        parse_config({"model": {"head": keys}})


def test_actor_first_is_for_non_local_blocks() -> None:
    with pytest.raises(UserError, match="actor_first needs relation: hr2o and hr2o_design: nl"):
        parse_config({"model": {"head": {"order": "actor_first", "hr2o_design": "avg", "memory": "none"}}})
