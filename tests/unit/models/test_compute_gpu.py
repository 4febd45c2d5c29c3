"""Settings of `compute` on a CUDA device, against float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from compute_samples import apart, network, step
from torch._dynamo.utils import counters

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
# Bounds of the logits and of the whole gradient.
CASES = [
    ({}, 1e-4, 1e-3),
    ({"memory_format": "contiguous"}, 1e-4, 1e-3),
    ({"checkpoint_activations": "all"}, 1e-4, 1e-3),
    ({"precision": "tf32"}, 2e-2, 0.1),
    ({"precision": "bf16"}, 0.1, 0.5),
    ({"precision": "bf16", "checkpoint_activations": "all"}, 0.1, 0.5),
    ({"compile": "all"}, 1e-4, 1e-3),
    ({"compile": "all", "checkpoint_activations": "all"}, 1e-4, 1e-3),
    ({"compile": "all", "precision": "bf16"}, 0.1, 0.5),
]


@pytest.fixture(autouse=True)
def cuda_precision_as_before() -> Iterator[None]:
    operations = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [operation.fp32_precision for operation in operations]
    torch._dynamo.reset()
    counters.clear()
    yield
    for operation, precision in zip(operations, before):
        operation.fp32_precision = precision


@pytest.mark.parametrize(
    ("settings", "logits_bound", "gradient_bound"),
    CASES,
    ids=["-".join(settings.values()) or "default" for settings, _, _ in CASES],
)
def test_a_training_step(settings, logits_bound, gradient_bound):
    net, reference = network(settings, device="cuda"), network({})
    for seed, (counts, rows) in enumerate([([2, 0, 3], None), ([3, 1, 2], [2, 0, 4]), ([0, 0], [1, 1])]):
        one, two = (step(n, counts, rows=rows, seed=seed) for n in (reference, net))
        assert two.logits.is_cuda and two.logits.dtype == torch.float32
        if sum(counts):
            logits, gradient = apart(one, two)
            assert logits <= logits_bound and gradient <= gradient_bound, (counts, logits, gradient)


def test_tf32_rounds_products_and_float32_does_not():
    torch.manual_seed(0)
    a, b = torch.randn(2, 512, 512)
    exact = a.double() @ b.double()
    errors = []
    for precision in ("float32", "tf32"):
        network({"precision": precision}, device="cuda")
        errors.append(float(((a.cuda() @ b.cuda()).cpu() - exact).abs().max()))
    assert errors[0] < 2e-4 < errors[1]


def test_recomputation_saves_memory():
    peaks = []
    for part in ("none", "all"):
        net = network({"checkpoint_activations": part}, device="cuda")
        step(net, [4] * 8)
        torch.cuda.reset_peak_memory_stats()
        step(net, [4] * 8)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < peaks[0]
