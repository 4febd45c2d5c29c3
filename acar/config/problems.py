"""What is wrong with a config, in words: the key, the value, what is allowed, the nearest name that is known."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel

from acar.config.groups import instead_of_poses


def explain(item: Any, root: type[BaseModel]) -> str:
    """One problem of pydantic's `ValidationError.errors()`, of a value for `root`, as one line."""
    where = [str(part) for part in item["loc"] if part != "[key]"]
    key, kind, found = ".".join(where) or "config", item["type"], item["input"]
    if kind == "extra_forbidden":
        if key == "data.pose_classes":
            return f"{key}: {instead_of_poses(found)}"
        known = _known_keys(where[:-1], root)
        return f"{key}: unknown key; {_nearest(where[-1], known) or 'known keys: ' + ', '.join(known)}"
    if kind == "value_error":  # of our own checks, which name the values
        return f"{key}: {item['ctx']['error']}"
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(_known_keys(where, root)[:4])
        return f"{key}: expected a section with keys such as {keys}; found {found!r}"
    if kind == "invalid_key":
        return f"{key}: a key is {found!r}; expected a word"
    if kind == "missing":
        return f"{'.'.join(where[:-1])}: {found!r} ends too early; expected as many values as config.yaml has there"
    if kind in ("list_type", "tuple_type"):
        return f"{key}: expected a list, such as [{found}]; found {found!r}"
    if kind == "too_short":
        return f"{key}: expected at least {item['ctx']['min_length']} in the list, or null; found {found!r}"
    choices = re.findall(r"'([^']*)'", item["ctx"]["expected"]) if kind == "literal_error" else []
    hint = _nearest(str(found), choices)
    expected = item["msg"].replace("Input should be", "expected")
    return f"{key}: {expected}; found {found!r}" + (f"; {hint}" if hint else "")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""


def _known_keys(where: list[str], root: type[BaseModel]) -> list[str]:
    section: Any = root
    for part in where:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
