"""Score files of detections in AVA's format: from their paths to the content of metrics.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from acar.data.class_groups import with_groups
from acar.data.detection_files import place_of_row, read_any_detections
from acar.data.ground_truth import read_ground_truth
from acar.data.tables import LabelMap, read_excluded, read_label_map
from acar.errors import UserError
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.ava_match import InvertedBoxError
from acar.evaluation.ava_protocols import protocol_named
from acar.evaluation.metrics import ava_metrics
from acar.evaluation.mismatch import ids_as_scores, unknown_videos, warn

VERB = "evaluate-ava"


def evaluate_ava_files(
    groundtruth: Path,
    detections: Path,
    labelmap: Path,
    exclusions: Path | None = None,
    protocol: str = "released",
    iou: float = 0.5,
    groups: Path | None = None,
) -> dict[str, Any]:
    """The content of metrics.json for files; `evaluate_ava` and `ava_metrics` do the same for tables.

    What suggests that the files do not belong together is a warning on stderr.

    Args:
        groundtruth: AVA label csv.
        detections: AVA result csv, or parquet.
        labelmap: pbtxt of the evaluated classes.
        exclusions: csv of video and time.
        protocol: `released`, `activitynet` or `mmaction2`.
        iou: least overlap of a true positive, above 0, to 1.
        groups: another label map, whose groups are taken where `labelmap` has none.

    Raises:
        UserError: a missing or malformed file (with line and value), an unknown protocol, or not one
            ground-truth row with a class of the label map.
    """
    chosen = protocol_named(protocol)
    if not 0 < iou <= 1:
        raise UserError(f"--iou {iou:g}: expected above 0, to 1")
    listed, teller = read_label_map(labelmap), read_label_map(groups) if groups else None
    label_map = with_groups(listed, teller)
    excluded = read_excluded(exclusions) if exclusions else set()
    truth = read_ground_truth(groundtruth)
    _check_classes(truth["action_id"].isin(label_map.ids).any(), groundtruth, labelmap, label_map)
    videos = truth["video"].unique()
    table = read_any_detections(detections)
    n_rows, known = len(table), bool(set(table["video"].unique()) & set(videos))
    warn(
        VERB,
        _idle_groups(listed, teller, f"--groups {groups}", labelmap),
        unknown_videos(table["video"].unique(), videos, detections, groundtruth),
        ids_as_scores(table["score"].to_numpy(np.float64), detections),
        unknown_videos((video for video, _ in excluded), videos, exclusions, groundtruth)
        if exclusions
        else None,
    )
    try:
        result = evaluate_ava(truth, table, label_map, excluded, iou, chosen)
    except InvertedBoxError as error:
        place = place_of_row(detections, error.row)
        raise UserError(f"{detections}, {place}: {error.complaint}") from None
    del table  # room for the diagnosis
    may_meet = n_rows == 0 or known  # else it is told above
    if may_meet and not np.isin(result.match.box_image, result.match.truth.actor_image).any():
        warn(
            VERB,
            f"{detections}: of its {n_rows} row(s) none with a class of {labelmap} is at a key frame where "
            f"{groundtruth} has persons; are ids of videos and classes, and seconds, those of the ground truth?",
        )
    return ava_metrics(result, label_map)


def _idle_groups(label_map: LabelMap, teller: LabelMap | None, named: str, labelmap: Path) -> str | None:
    """What to say of a map of groups that has no say."""
    if teller is None:
        return None
    if label_map.groups():
        return f"{named}: not used, since {labelmap} tells groups itself"
    told = {number for ids in with_groups(teller).groups().values() for number in ids}
    if told.isdisjoint(label_map.ids):
        known = with_groups(label_map).groups()
        return (
            f"{named}: tells the group of no class of {labelmap}, so "
            + ("AVA's own groups are taken" if known else "there are none")
            + '; expected classes such as item { name: "stand" id: 1 group: "pose" }'
        )
    return None


def _check_classes(any_known: bool, groundtruth: Path, labelmap: Path, label_map: LabelMap) -> None:
    if not any_known:
        raise UserError(
            f"{groundtruth}: no row has a class of {labelmap} (ids {label_map.ids[0]} to {label_map.ids[-1]}), "
            "so no AP is defined; is it the right label map?"
        )


def as_text(metrics: dict[str, Any]) -> str:
    """The main figures, a line each; the first as the official evaluator names it."""
    diagnosis, ceiling = metrics["diagnosis"], metrics["diagnosis"]["ceiling"]
    counted = max(diagnosis["counted_rows"], 1)
    bounds = f"{_figure(metrics['mAP_least'])} to {_figure(metrics['mAP_most'])}"
    lines = [
        f"{metrics['metric_name']} = {_figure(metrics['mAP'])}  (protocol {metrics['protocol']}; over all orders of "
        f"equal scores {bounds})",
        *(f"  {name}: {_figure(group['mAP'])}" for name, group in metrics["groups"].items()),
        f"{metrics['n_detections']} rows counted, {ceiling['actors']} annotated actors, of which "
        f"{ceiling['actors_with_box']} have a detected box; with perfect scores on these boxes mAP "
        f"{_figure(ceiling['mAP'])}",
        f"of the best {diagnosis['counted_rows']} rows: "
        + ", ".join(f"{item['kind']} {item['rows'] / counted:.1%}" for item in diagnosis["errors"]),
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
