"""`acar evaluate-ava` on files, right and wrong."""

from __future__ import annotations

import json
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
