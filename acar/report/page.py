"""Turn a collected run into one HTML page that needs nothing but itself."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from acar.config import SPLITS
from acar.evaluation.summary import mean_or_none
from acar.report import attention, plots
from acar.report.collect import TRAININGS, VARIANTS, Run, Training
from acar.report.errors import errors_section

TITLES = {
    "stage1": "Stage\u00a01",
    "stage2": "Stage\u00a02",
    "stage2_wrong_bank": "Stage\u00a02, wrong video’s bank",
    "detector": "Person detector",
}
SMALL_VAL_KEY_FRAMES = 50
PICTURES_BUDGET_BYTES = 4_000_000
MISSING = "–"


@dataclass(frozen=True)
class ScoreRow:
    """A line of the score tables; all numbers in 0..1, None where undefined."""

    name: str
    group: str | None
    n_classes: int
    positives: int | None
    ap: dict[str, float | None]
    chance: float | None
    clip_only: float | None

    @property
    def gain(self) -> float | None:
        """Stage 2 minus stage 1."""
        return _minus(self.ap.get("stage2"), self.ap.get("stage1"))

    @property
    def bank_gain(self) -> float | None:
        """Stage 2 minus stage 2 with another video's bank."""
        return _minus(self.ap.get("stage2"), self.ap.get("stage2_wrong_bank"))

    @property
    def is_long_term(self) -> bool:
        """Whether the class, or the group, is one of those that no clip shows."""
        return (self.group or "").lower().replace("-", "_").startswith("long_term")


def render(run: Run) -> str:
    """The page as HTML text: style, pictures and curves inline, every name from outside escaped."""
    return _environment().get_template("template.html.j2").render(page_context(run))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("acar.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        signed=signed,
        count=count,
        seconds=seconds,
        bytes=byte_size,
        number=number,
        words=words,
    )
    return environment


def page_context(run: Run) -> dict[str, Any]:
    """What the template shows, by section; sections whose source is missing are empty or None."""
    groups, classes = group_rows(run), class_rows(run)
    pictures, n_left_out = example_pictures(run)
    val_key_frames = run.splits["val"].key_frames
    is_small = val_key_frames is not None and val_key_frames < SMALL_VAL_KEY_FRAMES
    return {
        "titles": TITLES,
        "variants": [v for v in VARIANTS if v in run.metrics],
        "is_drawn": run.config.data.source == "synthetic",
        "is_small": run.config.data.source == "files" and is_small,
        "groups": groups,
        "classes": classes,
        "video_map": {v: m["video_mAP"] for v, m in run.metrics.items() if m.get("video_mAP")},
        "metric_name": next((m.get("metric_name") for m in run.metrics.values()), None),
        "errors": errors_section(run.metrics),
        "curves": _curves(run),
        "taken": _taken(run.trainings),
        "facts": _facts_table(run.trainings, run.timings),
        "facts_json": {TITLES[k]: _pretty(t.facts) for k, t in run.trainings.items() if t.facts},
        **_detector(run),
        "examples": pictures,
        "examples_left_out": n_left_out,
        "banks": _banks(run),
        "radius_s": run.config.stage2.window.radius_s,
        "n_views": run.config.predict.n_views,
        "clip_s": run.config.clip.frames * run.config.clip.stride / run.config.ingest.fps,
        **_timings(run.timings),
        "splits": run.splits,
        "troubles": [item for split in SPLITS for item in run.splits[split].troubles],
        "skipped_clips": _skipped_clips(run.trainings),
        "any_ingested": any(facts.videos is not None for facts in run.splits.values()),
        "law": [c for c in (run.law or {}).get("classes", []) if isinstance(c, dict)],
        "config_text": run.config_text,
        "versions": run.versions,
        "notes": run.notes,
    }


