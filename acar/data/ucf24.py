"""Annotations of UCF101-24 and JHMDB as they are published: one box a frame of each actor's tube.

`pyannot.pkl` (gurkirt/corrected-UCF101-Annots): video -> numf, label and annotations, each with label, first frame
`sf` (from 0), end frame `ef` (exclusive) and boxes x, y, width, height in pixels (uint8 or uint16).
`UCF101v2-GT.pkl` and `JHMDB-GT.pkl` (of ACT and MOC, by Python 2): labels, gttubes {video: {label: [(N, 5) of frame
(from 1), x1, y1, x2, y2]}}, nframes, train_videos and test_videos (a list a split) and resolution {video: (height,
width)}. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS
from acar.data.formats.annotations import text_of
from acar.data.frame_tables import LARGEST_LABEL, TRUTH_COLUMNS
from acar.data.plain_pickle import load_plain_pickle
from acar.errors import UserError

UCF_WIDTH_PX, UCF_HEIGHT_PX = 320, 240  # of every video of UCF101
MOST_FRAMES = 1_000_000
"""Of a video: some eleven hours, where the longest of these data sets has a minute."""


@dataclass(frozen=True)
class TubeAnnotations:
    """The annotated tubes of a data set.

    Attributes:
        names: of the classes, by label.
        boxes: video, frame (from 1), x1, y1, x2, y2 (pixels), label, tube (unique in its video).
        videos: index video; n_frames, width, height (pixels).
        train_videos, test_videos: a list a split, as the file gives them; empty if it gives none.
    """

    names: list[str]
    boxes: pd.DataFrame
    videos: pd.DataFrame
    train_videos: list[list[str]]
    test_videos: list[list[str]]

    def of_videos(self, videos: list[str]) -> pd.DataFrame:
        """The boxes of some videos."""
        return self.boxes[self.boxes["video"].isin(set(videos))].reset_index(drop=True)


def read_annotations(path: str | Path) -> TubeAnnotations:
    """Read `pyannot.pkl`, `UCF101v2-GT.pkl` or `JHMDB-GT.pkl`, told apart by content; nothing in them is run.

    Raises:
        UserError: no such file, no readable pickle, of another form or with impossible values; names the video and
            the tube.
    """
    content = load_plain_pickle(path)
    if isinstance(content, dict) and "gttubes" in content:
        return _Gathered(path).of_tubes(content)
    is_pyannot = isinstance(content, dict) and content and all(
        isinstance(item, dict) and "annotations" in item for item in content.values()
    )  # fmt: skip
    if not is_pyannot:
        raise UserError(
            f"{path}: neither pyannot.pkl (video -> numf, label, annotations) nor a tubes pickle (labels, gttubes, "
            "nframes, train_videos, test_videos, resolution)"
        )
    return _Gathered(path).of_pyannot(content)


class _Gathered:
    """Collects tubes, and knows the file for messages."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.tubes: list[tuple[str, int, str]] = []
        self.frames: list[np.ndarray] = []
        self.corners: list[np.ndarray] = []
        self.videos: list[tuple[str, int, int, int]] = []
        self.first_of: dict[str, tuple[int, str]] = {}

    def of_pyannot(self, content: Mapping[Any, Any]) -> TubeAnnotations:
        names: dict[int, str] = {}
        for video, item in content.items():
            where = f"video {video!r}"
            if not isinstance(video, str) or not isinstance(item["annotations"], list):
                raise self.error(
                    where, "expected a text with a dict of numf, label and a list of annotations"
                )
            n_frames = self.whole(where, "numf", item.get("numf"), 1, MOST_FRAMES)
            self.open(video, n_frames, UCF_WIDTH_PX, UCF_HEIGHT_PX)
            for place, annotation in enumerate(item["annotations"]):
                self.pyannot_tube(video, place, annotation, n_frames, names)
        last = max(names, default=-1)
        for label in range(last + 1):
            if label not in names:
                names[label] = f"class {label}"
                self.one_label(f"label {label}, which no video has", names[label], label)
        return self.table([names[label] for label in range(last + 1)], [], [])

    def pyannot_tube(self, video: str, place: int, item: Any, n_frames: int, names: dict[int, str]) -> None:
        where = f"video {video!r}, annotation {place}"
        if not isinstance(item, dict) or not {"sf", "ef", "label", "boxes"} <= item.keys():
            raise self.error(where, "expected a dict of sf, ef, label and boxes")
        first, end = (self.whole(where, key, item[key]) for key in ("sf", "ef"))
        label = self.whole(where, "label", item["label"], 0, LARGEST_LABEL)
        name = video.split("/")[0]  # the file has no names but those of the folders
        if names.setdefault(label, name) != name:
            raise self.error(
                where, f"label {label} is of folder {names[label]!r} elsewhere, here of {name!r}"
            )
        self.one_label(where, name, label)
        boxes = self.numbers(where, item["boxes"], 4)
        if not 0 <= first < end <= n_frames or len(boxes) != end - first:
            raise self.error(where, f"{len(boxes)} boxes from frame {first} to {end} (exclusive) of {n_frames}; "
                                    "expected one a frame, inside of the video")  # fmt: skip
        # Corners in float64: the sums do not fit the file's uint8.
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        self.add(where, video, np.arange(first, end) + 1, corners, label, str(place))

    def of_tubes(self, content: Mapping[Any, Any]) -> TubeAnnotations:
        expected = {"labels": list, "gttubes": dict, "nframes": dict, "train_videos": list, "test_videos": list,
                    "resolution": dict}  # fmt: skip
        for key, kind in expected.items():
            if not isinstance(content.get(key), kind):
                raise self.error(
                    f"key {key!r}", f"expected a {kind.__name__}, found {type(content.get(key)).__name__}"
                )
        names = [
            self.text(f"key 'labels', label {label}", name) for label, name in enumerate(content["labels"])
        ]
        for label, name in enumerate(names):
            self.one_label(f"key 'labels', label {label}", name, label)
        for video, tubes in content["gttubes"].items():
            where = f"video {video!r}"
            size = content["resolution"].get(video, (UCF_HEIGHT_PX, UCF_WIDTH_PX))
            size = size.tolist() if isinstance(size, np.ndarray) else size
            if not isinstance(tubes, dict) or not isinstance(size, tuple | list) or len(size) != 2:
                raise self.error(where, "expected a dict of tubes by label, and a resolution (height, width)")
            height, width = (self.whole(where, "resolution", side, least=1) for side in size)
            n_frames = self.whole(where, "nframes", content["nframes"].get(video), 1, MOST_FRAMES)
            name = self.text(where, video)
            self.open(name, n_frames, width, height)
            for label, arrays in tubes.items():
                self.labelled_tubes(name, label, arrays, n_frames, len(names))
        splits = (self.splits(key, content[key]) for key in ("train_videos", "test_videos"))
        return self.table(names, *splits)

    def labelled_tubes(self, video: str, label: Any, arrays: Any, n_frames: int, n_classes: int) -> None:
        number = self.whole(f"video {video!r}", "label", label)
        if not 0 <= number < n_classes or not isinstance(arrays, list | tuple):
            raise self.error(
                f"video {video!r}, label {label!r}", f"expected 0 to {n_classes - 1}, and a list of tubes"
            )
        for place, array in enumerate(arrays):
            where = f"video {video!r}, label {number}, tube {place}"
            rows = self.numbers(where, array, 5)
            frames = rows[:, 0]
            if len(rows) == 0 or (np.diff(frames) <= 0).any() or frames[0] < 1 or frames[-1] > n_frames:
                raise self.error(where, f"frames are to rise, within 1 to {n_frames}")
            if (frames % 1).any():
                raise self.error(where, "frame numbers are to be whole")
            self.add(where, video, frames.astype(np.int64), rows[:, 1:], number, f"{number}-{place}")

    def one_label(self, where: str, name: str, label: int) -> None:
        """Refuse a second label of one name: by it the figures of a class, and its label map's line, are found."""
        self.writable(where, "class name", name)
        first, place = self.first_of.setdefault(name, (label, where))
        if first != label:
            raise self.error(
                where, f"class {name!r} is label {label} here and label {first} in {place}; expected one label of "
                "each class name: rename one of them, or give both the same label"
            )  # fmt: skip

    def splits(self, key: str, value: list[Any]) -> list[list[str]]:
        if not all(isinstance(part, list | tuple) for part in value):
            raise self.error(f"key {key!r}", "expected a list of videos for each split")
        return [[self.text(f"key {key!r}", video) for video in part] for part in value]

    def text(self, where: str, value: Any) -> str:
        """A name or an id, which may be bytes, as Python 2 knew texts."""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            raise self.error(where, f"expected a text, found {type(value).__name__}")
        return value

    def writable(self, where: str, what: str, text: str) -> None:
        """Refuse what no csv and no label map could hold."""
        if text_of(text) != text:
            raise self.error(
                where, f"the {what} {text!r} has a line break, another control character, half a character or blanks "
                "at its ends, with which no text file is read; rename it in the annotations"
            )  # fmt: skip

    def open(self, video: str, n_frames: int, width: int, height: int) -> None:
        self.writable(f"video {video!r}", "id", video)
        self.videos.append((video, n_frames, width, height))

    def add(
        self, where: str, video: str, frames: np.ndarray, boxes: np.ndarray, label: int, tube: str
    ) -> None:
        bad = np.flatnonzero((boxes[:, :2] > boxes[:, 2:]).any(axis=1) | ~np.isfinite(boxes).all(axis=1))
        if len(bad):
            raise self.error(where, f"row {bad[0]}: box {boxes[bad[0]].tolist()} is inverted or not finite")
        self.tubes.append((video, label, tube))
        self.frames.append(frames)
        self.corners.append(boxes)

    def table(self, names: list[str], train: list[list[str]], test: list[list[str]]) -> TubeAnnotations:
        if not self.tubes:
            raise UserError(f"{self.path}: not one annotated tube")
        of_tube = np.repeat(np.arange(len(self.tubes)), [len(frames) for frames in self.frames])
        tubes = pd.DataFrame(self.tubes, columns=["video", "label", "tube"])
        boxes = tubes.iloc[of_tube].reset_index(drop=True).assign(frame=np.concatenate(self.frames))
        boxes[BOX_COLUMNS] = np.concatenate(self.corners)
        videos = pd.DataFrame(self.videos, columns=["video", "n_frames", "width", "height"]).set_index(
            "video"
        )
        return TubeAnnotations(names, boxes[TRUTH_COLUMNS], videos, train, test)

    def numbers(self, where: str, value: Any, width: int) -> np.ndarray:
        """float64 (N, width)."""
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise self.error(where, "expected an array of numbers") from None
        if array.ndim != 2 or array.shape[1] != width:
            raise self.error(where, f"array of shape {array.shape}; expected (N, {width})")
        return array

    def whole(self, where: str, key: str, value: Any, least: int = 0, most: int | None = None) -> int:
        number = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or not (isinstance(number, int) or number.is_integer())
            or number < least
            or (most is not None and number > most)
        ):
            upto = "" if most is None else f" to {most}"
            raise self.error(where, f"{key} is {value!r}; expected a whole number from {least}{upto}")
        return int(number)

    def error(self, where: str, what: str) -> UserError:
        return UserError(f"{self.path}, {where}: {what}")
