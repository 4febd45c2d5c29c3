"""COCO-json person boxes: images, annotations, categories. Never imports torch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from acar.data.csv_files import BOX_COLUMNS, BOX_SLOP, LATEST_S
from acar.data.findings import Findings
from acar.data.formats.annotations import (
    Annotations,
    box_fits,
    by_key_frame,
    is_late,
    key_frames_of,
    malformed,
    number_of,
    numbers_of,
    rows_of,
    shown,
    text_of,
    time_of,
)
from acar.data.formats.frame_names import FrameNames
from acar.data.input_files import check_input
from acar.errors import UserError
from acar.files import write_text_atomic

_VIDEO_KEYS = ("video", "movie", "video_name")
_TIME_KEYS = ("time_s", "timestamp", "time")
_NUMBERED = re.compile(r"(?P<video>.+?)/[^/]*?(?P<number>[0-9]{1,12})\.[A-Za-z]+")
PERSON = "person"
_ROUNDING = 1e-9  # of corners, which are computed from pixels
_LEAST_SIDE = 1e-12


def load_json(path: Path) -> Any:
    """The value of a json file.

    Raises:
        UserError: no such file, or no json; names line and column.
    """
    check_input(path)
    try:
        return json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not json: {error.msg}; fetch or write it again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not json that can be read ({str(error)[:80]})") from None


def read_coco(path: Path, found: Findings | None = None, frames: FrameNames | None = None) -> Annotations:
    """Read the person boxes of a COCO file, in fractions of the image's width and height.

    Args:
        path: json with `images`, `annotations` (bbox: x, y, width, height in pixels) and maybe `categories`.
        found: collects malformed entries; None: the first one is raised.
        frames: for images that state no video and time: seconds of numbered images `<video>/...000001.jpg`.

    Raises:
        UserError: no such file, or malformed; names the image or annotation.
    """
    value = load_json(path)
    if not isinstance(value, dict) or not all(
        isinstance(value.get(k), list) for k in ("images", "annotations")
    ):
        raise UserError(f"{path}: expected a COCO object with the lists `images` and `annotations`; a list of "
                        "results alone does not say which video and second an image is")  # fmt: skip
    images = _images(path, value["images"], frames, found)
    persons = _person_categories(path, value.get("categories"))
    rows: list[tuple[Any, ...]] = []
    left: dict[str, int] = {}
    peopled: set[Any] = set()
    for number, item in enumerate(value["annotations"]):
        place = f"annotation {number}"
        if not isinstance(item, dict):
            malformed(path, place, f"{shown.repr(item)}; expected an object with image_id and bbox", found)
            continue
        if _key(item.get("category_id", 1)) not in persons:
            left["of other categories"] = left.get("of other categories", 0) + 1
            continue
        peopled.add(_key(item.get("image_id")))
        if item.get("iscrowd") in (1, True):
            left["of crowds"] = left.get("of crowds", 0) + 1
        else:
            row = _row(path, place, item, images, found)
            if row is not None:
                rows.append(row)
    notes = [f"left out {count} box(es) {what}" for what, count in left.items()]
    nobody = [image[:2] for key, image in images.items() if key not in peopled]
    return Annotations(rows_of(rows), None, notes, key_frames_of(nobody))


def write_coco(annotations: Annotations, path: Path, frames: FrameNames, size_px: tuple[int, int]) -> None:
    """Write each box once; images, also those without boxes, state `video` and `time_s`, and a file name by `frames`.

    Args:
        annotations: the boxes; a missing score is left out.
        path: the file.
        frames: how the extracted images are called.
        size_px: width and height of every frame; (1, 1) writes boxes as fractions.

    Raises:
        UserError: a key frame before the first image.
    """
    rows = annotations.rows[["video", "time_s", *BOX_COLUMNS, "score"]].drop_duplicates(ignore_index=True)
    nobody: list[tuple[str, float, list[tuple[Any, ...]]]] = [
        (video, time_s, []) for video, time_s in annotations.nobody.itertuples(index=False, name=None)
    ]
    wide, high = size_px
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for video, time_s, found in [*by_key_frame(rows), *nobody]:
        name = f"{video}/{frames.pattern % frames.number_to_write(path, video, time_s)}"
        image_id = len(images) + 1
        images.append({
            "id": image_id, "file_name": name, "width": wide, "height": high, "video": video, "time_s": time_s,
        })  # fmt: skip
        for _, _, x1, y1, x2, y2, score in found:
            x, y = x1 * wide, y1 * high
            width, height = _length(x1, x2, wide), _length(y1, y2, high)
            box = {
                "id": len(boxes) + 1, "image_id": image_id, "category_id": 1, "bbox": [x, y, width, height],
                "area": width * height, "iscrowd": 0,
            }  # fmt: skip
            boxes.append(box if math.isnan(score) else {**box, "score": score})
    value = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": PERSON}]}
    write_text_atomic(path, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def _images(
    path: Path, listed: list[Any], frames: FrameNames | None, found: Findings | None
) -> dict[Any, tuple[str, float, float, float]]:
    """(video, time, width, height) by image id."""
    images = {}
    for number, item in enumerate(listed):
        place = f"image {number}"
        key = _key(item.get("id")) if isinstance(item, dict) else None
        if key is None or key in images:
            malformed(path, place, f"{shown.repr(item)}; expected an object with an id of its own", found)
            continue
        width, height = number_of(item.get("width")), number_of(item.get("height"))
        if width is None or height is None or width < 1 or height < 1:
            told = (
                f"width and height are {shown.repr(item.get('width'))} and {shown.repr(item.get('height'))}"
            )
            malformed(path, place, f"{told}; expected pixels, by which the boxes are divided", found)
            continue
        where = _place_of(item, frames)
        if where is None:
            malformed(path, place, _no_place(item, frames), found)
            continue
        images[key] = (*where, width, height)
    return images


def _place_of(item: dict[str, Any], frames: FrameNames | None) -> tuple[str, float] | None:
    video = next((text_of(item[key]) for key in _VIDEO_KEYS if key in item), None)
    time_s = next((time_of(item[key]) for key in _TIME_KEYS if key in item), None)
    if video is not None and time_s is not None:
        return video, time_s
    numbered = _numbered(item)
    if numbered is None or frames is None:
        return None
    named, time_s = text_of(numbered[0]), frames.time_s(numbered[1])
    return None if named is None or is_late(time_s) else (named, time_s)


def _numbered(item: dict[str, Any]) -> tuple[str, int] | None:
    """Folder and number that the file's name says."""
    name = item.get("file_name")
    match = _NUMBERED.fullmatch(name) if isinstance(name, str) and len(name) < 4096 else None
    return None if match is None else (match["video"], int(match["number"]))


