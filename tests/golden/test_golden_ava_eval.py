"""The evaluation against figures of the authors' evaluator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acar.data.tables import read_detections, read_excluded, read_label_map, read_labels
from acar.evaluation.ava import AvaResult, evaluate_ava

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


@pytest.mark.slow
def test_ava_val_sized_problem_lies_within_the_tie_bounds(shared: Path, tmp_path: Path) -> None:
    """5.5 M rows whose 3-decimal scores tie a lot, also at the 50th place of most images."""
    subprocess.run(
        [sys.executable, shared / "golden" / "gen_ava_val.py", "--seed", "0", "--out", tmp_path], check=True
    )
    expected = json.loads((shared / "golden" / "ava_val_expected.json").read_text())
    result, ids = evaluate_folder(tmp_path, 0.5)
    for class_id, ap, positives in zip(ids, result.ap, result.positives):
        bounds = expected["tie_orders"][str(class_id)]
        assert positives == bounds["n_gt"]
        assert bounds["lo"] - 1e-9 <= ap <= bounds["hi"] + 1e-9
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-4)


def check_case(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    assert expected["tie_free"]
    result, ids = evaluate_folder(folder, expected["iou"])
    assert sorted(expected["per_class_ap"]) == sorted(map(str, ids))
    for class_id, ap, positives in zip(ids, result.ap, result.positives):
        official = expected["per_class_ap"][str(class_id)]
        if official is None:
            assert np.isnan(ap) and positives == 0
        else:
            assert ap == pytest.approx(official, abs=1e-9)
            assert positives == expected["tie_orders"][str(class_id)]["n_gt"]
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)


def evaluate_folder(folder: Path, iou: float) -> tuple[AvaResult, list[int]]:
    label_map = read_label_map(folder / "label_map.pbtxt")
    exclusions = folder / "excluded.csv"
    result = evaluate_ava(
        read_labels(folder / "gt.csv", clip=False),
        read_detections(folder / "det.csv"),
        label_map,
        read_excluded(exclusions) if exclusions.exists() else set(),
        iou,
    )
    return result, label_map.ids
