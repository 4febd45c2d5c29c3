"""The headline of a run: what each stage reaches against chance, as plain text. Never imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

VARIANT_TITLES = {"stage1": "stage 1", "stage2": "stage 2", "stage2_wrong_bank": "wrong bank"}
GAIN_TITLE = "gain"
ABSENT = "-"


def headline(metrics_by_variant: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of mean AP in percent: a row a class group, then all classes.

    Columns: chance (scores that know nothing, on the same boxes), clip only (the best that a predictor can reach
    which sees one clip, where the data set knows it), each variant there is, and stage 2 minus stage 1.

    Args:
        metrics_by_variant: the content of `metrics.json` by variant: `stage1`, `stage2`, `stage2_wrong_bank`.

    Returns:
        Lines without a trailing newline; unknown figures are `-`.
    """
    variants = [name for name in VARIANT_TITLES if name in metrics_by_variant]
    if not variants:
        return "nothing evaluated yet"
    with_gain = {"stage1", "stage2"} <= set(variants)
    titles = ["mAP, %", "chance", "clip only", *(VARIANT_TITLES[name] for name in variants)]
    rows = [titles + [GAIN_TITLE] * with_gain]
    by_variant = {name: dict(_rows_of(metrics_by_variant[name])) for name in variants}
    for row in by_variant[variants[0]]:
        found = [by_variant[name].get(row, {}) for name in variants]
        values = [found[0].get("chance"), found[0].get("clip_only"), *(item.get("mAP") for item in found)]
        cells = [row, *map(_percent, values)]
        if with_gain:
            cells.append(_gain(found[variants.index("stage1")], found[variants.index("stage2")]))
        rows.append(cells)
    return _aligned(rows)


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Mean, or None if there are no values or any is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def number_or_none(value: float) -> float | None:
    """The value, or None where it is undefined (NaN)."""
    return None if math.isnan(value) else float(value)


def _rows_of(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    evaluated = [item for item in metrics["classes"] if item["ap"] is not None]
    everything = {
        "mAP": metrics["mAP"],
        "chance": mean_or_none([item["chance"] for item in evaluated]),
        "clip_only": mean_or_none([item["clip_only"] for item in evaluated]),
    }
    return [*metrics["groups"].items(), ("all classes", everything)]


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.1f}"


def _gain(stage1: Mapping[str, Any], stage2: Mapping[str, Any]) -> str:
    before, after = stage1.get("mAP"), stage2.get("mAP")
    return ABSENT if before is None or after is None else f"{100 * (after - before):+.1f}"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]  # fmt: skip
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
