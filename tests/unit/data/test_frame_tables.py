"""Boxes by frame: csv and YOWO's text files, and mistakes in them by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from acar.data.frame_tables import read_class_names, read_frame_detections, read_frame_truth, read_yowo
from acar.errors import UserError


def write(folder: Path, text: str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rows(table: pd.DataFrame) -> list[tuple]:
    return [tuple(row) for row in table.itertuples(index=False)]


def test_ground_truth_with_and_without_tubes(tmp_path: Path) -> None:
    assert rows(read_frame_truth(write(tmp_path, "v,1,0,1,2,3,0\n"))) == [("v", 1, 0.0, 1.0, 2.0, 3.0, 0, "")]
    mixed = read_frame_truth(write(tmp_path, "v,1,-2.5,1,2,3,0,a\n v , 2,0,1,2,3,1,7\n"))
    assert rows(mixed) == [("v", 1, -2.5, 1.0, 2.0, 3.0, 0, "a"), ("v", 2, 0.0, 1.0, 2.0, 3.0, 1, "7")]


def test_detections(tmp_path: Path) -> None:
    found = read_frame_detections(write(tmp_path, "v,1,0,1,2,3,2,0.25\n"))
    assert rows(found) == [("v", 1, 0.0, 1.0, 2.0, 3.0, 2, 0.25)]
    assert read_frame_detections(write(tmp_path, "")).empty


@pytest.mark.parametrize(
    ("reader", "text", "told"),
    [
        (read_frame_truth, "", "no rows"),
        (read_frame_truth, "v,1,0,1,2,3\n", "line 1: 6 columns"),
        (
            read_frame_truth,
            "v,1,0,1,2,3,0\nv,1.5,0,1,2,3,0\n",
            "line 2: frame is '1.5'; expected a whole number",
        ),
        (read_frame_truth, "v,1,0,1,2,3,0\n\nv,-1,0,1,2,3,0\n", "line 3: frame is -1"),
        (read_frame_truth, "v,1,0,1,2,3,-2\n", "line 1: label is -2"),
        (read_frame_truth, "v,1,0,1,2,3,\n", "line 1: label is '';"),
        (read_frame_truth, "v,1,5,1,2,3,0\n", "line 1: box is inverted"),
        (read_frame_truth, "v,1,nan,1,2,3,0\n", "line 1: x1 is 'nan'"),
        (read_frame_truth, "video,frame,x1,y1,x2,y2,label\nv,1,0,1,2,3,0\n", "line 1: frame is 'frame'"),
        (read_frame_detections, "v,1,0,1,2,3,0\n", "line 1: 7 columns"),
        (read_frame_detections, "v,1,0,1,2,3,0,inf\n", "line 1: score is inf"),
        (read_frame_detections, ",1,0,1,2,3,0,0.5\n", "line 1: no video id"),
    ],
)
def test_mistakes_are_told_by_line(tmp_path: Path, reader: Any, text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        reader(write(tmp_path, text))
    assert told in str(error.value) and "file.csv" in str(error.value)


def test_class_names(tmp_path: Path) -> None:
    assert read_class_names(write(tmp_path, "a b\n\nc\n")) == ["a b", "c"]
    for text, told in {"": "no class name", "a\na\n": "class 'a' is there twice"}.items():
        with pytest.raises(UserError, match=told):
            read_class_names(write(tmp_path, text))


def test_yowo(tmp_path: Path) -> None:
    write(tmp_path, "3 0.5 10 20 30 40\n1 0.25 1 2 3 4\n", "Diving_v_Diving_g01_c01_00009.txt")
    write(tmp_path, "", "Diving_v_Diving_g01_c01_00010.txt")
    write(tmp_path, "2 1 1 2 3 4\n", "brush_hair_one_00001.txt")
    assert rows(read_yowo(tmp_path, detections=True)) == [
        ("Diving/v_Diving_g01_c01", 9, 10.0, 20.0, 30.0, 40.0, 2, 0.5),
        ("Diving/v_Diving_g01_c01", 9, 1.0, 2.0, 3.0, 4.0, 0, 0.25),
        ("brush_hair_one", 1, 1.0, 2.0, 3.0, 4.0, 1, 1.0),
    ]


def test_yowo_ground_truth_by_name(tmp_path: Path) -> None:
    write(tmp_path, "Diving 10 20 30 40\n", "a_00009.txt")
    found = read_yowo(tmp_path, detections=False, names=["Basketball", "Diving"])
    assert rows(found) == [("a", 9, 10.0, 20.0, 30.0, 40.0, 1, "")]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "a_00001.txt",
            "1 2 3 4 5\n1 2 3 4\n",
            "a_00001.txt, line 2: '1 2 3 4': 4 values; expected `class x1 y1 x2 y2`",
        ),
        ("a_00001.txt", "0 2 3 4 5\n", "line 1: '0 2 3 4 5': class is '0'"),
        ("a_00001.txt", "100001 2 3 4 5\n", "line 1: '100001 2 3 4 5': class is '100001'"),
        ("a_00001.txt", "1_0 2 3 4 5\n", "line 1: '1_0 2 3 4 5': label is '1_0'; expected a whole number"),
        ("a_00001.txt", "1.5 2 3 4 5\n", "line 1: '1.5 2 3 4 5': label is '1.5'; expected a whole number"),
        ("a_00001.txt", "Surfing 2 3 4 5\n", "line 1: 'Surfing 2 3 4 5': label is 'Surfing'"),
        ("a_00001.txt", "1 2 3 nan 5\n", "line 1: '1 2 3 nan 5': x2 is 'nan'; expected a number"),
        ("a_00001.txt", "1 2 3 4 5_0\n", "line 1: '1 2 3 4 5_0': y2 is '5_0'; expected a number"),
        ("a_00001.txt", "1 2 3 inf 5\n", "a_00001.txt, line 1: x2 is inf; expected a number"),
        (
            "a_00001.txt",
            "1 2 3 4 5\n\n1 50 50 10 10\n",
            "a_00001.txt, line 3: box is inverted; expected x1 <=",
        ),
        (
            "a_99999999999999999999.txt",
            "1 2 3 4 5\n",
            "its name ends in frame 99999999999999999999; expected 0 to",
        ),
        ("a_\N{ARABIC-INDIC DIGIT ONE}.txt", "1 2 3 4 5\n", "its name ends in no frame number"),
        ("a.txt", "1 2 3 4 5\n", "a.txt: its name ends in no frame number"),
        ("a.csv", "", "no text files"),
    ],
)
def test_yowo_mistakes(tmp_path: Path, name: str, text: str, told: str) -> None:
    write(tmp_path, text, name)
    with pytest.raises(UserError) as error:
        read_yowo(tmp_path, detections=False)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "text", ["1 inf 2 3 4 5\n", "1 nan 2 3 4 5\n", "1 0_5 2 3 4 5\n", "1 0.5 2 3 4 nan\n"]
)
def test_yowo_detections_are_checked_as_csv_is(tmp_path: Path, text: str) -> None:
    write(tmp_path, "1 0.5 1 2 3 4\n" + text, "a_00001.txt")
    with pytest.raises(UserError, match=r"a_00001\.txt, line 2: "):
        read_yowo(tmp_path, detections=True)
    with pytest.raises(UserError, match=r"file\.csv, line 1: "):
        label, score, *box = text.split()
        read_frame_detections(write(tmp_path, ",".join(["a", "1", *box, label, score])))


def test_one_file_a_frame(tmp_path: Path) -> None:
    write(tmp_path, "1 1 2 3 4\n", "a_00001.txt")
    write(tmp_path, "1 1 2 3 4\n", "b_1.txt")
    assert read_yowo(tmp_path, detections=False)["frame"].tolist() == [1, 1]
    write(tmp_path, "", "a_1.txt")
    with pytest.raises(UserError, match=r"a_1\.txt: frame 1 of video a is also a_00001\.txt"):
        read_yowo(tmp_path, detections=False)


def test_folders_where_files_are_expected(tmp_path: Path) -> None:
    (tmp_path / "a_00001.txt").mkdir()
    with pytest.raises(UserError, match=r"a_00001\.txt: a folder; expected a file"):
        read_yowo(tmp_path, detections=False)
    with pytest.raises(UserError, match="a folder; expected a file of the class names, a line each"):
        read_class_names(tmp_path)


def test_a_byte_order_mark_within_text_is_refused(tmp_path: Path) -> None:
    """It would be a part of a name or of a class, and nobody would see it."""
    write(tmp_path, "\ufeffA\nB\n", "names")
    assert read_class_names(tmp_path / "names") == ["A", "B"]
    write(tmp_path, "\ufeff\ufeffA\nB\n", "names")
    with pytest.raises(UserError, match="names, line 1: an invisible byte order mark"):
        read_class_names(tmp_path / "names")
    write(tmp_path, "A 1 2 3 4\n\ufeffA 1 2 3 4\n", "a_00001.txt")
    with pytest.raises(UserError, match=r"a_00001\.txt, line 2: an invisible byte order mark"):
        read_yowo(tmp_path, detections=False, names=["A"])
