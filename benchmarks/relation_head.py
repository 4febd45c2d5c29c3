"""Claim: the relation head beats the released algorithm at every number of actors, and a batch beats its clips alone.

Forward and backward pass on backbone maps of 256x320 frames (16x20 cells, slow 2048 x 8, fast 256 x 32; C 1024,
d 512, two HR2O blocks) with the same weights: `plain/head.py` against `acar.models.head`, in interleaved rounds. Then
our head on 8 clips of 1 to 15 actors at once against the same clips one after another.

    python benchmarks/relation_head.py             # 1, 5, 15 and 30 actors, one thread: about 4 minutes
    python benchmarks/relation_head.py --quick     # 1 and 5 actors, few rounds: under a minute
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import Work, interleave, peak_mib, plain_and_ours, print_table, ratio, save_json, threads
from operations import HeadShape, allowed_ratio, our_head, plain_head
from plain.head import PlainHead
from torch import Tensor, nn

from acar.config import HeadConfig
from acar.models.head import ActorContextHead

SHAPE = HeadShape()
SLOW_CHANNELS, FAST_CHANNELS, SLOW_FRAMES, FAST_FRAMES = 2048, 256, 8, 32
BATCH = (1, 3, 5, 7, 9, 11, 13, 15)
QUICK_BATCH = (1, 2, 5)


class OfPathways(PlainHead):
    """The plain head called as ours is: with the maps of both pathways as one argument."""

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, clip_index: Tensor) -> Tensor:
        return super().forward(*maps, boxes, clip_index)


def plain() -> nn.Module:
    """The released algorithm."""
    torch.manual_seed(0)
    return OfPathways(SLOW_CHANNELS, FAST_CHANNELS, SHAPE.classes)


def ours() -> nn.Module:
    """Our head with the plain one's weights."""
    head = ActorContextHead(HeadConfig(), (SLOW_CHANNELS, FAST_CHANNELS), SHAPE.classes)
    head.load_state_dict(plain().state_dict())
    return head


HEADS = {"plain": plain, "ours": ours}


def inputs(actors: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maps, boxes and clip index of clips with so many actors each; the maps ask for gradients, as in training."""
    generator = torch.Generator().manual_seed(1)
    b, n = len(actors), sum(actors)
    slow = torch.rand((b, SLOW_CHANNELS, SLOW_FRAMES, SHAPE.h, SHAPE.w), generator=generator)
    fast = torch.rand((b, FAST_CHANNELS, FAST_FRAMES, SHAPE.h, SHAPE.w), generator=generator)
    corners = torch.rand((n, 2), generator=generator) * 0.5
    sides = 0.1 + torch.rand((n, 2), generator=generator) * 0.4
    clip_index = torch.repeat_interleave(torch.arange(b), torch.tensor(actors))
    return slow.requires_grad_(), fast.requires_grad_(), torch.cat([corners, corners + sides], 1), clip_index


def work_of(head: nn.Module, actors: Sequence[int], backward: bool = True) -> Work:
    """One pass over clips with so many actors each; their gradients are dropped first."""
    slow, fast, boxes, clip_index = inputs(actors)

    def work() -> None:
        if not backward:
            with torch.no_grad():
                head((slow, fast), boxes, clip_index)
            return
        slow.grad = fast.grad = None
        head.zero_grad(set_to_none=True)
        head((slow, fast), boxes, clip_index).square().mean().backward()

    return work


def prepare(name: str, actors: tuple[int, ...], backward: bool) -> Work:
    """The work of a head, for a fresh process."""
    return work_of(HEADS[name]().train(backward), actors, backward)


def compare(counts: Sequence[int], rounds: int, n_threads: int, backward: bool) -> list[dict[str, object]]:
    """A row for each number of actors in one clip: both heads' times and peaks, ratio, and share of the allowed."""
    heads = {name: build().train(backward) for name, build in HEADS.items()}
    rows = []
    for n in counts:
        spent = interleave({name: work_of(head, (n,), backward) for name, head in heads.items()}, rounds)
        allowed = allowed_ratio(
            plain_head(SHAPE, [n]), our_head(SHAPE, [n], pooled_before_last=not backward), backward=backward
        )
        peak = {name: peak_mib(prepare, name, (n,), backward, n_threads=n_threads) for name in HEADS}
        rows.append({"actors": n} | plain_and_ours(spent, allowed, peak))
    return rows


def batch_against_clips(
    batch: Sequence[int], rounds: int, n_threads: int, backward: bool
) -> dict[str, object]:
    """Our head on clips at once, against the same clips one after another."""
    head = ours().train(backward)
    alone = [work_of(head, (n,), backward) for n in batch]
    variants: dict[str, Work] = {
        "alone": lambda: [work() for work in alone],
        "batch": work_of(head, batch, backward),
    }
    spent = interleave(variants, rounds)
    return {
        "actors of the clips": " ".join(map(str, batch)),
        "sum of its clips, s": statistics.median(spent["alone"]),
        "batch, s": statistics.median(spent["batch"]),
        "sum / batch": ratio(spent["alone"], spent["batch"]),
        "batch peak, MiB": peak_mib(prepare, "ours", tuple(batch), backward, n_threads=n_threads),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forward", action="store_true", help="inference: no backward pass, no dropout")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    counts = arguments.actors or ([1, 5] if arguments.quick else [1, 5, 15, 30])
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    batch = QUICK_BATCH if arguments.quick else BATCH
    backward = not arguments.forward
    with threads(arguments.threads):
        heads = compare(counts, rounds, arguments.threads, backward)
        print_table(heads)
        print()
        together = [batch_against_clips(batch, rounds, arguments.threads, backward)]
        print_table(together)
    save_json(arguments.json, sys.argv, {"heads": heads, "batch": together})


if __name__ == "__main__":
    main()
