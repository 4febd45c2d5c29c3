"""Readers of UCF101-24's and JHMDB's pickles, and what they become."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from acar.data.ucf24 import read_annotations
from acar.errors import UserError

PYANNOT: dict[str, Any] = {
    "Run/v_Run_g08_c01": {
        "numf": np.uint8(5), "label": 1,
        "annotations": [
            {"label": 1, "sf": 1, "ef": 3, "boxes": np.array([[177, 53, 140, 180], [10, 20, 30, 40]], np.uint8)},
        ],
    },
    "Dive/v_Dive_g01_c01": {
        "numf": 2, "label": 0,
        "annotations": [
            {"label": 0, "sf": 0, "ef": 2, "boxes": np.array([[0, 0, 320, 240]] * 2, np.uint16)},
            {"label": 0, "sf": 1, "ef": 2, "boxes": np.array([[300, 0, 20, 24]], np.uint16)},
        ],
    },
}  # fmt: skip
TUBES: dict[str, Any] = {
    "labels": ["brush", "clap"],
    "gttubes": {
        "brush/one": {0: [np.array([[1, 10, 20, 30, 40], [2, 11, 20, 31, 40]], np.float32)]},
        "clap/two": {1: [np.array([[2, 0, 0, 9, 9]]), np.array([[1, 5, 5, 6, 6]])]},
    },
    "nframes": {"brush/one": 2, "clap/two": 3},
    "train_videos": [["brush/one"]],
    "test_videos": [["clap/two"]],
    "resolution": {"brush/one": (240, 320), "clap/two": (100, 200)},
}


def dump(folder: Path, value: Any) -> Path:
    path = folder / "file.pkl"
    path.write_bytes(pickle.dumps(value, 2))
    return path


def rows(table: pd.DataFrame) -> list[tuple]:
    return [tuple(row) for row in table.itertuples(index=False)]


def test_pyannot(tmp_path: Path) -> None:
    found = read_annotations(dump(tmp_path, PYANNOT))
    assert found.names == ["Dive", "Run"] and found.train_videos == [] == found.test_videos
    # x + width is beyond the file's uint8.
    assert rows(found.boxes[found.boxes["label"] == 1]) == [
        ("Run/v_Run_g08_c01", 2, 177.0, 53.0, 317.0, 233.0, 1, "0"),
        ("Run/v_Run_g08_c01", 3, 10.0, 20.0, 40.0, 60.0, 1, "0"),
    ]
    assert found.boxes["tube"].tolist() == ["0", "0", "0", "0", "1"]
    assert rows(found.videos) == [(5, 320, 240), (2, 320, 240)]


def test_tubes_pickle(tmp_path: Path) -> None:
    found = read_annotations(dump(tmp_path, TUBES))
    assert found.names == ["brush", "clap"]
    assert (found.train_videos, found.test_videos) == ([["brush/one"]], [["clap/two"]])
    assert rows(found.boxes) == [
        ("brush/one", 1, 10.0, 20.0, 30.0, 40.0, 0, "0-0"), ("brush/one", 2, 11.0, 20.0, 31.0, 40.0, 0, "0-0"),
        ("clap/two", 2, 0.0, 0.0, 9.0, 9.0, 1, "1-0"), ("clap/two", 1, 5.0, 5.0, 6.0, 6.0, 1, "1-1"),
    ]  # fmt: skip
    assert rows(found.videos) == [(2, 320, 240), (3, 200, 100)]
    assert set(found.of_videos(["clap/two"])["video"]) == {"clap/two"}


def changed(value: dict, *path: Any, to: Any) -> dict:
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return made


RUN = ("Run/v_Run_g08_c01", "annotations", 0)
RUNNING = PYANNOT[RUN[0]]["annotations"][0]
TUBE = ("gttubes", "brush/one", 0)


@pytest.mark.parametrize("size", [np.array([100, 200]), np.array([100.0, 200.0], np.float32), [100, 200]])
def test_a_resolution_of_any_kind(tmp_path: Path, size: Any) -> None:
    found = read_annotations(dump(tmp_path, changed(TUBES, "resolution", "clap/two", to=size)))
    assert rows(found.videos) == [(2, 320, 240), (3, 200, 100)]


def test_names_as_bytes(tmp_path: Path) -> None:
    content = {**TUBES, "labels": [b"brush", b"clap"], "test_videos": [[b"clap/two"]]}
    found = read_annotations(dump(tmp_path, content))
    assert found.names == ["brush", "clap"] and found.test_videos == [["clap/two"]]


def test_a_label_that_no_folder_has(tmp_path: Path) -> None:
    found = read_annotations(dump(tmp_path, {RUN[0]: PYANNOT[RUN[0]]}))
    assert found.names == ["class 0", "Run"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "neither pyannot.pkl"),
        ({"a": 1}, "neither pyannot.pkl"),
        (changed(PYANNOT, *RUN, "ef", to=4), "Run/v_Run_g08_c01', annotation 0: 2 boxes from frame 1 to 4"),
        (changed(PYANNOT, *RUN, "ef", to=9), "2 boxes from frame 1 to 9"),
        (changed(PYANNOT, *RUN, "sf", to="x"), "annotation 0: sf is 'x'; expected a whole number"),
        (changed(PYANNOT, *RUN, "sf", to=float("nan")), "sf is nan; expected a whole number"),
        (changed(PYANNOT, *RUN, "label", to=0), "label 0 is of folder"),
        (changed(PYANNOT, *RUN, "boxes", to=np.zeros((2, 3))), r"array of shape (2, 3); expected (N, 4)"),
        (changed(PYANNOT, *RUN, "boxes", to="boxes"), "expected an array of numbers"),
        (changed(PYANNOT, *RUN, to={}), "annotation 0: expected a dict of sf, ef, label and boxes"),
        (changed(PYANNOT, RUN[0], "numf", to=-1), "numf is -1"),
        (
            changed(PYANNOT, RUN[0], "numf", to=10**9),
            "numf is 1000000000; expected a whole number from 1 to 1000000",
        ),
        (
            changed(PYANNOT, *RUN, "label", to=10**9),
            "label is 1000000000; expected a whole number from 0 to 99999",
        ),
        (changed(PYANNOT, RUN[0], "annotations", to=3), "a list of annotations"),
        ({"a/b": {"numf": 1, "annotations": []}}, "not one annotated tube"),
        (changed(TUBES, "labels", to=3), "key 'labels': expected a list, found int"),
        (changed(TUBES, "labels", to=["brush", 7]), "key 'labels', label 1: expected a text, found int"),
        (
            changed(TUBES, "nframes", "brush/one", to=10**9),
            "nframes is 1000000000; expected a whole number from 1",
        ),
        (changed(TUBES, "nframes", to={}), "video 'brush/one': nframes is None"),
        (
            changed(TUBES, "train_videos", to=["a"]),
            "key 'train_videos': expected a list of videos for each split",
        ),
        (changed(TUBES, *TUBE[:2], to={7: []}), "label 7"),
        (
            changed(TUBES, *TUBE, to=[np.zeros((1, 4))]),
            "label 0, tube 0: array of shape (1, 4); expected (N, 5)",
        ),
        (changed(TUBES, *TUBE, to=[np.array([[3, 0, 0, 1, 1]])]), "frames are to rise, within 1 to 2"),
        (changed(TUBES, *TUBE, to=[np.array([[1.5, 0, 0, 1, 1]])]), "frame numbers are to be whole"),
        (
            changed(TUBES, *TUBE, to=[np.array([[1, 5, 0, 1, 1]])]),
            "row 0: box [5.0, 0.0, 1.0, 1.0] is inverted",
        ),
        (changed(TUBES, *TUBE, to=[np.array([[1, np.nan, 0, 1, 1]])]), "not finite"),
        (changed(TUBES, "resolution", "brush/one", to=(0, 5)), "resolution is 0"),
        (changed(TUBES, "resolution", "brush/one", to=np.array([240])), "a resolution (height, width)"),
        (
            changed(TUBES, "resolution", "brush/one", to=np.array([[240, 320]])),
            "a resolution (height, width)",
        ),
        (changed(TUBES, "resolution", "brush/one", to=np.array([0.5, 5])), "resolution is 0.5"),
        (
            changed(TUBES, "labels", to=["clap", "clap"]),
            "key 'labels', label 1: class 'clap' is label 1 here and label 0 in key 'labels', label 0",
        ),
        (
            changed(
                PYANNOT, "Run/v_Run_g09_c01", to=PYANNOT[RUN[0]] | {"annotations": [{**RUNNING, "label": 2}]}
            ),
            "video 'Run/v_Run_g09_c01', annotation 0: class 'Run' is label 2 here and label 1 in video "
            "'Run/v_Run_g08_c01', annotation 0",
        ),
        (
            {"class 0/v": PYANNOT[RUN[0]]},
            "label 0, which no video has: class 'class 0' is label 0 here and label 1 in video 'class 0/v'",
        ),
    ],
)
def test_mistakes_are_told_by_video_and_tube(tmp_path: Path, value: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        read_annotations(dump(tmp_path, value))
    assert told in str(error.value) and "file.pkl" in str(error.value)


def test_the_published_file(shared: Path) -> None:
    found = read_annotations(shared / "data" / "ucf24" / "pyannot.pkl")
    assert len(found.videos) == 3194 and len(found.names) == 24
    assert found.names[:2] == ["Basketball", "BasketballDunk"] and found.names[-1] == "WalkingWithDog"
    tubes = found.boxes.groupby(["video", "tube"])["frame"].agg(["min", "max", "size"])
    assert len(tubes) == 4458 and len(found.boxes) == 573862
    assert (tubes["max"] - tubes["min"] + 1 == tubes["size"]).all()
    assert found.boxes["x2"].max() == 320 and found.boxes["y2"].max() == 240 and found.boxes["x1"].min() >= 0
    assert found.boxes["frame"].min() == 1
