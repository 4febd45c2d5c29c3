"""The subcommands about data: `check-data` and `convert-annotations`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from acar.data.formats.names import DOES, SOURCES, TARGETS
from acar.errors import UserError

FPS, PATTERN = 30.0, "image_%06d.jpg"


def add_verbs(verbs: Any) -> None:
    """Add `check-data` and `convert-annotations` to the command line."""
    check = verbs.add_parser(
        "check-data",
        help="look through a data set's files and say everything that is wrong",
        description="Read the labels, label map, exclusions and boxes that configs name and the headers of the "
        "videos; print what there is and all problems. Exit status 1 if a run would stop at one.",
    )
    check.add_argument(
        "config", type=Path, nargs="*", metavar="CONFIG", help="e.g. config.yaml preset.yaml mine.yaml"
    )
    check.add_argument(
        "--config", dest="more", type=Path, nargs="+", default=[], metavar="CONFIG", help="the same"
    )
    check.add_argument(
        "--no-videos", action="store_true", help="do not open the videos, only look whether they are there"
    )
    check.set_defaults(handler=_check)
    parser = verbs.add_parser(
        "convert-annotations",
        help="convert labels, boxes, label maps and exclusions between formats",
        description="Read SRC, whose format is told by content, and write DST; say what is lost. Formats: "
        + "; ".join(f"{name}: {does}" for name, does in DOES.items())
        + "; label-map-item, label-map-label, label-map-list; exclusions. docs/data.md has an example of each.",
    )
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("target", type=Path, metavar="DST")
    parser.add_argument("--to", required=True, metavar="FORMAT")
    parser.add_argument("--from", dest="named", metavar="FORMAT", help="of SRC; default: told by content")
    parser.add_argument("--label-map", type=Path, metavar="FILE", help="names of classes, for acar-net")
    parser.add_argument("--fps", type=float, help=f"of numbered images (acar-net, coco); default: {FPS:g}")
    parser.add_argument(
        "--first-second", type=float, metavar="S",
        help="that image 1 shows; default in writing: 900 if no key frame is before it, else 0",
    )  # fmt: skip
    parser.add_argument(
        "--frame-names",
        default=None,
        metavar="PATTERN",
        help=f"of images; default: {PATTERN}".replace("%", "%%"),
    )
    parser.add_argument(
        "--frame-size", metavar="WxH", help="pixels, for coco; default: 1x1, boxes as fractions"
    )
    parser.add_argument(
        "--trimmed-in", type=Path, metavar="FOLDER",
        help="of Kinetics clips <id>_000012_000022.mp4: write their names, and seconds from their beginnings",
    )  # fmt: skip
    parser.set_defaults(handler=_convert)


def _check(args: argparse.Namespace, _: list[str]) -> int:
    # Imported here: reading configs as Snakemake does takes a second.
    from acar.config.merge import merged_config
    from acar.data.check.report import as_text
    from acar.data.check.survey import check_data

    paths = [*args.config, *args.more]
    if not paths:
        raise UserError("name the config, e.g. `acar check-data config.yaml workflow/presets/clips.yaml`")
    survey = check_data(merged_config(paths), open_videos=not args.no_videos)
    print(as_text(survey))
    return 1 if survey.would_stop else 0


def _convert(args: argparse.Namespace, _: list[str]) -> None:
    # Imported here: the other subcommands do without it.
    from acar.data.formats.convert import convert
    from acar.data.formats.registry import Settings

    _one_of("--to", args.to, TARGETS)
    if args.named is not None:
        _one_of("--from", args.named, SOURCES)
    told = convert(
        args.source,
        args.target,
        args.to,
        named=args.named,
        label_map=args.label_map,
        settings=Settings(_frames(args), _size(args.frame_size)),
        trimmed_in=args.trimmed_in,
    )
    print("\n".join(told))


def _one_of(flag: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UserError(f"{flag} {name}: unknown format; expected {', '.join(known)}")


def _frames(args: argparse.Namespace) -> Any:
    """What the flags say of extracted images; None if they say nothing of their times."""
    # Imported here: the other subcommands do without it.
    from acar.data.csv_files import LATEST_S
    from acar.data.formats.frame_names import RATES, FrameNames

    if args.fps is not None and not RATES[0] <= args.fps <= RATES[1]:
        raise UserError(f"--fps {args.fps:g}: expected images a second, from {RATES[0]:g} to {RATES[1]:g}")
    if args.first_second is not None and not abs(args.first_second) <= LATEST_S:
        raise UserError(
            f"--first-second {args.first_second:g}: expected seconds, from {-LATEST_S:g} to {LATEST_S:g}"
        )
    pattern = args.frame_names or PATTERN
    if not re.fullmatch(r"[^%/]*%(0[0-9]{1,2})?d[^%/]*", pattern):
        raise UserError(f"--frame-names {pattern}: expected a name with one number, such as {PATTERN}")
    if args.fps is None and args.first_second is None and args.frame_names is None:
        return None
    if args.first_second is None:
        raise UserError("--first-second S: say which second image 1 shows (AVA's extracted frames: 900)")
    return FrameNames(args.fps or FPS, args.first_second, pattern)


def _size(text: str | None) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text or "1x1")
    if match is None:
        raise UserError(f"--frame-size {text}: expected WIDTHxHEIGHT in pixels, such as 640x480")
    return int(match[1]), int(match[2])
