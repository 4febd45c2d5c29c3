"""Label maps: the classes of a data set, in text-protobuf or as a plain list. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from acar.data.input_files import read_text
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


class KnownClasses:
    """Classes as they come, held against those before. Ids tell them apart; names may be alike.

    Attributes:
        by_id: those that were taken, in the order in which they came.
    """

    def __init__(self) -> None:
        self.by_id: dict[int, ActionClass] = {}

    def add(self, item: ActionClass) -> str | None:
        """Take a class; or what is wrong with it, which is then not taken."""
        if item.id in self.by_id:
            return f"{item.name!r} has the id {item.id} of {self.by_id[item.id].name!r}; ids must be unique"
        if not 1 <= item.id <= LARGEST_ID:
            return f"class id of {item.name!r} is {item.id}; expected 1 to {LARGEST_ID}"
        if not item.name.strip():
            return f"the name of the class {item.id} is empty; give it one"
        if _NO_TEXT.search(item.name):
            return f"the name {item.name!r} holds a byte order mark or half a character; remove it"
        self.by_id[item.id] = item
        return None

    def label_map(self) -> LabelMap:
        """Those that were taken."""
        return LabelMap(tuple(sorted(self.by_id.values(), key=lambda item: item.id)))


LARGEST_ID = 999_999_999
_FIELDS = ("name", "id", "label_id", "group", "label_type")  # whatever else a block has is not read
_NO_TEXT = re.compile("[\ufeff\ud800-\udfff]")  # what no file of text holds
EXAMPLE = 'item { name: "stand" id: 1 }'

_TOKEN = re.compile(
    r"""(?P<skip>[\s,;]+|\#[^\n]*)
      | (?P<open>\w+\s*:?\s*\{)
      | (?P<close>\})
      | (?P<key>\w+)\s*:\s*(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s{}"',;\#]+)""",
    re.VERBOSE,
)


Dialect = Literal["item", "label", "list"]
_LIST_LINE = re.compile(r"\s*(\S+?)\s*:\s*(.*?)\s*")


def read_label_map(path: str | Path) -> LabelMap:
    """Read a label map, in text-protobuf or as lines `id: name`, told by content.

    Blocks of any name hold `name`, `id` or `label_id`, and maybe `group` or AVA's `label_type`
    (PERSON_MOVEMENT -> pose, OBJECT_MANIPULATION -> object, PERSON_INTERACTION -> person; others as written).
    A plain list has no groups; empty lines and lines that begin with `#` are skipped.

    Raises:
        UserError: no such file, neither of the two, a class without a name or a whole positive id, a field, an id
            or a name twice, or no class at all.
    """
    path = Path(path)
    text = read_text(path)
    entries = _list_entries(path, text) if is_plain_list(text) else _block_entries(path, text)
    known = KnownClasses()
    for line, item in entries:
        problem = known.add(item)
        if problem is not None:
            raise UserError(f"{path}, line {line}: {problem}")
    if not known.by_id:
        raise UserError(
            f"{path}: no class found; expected blocks such as {EXAMPLE}, or lines such as 1: stand"
        )
    return known.label_map()


def write_label_map(label_map: LabelMap, path: str | Path, dialect: Dialect = "item") -> None:
    """Write `label_map` in a form that `read_label_map` reads.

    Args:
        label_map: the classes; a list holds no groups, and no name with a line break.
        path: the file.
        dialect: `item { name id group }`, AVA's own `label { name label_id label_type }`, or lines `id: name`.

    Raises:
        UserError: classes that `read_label_map` refuses, or a name that the dialect cannot hold.
    """
    write_text_atomic(path, label_map_text(label_map, path, dialect))


def label_map_text(label_map: LabelMap, path: str | Path, dialect: Dialect = "item") -> str:
    """What `write_label_map` writes; `path` is for messages."""
    known = KnownClasses()
    problems = [problem for item in label_map.classes if (problem := known.add(item)) is not None]
    if problems:
        raise UserError(f"{path}: not written: {problems[0]}")
    if dialect == "list":
        for item in label_map.classes:
            if item.name != item.name.strip() or len(item.name.splitlines()) != 1:
                raise UserError(
                    f"{path}: a plain list cannot hold the name {item.name!r}; expected one line of text "
                    "without blanks around it; write text-protobuf instead"
                )
        return "".join(f"{item.id}: {item.name}\n" for item in label_map.classes)
    block, number = ("item", "id") if dialect == "item" else ("label", "label_id")
    lines = []
    for item in label_map.classes:
        group = "" if item.group is None else _group_line(item.group, dialect)
        lines.append(f"{block} {{\n  name: {_quoted(item.name)}\n  {number}: {item.id}\n{group}}}\n")
    return "".join(lines)


def is_plain_list(text: str) -> bool:
    """Whether a label map is lines `id: name`: its first line with anything in it begins with a digit."""
    lines = (line.strip() for line in text.splitlines())
    return next((line[0].isdigit() for line in lines if line and line[0] != "#"), False)


def _group_line(group: str, dialect: Dialect) -> str:
    type_of_group = {ours: theirs for theirs, ours in GROUP_OF_LABEL_TYPE.items()}
    if dialect == "label" and group in type_of_group:
        return f"  label_type: {type_of_group[group]}\n"
    return f"  group: {_quoted(group)}\n"


def _list_entries(path: Path, text: str) -> Iterator[tuple[int, ActionClass]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip() or content.lstrip().startswith("#"):
            continue
        match = _LIST_LINE.fullmatch(content)
        if match is None or not match[2]:
            raise UserError(f"{path}, line {line}: {content!r}; expected a line such as 1: stand")
        yield line, ActionClass(_class_id(path, line, match[2], match[1]), match[2])


def _block_entries(path: Path, text: str) -> Iterator[tuple[int, ActionClass]]:
    for line, fields in _blocks(path, text):
        yield line, _action_class(path, line, fields)


def _blocks(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line of the opening brace and the fields of each `{ ... }` block."""
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
            key = match["key"]
            if key in fields and key in _FIELDS:
                raise UserError(
                    f"{path}, line {line}: {key} {fields[key]!r} is given again, as {match['value']}; expected each "
                    "field once a block; remove one, or close the block before the next class"
                )
            fields[key] = _unquoted(match["value"])
        elif kind == "close" and fields is not None:
            yield start, fields
            fields = None
        place = match.end()
    if fields is not None:
        raise UserError(f"{path}, line {start}: block is not closed; add `}}`")


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in text) + '"'


def _unquoted(value: str) -> str:
    if value[0] not in "\"'":
        return value
    return re.sub(r"\\(.)", lambda match: _UNESCAPED.get(match[1], match[1]), value[1:-1])


def _class_id(path: Path, line: int, name: str, number: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", number):
        raise UserError(f"{path}, line {line}: class id of {name!r} is {number!r}; expected 1, 2, ...")
    return int(number)


def _action_class(path: Path, line: int, fields: dict[str, str]) -> ActionClass:
    name, number = fields.get("name"), fields.get("id", fields.get("label_id"))
    if number is not None and fields.get("label_id", number) != number:
        raise UserError(
            f"{path}, line {line}: block has the id {number} and the label_id {fields['label_id']}; expected one of "
            "them"
        )
    if name is None or number is None:
        missing = "name" if name is None else "id (or label_id)"
        raise UserError(f"{path}, line {line}: block has no {missing}; it has {sorted(fields)}")
    kind = fields.get("label_type")
    group = fields.get("group") or (GROUP_OF_LABEL_TYPE.get(kind, kind) if kind else None)
    return ActionClass(_class_id(path, line, name, number), name, group)
