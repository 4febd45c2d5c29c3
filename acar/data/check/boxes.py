"""An imported box file against the labels, the videos, the bank and the thresholds. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from acar.config import Config
from acar.data.check.facts import Problems, SplitFacts, each, reach_of, some
from acar.data.check.times import KEY_FRAME, scored_boxes
from acar.data.clips import frame_index
from acar.data.coverage import beyond, has_frame
from acar.data.csv_files import format_time
from acar.data.findings import Findings
from acar.detection.importing import import_boxes
from acar.detection.thresholds import best_score, stored_in_bank, thresholds, why_bank_is_empty
from acar.workflow import has_stage2


def check_boxes(config: Config, facts: SplitFacts, problems: Problems) -> None:
    """Count the boxes of a split's file, and note where they are not what a run needs.

    Without labels that can be used, the file is only read.

    Args:
        config: the merged config, whose `detector.source` is `boxes`.
        facts: of the split, after `acar.data.check.times.check_times` and `acar.data.check.videos.check_videos`; gets
            `n_boxes` and `boxes_without`.
        problems: is added to.
    """
    assert config.detector.boxes is not None
    path, found = Path(config.detector.boxes[facts.split]), Findings()
    boxes = None
    with problems.caught():
        boxes = import_boxes(path, found=found)
    problems.stop_at(found)
    if boxes is None:
        return
    every, boxes = boxes, boxes[boxes["score"] >= config.detector.keep_score]
    facts.n_boxes = len(boxes)
    if facts.labels is None or facts.labels.empty:
        return
    told = len(problems.found)
    has_boxes = _check_videos(config, facts, boxes, every, path, problems)
    used = _used(config, facts, boxes)
    held = _held(config, facts, used)
    _check_ends(config, facts, used, path, problems)
    if has_boxes and has_stage2(config):
        _check_bank(config, facts, used, held, path, problems)
    _check_thresholds(config, facts, boxes, path, problems)
    if not any(problem.stops for problem in problems.found[told:]):
        _check_scored(config, facts, held, path, problems)


def _check_videos(
    config: Config,
    facts: SplitFacts,
    boxes: pd.DataFrame,
    every: pd.DataFrame,
    path: Path,
    problems: Problems,
) -> bool:
    """Videos without a box; returns whether any has one."""
    key_frames = facts.key_frames()
    without = sorted(set(key_frames["video"]) - set(boxes["video"]))
    n_videos = key_frames["video"].nunique()
    if without:
        problems.note(
            f"{path}: {len(without)} of {n_videos} videos have no box of at least "
            f"detector.keep_score {config.detector.keep_score:g}: {some(without)}; {_looks(boxes, every)}",
            stops=len(without) == n_videos and (facts.split == "val" or has_stage2(config)),
        )
    has_box = pd.MultiIndex.from_frame(key_frames).isin(pd.MultiIndex.from_frame(boxes[KEY_FRAME]))
    facts.boxes_without = int((~has_box).sum())
    if len(without) < n_videos:
        _check_times(config, facts, boxes, key_frames.assign(has_box=has_box), path, problems)
    return len(without) < n_videos


def _looks(boxes: pd.DataFrame, every: pd.DataFrame) -> str:
    """Why boxes may be missing: those from keep_score up, or all of the file."""
    if len(boxes):
        return f"ids in the file look like {boxes['video'].iloc[0]!r}"
    return f"all of the file's are below ({best_score(every)})" if len(every) else "the file has no boxes"


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


def _check_ends(
    config: Config, facts: SplitFacts, used: pd.DataFrame, path: Path, problems: Problems
) -> None:
    """A run drops what an imported file has beyond a video's ends. One frame behind the last is not told: it is no
    frame rate's fault."""
    rows = facts.covered.set_index("video").to_dict("index")
    reach_s = {video: ends for video, ends in reach_of(used).items() if video in rows}
    far = [
        f"video `{video}`: " + beyond(rows[video], "boxes reach", ends, cut=config.data.span_s is not None)
        for video, ends in reach_s.items()
        if frame_index(rows[video], ends[0]) < 0
        or frame_index(rows[video], ends[1]) > rows[video]["n_frames"]
    ]
    if far:
        problems.warn(
            f"{path}: {len(far)} video(s) do not hold all of their boxes, and those beyond their ends are not used; "
            "are the times by another frame rate?" + each(far)
        )


def _check_bank(
    config: Config, facts: SplitFacts, used: pd.DataFrame, held: pd.DataFrame, path: Path, problems: Problems
) -> None:
    """Videos without a row in the bank; `seal-bank` refuses a split of which none has one."""
    ids = set(facts.key_frames()["video"]) - _skipped(config, facts)
    if not ids:  # that none can be used is told already
        return
    stored = stored_in_bank(held, config)
    without = sorted((ids if stored.empty else ids & set(used["video"])) - set(stored["video"]))
    told = f"{len(without)} of {len(ids)} videos have no box of at least bank.min_score {config.bank.min_score:g} at"
    if stored.empty:
        inside = f" inside of data.span_s {list(config.data.span_s)}" if config.data.span_s else ""
        problems.stop(
            f"{path}: {told} a whole second{inside}, so the {facts.split} split's bank has no row at all: "
            f"{some(without)}; {_why_empty(config, used, held)}"
        )
    elif without:
        problems.warn(f"{path}: {told} a whole second, so the bank has no rows of them: {some(without)}")


def _why_empty(config: Config, used: pd.DataFrame, held: pd.DataFrame) -> str:
    if len(used) and held.empty:
        return f"all of their {len(used)} boxes lie beyond the ends of the videos, or in videos that are left out"
    return why_bank_is_empty(held, config)


def _check_scored(
    config: Config, facts: SplitFacts, held: pd.DataFrame, path: Path, problems: Problems
) -> None:
    """`evaluate` refuses a val split without one detection."""
    if facts.split != "val" or _skipped(config, facts).issuperset(facts.videos()):
        return
    good = held[held["score"] >= config.predict.min_score]
    if not scored_boxes(config, facts, good).any():
        problems.stop(
            f"{path}: none of the {len(good)} box(es) of at least predict.min_score {config.predict.min_score:g} "
            "that the videos hold lies at a time at which persons are scored (data.key_frames, data.span_s), so "
            "there is nothing to evaluate"
        )


def _used(config: Config, facts: SplitFacts, boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes of videos with key frames, inside of `data.span_s`."""
    low_s, high_s = config.data.span_s or (-np.inf, np.inf)
    return boxes[boxes["video"].isin(facts.key_frames()["video"]) & boxes["time_s"].between(low_s, high_s)]


def _held(config: Config, facts: SplitFacts, used: pd.DataFrame) -> pd.DataFrame:
    """Of those the boxes that `detect` keeps: in videos that are not skipped, where these have a frame.

    A video whose length is not known counts as one that has it.
    """
    used = used[~used["video"].isin(_skipped(config, facts))]
    return used[has_frame(facts.covered, used) | ~used["video"].isin(facts.covered["video"])]


def _skipped(config: Config, facts: SplitFacts) -> set[str]:
    return facts.unusable if config.ingest.on_error == "skip" else set()


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
