"""Key frames with boxes, and the relation maps Att^{i,j} over them (paper figure 6), as inline pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

import numpy as np
from matplotlib import colormaps
from PIL import Image

from acar.detection.boxes import iou_matrix
from acar.report.collect import Example

KEY_FRAME_SIDE_PX = 480
SUPPORT_SIDE_PX = 320
JPEG_QUALITY = 80
TOP_CLASSES = 3
MAX_BOXES = 6
MATCH_IOU = 0.5
HEAT = colormaps["inferno"]


@dataclass(frozen=True)
class Box:
    """A rectangle in the units of its picture, with the class of its stroke in page.css and a short label."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data URI, its size in px, and the boxes drawn over it as vectors."""

    uri: str
    width: int
    height: int
    boxes: list[Box] = field(default_factory=list)


@dataclass(frozen=True)
class ActorScores:
    """What the network says of one box: (class, score in 0..1, labelled so?), highest first.

    `labelled` is false where no annotated box overlaps; `missed` are its annotated classes not among `top`.
    """

    label: str
    is_actor_of_interest: bool
    labelled: bool
    top: list[tuple[str, float, bool]]
    missed: list[tuple[str, float]]


def key_frame(example: Example, classes: list[str]) -> tuple[Picture, list[ActorScores], int]:
    """The key frame with its boxes, what was predicted for each, and how many boxes were left out.

    The actor of interest comes first, then the boxes with the highest class scores, `MAX_BOXES` in all.
    """
    order = [int(i) for i in np.argsort(-example.scores.max(axis=1, initial=0.0), kind="stable")]
    if example.actor is not None:
        order = [example.actor, *(i for i in order if i != example.actor)]
    shown = order[:MAX_BOXES]
    truth = matches(example.boxes_xyxy_norm, example.gt_boxes_xyxy_norm)
    rows = [(box, "truth", "") for box in example.gt_boxes_xyxy_norm]
    actors = []
    for number, i in enumerate(shown, start=1):
        interest = i == example.actor
        rows.append((example.boxes_xyxy_norm[i], "actor" if interest else "other", str(number)))
        targets = example.gt_targets[truth[i]] if truth[i] >= 0 else None
        actors.append(_scores(str(number), interest, example.scores[i], targets, classes))
    return picture(example.frame, KEY_FRAME_SIDE_PX, rows), actors, len(order) - len(shown)


def attention_strip(example: Example) -> list[tuple[Picture, float, float]]:
    """Pictures of figure 6, each with its second and weight; empty if the example has no attention.

    First the key frame with the actor of interest (weight NaN), then each supporting actor at its own
    second under the heat map Att^{i,j}. One colour scale holds for the J maps of the example.
    """
    if len(example.attention) == 0:
        return []
    low, high = float(np.nanmin(example.attention)), float(np.nanmax(example.attention))
    interest = [] if example.actor is None else [(example.boxes_xyxy_norm[example.actor], "actor", "")]
    strip = [(picture(example.frame, SUPPORT_SIDE_PX, interest), example.time_s, float("nan"))]
    for j, support in enumerate(example.support):
        frame = heat_overlay(example.support_frames[j], example.attention[j], low, high)
        box = [(example.support_boxes_xyxy_norm[j], "support", "")]
        strip.append((picture(frame, SUPPORT_SIDE_PX, box), support["time_s"], support["weight"]))
    return strip


def heat_overlay(frame: np.ndarray, attention_hw: np.ndarray, low: float, high: float) -> np.ndarray:
    """Blend a map (h, w) over an RGB frame (H, W, 3) uint8, bilinearly upsampled; `low`..`high` is the scale.

    Where the weight is lowest the frame shows through in grey, where it is highest the heat covers it.
    """
    span = high - low if high > low else 1.0
    unit = np.clip((np.nan_to_num(attention_hw, nan=low) - low) / span, 0, 1).astype(np.float32)
    size = (frame.shape[1], frame.shape[0])
    unit = np.asarray(Image.fromarray(unit).resize(size, Image.Resampling.BILINEAR))[..., None]
    grey = np.asarray(Image.fromarray(frame).convert("L").convert("RGB"), np.float32)
    heat = HEAT(unit[..., 0])[..., :3].astype(np.float32) * 255
    alpha = 0.25 + 0.5 * unit
    return np.round(grey * (1 - alpha) + heat * alpha).clip(0, 255).astype(np.uint8)


def picture(frame: np.ndarray, side_px: int, boxes: list[tuple[np.ndarray, str, str]]) -> Picture:
    """A frame (H, W, 3) uint8 shrunk to at most `side_px`; boxes are (xyxy in 0..1, kind, label)."""
    image = Image.fromarray(frame)
    image.thumbnail((side_px, side_px))
    width, height = image.size
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, width, height, [_box(b, kind, label, width, height) for b, kind, label in boxes])


def matches(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """For each of (N, 4) boxes the row of `truth` (G, 4) it overlaps most, if at IoU 0.5 or more, else -1."""
    if len(truth) == 0:
        return np.full(len(boxes), -1)
    iou = iou_matrix(boxes, truth)
    best = iou.argmax(axis=1)
    return np.where(iou[np.arange(len(boxes)), best] >= MATCH_IOU, best, -1)


def _scores(
    label: str, interest: bool, scores: np.ndarray, targets: np.ndarray | None, classes: list[str]
) -> ActorScores:
    order = [int(c) for c in np.argsort(-scores, kind="stable")]
    true = set() if targets is None else set(np.flatnonzero(targets).tolist())
    top = [(_name(classes, c), float(scores[c]), c in true) for c in order[:TOP_CLASSES]]
    missed = [(_name(classes, c), float(scores[c])) for c in order[TOP_CLASSES:] if c in true]
    return ActorScores(label, interest, targets is not None, top, missed)


def _name(classes: list[str], column: int) -> str:
    return classes[column] if column < len(classes) else f"class {column}"


def _box(xyxy_norm: np.ndarray, kind: str, label: str, width: int, height: int) -> Box:
    x1, y1, x2, y2 = (float(v) for v in np.clip(np.nan_to_num(xyxy_norm), 0, 1))
    return Box(round(x1 * width, 1), round(y1 * height, 1), round((x2 - x1) * width, 1),
               round((y2 - y1) * height, 1), kind, label)  # fmt: skip
