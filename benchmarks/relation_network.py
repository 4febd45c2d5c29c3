"""Claim: the relation network without triplets is more than ten times as fast as forming them, at 15 actors.

Forward and backward pass of RN (eq. 3-4) on one clip's actor features and a 16x20 context, C 1024, d 512, with the
same weights: `plain/relation_network.py`, which forms every [A^i, A^j, X], against
`acar.models.relations.relation_network`.

    python benchmarks/relation_network.py             # 1, 5 and 15 actors, one thread: about 3 minutes, 4 GB
    python benchmarks/relation_network.py --quick     # 5 actors alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import Work, interleave, peak_mib, plain_and_ours, print_table, save_json, threads
from operations import HeadShape, allowed_ratio, our_relation_network, plain_relation_network
from plain.relation_network import PlainRelationNetwork
from torch import nn

from acar.models.relations.relation_network import RelationNetwork

SHAPE = HeadShape()


def plain() -> nn.Module:
    """Triplets formed."""
    torch.manual_seed(0)
    return PlainRelationNetwork(SHAPE.c, SHAPE.d, SHAPE.downsample)


def ours() -> nn.Module:
    """Our RN with the plain one's weights."""
    network = RelationNetwork(SHAPE.c, SHAPE.d, SHAPE.downsample)
    network.load_state_dict(plain().state_dict())
    return network


NETWORKS = {"plain": plain, "ours": ours}


def work_of(network: nn.Module, n: int, backward: bool) -> Work:
    """One pass over a clip of n actors."""
    generator = torch.Generator().manual_seed(1)
    actors = torch.rand((n, SHAPE.c), generator=generator).requires_grad_()
    context = torch.rand((1, SHAPE.c, SHAPE.h, SHAPE.w), generator=generator).requires_grad_()
    clip_index = torch.zeros(n, dtype=torch.int64)

    def work() -> None:
        if not backward:
            with torch.no_grad():
                network(actors, context, clip_index)
            return
        actors.grad = context.grad = None
        network.zero_grad(set_to_none=True)
        network(actors, context, clip_index).square().mean().backward()

    return work


def prepare(name: str, n: int, backward: bool) -> Work:
    """The work of a network, for a fresh process."""
    return work_of(NETWORKS[name](), n, backward)


def compare(counts: Sequence[int], rounds: int, n_threads: int, backward: bool) -> list[dict[str, object]]:
    """A row for each number of actors."""
    networks = {name: build() for name, build in NETWORKS.items()}
    rows = []
    for n in counts:
        spent = interleave({name: work_of(net, n, backward) for name, net in networks.items()}, rounds)
        allowed = allowed_ratio(plain_relation_network(SHAPE, [n]), our_relation_network(SHAPE, [n]))
        peak = {
            name: peak_mib(prepare, name, n, backward, n_threads=n_threads, repeats=1) for name in NETWORKS
        }
        rows.append({"actors": n} | plain_and_ours(spent, allowed, peak))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forward", action="store_true", help="no backward pass")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    counts = arguments.actors or ([5] if arguments.quick else [1, 5, 15])
    rounds = arguments.rounds or (2 if arguments.quick else 3)
    with threads(arguments.threads):
        rows = compare(counts, rounds, arguments.threads, not arguments.forward)
    print_table(rows)
    save_json(arguments.json, sys.argv, {"relation_network": rows})


if __name__ == "__main__":
    main()
