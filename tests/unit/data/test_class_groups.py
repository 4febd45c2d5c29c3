"""Which classes belong together: what the config says, what the label map says, and AVA's own groups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acar.config import Config, parse_config
from acar.data.class_groups import grouped, is_ava, pose_columns, read_classes, with_groups
from acar.data.label_map import ActionClass, LabelMap, read_label_map, write_label_map
from acar.errors import UserError
from acar.workflow import stage_digest

PATH = Path("my/map.pbtxt")
PLAIN = LabelMap(
    tuple(ActionClass(n, name) for n, name in enumerate(["talk", "bow", "stand", "sit", "walk"], 1))
)
TOLD = LabelMap(
    (ActionClass(2, "stand", "pose"), ActionClass(5, "sit", "pose"), ActionClass(9, "talk", "person"))
)
AVA = LabelMap((ActionClass(11, "sit"), ActionClass(12, "stand"), ActionClass(17, "carry/hold (an object)"),
                ActionClass(80, "watch (a person)")))  # fmt: skip


def written(groups: Any) -> Config:
    return parse_config({"data": {"class_groups": groups}})


def of(label_map: LabelMap, groups: Any) -> dict[str, list[int]]:
    """The groups by class id, by the way through the config."""
    return grouped(label_map, written(groups).data.class_groups, PATH).label_map.groups()


GROUPS = st.sampled_from(["pose", "object", "person", "long_term", None])
NAMES = st.text("abc/ ()", min_size=1, max_size=6)


@st.composite
def mappings(draw: st.DrawFn) -> tuple[LabelMap, dict[int, str | None], dict[str, list[int | str]]]:
    """A label map, the group of each id, and a config that says so, by names and ids in any order."""
    ids = draw(st.lists(st.integers(1, 99), min_size=1, max_size=9, unique=True))
    names = draw(st.lists(NAMES, min_size=len(ids), max_size=len(ids), unique=True))
    before = draw(st.lists(GROUPS, min_size=len(ids), max_size=len(ids)))
    classes = [ActionClass(*parts) for parts in zip(sorted(ids), names, before, strict=True)]
    wanted = {item.id: draw(GROUPS) for item in classes}
    groups: dict[str, list[int | str]] = {"pose": []} if draw(st.booleans()) else {}
    for item in draw(st.permutations(classes)):
        group = wanted[item.id]
        if group is not None:
            groups.setdefault(group, []).append(item.name if draw(st.booleans()) else item.id)
    return LabelMap(tuple(classes)), wanted, groups


@given(mappings())
def test_from_config_to_columns(
    drawn: tuple[LabelMap, dict[int, str | None], dict[str, list[int | str]]],
) -> None:
    label_map, wanted, groups = drawn
    found = grouped(label_map, written(groups).data.class_groups, PATH)
    assert found.source == "config"
    assert {item.id: item.group for item in found.label_map.classes} == wanted
    assert [(item.id, item.name) for item in found.label_map.classes] == [
        (item.id, item.name) for item in label_map.classes
    ]
    columns = pose_columns(found.label_map)
    assert columns == [k for k, number in enumerate(label_map.ids) if wanted[number] == "pose"]


@given(mappings(), st.data())
def test_the_order_of_names_reruns_nothing(
    drawn: tuple[LabelMap, dict[int, str | None], dict[str, list[int | str]]], data: st.DataObject
) -> None:
    groups = drawn[2]
    order = data.draw(st.permutations(sorted(groups)))
    other = written({name: data.draw(st.permutations(groups[name])) for name in order})
    for stage in ("train_stage1", "train_stage2", "predict", "evaluate", "report"):
        assert stage_digest(written(groups), stage, "val") == stage_digest(other, stage, "val")


@given(mappings(), st.one_of(NAMES, st.integers(0, 120)), st.sampled_from(["pose", "object"]))
def test_what_is_not_in_the_map_or_is_twice_is_refused(
    drawn: tuple[LabelMap, dict[int, str | None], dict[str, list[int | str]]], entry: int | str, group: str
) -> None:
    label_map, wanted, groups = drawn
    number = (
        {item.name: item.id for item in label_map.classes}.get(entry) if isinstance(entry, str) else entry
    )
    more = {**groups, group: [*groups.get(group, []), entry]}
    if number in wanted and wanted[number] is None:
        assert number in of(label_map, more)[group]
        return
    with pytest.raises(UserError, match=r"^data\.class_groups\."):
        of(label_map, more)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"pose": ["stadn"]}, "data.class_groups.pose: no class of my/map.pbtxt is called 'stadn'; the nearest are"),
        ({"pose": ["Stand"]}, "is called 'Stand'; the nearest are 'stand'"),
        ({"pose": ["xyz"]}, "is called 'xyz', or nearly so; it has 1 (talk), 2 (bow), 3 (stand), ..."),
        ({"pose": ["3"]}, "is called '3'; write its id 3 without quotes"),
        ({"object": [7]}, "object: no class of my/map.pbtxt has the id 7; the nearest are 5 (walk), 4 (sit)"),
        ({"pose": ["sit"], "object": [4]}, "object: the class 4 (sit) is in the group `pose` already"),
        ({"pose": ["sit", "bow", 4]}, "data.class_groups.pose: the class 4 (sit) is named twice"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_mistake(groups: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        of(PLAIN, groups)
    assert told in str(error.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        of(PLAIN, {"pose": ["sti", "stnad"], "object": [99]})
    keys = [line.split(":")[0].strip() for line in str(error.value).splitlines()]
    assert keys == ["data.class_groups.pose", "data.class_groups.pose", "data.class_groups.object"]


def test_a_part_of_a_name_finds_the_name() -> None:
    with pytest.raises(UserError, match="the nearest are 'watch \\(a person\\)'"):
        of(AVA, {"person": ["watch"]})


def test_a_name_of_two_classes_needs_the_id() -> None:
    twins = LabelMap((ActionClass(1, "sit"), ActionClass(4, "sit"), ActionClass(6, "stand")))
    with pytest.raises(UserError, match=r"'sit' is the name of the classes 1 and 4 of .*; write the id"):
        of(twins, {"pose": ["sit", "stand"]})
    assert of(twins, {"pose": [4, "stand"]}) == {"pose": [4, 6]}


def test_whose_groups_count() -> None:
    assert grouped(TOLD, None, PATH).label_map is TOLD and grouped(TOLD, None, PATH).source == "label map"
    assert of(TOLD, {"object": ["talk"]}) == {"object": [9]}, "the config replaces all groups of the map"
    assert of(TOLD, {}) == of(TOLD, {"pose": []}) == {}
    assert grouped(AVA, None, PATH).source == "AVA's"
    assert of(AVA, None) == {"pose": [11, 12], "object": [17], "person": [80]}
    assert of(AVA, {"pose": [11]}) == {"pose": [11]}
    assert grouped(PLAIN, None, PATH).source == "none" and of(PLAIN, None) == {}
    assert pose_columns(PLAIN) == [] and pose_columns(TOLD) == [0, 1]


@pytest.mark.parametrize(
    "changed",
    [
        ActionClass(11, "sit down"),  # a pose of another name
        ActionClass(80, "watch"),
        ActionClass(81, "swim far"),  # more than AVA has
    ],
)
def test_what_is_not_avas(changed: ActionClass) -> None:
    assert is_ava(AVA)
    classes = {item.id: item for item in AVA.classes} | {changed.id: changed}
    other = LabelMap(tuple(classes[number] for number in sorted(classes)))
    assert not is_ava(other) and with_groups(other) is other


def test_the_groups_of_avas_lists(shared: Path) -> None:
    folder = shared / "data" / "ava_files"
    full = read_label_map(folder / "ava_action_list_v2.2.pbtxt")
    evaluated = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    assert evaluated.groups() == {} and is_ava(full) and is_ava(evaluated)
    known = with_groups(evaluated)
    assert known.groups() == with_groups(evaluated, full).groups()
    assert [len(ids) for ids in known.groups().values()] == [13, 32, 15]
    assert with_groups(full) is full


def test_another_map_tells_what_it_knows(shared: Path) -> None:
    evaluated = read_label_map(
        shared / "data" / "ava_files" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
    )
    assert with_groups(evaluated, evaluated).groups() == with_groups(evaluated).groups()
    renamed = LabelMap(tuple(ActionClass(item.id, f"my {item.name}") for item in evaluated.classes))
    assert with_groups(renamed, evaluated).groups() == with_groups(evaluated).groups()
    assert with_groups(evaluated, PLAIN).groups() == with_groups(evaluated).groups(), "PLAIN tells none"
    assert with_groups(evaluated, TOLD).groups() == {"pose": [5], "person": [9]}, (
        "TOLD tells some, which count"
    )


def test_the_label_map_of_a_config(tmp_path: Path) -> None:
    write_label_map(PLAIN, tmp_path / "map")
    splits = {split: {"labels": "l"} for split in ("train", "val")}
    data = {"source": "files", "videos": "v", "label_map": str(tmp_path / "map"), **splits}
    config = parse_config({"data": {**data, "class_groups": {"pose": ["walk", 2]}}})
    assert pose_columns(read_classes(config)) == [1, 4]
    assert read_classes(parse_config({"data": data})) == PLAIN


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, acar.data.class_groups; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
