"""What the errors are, on problems small enough to count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS, ActionClass, LabelMap
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.diagnosis import diagnose
from acar.evaluation.metrics import ava_metrics

LABEL_MAP = LabelMap((ActionClass(1, "stand", "pose"), ActionClass(3, "sit", "pose"), ActionClass(7, "wave")))
LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 0.9, 1.0)
NEAR_LEFT = (0.2, 0.0, 0.48, 1.0)
"""IoU with LEFT 0.2 / 0.48."""
NOWHERE = (0.92, 0.0, 1.0, 0.1)
SMALL, SMALL_TOO = (0.0, 0.0, 0.1, 0.1), (0.2, 0.0, 0.3, 0.1)


def labels(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame([("a", t, *box, a, "0") for t, box, a in rows], columns=LABEL_COLUMNS)
    return table.astype({"time_s": float, "action_id": "Int64"})


def detections(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame([("a", t, *box, a, s) for t, box, a, s in rows], columns=DETECTION_COLUMNS)
    return table.astype({"time_s": float, **dict.fromkeys(["x1", "y1", "x2", "y2", "score"], float)})


def diagnosis(truth: pd.DataFrame, found: pd.DataFrame) -> dict[str, Any]:
    return diagnose(evaluate_ava(truth, found, LABEL_MAP).match)


def errors(told: dict[str, Any]) -> dict[str, int]:
    return {item["kind"]: item["rows"] for item in told["errors"] if item["rows"]}


@pytest.mark.parametrize(
    ("box", "action", "kind"),
    [
        (LEFT, 1, "true"),
        (RIGHT, 1, "wrong_class"),
        (NEAR_LEFT, 1, "localisation"),
        (NEAR_LEFT, 3, "both"),
        (NOWHERE, 1, "background"),
    ],
)
def test_each_kind(box: tuple, action: int, kind: str) -> None:
    truth = labels((1, LEFT, 1), (1, RIGHT, 3))
    assert errors(diagnosis(truth, detections((1, box, action, 0.9)))) == {kind: 1}


def test_a_second_claim_is_a_duplicate() -> None:
    truth = labels((1, LEFT, 1), (2, LEFT, 1))
    told = diagnosis(truth, detections((1, LEFT, 1, 0.9), (1, LEFT, 1, 0.8), (1, LEFT, 1, 0.7)))
    # As many rows are looked at as the class has boxes: the third is not.
    assert errors(told) == {"true": 1, "duplicate": 1}


def test_an_actor_without_an_action_is_somebody() -> None:
    truth = labels((1, LEFT, pd.NA), (2, LEFT, 1))
    assert errors(diagnosis(truth, detections((1, LEFT, 1, 0.9)))) == {"wrong_class": 1}


def test_missed_by_the_detector_and_otherwise() -> None:
    truth = labels((1, LEFT, 1), (1, RIGHT, 1), (2, LEFT, 1))
    told = diagnosis(truth, detections((1, LEFT, 1, 0.9), (1, RIGHT, 3, 0.8)))
    assert told["missed"]["by_detector"] == 1
    assert told["missed"]["box_but_not_found"] == 1
    assert told["ceiling"] == {"mAP": pytest.approx(2 / 3), "actors": 3, "actors_with_box": 2}
    # AP 1/3 of three boxes; of the two with a detected box 1/2.
    assert told["missed"]["mAP_gain_of_detector"] == pytest.approx(1 / 6)


def test_gains_are_of_the_oracle_that_mends_one_kind() -> None:
    truth = labels((1, LEFT, 1), (2, LEFT, 1), (2, RIGHT, 3))
    found = detections(
        (1, LEFT, 1, 0.5),
        (2, RIGHT, 1, 0.9),
        (2, NEAR_LEFT, 1, 0.4),
        (2, RIGHT, 3, 0.9),
        (1, NOWHERE, 3, 0.1),
    )
    told = diagnosis(truth, found)
    gain = {item["kind"]: item["mAP_gain"] for item in told["errors"]}
    # stand: miss, hit, near: AP 1/4. Without the wrong class 1/2; with the near one a hit 1/2 * 2/3 + 1/2 * 2/3.
    assert gain["wrong_class"] == pytest.approx((1 / 2 - 1 / 4) / 2)
    assert gain["localisation"] == pytest.approx((2 / 3 - 1 / 4) / 2)
    assert gain["background"] == gain["duplicate"] == 0.0


def test_rows_near_a_box_already_found_are_only_taken_away() -> None:
    truth = labels((1, LEFT, 1))
    told = diagnosis(truth, detections((1, NEAR_LEFT, 1, 0.9), (1, LEFT, 1, 0.5)))
    gain = {item["kind"]: item["mAP_gain"] for item in told["errors"]}
    assert gain["localisation"] == pytest.approx(0.5)


def test_by_size_and_by_number_of_actors() -> None:
    truth = labels((1, SMALL, 1), (1, LEFT, 1), (2, LEFT, 1))
    found = detections((1, SMALL_TOO, 1, 0.9), (1, SMALL, 1, 0.8), (2, LEFT, 1, 0.7), (2, NOWHERE, 1, 0.95))
    told = diagnosis(truth, found)
    sizes = {item["name"]: (item["mAP"], item["positives"]) for item in told["by_size"]}
    # Both misses are small boxes; LEFT is .4 of the frame.
    assert sizes == {"small": (pytest.approx(1 / 3), 1), "medium": (None, 0), "large": (0.5, 2)}
    crowds = {item["name"]: (item["mAP"], item["images"]) for item in told["by_actors"]}
    assert crowds["1"] == (0.5, 1) and crowds["2"] == (0.25, 1)
    assert crowds["3-4"] == crowds["5 and more"] == (None, 0)


def test_which_classes_are_taken_for_which() -> None:
    truth = labels(*[(t, LEFT, 3) for t in (1, 2, 3)], (3, LEFT, 7), *[(t, RIGHT, 1) for t in (1, 2, 3)])
    found = detections(*[(t, LEFT, 1, 0.9) for t in (1, 2, 3)])
    metrics = ava_metrics(evaluate_ava(truth, found, LABEL_MAP), LABEL_MAP)
    stand = metrics["classes"][0]
    assert stand["errors"]["wrong_class"] == 3
    assert stand["taken_for_it"] == [{"name": "sit", "rows": 3}, {"name": "wave", "rows": 1}]
    assert "classes" not in metrics["diagnosis"]


def test_nothing_to_diagnose() -> None:
    for truth, found in (
        (labels((1, LEFT, 1)), detections()),
        (labels((1, LEFT, 1)).iloc[:0], detections((1, LEFT, 1, 0.5))),
        (labels().iloc[:0], detections()),
    ):
        told = diagnosis(truth, found)
        assert told["counted_rows"] == 0
        assert all(item["mAP_gain"] in (None, 0.0) for item in told["errors"])
    assert np.isnan(evaluate_ava(labels(), detections(), LABEL_MAP).ap).all()
