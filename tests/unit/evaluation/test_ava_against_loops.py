"""The vectorised AVA evaluation against the same protocols written out in loops (benchmarks/plain_ava.py)."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS, ActionClass, LabelMap, read_label_map
from acar.evaluation.ava import evaluate_ava
from acar.evaluation.ava_protocols import PROTOCOLS
from acar.evaluation.diagnosis import KINDS
from acar.evaluation.image_cap import best_of_images
from acar.evaluation.metrics import ava_metrics

REPOSITORY = Path(__file__).resolve().parents[3]
LABEL_MAP = LabelMap((ActionClass(1, "stand", "pose"), ActionClass(3, "sit", "pose"), ActionClass(7, "wave")))


def load_plain() -> Any:
    spec = importlib.util.spec_from_file_location("plain_ava", REPOSITORY / "benchmarks" / "plain_ava.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_ava"] = module
    spec.loader.exec_module(module)
    return module


PLAIN = load_plain()


def truth_table(rows: list[tuple]) -> pd.DataFrame:
    values = [(v, t, *(box or [np.nan] * 4), pd.NA if a is None else a, p) for v, t, box, a, p in rows]
    kinds = {"video": "str", "time_s": float, "action_id": "Int64", "actor_id": "str"}
    return pd.DataFrame(values, columns=LABEL_COLUMNS).astype(
        kinds | dict.fromkeys(["x1", "y1", "x2", "y2"], float)
    )


def detection_table(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame([(v, t, *box, a, s) for v, t, box, a, s in rows], columns=DETECTION_COLUMNS)
    kinds = {"video": "str", "action_id": np.int64, "time_s": float}
    return table.astype(kinds | dict.fromkeys(["x1", "y1", "x2", "y2", "score"], float))


@st.composite
def problems(draw: st.DrawFn, protocol: str) -> tuple[list, list, set, float]:
    """Small problems on a coarse grid: boxes coincide or are degenerate, overlaps and scores tie."""
    edge = st.integers(0, 4)
    box = st.tuples(edge, edge, edge, edge).map(lambda e: tuple(x / 4 for x in e))
    upright = box.map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))
    image = st.tuples(st.sampled_from("ab"), st.sampled_from([902.0, 903.5]))
    action, person = st.sampled_from([1, 3, 7, 2]), st.sampled_from(["0", "1", "2", "", "p"])
    labelled = st.tuples(image, upright, st.one_of(action, st.none()), person)
    nobody = st.tuples(image, st.none(), st.none(), st.just(""))
    truth = draw(st.lists(st.one_of(labelled, labelled, labelled, nobody), max_size=14))
    scores = st.sampled_from([0.1, 0.2, 0.2 + 1e-12, 0.5, 1.0])
    detected = upright if protocol == "mmaction2" else box
    found = draw(st.lists(st.tuples(image, detected, action, scores), max_size=30))
    return (
        [(*i, b, a, p) for i, b, a, p in truth],
        [(*i, b, a, s) for i, b, a, s in found],
        draw(st.sets(image, max_size=1)),
        draw(st.sampled_from([0.3, 0.5, 1.0])),
    )


RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", PROTOCOLS)
@RELAXED
@given(data=st.data(), cap=st.sampled_from([1, 2, 5, 50]))
def test_agrees(name: str, data: st.DataObject, cap: int) -> None:
    truth, found, excluded, iou = data.draw(problems(name))
    protocol = PROTOCOLS[name]
    if protocol.rows_per_image is not None:
        protocol = replace(protocol, rows_per_image=cap)
    result = evaluate_ava(truth_table(truth), detection_table(found), LABEL_MAP, excluded, iou, protocol)
    expected = PLAIN.plain_aps(truth, found, LABEL_MAP.ids, excluded, iou, name, cap)
    wanted = [np.nan if expected[number] is None else expected[number] for number in LABEL_MAP.ids]
    np.testing.assert_allclose(result.ap, wanted, atol=1e-12)
    defined = ~np.isnan(result.ap)
    assert (result.bounds[defined, 0] <= result.ap[defined] + 1e-12).all()
    assert (result.ap[defined] <= result.bounds[defined, 1] + 1e-12).all()


@RELAXED
@given(data=st.data(), seed=st.integers(0, 99))
def test_every_order_of_rows_stays_within_the_bounds(data: st.DataObject, seed: int) -> None:
    truth, found, excluded, iou = data.draw(problems("released"))
    # Where all persons have an id of their own the ground truth has one order.
    truth = [(*row[:4], str(number)) for number, row in enumerate(truth)]
    straight = evaluate_ava(truth_table(truth), detection_table(found), LABEL_MAP, excluded, iou)
    tables = (truth_table(truth), detection_table(found))
    shuffled = evaluate_ava(
        *(table.sample(frac=1, random_state=seed) for table in tables), LABEL_MAP, excluded, iou
    )
    np.testing.assert_allclose(straight.bounds, shuffled.bounds)
    np.testing.assert_array_equal(straight.found, shuffled.found)
    np.testing.assert_array_equal(straight.shares, shuffled.shares)


@RELAXED
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([1, 3]), st.integers(0, 2), st.integers(0, 3)),
        max_size=20,
    ),
    cap=st.integers(1, 4),
)
@example(rows=[("a", 1, 0, 0), ("a", 3, 0, 0)], cap=1)
@example(rows=[("a", 3, 0, 0), ("a", 1, 0, 0), ("a", 1, 0, 1)], cap=2)
def test_ties_at_the_cap_are_settled_as_by_the_heap(rows: list[tuple], cap: int) -> None:
    listed = [
        (video, 902.0, (0.0, edge / 10, 1.0, 1.0), action, score / 4) for video, action, edge, score in rows
    ]
    image = pd.factorize(pd.Series([row[0] for row in rows], dtype=str))[0].astype(np.int64)
    scores, keys = np.array([row[4] for row in listed]), np.array([(row[3], row[2][1]) for row in listed])
    kept = best_of_images(image, scores, cap, lambda at: list(keys[at].T))
    expected = PLAIN.grouped(listed, {1, 3}, cap)
    assert kept.tolist() == sorted(number for found in expected.values() for _, _, number, _ in found)


def nudged(rows: list[tuple]) -> list[tuple]:
    """Some boxes a little narrower: in float32 they are as wide as before, and an overlap of just below .5 is .5."""
    return [
        (*row[:2], (*box[:2], box[2] - 1e-9, box[3]), *row[3:])
        if (box := row[2]) and place % 3 and box[0] < box[2]
        else row
        for place, row in enumerate(rows)
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
@RELAXED
@given(data=st.data())
@example(data=None)
def test_the_diagnosis_adds_up(name: str, data: st.DataObject | None) -> None:
    if data is None:
        # Classes 1 and 3 are there, one of them has rows; of class 1 one key frame is excluded.
        truth = [("a", 902.0, (0, 0, 1, 1), 1, "1"), ("b", 902.0, (0, 0, 1, 1), 1, "1"),
                 ("a", 903.5, (0, 0, 1, 1), 3, "1")]  # fmt: skip
        found = [("a", 902.0, (0, 0, 0.5 - 1e-9, 1), 1, 0.5), ("b", 902.0, (0, 0, 1, 1), 1, 0.5)]
        excluded, iou = {("b", 902.0)}, 0.5
    else:
        truth, found, excluded, iou = data.draw(problems(name))
        truth, found = nudged(truth), nudged(found)
    tables = truth_table(truth), detection_table(found)
    result = evaluate_ava(*tables, LABEL_MAP, excluded, iou, PROTOCOLS[name])
    metrics = ava_metrics(result, LABEL_MAP)
    diagnosis = metrics["diagnosis"]
    assert [item["kind"] for item in diagnosis["errors"]] == list(KINDS)
    assert sum(item["rows"] for item in diagnosis["errors"]) == diagnosis["counted_rows"]
    for item in metrics["classes"]:
        assert item["found"] + item["missed_by_detector"] + item["box_but_not_found"] == item["positives"]
        assert (item["ap"] is None) == (item["chance"] is None) == (item["ceiling"] is None)
        assert item["ap"] is None or item["ap"] <= item["ceiling"] + 1e-12 <= 1 + 1e-12
        assert item["ap"] is None or item["chance"] <= item["ceiling"] + 1e-12
    assert (metrics["mAP"] is None) == (diagnosis["ceiling"]["mAP"] is None)
    assert metrics["mAP"] is None or metrics["mAP"] <= diagnosis["ceiling"]["mAP"] + 1e-9
    missed = diagnosis["missed"]["by_detector"] + diagnosis["missed"]["box_but_not_found"]
    assert missed == result.positives.sum() - result.found.sum()
    for item in (*diagnosis["errors"][1:], {"mAP_gain": diagnosis["missed"]["mAP_gain_of_detector"]}):
        assert (item["mAP_gain"] is None) == (metrics["mAP"] is None)
        assert item["mAP_gain"] is None or -1e-12 <= item["mAP_gain"] <= 1 - metrics["mAP"] + 1e-12
    for parts in (diagnosis["by_actors"], diagnosis["by_size"]):
        assert sum(item["positives"] for item in parts) == result.positives.sum()
        assert all((item["mAP"] is None) == (item["classes"] == 0) for item in parts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_agrees_on_the_published_cases(shared: Path, protocol: str) -> None:
    folders = sorted((shared / "golden" / "eval_cases").iterdir())
    assert len(folders) >= 9
    for folder in folders:
        label_map = read_label_map(folder / "label_map.pbtxt")
        truth, found = PLAIN.read_truth(folder / "gt.csv"), PLAIN.read_rows(folder / "det.csv")
        exclusions = folder / "excluded.csv"
        excluded = PLAIN.read_images(exclusions) if exclusions.exists() else set()
        result = evaluate_ava(
            truth_table(truth), detection_table(found), label_map, excluded, 0.5, PROTOCOLS[protocol]
        )
        expected = PLAIN.plain_aps(truth, found, label_map.ids, excluded, 0.5, protocol)
        wanted = [np.nan if expected[number] is None else expected[number] for number in label_map.ids]
        np.testing.assert_allclose(result.ap, wanted, atol=1e-12, err_msg=folder.name)
