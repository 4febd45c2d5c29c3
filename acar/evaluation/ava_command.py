"""The subcommand `acar evaluate-ava`. Imported with the command line, so what it runs is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_verb(verbs: Any) -> None:
    """Add `evaluate-ava` to the command line."""
    parser = verbs.add_parser(
        "evaluate-ava",
        help="score detections in AVA's format against ground truth in AVA's format",
        description="Frame mAP at IoU .5 as the published evaluators compute it, and what the errors are "
        "(docs/evaluation.md). Prints the main figures; --out and --per-class write them all.",
    )
    parser.add_argument(
        "--groundtruth", required=True, type=Path, metavar="CSV", help="e.g. ava_val_v2.2.csv"
    )
    parser.add_argument(
        "--detections", required=True, type=Path, metavar="FILE",
        help="result csv (video, time, x1, y1, x2, y2, action id[, score]) or parquet with these columns",
    )  # fmt: skip
    parser.add_argument(
        "--labelmap", required=True, type=Path, metavar="PBTXT",
        help="the evaluated classes, e.g. ava_action_list_v2.2_for_activitynet_2019.pbtxt",
    )  # fmt: skip
    parser.add_argument("--exclusions", type=Path, metavar="CSV", help="video, time of key frames left out")
    parser.add_argument(
        "--groups", type=Path, metavar="PBTXT",
        help="a label map that tells the classes' groups, where --labelmap does not; AVA's own are known",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", default="released", metavar="NAME",
        help="released (the authors' evaluator, the default), activitynet or mmaction2",
    )  # fmt: skip
    parser.add_argument("--iou", type=float, default=0.5, help="least overlap of a true positive; default .5")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write metrics.json there")
    parser.add_argument("--per-class", type=Path, metavar="CSV", help="write a row a class there")
    parser.set_defaults(handler=_run)


def _run(args: argparse.Namespace, _: list[str]) -> None:
    from acar.evaluation.ava_files import as_text, evaluate_ava_files
    from acar.evaluation.metrics import write_metrics
    from acar.files import check_output

    given = (args.groundtruth, args.detections, args.labelmap, args.exclusions, args.groups)
    inputs = [path for path in given if path is not None]
    if args.out is not None:
        check_output(args.out, inputs, option="--out")
    if args.per_class is not None:
        check_output(args.per_class, [*inputs, *([args.out] if args.out else [])], option="--per-class")
    metrics = evaluate_ava_files(
        args.groundtruth,
        args.detections,
        args.labelmap,
        args.exclusions,
        args.protocol,
        args.iou,
        args.groups,
    )
    write_metrics(metrics, args.out, args.per_class)
    print(as_text(metrics))
