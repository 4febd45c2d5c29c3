"""What the errors are, on problems small enough to count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS, ActionClass, LabelMap
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.ava_protocols import ACTIVITYNET, MMACTION2, RELEASED, Protocol
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


@pytest.mark.parametrize(("protocol", "ceiling"), [(RELEASED, 1.0), (ACTIVITYNET, 1.0), (MMACTION2, 0.5)])
def test_excluded_ground_truth_is_missed_where_the_protocol_counts_it(
    protocol: Protocol, ceiling: float
) -> None:
    truth, found = labels((1, LEFT, 1), (2, LEFT, 1)), detections((1, LEFT, 1, 0.9), (2, LEFT, 1, 0.8))
    metrics = ava_metrics(evaluate_ava(truth, found, LABEL_MAP, {("a", 2.0)}, protocol=protocol), LABEL_MAP)
    told, stand = metrics["diagnosis"], metrics["classes"][0]
    assert metrics["mAP"] == stand["ceiling"] == told["ceiling"]["mAP"] == ceiling
    counted = 2 if protocol is MMACTION2 else 1
    assert (stand["positives"], stand["found"], stand["missed_by_detector"]) == (counted, 1, counted - 1)
    assert (told["ceiling"]["actors"], told["ceiling"]["actors_with_box"]) == (counted, 1)
    assert told["missed"]["mAP_gain_of_detector"] == 1 - ceiling
    crowd, size = told["by_actors"][0], told["by_size"][2]
    assert (crowd["images"], crowd["positives"], crowd["mAP"]) == (counted, counted, ceiling)
    assert (size["name"], size["positives"], size["mAP"]) == ("large", counted, ceiling)


@pytest.mark.parametrize(
    ("protocol", "mean", "ap", "n_classes"), [(RELEASED, 0.5, 0.0, 2), (MMACTION2, 1.0, None, 1)]
)
def test_a_class_without_rows_is_in_every_mean_or_in_none(
    protocol: Protocol, mean: float, ap: float | None, n_classes: int
) -> None:
    result = evaluate_ava(
        labels((1, LEFT, 1), (1, RIGHT, 3)), detections((1, LEFT, 1, 0.9)), LABEL_MAP, protocol=protocol
    )
    metrics = ava_metrics(result, LABEL_MAP)
    told, sit, crowd = metrics["diagnosis"], metrics["classes"][1], metrics["diagnosis"]["by_actors"][1]
    assert metrics["mAP"] == told["ceiling"]["mAP"] == crowd["mAP"] == mean
    assert sit["ap"] == sit["chance"] == sit["ceiling"] == sit["ap_least"] == ap
    assert (sit["positives"], sit["found"], sit["missed_by_detector"]) == (1, 0, 1)
    assert told["missed"]["mAP_gain_of_detector"] == 1 - mean
    assert (crowd["classes"], crowd["positives"]) == (n_classes, 2)


def test_a_box_is_seen_in_the_precision_of_the_protocol() -> None:
    """Its overlap with the actor is just below a half, and a half in float32."""
    truth, found = labels((1, (0, 0, 1, 1), 1)), detections((1, (0, 0, 0.5 - 1e-9, 1), 1, 0.9))
    for protocol, mean in ((RELEASED, 0.0), (MMACTION2, 1.0)):
        metrics = ava_metrics(evaluate_ava(truth, found, LABEL_MAP, protocol=protocol), LABEL_MAP)
        assert metrics["mAP"] == metrics["diagnosis"]["ceiling"]["mAP"] == mean
        assert metrics["classes"][0]["missed_by_detector"] == 1 - mean


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
