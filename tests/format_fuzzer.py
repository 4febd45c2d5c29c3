"""Damages annotation files in bytes, rows and types, and reads them: only a UserError may come out."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acar.data.findings import Findings
from acar.data.formats.annotations import Annotations, rows_of
from acar.data.formats.registry import DIALECTS, FORMATS, Settings, read_annotations
from acar.data.label_map import ActionClass, LabelMap, read_label_map, write_label_map
from acar.data.tables import read_excluded, write_excluded
from acar.errors import UserError

CLASSES = LabelMap(tuple(ActionClass(i, f"class {i}", g) for i, g in ((1, "pose"), (2, None), (5, "x"))))
CELLS = [
    "", " ", "-", "0", "-1", "1e999", "nan", "inf", "0x10", "902,", '"', "'", "\x00", "٣", "²", "9" * 400, "1_000",
    "\ufeff", "日本", "true", "null", "0.5.5", "1e-400", ",,,,,,,,,", "\r", "{", "}", ":", "#", "=1", "-0", "+7",
]  # fmt: skip
VALUES: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: 0, lambda: -1, lambda: 10**400, lambda: float("nan"), lambda: float("inf"),
    lambda: 1e308, lambda: "", lambda: "x" * 300, lambda: "v,0902", lambda: "\ud800", lambda: "a\nb", lambda: [],
    lambda: {}, lambda: [[]], lambda: [1, "2", None], lambda: {"a": {"b": []}}, lambda: [0.0] * 5, lambda: "0902",
]  # fmt: skip
PICKLED: list[Callable[[], Any]] = [
    *VALUES, lambda: (), lambda: b"bytes", lambda: {1, 2}, lambda: 1j, lambda: np.zeros((0, 5)), lambda: np.zeros(3),
    lambda: np.zeros((2, 3, 4)), lambda: np.full((1, 5), np.nan), lambda: np.array(["a"]), lambda: np.float32(0.5),
    lambda: np.array(0.5), lambda: np.zeros((1, 5), complex), lambda: np.array([None]), lambda: np.ones((1, 5), bool),
    lambda: np.int64(3), lambda: range(3), lambda: print, lambda: io.BytesIO, lambda: np.zeros((4, 0)),
]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A format under test.

    Attributes:
        valid: the bytes of a good file.
        kind: `text`, `pickle` or `json`: what kinds of damage make sense.
        read: reads a file, raising at the first problem.
        collect: reads a file, collecting problems; None: the format does not.
    """

    valid: bytes
    kind: str
    read: Callable[[Path], Any]
    collect: Callable[[Path, Findings], Any] | None


def subjects(folder: Path) -> dict[str, Subject]:
    """Every format with a valid file, written by our own writers."""
    found = {}
    rows = rows_of([
        ("v-1", 902, 0.1, 0.2, 0.3, 0.4, 1, "0", 0.5), ("v-1", 902, 0.1, 0.2, 0.3, 0.4, 5, "0", 0.5),
        ("v-1", 903.5, 0.0, 0.25, 1.0, 0.9, None, "person 7", 0.25), ("w,2", 1, 0.5, 0.5, 0.75, 1, 2, "", 1.0),
    ])  # fmt: skip
    kinds = {"mmaction2": "pickle", "acar-net": "pickle", "coco": "json"}
    for name, item in FORMATS.items():
        item.write(Annotations(rows, CLASSES), folder / name, Settings())
        found[name] = Subject(
            (folder / name).read_bytes(),
            kinds.get(name, "text"),
            lambda path, name=name: read_annotations(path, named=name),
            lambda path, problems, name=name: read_annotations(path, named=name, found=problems),
        )
    for name, dialect in DIALECTS.items():
        write_label_map(CLASSES, folder / name, dialect)
        found[name] = Subject((folder / name).read_bytes(), "text", read_label_map, None)
    write_excluded({("v-1", 902.0), ("w,2", 903.5)}, folder / "exclusions")
    found["exclusions"] = Subject(
        (folder / "exclusions").read_bytes(), "text", read_excluded,
        lambda path, problems: read_excluded(path, found=problems),
    )  # fmt: skip
    return found


