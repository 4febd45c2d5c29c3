"""Draw the default data set: videos, AVA-format labels and the law behind them (docs/drawn-data.md)."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from acar.config import Config, Split, SynthesizeConfig
from acar.data.synthetic.write import DrawnVideo, draw_video, write_tables
from acar.files import finished_folder
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.progress import Progress, progress

MOST_WORKERS = 4
FEW_VIDEOS = 8
"""Up to so many are drawn in this process: starting workers would take longer."""


def run(config: Config) -> None:
    """Write `Paths.data`: videos/<id>.mp4, {split}.csv, {split}_excluded.csv, label_map.pbtxt and law.json.

    The folder appears whole or not at all; the same `synthesize` section gives the same bytes.
    """
    wanted = config.synthesize
    jobs: list[tuple[Split, int]] = [("train", index) for index in range(wanted.train_videos)]
    jobs += [("val", index) for index in range(wanted.val_videos)]
    with finished_folder(Paths.of(config).data) as folder:
        (folder / "videos").mkdir()
        videos = _draw_all(wanted, jobs, folder / "videos")
        write_tables(wanted, folder, videos)
        write_origin(folder, origin_of(config, "synthesize"))


def _draw_all(config: SynthesizeConfig, jobs: list[tuple[Split, int]], folder: Path) -> list[DrawnVideo]:
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if workers == 1 or len(jobs) <= FEW_VIDEOS:
        counted = progress(jobs, total=len(jobs), desc="synthesize", unit="videos")
        return [draw_video(config, split, index, folder) for split, index in counted]
    counter: Progress[None] = progress(total=len(jobs), desc="synthesize", unit="videos")
    # Spawned, not forked: the caller may have threads (a logger, torch) that a fork would copy half-alive.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(draw_video, config, split, index, folder) for split, index in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                counter.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # on a full disk all others would only fail likewise
            raise
    counter.close()
    return [future.result() for future in futures]
