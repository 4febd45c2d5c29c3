"""Detections held against AVA's ground truth: which rows count, and what each of them found."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from acar.data.tables import BOX_COLUMNS, LabelMap, format_time
from acar.errors import UserError
from acar.evaluation.ava_protocols import Protocol
from acar.evaluation.image_cap import best_of_images
from acar.evaluation.matching import Matched, match

MICROSECONDS = 1_000_000


class InvertedBoxError(UserError):
    """A detected box at which a protocol's evaluator stops.

    Attributes:
        row: of the detections' table, from 0.
        complaint: what is wrong, without the place.
    """

    def __init__(self, row: int, complaint: str) -> None:
        super().__init__(f"detections, row {row + 1}: {complaint}")
        self.row = row
        self.complaint = complaint


@dataclass(frozen=True)
class Truth:
    """The M ground-truth rows with an evaluated class, and the A distinct boxes (actors) of all rows.

    Attributes:
        image: (M,) int64 number of the (video, second).
        column: (M,) int64, of the label map.
        boxes: (M, 4) float64.
        actor: (M,) int64, row of `actor_boxes`.
        positives: (C,) int64 boxes of each class that count. Rows of excluded images are here only if the protocol
            counts them; no detection lies there.
        actor_image: (A,) int64.
        actor_boxes: (A, 4) float64, with or without an evaluated class.
    """

    image: np.ndarray
    column: np.ndarray
    boxes: np.ndarray
    actor: np.ndarray
    positives: np.ndarray
    actor_image: np.ndarray
    actor_boxes: np.ndarray


@dataclass(frozen=True)
class AvaMatch:
    """The N rows that count, class by class by falling score (equal ones in the order given), and what they found.

    Attributes:
        protocol: by which.
        iou: least overlap of a true positive.
        rows: (N,) int64, of the detections' table.
        image: (N,) int64, as in `truth`.
        bounds: (C + 1,) int64; the rows of class column c are those from bounds[c] to bounds[c + 1].
        scores: (N,) float64, or float32 where the protocol rounds them.
        matched: what they found; `nearest` are rows of `truth`.
        truth: the other side.
        boxes: (B, 4) float64, the detected boxes: those of runs of rows with one image and box, before the cap.
        box_image: (B,) int64.
        box_of_row: (N,) int64, row of `boxes`.
    """

    protocol: Protocol
    iou: float
    rows: np.ndarray
    image: np.ndarray
    bounds: np.ndarray
    scores: np.ndarray
    matched: Matched
    truth: Truth
    boxes: np.ndarray
    box_image: np.ndarray
    box_of_row: np.ndarray

    @property
    def column(self) -> np.ndarray:
        """(N,) int64 class column of each row."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    @property
    def defined_positives(self) -> np.ndarray:
        """(C,) int64 `truth.positives` of the classes whose AP the protocol defines, 0 of the others."""
        if not self.protocol.needs_rows:
            return self.truth.positives
        return np.where(np.diff(self.bounds) > 0, self.truth.positives, 0)

    def of_classes(self, values_N: np.ndarray) -> list[np.ndarray]:
        """Values of rows as C arrays, a class each."""
        return np.split(values_N, self.bounds[1:-1])


def match_ava(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    label_map: LabelMap,
    excluded: Collection[tuple[str, float]],
    iou: float,
    protocol: Protocol,
) -> AvaMatch:
    """Choose the rows that count and match them; arguments as of `acar.evaluation.ava.evaluate_ava`.

    Raises:
        UserError: a row without a video id.
        InvertedBoxError: an inverted box under a protocol whose evaluator stops at it.
    """
    truth_image, image = _images(ground_truth, detections, excluded, protocol)
    truth_column = _columns(ground_truth["action_id"], label_map)
    truth = _truth(ground_truth, truth_image, truth_column, len(label_map), protocol)
    column = _columns(detections["action_id"], label_map)
    counts = (image >= 0) & (column >= 0)
    if not protocol.unannotated_images:
        annotates = truth_image if protocol.any_row_annotates else truth_image[truth_column >= 0]
        counts &= np.isin(image, annotates)
    scores = detections["score"].to_numpy(np.float64)
    rows = np.flatnonzero(counts)
    boxes, box_of_row = _runs(detections, image, rows)
    box_image = image[boxes]

    if protocol.rows_per_image is not None:
        kept = best_of_images(
            image[rows], scores[rows], protocol.rows_per_image, lambda at: _heap_keys(detections, rows[at])
        )
        rows, box_of_row = rows[kept], box_of_row[kept]
    rows, box_of_row = _without_degenerate(detections, rows, box_of_row, protocol)
    order = np.argsort(-scores[rows], kind="stable")
    narrow = np.min_scalar_type(len(label_map))  # numpy sorts whole numbers of up to 16 bits by their digits
    order = order[np.argsort(column[rows[order]].astype(narrow), kind="stable")]
    rows, box_of_row = rows[order], box_of_row[order]
    return AvaMatch(
        protocol=protocol,
        iou=iou,
        rows=rows,
        image=image[rows],
        scores=protocol.rounded(scores[rows]),
        bounds=np.concatenate([[0], np.cumsum(np.bincount(column[rows], minlength=len(label_map)))]),
        matched=_matched(detections, rows, image, column, truth, len(label_map), iou, protocol),
        truth=truth,
        boxes=_boxes(detections, boxes),
        box_image=box_image,
        box_of_row=box_of_row,
    )


