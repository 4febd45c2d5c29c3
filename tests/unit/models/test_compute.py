"""Settings of `compute`: what they change and, above all, what they do not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from compute_samples import apart, batch, network, step
from torch._dynamo.utils import counters

from acar.config import I3D_WIDTH, BackboneConfig, ComputeConfig, Config
from acar.errors import UserError
from acar.models import compute
from acar.models.compute import check_compiler, prepared
from acar.models.hr2o import BankBatch
from acar.models.i3d import I3D
from acar.models.non_local import NonLocal
from acar.models.relations.relation_network import RelationNetwork
from acar.models.slowfast import Bottleneck
from acar.training.checkpoint import Checkpointer, Tally
from acar.training.loop import make_optimizer

CPU = torch.device("cpu")
HEADS = {
    "baseline": {"relation": "baseline", "memory": "none"},
    "acrn": {"relation": "acrn", "memory": "none"},
    "aia": {"relation": "aia", "memory": "none"},
    "sto": {"relation": "sto", "memory": "lfb"},
    "rn": {"hr2o_design": "rn", "memory": "lfb"},
    "avg": {"hr2o_design": "avg"},
    "actor_first": {"order": "actor_first", "memory": "lfb"},
    "lfb": {"memory": "lfb"},
    "acfb": {},
}


@pytest.fixture(autouse=True)
def cuda_precision_as_before() -> Iterator[None]:
    operations = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [operation.fp32_precision for operation in operations]
    yield
    for operation, precision in zip(operations, before):
        operation.fp32_precision = precision


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile without a C++ compiler, in seconds: graphs are traced and guarded as ever, and run eagerly."""
    monkeypatch.setattr(compute, "BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def rows_of(head: dict[str, str], rows: list[int]) -> dict:
    memory = head.get("memory", "acfb")
    return {} if memory == "none" else {"rows": rows, "memory": memory}


def test_names_and_values_of_the_weights_stay():
    plain = network({})
    for part, memory_format in product(("none", "backbone", "head", "all"), ("contiguous", "channels_last")):
        net = network({"compile": part, "checkpoint_activations": part, "memory_format": memory_format})
        state = net.state_dict()
        assert list(state) == list(plain.state_dict())
        assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
        assert [name for name, _ in net.named_parameters()] == [n for n, _ in plain.named_parameters()]


@pytest.mark.parametrize("part", ["backbone", "head", "all"])
def test_recomputing_changes_no_bit(part):
    """Neither gradients nor, with trained batch norm and dropout, averages, counters and random numbers."""
    settings = {"checkpoint_activations": part}
    plain, net = (network(s, norm="batch", dropout=0.4) for s in ({}, settings))
    for counts in ([2, 0, 3], [1, 1], [0, 0]):
        one, drawn = step(plain, counts), torch.rand(1)
        two = step(net, counts)
        assert torch.equal(torch.rand(1), drawn)
        assert torch.equal(one.logits, two.logits)
        assert all(torch.equal(one.gradients[name], two.gradients[name]) for name in one.gradients)
        assert all(torch.equal(one.buffers[name], two.buffers[name]) for name in one.buffers)
        assert any(name.endswith("num_batches_tracked") for name in one.buffers)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_recomputing_changes_no_bit_of_any_head(name):
    head = HEADS[name]
    plain, net = (network(s, dropout=0.4, **head) for s in ({}, {"checkpoint_activations": "head"}))
    one, two = (step(n, [2, 0, 3], **rows_of(head, [2, 1, 0])) for n in (plain, net))
    assert torch.equal(one.logits, two.logits)
    assert all(torch.equal(one.gradients[key], two.gradients[key]) for key in one.gradients)


@pytest.mark.parametrize("part", ["none", "backbone", "head", "all"])
def test_units_run_twice_in_training_and_once_elsewhere(part, monkeypatch):
    ran: list[type] = []
    kinds = (Bottleneck, RelationNetwork)
    for kind in kinds:
        real = kind.forward
        monkeypatch.setattr(
            kind, "forward", lambda self, *a, _k=kind, _r=real: ran.append(_k) or _r(self, *a)
        )
    net = network({"checkpoint_activations": part}, hr2o_design="rn", memory="lfb")
    units = {Bottleneck: 10, RelationNetwork: 2}
    step(net, [2, 1])
    twice = {Bottleneck: part in ("backbone", "all"), RelationNetwork: part in ("head", "all")}
    assert {kind: ran.count(kind) for kind in kinds} == {k: units[k] * (1 + twice[k]) for k in kinds}
    ran.clear()
    net.eval()(*batch([2, 1])[:3]).sum().backward()
    with torch.no_grad():
        net.train()(*batch([2, 1])[:3])
    assert {kind: ran.count(kind) for kind in kinds} == {kind: 2 * units[kind] for kind in kinds}


def test_memory_formats_are_two_ways_to_the_same_numbers():
    one, two = (network({"memory_format": f}).double() for f in ("channels_last", "contiguous"))
    frames, boxes, clip_index, _ = batch([2, 0, 3])
    maps = [net.features(frames.double())[0] for net in (one, two)]
    assert maps[0].is_contiguous(memory_format=torch.channels_last_3d) and not maps[0].is_contiguous()
    assert maps[1].is_contiguous() and not maps[1].is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-9, atol=1e-9)
    results = []
    for net in (one, two):
        logits = net(frames.double(), boxes.double(), clip_index)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in net.parameters())])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_weights_lie_as_the_memory_format_says():
    for memory_format, order in (("channels_last", torch.channels_last_3d), ("contiguous", None)):
        net = network({"memory_format": memory_format})
        weight = net.backbone.get_parameter("slow_res4.0.conv2.weight")
        assert weight.is_contiguous(memory_format=order or torch.contiguous_format)
        head = net.head.get_parameter("conv2.weight")
        assert head.is_contiguous(memory_format=torch.channels_last if order else torch.contiguous_format)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_bf16_of_every_head(name):
    """Logits, loss and gradients are float32, near the float32 network's, and not the same."""
    head = HEADS[name]
    for rows in (None, [2, 1, 0]):
        keywords = {} if rows is None else rows_of(head, rows)
        one, two = (
            step(network({"precision": p}, **head), [2, 0, 3], **keywords) for p in ("float32", "bf16")
        )
        assert two.logits.dtype == torch.float32
        assert all(g.dtype == torch.float32 for g in two.gradients.values())
        logits, gradient = apart(one, two)
        assert 1e-5 < logits < 0.1 and gradient < 0.5, (logits, gradient)


