"""`acar evaluate-frames` and `acar evaluate-tubes`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from acar import cli

CASES = Path(__file__).resolve().parents[2] / "golden" / "frame_map"
TRUTH = "".join(f"v,{frame},0,0,10,10,1,a\n" for frame in range(1, 11))
FOUND = "".join(f"v,{frame},0,0,10,10,1,0.9\n" for frame in range(3, 11)) + "v,1,50,50,60,60,0,0.1\n"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "gt.csv").write_text(TRUTH)
    (tmp_path / "det.csv").write_text(FOUND)
    return ["--groundtruth", str(tmp_path / "gt.csv"), "--detections", str(tmp_path / "det.csv")]


def test_frames_by_every_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES / "class_without_ground_truth"
    (tmp_path / "names.txt").write_text("Basketball\nDiving\nSkiing\nnogt\n")
    arguments = [
        "evaluate-frames",
        "--groundtruth",
        str(case / "gt.csv"),
        "--detections",
        str(case / "det.csv"),
    ]
    more = ["--labels", str(tmp_path / "names.txt"), "--protocol", "all", "--out", str(tmp_path / "out.json")]
    assert cli.main([*arguments, *more]) == 0
    printed = capsys.readouterr().out
    assert "frame-mAP@0.5  mmaction2_multisports  0.1297" in printed and "divides by zero" in printed
    expected = json.loads((case / "expected.json").read_text())["expected"]
    written = json.loads((tmp_path / "out.json").read_text())["frame_mAP"]
    for name, item in expected.items():
        if "error" in item:
            assert "class nogt" in written[name]["error"]
        else:
            assert written[name]["mAP"] == pytest.approx(item["mAP"], abs=1e-9)
            assert written[name]["per_class_ap"] == pytest.approx(item["per_class_ap"], abs=1e-9)


def test_frames_by_class(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate-frames", *files]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0     -  0 boxes, 1 detected", "1  0.8000  10 boxes, 8 detected",
        "frame-mAP@0.5  mmaction2_multisports  0.8000",
    ]  # fmt: skip


def test_tubes(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert cli.main(["evaluate-tubes", *files, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 tubes of 9 boxes; 1 annotated" in printed and "video-mAP@0.5:0.95" in printed
    found = json.loads(out.read_text())["video_mAP"]["mmaction2_multisports"]["mAP"]
    assert found == pytest.approx({"0.2": 1.0, "0.5": 1.0, "0.75": 1.0, "0.5:0.95": 0.7})
    assert cli.main(["evaluate-tubes", *files, "--min-score", "0.95", "--protocol", "all"]) == 0
    assert "0 tubes of 9 boxes" in capsys.readouterr().out


def test_a_pickle_as_ground_truth(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.arange(1, 11)[:, None]
    tubes = {"v": {1: [np.hstack([frames, np.tile([0, 0, 10, 10], (10, 1))])]}}
    value = {"labels": ["run", "dive"], "gttubes": tubes, "nframes": {"v": 10}, "resolution": {"v": (240, 320)},
             "train_videos": [[]], "test_videos": [["v"]]}  # fmt: skip
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(value, 2))
    for verb, told in {"evaluate-frames": "dive  0.8000", "evaluate-tubes": "1.0000"}.items():
        assert cli.main([verb, "--groundtruth", str(tmp_path / "gt.pkl"), *files[2:]]) == 0
        assert told in capsys.readouterr().out


def test_yowo_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"gt": "1 0 0 9 9\n", "det": "1 0.5 0 0 9 9\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a_00001.txt").write_text(text)
    folders = ["--groundtruth", str(tmp_path / "gt"), "--detections", str(tmp_path / "det")]
    assert cli.main(["evaluate-frames", *folders, "--protocol", "yowo_padilla"]) == 0
    assert "yowo_padilla           1.0000" in capsys.readouterr().out
    assert cli.main(["evaluate-tubes", *folders]) == 2
    assert "no tube of each box" in capsys.readouterr().err


def test_a_label_beyond_the_names(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("only\n")
    assert cli.main(["evaluate-frames", *files, "--labels", str(tmp_path / "names.txt")]) == 2
    assert "video v, frame 1: label 1, but there are 1 classes" in capsys.readouterr().err
