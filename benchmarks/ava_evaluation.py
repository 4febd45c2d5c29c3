"""Claim: evaluating an AVA-val-sized problem takes seconds, many times less than image by image in loops.

Draws a problem like AVA's val split (key frames with 1.7 actors, each detected person scored for all 60 classes, 3
decimals), writes it as csv, and times from csv to metrics the vectorised evaluation, the same from parquet, and the
plain loops of `plain_ava.py`, in turn, on one thread. The APs of both must agree. Prints seconds, the process's
peak memory after the vectorised part, and the ratio.

    OMP_NUM_THREADS=1 python benchmarks/ava_evaluation.py                     # a sixteenth of AVA's val split
    OMP_NUM_THREADS=1 python benchmarks/ava_evaluation.py --videos 64 --repeats 1
    OMP_NUM_THREADS=1 python benchmarks/ava_evaluation.py --folder DIR        # gt.csv, det.csv, label_map.pbtxt,
                                                                              # excluded.csv there
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain_ava
import pyarrow as pa

from acar.data.detection_files import write_detection_parquet
from acar.data.tables import read_detections, read_label_map
from acar.evaluation.ava_files import evaluate_ava_files

CLASSES, POSES = 60, 13


def draw_problem(folder: Path, videos: int, frames: int, seed: int) -> None:
    """Write gt.csv, det.csv, label_map.pbtxt and excluded.csv."""
    rng = np.random.default_rng(seed)
    items = (f'item {{ name: "class {k}" id: {k} }}\n' for k in range(1, CLASSES + 1))
    (folder / "label_map.pbtxt").write_text("".join(items))
    (folder / "excluded.csv").write_text("v000,0905\n")
    with open(folder / "gt.csv", "w") as truth, open(folder / "det.csv", "w") as found:
        for video in range(videos):
            for second in range(902, 902 + frames):
                image = f"v{video:03d},{second:04d}"
                for actor in range(rng.poisson(1.7)):
                    draw_actor(image, actor, rng, truth, found)


def draw_actor(image: str, actor: int, rng: np.random.Generator, truth: Any, found: Any) -> None:
    """An actor's labels, and mostly a box near it (sometimes elsewhere) scored for every class."""
    width, height = rng.uniform(0.08, 0.45), rng.uniform(0.25, 0.9)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    carries = np.zeros(CLASSES, bool)
    carries[[rng.integers(POSES), *rng.integers(POSES, CLASSES, rng.poisson(1.7))]] = True
    for column in np.flatnonzero(carries):
        truth.write(f"{image},{x:.3f},{y:.3f},{x + width:.3f},{y + height:.3f},{column + 1},{actor}\n")
    if rng.random() < 0.1:
        return
    moved = np.array([x, y, x + width, y + height]) + rng.uniform(-0.12, 0.12, 4) * [
        width,
        height,
        width,
        height,
    ]
    moved = moved.clip(0, 1)
    box = ",".join(f"{edge:.3f}" for edge in moved)
    scores = 1 / (1 + np.exp(4 - 3.0 * carries - 1.5 * rng.standard_normal(CLASSES)))
    found.write("".join(f"{image},{box},{k},{score:.3f}\n" for k, score in enumerate(scores, start=1)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=4, help="of AVA's val split's 64")
    parser.add_argument("--frames", type=int, default=897, help="key frames a video")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="take the problem that lies there")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        if arguments.folder is None:
            draw_problem(folder, arguments.videos, arguments.frames, arguments.seed)
        compare(folder, Path(scratch) / "det.parquet", arguments.repeats)


def compare(folder: Path, parquet: Path, repeats: int) -> None:
    truth, csv, labelmap, excluded = (
        folder / name for name in ("gt.csv", "det.csv", "label_map.pbtxt", "excluded.csv")
    )
    ids = read_label_map(labelmap).ids
    write_detection_parquet(read_detections(csv), parquet)

    def plain() -> dict[int, float | None]:
        return plain_ava.plain_aps(
            plain_ava.read_truth(truth), plain_ava.read_rows(csv), set(ids), plain_ava.read_images(excluded)
        )

    ways: dict[str, Callable[[], Any]] = {
        "csv": lambda: evaluate_ava_files(truth, csv, labelmap, excluded),
        "parquet": lambda: evaluate_ava_files(truth, parquet, labelmap, excluded),
        "loops": plain,
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    results, peak_mib = {}, 0.0
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            results[name] = way()
            spent[name].append(time.process_time() - start)
            if not peak_mib:
                peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    check_equal(results)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    rows = results["csv"]["n_detections"]
    print(
        f"{rows} rows counted, mAP {results['csv']['mAP']:.6f}, peak {peak_mib:.0f} MiB after the first evaluation"
    )
    for name, seconds in medians.items():
        print(f"{name:8} {seconds:8.2f} s of CPU time, loops / {name} = {medians['loops'] / seconds:.1f}")


def check_equal(results: dict[str, Any]) -> None:
    """Both evaluations must give the same APs, and csv and parquet the same metrics."""
    assert results["csv"] == results["parquet"], "csv and parquet differ"
    for item in results["csv"]["classes"]:
        plain = results["loops"][item["id"]]
        same = item["ap"] is None if plain is None else abs(item["ap"] - plain) < 1e-12
        assert same, f"{item['name']}: {item['ap']} against {plain}"


if __name__ == "__main__":
    main()
