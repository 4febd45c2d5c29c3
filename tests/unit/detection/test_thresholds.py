"""Warnings where no box is good enough for what follows."""

from __future__ import annotations

import pytest

from acar.config import parse_config
from acar.detection.boxes import boxes_table
from acar.detection.thresholds import best_score, say_if_none_kept

CONFIG = parse_config({"bank": {"min_score": 0.5}, "predict": {"min_score": 0.9}})


def boxes(*scores: float):
    return boxes_table(["a"] * len(scores), [1.0] * len(scores), [[0, 0, 1, 1]] * len(scores), list(scores))


@pytest.mark.parametrize(
    ("split", "scores", "keys"),
    [
        ("val", [0.1, 0.9], []),  # at the threshold counts
        ("val", [0.1, 0.5], ["predict.min_score"]),
        ("val", [0.1], ["bank.min_score", "predict.min_score"]),
        ("train", [0.6], []),  # nothing is predicted there
        ("train", [], ["bank.min_score"]),
    ],
)
def test_each_threshold_that_no_box_reaches(split, scores, keys, capsys) -> None:
    say_if_none_kept(boxes(*scores), CONFIG, split, 3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("no box reaches ")[1].split(" ")[0] for line in lines] == keys
    assert all(line.startswith(f"detect {split} 3: warning: ") for line in lines)


def test_best_score() -> None:
    assert best_score(boxes(0.25, 0.125)) == "best of 2 boxes 0.25"
    assert best_score(boxes()) == "no box at all"
