"""How `data.class_groups` is written."""

from __future__ import annotations

from typing import Any

import yaml

_EXAMPLE = "`class_groups: {pose: [stand, sit], object: [hold]}`"


def checked_groups(value: Any) -> Any:
    """`data.class_groups` in one form, if it is null or lists of names and ids by group.

    A network does not depend on how classes are listed: each group's are in one order, and groups without
    any left out, but for `pose`, which is always there.

    Raises:
        ValueError: anything else; says how it is written.
    """
    if value is None:
        return value
    if not isinstance(value, dict):
        fix = f"; exclusive classes are `class_groups: {_groups(value)}`" if isinstance(value, list) else ""
        raise ValueError(f"expected a list of classes for each group, as {_EXAMPLE}; found {value!r}{fix}")
    for group, classes in value.items():
        if not isinstance(group, str) or not group.strip():
            raise ValueError(f"a group is called {group!r}; expected a word, as in {_EXAMPLE}")
        if group != "pose" and group.strip().lower() in ("pose", "poses"):
            raise ValueError(f"a group is called {group!r}; that of the exclusive classes is `pose`")
        if not isinstance(classes, list):
            raise ValueError(f"{group}: expected a list of classes, as in {_EXAMPLE}; found {classes!r}")
        for entry in classes:
            if isinstance(entry, bool) or not isinstance(entry, int | str):
                raise ValueError(f"{group}: expected names and ids; found {entry!r}; {_remedy(entry)}")
    listed = {group: sorted(classes, key=_place) for group, classes in value.items() if classes}
    return {"pose": [], **listed}


def _place(name_or_id: int | str) -> tuple[bool, int | str]:
    """Ids before names."""
    return isinstance(name_or_id, str), name_or_id


def _remedy(entry: Any) -> str:
    if isinstance(entry, list):
        return "one list a group, without lists in it"
    if isinstance(entry, float) and entry.is_integer():
        return f"an id is a whole number: {int(entry)}"
    return f"quote such a name: '{str(entry).lower() if isinstance(entry, bool) else entry}'"


def instead_of_poses(old: Any) -> str:
    """What to write for the value of the former key `data.pose_classes`."""
    says = "replaced by `data.class_groups`, which names all groups of classes; "
    if old is None:
        return says + "remove the line: `class_groups: null` is the default"
    old = [old] if isinstance(old, str) else old
    fix = f"write `class_groups: {_groups(old)}`"
    if not old:
        return says + f"{fix} for a sigmoid each"
    return says + f"{fix}, or nothing where the label map names its groups or is AVA's"


def _groups(poses: Any) -> str:
    """The mapping with these exclusive classes, as YAML in one line."""
    return yaml.safe_dump({"pose": poses}, default_flow_style=True, width=10**6, allow_unicode=True).strip()
