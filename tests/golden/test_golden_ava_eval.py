"""The evaluation against figures of the authors' evaluator, of ActivityNet's script and of mmaction2's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acar.data.ground_truth import read_ground_truth
from acar.data.tables import read_detections, read_excluded, read_label_map
from acar.evaluation.ava import AvaResult, evaluate_ava
from acar.evaluation.ava_protocols import ACTIVITYNET, MMACTION2, RELEASED, Protocol
from acar.evaluation.average_precision import average_precision

COMMITTED = Path(__file__).parent / "eval_cases"
COMMITTED_CASES = ["duplicate_detections", "excluded_timestamps", "iou_exactly_half"]
SHARED_CASES = [
    "class_no_gt",
    "detections_on_unannotated_images",
    "mmaction2_eval_detection",
    "rand_ava60_over_capacity",
    "rand_small",
    "timestamps_902_0902",
]


@pytest.mark.parametrize("case", COMMITTED_CASES)
def test_committed_case(case: str) -> None:
    check_case(COMMITTED / case)


@pytest.mark.parametrize("case", SHARED_CASES)
def test_case(shared: Path, case: str) -> None:
    check_case(shared / "golden" / "eval_cases" / case)


def test_every_shared_case_is_run(shared: Path) -> None:
    found = {folder.name for folder in (shared / "golden" / "eval_cases").iterdir() if folder.is_dir()}
    assert found == {*COMMITTED_CASES, *SHARED_CASES}


def test_mmaction2_scores_its_own_case(shared: Path) -> None:
    """mmaction2's own test files, on which all evaluators agree."""
    folder = shared / "golden" / "eval_cases" / "mmaction2_eval_detection"
    expected = json.loads((folder / "expected.json").read_text())
    result, ids = evaluate_folder(folder, expected["iou"], MMACTION2)
    assert result.ap == pytest.approx([expected["per_class_ap"][str(number)] for number in ids], abs=1e-9)
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)


@pytest.mark.slow
def test_ava_val_sized_problem_lies_within_the_tie_bounds(shared: Path, tmp_path: Path) -> None:
    """5.5 M rows whose 3-decimal scores tie a lot, also at the 50th place of most images."""
    subprocess.run(
        [sys.executable, shared / "golden" / "gen_ava_val.py", "--seed", "0", "--out", tmp_path], check=True
    )
    expected = json.loads((shared / "golden" / "ava_val_expected.json").read_text())
    result, ids = evaluate_folder(tmp_path, 0.5)
    for place, number in enumerate(ids):
        bounds = expected["tie_orders"][str(number)]
        assert result.positives[place] == bounds["n_gt"]
        assert (result.rows[place], result.found[place]) == (bounds["n_det"], bounds["n_tp"])
        assert result.bounds[place] == pytest.approx([bounds["lo"], bounds["hi"]], abs=1e-9)
        assert bounds["lo"] - 1e-9 <= result.ap[place] <= bounds["hi"] + 1e-9
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-4)

    # No exclusions there: ActivityNet's script has none.
    (tmp_path / "excluded.csv").rename(tmp_path / "left_out.csv")
    result, _ = evaluate_folder(tmp_path, 0.5, ACTIVITYNET)
    official = [expected["activitynet_master"]["per_class_ap"][str(number)] for number in ids]
    assert ((result.bounds[:, 0] - 1e-9 <= official) & (official <= result.bounds[:, 1] + 1e-9)).all()
    assert result.mean_ap == pytest.approx(expected["activitynet_master"]["mAP"], abs=1e-4)

    (tmp_path / "left_out.csv").rename(tmp_path / "excluded.csv")
    result, _ = evaluate_folder(tmp_path, 0.5, MMACTION2)
    official = expected["mmaction2"]["mAP"]
    assert result.bounds[:, 0].mean() <= official <= result.bounds[:, 1].mean()
    assert result.mean_ap == pytest.approx(official, abs=1e-4)
    assert in_the_order_of_mmaction2(result) == pytest.approx(official, abs=1e-4)


def in_the_order_of_mmaction2(result: AvaResult) -> float:
    """mAP with equal scores in the order of mmaction2's unstable sort.

    On the machine and numpy that made the expected file this gives its mAP to the last bit.
    """
    match = result.match
    aps = []
    parts = zip(*map(match.of_classes, (match.image, match.scores, match.matched.true)), result.positives)
    for image, scores, true, positives in parts:
        by_image = np.argsort(image, kind="stable")
        order = by_image[np.argsort(scores[by_image])[::-1]]
        aps.append(average_precision(true[order], int(positives)))
    return float(np.mean(aps))


def check_case(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    assert expected["tie_free"]
    result, ids = evaluate_folder(folder, expected["iou"])
    check_aps(result, ids, expected)
    for number, positives in zip(ids, result.positives):
        tie_orders = expected["tie_orders"][str(number)]
        assert positives == (tie_orders["n_gt"] if tie_orders else 0)
    check_aps(*evaluate_folder(folder, expected["iou"], ACTIVITYNET), expected["activitynet_master"])


def check_aps(result: AvaResult, ids: list[int], expected: dict) -> None:
    assert sorted(expected["per_class_ap"]) == sorted(map(str, ids))
    for number, ap in zip(ids, result.ap):
        official = expected["per_class_ap"][str(number)]
        if official is None:
            assert np.isnan(ap)
        else:
            assert ap == pytest.approx(official, abs=1e-9)
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)


def evaluate_folder(folder: Path, iou: float, protocol: Protocol = RELEASED) -> tuple[AvaResult, list[int]]:
    label_map = read_label_map(folder / "label_map.pbtxt")
    exclusions = folder / "excluded.csv"
    result = evaluate_ava(
        read_ground_truth(folder / "gt.csv"),
        read_detections(folder / "det.csv"),
        label_map,
        read_excluded(exclusions) if exclusions.exists() else set(),
        iou,
        protocol,
    )
    return result, label_map.ids
