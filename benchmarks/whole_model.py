"""Claim: the whole R50 model is not slower than plain PyTorch on a CPU; prints the peak memory of both.

Clips of 32x256x320 with one actor, the same weights: `plain/network.py` (3-D convolutions, default memory order, the
plain head) against `acar.models.net`, forward (inference) and training step (forward, loss, backward, SGD), in
interleaved rounds on one and on two threads.

    python benchmarks/whole_model.py             # about 6 minutes
    python benchmarks/whole_model.py --quick     # 8 frames of 128x160, one thread: under a minute of work
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import Work, interleave, peak_mib, print_table, ratio, save_json, threads
from plain.network import plain_r50
from torch import nn

from acar.config import ModelConfig
from acar.models.net import build_network

CLASSES = 60
MODES = ("forward", "training step")


def plain() -> nn.Module:
    """The plain model."""
    torch.manual_seed(0)
    return plain_r50(CLASSES)


def ours() -> nn.Module:
    """Our model with the plain one's weights."""
    with torch.device("meta"):  # its own initialisation would be thrown away
        network = build_network(ModelConfig(), CLASSES)
    network.load_state_dict(plain().state_dict(), assign=True)
    return network


MODELS = {"plain": plain, "ours": ours}


def work_of(network: nn.Module, mode: str, size: tuple[int, int, int], n_actors: int) -> Work:
    """One pass over a clip of `size` (frames, height, width)."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand((1, 3, *size), generator=generator)
    corners = torch.rand((n_actors, 2), generator=generator) * 0.5
    boxes = torch.cat([corners, corners + 0.4], dim=1)
    targets = torch.rand((n_actors, CLASSES), generator=generator).round()
    clip_index = torch.zeros(n_actors, dtype=torch.int64)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)

    def forward() -> None:
        network.eval()
        with torch.no_grad():
            network(frames, boxes, clip_index)

    def training_step() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(network(frames, boxes, clip_index), targets).backward()
        optimizer.step()

    return forward if mode == "forward" else training_step


def prepare(name: str, mode: str, size: tuple[int, int, int], n_actors: int) -> Work:
    """The work of a model, for a fresh process."""
    return work_of(MODELS[name](), mode, size, n_actors)


def compare(
    models: Mapping[str, nn.Module],
    mode: str,
    size: tuple[int, int, int],
    n_actors: int,
    rounds: int,
    n_threads: int,
) -> dict[str, object]:
    """Both models' times and peaks in one mode, at so many threads."""
    with threads(n_threads):
        spent = interleave({name: work_of(m, mode, size, n_actors) for name, m in models.items()}, rounds)
    peak = {name: peak_mib(prepare, name, mode, size, n_actors, n_threads=n_threads) for name in MODELS}
    return {
        "work": mode,
        "threads": n_threads,
        "plain, s": statistics.median(spent["plain"]),
        "ours, s": statistics.median(spent["ours"]),
        "plain / ours": ratio(spent["plain"], spent["ours"]),
        "plain peak, MiB": peak["plain"],
        "ours peak, MiB": peak["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    size = (8, 128, 160) if arguments.quick else (32, 256, 320)
    rounds = arguments.rounds or (2 if arguments.quick else 3)
    models = {name: build() for name, build in MODELS.items()}
    rows = [
        compare(models, mode, size, arguments.actors, rounds, n)
        for n in arguments.threads or ([1] if arguments.quick else [1, 2])
        for mode in arguments.modes
    ]
    print_table(rows)
    save_json(arguments.json, sys.argv, {"clip": size, "whole_model": rows})


if __name__ == "__main__":
    main()
