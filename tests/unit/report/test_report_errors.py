"""The report's section on errors, from an evaluation's own metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acar.config import Config
from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS, ActionClass, LabelMap
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.metrics import ava_metrics
from acar.paths import Paths
from acar.report.errors import MISSED_TITLE, errors_section
from acar.stages import report

LABEL_MAP = LabelMap((ActionClass(1, "stand"), ActionClass(3, "sit")))
LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 0.9, 1.0)


@pytest.fixture
def metrics() -> dict[str, Any]:
    truth = pd.DataFrame(
        [("a", 1.0, *LEFT, 1, "0"), ("a", 1.0, *RIGHT, 3, "1"), ("a", 2.0, *LEFT, 1, "0")],
        columns=LABEL_COLUMNS,
    )
    found = pd.DataFrame([("a", 1.0, *LEFT, 1, 0.9), ("a", 1.0, *RIGHT, 1, 0.8)], columns=DETECTION_COLUMNS)
    return ava_metrics(evaluate_ava(truth, found, LABEL_MAP), LABEL_MAP)


def test_shares_gains_and_parts(metrics: dict[str, Any]) -> None:
    section = errors_section({"stage1": metrics, "stage2": metrics})
    assert section is not None and section["variants"] == ["stage1", "stage2"]
    shares = {row["title"]: row["shares"]["stage2"] for row in section["kinds"]}
    assert (shares["right"], shares["wrong class"], shares["background"]) == (0.5, 0.5, 0.0)
    assert section["missed"]["counts"] == {"stage1": 1, "stage2": 1}
    assert section["ceilings"]["stage1"]["mAP"] == 0.75 and section["ceilings"]["stage1"]["reached"] == 0.25
    assert [row["positives"] for row in section["sizes"]] == [0, 0, 3]
    assert section["crowds"][1]["ap"]["stage1"] == pytest.approx(0.5)
    assert MISSED_TITLE in section["figure"] and "var(--stage2)" in section["figure"]


def test_metrics_of_an_earlier_version_are_left_out(metrics: dict[str, Any]) -> None:
    earlier = {key: value for key, value in metrics.items() if key != "diagnosis"}
    assert errors_section({"stage1": earlier}) is None
    section = errors_section({"stage1": earlier, "stage2": metrics})
    assert section is not None and section["variants"] == ["stage2"]


def test_the_page_shows_them(metrics: dict[str, Any], build: Callable[..., Config], tmp_path: Path) -> None:
    config = build(tmp_path / "results")
    paths = Paths.of(config)
    for variant in ("stage1", "stage2"):
        file = paths.evaluation(variant) / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"diagnosis": metrics["diagnosis"]}))
    report.run(config)
    page = paths.report.read_text()
    section = re.sub(r"<[^>]+>", " ", page[page.index('<section id="errors">') :].split("</section>")[0])
    words = " ".join(section.split())
    assert "wrong class 50.0 50.0 +0.0 +0.0" in words
    assert "missed by the detector 1 boxes 1 boxes +25.0 +25.0" in words
    assert "large boxes (from 25.0 % of the frame)" in words and "1 actor in the key frame" in words
    assert "No evaluation has told its errors yet" not in page


def test_without_a_diagnosis_the_page_says_so(build: Callable[..., Config], tmp_path: Path) -> None:
    config = build(tmp_path / "results")
    report.run(config)
    assert "No evaluation has told its errors yet" in Paths.of(config).report.read_text()
