"""Curves as inline SVG that takes its colours and font from the page, so that it follows light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib.figure import Figure

# matplotlib wants real colours; each of these stands for a variable of page.css and is replaced in the SVG.
TEXT, GRID = "#010101", "#010102"
COLOURS = {"stage1": "#010103", "stage2": "#010104", "stage2_wrong_bank": "#010105", "detector": "#010106"}
CSS_VARIABLES = {
    TEXT: "var(--muted)",
    GRID: "var(--line)",
    COLOURS["stage1"]: "var(--stage1)",
    COLOURS["stage2"]: "var(--stage2)",
    COLOURS["stage2_wrong_bank"]: "var(--wrong)",
    COLOURS["detector"]: "var(--detector)",
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "acar",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
MAX_POINTS = 300


def training_svg(metrics: pd.DataFrame, name: str) -> str | None:
    """The loss of one training over its iterations, with the learning rate below; None without a loss."""
    if metrics.empty or "loss" not in metrics or metrics["loss"].dropna().empty:
        return None
    table = thin(metrics)
    has_lr = "lr" in table and table["lr"].notna().any()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        if has_lr:
            top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
            bottom.plot(table["iteration"], table["lr"], color=TEXT, linewidth=1.2)
            bottom.set_ylabel("lr")
            bottom.set_ylim(bottom=0)
            bottom.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        else:
            top = bottom = figure.subplots()
        top.plot(table["iteration"], table["loss"], color=COLOURS[name], linewidth=0.8, alpha=0.35)
        top.plot(table["iteration"], smoothed(table["loss"]), color=COLOURS[name], linewidth=1.8)
        top.set_ylabel("loss")
        top.set_ylim(bottom=min(0.0, float(table["loss"].min())))
        bottom.set_xlabel("iteration")
        return inline_svg(figure, f"loss-{name}", f"Loss and learning rate of {name} over its iterations")


def precision_recall_svg(points: list[list[float]]) -> str:
    """The person detector's precision over its recall, from [recall, precision] in 0..1 by rising recall."""
    recall, precision = np.asarray(points, np.float64).T
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(recall, precision, color=COLOURS["detector"], linewidth=1.8)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        return inline_svg(figure, "detector-pr", "Precision over recall of the person detector")


def error_gains_svg(gains: Mapping[str, Mapping[str, float | None]]) -> str:
    """Bars of the mAP (0..1) that mending one kind of errors would gain, by variant and title of the kind."""
    titles = list(next(iter(gains.values())))
    height = 0.8 / len(gains)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 0.6 + 0.36 * len(titles)), layout="constrained")
        axes = figure.subplots()
        for number, (variant, by_title) in enumerate(gains.items()):
            places = np.arange(len(titles)) - 0.4 + height * (number + 0.5)
            values = [100 * (by_title[title] or 0.0) for title in titles]
            axes.barh(places, values, height=0.9 * height, color=COLOURS[variant])
        axes.set_yticks(np.arange(len(titles)), titles)
        axes.invert_yaxis()
        axes.set_axisbelow(True)
        axes.grid(False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel("points of mAP gained if mended")
        return inline_svg(figure, "error-gains", "Points of mAP that mending each kind of errors would gain")


def thin(metrics: pd.DataFrame, points: int = MAX_POINTS) -> pd.DataFrame:
    """At most `points` rows: the means of equal runs of lines, so that a long log stays a small picture."""
    if len(metrics) <= points:
        return metrics
    numeric = metrics.select_dtypes("number")
    return numeric.groupby(np.arange(len(numeric)) * points // len(numeric)).mean()


def smoothed(values: pd.Series) -> pd.Series:
    """Centred running mean over a twentieth of the line, shorter at its ends."""
    return values.rolling(max(len(values) // 20, 1), center=True, min_periods=1).mean()


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element: no XML prologue, metadata or fixed size; ids begin with `prefix`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--font)", body)
    for colour, variable in CSS_VARIABLES.items():
        body = body.replace(colour, variable)
    return f'{head} role="img" aria-label="{label}">{body}'
