"""The report's section on errors: their kinds, what each costs, and AP by size of box and number of actors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from acar.report import plots

KIND_TITLES = {
    "true": "right",
    "duplicate": "duplicate",
    "wrong_class": "wrong class",
    "localisation": "localisation",
    "both": "class and localisation",
    "background": "background",
}
MISSED_TITLE = "missed by the detector"


def errors_section(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the template shows, from the content of metrics.json by variant; None without any diagnosis.

    Args:
        metrics: variants whose metrics have no `diagnosis` (an earlier version wrote them) are left out.
    """
    told = {variant: item["diagnosis"] for variant, item in metrics.items() if item.get("diagnosis")}
    if not told:
        return None
    first = next(iter(told.values()))
    gains = {variant: _gains(diagnosis) for variant, diagnosis in told.items()}
    return {
        "variants": list(told),
        "kinds": [_kind_row(kind, title, told, gains) for kind, title in KIND_TITLES.items()],
        "missed": {
            "title": MISSED_TITLE,
            "counts": {v: diagnosis["missed"]["by_detector"] for v, diagnosis in told.items()},
            "gains": {v: item[MISSED_TITLE] for v, item in gains.items()},
        },
        "near_iou": first["near_iou"],
        "iou": first["iou"],
        "ceilings": {
            v: diagnosis["ceiling"] | {"reached": metrics[v].get("mAP")} for v, diagnosis in told.items()
        },
        "sizes": _strata(told, "by_size"),
        "crowds": _strata(told, "by_actors"),
        "figure": Markup(plots.error_gains_svg(gains)),
    }


def _gains(diagnosis: Mapping[str, Any]) -> dict[str, float | None]:
    """mAP gained were one kind mended, by title, in the order of the table."""
    by_kind = {item["kind"]: item["mAP_gain"] for item in diagnosis["errors"]}
    found = {title: by_kind.get(kind) for kind, title in KIND_TITLES.items() if kind != "true"}
    return found | {MISSED_TITLE: diagnosis["missed"]["mAP_gain_of_detector"]}


def _kind_row(
    kind: str,
    title: str,
    told: Mapping[str, Mapping[str, Any]],
    gains: Mapping[str, Mapping[str, float | None]],
) -> dict[str, Any]:
    shares = {}
    for variant, diagnosis in told.items():
        rows = {item["kind"]: item["rows"] for item in diagnosis["errors"]}
        counted = diagnosis["counted_rows"]
        shares[variant] = rows[kind] / counted if counted else None
    return {"title": title, "shares": shares, "gains": {v: item.get(title) for v, item in gains.items()}}


def _strata(told: Mapping[str, Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """A row a part of the ground truth; its size is the same for all variants."""
    rows = []
    for place, part in enumerate(next(iter(told.values()))[key]):
        ap = {variant: diagnosis[key][place]["mAP"] for variant, diagnosis in told.items()}
        rows.append({**part, "ap": ap})
    return rows
