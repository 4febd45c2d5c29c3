"""The subcommands that score frames and tubes from files: `evaluate-frames` and `evaluate-tubes`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acar.errors import UserError
from acar.evaluation.frame_protocols import DEFAULT_PROTOCOL, PROTOCOLS
from acar.evaluation.summary import number_or_none as number

if TYPE_CHECKING:
    from acar.evaluation.frame_files import FrameFiles
    from acar.evaluation.tubes import Tube

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
    parser.set_defaults(handler=_evaluate_frames, verb="evaluate-frames")
    parser = verbs.add_parser(
        "evaluate-tubes",
        help="video-mAP of boxes in files, linked to tubes (UCF101-24, JHMDB)",
        description="Link frame detections to tubes (Singh et al., ICCV 2017) and score them against annotated tubes "
        "at 0.2, 0.5, 0.75 and 0.5:0.95. A ground-truth csv names the tube of each box in an 8th column.",
    )
    _add_files(parser)
    parser.add_argument(
        "--step", type=_whole, default=1,
        help="frames from one detected to the next; the annotation is thinned likewise; default: 1",
    )  # fmt: skip
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
    parser.add_argument(
        "--min-score", type=_score_floor, default=0.0, help="boxes below are left out; default: 0"
    )
    parser.add_argument("--min-frames", type=_whole, default=1, help="shorter tubes are left out; default: 1")
    parser.add_argument(
        "--switch-cost", type=_cost,
        help="trim tubes to their action: cost of a change of label; default: no trimming",
    )  # fmt: skip
    parser.set_defaults(handler=_evaluate_tubes, verb="evaluate-tubes")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--groundtruth", type=Path, required=True,
        help="csv; pyannot.pkl, UCF101v2-GT.pkl or JHMDB-GT.pkl; or a folder of YOWO's txt files",
    )  # fmt: skip
    parser.add_argument("--detections", type=Path, required=True, help="csv, or a folder of YOWO's txt files")
    parser.add_argument("--split", type=_whole, help="of a pickle alone: whose test videos; default: 1")
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


def _score_floor(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text}: expected a number")
    return value


def _cost(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return value


def _read(args: argparse.Namespace, *, tubes: bool) -> FrameFiles:
    from acar.evaluation.frame_files import read_frame_files
    from acar.evaluation.mismatch import warn
    from acar.files import check_output

    if args.out is not None:
        inputs = [path for path in (args.groundtruth, args.detections, args.labels) if path is not None]
        check_output(args.out, inputs, option="--out")
    files = read_frame_files(args.groundtruth, args.detections, args.labels, args.split, tubes=tubes)
    warn(args.verb, *files.doubts)
    return files


def _evaluate_frames(args: argparse.Namespace, _: list[str]) -> None:
    from acar.evaluation.frame_map import frame_map

    files = _read(args, tubes=False)
    truth, detections, names = files.truth, files.detections, files.names

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
    from acar.evaluation.frame_files import truth_at_step
    from acar.evaluation.tubes import LinkSettings, link, truth_tubes
    from acar.evaluation.video_map import COCO_NAME, THRESHOLDS, mean_over_thresholds, video_map

    files = _read(args, tubes=True)
    detections, names = files.detections, files.names
    truth = truth_at_step(files.truth, detections, args.step)
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
    _print_left_out(args, files, len(truth), annotated)
    print(f"{len(tubes)} tubes of {len(detections)} boxes; {len(annotated)} annotated")
    for name, item in found.items():
        for threshold, value in item["mAP"].items() if "mAP" in item else [("", None)]:
            print(f"video-mAP@{threshold:9} {name:22} {_told(item if value is None else {'mAP': value})}")
    _write(args, {"tubes": len(tubes), "annotated_tubes": len(annotated), "video_mAP": found})


def _print_left_out(args: argparse.Namespace, files: FrameFiles, n_kept: int, annotated: list[Tube]) -> None:
    if n_kept < len(files.truth):
        gone = len(files.truth[["video", "label", "tube"]].drop_duplicates()) - len(annotated)
        print(
            f"--step {args.step}: the annotation counts in the detector's frames alone, {n_kept} of "
            f"{len(files.truth)} boxes" + (f"; {gone} tube(s) have none there" if gone else "")
        )
    below = int((files.detections["score"] < args.min_score).sum())
    if below:
        print(
            f"{below} of {len(files.detections)} boxes score below --min-score {args.min_score:g} and are left out"
        )


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
