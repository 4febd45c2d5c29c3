"""Key frames against the times at which persons are looked for (`data.key_frames`). Never imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from acar.config import Config
from acar.data.check.facts import Problems, SplitFacts, some
from acar.data.findings import Findings
from acar.data.key_times import named_times, reach_of_seconds
from acar.workflow import has_stage2

KEY_FRAME = ["video", "time_s"]


def check_times(config: Config, facts: SplitFacts, path: Path, problems: Problems) -> None:
    """Count key frames between seconds and without persons; note those where nobody can be found.

    Args:
        config: the merged config.
        facts: with `labels` and `reach_s`; gets `named`, `fractional` and `unpeopled`.
        path: the labels csv.
        problems: is added to.
    """
    low_s, high_s = config.data.span_s or (-np.inf, np.inf)
    every = named_times(path, found=Findings())  # what is malformed was told with the labels
    facts.named = {
        (video, time_s) for video, times in every.items() for time_s in times if low_s <= time_s <= high_s
    }
    facts.unpeopled = sorted(set(every) - set(facts.reach_s))
    key_frames = facts.key_frames()
    facts.fractional = int((key_frames["time_s"] % 1 != 0).sum())
    if facts.unpeopled:
        problems.warn(
            f"{path}: {len(facts.unpeopled)} video(s) have key frames without persons alone, so they are not used: "
            f"{some(facts.unpeopled)}"
        )
    if facts.fractional and config.data.key_frames == "seconds" and config.detector.source != "boxes":
        _say_not_looked_for(config, facts, len(key_frames), path, problems)
    shared = _of_one_frame(key_frames, config.ingest.fps)
    if shared:
        problems.warn(
            f"{path}: {shared} key frame(s) are shown by the same frame as the one before, at ingest.fps "
            f"{config.ingest.fps:g}; a higher one keeps them apart"
        )


def scored_boxes(config: Config, facts: SplitFacts, boxes: pd.DataFrame) -> np.ndarray:
    """Which boxes lie where `acar.data.key_times.KeyTimes.scored` scores persons: bool (N,).

    Args:
        config: the merged config.
        facts: of the split, after `check_times`.
        boxes: at least the columns video and time_s.
    """
    if boxes.empty:  # pandas compares no empty columns
        return np.zeros(0, dtype=bool)
    mode, keys = config.data.key_frames, facts.key_frames()
    wanted = set(keys.itertuples(index=False, name=None)) if mode != "labelled" else set()
    wanted |= facts.named if mode != "seconds" else set()
    found = pd.MultiIndex.from_frame(boxes[KEY_FRAME]).isin(list(wanted))
    if mode == "labelled":
        return found
    reach = {
        video: config.data.span_s or reach_of_seconds(times.tolist())
        for video, times in keys.groupby("video")["time_s"]
    }
    nowhere = (np.inf, -np.inf)
    low_s, high_s = (
        boxes["video"].map({video: ends[end] for video, ends in reach.items()}).fillna(nowhere[end])
        for end in (0, 1)
    )
    time_s = boxes["time_s"]
    return np.asarray(found | ((time_s % 1 == 0) & (low_s <= time_s) & (time_s <= high_s)), dtype=bool)


def _say_not_looked_for(
    config: Config, facts: SplitFacts, n_key_frames: int, path: Path, problems: Problems
) -> None:
    named = "`data.key_frames: both`" if has_stage2(config) else "`data.key_frames: labelled` or `both`"
    # No box at all is scored then: evaluate refuses that.
    stops = facts.split == "val" and facts.fractional == n_key_frames and config.data.span_s is None
    problems.note(
        f"{path}: {facts.fractional} of {n_key_frames} key frame(s) are not at a whole second, where alone persons "
        f"are looked for; set {named}, or give boxes of these times with `detector.source: boxes`",
        stops=stops,
    )


def _of_one_frame(key_frames: pd.DataFrame, fps: float) -> int:
    """Key frames that are nearest to the same frame as another of their video."""
    frame = (key_frames["time_s"] * fps).round()
    return int(pd.DataFrame({"video": key_frames["video"], "frame": frame}).duplicated().sum())
