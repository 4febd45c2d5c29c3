"""Labels as annotated tubes, of which video-mAP needs one box a frame. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acar.config import Config
from acar.data.check.facts import Problems, SplitFacts
from acar.data.label_map import LabelMap
from acar.data.tables import format_time, labels_without


def check_tubes(
    config: Config, facts: SplitFacts, label_map: LabelMap, path: Path, problems: Problems
) -> None:
    """Note persons with two boxes of a class at one key frame, at which `evaluation.protocol: ucf24` stops.

    A tube is what the labels say of one person id and class of a video; without ids, of one class.

    Args:
        config: the merged config.
        facts: of the split, with `labels` and `excluded`.
        label_map: the classes.
        path: the labels csv.
        problems: is added to.
    """
    if facts.labels is None or facts.split != "val" or config.evaluation.protocol != "ucf24":
        return
    rows = labels_without(facts.labels, facts.excluded)
    rows = rows[rows["action_id"].isin(label_map.ids)]
    repeats = np.flatnonzero(rows.duplicated(["video", "time_s", "action_id", "actor_id"]).to_numpy())
    if not len(repeats):
        return
    first = rows.iloc[repeats[0]]
    name = label_map.names[label_map.ids.index(first["action_id"])]
    whose = f"of person `{first['actor_id']}`" if first["actor_id"] else "without a person id"
    problems.stop(
        f"{path}: {len(repeats)} row(s) are a second box of one person and class at a key frame, such as of `{name}` "
        f"{whose} at second {format_time(first['time_s'])} of video `{first['video']}`; video-mAP "
        "(evaluation.protocol: ucf24) has one a frame: remove repeated rows, and give each person of a video its own "
        "id in the 8th column"
    )
