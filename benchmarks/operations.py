"""Multiply-adds of relation heads, by arithmetic: the released algorithm's and ours. Derivation: docs/speed.md.

Counted: convolutions, linear layers and the two products of the attention. Not counted: additions (among them those
of the split first layer), softmax, norms, ReLUs, pooling, temporal means, RoIAlign.

    python benchmarks/operations.py     # the tables of docs/speed.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from measure import print_table

GIGA = 1e9
Terms = dict[str, int]  # multiply-adds by term
Row = dict[str, object]


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


def _common(s: HeadShape, actors: Sequence[int]) -> Terms:
    n, b, p = sum(actors), len(actors), s.related_cells
    return {
        "reduction": b * s.context_cells * s.pathway_channels * s.c,
        "encoder 3x3": n * s.encoded_cells * 9 * s.d**2,
        "q, k, v": s.depth * n * p * 3 * 9 * s.d**2,
        "HR2O convolution": s.depth * n * p * s.mlp_kernel**2 * s.d**2,
        "classifier": n * (s.c * s.d + 2 * s.d * s.classes),
    }


def plain_head(shape: HeadShape, actors: Sequence[int]) -> Terms:
    """Forward multiply-adds of the released algorithm, by term, for clips of so many actors each."""
    return _common(shape, actors) | {
        "encoder 1x1": sum(actors) * shape.context_cells * 2 * shape.c * shape.d,
        "attention": shape.depth * shape.related_cells * 2 * shape.d * sum(n * n for n in actors),
    }


def our_head(shape: HeadShape, actors: Sequence[int], *, pooled_before_last: bool = False) -> Terms:
    """The same of ours: the first layer a clip and an actor instead of a pair; ragged clips padded to the widest.

    An actor alone in its clip needs no query and no key.
    `pooled_before_last`: at inference the last block's convolution commutes with the mean over the map that follows
    it, and then runs on sums of the map, once an actor instead of once a cell.
    """
    b, n, widest = len(actors), sum(actors), max(actors)
    alone = sum(count == 1 for count in actors)
    terms = _common(shape, actors)
    terms["q, k, v"] -= shape.depth * alone * shape.related_cells * 2 * 9 * shape.d**2
    if pooled_before_last and shape.depth:
        k, p = shape.mlp_kernel, shape.related_cells
        terms["HR2O convolution"] += n * k**2 * (p * shape.d - (p - 1) * shape.d**2)
    return terms | {
        "encoder 1x1": (b * shape.context_cells + n) * shape.c * shape.d,
        "attention": shape.depth * shape.related_cells * 2 * shape.d * b * widest**2,
    }


def plain_relation_network(shape: HeadShape, actors: Sequence[int]) -> Terms:
    """RN with every triplet [A^i, A^j, X] formed and put through both layers."""
    pairs = sum(n * n for n in actors)
    return {
        "1x1": pairs * shape.context_cells * 3 * shape.c * shape.d,
        "3x3": pairs * shape.encoded_cells * 9 * shape.d**2,
    }


def our_relation_network(shape: HeadShape, actors: Sequence[int]) -> Terms:
    """RN with the first layer split over its three parts, and the second run on the mean over j."""
    b, n = len(actors), sum(actors)
    return {
        "1x1": (b * shape.context_cells + 2 * n) * shape.c * shape.d,
        "3x3": n * shape.encoded_cells * 9 * shape.d**2,
    }


def plain_window(shape: HeadShape, actors: int, rows: int) -> Terms:
    """HR2O of a clip over a bank's window: queries of its actors, keys and values of every row (eq. 5)."""
    p, k = shape.depth * shape.related_cells, 9 * shape.d**2
    return {
        "queries": p * actors * k,
        "keys and values": p * rows * 2 * k,
        "HR2O convolution": p * actors * shape.mlp_kernel**2 * shape.d**2,
        "attention": p * 2 * shape.d * actors * rows,
    }


def our_window(shape: HeadShape, actors: int, rows: int, new_rows: int) -> Terms:
    """The same where the neighbouring window has left the keys and values of all but `new_rows` rows."""
    p, k = shape.depth * shape.related_cells, 9 * shape.d**2
    return plain_window(shape, actors, rows) | {"keys and values": p * new_rows * 2 * k}


def total(terms: Mapping[str, int], *, backward: bool = False) -> int:
    """Sum of the terms. A layer's backward pass is two products of its size: by its input and by its weights."""
    return sum(terms.values()) * (3 if backward else 1)


def allowed_ratio(plain: Mapping[str, int], ours: Mapping[str, int], *, backward: bool = False) -> float:
    """The plain algorithm's multiply-adds over ours: the gain that the count allows at equal speed of arithmetic."""
    return total(plain, backward=backward) / total(ours, backward=backward)


def _row(n: int, plain: Terms, ours: Terms) -> Row:
    both = {"plain": total(plain) / GIGA, "ours": total(ours) / GIGA}
    return {"actors": n} | both | {"plain / ours": allowed_ratio(plain, ours)}


def _head_rows(shape: HeadShape) -> list[Row]:
    rows = []
    for n in (1, 5, 15, 30):
        plain, pooled = plain_head(shape, [n]), our_head(shape, [n], pooled_before_last=True)
        inference = {
            "ours, inference": total(pooled) / GIGA,
            "plain / inference": allowed_ratio(plain, pooled),
        }
        rows.append(_row(n, plain, our_head(shape, [n])) | inference)
    return rows


def _term_rows(shape: HeadShape, n: int) -> list[Row]:
    columns = {
        "plain": plain_head(shape, [n]),
        "ours": our_head(shape, [n]),
        "ours, inference": our_head(shape, [n], pooled_before_last=True),
    }
    terms = columns["plain"]
    return [{"term": term} | {name: c[term] / GIGA for name, c in columns.items()} for term in terms]


def tables() -> Iterator[tuple[str, list[Row]]]:
    """Titles and rows of docs/speed.md, in 10^9 multiply-adds of a forward pass."""
    shape = HeadShape()
    yield "Head, one clip, downsample max2x2", _head_rows(shape)
    yield "Head, one clip, downsample none", _head_rows(HeadShape(downsample=False))
    yield "Terms of the head, 15 actors, downsample max2x2", _term_rows(shape, 15)
    yield (
        "Relation network, one clip",
        [_row(n, plain_relation_network(shape, [n]), our_relation_network(shape, [n])) for n in (1, 5, 15)],
    )
    yield (
        "HR2O over a window of 21 s, so many actors a second, for each second predicted",
        [_row(n, plain_window(shape, n, 21 * n), our_window(shape, n, 21 * n, n)) for n in (1, 2, 5)],
    )


def main() -> None:
    for title, rows in tables():
        print(f"\n{title}\n")
        print_table(rows)


if __name__ == "__main__":
    main()
