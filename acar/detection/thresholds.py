"""Boxes against the scores that later stages ask of them. Never imports torch."""

from __future__ import annotations

import sys

import pandas as pd

from acar.config import Config, Split


def best_score(boxes: pd.DataFrame) -> str:
    """`best of 12 boxes 0.41`, for messages."""
    return f"best of {len(boxes)} boxes {boxes['score'].max():.3g}" if len(boxes) else "no box at all"


def thresholds(config: Config, split: Split) -> dict[str, float]:
    """The least score by config key of what a split's boxes are used for, beside training."""
    found = {} if config.model.head.memory == "none" else {"bank.min_score": config.bank.min_score}
    return found | ({"predict.min_score": config.predict.min_score} if split == "val" else {})


def stored_in_bank(boxes: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The boxes that get rows in a bank: those at whole seconds, of at least `bank.min_score`."""
    return boxes[(boxes["time_s"] % 1 == 0) & (boxes["score"] >= config.bank.min_score)]


def why_bank_is_empty(boxes: pd.DataFrame, config: Config) -> str:
    """Why none of a split's boxes got a row in its bank, and what to do."""
    whole = boxes[boxes["time_s"] % 1 == 0]
    if len(boxes) and whole.empty:
        remedy = (
            "give boxes of whole seconds, too (detector.boxes)"
            if config.detector.source == "boxes"
            else "detect again, with `data.key_frames: both` or `seconds`"
        )
        return (
            f"none of its {len(boxes)} boxes lies at a whole second, where alone the bank has rows; {remedy}, or set "
            "`model.head.memory: none`, which needs no bank"
        )
    at = " at whole seconds" if len(whole) < len(boxes) else ""
    return (
        f"bank.min_score is {config.bank.min_score:g}, {best_score(whole)}{at}; lower bank.min_score and extract "
        "again, or mend the person boxes (detector.*) and detect again"
    )


def say_if_none_kept(boxes: pd.DataFrame, config: Config, split: Split, shard: int) -> None:
    """Warn of thresholds that not one of a shard's boxes reaches.

    That is no mistake yet: another shard's may, and a video without persons is ordinary.
    """
    for key, least in thresholds(config, split).items():
        if not (boxes["score"] >= least).any():
            print(
                f"detect {split} {shard}: warning: no box reaches {key} {least:g} ({best_score(boxes)}); lower "
                "it, or train or choose another detector, if people are to be seen in these videos",
                file=sys.stderr,
                flush=True,
            )
