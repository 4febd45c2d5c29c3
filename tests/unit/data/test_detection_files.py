"""Detections as csv and as parquet beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.data.detection_files import (
    read_any_detections,
    read_detection_files,
    write_detection_files,
    write_detection_parquet,
)
from acar.data.tables import DETECTION_COLUMNS, read_detections
from acar.errors import UserError


def table(values: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame({"video": [f"v{k % 2}" for k in range(len(values))], "time_s": 902.0})
    frame["video"] = frame["video"].astype("str")
    for name in ("x1", "y1", "x2", "y2"):
        frame[name] = np.array(values, np.float64)
    return frame.assign(action_id=np.int64(3), score=np.array(values, np.float64))


FRACTION = st.floats(0, 1)


@settings(max_examples=25)
@given(values=st.lists(FRACTION, min_size=1, max_size=20))
def test_both_files_hold_the_same_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("predictions")
    write_detection_files(table(values), folder)
    from_csv = read_detections(folder / "detections.csv")
    pd.testing.assert_frame_equal(
        read_any_detections(folder / "detections.parquet"), from_csv, check_exact=True
    )
    np.testing.assert_allclose(from_csv["score"], values, atol=5.1e-7)


def test_an_edited_csv_counts(tmp_path: Path) -> None:
    write_detection_files(table([0.25, 0.5]), tmp_path)
    assert read_detection_files(tmp_path)["score"].tolist() == [0.25, 0.5]
    csv = tmp_path / "detections.csv"
    csv.write_text(csv.read_text().replace("0.500000\n", "0.750000\n"))
    assert read_detection_files(tmp_path)["score"].tolist() == [0.25, 0.75]
    (tmp_path / "detections.parquet").write_bytes(b"PAR1 cut off")
    assert read_detection_files(tmp_path)["score"].tolist() == [0.25, 0.75]
    csv.unlink()
    with pytest.raises(UserError, match="no such file"):
        read_detection_files(tmp_path)


def test_the_parquet_file_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_detection_files(table([0.25, 0.5]), tmp_path)
    monkeypatch.delattr("acar.data.detection_files.read_detections")
    assert read_detection_files(tmp_path)["score"].tolist() == [0.25, 0.5]


def test_no_rows(tmp_path: Path) -> None:
    write_detection_files(table([]), tmp_path)
    assert read_detection_files(tmp_path).columns.tolist() == DETECTION_COLUMNS


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("score", np.nan, "row 2: score is nan"),
        ("score", np.inf, "row 2: score is inf"),
        ("x1", 300.0, "row 2: x1 is 300.0; expected fractions"),
        ("video", None, "row 2: video is nan; expected a video's id"),
        ("video", "  ", "row 2: video is ; expected a video's id"),
        ("time_s", 1e14, r"row 2: time_s is 1e\+14|row 2: time_s is 100000000000000"),
        ("action_id", 1.5, "row 2: action_id is 1.5; expected a whole number"),
        ("action_id", None, "row 2: action_id is nan; expected a whole number"),
    ],
)
def test_mistakes_are_named_by_row(tmp_path: Path, name: str, value: float, complaint: str) -> None:
    frame = table([0.25, 0.5])
    frame[name] = pd.Series([frame[name][0], value], dtype=object if name == "video" else np.float64)
    write_detection_parquet(frame, tmp_path / "found.parquet")
    with pytest.raises(UserError, match=complaint):
        read_any_detections(tmp_path / "found.parquet")


def test_a_column_of_text_is_refused(tmp_path: Path) -> None:
    write_detection_parquet(table([0.25]).assign(score=["much"]), tmp_path / "found.parquet")
    with pytest.raises(UserError, match="not of numbers"):
        read_any_detections(tmp_path / "found.parquet")
    pd.DataFrame({"video": ["a"]}).to_parquet(tmp_path / "narrow.parquet")
    with pytest.raises(UserError, match="has no column time_s"):
        read_any_detections(tmp_path / "narrow.parquet")


def test_ids_as_in_the_csv(tmp_path: Path) -> None:
    """Blanks around a video's id, classes as floats or in other types, ids in categories."""
    frame = table([0.25, 0.5]).assign(video=[" v0", "v1 "], action_id=[3.0, 4.0])
    frame.to_parquet(tmp_path / "found.parquet")
    found = read_any_detections(tmp_path / "found.parquet")
    assert found["video"].tolist() == ["v0", "v1"] and found["action_id"].tolist() == [3, 4]
    narrow = frame.astype({"video": "category", "action_id": "Int8", "score": np.float32})
    narrow.to_parquet(tmp_path / "narrow.parquet")
    pd.testing.assert_frame_equal(read_any_detections(tmp_path / "narrow.parquet"), found, check_exact=True)


@pytest.mark.parametrize("name", ["action_id", "time_s", "x1", "score"])
@pytest.mark.parametrize("kind", ["bool", "boolean", "category"])
def test_truth_values_are_no_numbers(tmp_path: Path, name: str, kind: str) -> None:
    values = pd.Series([True, None if kind == "boolean" else False], dtype=object).astype(kind)
    table([0.25, 0.5]).assign(**{name: values}).to_parquet(tmp_path / "found.parquet")
    with pytest.raises(UserError, match=f"column {name} is of true and false; expected numbers"):
        read_any_detections(tmp_path / "found.parquet")
