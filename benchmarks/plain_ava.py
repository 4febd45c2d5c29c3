"""AVA's evaluation written out in loops, image by image and row by row: slow, and short enough to check by eye.

The benchmark and the tests hold the vectorised evaluation against it. It knows three protocols: `released`,
`activitynet` and `mmaction2` (docs/evaluation.md). Rows of equal score count in the order given.
"""

from __future__ import annotations

import csv
import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

Image = tuple[str, float]
Box = tuple[float, float, float, float]
TruthRow = tuple[str, float, Box | None, int | None, str]
"""Video, time, box (None: nobody), action (None: none), person id."""
DetectionRow = tuple[str, float, Box, int, float]


def plain_aps(
    truth: Iterable[TruthRow],
    detections: Iterable[DetectionRow],
    classes: Collection[int],
    excluded: Collection[Image] = (),
    iou: float = 0.5,
    protocol: str = "released",
    rows_per_image: int = 50,
) -> dict[int, float | None]:
    """AP of each class; None where it is undefined."""
    peer = protocol == "mmaction2"
    positives: dict[int, int] = defaultdict(int)
    annotated: set[Image] = set()
    truth_of: dict[Image, list[tuple[float, int, Box]]] = defaultdict(list)
    heaps: dict[Image, list] = defaultdict(list)
    for video, time, box, action, person in truth:
        image = (video, time)
        if action in classes or not peer:
            annotated.add(image)
        if action not in classes or box is None or action is None:
            continue
        if image not in excluded or peer:
            positives[action] += 1
        if peer:
            truth_of[image].append((person_number(person), action, box))
        else:
            x1, y1, x2, y2 = box
            heapq.heappush(heaps[image], (person_number(person), action, y1, x1, y2, x2))
    for image, heap in heaps.items():
        truth_of[image] = [(number, action, (x1, y1, x2, y2)) for number, action, y1, x1, y2, x2 in heap]
    for rows in truth_of.values():
        rows.sort(key=lambda row: -row[0])

    images = grouped(detections, classes, None if peer else rows_per_image)
    outcomes: dict[int, list[tuple[float, int, bool]]] = defaultdict(list)
    for image, found in images.items():
        if image in excluded or (protocol != "released" and image not in annotated):
            continue
        for action in {row[1] for row in found}:
            wanted = [box for _, of, box in truth_of.get(image, []) if of == action]
            own = [(score, number, box) for score, of, number, box in found if of == action]
            outcomes[action] += matched(own, wanted, iou, peer)
    return {
        action: area(outcomes[action], positives[action])
        if positives[action] and (outcomes[action] or not peer)
        else None
        for action in classes
    }


def person_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def grouped(
    detections: Iterable[DetectionRow], classes: Collection[int], most: int | None
) -> dict[Image, list[tuple[float, int, int, Box]]]:
    """(score, action, number, box) of each image's rows, at most `most` of the best."""
    heaps: dict[Image, list] = defaultdict(list)
    for number, (video, time, (x1, y1, x2, y2), action, score) in enumerate(detections):
        if action not in classes:
            continue
        heap, entry = heaps[(video, time)], (score, action, y1, x1, y2, x2, -number)
        if most is None or len(heap) < most:
            heapq.heappush(heap, entry)
        elif score > heap[0][0]:
            heapq.heapreplace(heap, entry)
    return {
        image: [(score, action, -number, (x1, y1, x2, y2)) for score, action, y1, x1, y2, x2, number in heap]
        for image, heap in heaps.items()
    }


def matched(
    found: list[tuple[float, int, Box]], wanted: list[Box], iou: float, peer: bool
) -> list[tuple[float, int, bool]]:
    """(score, number, whether true) of the rows of one image and class."""
    taken: set[int] = set()
    outcomes = []
    for score, number, box in sorted(found, key=lambda row: (-row[0], row[1])):
        if not peer and (box[0] >= box[2] or box[1] >= box[3]):
            continue
        best, best_place = -1.0, -1
        for place, other in enumerate(wanted):
            overlap = peer_overlap(box, other) if peer else box_overlap(box, other)
            if overlap > best:
                best, best_place = overlap, place
        hit = best >= iou and best_place not in taken
        if hit:
            taken.add(best_place)
        outcomes.append((score, number, hit))
    return outcomes


def box_overlap(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = height * width
    return both / ((a[3] - a[1]) * (a[2] - a[0]) + (b[3] - b[1]) * (b[2] - b[0]) - both)


def peer_overlap(a: Box, b: Box) -> float:
    """The same with sides and areas in single precision; 0 for two boxes without area."""
    one, two = np.array(a, np.float32), np.array(b, np.float32)
    width = max(0.0, float(min(one[2], two[2]) - max(one[0], two[0])))
    height = max(0.0, float(min(one[3], two[3]) - max(one[1], two[1])))
    areas = (one[3] - one[1]) * (one[2] - one[0]) + (two[3] - two[1]) * (two[2] - two[0])
    union = float(areas) - height * width
    return height * width / union if union else 0.0


def area(outcomes: list[tuple[float, int, bool]], n_positives: int) -> float:
    """Under the precision envelope."""
    outcomes = sorted(outcomes, key=lambda row: (-row[0], row[1]))
    hits, precision = 0, []
    for rank, (_, _, hit) in enumerate(outcomes, start=1):
        hits += hit
        precision.append(hits / rank)
    best, total = 0.0, 0.0
    for value, (_, _, hit) in zip(reversed(precision), reversed(outcomes)):
        best = max(best, value)
        total += best * hit
    return total / n_positives


def read_truth(path: Path) -> list[TruthRow]:
    with open(path, newline="") as stream:
        return [
            (row[0], float(row[1]), as_box(row[2:6]), int(row[6]) if row[6:7] not in ([], [""]) else None,
             row[7] if len(row) > 7 else "")
            for row in csv.reader(stream)
        ]  # fmt: skip


def read_rows(path: Path) -> list[DetectionRow]:
    with open(path, newline="") as stream:
        return [
            (row[0], float(row[1]), as_box(row[2:6]) or (0.0, 0.0, 0.0, 0.0), int(row[6]),
             float(row[7]) if len(row) > 7 else 1.0)
            for row in csv.reader(stream)
        ]  # fmt: skip


def read_images(path: Path) -> set[Image]:
    with open(path, newline="") as stream:
        return {(row[0], float(row[1])) for row in csv.reader(stream)}


def as_box(cells: list[str]) -> Box | None:
    if not cells or cells == ["", "", "", ""]:
        return None
    x1, y1, x2, y2 = map(float, cells)
    return x1, y1, x2, y2
