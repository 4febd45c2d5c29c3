"""Claim: stage-2 prediction over a whole video relates its actors at least 5x faster than window by window.

The relation part of prediction, from a clip's first-order maps F and its window of bank rows to the spatial means
that the classifier takes: `acar`'s, which projects each row of the video once, against a plain implementation that
takes each key frame's rows through the key and value convolutions anew, as the published algorithm is written (own
code, below). Both get the same weights and rows and must agree. Rounds alternate in one process; the memory of each
is measured in a process of its own, over what weights and rows take.

    python benchmarks/window_prediction.py                  # 120 s, d 512, 7x9, window 21 s, 2 actors a second
    python benchmarks/window_prediction.py --seconds 25 --rounds 1
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acar.bank.reader import BankRows, WindowRows
from acar.config import HeadConfig, WindowConfig
from acar.data.video_windows import VideoWindows
from acar.models.head import ActorContextHead

AGREEMENT = 1e-4  # max |difference| over max |value|, float32


@dataclass
class Video:
    """A video's bank rows (M, d, h, w) float16 and its clips' maps F (M, d, h, w), `actors` a second from 0."""

    maps: np.ndarray
    features: Tensor
    actors: int
    d: int
    c: int = 0

    def rows_of(
        self, video: str, time_s: float, radius_s: float, exclude_radius_s: float | None = None
    ) -> WindowRows:
        first = max(0, round(time_s - radius_s) * self.actors)
        last = min(len(self.maps), (round(time_s + radius_s) + 1) * self.actors)
        return WindowRows(np.arange(first, last), first)

    def read(self, video: str, numbers: np.ndarray) -> BankRows:
        n = len(numbers)
        none = np.zeros((n, 0))
        return BankRows(self.maps[numbers], none, none, numbers // self.actors, video, none)

    def clip(self, second: int) -> Tensor:
        """F (N, d, h, w) of the actors of a key frame."""
        return self.features[second * self.actors : (second + 1) * self.actors]


def draw(arguments: argparse.Namespace) -> tuple[ActorContextHead, Video]:
    """A head with random weights and a video; maps are rectified, as an encoder's."""
    torch.manual_seed(0)
    head = ActorContextHead(
        HeadConfig(reduce_channels=8, hidden_channels=arguments.d, hr2o_depth=arguments.depth), (4, 4), 1
    )
    shape = (arguments.seconds * arguments.actors, arguments.d, *arguments.grid)
    rows, features = (torch.randn(shape).clamp(min=0) for _ in range(2))
    return head.eval(), Video(rows.half().numpy(), features, arguments.actors, arguments.d)


def cached(head: ActorContextHead, video: Video, arguments: argparse.Namespace) -> Tensor:
    """`acar`'s prediction: (K, d) of all actors of the video."""
    window = WindowConfig(radius_s=arguments.radius_s)

    def project(maps: Tensor | None, actors: Tensor | None) -> dict:
        return head.project_rows(maps, actors, tuple(arguments.grid))

    windows = VideoWindows(video, "video", window, project, torch.device("cpu"))
    found = []
    for start in range(0, arguments.seconds, arguments.batch_clips):
        seconds = range(start, min(arguments.seconds, start + arguments.batch_clips))
        bank = windows.batch([float(second) for second in seconds])
        clips = torch.arange(len(seconds)).repeat_interleave(video.actors)
        maps = torch.cat([video.clip(second) for second in seconds])
        found.append(head.relate_means(maps, clips, len(seconds), bank))
    return torch.cat(found)


def plain(head: ActorContextHead, video: Video, arguments: argparse.Namespace) -> Tensor:
    """Each key frame for itself: its window's rows through every block's convolutions."""
    found = []
    for second in range(arguments.seconds):
        numbers = video.rows_of("video", second, arguments.radius_s).numbers
        rows = torch.from_numpy(video.maps[numbers]).float()
        maps = video.clip(second)
        for block in head.hr2o:
            q, k, v = (
                F.conv2d(source, conv.weight, padding=1)
                for source, conv in ((maps, block.conv_q), (rows, block.conv_k), (rows, block.conv_v))
            )
            attention = torch.einsum("idhw,jdhw->ijhw", q, k).div(math.sqrt(video.d)).softmax(1)
            related = torch.einsum("ijhw,jdhw->idhw", attention, v)
            mean, variance = (
                related.mean((1, 2, 3), keepdim=True),
                related.var((1, 2, 3), False, keepdim=True),
            )
            scaled = (related - mean) / torch.sqrt(variance + block.norm.eps)
            scaled = scaled * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
            weight = block.conv.weight
            maps = maps + F.conv2d(scaled.clamp(min=0), weight, padding=weight.shape[2] // 2)
        found.append(maps.mean((2, 3)))
    return torch.cat(found)


ROUTES: dict[str, Callable[..., Tensor]] = {"plain": plain, "cached": cached}


@torch.inference_mode()
def seconds_spent(name: str, inputs: tuple) -> tuple[float, Tensor]:
    """One pass of a route over the video."""
    start = time.perf_counter()
    found = ROUTES[name](*inputs)
    return time.perf_counter() - start, found


def peak_mib(name: str, arguments: argparse.Namespace) -> float:
    """By how much one pass raises the resident size of this process, a fresh one (Linux)."""
    torch.set_num_threads(arguments.threads)
    inputs = (*draw(arguments), arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at the present size
    before = resident_mib("VmRSS")
    seconds_spent(name, inputs)
    return resident_mib("VmHWM") - before


def resident_mib(name: str) -> float:
    """A field of this process's status."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[name].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=120, help="of the video, a key frame each")
    parser.add_argument("--actors", type=int, default=2, help="a second")
    parser.add_argument("--radius-s", type=int, default=10)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--grid", type=int, nargs=2, default=[7, 9], metavar=("H", "W"))
    parser.add_argument("--depth", type=int, default=2, help="relation blocks")
    parser.add_argument("--batch-clips", type=int, nargs="+", default=[1, 8], help="clips a forward pass")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    head, video = draw(arguments)
    cases = {f"cached, {n} clips a pass": n for n in arguments.batch_clips}
    spent: dict[str, list[float]] = {name: [] for name in ("plain", *cases)}
    for _ in range(arguments.rounds):
        took, expected = seconds_spent("plain", (head, video, arguments))
        spent["plain"].append(took)
        for name, n in cases.items():
            settings = argparse.Namespace(**{**vars(arguments), "batch_clips": n})
            took, found = seconds_spent("cached", (head, video, settings))
            spent[name].append(took)
            difference = float((found - expected).abs().max() / expected.abs().max())
            assert difference <= AGREEMENT, f"{name} differs from the plain route by {difference:.1e}"
    rows = min(2 * arguments.radius_s + 1, arguments.seconds) * arguments.actors
    print(f"{arguments.seconds} key frames, {rows} rows a window, threads {arguments.threads}")
    base = statistics.median(spent["plain"])
    context = multiprocessing.get_context("spawn")
    for name, times in spent.items():
        settings = argparse.Namespace(**{**vars(arguments), "batch_clips": cases.get(name, 1)})
        with context.Pool(1) as pool:
            peak = pool.apply(peak_mib, ("cached" if name in cases else name, settings))
        took = statistics.median(times)
        print(
            f"{name:24s} {1000 * took / arguments.seconds:8.1f} ms a key frame   "
            f"{base / took:5.1f}x (rounds {', '.join(f'{b / t:.1f}' for b, t in zip(spent['plain'], times))})   "
            f"peak +{peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
