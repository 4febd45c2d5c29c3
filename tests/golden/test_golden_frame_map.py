"""Frame-mAP against figures of four published evaluators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from acar.data.frame_tables import read_frame_detections, read_frame_truth
from acar.errors import UserError
from acar.evaluation.frame_map import frame_map
from acar.evaluation.frame_protocols import PROTOCOLS

CASES = Path(__file__).parent / "frame_map"
NAMES = sorted(folder.name for folder in CASES.iterdir() if folder.is_dir())


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
@pytest.mark.parametrize("case", NAMES)
def test_case(case: str, protocol: str) -> None:
    check_case(CASES / case, protocol)


def test_every_shared_case_is_run(shared: Path) -> None:
    """The committed cases are the reference's, byte for byte."""
    folder = shared / "golden" / "frame_map"
    assert {found.name for found in folder.iterdir()} == set(NAMES)
    for case in NAMES:
        for name in ("gt.csv", "det.csv", "expected.json"):
            assert (CASES / case / name).read_bytes() == (folder / case / name).read_bytes()


def check_case(folder: Path, protocol: str) -> None:
    problem = json.loads((folder / "expected.json").read_text())
    truth, detections = read_frame_truth(folder / "gt.csv"), read_frame_detections(folder / "det.csv")
    expected, labels = problem["expected"][protocol], problem["labels"]
    if "error" in expected:
        with pytest.raises(UserError, match=r"class nogt: .* divides by zero"):
            frame_map(truth, detections, labels, PROTOCOLS[protocol], problem["iou_threshold"])
        return
    result = frame_map(truth, detections, labels, PROTOCOLS[protocol], problem["iou_threshold"])
    assert list(expected["per_class_ap"]) == labels
    for official, ap in zip(expected["per_class_ap"].values(), result.ap, strict=True):
        if official is None:
            assert np.isnan(ap)
        else:
            assert ap == pytest.approx(official, abs=1e-9)
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)


def test_the_described_conventions_are_the_protocols() -> None:
    problem = json.loads((CASES / NAMES[0] / "expected.json").read_text())["expected"]
    assert set(problem) == set(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        told = problem[name]
        assert (protocol.pixel == 1.0) == told["iou"].startswith("+1")
        assert protocol.remaining == ("REMAINING" in told["matching"])
        assert protocol.trapezoid == ("trapezoid" in told["interpolation"])
        assert protocol.over_all == told["mean_over"].startswith("all labels")