def test_bf16_inside_float32_outside():
    net = network({"precision": "bf16"}).eval()
    seen = []
    net.backbone.register_forward_hook(lambda _m, _i, maps: seen.extend(m.dtype for m in maps))
    frames, boxes, clip_index, _ = batch([2, 0, 3])
    with torch.inference_mode():
        logits = net(frames, boxes, clip_index)
        maps, actors = net.bank_rows(frames, boxes, clip_index)
        weights, _ = net.attention(frames, boxes, clip_index)[0]
        slow, fast = net.features(frames)
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in (logits, maps, actors, weights, slow, fast)} == {torch.float32}
    assert not torch.equal(logits, logits.bfloat16().float()), "the logits themselves are rounded"
    assert not torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(
        maps, network({}).eval().bank_rows(frames, boxes, clip_index)[0], rtol=0, atol=0.2
    )


def test_tf32_is_of_cuda_alone():
    operations = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    plain = step(network({}), [2, 1])
    assert [operation.fp32_precision for operation in operations] == ["ieee", "ieee"]
    rounded = step(network({"precision": "tf32"}), [2, 1])
    assert [operation.fp32_precision for operation in operations] == ["tf32", "tf32"]
    assert torch.equal(plain.logits, rounded.logits)


def test_a_compiled_head_is_not_compiled_for_each_batch(traced):
    """Few kinds of batches are told apart (few or many actors, anyone alone in a clip); sizes among them are free."""
    plain, net = network({}), network({"compile": "head"})
    of_each_kind = [[2, 0, 3], [2, 5, 1], [1, 9, 9]]
    more = [[1, 3, 2], [2, 5, 1], [7, 2, 2], [3, 3, 3, 0], [5, 5], [2, 9, 9, 1], [8, 4, 7]]
    for batches in (of_each_kind, more):
        for seed, counts in enumerate(batches):
            logits, gradient = apart(step(plain, counts, seed=seed), step(net, counts, seed=seed))
            assert logits < 1e-5 and gradient < 1e-5, counts
        if batches is of_each_kind:
            few = graphs()
    assert graphs() == few <= 10
    step(net, [1, 1])  # nobody to attend to: not compiled, with gradients as ever
    assert graphs() == few
    assert not counters["graph_break"]


def test_a_compiled_head_takes_banks_and_batches_without_anyone(traced):
    plain, net = (network(s).eval() for s in ({}, {"compile": "head"}))
    many = [
        ([2, 0, 3], [3, 2, 4]),
        ([4, 2], [5, 0]),
        ([4, 2], [0, 0]),
        ([1], [1]),
        ([0, 0], [1, 2]),
        ([5, 2], [4, 9]),
    ]
    for counts, rows in many:
        frames, boxes, clip_index, bank = batch(counts, rows=rows)
        with torch.inference_mode():
            expected = plain(frames, boxes, clip_index, bank=bank)
            torch.testing.assert_close(
                net(frames, boxes, clip_index, bank=bank), expected, rtol=1e-4, atol=1e-5
            )
    assert 3 <= graphs() <= 20


