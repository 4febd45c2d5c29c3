"""What is wrong with a config, in words: the key, the value, what is allowed, the nearest name that is known."""

from __future__ import annotations

import difflib
import re
from typing import Any

import yaml
from pydantic import BaseModel

_EXAMPLE = "`class_groups: {pose: [stand, sit], object: [hold]}`"


def explain(item: Any, root: type[BaseModel]) -> str:
    """One problem of pydantic's `ValidationError.errors()`, of a value for `root`, as one line."""
    where = [str(part) for part in item["loc"] if part != "[key]"]
    key, kind, found = ".".join(where) or "config", item["type"], item["input"]
    if kind == "extra_forbidden":
        if key == "data.pose_classes":
            return f"{key}: {_instead_of_poses(found)}"
        known = _known_keys(where[:-1], root)
        return f"{key}: unknown key; {_nearest(where[-1], known) or 'known keys: ' + ', '.join(known)}"
    if kind == "value_error":  # of our own checks, which name the values
        return f"{key}: {item['ctx']['error']}"
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(_known_keys(where, root)[:4])
        return f"{key}: expected a section with keys such as {keys}; found {found!r}"
    choices = re.findall(r"'([^']*)'", item["ctx"]["expected"]) if kind == "literal_error" else []
    hint = _nearest(str(found), choices)
    expected = item["msg"].replace("Input should be", "expected")
    return f"{key}: {expected}; found {found!r}" + (f"; {hint}" if hint else "")


def checked_groups(value: Any) -> Any:
    """`data.class_groups` as it is, if it is null or lists of names and ids by group.

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
                raise ValueError(f"{group}: expected names and ids; found {entry!r}; quote such a name")
    return value


def _instead_of_poses(old: Any) -> str:
    """What to write for the value of the former key `data.pose_classes`."""
    says = "replaced by `data.class_groups`, which names all groups of classes; "
    if old is None:
        return says + "remove the line: `class_groups: null` is the default"
    fix = f"write `class_groups: {_groups(old)}`"
    if not old:
        return says + f"{fix} for a sigmoid each"
    return says + f"{fix}, or nothing where the label map names its groups or is AVA's"


def _groups(poses: Any) -> str:
    """The mapping with these exclusive classes, as YAML in one line."""
    return yaml.safe_dump({"pose": poses}, default_flow_style=True, width=10**6, allow_unicode=True).strip()


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""


def _known_keys(where: list[str], root: type[BaseModel]) -> list[str]:
    section: Any = root
    for part in where:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
