"""The content of metrics.json and per_class.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from acar.data.tables import LabelMap
from acar.evaluation.ava import AvaResult
from acar.evaluation.diagnosis import diagnose
from acar.evaluation.summary import mean_or_none
from acar.files import json_text, replace_together

PER_CLASS_COLUMNS = ["id", "name", "group", "ap", "positives", "share", "chance", "clip_only", "rows", "found",
                     "ap_least", "ap_most", "ceiling"]  # fmt: skip


def ava_metrics(
    result: AvaResult, label_map: LabelMap, clip_only: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The figures of metrics.json that the evaluation gives; undefined ones are None.

    Args:
        result: of `evaluate_ava`.
        label_map: its classes.
        clip_only: AP of the best predictor that sees one clip, by class name, where it is known.
    """
    diagnosis = diagnose(result.match)
    classes = [
        {
            "id": item.id,
            "name": item.name,
            "group": item.group,
            "ap": _number(result.ap[column]),
            "ap_least": _number(result.bounds[column, 0]),
            "ap_most": _number(result.bounds[column, 1]),
            "positives": int(result.positives[column]),
            "rows": int(result.rows[column]),
            "found": int(result.found[column]),
            "share": _number(result.shares[column]),
            "chance": _number(result.chance[column]),
            "clip_only": (clip_only or {}).get(item.name),
            "pr": result.curves[column],
            **_with_names(diagnosis["classes"][column], label_map),
        }
        for column, item in enumerate(label_map.classes)
    ]
    del diagnosis["classes"]
    name = f"PascalBoxes_Precision/mAP@{float(result.match.iou)}IOU"
    defined = [item for item in classes if item["ap"] is not None]
    return {
        "metric_name": name,
        name: _number(result.mean_ap),
        "protocol": result.match.protocol.name,
        "mAP": _number(result.mean_ap),
        "mAP_least": mean_or_none([item["ap_least"] for item in defined]),
        "mAP_most": mean_or_none([item["ap_most"] for item in defined]),
        "classes": classes,
        "groups": {name: _group(classes, ids) for name, ids in label_map.groups().items()},
        "n_ground_truth_boxes": result.n_ground_truth_boxes,
        "n_detections": result.n_detections,
        "diagnosis": diagnosis,
    }


def write_metrics(metrics: dict[str, Any], json_path: Path | None, csv_path: Path | None) -> None:
    """Write metrics.json and per_class.csv, where a path is given: both of them, or neither.

    Raises:
        UserError: the disk refuses one of them; what was there before is there still.
    """
    # Other protocols than AVA's (`evaluation.protocol`) know fewer figures of a class.
    table = pd.DataFrame(metrics["classes"]).filter(PER_CLASS_COLUMNS)
    writers: dict[Path, Callable[[Path], object]] = {}
    if csv_path is not None:
        writers[csv_path] = lambda path: table.to_csv(path, index=False)
    if json_path is not None:
        writers[json_path] = lambda path: path.write_text(json_text(metrics), encoding="utf-8")
    replace_together(writers)


def _with_names(entry: dict[str, Any], label_map: LabelMap) -> dict[str, Any]:
    """A class's part of the diagnosis, with the names of the classes that were taken for it."""
    taken = [
        {"name": label_map.names[item["column"]], "rows": item["rows"]} for item in entry["taken_for_it"]
    ]
    return entry | {"taken_for_it": taken}


def _group(classes: list[dict[str, Any]], ids: list[int]) -> dict[str, Any]:
    """Means over the group's classes that have ground truth."""
    members = [item for item in classes if item["id"] in ids and item["ap"] is not None]
    return {
        "mAP": mean_or_none([item["ap"] for item in members]),
        "chance": mean_or_none([item["chance"] for item in members]),
        "clip_only": mean_or_none([item["clip_only"] for item in members]),
        "classes": ids,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