@pytest.mark.parametrize("settings", [{"compile": "head"}, {"precision": "bf16"}], ids=str)
def test_rows_that_were_projected_before(settings, traced):
    """As prediction reads a bank; the rows stay in the precision in which they are read."""
    net = network(settings).eval()
    frames, boxes, clip_index, bank = batch([2, 0, 3], rows=[3, 2, 4])
    with torch.inference_mode():
        projected = net.project_rows(bank.maps, None, 64, 64)
        assert {rows.dtype for found in projected.values() for rows in found} == {
            torch.bfloat16 if settings.get("precision") == "bf16" else torch.float32
        }
        shared = BankBatch(None, bank.clip_index, torch.arange(9), projected=projected)
        one, two = (net(frames, boxes, clip_index, bank=rows) for rows in (bank, shared))
    bound = 0.05 if "precision" in settings else 1e-5
    torch.testing.assert_close(one, two, rtol=0, atol=bound * float(one.abs().max()))


def test_a_compiled_backbone_takes_batches_of_all_sizes(traced):
    """Compiled anew when the number of clips, or the frame size, varies for the first time; not after that."""
    plain, net = (network(s, depths=(1, 1, 1, 1)).eval() for s in ({}, {"compile": "backbone"}))
    seen = []
    for clips, height in [(4, 64), (5, 64), (5, 80), (6, 96), (7, 112), (4, 80)]:
        frames, boxes, clip_index, _ = batch([1] * clips, height=height)
        with torch.inference_mode():
            torch.testing.assert_close(
                net(frames, boxes, clip_index), plain(frames, boxes, clip_index), rtol=1e-4, atol=1e-5
            )
        seen.append(graphs())
    assert seen == [1, 2, 3, 3, 3, 3]
    assert not counters["graph_break"]


def test_compiled_and_recomputed(traced):
    settings = {"compile": "all", "checkpoint_activations": "all"}
    plain, net = (network(s, norm="batch", depths=(1, 1, 1, 1)) for s in ({}, settings))
    one, two = step(plain, [2, 0, 3]), step(net, [2, 0, 3])
    logits, gradient = apart(one, two)
    assert logits < 1e-4 and gradient < 1e-3
    for name, value in one.buffers.items():
        torch.testing.assert_close(two.buffers[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_checkpoint_goes_from_any_settings_to_any(tmp_path):
    plain, net = network({}), network({"checkpoint_activations": "all", "memory_format": "contiguous"})
    config = Config().stage1
    optimizers = [make_optimizer(n, config) for n in (plain, net)]
    step(net, [2, 1])
    optimizers[1].step()
    Checkpointer(tmp_path, "x").save(1, net, optimizers[1], Tally())
    assert Checkpointer(tmp_path, "x").restore(plain, optimizers[0])[0] == 1
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in net.state_dict().items())
    logits, gradient = apart(step(net, [2, 1]), step(plain, [2, 1]))
    assert logits < 1e-5 and gradient < 1e-5
    weight = plain.backbone.get_parameter("slow_res4.0.conv2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d), (
        "a checkpoint brings no order of its own"
    )


def test_non_local_blocks_are_units_too():
    torch.manual_seed(0)
    block = NonLocal(8, torch.nn.BatchNorm3d(8)).train()
    x = torch.rand(2, 8, 2, 4, 4, requires_grad=True)
    found = []
    for recomputed in (False, True):
        block.bn.reset_running_stats()
        if recomputed:
            compute.apply_to_part(block, "backbone", ComputeConfig(checkpoint_activations="backbone"))
        block.zero_grad(set_to_none=True)
        x.grad = None
        block(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in block.parameters()), *(b.clone() for b in block.buffers())])
    assert all(torch.equal(a, b) for a, b in zip(*found))


@pytest.mark.parametrize(
    ("norm", "settings"),
    [("batch", {"checkpoint_activations": "backbone"}), ("frozen_batch", {"memory_format": "contiguous"})],
)
def test_i3d(norm, settings):
    """Recomputed to the same bits, batch norm's averages too; in both memory orders the same but for rounding."""
    config = BackboneConfig(kind="i3d", width=I3D_WIDTH // 8, norm=norm)
    found = []
    for chosen in (ComputeConfig(), ComputeConfig(**settings)):
        torch.manual_seed(0)
        net = I3D(config).train()
        compute.set_memory_format(net, chosen.memory_format)
        compute.apply_to_part(net, "backbone", chosen)
        (maps,) = net(torch.rand((2, 3, 8, 64, 64), generator=torch.Generator().manual_seed(1)))
        maps.square().mean().backward()
        found.append([maps, *(p.grad for p in net.parameters()), *net.buffers()])
    if norm == "batch":
        assert all(torch.equal(a, b) for a, b in zip(*found))
    for a, b in zip(*([value.detach().double() for value in values] for values in found)):
        assert float((a - b).norm()) <= 1e-4 * float(a.norm())


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"compute\.compile: head: no C\+\+ compiler was found .*g\+\+.*CXX"):
        network({"compile": "head"})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler"):
        check_compiler(ComputeConfig(compile="all"), CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="triton"):
        check_compiler(ComputeConfig(compile="all"), torch.device("cuda"))
    check_compiler(ComputeConfig(), CPU)


def test_prepared_returns_the_network_itself():
    net = network({})
    assert prepared(net, ComputeConfig(), CPU) is net