def damaged(subject: Subject, dice: random.Random) -> bytes:
    """The valid file with one to three pieces of damage."""
    content = subject.valid
    if subject.kind != "text" and dice.random() < 0.6:
        content = _other_values(subject, dice)
        if dice.random() < 0.7:
            return content
    for _ in range(dice.randint(1, 3)):
        is_text = subject.kind == "text" and dice.random() < 0.6
        content = _other_rows(content, dice) if is_text else _other_bytes(content, dice)
    return content


def _other_bytes(content: bytes, dice: random.Random) -> bytes:
    data = bytearray(content)
    at = dice.randrange(len(data) + 1)
    match dice.randrange(6):
        case 0 if at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            data[at:at] = dice.randbytes(dice.randint(1, 8))
        case 2:
            del data[at : at + dice.randint(1, 16)]
        case 3:
            del data[at:]
        case 4:
            data[at:at] = data[at : at + dice.randint(1, 64)]
        case _:
            data[at : at + 1] = dice.choice(CELLS).encode()
    return bytes(data)


def _other_rows(content: bytes, dice: random.Random) -> bytes:
    lines = content.decode("utf-8", "replace").split("\n")
    at = dice.randrange(len(lines))
    match dice.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[dice.randrange(len(lines))])
        case 2:
            dice.shuffle(lines)
        case _:
            mark = dice.choice([",", ":", " "])
            cells = lines[at].split(mark)
            place = dice.randrange(len(cells))
            cells[place : place + dice.randint(0, 1)] = [dice.choice(CELLS)]
            lines[at] = mark.join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _other_values(subject: Subject, dice: random.Random) -> bytes:
    """Some values at any depth replaced by values of other types."""
    is_json = subject.kind == "json"
    value = json.loads(subject.valid) if is_json else pickle.loads(subject.valid)
    if not is_json and isinstance(value, tuple):
        value = list(value)
    for _ in range(dice.randint(1, 2)):
        value = _replaced(copy.deepcopy(value), dice.choice(VALUES if is_json else PICKLED)(), dice)
    if is_json:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    try:
        return pickle.dumps(value, protocol=dice.randint(0, 5))
    except UnicodeEncodeError:  # protocols that cannot hold a lone surrogate
        return pickle.dumps(value, protocol=0)


def _replaced(value: Any, other: Any, dice: random.Random) -> Any:
    inside = isinstance(value, dict | list) and len(value) > 0 and dice.random() > 0.1
    if not inside:
        return other
    key = dice.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(value, dict) and dice.random() < 0.15:
        moved = value.pop(key)
        if isinstance(other, str | int | float | type(None)) and dice.random() < 0.7:
            value[other] = moved
        return value
    value[key] = _replaced(value[key], other, dice)
    return value


def fuzz(folder: Path, name: str, subject: Subject, count: int, seed: int) -> Counter[str]:
    """Read `count` damaged files, both ways, and count what came of it.

    Returns:
        how many were `read` and how many `refused`; a refusal that does not name the file counts as `nameless`.

    Raises:
        AssertionError: anything but a UserError came out; the file is left as `trace-NAME`.
    """
    dice, outcomes = random.Random(f"{name} {seed}"), Counter[str]()
    path = folder / f"fuzzed-{name}"
    for number in range(count):
        path.write_bytes(damaged(subject, dice))
        try:
            outcomes[_outcome(subject, path)] += 1
        except Exception as error:
            path.rename(folder / f"trace-{name}")
            raise AssertionError(
                f"{name}, seed {seed}, file {number} ({folder / f'trace-{name}'}): {type(error).__name__}: {error}"
            ) from error
    return outcomes


def _outcome(subject: Subject, path: Path) -> str:
    try:
        subject.read(path)
        outcome = "read"
    except UserError as error:
        outcome = "refused" if path.name in str(error) else "nameless"
    if subject.collect is not None:
        problems = Findings()
        try:
            subject.collect(path, problems)
            # One way must not see what the other does not.
            assert (len(problems) == 0) == (outcome == "read"), (outcome, list(problems))
        except UserError:
            assert outcome != "read"
    try:
        read_annotations(path)  # told by content
    except UserError as error:
        outcome = outcome if path.name in str(error) else "nameless"
    return outcome
