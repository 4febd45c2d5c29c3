"""Detections of several runs as small columns of whole numbers, video by video. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.data.csv_files import DECIMALS
from acar.data.tables import BOX_COLUMNS, DETECTION_COLUMNS, format_time
from acar.errors import UserError

MICRO = 10**DECIMALS
SCORE_SLOP = 1e-6
"""How far float32 rounding may lead a probability out of 0..1."""


@dataclass(frozen=True)
class VideoRows:
    """The N rows of one video in one run, in the run's order.

    Attributes:
        place: (N,) int64 places in the run.
        micros: (N,) int64 times in millionths of a second.
        boxes: (N, 4) int32 x1, y1, x2, y2 in millionths of the frame.
        classes: (N,) int64 class ids.
        scores: (N,) float64.
    """

    place: np.ndarray
    micros: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run's N detections at 6 decimals, which is what files hold, in half of a table's memory.

    Attributes:
        name: for messages, e.g. the file.
        names: of its videos, by number.
        video: (N,) int32 numbers.
        micros, boxes, classes, scores: as in `VideoRows`.
        class_ids: (C,) int64, sorted, those that occur.
    """

    name: str
    names: tuple[str, ...]
    video: np.ndarray
    micros: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, name: str) -> Run:
        """The run of a table as `read_detections` gives it.

        Raises:
            UserError: no rows, or a score outside 0..1.
        """
        if table.empty:
            raise UserError(
                f"{name}: no rows; expected lines of {','.join(DETECTION_COLUMNS)}; leave this run out, or "
                "name another file"
            )
        scores = table["score"].to_numpy(np.float64)
        _check_scores(table, scores, name)
        video, names = pd.factorize(table["video"])
        boxes = np.empty((len(table), 4), np.int32)
        for column, edge in enumerate(BOX_COLUMNS):
            boxes[:, column] = _millionths(table[edge])
        classes = table["action_id"].to_numpy(np.int64)
        return cls(
            name=name,
            names=tuple(str(item) for item in names),
            video=video.astype(np.int32),
            micros=_millionths(table["time_s"]),
            boxes=boxes,
            classes=classes,
            scores=np.clip(scores, 0.0, 1.0),
            class_ids=np.sort(pd.unique(classes)),
        )

    def __len__(self) -> int:
        return len(self.video)

    def table(self, rows: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """The rows at sorted places as a table with other scores."""
        names = pd.array(self.names, dtype="str")
        boxes = {edge: self.boxes[rows, column] / MICRO for column, edge in enumerate(BOX_COLUMNS)}
        return pd.DataFrame(
            {"video": names.take(self.video[rows]), "time_s": self.micros[rows] / MICRO, **boxes,
             "action_id": self.classes[rows], "score": scores}
        )  # fmt: skip

    def repeats_before(self, row: int) -> int:
        """How many rows before this one have its video, second, box and class."""
        same = (self.video[:row] == self.video[row]) & (self.micros[:row] == self.micros[row])
        same &= (self.classes[:row] == self.classes[row]) & (self.boxes[:row] == self.boxes[row]).all(axis=1)
        return int(same.sum())

    def told(self, row: int) -> str:
        """A row in words, e.g. `video a, second 0902, box 0.1,0.2,0.3,0.4, class 3`."""
        return f"{self.actor_told(row)}, class {self.classes[row]}"

    def actor_told(self, row: int) -> str:
        """A row's video, second and box in words."""
        second = format_time(float(self.micros[row]) / MICRO)
        box = ",".join(f"{edge / MICRO:g}" for edge in self.boxes[row].tolist())
        return f"video {self.names[self.video[row]]}, second {second}, box {box}"

    def holds_the_rows_of(self, other: Run) -> bool:
        """Whether the two have the same rows in the same order, scores included."""
        return self.names == other.names and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("video", "micros", "boxes", "classes", "scores")
        )


def by_video(runs: Sequence[Run]) -> tuple[int, Iterator[list[VideoRows]]]:
    """The number of different videos, and of each one every run's rows (maybe none)."""
    numbers: dict[str, int] = {}
    for run in runs:
        for name in run.names:
            numbers.setdefault(name, len(numbers))
    sorted_runs = [_sorted(run, numbers) for run in runs]
    return len(numbers), (
        [_rows(run, order[bounds[k] : bounds[k + 1]]) for run, (order, bounds) in zip(runs, sorted_runs)]
        for k in range(len(numbers))
    )


def _sorted(run: Run, numbers: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Places by video, stably, and where each video's begin and end."""
    video = np.array([numbers[name] for name in run.names], np.int32)[run.video]
    counts = np.bincount(video, minlength=len(numbers))
    return np.argsort(video, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def _rows(run: Run, place: np.ndarray) -> VideoRows:
    return VideoRows(place, run.micros[place], run.boxes[place], run.classes[place], run.scores[place])


def _millionths(values: pd.Series) -> np.ndarray:
    return np.rint(values.to_numpy(np.float64) * MICRO).astype(np.int64)


def _check_scores(table: pd.DataFrame, scores: np.ndarray, name: str) -> None:
    bad = np.flatnonzero(~((scores >= -SCORE_SLOP) & (scores <= 1 + SCORE_SLOP)))
    if len(bad):
        row = table.iloc[bad[0]]
        raise UserError(
            f"{name}, row {bad[0] + 1} (video {row.video}, second {format_time(row.time_s)}, class "
            f"{row.action_id}): score is {row.score:g}; expected a probability, 0..1; if the file holds logits, "
            f"write them through the network's sigmoid (or softmax) first ({len(bad)} such row(s))"
        )
