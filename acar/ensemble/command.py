"""The subcommand `acar ensemble`. Imported with the command line, so what it runs is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from acar.errors import UserError


def add_verb(verbs: Any) -> None:
    """Add `ensemble` to the command line."""
    parser = verbs.add_parser(
        "ensemble",
        help="average the detections of several runs, with weights",
        description="Write the weighted average of several runs' detections on the same person boxes "
        "(docs/evaluation.md). One run alone stays as it is.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="result csv (video, time, x1, y1, x2, y2, action id, score), parquet with these columns, or a folder "
        "such as results/predictions/stage2 (all its shards)",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="write there: .csv (AVA's result format) or .parquet"
    )  # fmt: skip
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="one a run, above 0, of any sum; default: equal"
    )
    parser.add_argument(
        "--average", choices=("scores", "logits"), default="scores",
        help="mean of the probabilities (the default), or of what precedes sigmoid and softmax",
    )  # fmt: skip
    parser.add_argument(
        "--labelmap", type=Path, metavar="PBTXT",
        help="of --average logits: the classes of its group `pose` are exclusive (softmax); without it none are",
    )  # fmt: skip
    parser.add_argument(
        "--groups", type=Path, metavar="PBTXT",
        help="a label map that tells the classes' groups, where --labelmap does not; AVA's own are known",
    )  # fmt: skip
    parser.add_argument(
        "--unmatched", choices=("refuse", "average", "zero"), default="refuse",
        help="rows that some run lacks: refuse them (the default), average the runs that have them, or count 0 there",
    )  # fmt: skip
    parser.set_defaults(handler=_run)


def _run(args: argparse.Namespace, _: list[str]) -> None:
    from acar.ensemble.combine import Settings
    from acar.ensemble.files import ensemble_files, exclusive_classes

    if args.labelmap is None and args.groups is not None:
        raise UserError(
            "--groups: tells the groups of --labelmap, which is not given; add it, or leave --groups out"
        )
    if args.labelmap is not None and args.average != "logits":
        raise UserError(
            "--labelmap: only --average logits asks which classes are exclusive; add that, or leave it out"
        )
    exclusive = exclusive_classes(args.labelmap, args.groups) if args.labelmap is not None else None
    print(
        ensemble_files(args.runs, args.out, args.weights, Settings(args.average, args.unmatched, exclusive))
    )
