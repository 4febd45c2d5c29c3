"""What ingest checks of a split's labels and of the folder of videos before it decodes anything."""

from __future__ import annotations

import sys

import pandas as pd

from acar.config import SPLITS, Config, Split
from acar.data.class_groups import read_classes
from acar.data.frame_folder import BadVideoError
from acar.data.sources import SourceFolder, labels_path, video_ids, videos_folder
from acar.data.tables import check_labels, read_labels, repeated_labels
from acar.errors import UserError

NAMED = 5
"""So many videos or classes are named in a message."""


def checked_labels(config: Config, split: Split, shard: int) -> pd.DataFrame:
    """The rows of a split's labels, held against the label map and looked through for repeated rows.

    Classes in gaps of the label map, and (under `ingest.on_error: skip`) repeated rows, are told once a
    split: by shard 0.

    Raises:
        UserError: a malformed row, an unknown class (of the rows or of `data.class_groups`), or a repeated row under
            `ingest.on_error: stop`.
    """
    path = labels_path(config, split)
    label_map = read_classes(config)
    labels = read_labels(path)
    check_labels(labels, label_map, path)
    repeated = repeated_labels(path)
    if repeated.count and config.ingest.on_error == "stop":
        line, first = repeated.lines[0]
        raise UserError(
            f"{path}, line {line}: repeats line {first} (same video, second, box, action and person; "
            f"{repeated.count} such row(s)); remove what is repeated, or set `ingest.on_error: skip`, which "
            "takes each row once in training"
        )
    if shard == 0:
        if repeated.count:
            _warn(f"{path}: {repeated.count} repeated row(s), each taken once in training: {repeated}")
        ids = labels["action_id"].dropna()
        unevaluated = sorted(set(ids.tolist()) - set(label_map.ids))
        if unevaluated:
            count = int(ids.isin(unevaluated).sum())
            _warn(
                f"{path}: {count} row(s) have a class that the label map leaves out, so they are persons "
                f"without an action: {_some(list(map(str, unevaluated)))}"
            )
    return labels


def check_all_found(sources: SourceFolder, videos: list[str], labels_csv: object) -> None:
    """Refuse a shard of which a video has no source, before any other is decoded.

    Raises:
        UserError: names the first one and how many more there are.
    """
    absent: list[tuple[str, BadVideoError]] = []
    for video in videos:
        try:
            sources.find(video)
        except BadVideoError as error:
            absent.append((video, error))
    if absent:
        video, reason = absent[0]
        others = f" ({len(absent) - 1} more: {_some([name for name, _ in absent[1:]])})" if absent[1:] else ""
        raise UserError(
            f"video `{video}` of {labels_csv}: {reason}{others}; put the file there, remove the video's rows, "
            "or leave such videos out with `ingest.on_error: skip`"
        )


def say_unnamed(config: Config, sources: SourceFolder) -> None:
    """Warn of videos in the folder that the labels of no split name."""
    named: set[str] = set()
    for split in SPLITS:
        try:
            named |= set(video_ids(config, split))
        except UserError as error:  # that split's own ingest stops there
            _warn(f"cannot tell which videos are without labels: {error}")
            return
    unnamed = sources.others(named)
    if unnamed:
        _warn(
            f"{videos_folder(config)}: {len(unnamed)} video(s) are named by neither split's labels and not "
            f"used: {_some(unnamed)}"
        )


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _warn(text: str) -> None:
    print(f"ingest: warning: {text}", file=sys.stderr, flush=True)
