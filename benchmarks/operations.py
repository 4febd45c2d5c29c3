"""Multiply-adds of relation heads, by arithmetic: the released algorithm's and ours. Derivation: docs/speed.md.

Counted: convolutions, linear layers and the two products of the attention. Not counted: additions (among them those
of the split first layer), softmax, norms, ReLUs, pooling, temporal means, RoIAlign.

    python benchmarks/operations.py     # the tables of docs/speed.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GIGA = 1e9


@dataclass(frozen=True)
class HeadShape:
    """Sizes that the counts depend on; the defaults are the released R50 head on 256x320 frames."""

    pathway_channels: int = 2304
    c: int = 1024
    d: int = 512
    h: int = 16
    w: int = 20
    downsample: bool = True
    depth: int = 2
    mlp_kernel: int = 3
    classes: int = 60

    @property
    def context_cells(self) -> int:
        """Cells of X."""
        return self.h * self.w

    @property
    def encoded_cells(self) -> int:
        """Cells behind the encoder's unpadded 3x3 convolution."""
        return (self.h - 2) * (self.w - 2)

    @property
    def related_cells(self) -> int:
        """Cells of the maps that HR2O works on."""
        h, w = self.h - 2, self.w - 2
        return -(-h // 2) * -(-w // 2) if self.downsample else h * w


def _common(s: HeadShape, actors: Sequence[int]) -> dict[str, int]:
    n, b, p = sum(actors), len(actors), s.related_cells
    return {
        "reduction": b * s.context_cells * s.pathway_channels * s.c,
        "encoder 3x3": n * s.encoded_cells * 9 * s.d**2,
        "q, k, v": s.depth * n * p * 3 * 9 * s.d**2,
        "HR2O convolution": s.depth * n * p * s.mlp_kernel**2 * s.d**2,
        "classifier": n * (s.c * s.d + 2 * s.d * s.classes),
    }


def plain_head(shape: HeadShape, actors: Sequence[int]) -> dict[str, int]:
    """Forward multiply-adds of the released algorithm, by term, for clips of so many actors each."""
    return _common(shape, actors) | {
        "encoder 1x1": sum(actors) * shape.context_cells * 2 * shape.c * shape.d,
        "attention": shape.depth * shape.related_cells * 2 * shape.d * sum(n * n for n in actors),
    }


def our_head(shape: HeadShape, actors: Sequence[int]) -> dict[str, int]:
    """The same of ours: the first layer a clip and an actor instead of a pair; ragged clips padded to the widest."""
    b, n, widest = len(actors), sum(actors), max(actors)
    return _common(shape, actors) | {
        "encoder 1x1": (b * shape.context_cells + n) * shape.c * shape.d,
        "attention": shape.depth * shape.related_cells * 2 * shape.d * b * widest**2,
    }


def plain_relation_network(shape: HeadShape, actors: Sequence[int]) -> dict[str, int]:
    """RN with every triplet [A^i, A^j, X] formed and put through both layers."""
    pairs = sum(n * n for n in actors)
    return {
        "1x1": pairs * shape.context_cells * 3 * shape.c * shape.d,
        "3x3": pairs * shape.encoded_cells * 9 * shape.d**2,
    }


def our_relation_network(shape: HeadShape, actors: Sequence[int]) -> dict[str, int]:
    """RN with the first layer split over its three parts, and the second run on the mean over j."""
    b, n = len(actors), sum(actors)
    return {
        "1x1": (b * shape.context_cells + 2 * n) * shape.c * shape.d,
        "3x3": n * shape.encoded_cells * 9 * shape.d**2,
    }


def total(terms: Mapping[str, int], *, backward: bool = False) -> int:
    """Sum of the terms. A layer's backward pass is two products of its size: by its input and by its weights."""
    return sum(terms.values()) * (3 if backward else 1)


def allowed_ratio(plain: Mapping[str, int], ours: Mapping[str, int], *, backward: bool = False) -> float:
    """The plain algorithm's multiply-adds over ours: the gain that the count allows at equal speed of arithmetic."""
    return total(plain, backward=backward) / total(ours, backward=backward)
