"""Label maps: the classes of a data set, read from text-protobuf files. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from acar.errors import UserError
from acar.files import write_text_atomic

GROUP_OF_LABEL_TYPE = {
    "PERSON_MOVEMENT": "pose",
    "OBJECT_MANIPULATION": "object",
    "PERSON_INTERACTION": "person",
}
"""AVA's `label_type` in the words of the paper's section 4.1."""


@dataclass(frozen=True)
class ActionClass:
    """One class: `id` as in the csv files, `group` e.g. `pose` or None."""

    id: int
    name: str
    group: str | None = None


@dataclass(frozen=True)
class LabelMap:
    """The classes, sorted by id; a class's place in `classes` is its column in targets and scores."""

    classes: tuple[ActionClass, ...]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def ids(self) -> list[int]:
        """Class ids, by column."""
        return [item.id for item in self.classes]

    @property
    def names(self) -> list[str]:
        """Class names, by column."""
        return [item.name for item in self.classes]

    @cached_property
    def index_of(self) -> dict[int, int]:
        """Column of each class id."""
        return {item.id: column for column, item in enumerate(self.classes)}

    def groups(self) -> dict[str, list[int]]:
        """Class ids of each group, in order of appearance; classes without a group are in none."""
        groups: dict[str, list[int]] = {}
        for item in self.classes:
            if item.group is not None:
                groups.setdefault(item.group, []).append(item.id)
        return groups


EXAMPLE = 'item { name: "stand" id: 1 }'

_TOKEN = re.compile(
    r"""(?P<skip>[\s,;]+|\#[^\n]*)
      | (?P<open>\w+\s*:?\s*\{)
      | (?P<close>\})
      | (?P<key>\w+)\s*:\s*(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s{}"',;\#]+)""",
    re.VERBOSE,
)


def read_label_map(path: str | Path) -> LabelMap:
    """Read a label map in text-protobuf form.

    Blocks of any name hold `name`, `id` or `label_id`, and maybe `group` or AVA's `label_type`
    (PERSON_MOVEMENT -> pose, OBJECT_MANIPULATION -> object, PERSON_INTERACTION -> person; others as written).

    Raises:
        UserError: no such file, not text-protobuf, a block without a name or a whole positive id, an id
            twice, or no class at all.
    """
    path = Path(path)
    classes: list[ActionClass] = []
    for line, fields in _blocks(path):
        item = _action_class(path, line, fields)
        for other in classes:
            if item.id == other.id:
                raise UserError(f"{path}, line {line}: {item.name!r} has the id {item.id} of {other.name!r}; "
                                "ids must be unique")  # fmt: skip
        classes.append(item)
    if not classes:
        raise UserError(f"{path}: no class found; expected blocks such as: {EXAMPLE}")
    return LabelMap(tuple(sorted(classes, key=lambda item: item.id)))


def write_label_map(label_map: LabelMap, path: str | Path) -> None:
    """Write `label_map` in the form that `read_label_map` reads."""
    lines = []
    for item in label_map.classes:
        name = item.name.replace("\\", "\\\\").replace('"', '\\"')
        group = "" if item.group is None else f'  group: "{item.group}"\n'
        lines.append(f'item {{\n  name: "{name}"\n  id: {item.id}\n{group}}}\n')
    write_text_atomic(path, "".join(lines))


def _blocks(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line of the opening brace and the fields of each `{ ... }` block."""
    text = _read_text(path)
    place, start = 0, 0
    fields: dict[str, str] | None = None
    while place < len(text):
        match = _TOKEN.match(text, place)
        line = text.count("\n", 0, place) + 1
        kind = match.lastgroup if match else None
        nested = kind == "open" and fields is not None
        if match is None or nested or (kind in ("close", "value") and fields is None):
            found = text[place:].split("\n", 1)[0]
            raise UserError(f"{path}, line {line}: cannot read {found!r}; expected blocks such as: "
                            f"{EXAMPLE}")  # fmt: skip
        if kind == "open":
            start, fields = line, {}
        elif kind == "value" and fields is not None:
            fields[match["key"]] = _unquoted(match["value"])
        elif kind == "close" and fields is not None:
            yield start, fields
            fields = None
        place = match.end()
    if fields is not None:
        raise UserError(f"{path}, line {start}: block is not closed; add `}}`")


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] in "\"'" else value


def _action_class(path: Path, line: int, fields: dict[str, str]) -> ActionClass:
    name, number = fields.get("name"), fields.get("id", fields.get("label_id"))
    if name is None or number is None:
        missing = "name" if name is None else "id (or label_id)"
        raise UserError(f"{path}, line {line}: block has no {missing}; it has {sorted(fields)}")
    if not number.isdigit() or int(number) < 1:
        raise UserError(f"{path}, line {line}: class id of {name!r} is {number!r}; expected 1, 2, ...")
    kind = fields.get("label_type")
    group = fields.get("group") or (GROUP_OF_LABEL_TYPE.get(kind, kind) if kind else None)
    return ActionClass(int(number), name, group)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
