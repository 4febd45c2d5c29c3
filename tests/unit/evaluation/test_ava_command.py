"""`acar evaluate-ava` on files, right and wrong."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pandas as pd
import pytest

from acar.cli import main
from acar.data.detection_files import write_detection_parquet
from acar.data.tables import read_detections

BOX, FAR = "0.1,0.1,0.5,0.9", "0.6,0.1,0.9,0.9"
MAP = 'item { name: "stand" id: 1 group: "pose" }\nitem { name: "talk" id: 3 group: "person" }\n'


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    texts = {
        "groundtruth": f"a,0902,{BOX},1,0\na,0902,{FAR},3,1\na,0903,{BOX},1,0\n",
        "detections": f"a,902,{BOX},1,0.9\na,902,{FAR},3,0.8\na,904,{BOX},1,0.99\n",
        "labelmap": MAP,
        "exclusions": "a,903\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in texts}


def run(files: dict[str, Path], *more: str) -> int:
    return main(
        ["evaluate-ava", *[word for name, path in files.items() for word in (f"--{name}", str(path))], *more]
    )


def test_figures_are_printed_and_written(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, per_class = tmp_path / "out" / "metrics.json", tmp_path / "per_class.csv"
    assert run(files, "--out", str(out), "--per-class", str(per_class)) == 0
    metrics = json.loads(out.read_text())
    assert metrics["PascalBoxes_Precision/mAP@0.5IOU"] == metrics["mAP"] == 0.75
    assert metrics["metric_name"] == "PascalBoxes_Precision/mAP@0.5IOU"
    assert metrics["protocol"] == "released"
    assert [item["ap"] for item in metrics["classes"]] == [0.5, 1.0]
    assert {name: group["mAP"] for name, group in metrics["groups"].items()} == {"pose": 0.5, "person": 1.0}
    assert metrics["classes"][1]["pr"] == [[1.0, 1.0]]
    table = pd.read_csv(per_class)
    assert table[["name", "ap", "positives", "found"]].to_numpy().tolist() == [
        ["stand", 0.5, 1, 1], ["talk", 1.0, 1, 1],
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith("PascalBoxes_Precision/mAP@0.5IOU = 0.7500") and "person: 1.0000" in printed


@pytest.mark.parametrize(
    ("protocol", "mean_ap"), [("released", 0.75), ("activitynet", 1.0), ("mmaction2", 0.75)]
)
def test_protocols(files: dict[str, Path], tmp_path: Path, protocol: str, mean_ap: float) -> None:
    out = tmp_path / "metrics.json"
    assert run(files, "--out", str(out), "--protocol", protocol) == 0
    assert json.loads(out.read_text())["mAP"] == mean_ap


def test_parquet_is_read_as_csv_is(files: dict[str, Path], tmp_path: Path) -> None:
    write_detection_parquet(read_detections(files["detections"]), tmp_path / "found")
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    assert run(files, "--out", str(outs[0])) == 0
    assert run(files | {"detections": tmp_path / "found"}, "--out", str(outs[1])) == 0
    assert outs[0].read_text() == outs[1].read_text()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("groundtruth", f"a,0902,{BOX},1,0\na,0902,0.1,x,0.5,0.9,1,0\n", "line 2: y1 is 'x'"),
        ("groundtruth", f"a,0902,{BOX},1,0\na,0902,0.1,,0.5,0.9,1,0\n", "line 2: y1 is empty"),
        ("groundtruth", f"a,0902,{BOX},1,0\na,0902,0.1,0.2\n", "line 2: x2 is empty"),
        (
            "groundtruth",
            f"a,0902,{BOX},1,0\na,0902,0.5,0.1,0.1,0.9,1,0\n",
            "line 2: box 0.5,0.1,0.1,0.9 is inverted",
        ),
        ("groundtruth", "a,0902,10,10,50,90,1,0\n", "line 1: box 10,10,50,90 is outside the frame"),
        ("groundtruth", f"a,0902,{BOX},0,0\n", "line 1: action id is 0"),
        ("groundtruth", "a,0902,,,,,,\n", "no rows"),
        ("groundtruth", f"a,0902,{BOX},2,0\n", "no row has a class of"),
        ("detections", f"a,0902,{BOX},1,0.5\na,0902,{BOX},1,nan\n", "line 2: score is 'nan'"),
        ("detections", f"a,0902,{BOX},1,0.5,7\n", "line 1: 9 columns"),
        ("detections", f"a,0902,{BOX},,0.5\n", "line 1: no action id"),
        ("detections", "PAR1 but not whole", "not a readable parquet table"),
        ("labelmap", "item { id: 1 }", "line 1: block has no name"),
        ("exclusions", "a,nine\n", "line 1: time_s is 'nine'"),
    ],
)
def test_mistakes_are_named_by_row(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str, text: str, complaint: str
) -> None:
    files[name].write_text(text)
    assert run(files) == 2
    told = capsys.readouterr().err
    assert str(files[name]) in told and complaint in told


@pytest.mark.parametrize("name", ["groundtruth", "detections", "labelmap", "exclusions"])
def test_a_missing_file_is_named(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files[name].unlink()
    assert run(files) == 2
    assert f"{files[name]}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"), [("--protocol=best", "'best' is not known"), ("--iou=0", "--iou 0")]
)
def test_options_are_checked(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], more: str, complaint: str
) -> None:
    assert run(files, more) == 2
    assert complaint in capsys.readouterr().err


def test_groups_of_another_label_map(files: dict[str, Path], tmp_path: Path) -> None:
    files["labelmap"].write_text('item { name: "stand" id: 1 }\nitem { name: "talk" id: 3 }\n')
    (tmp_path / "groups").write_text(MAP)
    out = tmp_path / "metrics.json"
    assert run(files, "--out", str(out), "--groups", str(tmp_path / "groups")) == 0
    assert list(json.loads(out.read_text())["groups"]) == ["pose", "person"]
    assert run(files, "--out", str(out)) == 0
    assert json.loads(out.read_text())["groups"] == {}


def test_another_map_without_a_say_is_a_warning(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "groups").write_text(MAP)
    told = told_of(files, capsys, "--groups", str(tmp_path / "groups"))
    assert f"--groups {tmp_path / 'groups'}: not used, since {files['labelmap']} tells groups itself" in told
    files["labelmap"].write_text("1: stand\n3: talk\n")
    assert told_of(files, capsys, "--groups", str(tmp_path / "groups")) == ""
    told = told_of(files, capsys, "--groups", str(files["labelmap"]))
    assert f"tells the group of no class of {files['labelmap']}, so there are none" in told


def told_of(files: dict[str, Path], capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What is warned of, of a call that succeeds."""
    assert run(files, *more) == 0
    return capsys.readouterr().err