def class_rows(run: Run) -> list[ScoreRow]:
    """One row a class, in the order of the label map, from whichever variants were evaluated."""
    by_id: dict[Any, dict[str, dict[str, Any]]] = {}
    for variant, metrics in run.metrics.items():
        for entry in metrics.get("classes", []):
            by_id.setdefault(entry["id"], {})[variant] = entry
    rows = []
    for entries in by_id.values():
        first = next(iter(entries.values()))
        rows.append(
            ScoreRow(
                name=str(first["name"]),
                group=first.get("group"),
                n_classes=1,
                positives=first.get("positives"),
                ap={variant: entry.get("ap") for variant, entry in entries.items()},
                chance=first.get("chance"),
                clip_only=first.get("clip_only"),
            )
        )
    return rows


def group_rows(run: Run) -> list[ScoreRow]:
    """One row a group of classes, then one over all; both count and average the classes with an AP."""
    if not run.metrics:
        return []
    by_variant = {variant: metrics.get("groups") or {} for variant, metrics in run.metrics.items()}
    counted = [row for row in class_rows(run) if any(ap is not None for ap in row.ap.values())]
    rows = []
    for name in dict.fromkeys(name for groups in by_variant.values() for name in groups):
        entries = {variant: groups[name] for variant, groups in by_variant.items() if name in groups}
        first = next(iter(entries.values()))
        ap = {variant: entry.get("mAP") for variant, entry in entries.items()}
        n_classes = sum(row.group == name for row in counted)
        rows.append(ScoreRow(name, name, n_classes, None, ap, first.get("chance"), first.get("clip_only")))
    overall = ScoreRow(
        name="all classes",
        group=None,
        n_classes=len(counted),
        positives=None,
        ap={variant: metrics.get("mAP") for variant, metrics in run.metrics.items()},
        chance=mean_or_none([row.chance for row in counted]),
        clip_only=mean_or_none([row.clip_only for row in counted]),
    )
    return [*rows, overall]


def example_pictures(run: Run) -> tuple[list[dict[str, Any]], int]:
    """Key frames with scores and attention strips, and how many were left out to keep the page small."""
    shown: list[dict[str, Any]] = []
    size = 0
    for example in run.examples:
        frame, actors, n_hidden = attention.key_frame(example, run.example_classes)
        strip = attention.attention_strip(example)
        size += len(frame.uri) + sum(len(item[0].uri) for item in strip)
        if shown and size > PICTURES_BUDGET_BYTES:
            break
        shown.append(
            {
                "video": example.video,
                "time_s": example.time_s,
                "frame": frame,
                "actors": actors,
                "n_hidden": n_hidden,
                "strip": strip,
            }
        )
    return shown, len(run.examples) - len(shown)


def _curves(run: Run) -> list[tuple[str, Markup]]:
    found = []
    for name in TRAININGS:
        svg = plots.training_svg(run.trainings[name].metrics, name) if name in run.trainings else None
        if svg is not None:
            found.append((TITLES[name], Markup(svg)))
    return found


def _taken(trainings: dict[str, Training]) -> list[dict[str, Any]]:
    """Networks that this run took as they are (`stage1.weights`): they have neither a log nor a curve."""
    return [
        {
            "title": TITLES[name],
            "file": training.facts["taken_from"],
            "sha256": training.facts.get("taken_sha256"),
            "n_columns": len(training.facts.get("columns") or []),
        }
        for name, training in trainings.items()
        if training.facts.get("taken_from")
    ]


