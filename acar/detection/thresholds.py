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