def _matched(
    detections: pd.DataFrame, rows: np.ndarray, image: np.ndarray, column: np.ndarray, truth: Truth,
    n_classes: int, iou: float, protocol: Protocol,
) -> Matched:  # fmt: skip
    key, truth_key = image[rows] * n_classes + column[rows], truth.image * n_classes + truth.column
    # Few rows have a class that is there at all; only their boxes are gathered, for matching by place.
    some = np.flatnonzero(np.isin(key, truth_key))
    # They come class by class by falling score: within a key by falling score.
    found = match(
        protocol.rounded(_boxes(detections, rows[some])), key[some], -np.arange(len(some)),
        protocol.rounded(truth.boxes), truth_key, iou,
    )  # fmt: skip
    true, nearest, overlap = np.zeros(len(rows), bool), np.full(len(rows), -1), np.zeros(len(rows))
    true[some], nearest[some], overlap[some] = found.true, found.nearest, found.overlap
    return Matched(true, nearest, overlap)


def _images(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    excluded: Collection[tuple[str, float]],
    protocol: Protocol,
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each (video, second), common to both tables, or -1 if it is excluded; int64.

    Where the protocol counts excluded ground truth it keeps its number, which no detection then has.
    """
    left_out = pd.DataFrame(list(excluded), columns=["video", "time_s"]).astype({"time_s": np.float64})
    tables = [ground_truth, detections, left_out]
    coded = [pd.factorize(table["video"].astype(str)) for table in tables]
    for (codes, _), name in zip(coded, ("ground truth", "detections", "exclusions")):
        if (codes < 0).any():
            raise UserError(f"{name}, row {int(np.argmin(codes)) + 1}: no video id; add it or remove the row")
    videos = pd.Index(np.concatenate([np.asarray(names, dtype=object) for _, names in coded])).unique()
    runs = [
        _moments(videos.get_indexer(np.asarray(names, dtype=object))[codes], table)
        for (codes, names), table in zip(coded, tables)
    ]
    # Rows of one image mostly follow each other: only the first of each run is numbered.
    heads = np.concatenate([moments[starts] for moments, starts in runs])
    number, _ = pd.factorize(pd.MultiIndex.from_arrays(heads.T))
    parts = np.split(number.astype(np.int64), np.cumsum([len(starts) for _, starts in runs])[:-1])
    gone = np.zeros(len(number) + 1, dtype=bool)
    gone[parts[2]] = True
    truth, found = (
        np.repeat(np.where(gone[part] & leaves, -1, part), np.diff(starts, append=len(moments)))
        for part, (moments, starts), leaves in zip(parts[:2], runs[:2], (not protocol.counts_excluded, True))
    )
    return truth, found


def _moments(video: np.ndarray, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) int64 video and microsecond of each row, and where runs of equal ones start."""
    micros = np.rint(table["time_s"].to_numpy(np.float64) * MICROSECONDS).astype(np.int64)
    starts = np.flatnonzero(_changes(video) | _changes(micros))
    return np.stack([video, micros], axis=1), starts


def _changes(values: np.ndarray) -> np.ndarray:
    """Whether a value differs from the one before; True for the first."""
    changes = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _runs(detections: pd.DataFrame, image: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each run of `rows` with one image and box, and each row's run."""
    starts = _changes(image[rows])
    for name in BOX_COLUMNS:
        starts |= _changes(detections[name].to_numpy(np.float64)[rows])
    return rows[starts], np.cumsum(starts) - 1


def _columns(action_ids: pd.Series, label_map: LabelMap) -> np.ndarray:
    """Column of each id in the label map, or -1 (no action, or a class that is not evaluated); int64."""
    ids = action_ids.to_numpy(dtype=np.int64, na_value=-1) if len(action_ids) else np.zeros(0, np.int64)
    return pd.Index(label_map.ids, dtype=np.int64).get_indexer(ids).astype(np.int64, copy=False)


def _truth(
    ground_truth: pd.DataFrame, image: np.ndarray, column: np.ndarray, n_classes: int, protocol: Protocol
) -> Truth:
    present = np.flatnonzero((image >= 0) & ground_truth["x1"].notna().to_numpy())
    table = ground_truth[BOX_COLUMNS].iloc[present].assign(image=image[present])
    actor_of_row = np.full(len(image), -1, dtype=np.int64)
    actor_of_row[present] = table.groupby(["image", *BOX_COLUMNS], sort=False).ngroup().to_numpy()
    _, first = np.unique(actor_of_row[present], return_index=True)

    counted = (column >= 0) & (image >= 0)
    rows = np.flatnonzero((column >= 0) & (actor_of_row >= 0))
    # Where a detection overlaps two boxes equally it claims the first: the evaluators' order matters.
    rows = rows[_order(ground_truth, rows, image, n_classes, column, heaped=not protocol.single_precision)]
    return Truth(
        image=image[rows],
        column=column[rows],
        boxes=_boxes(ground_truth, rows),
        actor=actor_of_row[rows],
        positives=np.bincount(column[counted], minlength=n_classes),
        actor_image=image[present[first]],
        actor_boxes=_boxes(ground_truth, present[first]),
    )


def _order(
    ground_truth: pd.DataFrame,
    rows: np.ndarray,
    image: np.ndarray,
    n_classes: int,
    column: np.ndarray,
    heaped: bool,
) -> np.ndarray:
    """Places in `rows` in the evaluators' order: by falling person id, which they read as a score.

    Rows of equal ids are in the order of the file, or as they come out of the official reader's heap.
    """
    numbers = _actor_numbers(ground_truth)[rows]
    position = np.arange(len(rows))
    if heaped:
        same = pd.DataFrame({"image": image[rows], "column": column[rows], "number": numbers})
        tied = same.duplicated(keep=False).to_numpy()
        boxes, ids = _boxes(ground_truth, rows), ground_truth["action_id"].iloc[rows].to_numpy(np.int64)
        places = np.flatnonzero(np.isin(image[rows], image[rows[tied]]))
        by_image = places[np.argsort(image[rows[places]], kind="stable")]
        for part in np.split(by_image, np.flatnonzero(np.diff(image[rows[by_image]])) + 1):
            heap: list[tuple[float, int, float, float, float, float, int]] = []
            for place in part.tolist():
                x1, y1, x2, y2 = boxes[place].tolist()
                heapq.heappush(heap, (numbers[place], ids[place], y1, x1, y2, x2, place))
            position[[entry[-1] for entry in heap]] = np.arange(len(heap))
    return np.lexsort((position, -numbers))


def _actor_numbers(ground_truth: pd.DataFrame) -> np.ndarray:
    """Actor ids as numbers (an absent or non-numeric id counts as 1, as the official reader has it)."""
    if "actor_id" not in ground_truth:
        return np.ones(len(ground_truth))
    codes, texts = pd.factorize(ground_truth["actor_id"])
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").fillna(1.0).to_numpy(np.float64)
    return np.append(numbers, 1.0)[codes]


def _heap_keys(detections: pd.DataFrame, rows: np.ndarray) -> list[np.ndarray]:
    """What follows the score in an entry of the official reader's heap."""
    return [detections[name].to_numpy(np.float64)[rows] for name in ("action_id", "y1", "x1", "y2", "x2")]


def _without_degenerate(
    detections: pd.DataFrame, rows: np.ndarray, box_of_row: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose boxes the protocol takes."""
    x1, y1, x2, y2 = (detections[name].to_numpy(np.float64)[rows] for name in BOX_COLUMNS)
    if not protocol.single_precision:
        solid = (x1 < x2) & (y1 < y2)
        return rows[solid], box_of_row[solid]
    inverted = np.flatnonzero((x1 > x2) | (y1 > y2))
    if len(inverted):
        row = detections.iloc[rows[inverted[0]]]
        box = ",".join(f"{row[name]:g}" for name in BOX_COLUMNS)
        raise InvertedBoxError(
            int(rows[inverted[0]]),
            f"video {row.video}, second {format_time(row.time_s)}: box {box} is inverted ({len(inverted)} such "
            f"row(s)); {protocol.name}'s evaluator stops at such boxes; remove the rows, or take another protocol, "
            "which drops them",
        )
    return rows, box_of_row


def _boxes(table: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """(N, 4) float64 of the given rows."""
    return np.stack([table[name].to_numpy(np.float64)[rows] for name in BOX_COLUMNS], axis=1)
