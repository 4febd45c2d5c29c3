"""Views of a clip at inference: its frames, boxes and bank maps, scaled and mirrored (the paper's "++", table 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from acar.config import PredictConfig
from acar.data.clip_dataset import flip_boxes
from acar.data.decode import fitted_size


@dataclass(frozen=True)
class View:
    """One view of a video's clips.

    Attributes:
        height_px, width_px: of its frames.
        flip: mirrored left to right.
    """

    height_px: int
    width_px: int
    flip: bool = False

    def frames(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, T, H, W), normalised, at the view's size: bilinear, antialiased where they shrink."""
        size = (self.height_px, self.width_px)
        if frames.shape[-2:] != size:
            images = F.interpolate(frames.flatten(1, 2), size, mode="bilinear", antialias=True)
            frames = images.unflatten(1, frames.shape[1:3])
        return frames.flip(-1) if self.flip else frames

    def boxes(self, boxes_xyxy_norm: Tensor) -> Tensor:
        """Boxes (K, 4) in 0..1 of the clip's frame, on the CPU, to 0..1 of the view's: scaling moves none."""
        return torch.from_numpy(flip_boxes(boxes_xyxy_norm.numpy())) if self.flip else boxes_xyxy_norm

    def maps(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Bank maps (M, d, h, w) as the view's queries must meet them: on its `grid` (h', w'), and mirrored with it.

        The bank has the maps of unflipped clips at the ingested size (section 3.3). M may be 0.
        """
        if tuple(maps.shape[-2:]) != grid:
            maps = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
        return maps.flip(-1) if self.flip else maps


def views_of(settings: PredictConfig, height_px: int, width_px: int) -> list[View]:
    """The views of a video's clips: each of `predict.short_sides_px`, and with `predict.flip` its mirror image.

    Args:
        settings: of the prediction; without any short side the clips are taken as they are.
        height_px, width_px: of the ingested video. A view's sides are scaled and rounded as ingest does it.
    """
    sizes = [(height_px, width_px)]
    if settings.short_sides_px is not None:
        fitted = (fitted_size(width_px, height_px, side) for side in settings.short_sides_px)
        sizes = [(height, width) for width, height in fitted]
    flips = (False, True) if settings.flip else (False,)
    return [View(height, width, flip) for height, width in sizes for flip in flips]


def mean_logits(views: Sequence[View], logits: Callable[[View], Tensor]) -> Tensor:
    """Mean over the views of each box's logits (K, classes), which is then activated, as in the released code.

    Args:
        views: one or more.
        logits: of a view; its actors in the order of the clips' own boxes.
    """
    total = logits(views[0])
    for view in views[1:]:
        total = total + logits(view)
    return total / len(views)
