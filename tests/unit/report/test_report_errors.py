"""The report's section on errors, from an evaluation's own metrics."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS, ActionClass, LabelMap
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.metrics import ava_metrics
from acar.report.errors import MISSED_TITLE, errors_section

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
