"""AVA's three groups of classes, for label maps that do not tell them (ActivityNet's list of 60 does not)."""

from __future__ import annotations

from dataclasses import replace

from acar.data.tables import LabelMap

_KNOWN_BY = {12: "stand", 17: "carry/hold (an object)", 80: "watch (a person)"}
"""Classes that every list of AVA's holds under these ids: what tells its maps from others."""
_LAST_OF_GROUP = {"pose": 14, "object": 63, "person": 80}
"""By id, in the order of AVA's list (its PERSON_MOVEMENT, OBJECT_MANIPULATION and PERSON_INTERACTION)."""


def with_groups(label_map: LabelMap, other: LabelMap | None = None) -> LabelMap:
    """The label map with its classes' groups.

    Args:
        label_map: its own groups stay.
        other: a map that tells the groups by class id, e.g. AVA's full list. Without it a map without any group gets
            AVA's groups if it is AVA's by ids and names.
    """
    if any(item.group is not None for item in label_map.classes):
        return label_map
    if other is not None:
        groups = {item.id: item.group for item in other.classes}
    else:
        names = {item.id: item.name for item in label_map.classes}
        if any(names.get(number) != name for number, name in _KNOWN_BY.items()):
            return label_map
        groups = {number: ava_group(number) for number in label_map.ids}
    return LabelMap(tuple(replace(item, group=groups.get(item.id)) for item in label_map.classes))


def ava_group(class_id: int) -> str:
    """Group of one of AVA's 80 classes."""
    return next(group for group, last in _LAST_OF_GROUP.items() if class_id <= last)
