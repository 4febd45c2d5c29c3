"""`acar evaluate-frames` and `acar evaluate-tubes`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("v,4,0,0,10,10,1,a\n", "line 11: tube 'a' of video v, label 1, has another box in frame 4"),
        ("v,4,50,50,60,60,1,a\n", "line 11: tube 'a' of video v, label 1, has another box in frame 4"),
        ("v,4,50,50,60,60,1,\n", "line 11: no tube"),
    ],
)
def test_a_tube_with_two_boxes_in_a_frame_has_no_overlap(
    files: list[str], capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    Path(files[1]).write_text(TRUTH + line)
    assert cli.main(["evaluate-tubes", *files]) == 2
    assert complaint in capsys.readouterr().err
    assert cli.main(["evaluate-frames", *files]) == 0  # boxes of a frame may be as many as there are


@pytest.mark.parametrize("first", [1, 2])
def test_the_annotation_is_thinned_to_the_step(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], first: int
) -> None:
    Path(files[1]).write_text(TRUTH + "v,3,50,50,60,60,1,odd\n")
    found = "".join(f"v,{frame},0,0,10,10,1,0.9\n" for frame in range(first, 11, 2))
    Path(files[3]).write_text(found + (f"v,{3},50,50,60,60,1,0.9\n" if first == 1 else ""))
    out = tmp_path / "out.json"
    assert cli.main(["evaluate-tubes", *files, "--step", "2", "--out", str(out)]) == 0
    assert set(json.loads(out.read_text())["video_mAP"]["mmaction2_multisports"]["mAP"].values()) == {1.0}
    told = "6 of 11 boxes\n" if first == 1 else "5 of 11 boxes; 1 tube(s) have none there\n"
    assert (
        f"--step 2: the annotation counts in the detector's frames alone, {told}" in capsys.readouterr().out
    )


def test_frames_that_are_no_whole_steps_apart(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate-tubes", *files, "--step", "2"]) == 2
    assert "detections of video v lie in frames 3 and 4" in capsys.readouterr().err


def test_boxes_left_out_by_their_score_are_counted(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(files[3]).write_text(FOUND.replace(",0.9\n", ",-0.9\n"))
    assert cli.main(["evaluate-tubes", *files]) == 0
    assert "8 of 9 boxes score below --min-score 0 and are left out" in capsys.readouterr().out
    assert cli.main(["evaluate-tubes", *files, "--min-score", "-1"]) == 0
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "option", ["--switch-cost=-1", "--switch-cost=nan", "--switch-cost=inf", "--min-score=nan"]
)
def test_impossible_settings_of_tubes(
    files: list[str], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate-tubes", *files, option])
    assert f"argument {option.partition('=')[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate-frames", "evaluate-tubes"])
def test_swapped_files(files: list[str], capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert cli.main([verb, "--groundtruth", files[3], "--detections", files[1]]) == 2
    assert "its tube ids are numbers from 0 to 1, such as 0.9, which are scores" in capsys.readouterr().err
    Path(files[1]).write_text(TRUTH.replace(",a\n", ",7\n"))
    assert cli.main([verb, *files[:2], "--detections", files[1]]) == 0
    assert "its scores are whole numbers, up to 7" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate-frames", "evaluate-tubes"])
def test_detections_of_other_videos(files: list[str], capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert cli.main([verb, *files]) == 0
    assert capsys.readouterr().err == ""
    Path(files[3]).write_text(FOUND.replace("v,", "Dive/v.avi,"))
    assert cli.main([verb, *files]) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"{verb}: warning: {files[3]}: 0 of its 1 video(s) are in {files[1]}")
    assert "'Dive/v.avi' here and 'v' there" in told


@pytest.mark.parametrize("verb", ["evaluate-frames", "evaluate-tubes"])
@pytest.mark.parametrize("place", ["groundtruth", "folder", "under"])
def test_outputs_are_checked_before_the_work(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, place: str
) -> None:
    out = {"groundtruth": files[1], "folder": str(tmp_path), "under": f"{files[1]}/x.json"}[place]
    assert cli.main([verb, *files, "--out", out]) == 2
    assert f"--out {out}: " in capsys.readouterr().err
    assert Path(files[1]).read_text() == TRUTH


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
def test_a_pickle_of_any_name(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: int
) -> None:
    boxes = [[frame, 0, 0, 10, 10] for frame in range(1, 11)]
    value = {"labels": ["run", "dive"], "gttubes": {"v": {1: [boxes]}}, "nframes": {"v": 10}, "resolution": {},
             "train_videos": [[]], "test_videos": [["v"]]}  # fmt: skip
    (tmp_path / "gt.dat").write_bytes(pickle.dumps(value, protocol))
    assert cli.main(["evaluate-frames", "--groundtruth", str(tmp_path / "gt.dat"), *files[2:]]) == 0
    assert "dive  0.8000" in capsys.readouterr().out


def test_two_folders_without_a_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a_00001.txt").write_text("")
    assert cli.main(["evaluate-frames", "--groundtruth", str(tmp_path), "--detections", str(tmp_path)]) == 2
    assert "not one annotated box" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate-frames", "evaluate-tubes"])
def test_a_label_that_no_data_set_has(
    files: list[str], capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    Path(files[3]).write_text(FOUND + "v,1,50,50,60,60,2000000000,0.1\n")
    assert cli.main([verb, *files]) == 2
    assert "line 10: label is 2000000000; expected 0 to 99999" in capsys.readouterr().err


def tubes_pickle(path: Path, **changed: Any) -> list[str]:
    boxes = [[frame, 0, 0, 10, 10] for frame in range(1, 11)]
    value = {"labels": ["run", "dive"], "gttubes": {"v": {1: [boxes]}}, "nframes": {"v": 10}, "resolution": {},
             "train_videos": [[]], "test_videos": [["v"]]}  # fmt: skip
    path.write_bytes(pickle.dumps(value | changed))
    return ["--groundtruth", str(path)]


VERBS = pytest.mark.parametrize("verb", ["evaluate-frames", "evaluate-tubes"])


@VERBS
def test_two_classes_of_one_name(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    truth = tubes_pickle(tmp_path / "gt.pkl", labels=["A", "A"])
    assert cli.main([verb, *truth, *files[2:], "--out", str(tmp_path / "out.json")]) == 2
    told = capsys.readouterr().err
    assert "key 'labels', label 1: class 'A' is label 1 here and label 0 in key 'labels', label 0" in told
    assert not (tmp_path / "out.json").exists()


@VERBS
def test_no_detection_at_all_is_a_warning(
    files: list[str], capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    Path(files[3]).write_text("")
    assert cli.main([verb, *files]) == 0
    streams = capsys.readouterr()
    assert streams.err.startswith(f"{verb}: warning: {files[3]}: not one detected box")
    assert "0.0000" in streams.out


@VERBS
@pytest.mark.parametrize("split", ["1", "7"])
def test_a_split_of_what_has_none(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, split: str
) -> None:
    assert cli.main([verb, *files, "--split", split]) == 2
    assert f"--split {split}: {files[1]} is no pickle of annotations" in capsys.readouterr().err
    assert cli.main([verb, "--groundtruth", str(tmp_path), *files[2:], "--split", split]) == 2
    assert f"--split {split}: {tmp_path} is no pickle" in capsys.readouterr().err
    assert cli.main([verb, "--groundtruth", "absent.pkl", *files[2:], "--split", split]) == 2
    assert "absent.pkl: no such file" in capsys.readouterr().err
    truth = tubes_pickle(tmp_path / "gt.pkl")
    assert cli.main([verb, *truth, *files[2:], "--split", split]) == (0 if split == "1" else 2)


@VERBS
def test_a_test_video_that_the_pickle_lacks_is_a_warning(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    truth = tubes_pickle(tmp_path / "gt.pkl", test_videos=[["v", "dive/w"]])
    assert cli.main([verb, *truth, *files[2:]]) == 0
    told = capsys.readouterr().err
    assert "gt.pkl: of its 2 test video(s) 1 are not annotated and left out, such as 'dive/w'" in told
    assert cli.main([verb, *tubes_pickle(tmp_path / "gt.pkl"), *files[2:]]) == 0
    assert capsys.readouterr().err == ""


@VERBS
def test_a_folder_of_class_names(files: list[str], capsys: pytest.CaptureFixture[str], verb: str) -> None:
    folder = str(Path(files[1]).parent)
    assert cli.main([verb, *files, "--labels", folder]) == 2
    assert f"{folder}: a folder; expected a file of the class names" in capsys.readouterr().err


def test_a_gap_that_nothing_would_end(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(files[3]).write_text("v,1,0,0,10,10,1,0.9\nv,2000001,0,0,10,10,1,0.9\n")
    assert cli.main(["evaluate-tubes", *files, "--gap", "3000000"]) == 2
    assert "video v, label 1: a tube has no box between frames 1 and 2000001" in capsys.readouterr().err