def _no_place(item: dict[str, Any], frames: FrameNames | None) -> str:
    told = f"file_name {shown.repr(item.get('file_name'))}, without `video` and `time_s`"
    numbered = _numbered(item)
    if frames is not None and numbered is not None and is_late(frames.time_s(numbered[1])):
        return (
            f"{told}, is at second {frames.time_s(numbered[1]):g} by --first-second {frames.first_s:g} and --fps "
            f"{frames.fps:g}; expected at most {LATEST_S:g}; correct the options, or the number"
        )
    if frames is None:
        return (
            f"{told}: which second is it? convert the file with `acar convert-annotations --fps RATE "
            "--first-second SECOND`, the rate of numbered images and the second that number 1 shows"
        )
    return f"{told}; expected a name such as video/image_000001.jpg"


def _person_categories(path: Path, listed: Any) -> set[Any]:
    """Ids of the categories that are persons: those named so, or the only one; 1 where none are listed."""
    if listed is None or listed == []:
        return {1}
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise UserError(f"{path}, categories: {shown.repr(listed)}; expected a list of {{id, name}}")
    named = {_key(item.get("id")): str(item.get("name"))[:80].strip().lower() for item in listed}
    persons = {key for key, name in named.items() if name == PERSON} or (
        set(named) if len(named) == 1 else set()
    )
    if not persons - {None}:
        raise UserError(
            f"{path}, categories: none is called `{PERSON}`; there are {shown.repr(sorted(named.values()))}"
        )
    return persons


def _row(
    path: Path, place: str, item: dict[str, Any], images: dict[Any, Any], found: Findings | None
) -> tuple[Any, ...] | None:
    image = images.get(_key(item.get("image_id")))
    if image is None:
        malformed(path, place, f"image_id {shown.repr(item.get('image_id'))} is of no readable image", found)
        return None
    video, time_s, width, height = image
    box = numbers_of(item.get("bbox"), 4)
    score = number_of(item["score"]) if "score" in item else float("nan")
    if box is None or len(box) != 4 or score is None or score < 0 or score > 1:
        told = f"bbox {shown.repr(item.get('bbox'))}, score {shown.repr(item.get('score'))}"
        malformed(path, place, f"{told}; expected x, y, width, height in pixels, and a score in 0..1", found)
        return None
    x, y, w, h = box
    corners = [_snapped(n) for n in (x / width, y / height, (x + w) / width, (y + h) / height)]
    if not box_fits(path, place, corners, found):
        return None
    return video, time_s, *corners, None, "", score


def _length(low: float, high: float, pixels: int) -> float:
    """A side in pixels, never so rounded that no area is left when it is read again."""
    return max(high * pixels - low * pixels, _LEAST_SIDE * pixels)


def _snapped(fraction: float) -> float:
    """A corner; one that is beyond the frame's slop by the rounding of its division alone is at the slop's end."""
    nearest = min(max(fraction, -BOX_SLOP), 1 + BOX_SLOP)
    return nearest if math.isclose(fraction, nearest, rel_tol=0, abs_tol=_ROUNDING) else fraction


def _key(value: Any) -> Any:
    """An id that can be looked up, else None."""
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
