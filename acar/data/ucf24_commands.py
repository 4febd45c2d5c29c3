"""The subcommand `convert-ucf24`. Imported with the command line, so it imports little itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from acar.errors import UserError

MOST_EVERY = 1_000_000_000  # no video has so many frames


def add_verbs(verbs: Any) -> None:
    """Add `convert-ucf24` to the command line."""
    parser = verbs.add_parser(
        "convert-ucf24",
        help="write labels, label map and video lists of UCF101-24 or JHMDB from their pickles",
        description="Write train.csv, val.csv (labels in AVA's form), label_map.pbtxt, train_videos.txt and "
        "val_videos.txt for `data.source: files` from pyannot.pkl, UCF101v2-GT.pkl or JHMDB-GT.pkl.",
    )
    parser.add_argument("annotations", type=Path, metavar="PKL")
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument(
        "--videos", type=Path, help="folder of the videos by id; each file's frame rate is taken"
    )
    parser.add_argument("--present", action="store_true", help="leave out videos that are not there")
    parser.add_argument("--fps", type=float, help="frame rate of all videos, instead of looking at them")
    parser.add_argument("--split", type=int, default=1, help="whose test videos are val; default: 1")
    parser.add_argument(
        "--test-list", type=Path, help="ids of the val videos, a line each, instead of --split"
    )
    parser.add_argument("--every", type=int, default=1, help="a key frame every so many frames; default: 1")
    parser.add_argument(
        "--annotated-only", action="store_true",
        help="no key frames in val where nobody acts; default: all frames count, as by ACT and MOC",
    )  # fmt: skip
    parser.set_defaults(handler=_convert)


def _convert(args: argparse.Namespace, _: list[str]) -> None:
    from acar.data.formats.frame_names import RATES
    from acar.data.ucf24 import read_annotations
    from acar.data.ucf24_convert import (
        convert,
        not_annotated,
        rates_in,
        read_video_list,
        split_by_list,
        split_videos,
    )

    if (args.videos is None) == (args.fps is None):
        raise UserError("give either --videos (each file's own frame rate) or --fps")
    if args.fps is not None and not RATES[0] <= args.fps <= RATES[1]:
        raise UserError(f"--fps {args.fps:g}: expected frames a second, from {RATES[0]:g} to {RATES[1]:g}")
    if not 1 <= args.every <= MOST_EVERY:
        raise UserError(f"--every {args.every}: expected 1, 2, ... up to {MOST_EVERY}")
    if args.videos is not None and not args.videos.is_dir():
        raise UserError(f"{args.videos}: no such folder (--videos)")
    _check_outputs(args)
    rate_of = (
        rates_in(args.videos, only_present=args.present) if args.videos is not None else lambda _: args.fps
    )
    annotations = read_annotations(args.annotations)
    if args.test_list is not None:
        listed = read_video_list(args.test_list)
        splits = split_by_list(annotations, listed)
        absent = not_annotated(annotations, listed)
        if absent is not None:
            print(f"convert-ucf24: warning: {args.test_list}: {absent}", file=sys.stderr, flush=True)
    else:
        splits = split_videos(annotations, args.split)
    counts = convert(
        annotations, args.folder, rate_of, splits=splits, every=args.every, background=not args.annotated_only,
        looked_in=args.videos,
    )  # fmt: skip
    print(f"{args.folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def _check_outputs(args: argparse.Namespace) -> None:
    from acar.data.ucf24_convert import OUTPUTS
    from acar.files import check_output, check_output_folder

    check_output_folder(args.folder)
    inputs = [path for path in (args.annotations, args.test_list) if path is not None]
    for name in OUTPUTS:
        check_output(args.folder / name, inputs)
