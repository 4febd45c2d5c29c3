"""Action tubes: frame detections linked over time, and the overlap of two tubes.

Linking is the online one of Singh, Saha, Sapienza, Torr and Cuzzolin, "Online real-time multiple spatiotemporal
action localisation and prediction" (ICCV 2017, "Online action tube generation"), greedy and class by class. Trimming
is their binary labelling of a tube in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS
from acar.data.frame_tables import repeated_in_tube
from acar.errors import UserError
from acar.evaluation.frame_protocols import overlaps

HELD_PER_BOX = 50
LEAST_HELD = 1_000_000
"""Held boxes that a table may come to: so many for each detected one, or so many in all.

A gap of up to 50 frames never comes there. Far beyond it tubes are made of boxes that nobody detected, and one wild
frame number would fill the memory.
"""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LinkSettings:
    """How frame detections become tubes. The defaults are the paper's and its released code's, but for
    `min_frames` and `switch_cost`, which leave all tubes as they are.

    Attributes:
        top_boxes: so many of a class's boxes in a frame are looked at, the best-scored ones (the paper's n).
        nms_iou: before that, of two boxes that overlap more the lower-scored one goes.
        link_iou: least overlap of a tube's last box with the one that follows it (lambda).
        gap_frames: a tube that finds no box in so many frames running has ended (k), at least 1.
        min_score: boxes below are left out.
        min_frames: shorter tubes are left out.
        switch_cost: of changing between action and background when a tube is trimmed (alpha); None: no trimming.
        step: frames from one that was looked at to the next.
    """

    top_boxes: int = 10
    nms_iou: float = 0.45
    link_iou: float = 0.1
    gap_frames: int = 5
    min_score: float = 0.0
    min_frames: int = 1
    switch_cost: float | None = None
    step: int = 1


@dataclass(frozen=True)
class Tube:
    """One actor's boxes in a video.

    Attributes:
        frames: (T,) int64, strictly rising.
        boxes: (T, 4) float64, x1, y1, x2, y2.
        score: mean of its detections' scores; 1 for ground truth.
    """

    video: str
    label: int
    frames: np.ndarray
    boxes: np.ndarray
    score: float = 1.0


@dataclass
class _Live:
    """A tube in the making: its boxes, held ones too, and the score of each."""

    frames: list[int]
    boxes: list[Box]
    scores: list[float]
    found: list[float] = field(default_factory=list)

    @property
    def order(self) -> float:
        """Mean score of its detections: better tubes choose first."""
        return sum(self.found) / len(self.found)


@dataclass
class _Room:
    """How many boxes may still be held."""

    left: int
    settings: LinkSettings

    def take(self, where: str, last: int, frame: int) -> None:
        """Make room for those between two frames of a tube."""
        held = len(range(last + self.settings.step, frame, self.settings.step))
        if held > self.left:
            raise UserError(
                f"{where}: a tube has no box between frames {last} and {frame}; --gap {self.settings.gap_frames} "
                f"would hold its last one {held} times, and all tubes together may hold {HELD_PER_BOX} for each "
                f"detected box, or {LEAST_HELD}; expected a gap of a few frames: give a smaller --gap, or correct "
                "the frame numbers"
            )
        self.left -= held


def truth_tubes(truth: pd.DataFrame) -> list[Tube]:
    """The annotated tubes of a table of boxes with the columns video, label, tube and frame.

    Raises:
        UserError: a tube has two boxes in a frame.
    """
    repeats = np.flatnonzero(repeated_in_tube(truth))
    if len(repeats):
        row = truth.iloc[repeats[0]]
        raise UserError(
            f"video {row['video']}, frame {row['frame']}, label {row['label']}: tube {row['tube']!r} has two boxes "
            f"there ({len(repeats)} such row(s)); a tube is one actor, with one box a frame"
        )
    ordered = truth.sort_values(["video", "label", "tube", "frame"], kind="stable")
    return [
        Tube(str(video), int(label), rows["frame"].to_numpy(np.int64), rows[BOX_COLUMNS].to_numpy(np.float64))
        for (video, label, _), rows in ordered.groupby(["video", "label", "tube"], sort=True)
    ]


def link(detections: pd.DataFrame, settings: LinkSettings) -> list[Tube]:
    """Link a table of scored boxes (see `acar.evaluation.frame_map`) into tubes, by video, label and first frame.

    Frame by frame, the live tubes of a class, best mean score first, each take the best-scored free box that overlaps
    their last one by `link_iou`; boxes that are left over begin tubes. A frame without such a box holds the last one,
    as in the released code, if the tube goes on; what was held at its end is dropped.

    Raises:
        UserError: a gap so long that mostly held boxes would be scored.
    """
    kept = detections[detections["score"] >= settings.min_score]
    kept = kept.sort_values(
        ["video", "label", "frame", "score"], ascending=[True, True, True, False], kind="stable"
    )
    room = _Room(max(LEAST_HELD, HELD_PER_BOX * len(kept)), settings)
    found: list[Tube] = []
    for (video, label), rows in kept.groupby(["video", "label"], sort=True):
        for live in _linked(f"video {video}, label {label}", list(_frames(rows, settings)), settings, room):
            found += [Tube(str(video), int(label), *part) for part in _parts(live, settings)]
    return [tube for tube in found if len(tube.frames) >= settings.min_frames]


def _frames(rows: pd.DataFrame, settings: LinkSettings) -> Iterator[tuple[int, list[Box], list[float]]]:
    """Frame, boxes and scores of one class, the best first, after suppression."""
    frames = rows["frame"].to_numpy(np.int64)
    boxes, scores = rows[BOX_COLUMNS].to_numpy(np.float64).tolist(), rows["score"].tolist()
    starts = np.flatnonzero(np.diff(frames, prepend=frames[0] - 1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(frames)]):
        chosen: list[int] = []
        for row in range(start, end):
            if len(chosen) == settings.top_boxes:
                break
            if all(_overlap(boxes[row], boxes[other]) <= settings.nms_iou for other in chosen):
                chosen.append(row)
        yield int(frames[start]), [tuple(boxes[row]) for row in chosen], [scores[row] for row in chosen]


def _linked(
    where: str, frames: list[tuple[int, list[Box], list[float]]], settings: LinkSettings, room: _Room
) -> list[_Live]:
    live: list[_Live] = []
    ended: list[_Live] = []
    for frame, boxes, scores in frames:
        # Whoever has missed `gap_frames` frames before this one has ended.
        is_live = [(frame - tube.frames[-1]) // settings.step <= settings.gap_frames for tube in live]
        ended += [tube for tube, goes_on in zip(live, is_live) if not goes_on]
        live = sorted((tube for tube, goes_on in zip(live, is_live) if goes_on), key=lambda tube: -tube.order)
        free = list(range(len(boxes)))
        for tube in live:
            last = tube.boxes[-1]
            taken = next((row for row in free if _overlap(last, boxes[row]) >= settings.link_iou), None)
            if taken is not None:
                free.remove(taken)
                room.take(where, tube.frames[-1], frame)
                _extend(tube, frame, boxes[taken], scores[taken], settings.step)
        live += [_Live([frame], [boxes[row]], [scores[row]], [scores[row]]) for row in free]
    return sorted(ended + live, key=lambda tube: tube.frames[0])


def _extend(tube: _Live, frame: int, box: Box, score: float, step: int) -> None:
    for held in range(tube.frames[-1] + step, frame, step):
        tube.frames.append(held)
        tube.boxes.append(tube.boxes[-1])
        tube.scores.append(tube.scores[-1])
    tube.frames.append(frame)
    tube.boxes.append(box)
    tube.scores.append(score)
    tube.found.append(score)


def _parts(tube: _Live, settings: LinkSettings) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Frames, boxes and score of a tube, or of what trimming leaves of it."""
    frames, boxes, scores = np.array(tube.frames), np.array(tube.boxes), np.array(tube.scores)
    if settings.switch_cost is None:
        yield frames, boxes, tube.order
        return
    for part in action_parts(scores, settings.switch_cost):
        yield frames[part], boxes[part], float(scores[part].mean())


