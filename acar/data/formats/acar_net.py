"""ACAR-Net's annotation pickles: (records, classes). Never imports torch.

The published files lie where they cannot be had, so the structure is read off the code that loads them
(`datasets/ava.py`, `models/necks/basic.py`, `main.py`) and off programs of its users; docs/data.md says what is
assumed.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.findings import Findings
from acar.data.formats.annotations import (
    COLUMNS,
    Annotations,
    box_fits,
    by_key_frame,
    key_frames_of,
    malformed,
    number_of,
    numbers_of,
    rows_of,
    shown,
    text_of,
    time_of,
    whole_number_of,
)
from acar.data.formats.frame_names import FrameNames
from acar.data.label_map import ActionClass, KnownClasses, LabelMap
from acar.data.plain_pickle import load_plain_pickle
from acar.errors import UserError
from acar.files import write_bytes_atomic

CLIP_S = 3.0  # length of a record's frames, around its key frame
MOST_CLASSES = 10_000


def read_acar_net(path: Path, found: Findings | None = None) -> Annotations:
    """Read (records, classes): a row a person and class; persons without a class have a row, too.

    `label` counts from 0 in the list of classes, whose `id` is the class. The fields that say where the frames
    lie (start_frame, n_frames, mid_frame, format_str, frame_rate) are left, and so are scores: there are none.

    Raises:
        UserError: no such pickle, or (if `found` is None) a malformed record; names record, video, second and person.
    """
    value = load_plain_pickle(path)
    if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[0], list | tuple):
        raise UserError(
            f"{path}: expected (records, classes) as in ACAR-Net's annotation pickles, found {shown.repr(value)}"
        )
    label_map, ids = _classes(path, value[1])
    rows: list[tuple[Any, ...]] = []
    nobody: list[tuple[str, float]] = []
    for number, record in enumerate(value[0]):
        rows += _record_rows(path, number, record, ids, nobody, found)
    return Annotations(rows_of(rows), label_map, nobody=key_frames_of(nobody))


def write_acar_net(annotations: Annotations, path: Path, frames: FrameNames) -> None:
    """Write (records, classes): one record a key frame, sorted.

    Args:
        annotations: rows whose actions are in their label map; without one only if there are no actions.
        path: the file.
        frames: how the extracted images are called, for the fields that say where a record's frames lie.

    Raises:
        UserError: a key frame before the first image.
    """
    classes = annotations.label_map.classes if annotations.label_map is not None else ()
    column = {item.id: place for place, item in enumerate(classes)}
    records = [
        _record(path, video, time_s, rows, column, frames)
        for video, time_s, rows in by_key_frame(annotations.rows[COLUMNS])
    ]
    content = records, [{"name": item.name, "id": item.id} for item in classes]
    write_bytes_atomic(path, pickle.dumps(content, protocol=4))


def _classes(path: Path, listed: Any) -> tuple[LabelMap | None, list[int]]:
    """The label map and the class id of each place; None for an empty list."""
    if not isinstance(listed, list | tuple) or len(listed) > MOST_CLASSES:
        raise UserError(f"{path}, classes: expected a list of {{'name', 'id'}}, found {shown.repr(listed)}")
    known = KnownClasses()
    for place, item in enumerate(listed):
        number = whole_number_of(item.get("id")) if isinstance(item, dict) else None
        name = item.get("name") if isinstance(item, dict) else None
        if number is None or not isinstance(name, str):
            raise UserError(
                f"{path}, class {place}: {shown.repr(item)}; expected {{'name': text, 'id': 1, 2, ...}}"
            )
        problem = known.add(ActionClass(number, name))
        if problem is not None:
            raise UserError(f"{path}, class {place}: {shown.repr(item)}: {problem}")
    return known.label_map() if known.by_id else None, list(known.by_id)


def _record_rows(
    path: Path,
    number: int,
    record: Any,
    ids: list[int],
    nobody: list[tuple[str, float]],
    found: Findings | None,
) -> Iterator[tuple[Any, ...]]:
    """The rows of a record; one without persons is added to `nobody`."""
    place = f"record {number}"
    if not isinstance(record, dict):
        malformed(path, place, f"{shown.repr(record)}; expected a dict with video, time and labels", found)
        return
    video, time_s = text_of(record.get("video")), time_of(record.get("time"))
    actors = record.get("labels")
    if video is None or time_s is None or not isinstance(actors, list | tuple):
        absent = "video" if video is None else "time" if time_s is None else "labels"
        told = f"{absent} is {shown.repr(record.get(absent))}; expected text, seconds and a list of persons"
        malformed(path, place, told, found)
        return
    if not actors:
        nobody.append((video, time_s))
    for actor, label in enumerate(actors):
        where = f"{place} (video {shown.repr(video)}, second {time_s:g}), person {actor}"
        for box, action, person in _actor(path, where, label, ids, found):
            yield video, time_s, *box, action, person, None


def _actor(
    path: Path, place: str, label: Any, ids: list[int], found: Findings | None
) -> list[tuple[list[float], int | None, str]]:
    """(box, action id, person id) of each class of a person; one with None if there is no class."""
    box = numbers_of(label.get("bounding_box"), 4) if isinstance(label, dict) else None
    if box is None or len(box) != 4:
        malformed(path, place, f"{shown.repr(label)}; expected bounding_box, 4 numbers", found)
        return []
    places = _whole_numbers(label.get("label", []))
    persons = _persons(label.get("person_id", []))
    if places is None or persons is None:
        name = "label" if places is None else "person_id"
        malformed(
            path, place, f"{name} is {shown.repr(label.get(name))}; expected a list of whole numbers", found
        )
        return []
    beyond = [k for k in places if not 0 <= k < len(ids)]
    if beyond:
        told = f"label {beyond[0]}; expected 0 to {len(ids) - 1}, places in the file's list of {len(ids)} classes"
        malformed(path, place, told, found)
        return []
    if not box_fits(path, place, box, found):
        return []
    first = persons[0] if persons else ""
    if len(persons) not in (1, len(places)) and len(set(persons)) > 1:
        expected = "expected an id for each label, one for all, or none"
        malformed(path, place, f"person_id has {len(persons)} ids, label {len(places)}; {expected}", found)
        return []
    own = persons if len(persons) == len(places) else [first] * len(places)
    return [(box, ids[k], person) for k, person in zip(places, own, strict=True)] or [(box, None, first)]


def _whole_numbers(value: Any) -> list[int] | None:
    if number_of(value) is not None:
        value = [value]
    listed = numbers_of(value, MOST_CLASSES)
    if listed is None:
        return None
    numbers = [whole_number_of(number) for number in listed]
    return None if None in numbers else [number for number in numbers if number is not None]


def _persons(value: Any) -> list[str] | None:
    if isinstance(value, np.ndarray) and value.ndim == 1 and len(value) <= MOST_CLASSES:
        value = value.tolist()
    if value is None:
        return []
    listed = value if isinstance(value, list | tuple) else [value]
    if len(listed) > MOST_CLASSES:
        return None
    persons = [item if isinstance(item, str) and not item else text_of(item) for item in listed]
    return None if None in persons else [str(person) for person in persons]


def _record(
    path: Path,
    video: str,
    time_s: float,
    rows: list[tuple[Any, ...]],
    column: dict[int, int],
    frames: FrameNames,
) -> dict[str, Any]:
    """One key frame; its rows in the order of `COLUMNS`."""
    middle = frames.number_to_write(path, video, time_s)
    start = max(1, middle - round(CLIP_S * frames.fps / 2))
    actors: dict[tuple[tuple[float, ...], str], list[int]] = {}
    for _, _, *box, action, person, _ in rows:
        places = actors.setdefault((tuple(box), person), [])
        if not pd.isna(action):
            places.append(column[int(action)])
    labels = [
        {
            "bounding_box": list(box),
            "label": places,
            "person_id": [_person(person)] * max(len(places), 1) if person else [],
        }
        for (box, person), places in actors.items()
    ]
    return {
        "video": video,
        "time": int(time_s) if float(time_s).is_integer() else float(time_s),
        "start_frame": start,
        "n_frames": middle + round(CLIP_S * frames.fps / 2) - start + 1,
        "mid_frame": middle,
        "format_str": frames.pattern,
        "frame_rate": frames.fps,
        "labels": labels,
    }


def _person(actor_id: str) -> int | str:
    """As a number where that says the same."""
    return int(actor_id) if re.fullmatch(r"0|[1-9][0-9]{0,14}", actor_id) else actor_id
