"""What each reader takes, what it assumes, and the place that it names in what it refuses."""

from __future__ import annotations

import collections
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acar import cli
from acar.data.findings import Findings
from acar.data.formats.frame_names import FrameNames
from acar.data.formats.registry import Settings, format_of, read_annotations
from acar.data.label_map import read_label_map
from acar.data.tables import read_labels
from acar.detection.importing import import_boxes
from acar.errors import UserError

BOX = [0.1, 0.2, 0.3, 0.4]


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def listed(path: Path, **kwargs: Any) -> list[tuple]:
    frame = read_annotations(path, **kwargs).rows
    return [tuple(None if value != value or value is None else value for value in row)
            for row in frame.astype(object).where(frame.notna(), None).itertuples(index=False)]  # fmt: skip


class TestAvaCsv:
    def test_v2_2(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x", "v,0902,0.077,0.151,0.283,0.811,80,1\nv,0903,0.1,0.2,0.3,0.4,,2\n")
        assert format_of(path) == "ava"
        assert listed(path) == [
            ("v", 902.0, 0.077, 0.151, 0.283, 0.811, 80, "1", None), ("v", 903.0, *BOX, None, "2", None),
        ]  # fmt: skip

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    def test_kinetics(self, tmp_path: Path, order: tuple[int, ...]) -> None:
        """Seven columns, fractional seconds, and key frames without persons, as a video and a time alone."""
        lines = [
            "---QUuC4vJs,84.0833333,0.1,0.2,0.3,0.4,11",
            "--0x,5.5",
            "---QUuC4vJs,84.0833333,0.1,0.2,0.3,0.4,80",
        ]
        path = write(tmp_path / "x", "\n".join(lines[k] for k in order) + "\n")
        assert format_of(path) == "ava"
        assert sorted(listed(path)) == [
            ("---QUuC4vJs", 84.083333, *BOX, 11, "", None), ("---QUuC4vJs", 84.083333, *BOX, 80, "", None),
        ]  # fmt: skip

    def test_kinetics_lines_are_still_counted(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x", "a,5.5\nb,1,0.1,0.2,0.3,0.4,11\nc,7\nb,1,0.1,0.2,3,0.4,11\n")
        with pytest.raises(UserError, match=r"x, line 4: box 0\.1,0\.2,3,0\.4 is outside"):
            read_annotations(path)


@pytest.mark.parametrize(("content", "told"), [(pickle.dumps([1]), "a pickle"), (b'{"images": []}', "json")])
def test_labels_of_another_format_are_to_be_converted(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=rf"x: {told}; .*`acar convert-annotations .*x LABELS\.csv --to ava`"):
        read_labels(tmp_path / "x")


class TestProposals:
    def test_both_widths(self, tmp_path: Path) -> None:
        value = {"a,b,0902": np.array([[*BOX, 0.5]], np.float32), "v,84.083333": np.array([BOX])}
        rows = listed(dump(tmp_path / "x", value))
        assert rows[0][:2] == ("a,b", 902.0) and rows[0][-1] == 0.5
        assert rows[1] == ("v", 84.083333, *BOX, None, "", 1.0)

    def test_all_problems(self, tmp_path: Path) -> None:
        value = {
            "v,0902": np.array([[*BOX, 0.5], [0, 0, 5, 5, 1], [*BOX, 2]]), "v": np.zeros((1, 5)), 3: 1,
            "v,0903": np.zeros((2, 3)), "v,0904": "boxes", "v,0905": [[0.1, 0.2, 0.3], BOX],
        }  # fmt: skip
        found = Findings()
        path = dump(tmp_path / "x", value)
        assert len(read_annotations(path, found=found).rows) == 2
        told = {finding.kind: finding for finding in found}
        assert told["out of range"].told[0].startswith("entry 'v,0902': row 1: box 0,0,5,5 is outside")
        assert told["malformed"].count == 6


class TestAcarNet:
    CLASSES = ({"name": "stand", "id": 12}, {"name": "talk", "id": 80})

    def record(self, *labels: Any, **changed: Any) -> dict[str, Any]:
        return {
            "video": "v", "time": 902, "start_frame": 16, "n_frames": 91, "mid_frame": 61,
            "format_str": "image_%06d.jpg", "frame_rate": 30.0, "labels": list(labels), **changed,
        }  # fmt: skip

    def label(self, **changed: Any) -> dict[str, Any]:
        return {"bounding_box": BOX, "label": [0, 1], "person_id": [7, 7], **changed}

    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize("kind", [tuple, list])
    def test_labels_are_places_in_the_classes(self, tmp_path: Path, protocol: int, kind: type) -> None:
        person = self.label(label=[], person_id=[-1])
        value = kind([[self.record(self.label(), person)], list(self.CLASSES)])
        path = dump(tmp_path / "x", value, protocol)
        assert format_of(path) == "acar-net"
        assert listed(path) == [
            ("v", 902.0, *BOX, 12, "7", None), ("v", 902.0, *BOX, 80, "7", None),
            ("v", 902.0, *BOX, None, "-1", None),
        ]  # fmt: skip
        label_map = read_annotations(path).label_map
        assert label_map is not None and label_map.ids == [12, 80] and label_map.names == ["stand", "talk"]

    @pytest.mark.parametrize(
        ("changed", "persons"),
        [({"person_id": 3}, ["3", "3"]), ({"person_id": []}, ["", ""]), ({"person_id": ["a", "b"]}, ["a", "b"]),
         ({"label": 1, "person_id": [5, 5]}, ["5"]), ({"label": [], "person_id": [5, 5]}, ["5"]),
         ({"label": np.array([1])}, ["7"]),
         ({"bounding_box": np.array(BOX)}, ["7", "7"]), ({"person_id": np.array([4, 5])}, ["4", "5"])],
    )  # fmt: skip
    def test_harmless_variations(self, tmp_path: Path, changed: dict[str, Any], persons: list[str]) -> None:
        path = dump(tmp_path / "x", ([self.record(self.label(**changed))], list(self.CLASSES)))
        assert [row[-2] for row in listed(path)] == persons

    @pytest.mark.parametrize(
        ("record", "told"),
        [
            (
                {"labels": [{"bounding_box": BOX, "label": [2]}]},
                r"second 902\), person 0: label 2; expected 0 to 1",
            ),
            ({"labels": [{"bounding_box": [1, 2, 3]}]}, "person 0: .*expected bounding_box, 4 numbers"),
            ({"labels": [{"bounding_box": [0, 0, 320, 240]}]}, "person 0: box 0,0,320,240 is outside"),
            ({"labels": [{"bounding_box": [0, 0, 0, 1]}]}, "person 0: box 0,0,0,1 has no area"),
            ({"labels": [{"bounding_box": BOX, "label": "stand"}]}, "label is 'stand'; expected a list"),
            (
                {"labels": [{"bounding_box": BOX, "person_id": [np.zeros(0)]}]},
                "person_id is .*expected a list",
            ),
            (
                {"labels": [{"bounding_box": BOX, "label": [0, 1], "person_id": [5, 6, 7]}]},
                "person 0: person_id has 3 ids, label 2; expected an id for each",
            ),
            (
                {"labels": [{"bounding_box": BOX, "label": 1, "person_id": [5, 6]}]},
                "person 0: person_id has 2 ids, label 1;",
            ),
            ({"labels": None}, "record 1: labels is None"),
            ({"time": "late"}, "record 1: time is 'late'"),
            ({"time": 1e308}, "record 1: time is 1e"),
            ({"video": ["v"]}, "record 1: video is"),
        ],
    )
    def test_mistakes_are_named_by_record_and_person(self, tmp_path: Path, record: dict, told: str) -> None:
        path = dump(tmp_path / "x", ([self.record(), self.record(**record)], list(self.CLASSES)))
        with pytest.raises(UserError, match=f"x, record 1.*{told}" if "record 1" not in told else told):
            read_annotations(path)
        found = Findings()
        assert read_annotations(path, found=found).rows.empty and len(found) == 1

    @pytest.mark.parametrize(
        "classes",
        [
            None,
            [{"name": "a"}],
            [{"id": 1, "name": "a"}] * 2,
            ["a"],
            {"a": 1},
            [{"id": 1, "name": ""}],
            [{"id": 10**9, "name": "a"}],
            [{"id": 0, "name": "a"}],
        ],
    )
    def test_classes_must_be_classes(self, tmp_path: Path, classes: Any) -> None:
        with pytest.raises(UserError, match=r"x, class"):
            read_annotations(dump(tmp_path / "x", ([self.record()], classes)))

    def test_as_person_boxes(self, tmp_path: Path) -> None:
        boxes = import_boxes(dump(tmp_path / "x.pkl", ([self.record(self.label())], list(self.CLASSES))))
        assert boxes.to_numpy().tolist() == [["v", 902.0, *BOX, 1.0]]


class TestCoco:
    def value(self, image: dict | None = None, box: dict | None = None, **more: Any) -> dict[str, Any]:
        return {
            "images": [{"id": 5, "width": 640, "height": 480, "video": "v", "time_s": 902, **(image or {})}],
            "annotations": [{"image_id": 5, "bbox": [64, 48, 128, 96], "score": 0.5, **(box or {})}],
            **more,
        }  # fmt: skip

    def written(self, tmp_path: Path, *args: Any, **more: Any) -> Path:
        return write(tmp_path / "x", json.dumps(self.value(*args, **more)))

    def test_pixels_become_fractions(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        assert format_of(path) == "coco"
        (row,) = listed(path)
        assert row[:2] == ("v", 902.0) and row[-1] == 0.5
        np.testing.assert_allclose(row[2:6], [0.1, 0.1, 0.3, 0.3], atol=1e-12)
        assert import_boxes(path)["score"].tolist() == [0.5]

    def test_numbered_images_need_their_rate_and_beginning(self, tmp_path: Path) -> None:
        image = {"video": None, "time_s": None, "file_name": "show/v/v_000061.jpg"}
        path = self.written(tmp_path, image)
        with pytest.raises(
            UserError, match=r"image 0: file_name 'show/v/v_000061.jpg'.*--fps RATE --first-second"
        ):
            read_annotations(path)
        frames = Settings(FrameNames(fps=30, first_s=900))
        assert listed(path, settings=frames)[0][:2] == ("show/v", 902.0)

    def test_persons_only(self, tmp_path: Path) -> None:
        categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "Person"}]
        value = self.value(None, {"category_id": 2}, categories=categories)
        value["annotations"] += [
            {**value["annotations"][0], "category_id": 1},
            {**value["annotations"][0], "iscrowd": 1},
        ]
        found = read_annotations(write(tmp_path / "x", json.dumps(value)))
        assert len(found.rows) == 1
        assert found.notes == ["left out 1 box(es) of other categories", "left out 1 box(es) of crowds"]
        with pytest.raises(UserError, match="categories: none is called `person`"):
            read_annotations(
                self.written(tmp_path, categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
            )

    @pytest.mark.parametrize(
        ("image", "box", "told"),
        [
            ({"width": 0}, {}, "image 0: width and height are 0 and 480"),
            ({"id": None}, {}, "image 0: .*an id of its own"),
            ({"time_s": "soon"}, {}, "image 0: .*which second is it"),
            ({}, {"image_id": 6}, "annotation 0: image_id 6 is of no"),
            ({}, {"bbox": [1, 2, 3]}, r"annotation 0: bbox \[1, 2, 3\]"),
            ({}, {"bbox": [600, 0, 100, 100]}, "annotation 0: box .* is outside the frame"),
            ({}, {"bbox": [600, 0, 0, 100]}, "annotation 0: box .* has no area"),
            ({}, {"score": 7}, "annotation 0: .*score 7"),
        ],
    )
    def test_mistakes_are_named_by_entry(self, tmp_path: Path, image: dict, box: dict, told: str) -> None:
        with pytest.raises(UserError, match=f"x, {told}"):
            read_annotations(self.written(tmp_path, image, box))

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": 1, "annotations": []}', "[" * 200_000])
    def test_other_json(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(UserError, match="x"):
            read_annotations(write(tmp_path / "x", text))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('item {\n name: "a"\n id: 1 }', "label-map"),
        ('# AVA\nlabel { name: "a" label_id: 1 }', "label-map"),
        ("# mine\n1: stand, or not\n2: sit\n", "label-map"),
        ("v,0902\n", "exclusions"),
        ("v,902,0,0,1,1\n", "fair"),
        ("v,902,0,0,1,1,0.5\n", "fair"),
        ("v,902,0,0,1,1,12\n", "ava"),
        ("v,902,0,0,1,1,12,0.99\n", "fair"),
        ("v,902,0,0,1,1,12,3\n", "ava"),
        ("v,902,0,0,1,1,12,-1\n", "ava"),
        ("v,902,0,0,1,1,12,1.0\nv,902,0,0,1,1,12,2.0\n", "ava"),
        ("v,902,0,0,1,1,12,0.0\nv,902,0,0,1,1,12,\n", "ava"),
        ("v,902,0,0,1,1,12.0\n", "ava"),
        ("v,902,0,0,1,1,12,0.0\nv,902,0,0,1,1,12,1.0\n", "fair"),
        ("v,902,0,0,1,1,12,1.0\nv,902,0,0,1,1,12,0.5\n", "fair"),
        ("1: v,902,0,0,1,1,,0.5\n", "fair"),
        ("1: a,b,c,d,e,f,g\n", "label-map"),
        (' {"images": []}', "coco"),
    ],
)
def test_formats_of_text(tmp_path: Path, text: str, name: str) -> None:
    assert format_of(write(tmp_path / "x", text)) == name


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("factory", [list, dict, None])
def test_a_dictionary_with_a_default_is_one(tmp_path: Path, protocol: int, factory: Any) -> None:
    value = collections.defaultdict(factory, {"v,0902": np.array([[*BOX, 0.5]])})
    path = dump(tmp_path / "x", value, protocol)
    assert format_of(path) == "mmaction2"
    assert listed(path) == [("v", 902.0, *BOX, None, "", 0.5)]
    assert format_of(dump(tmp_path / "y", collections.defaultdict(list), protocol)) == "mmaction2"


def test_other_pickles_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x: a pickle of neither proposals"):
        format_of(dump(tmp_path / "x", 3))


def test_a_label_map_as_a_plain_list(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "# id: name\n 12 : stand\n\n80: watch (a person): long\n")
    assert read_label_map(path).names == ["stand", "watch (a person): long"]
    for text, told in (("1: a\n1: b\n", "line 2: 'b' has the id 1 of 'a'"), ("1: a\nb\n", "line 2: 'b'; expected"),
                       ("1:\n", "line 1: '1:'; expected"), ("1: a\n²: b\n", "line 2: class id")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            read_label_map(write(path, text))


def test_public_files(shared: Path, tmp_path: Path) -> None:
    formats, files = shared / "data" / "formats", shared / "data" / "ava_files"
    kinds = {
        "ava_sample.csv": "ava", "ava_proposals_sample.pkl": "mmaction2", "proposal.pkl": "mmaction2",
        "ava_excluded_timestamps_sample.csv": "exclusions", "action_list.txt": "label-map",
    }  # fmt: skip
    assert {name: format_of(formats / name) for name in kinds} == kinds
    assert len(read_annotations(formats / "proposal.pkl").rows) == 30
    for name, dialect, n in (("ava_action_list_v2.2.pbtxt", "label", 80),
                             ("ava_action_list_v2.2_for_activitynet_2019.pbtxt", "item", 60)):  # fmt: skip
        for target in ("item", "label", "list"):
            assert (
                cli.main(
                    [
                        "convert-annotations",
                        str(files / name),
                        str(tmp_path / target),
                        "--to",
                        f"label-map-{target}",
                    ]
                )
                == 0
            )
        assert (
            read_label_map(tmp_path / "item")
            == read_label_map(tmp_path / "label")
            == read_label_map(files / name)
        )
        assert len(read_label_map(tmp_path / "list")) == n
        assert (tmp_path / dialect).read_text().split() == (files / name).read_text().split()


def test_a_result_file_as_person_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"v,0902,0.1,0.2,0.3,0.4,{k},{score}\n" for k, score in ((3, 0.2), (4, 0.9), (5, 0.1), (6, 0.9))]
    boxes = import_boxes(write(tmp_path / "x", "".join(lines)))
    assert boxes.to_numpy().tolist() == [["v", 902.0, *BOX, 0.9]]
    assert "x: 2 score(s) of boxes with several left out: the best counts" in capsys.readouterr().err
