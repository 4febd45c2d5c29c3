"""Claim: a window costs milliseconds through Zarr (mostly decompression), and about a plain copy once cached.

Writes a small bank of post-ReLU-like maps (half of them zero), seals it, and times windows at random seconds,
as training asks for them, through `BankReader` without its cache, with the whole bank in its cache, and as
copies from a memory-mapped file of the same rows. Prints ms a window and the ratios.

    python benchmarks/bank_window.py                                   # d = 64, 6x9, about 24 rows a window
    python benchmarks/bank_window.py --d 512 --grid 7 13 --rows 42     # the paper's maps
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from acar.bank.reader import BankReader
from acar.bank.seal import seal
from acar.bank.writer import ShardWriter
from acar.config import BankConfig

FACTS = {"split": "val", "shard": 0, "weights_sha256": "-", "boxes_sha256": "-", "config_sha256": "-"}


def write_bank(root: Path, arguments: argparse.Namespace) -> tuple[Path, np.ndarray, int]:
    """A bank of one shard; returns its folder, all its maps, and the rows of a second."""
    rng = np.random.default_rng(0)
    a_second = max(1, round(arguments.rows / (2 * arguments.radius_s + 1)))
    n = a_second * arguments.seconds
    settings = BankConfig(chunk_kib=arguments.chunk_kib, zstd_level=arguments.zstd_level)
    writer = ShardWriter(root / "work", settings, arguments.d, FACTS)
    every = []
    for number in range(arguments.videos):
        maps = rng.standard_normal((n, arguments.d, *arguments.grid), np.float32).clip(0).astype(np.float16)
        writer.add_video(
            f"v{number:03d}", grid=tuple(arguments.grid), seconds=list(range(arguments.seconds)),
            time_s=np.repeat(np.arange(arguments.seconds), a_second), boxes=np.zeros((n, 4)),
            score=np.ones(n), maps=maps,
        )  # fmt: skip
        every.append(maps)
    writer.finish(root / "bank" / "shard-000")
    manifest = seal(root / "bank", "val", 1)
    print(f"{manifest['rows']} rows, {manifest['bytes'] / 2**20:.1f} MiB on disk", end=", ")
    return root / "bank", np.concatenate(every), a_second


def median_ms(read: Callable[[int, int], np.ndarray], places: np.ndarray) -> float:
    """Median time of a read over the (video, second) places, milliseconds."""
    spent = []
    for video, second in places:
        start = time.perf_counter()
        read(int(video), int(second))
        spent.append(time.perf_counter() - start)
    return float(np.median(spent) * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--grid", type=int, nargs=2, default=[6, 9], metavar=("H", "W"))
    parser.add_argument("--rows", type=int, default=24, help="rows of a window")
    parser.add_argument("--radius-s", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=60, help="of a video")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--chunk-kib", type=int, default=BankConfig().chunk_kib)
    parser.add_argument("--zstd-level", type=int, default=BankConfig().zstd_level)
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    inside = (arguments.radius_s, arguments.seconds - arguments.radius_s)
    places = np.stack(
        [rng.integers(0, arguments.videos, arguments.windows), rng.integers(*inside, arguments.windows)],
        axis=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        bank, maps, a_second = write_bank(Path(folder), arguments)
        np.save(Path(folder) / "rows.npy", maps)
        mapped = np.load(Path(folder) / "rows.npy", mmap_mode="r")
        readers = {"zarr": BankReader(bank, cache_mib=0), "cached": BankReader(bank, cache_mib=1 << 14)}

        def through(name: str) -> Callable[[int, int], np.ndarray]:
            return lambda v, t: readers[name].window(f"v{v:03d}", t, arguments.radius_s).maps

        def copy(video: int, second: int) -> np.ndarray:
            first = (video * arguments.seconds + second - arguments.radius_s) * a_second
            return np.array(mapped[first : first + (2 * arguments.radius_s + 1) * a_second])

        for v, t in places[:20]:  # equal, and warm
            assert np.array_equal(through("zarr")(v, t), copy(v, t)) and len(through("cached")(v, t)) == len(
                copy(v, t)
            )
        rows = (2 * arguments.radius_s + 1) * a_second
        print(f"{rows} rows a window ({rows * maps[0].nbytes / 2**20:.2f} MiB)")
        base = median_ms(copy, places)
        print(f"memory-mapped copy  {base:8.3f} ms")
        for name, note in (("zarr", "BankReader, no cache"), ("cached", "BankReader, cached  ")):
            found = median_ms(through(name), places)
            print(f"{note}{found:8.3f} ms   ratio {found / base:.1f}")


if __name__ == "__main__":
    main()
