"""Box files of others: csv in its varieties, proposal pickles, and pickles that would run code."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from acar.data.plain_pickle import load_plain_pickle
from acar.data.tables import PERSON_BOX_COLUMNS
from acar.detection.boxes import boxes_table
from acar.detection.importing import import_boxes
from acar.errors import UserError


def rows(table):
    return [tuple(row) for row in table.itertuples(index=False)]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def dump(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def test_fair_csv_has_the_score_last(tmp_path):
    path = write(tmp_path / "b.csv", "v,0902,0.1,0.2,0.3,0.4,,0.5", "v,0902,0.1,0.2,0.4,0.5,12,0.9")
    first, second = rows(import_boxes(path))
    assert first == ("v", 902.0, 0.1, 0.2, 0.4, 0.5, 0.9)
    assert second == ("v", 902.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def test_ava_labels_count_each_box_once_with_score_1(tmp_path):
    lines = ["v,902,0.1,0.2,0.3,0.4,12,0", "v,902,0.1,0.2,0.3,0.4,17,0", "w,3,0,0,1,1,1,7"]
    path = write(tmp_path / "l.csv", *lines)
    assert rows(import_boxes(path)) == [("v", 902.0, 0.1, 0.2, 0.3, 0.4, 1.0), ("w", 3.0, 0, 0, 1, 1, 1.0)]


@pytest.mark.parametrize(("cells", "score"), [("", 1.0), (",0.25", 0.25), (",12", 1.0)])
def test_csv_without_action_or_score(tmp_path, cells, score):
    table = import_boxes(write(tmp_path / "b.csv", f"v,1.5,0.1,0.2,0.3,0.4{cells}"))
    assert rows(table) == [("v", 1.5, 0.1, 0.2, 0.3, 0.4, score)]


def test_csv_errors_name_the_line(tmp_path):
    pixels = write(tmp_path / "b.csv", "v,1,0.1,0.2,0.3,0.4,0.5", "v,2,10,20,300,400,0.5")
    with pytest.raises(UserError, match=r"b\.csv, line 2.*pixels"):
        import_boxes(pixels)
    bare = write(tmp_path / "c.csv", "v,1,0.1,0.2,0.3,0.4", "v,1,0.1,0.2,0.3,x")
    with pytest.raises(UserError, match=r"c\.csv, line 2"):
        import_boxes(bare)
    with pytest.raises(UserError, match="no such file"):
        import_boxes(tmp_path / "absent.csv")
    with pytest.raises(UserError, match=r"b\.txt, line 1: 1 columns; expected video"):
        import_boxes(write(tmp_path / "b.txt", "v"))


def test_the_content_tells_the_format_whatever_the_suffix(tmp_path):
    proposals = dump(tmp_path / "boxes.csv", {"v,0902": np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])})
    table = write(tmp_path / "boxes.pkl", "v,0902,0.1,0.2,0.3,0.4,,0.5")
    assert (
        rows(import_boxes(proposals)) == rows(import_boxes(table)) == [("v", 902.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_proposals_with_and_without_scores(tmp_path, protocol):
    proposals = collections.OrderedDict(
        {
            "a,b,0902": np.array([[0.1, 0.2, 0.3, 0.4, 0.75]], np.float32),
            "v,0903": np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.9]]),  # the second has no area
            "v,0904": np.zeros((0, 5)),
        }
    )
    table = import_boxes(dump(tmp_path / "p.pkl", proposals, protocol))
    assert table["video"].tolist() == ["a,b", "v"] and table["time_s"].tolist() == [902.0, 903.0]
    np.testing.assert_allclose(table[["x1", "y1", "x2", "y2"]], [[0.1, 0.2, 0.3, 0.4]] * 2, atol=1e-6)
    assert table["score"].tolist() == [0.75, 1.0]


def test_empty_files_give_an_empty_table(tmp_path):
    like = boxes_table([], [], [], [])
    for path in (dump(tmp_path / "p.pkl", {}), write(tmp_path / "b.csv", "")):
        table = import_boxes(path)
        assert len(table) == 0 and list(table.columns) == PERSON_BOX_COLUMNS
        assert table["x1"].dtype == like["x1"].dtype


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], r"expected \(records, classes\)"),
        ({"v": np.zeros((1, 5))}, "entry 'v'.*key such as"),
        ({3: np.zeros((1, 5))}, "entry 3.*key such as"),
        ({"v,1": np.zeros((1, 3))}, r"entry 'v,1'.*\(1, 3\)"),
        ({"v,1": "boxes"}, "entry 'v,1'.*array of numbers"),
        ({"v,1": np.array([[0, 0, 1, 1, 1], [0, 0, 64, 64, 1]])}, "entry 'v,1': row 1.*fractions"),
        ({"v,1": np.array([[0, 0, np.nan, 1, 1]])}, "entry 'v,1': row 0"),
        ({"v,1": np.array([[0, 0, 1, 1, 7]])}, "entry 'v,1': row 0: score 7"),
    ],
)
def test_proposal_errors_name_the_entry(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        import_boxes(dump(tmp_path / "p.pkl", value))


class Hostile:
    def __init__(self, function, *arguments):
        self.made_by = function, arguments

    def __reduce__(self):
        return self.made_by


def test_hostile_pickles_are_refused_and_run_nothing(tmp_path):
    witness = tmp_path / "witness"
    for attack in (
        Hostile(os.system, f"touch {witness}"),
        Hostile(eval, f"open({str(witness)!r}, 'w')"),
        Hostile(getattr, "", "join"),
        Hostile(np.load, "x.npy"),
    ):
        for value in (attack, {"v,1": attack}, {attack: 1}):
            with pytest.raises(UserError, match="refused"):
                load_plain_pickle(dump(tmp_path / "h.pkl", value))
    assert not witness.exists()


def test_hostile_arrays_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"refused.*array of Python objects of type 'O8'"):
        load_plain_pickle(dump(tmp_path / "h.pkl", np.array([{}, []], object)))
    with pytest.raises(UserError, match="refused"):
        load_plain_pickle(dump(tmp_path / "h.pkl", np.zeros(1, "f4,f4")))
    name = b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(I0\ntS'b'\ntR."
    (tmp_path / "h.pkl").write_bytes(name)
    value = load_plain_pickle(tmp_path / "h.pkl")  # the subtype that it asks for is not looked at
    assert type(value) is np.ndarray and value.size == 0


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"v,1": [1.0]})[:-3]])
def test_broken_pickles(tmp_path, content):
    (tmp_path / "p.pkl").write_bytes(content)
    with pytest.raises(UserError, match="not a readable pickle"):
        load_plain_pickle(tmp_path / "p.pkl")


def test_a_pickle_cannot_alter_numpy_dtypes(tmp_path):
    swapped = np.arange(3, dtype=">f8").reshape(1, 3)
    np.testing.assert_array_equal(load_plain_pickle(dump(tmp_path / "p.pkl", swapped)), [[0, 1, 2]])
    assert np.dtype("f8").isnative


def test_public_files_are_read(shared):
    formats = shared / "data" / "formats"
    table = import_boxes(formats / "ava_proposals_sample.pkl")
    assert len(table) == 5 and table["score"].between(0.28, 1).all()
    assert table.iloc[0]["video"] == "0f39OWEqJ24" and table.iloc[0]["time_s"] == 902.0
    assert (import_boxes(formats / "proposal.pkl")["score"] <= 1).all()
    labels = import_boxes(formats / "ava_sample.csv")
    assert (labels["score"] == 1.0).all() and not labels.duplicated().any()
