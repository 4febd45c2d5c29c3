"""The subcommands that score frames and tubes from files: `evaluate-frames` and `evaluate-tubes`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from acar.errors import UserError
from acar.evaluation.frame_protocols import DEFAULT_PROTOCOL, PROTOCOLS
from acar.evaluation.summary import number_or_none as number

ALL = "all"


def add_verbs(verbs: Any) -> None:
    """Add both to the command line."""
    parser = verbs.add_parser(
        "evaluate-frames",
        help="frame-mAP of boxes in files (UCF101-24, JHMDB)",
        description="Frame-mAP as four published evaluators compute it. Files hold lines of video, frame, x1, y1, "
        "x2, y2 in pixels, label (from 0) and, of detections, score.",
    )
    _add_files(parser)
    parser.add_argument("--iou", type=_share, default=0.5, help="least overlap; default: 0.5")
    parser.set_defaults(handler=_evaluate_frames)
    parser = verbs.add_parser(
        "evaluate-tubes",
        help="video-mAP of boxes in files, linked to tubes (UCF101-24, JHMDB)",
        description="Link frame detections to tubes (Singh et al., ICCV 2017) and score them against annotated tubes "
        "at 0.2, 0.5, 0.75 and 0.5:0.95. A ground-truth csv names the tube of each box in an 8th column.",
    )
    _add_files(parser)
    parser.add_argument(
        "--step", type=_whole, default=1, help="frames from one detected to the next; default: 1"
    )
    parser.add_argument(
        "--gap", type=_whole, default=5, help="frames without a box that end a tube; default: 5"
    )
    parser.add_argument(
        "--link-iou", type=_share, default=0.1, help="least overlap of neighbours; default: 0.1"
    )
    parser.add_argument(
        "--top-boxes", type=_whole, default=10, help="a class and frame, the best; default: 10"
    )
    parser.add_argument(
        "--nms-iou", type=_share, default=0.45, help="suppression before linking; default: 0.45"
    )
    parser.add_argument("--min-score", type=float, default=0.0, help="boxes below are left out; default: 0")
    parser.add_argument("--min-frames", type=_whole, default=1, help="shorter tubes are left out; default: 1")
    parser.add_argument(
        "--switch-cost", type=float,
        help="trim tubes to their action: cost of a change of label; default: no trimming",
    )  # fmt: skip
    parser.set_defaults(handler=_evaluate_tubes)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--groundtruth", type=Path, required=True,
        help="csv; pyannot.pkl, UCF101v2-GT.pkl or JHMDB-GT.pkl; or a folder of YOWO's txt files",
    )  # fmt: skip
    parser.add_argument("--detections", type=Path, required=True, help="csv, or a folder of YOWO's txt files")
    parser.add_argument("--split", type=_whole, default=1, help="of a pickle: whose test videos; default: 1")
    parser.add_argument(
        "--labels", type=Path, help="class names, a line each; default: a pickle's, or numbers"
    )
    parser.add_argument(
        "--protocol", choices=[*PROTOCOLS, ALL], default=DEFAULT_PROTOCOL, help="whose conventions"
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures there")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0, at most 1")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1, 2, ...")
    return value


def _tables(args: argparse.Namespace) -> tuple[Any, Any, list[str]]:
    """Ground truth, detections and class names."""
    from acar.data.frame_tables import (
        check_labels_named,
        read_class_names,
        read_frame_detections,
        read_frame_truth,
        read_yowo,
    )
    from acar.data.ucf24 import read_annotations
    from acar.data.ucf24_convert import split_videos

    names = read_class_names(args.labels) if args.labels is not None else None
    if args.groundtruth.is_dir():
        truth = read_yowo(args.groundtruth, detections=False, names=names)
    elif args.groundtruth.suffix in (".pkl", ".pickle"):
        annotations = read_annotations(args.groundtruth)
        truth = annotations.of_videos(split_videos(annotations, args.split)[1])
        names = names or annotations.names
    else:
        truth = read_frame_truth(args.groundtruth)
    if args.detections.is_dir():
        detections = read_yowo(args.detections, detections=True, names=names)
    else:
        detections = read_frame_detections(args.detections)
    if names is None:
        last = max(int(table["label"].max()) for table in (truth, detections) if len(table))
        names = [str(label) for label in range(last + 1)]
    check_labels_named(truth, names, args.groundtruth)
    check_labels_named(detections, names, args.detections)
    return truth, detections, names


def _evaluate_frames(args: argparse.Namespace, _: list[str]) -> None:
    from acar.evaluation.frame_map import frame_map

    truth, detections, names = _tables(args)

    def figures(protocol: Any) -> dict[str, Any]:
        result = frame_map(truth, detections, names, protocol, args.iou)
        return {
            "mAP": number(result.mean_ap),
            "per_class_ap": {name: number(ap) for name, ap in zip(names, result.ap)},
            "positives": dict(zip(names, result.positives.tolist())),
            "detections": dict(zip(names, result.detections.tolist())),
        }

    found = _each_protocol(args, figures)
    if args.protocol != ALL:
        _print_classes(found[args.protocol], names)
    for name, item in found.items():
        print(f"frame-mAP@{args.iou:g}  {name:22} {_told(item)}")
    _write(args, {"iou": args.iou, "frame_mAP": found})


def _evaluate_tubes(args: argparse.Namespace, _: list[str]) -> None:
    from acar.evaluation.tubes import LinkSettings, link, truth_tubes
    from acar.evaluation.video_map import COCO_NAME, THRESHOLDS, mean_over_thresholds, video_map

    truth, detections, names = _tables(args)
    if (truth["tube"] == "").any():
        raise UserError(
            f"{args.groundtruth}: no tube of each box; video-mAP needs an 8th column that numbers the actors of a "
            "video, or the annotation's pickle"
        )
    settings = LinkSettings(args.top_boxes, args.nms_iou, args.link_iou, args.gap, args.min_score, args.min_frames,
                            args.switch_cost, args.step)  # fmt: skip
    tubes, annotated = link(detections, settings), truth_tubes(truth)

    def figures(protocol: Any) -> dict[str, Any]:
        result = video_map(annotated, tubes, names, protocol)
        return {
            "mAP": {**{f"{t:g}": number(result[t].mean_ap) for t in THRESHOLDS},
                    COCO_NAME: number(mean_over_thresholds(result))},
            "per_class_ap": {f"{t:g}": {name: number(ap) for name, ap in zip(names, result[t].ap)} for t in result},
        }  # fmt: skip

    found = _each_protocol(args, figures)
    print(f"{len(tubes)} tubes of {len(detections)} boxes; {len(annotated)} annotated")
    for name, item in found.items():
        for threshold, value in item["mAP"].items() if "mAP" in item else [("", None)]:
            print(f"video-mAP@{threshold:9} {name:22} {_told(item if value is None else {'mAP': value})}")
    _write(args, {"tubes": len(tubes), "annotated_tubes": len(annotated), "video_mAP": found})


def _each_protocol(args: argparse.Namespace, figures: Any) -> dict[str, dict[str, Any]]:
    """The figures by protocol; of several, one that refuses says why."""
    if args.protocol != ALL:
        return {args.protocol: figures(PROTOCOLS[args.protocol])}
    found = {}
    for name, protocol in PROTOCOLS.items():
        try:
            found[name] = figures(protocol)
        except UserError as error:
            found[name] = {"error": str(error)}
    return found


def _print_classes(item: dict[str, Any], names: list[str]) -> None:
    width = max(map(len, names))
    for name in names:
        ap, n, found = (item[key][name] for key in ("per_class_ap", "positives", "detections"))
        print(f"{name:{width}}  {_told({'mAP': ap})}  {n} boxes, {found} detected")


def _told(item: dict[str, Any]) -> str:
    if "error" in item:
        return f"none: {item['error']}"
    return "   -" if item["mAP"] is None else f"{item['mAP']:.4f}"


def _write(args: argparse.Namespace, content: dict[str, Any]) -> None:
    from acar.files import write_json_atomic

    if args.out is not None:
        write_json_atomic(args.out, content)
