"""Means of convolutions without their maps."""

from __future__ import annotations

import pytest
import torch

from acar.models.convolution import mean_of_convolution, same_convolution


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (2, 2), (3, 4), (7, 9)])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_mean_of_a_convolution_and_its_gradients(kernel: int, grid: tuple[int, int], n: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(n, 4, *grid, dtype=torch.float64), torch.randn(6, 4, kernel, kernel).double()
    upstream = torch.randn(n, 6, dtype=torch.float64)
    found = []
    for means in (mean_of_convolution, lambda maps, weight: same_convolution(maps, weight).mean((2, 3))):
        maps, weight = (value.clone().requires_grad_() for value in values)
        out = means(maps, weight)
        out.backward(upstream)
        found.append((out, maps.grad, weight.grad))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-12)


def test_same_convolution_keeps_the_grid() -> None:
    maps = torch.randn(2, 3, 5, 4)
    assert [same_convolution(maps, torch.randn(6, 3, k, k)).shape for k in (1, 3)] == [(2, 6, 5, 4)] * 2
