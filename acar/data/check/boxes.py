"""An imported box file against the labels, the bank and the thresholds. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from acar.config import Config
from acar.data.check.facts import Problems, SplitFacts, reach_of, some
from acar.data.check.times import KEY_FRAME, scored_boxes
from acar.data.csv_files import format_time
from acar.data.findings import Findings
from acar.detection.importing import import_boxes
from acar.detection.thresholds import best_score, stored_in_bank, thresholds, why_bank_is_empty


def check_boxes(config: Config, facts: SplitFacts, problems: Problems) -> None:
    """Count the boxes of a split's file, and note where they are not what a run needs.

    Args:
        config: the merged config, whose `detector.source` is `boxes`.
        facts: of the split, after `acar.data.check.times.check_times`; gets `n_boxes`, `boxes_without` and
            `box_reach_s`.
        problems: is added to.
    """
    assert config.detector.boxes is not None
    path, found = Path(config.detector.boxes[facts.split]), Findings()
    boxes = None
    with problems.caught():
        boxes = import_boxes(path, found=found)
    for finding in found:
        problems.stop(f"{path}, {finding.told[0]} ({finding.count} such)")
    if boxes is None:
        return
    boxes = boxes[boxes["score"] >= config.detector.keep_score]
    facts.n_boxes = len(boxes)
    facts.box_reach_s = reach_of(_used(config, facts, boxes))
    _check_videos(config, facts, boxes, path, problems)
    _check_bank(config, facts, boxes, path, problems)
    _check_thresholds(config, facts, boxes, path, problems)


def _check_videos(
    config: Config, facts: SplitFacts, boxes: pd.DataFrame, path: Path, problems: Problems
) -> None:
    key_frames = facts.key_frames()
    without = sorted(set(key_frames["video"]) - set(boxes["video"]))
    n_videos = key_frames["video"].nunique()
    if without:
        looks = (
            f"ids in the file look like {boxes['video'].iloc[0]!r}" if len(boxes) else "the file has no boxes"
        )
        problems.note(
            f"{path}: {len(without)} of {n_videos} videos have no box of at least "
            f"detector.keep_score {config.detector.keep_score:g}: {some(without)}; {looks}",
            stops=len(without) == n_videos and (facts.split == "val" or _has_bank(config)),
        )
    has_box = pd.MultiIndex.from_frame(key_frames).isin(pd.MultiIndex.from_frame(boxes[KEY_FRAME]))
    facts.boxes_without = int((~has_box).sum())
    if len(without) < n_videos:
        _check_times(config, facts, boxes, key_frames.assign(has_box=has_box), path, problems)


def _check_times(
    config: Config, facts: SplitFacts, boxes: pd.DataFrame, key_frames: pd.DataFrame, path: Path,
    problems: Problems,
) -> None:  # fmt: skip
    """Where no box is at any of the labels' times, whole or not, these are probably written otherwise."""
    nothing_scored = facts.split == "val" and not scored_boxes(config, facts, boxes).any()
    for is_between, kind in key_frames.groupby(key_frames["time_s"] % 1 != 0):
        known = kind[kind["video"].isin(boxes["video"])]
        if kind["has_box"].any() or known.empty:
            continue
        video, time_s = known[KEY_FRAME].iloc[0]
        theirs = boxes[boxes["video"] == video]["time_s"]
        nearest = theirs.iloc[int((theirs - time_s).abs().to_numpy().argmin())]
        where = "between whole seconds" if is_between else "at whole seconds"
        problems.note(
            f"{path}: none of the {len(kind)} labelled key frame(s) {where} has a box at its time, such as "
            f"{format_time(time_s)} of `{video}`, whose nearest box is at {format_time(nearest)}; times have to be "
            "the same to 6 decimals",
            stops=nothing_scored,
        )


def _check_bank(
    config: Config, facts: SplitFacts, boxes: pd.DataFrame, path: Path, problems: Problems
) -> None:
    """Videos without a row in the bank; `seal-bank` refuses a split of which none has one."""
    ids = set(facts.key_frames()["video"])
    ours = boxes[boxes["video"].isin(ids)]
    if not _has_bank(config) or ours.empty:  # that none has a box is told already
        return
    used = _used(config, facts, boxes)
    stored = stored_in_bank(used, config)
    without = sorted(set(ours["video"]) - set(stored["video"]))
    told = f"{len(without)} of {len(ids)} videos have no box of at least bank.min_score {config.bank.min_score:g} at"
    if stored.empty:
        inside = f" inside of data.span_s {list(config.data.span_s)}" if config.data.span_s else ""
        problems.stop(
            f"{path}: {told} a whole second{inside}, so the {facts.split} split's bank has no row at all: "
            f"{some(without)}; {why_bank_is_empty(used, config)}"
        )
    elif without:
        problems.warn(f"{path}: {told} a whole second, so the bank has no rows of them: {some(without)}")


def _used(config: Config, facts: SplitFacts, boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes of videos with key frames, inside of `data.span_s`."""
    low_s, high_s = config.data.span_s or (-np.inf, np.inf)
    return boxes[boxes["video"].isin(facts.key_frames()["video"]) & boxes["time_s"].between(low_s, high_s)]


def _has_bank(config: Config) -> bool:
    return config.model.head.memory != "none"


def _check_thresholds(
    config: Config, facts: SplitFacts, boxes: pd.DataFrame, path: Path, problems: Problems
) -> None:
    needed = thresholds(config, facts.split)
    needed.pop("bank.min_score", None)  # `_check_bank` looks closer
    if facts.split == "train" and config.boxes.train_with_detected:
        needed = {**needed, "boxes.train_score": config.boxes.train_score}
    for key, least in needed.items():
        if len(boxes) and not (boxes["score"] >= least).any():
            problems.note(
                f"{path}: no box reaches {key} {least:g} ({best_score(boxes)}); lower it",
                stops=key == "predict.min_score",
            )
