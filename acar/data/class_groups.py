"""Which classes belong together: the exclusive ones, and those that figures are averaged over. Never imports torch.

An actor has exactly one class of the group `pose`: one softmax over them, a sigmoid for each other class (as in AVA,
paper section 4.1). All groups have a mAP of their own.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from acar.config import Config
from acar.data.label_map import ActionClass, LabelMap, read_label_map
from acar.data.sources import label_map_path
from acar.errors import UserError

KEY = "data.class_groups"
POSE = "pose"
NEAREST = 3
"""So many classes are offered in the place of an unknown one."""

GroupSource = Literal["config", "label map", "AVA's", "none"]

_AVA_POSES = (
    "bend/bow (at the waist)", "crawl", "crouch/kneel", "dance", "fall down", "get up", "jump/leap", "lie/sleep",
    "martial art", "run/jog", "sit", "stand", "swim", "walk",
)  # fmt: skip
"""The classes 1 to 14 of AVA's list; the released code's softmax is over those of them that are evaluated."""
_LAST_OF_GROUP = {POSE: len(_AVA_POSES), "object": 63, "person": 80}
"""By id, in the order of AVA's list (its PERSON_MOVEMENT, OBJECT_MANIPULATION and PERSON_INTERACTION)."""
_KNOWN_BY = {12: "stand", 17: "carry/hold (an object)", 80: "watch (a person)"}
"""Classes that every list of AVA's holds under these ids."""


@dataclass(frozen=True)
class GroupedClasses:
    """A data set's classes.

    Attributes:
        label_map: with the groups that count.
        source: what they come from; `none` where neither config nor label map names any and the list is not AVA's.
    """

    label_map: LabelMap
    source: GroupSource


def read_classes(config: Config) -> LabelMap:
    """The label map of a config, its classes in the groups that count (`data.class_groups`).

    Raises:
        UserError: as `acar.data.label_map.read_label_map` and `grouped`.
    """
    path = label_map_path(config)
    return grouped(read_label_map(path), config.data.class_groups, path).label_map


def pose_columns(label_map: LabelMap) -> list[int]:
    """Columns of the exclusive (softmax) classes: those of the group `pose`, ascending; maybe none."""
    return [label_map.index_of[number] for number in label_map.groups().get(POSE, [])]


def grouped(
    label_map: LabelMap, groups: Mapping[str, Sequence[int | str]] | None, path: Path
) -> GroupedClasses:
    """The classes in the groups that count.

    Args:
        label_map: as its file has it.
        groups: names or ids of each group's classes, in place of all groups of the map; None: those of the map, or
            AVA's if the map has none and is AVA's.
        path: the map's file, for messages.

    Raises:
        UserError: a class that is not in the map, whose name several have, or that is named twice.
    """
    if groups is not None:
        found = _groups_by_id(label_map, groups, path)
        return GroupedClasses(_with(label_map, found), "config")
    if label_map.groups():
        return GroupedClasses(label_map, "label map")
    return GroupedClasses(with_groups(label_map), "AVA's" if is_ava(label_map) else "none")


def with_groups(label_map: LabelMap, other: LabelMap | None = None) -> LabelMap:
    """The label map with its classes' groups.

    Args:
        label_map: its own groups stay.
        other: a map that tells the groups by class id, e.g. AVA's full list, whose own are known. Where it tells none
            of these classes' groups, or is None, a map without any group gets AVA's groups if it is AVA's.
    """
    if label_map.groups():
        return label_map
    if other is not None:
        told = {item.id: item.group for item in with_groups(other).classes if item.group is not None}
        if not told.keys().isdisjoint(label_map.ids):
            return _with(label_map, told)
    return _with(label_map, {n: ava_group(n) for n in label_map.ids}) if is_ava(label_map) else label_map


def is_ava(label_map: LabelMap) -> bool:
    """Whether it is one of AVA's lists, by ids and names: all 80 classes, the 60 evaluated ones or others of them."""
    names = {item.id: item.name for item in label_map.classes}
    poses = dict(enumerate(_AVA_POSES, start=1))
    return (
        max(names) <= _LAST_OF_GROUP["person"]
        and all(names.get(number) == name for number, name in _KNOWN_BY.items())
        and all(names.get(number, name) == name for number, name in poses.items())
    )


def ava_group(class_id: int) -> str:
    """Group of one of AVA's 80 classes."""
    return next(group for group, last in _LAST_OF_GROUP.items() if class_id <= last)


def _with(label_map: LabelMap, groups: Mapping[int, str]) -> LabelMap:
    """The classes in exactly these groups."""
    return LabelMap(tuple(replace(item, group=groups.get(item.id)) for item in label_map.classes))


def _groups_by_id(
    label_map: LabelMap, groups: Mapping[str, Sequence[int | str]], path: Path
) -> dict[int, str]:
    """The group of each class that is in one."""
    found: dict[int, str] = {}
    problems: list[str] = []
    for group, wanted in groups.items():
        for entry in wanted:
            matches = [item for item in label_map.classes if entry in (item.id, item.name)]
            if len(matches) != 1:
                said = _unknown(entry, label_map, path) if not matches else _ambiguous(entry, matches, path)
                problems.append(f"{KEY}.{group}: {said}")
            elif matches[0].id in found:
                problems.append(f"{KEY}.{group}: {_again(matches[0], group, found[matches[0].id])}")
            else:
                found[matches[0].id] = group
    if problems:
        raise UserError("\n  ".join(problems))
    return found


def _again(item: ActionClass, group: str, before: str) -> str:
    if group == before:
        return f"the class {_shown(item)} is named twice; name it once"
    return f"the class {_shown(item)} is in the group `{before}` already; a class has one group: remove it from one"


def _ambiguous(entry: int | str, matches: Sequence[ActionClass], path: Path) -> str:
    ids = " and ".join(str(item.id) for item in matches)
    return f"{entry!r} is the name of the classes {ids} of {path}; write the id that is meant"


def _unknown(entry: int | str, label_map: LabelMap, path: Path) -> str:
    """What is offered in the place of a name or id that the map does not have."""
    if isinstance(entry, int):
        near = sorted(label_map.classes, key=lambda item: abs(item.id - entry))[:NEAREST]
        return f"no class of {path} has the id {entry}; the nearest are {', '.join(map(_shown, near))}"
    if entry.isdecimal() and int(entry) in label_map.index_of:
        return f"no class of {path} is called {entry!r}; write its id {int(entry)} without quotes"
    names = _nearest(entry, label_map.names)
    if names:
        return f"no class of {path} is called {entry!r}; the nearest are {', '.join(map(repr, names))}"
    few = ", ".join(map(_shown, label_map.classes[:NEAREST])) + (", ..." if len(label_map) > NEAREST else "")
    return f"no class of {path} is called {entry!r}, or nearly so; it has {few}"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Those that hold the name, then those that are written alike (`bow` is far from `bend/bow (at the waist)`)."""
    folded = {other.casefold(): other for other in known}
    holding = [other for other in folded if name.casefold() in other]
    alike = difflib.get_close_matches(name.casefold(), folded, n=NEAREST)
    return [folded[other] for other in dict.fromkeys([*holding, *alike])][:NEAREST]


def _shown(item: ActionClass) -> str:
    return f"{item.id} ({item.name})"