def _facts_table(trainings: dict[str, Training], timings: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    job_s = dict(zip(timings["rule"], timings["s"]))
    for name, training in trainings.items():
        facts, metrics = training.facts, training.metrics
        rate = metrics["clips_per_s"].dropna() if "clips_per_s" in metrics else pd.Series(dtype=float)
        loss = metrics["loss"].dropna() if "loss" in metrics else pd.Series(dtype=float)
        last = metrics["iteration"].iloc[-1] if len(metrics) else None
        rows.append(
            {
                "title": TITLES[name],
                "iterations": facts.get("iterations", last),
                "n_parameters": facts.get("n_parameters", facts.get("parameters")),
                "wall_s": job_s.get(f"train_{name}", facts.get("wall_s")),
                "device": facts.get("device"),
                "first_loss": float(loss.iloc[0]) if len(loss) else None,
                "last_loss": float(loss.tail(max(len(loss) // 20, 1)).mean()) if len(loss) else None,
                "clips_per_s": float(rate.median()) if len(rate) else None,
            }
        )
    return rows


def _skipped_clips(trainings: dict[str, Training]) -> list[dict[str, Any]]:
    """Clips that a training left out, the most often left out first."""
    found = [
        {"title": TITLES[name], "clip": str(item.get("clip", "?")), "times": item.get("times")}
        for name, training in trainings.items()
        for item in training.facts.get("skipped_clips") or []
        if isinstance(item, dict)
    ]
    return sorted(found, key=lambda item: (-(item["times"] or 0), item["title"], item["clip"]))


def _detector(run: Run) -> dict[str, Any]:
    detector = next((m["detector"] for m in run.metrics.values() if m.get("detector")), None)
    points = (detector or {}).get("pr") or []
    return {
        "detector": detector,
        "detector_curve": Markup(plots.precision_recall_svg(points)) if len(points) > 1 else None,
        "detector_source": run.config.detector.source,
    }


def _banks(run: Run) -> list[dict[str, Any]]:
    """A line a split, then one a grid of it; what the table does not show is `rest`."""
    shown = ("rows", "bytes", "videos", "seconds", "empty_seconds", "d", "grids")
    found = []
    for split, manifest in run.banks.items():
        whole = {key: manifest.get(key) for key in shown if key != "grids"}
        grids = manifest.get("grids")
        parts = [
            {"name": name, **facts, "fill": (facts.get("fill") or {}).get("nonzero_fraction")}
            for name, facts in (grids.items() if isinstance(grids, dict) else [])
            if isinstance(facts, dict)
        ]
        rest = _pretty({key: value for key, value in manifest.items() if key not in whole})
        found.append({"split": split, **whole, "grids": parts, "rest": rest})
    return found


def _timings(timings: pd.DataFrame) -> dict[str, Any]:
    rows = []
    for rule, jobs in timings.groupby("rule", sort=False):
        rows.append(
            {
                "rule": rule,
                "jobs": len(jobs),
                "total_s": float(jobs["s"].sum()),
                "longest_s": float(jobs["s"].max()),
                "max_rss_mib": float(jobs["max_rss_mib"].max()),
            }
        )
    longest = max((row["total_s"] for row in rows), default=0.0)
    for row in rows:
        row["share"] = row["total_s"] / longest if longest else 0.0
    return {"timings": rows, "timings_total_s": float(timings["s"].sum()), "timings_jobs": len(timings)}


def percent(value: Any) -> str:
    """0.534 -> `53.4`; what is not a finite number -> a dash. Likewise the other formatters."""
    return f"{100 * value:.1f}" if _finite(value) else MISSING


def signed(value: Any) -> str:
    """A difference in points of percent, always with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−") if _finite(value) else MISSING


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u2009") if _finite(value) else MISSING


def number(value: Any) -> str:
    """Four significant digits."""
    return f"{value:.4g}" if _finite(value) else MISSING


def seconds(value: Any) -> str:
    """`0.42 s`, `12.3 s`, `4 min 05 s` or `2 h 07 min`."""
    if not _finite(value):
        return MISSING
    if value < 60:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def byte_size(value: Any) -> str:
    """Bytes in KiB, MiB or GiB."""
    if not _finite(value):
        return MISSING
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= step:
            return f"{value / step:.1f} {unit}"
    return f"{value:.0f} B"


def words(name: Any) -> str:
    """A group's name as words: `long_term` -> `long term`."""
    return str(name).replace("_", " ")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _minus(a: float | None, b: float | None) -> float | None:
    return a - b if a is not None and b is not None else None


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
