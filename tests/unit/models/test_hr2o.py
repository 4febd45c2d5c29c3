"""The batched operator against a triple loop, and its behaviour on empty windows."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.errors import UserError
from acar.models import hr2o
from acar.models.hr2o import HR2O, BankBatch, Memory, Ragged

D, H, W = 8, 3, 4


def indices(counts: list[int]) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))


def block() -> HR2O:
    torch.manual_seed(0)
    return HR2O(D, mlp_kernel=3, dropout=0.0).double()


def loop_attention(op: HR2O, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Att (N, J, h, w) of one clip, location by location and pair by pair (eq. 3)."""
    q, k = op.conv_q(query), op.conv_k(source)
    weights = query.new_zeros(len(query), len(source), H, W)
    for i in range(len(query)):
        for y in range(H):
            for x in range(W):
                dots = torch.stack([q[i, :, y, x] @ k[j, :, y, x] for j in range(len(source))])
                weights[i, :, y, x] = (dots / math.sqrt(D)).softmax(0)
    return weights


def loop_block(op: HR2O, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """F' of one clip (eq. 2-4)."""
    if len(source) == 0 or len(query) == 0:
        return query
    weights, v = loop_attention(op, query, source), op.conv_v(source)
    related = torch.stack([sum(weights[i, j] * v[j] for j in range(len(v))) for i in range(len(query))])
    return query + op.conv(F.relu(op.norm(related)))


counts_of_clips = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(counts=counts_of_clips, with_bank=st.booleans())
def test_batched_block_equals_the_triple_loop(counts: list[tuple[int, int]], with_bank: bool) -> None:
    op = block()
    actors, rows = indices([a for a, _ in counts]), indices([r for _, r in counts])
    features = torch.randn(len(actors), D, H, W, dtype=torch.float64)
    bank = BankBatch(torch.randn(len(rows), D, H, W, dtype=torch.float64), rows) if with_bank else None
    memory = Memory.of(actors, len(counts), bank, features)
    with torch.no_grad():
        batched = op(features, memory)
        attention, valid = op.attention(features, memory)
        for clip in range(len(counts)):
            mine = actors == clip
            source = bank.maps[rows == clip] if bank else features[mine]
            torch.testing.assert_close(batched[mine], loop_block(op, features[mine], source))
            j = len(source)
            assert valid[mine, :j].all() and not valid[mine, j:].any()
            if mine.any() and j:
                torch.testing.assert_close(attention[mine][:, :j], loop_attention(op, features[mine], source))
            assert not attention[mine][:, j:].any()


def test_empty_window_passes_features_through_without_nan() -> None:
    op = block()
    actors, rows = indices([2, 3]), indices([0, 2])
    features = torch.randn(5, D, H, W, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(2, D, H, W, dtype=torch.float64)
    out = op(features, Memory.of(actors, 2, BankBatch(maps, rows), features))
    assert torch.equal(out[:2], features[:2])
    assert not torch.equal(out[2:], features[2:])
    out[:2].sum().backward()
    assert torch.equal(features.grad[:2], torch.ones_like(features[:2]))
    for name, parameter in op.named_parameters():
        assert not parameter.grad.any(), name  # zero, and so not NaN


def test_gradients_are_finite_with_mixed_windows() -> None:
    op = block()
    features = torch.randn(5, D, H, W, dtype=torch.float64, requires_grad=True)
    bank = BankBatch(torch.randn(2, D, H, W, dtype=torch.float64), indices([0, 2]))
    op(features, Memory.of(indices([2, 3]), 2, bank, features)).pow(2).sum().backward()
    assert features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in op.parameters())


def test_no_rows_at_all_keeps_every_weight_in_the_graph() -> None:
    op = block()
    features = torch.randn(2, D, H, W, dtype=torch.float64)
    empty = BankBatch(torch.zeros(0, D, H, W), torch.zeros(0, dtype=torch.int64))
    out = op(features, Memory.of(indices([2]), 1, empty, features))
    assert torch.equal(out, features)
    out.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in op.parameters())


