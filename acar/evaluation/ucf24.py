"""The figures of `evaluation.protocol: ucf24`: frame-mAP by every published evaluator, and video-mAP.

Frames are a video's key frames, numbered in turn, so that neighbours are neighbours whatever their rate; tubes and
their overlap in time are counted in them. Boxes are in pixels of the ingested frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS
from acar.data.frame_tables import repeated_in_tube
from acar.data.tables import LabelMap, format_time
from acar.errors import UserError
from acar.evaluation.frame_map import frame_map
from acar.evaluation.frame_protocols import DEFAULT_PROTOCOL, PROTOCOLS
from acar.evaluation.summary import number_or_none as number
from acar.evaluation.tubes import LinkSettings, link, truth_tubes
from acar.evaluation.video_map import COCO_NAME, THRESHOLDS, mean_over_thresholds, video_map

MICROSECONDS = 1_000_000


def ucf24_metrics(
    labels: pd.DataFrame, detections: pd.DataFrame, label_map: LabelMap, videos: pd.DataFrame,
    key_times: Mapping[str, Sequence[float]], iou: float,
) -> dict[str, Any]:  # fmt: skip
    """What metrics.json holds; undefined figures are None.

    Args:
        labels: as `read_labels` gives them; an actor id is a tube.
        detections: as `read_detections`.
        label_map: the classes.
        videos: the ingested ones, for the size of their frames.
        key_times: of each video the seconds that were looked at.
        iou: least overlap of frame-mAP.

    Raises:
        UserError: two boxes of one class and person id at a key frame, so that there are no tubes.
    """
    truth = _frame_table(labels, label_map, videos, key_times, {"actor_id": "tube"})
    found = _frame_table(detections, label_map, videos, key_times, {"score": "score"})
    _check_tubes(truth, label_map, key_times)
    chosen = PROTOCOLS[DEFAULT_PROTOCOL]
    frames = frame_map(truth, found, label_map.names, chosen, iou)
    annotated, tubes = truth_tubes(truth), link(found, LinkSettings())
    by_threshold = video_map(annotated, tubes, label_map.names, chosen)
    classes = [
        {
            "id": item.id, "name": item.name, "group": item.group, "ap": number(frames.ap[column]),
            "positives": int(frames.positives[column]), "share": None, "chance": None, "clip_only": None,
            "pr": frames.curves[column],
            "video_ap": {f"{t:g}": number(by_threshold[t].ap[column]) for t in THRESHOLDS},
        }
        for column, item in enumerate(label_map.classes)
    ]  # fmt: skip
    return {
        "metric_name": f"frame-mAP@{iou:g}, as {chosen.what} computes it",
        "mAP": number(frames.mean_ap),
        "classes": classes,
        "groups": {},
        "frame_mAP": {name: _frame_map(truth, found, label_map, name, iou) for name in PROTOCOLS},
        "video_mAP": {**{f"{t:g}": number(by_threshold[t].mean_ap) for t in THRESHOLDS},
                      COCO_NAME: number(mean_over_thresholds(by_threshold))},
        "n_ground_truth_boxes": len(truth),
        "n_detections": len(found),
        "n_tubes": len(tubes),
        "n_annotated_tubes": len(annotated),
    }  # fmt: skip


def video_line(metrics: Mapping[str, Any]) -> str:
    """The video-mAPs of metrics.json, in percent, as a line."""
    shown = ", ".join(
        f"{threshold}: {'-' if value is None else f'{100 * value:.1f}'}"
        for threshold, value in metrics["video_mAP"].items()
    )
    return f"video-mAP, % at {shown} ({metrics['n_tubes']} tubes, {metrics['n_annotated_tubes']} annotated)"


def _frame_map(
    truth: pd.DataFrame, found: pd.DataFrame, label_map: LabelMap, name: str, iou: float
) -> float | None:
    try:
        return number(frame_map(truth, found, label_map.names, PROTOCOLS[name], iou).mean_ap)
    except UserError:  # that evaluator divides by zero: it has no figure
        return None


def _check_tubes(truth: pd.DataFrame, label_map: LabelMap, key_times: Mapping[str, Sequence[float]]) -> None:
    repeats = np.flatnonzero(repeated_in_tube(truth))
    if not len(repeats):
        return
    row = truth.iloc[repeats[0]]
    moment = format_time(sorted(key_times[row["video"]])[row["frame"] - 1])
    person = f"of person {row['tube']!r}" if row["tube"] else "without a person id"
    raise UserError(
        f"labels, video {row['video']}, second {moment}: two boxes of {label_map.names[row['label']]!r} {person} "
        f"({len(repeats)} such row(s)); video-mAP needs one box a person, class and key frame: remove repeated rows, "
        "and tell persons apart in the labels' 8th column; or set evaluation.protocol to ava"
    )


def _frame_table(
    table: pd.DataFrame, label_map: LabelMap, videos: pd.DataFrame, key_times: Mapping[str, Sequence[float]],
    more: Mapping[str, str],
) -> pd.DataFrame:  # fmt: skip
    """The rows of ingested videos, key frames and classes of the map, as `acar.evaluation.frame_map` takes them."""
    frame_of = {
        (video, round(time_s * MICROSECONDS)): frame
        for video, times in key_times.items()
        for frame, time_s in enumerate(sorted(times), start=1)
    }
    moments = np.rint(table["time_s"].to_numpy(np.float64) * MICROSECONDS).astype(np.int64)
    frames = np.array([frame_of.get(key, 0) for key in zip(table["video"], moments.tolist())], np.int64)
    ids = table["action_id"].to_numpy(dtype=np.int64, na_value=-1)
    column = pd.Index(label_map.ids).get_indexer(ids)
    kept = (frames > 0) & (column >= 0)
    size = videos.set_index("video").loc[table["video"][kept], ["width", "height"]].to_numpy(np.float64)
    made = table[["video", *more]].rename(columns=dict(more))[kept].reset_index(drop=True)
    made[BOX_COLUMNS] = table[BOX_COLUMNS].to_numpy(np.float64)[kept] * np.tile(size, 2)
    return made.assign(frame=frames[kept], label=column[kept].astype(np.int64))