def action_parts(scores_T: np.ndarray, switch_cost: float) -> list[slice]:
    """Where a tube shows its action: the labelling l of action (1) or background (0) that is best, by runs of 1.

    Maximises the sum over frames of s (label 1) or 1 - s (label 0), less `switch_cost` a change of label; ties
    go to action.

    Args:
        scores_T: (T,) float64 class scores in 0..1, T >= 1.
        switch_cost: at least 0.
    """
    gain_T2 = np.stack([1.0 - scores_T, scores_T], axis=1)
    best, came_from_T2 = gain_T2[0], np.zeros((len(scores_T), 2), np.int64)
    for t in range(1, len(scores_T)):
        stay, change = best, best[::-1] - switch_cost
        came_from_T2[t] = np.where([stay[0] > change[0], stay[1] < change[1]], 0, 1)
        best = gain_T2[t] + np.maximum(stay, change)
    labels = np.empty(len(scores_T), np.int64)
    labels[-1] = int(best[1] >= best[0])
    for t in range(len(scores_T) - 1, 0, -1):
        labels[t - 1] = came_from_T2[t, labels[t]]
    edges = np.flatnonzero(np.diff(labels, prepend=0, append=0))
    return [slice(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2])]


def tube_overlap(a: Tube, b: Tube, pixel: float) -> float:
    """Spatio-temporal intersection over union of two tubes.

    It is the mean, over all frames of either, of the boxes' overlap, which is 0 where one is absent. Of tubes without
    gaps that is the overlap in time times the mean overlap in space, as the published evaluators write it.

    Args:
        a: a tube.
        b: another.
        pixel: as `Protocol.pixel`.
    """
    shared, in_a, in_b = np.intersect1d(a.frames, b.frames, assume_unique=True, return_indices=True)
    if not len(shared):
        return 0.0
    n_frames = len(a.frames) + len(b.frames) - len(shared)
    return float(overlaps(a.boxes[in_a], b.boxes[in_b], pixel).sum() / n_frames)


def _overlap(a: Box | list[float], b: Box | list[float]) -> float:
    """Overlap of two boxes in plain numbers: this runs once a box and tube."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