def test_files_that_belong_together_pass_without_a_word(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told_of(files, capsys) == ""


def test_videos_that_the_ground_truth_has_not(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files["detections"].write_text(files["detections"].read_text().replace("a,", "a.mp4,"))
    files["exclusions"].write_text("a,903\nsomewhere,903\n")
    told = told_of(files, capsys).splitlines()
    assert len(told) == 2
    assert f"{files['detections']}: 0 of its 1 video(s) are in {files['groundtruth']}" in told[0]
    assert "'a.mp4' here and 'a' there, so nothing can match" in told[0]
    assert f"{files['exclusions']}: 1 of its 2 video(s) are in" in told[1] and "'somewhere' here" in told[1]


@pytest.mark.parametrize("text", [f"a,30,{BOX},1,0.9\n", f"a,902,{BOX},2,0.9\n", ""])
def test_rows_of_which_none_meets_a_person(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    files["detections"].write_text(text)
    for protocol in ("released", "activitynet", "mmaction2"):
        told = told_of(files, capsys, f"--protocol={protocol}")
        assert f"of its {1 if text else 0} row(s) none with a class of" in told


def test_swapped_files(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    swapped = files | {"groundtruth": files["detections"], "detections": files["groundtruth"]}
    assert run(swapped) == 2
    told = capsys.readouterr().err
    assert (
        f"{files['detections']}: its person ids are numbers from 0 to 1, such as 0.9, which are scores"
        in told
    )
    files["detections"].write_text(files["groundtruth"].read_text().replace("1,0\n", "1,4\n"))
    assert "its scores are whole numbers, up to 4" in told_of(files, capsys)
    # Ids of persons may have a point, as long as they are not all scores.
    files["groundtruth"].write_text(f"a,0902,{BOX},1,1.5\na,0902,{FAR},3,0.5\n")
    assert run(files) == 0


@pytest.mark.parametrize("option", ["--out", "--per-class"])
@pytest.mark.parametrize("name", ["groundtruth", "detections", "labelmap", "exclusions"])
def test_inputs_are_not_overwritten(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    before = files[name].read_text()
    assert run(files, option, str(files[name])) == 2
    assert f"{option} {files[name]}: another file of this command" in capsys.readouterr().err
    assert files[name].read_text() == before


def test_outputs_are_checked_before_the_work(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files["detections"].write_text("malformed, and not looked at\n")
    both = ["--out", str(tmp_path / "x"), "--per-class", str(tmp_path / "x")]
    wrong = [both, ["--out", str(tmp_path)], ["--per-class", f"{files['labelmap']}/x.csv"]]
    for more, complaint in zip(wrong, ("another file of this command", "a folder", "is a file"), strict=True):
        assert run(files, *more) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("detections", f"a,0902,{BOX},1,0.5\na,0902,{BOX},1,inf\n", "line 2: score is inf"),
        ("detections", f"a,0902,{BOX},1,0.5\na,0902,{FAR},1\n", "line 2: no score, which other rows have"),
        ("detections", f"a,0902,{BOX},1\na,0902,{FAR},1,0.5\n", "line 1: no score, which other rows have"),
        ("detections", f"a,1e14,{BOX},1,0.5\n", "line 1: time_s is 1e+14; expected seconds, at most 1e+09"),
        (
            "groundtruth",
            f"a,0902,{BOX},1,0\na,-2e14,{BOX},1,0\n",
            "line 2: time_s is -2e+14; expected seconds",
        ),
        ("exclusions", "a,903\na,1e13\n", "line 2: time_s is 1e+13; expected seconds"),
    ],
)
def test_numbers_that_cannot_be(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str, text: str, complaint: str
) -> None:
    files[name].write_text(text)
    assert run(files) == 2
    assert f"{files[name]}, {complaint}" in capsys.readouterr().err


def test_an_inverted_box_is_named_by_its_line(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files["detections"].write_text(f"a,902,{BOX},1,0.9\n\na,902,0.5,0.1,0.1,0.9,1,0.9\n")
    assert run(files, "--protocol=mmaction2") == 2
    assert f"{files['detections']}, line 3: video a, second 0902: box" in capsys.readouterr().err
    parquet = tmp_path / "found.parquet"
    write_detection_parquet(read_detections(files["detections"]), parquet)
    assert run(files | {"detections": parquet}, "--protocol=mmaction2") == 2
    assert f"{parquet}, row 2: video a, second 0902: box" in capsys.readouterr().err


def test_class_ids_take_room_by_their_number_not_their_size(files: dict[str, Path], tmp_path: Path) -> None:
    """An id of nine digits, and 33,000 classes: beyond 15 bits, and a thousand million pairs of classes."""
    out = tmp_path / "metrics.json"
    others = "".join(f"{k}: class {k}\n" for k in range(4, 33_000))
    files["labelmap"].write_text(f"1: stand\n3: talk\n{others}999999999: fly\n")
    last = f"a,0902,{BOX},999999999"
    files["groundtruth"].write_text(files["groundtruth"].read_text() + f"{last},0\n")
    files["detections"].write_text(files["detections"].read_text() + f"{last},0.7\na,902,{BOX},32999,0.1\n")
    assert run(files, "--out", str(out)) == 0
    classes = json.loads(out.read_text())["classes"]
    assert [(item["id"], item["ap"]) for item in classes if item["ap"] is not None] == [
        (1, 0.5), (3, 1.0), (999999999, 1.0),
    ]  # fmt: skip
    assert [item["rows"] for item in classes if item["rows"]] == [2, 1, 1, 1]


def test_both_outputs_are_written_or_none(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table fits the disk and the figures do not."""
    out, per_class = tmp_path / "out.json", tmp_path / "per_class.csv"
    for path in (out, per_class):
        path.write_text("old")
    before = sorted(tmp_path.iterdir())
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, allowed[1]))
    try:
        status = run(files, "--out", str(out), "--per-class", str(per_class))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert status == 2
    assert f"{out}: no space left for a file of this size" in capsys.readouterr().err
    assert (out.read_text(), per_class.read_text()) == ("old", "old")
    assert sorted(tmp_path.iterdir()) == before
    assert run(files, "--out", str(out), "--per-class", str(per_class)) == 0
    assert out.stat().st_size > 1024 > per_class.stat().st_size
