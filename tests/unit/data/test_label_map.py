"""Label maps: what is read, what is refused with its line, and that only what can be read is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from acar.data.label_map import ActionClass, LabelMap, read_label_map, write_label_map
from acar.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "map.pbtxt"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_forms(file: Path) -> None:
    label_map = read_label_map(
        written(
            file,
            'label {\n  name: "hug (a person)"\n  label_id: 64\n  label_type: PERSON_INTERACTION\n}\n'
            '# a comment\nitem { name: "say \\"hi\\" {x}" id: 2 group: "odd" }\n'
            "item {\n  id: 1\n  name: 'stand'\n  label_type: PERSON_MOVEMENT\n}\n"
            "item { name: plain id: 9 }",
        )
    )
    assert label_map.ids == [1, 2, 9, 64]
    assert label_map.names == ["stand", 'say "hi" {x}', "plain", "hug (a person)"]
    assert [item.group for item in label_map.classes] == ["pose", "odd", None, "person"]
    assert label_map.index_of == {1: 0, 2: 1, 9: 2, 64: 3}
    assert label_map.groups() == {"pose": [1], "odd": [2], "person": [64]}
    assert len(label_map) == 4


def test_round_trip(file: Path) -> None:
    label_map = LabelMap((ActionClass(1, 'a "b" \\ c', "pose"), ActionClass(5, "d", None)))
    write_label_map(label_map, file)
    assert read_label_map(file) == label_map


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no class found"),
        ('item { name: "a" }', "line 1: block has no id"),
        ("\nitem { id: 1 }", "line 2: block has no name"),
        ('item { name: "a" id: one }', "class id of 'a' is 'one'"),
        ('item { name: "a" id: 0 }', "class id of 'a' is '0'"),
        ('item { name: "a" id: 1 }\nitem { name: "b" id: 1 }', "line 2: 'b' has the id 1 of 'a'"),
        ('item { name: "a" id: 1', "line 1: block is not closed"),
        ('item { name: "" id: 1 }', "line 1: the name of the class 1 is empty"),
        ('item { name: " " id: 1 }', "line 1: the name of the class 1 is empty"),
        (
            'item {\nname: "a"\nid: 1\nid: 2 }',
            "line 4: id '1' is given again, as 2; expected each field once",
        ),
        ('item {\nname: "a" id: 1\nname: "b" }', "line 3: name 'a' is given again, as \"b\""),
        ('\nitem { name: "a" id: 1 label_id: 2 }', "line 2: block has the id 1 and the label_id 2"),
        ("\ufeff\ufeff1: a\n", "line 1: an invisible byte order mark"),
        ('item { name: "a" id: 1 }\n\ufeffitem { name: "b" id: 2 }', "line 2: an invisible byte order mark"),
        ("stand\nsit\n", "line 1: cannot read 'stand'"),
        ('item { item { name: "a" id: 1 } }', "cannot read"),
        ('name: "a"', "cannot read"),
    ],
)
def test_mistakes(file: Path, text: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        read_label_map(written(file, text))
    assert str(file) in str(caught.value) and complaint in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ((ActionClass(1, ""),), "the name of the class 1 is empty"),
        ((ActionClass(1_000_000_000, "a"),), "is 1000000000; expected 1 to 999999999"),
        ((ActionClass(1, "a\ufeff"),), "holds a byte order mark or half a character"),
        ((ActionClass(1, "a\ud800"),), "holds a byte order mark or half a character"),
    ],
)
def test_what_would_not_be_read_is_not_written(
    file: Path, classes: tuple[ActionClass, ...], complaint: str
) -> None:
    with pytest.raises(UserError, match=f"{file}: not written: .*{complaint}"):
        write_label_map(LabelMap(classes), file)
    assert not file.exists()


def test_one_number_under_two_names_is_one_id(file: Path) -> None:
    assert read_label_map(written(file, 'item { name: "a" id: 7 label_id: 7 }')).ids == [7]


def test_all_shared_maps(shared: Path) -> None:
    maps = sorted(shared.rglob("*.pbtxt"))
    assert len(maps) >= 12 and all(len(read_label_map(path)) for path in maps)


def test_official_maps(shared: Path) -> None:
    folder = shared / "data" / "ava_files"
    groups = read_label_map(folder / "ava_action_list_v2.2.pbtxt").groups()
    assert {name: len(ids) for name, ids in groups.items()} == {"pose": 14, "object": 49, "person": 17}
    evaluated = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    assert len(evaluated) == 60 and evaluated.ids[-1] == 80


def test_classes_of_one_name_are_told_apart_by_id(shared: Path, file: Path) -> None:
    found = read_label_map(shared / "data" / "formats" / "action_list.txt")  # 79 and 80 are both `action3`
    assert len(found) == len(set(found.ids)) > len(set(found.names))
    for dialect in ("item", "label", "list"):
        write_label_map(found, file, dialect)
        assert read_label_map(file).classes == found.classes


def test_fields_that_are_not_read_may_repeat(file: Path) -> None:
    text = 'item { id: 1 name: "a" keypoint: "x" keypoint: "y" }'
    assert read_label_map(written(file, text)).classes == (ActionClass(1, "a"),)