def test_shared_rows_equal_repeated_rows() -> None:
    op = block()
    features, maps = (torch.randn(n, D, H, W, dtype=torch.float64) for n in (3, 4))
    row_index, clip_index = torch.tensor([0, 1, 2, 1, 2, 3]), indices([3, 3])
    shared = BankBatch(maps, clip_index, row_index)
    repeated = BankBatch(maps[row_index], clip_index)
    actors = indices([1, 2])
    outs = [op(features, Memory.of(actors, 2, bank, features)) for bank in (shared, repeated)]
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize("with_bank", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_means_of_a_block_and_their_gradients(kernel: int, with_bank: bool) -> None:
    torch.manual_seed(0)
    op = HR2O(D, kernel, dropout=0.5).double().eval()
    values = torch.randn(5, D, H, W, dtype=torch.float64)
    bank = BankBatch(torch.randn(2, D, H, W, dtype=torch.float64), indices([0, 2])) if with_bank else None
    upstream = torch.randn(5, D, dtype=torch.float64)
    found = []
    for means in (op.mean, lambda *inputs: op(*inputs).mean((2, 3))):
        features = values.clone().requires_grad_()
        out = means(features, Memory.of(indices([2, 3]), 2, bank, features))
        found.append([out, *torch.autograd.grad(out, [features, *op.parameters()], upstream)])
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-11)


def test_means_while_dropout_is_at_work_are_those_of_the_dropped_maps() -> None:
    op, features = HR2O(D, 3, dropout=0.5).train(), torch.randn(3, D, H, W)
    memory = Memory.of(indices([3]), 1, None, features)
    found = []
    for means in (op.mean, lambda *inputs: op(*inputs).mean((2, 3))):
        torch.manual_seed(1)
        found.append(means(features, memory))
    assert torch.equal(*found)
    assert not torch.allclose(found[0], op.eval().mean(features, memory))


def test_bank_of_another_grid_is_refused() -> None:
    bank = BankBatch(torch.zeros(1, D, H, W + 1), indices([1]))
    with pytest.raises(UserError, match=r"\(8, 3, 5\).*\(8, 3, 4\)"):
        Memory.of(indices([1]), 1, bank, torch.zeros(1, D, H, W))


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_padding_and_back_is_the_identity(counts: list[int]) -> None:
    clip_index = indices(counts)
    rows = torch.arange(1.0, len(clip_index) + 1)[:, None]
    ragged = Ragged(clip_index, len(counts))
    padded = ragged.pad(rows)
    assert padded.shape == (len(counts), max(1, *counts), 1)
    assert ragged.valid.sum(1).tolist() == counts
    assert torch.equal(ragged.unpad(padded), rows)
    assert not padded[~ragged.valid].any()
    assert (padded[ragged.valid] > 0).all()


@pytest.mark.parametrize("counts", [[1], [1, 1, 0], [1, 3, 1]])
def test_actors_alone_in_their_clip_cost_no_query_and_no_key(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the weights of both still get their gradient, 0 where no actor has company."""
    op, convolved = block(), []
    conv = hr2o.same_convolution

    def counting(maps: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        convolved.append((weight is op.conv_q.weight or weight is op.conv_k.weight, len(maps)))
        return conv(maps, weight)

    monkeypatch.setattr(hr2o, "same_convolution", counting)
    clips = indices(counts)
    features = torch.randn(len(clips), D, H, W, dtype=torch.float64)
    op(features, Memory.of(clips, len(counts), None, features)).square().sum().backward()
    in_company = sum(n for n in counts if n > 1)
    assert [n for of_pair, n in convolved if of_pair] == [in_company, in_company]
    grads = [p.grad for p in (op.conv_q.weight, op.conv_k.weight)]
    assert all(grad is not None and bool(grad.any()) == (in_company > 0) for grad in grads)
