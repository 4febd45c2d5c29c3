"""Scores of a video's actors by a trained network: over the views of each clip, with the bank's rows to match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acar.config import ModelConfig, PredictConfig, WindowConfig
from acar.data.clip_dataset import Clips, network_input
from acar.data.tables import LabelMap
from acar.data.video_windows import ReadOnce, VideoWindows
from acar.inference.views import View, mean_logits, views_of
from acar.models.grid import encoded_grid, feature_grid
from acar.models.hr2o import Projected
from acar.models.loss import scores


@dataclass
class Scorer:
    """A trained network, its device, the exclusive classes' columns, and the bank it reads (None for stage 1)."""

    net: Any
    device: torch.device
    pose: Tensor
    label_map: LabelMap
    settings: PredictConfig
    bank: Any = None
    window: WindowConfig | None = None

    def of(self, record: Any) -> VideoScorer:
        """For the clips of one video, a row of the videos table."""
        return VideoScorer(self, record)


class VideoScorer:
    """Scores the clips of one video, whose seconds ascend from call to call.

    Each view has the bank's rows projected for its own grid and direction, once a row; they are read once for all.
    """

    def __init__(self, scorer: Scorer, record: Any) -> None:
        self.scorer = scorer
        self.views = views_of(scorer.settings, int(record["height"]), int(record["width"]))
        self._windows: dict[View, VideoWindows] = {}
        if scorer.bank is not None and scorer.window is not None:
            bank, video = ReadOnce(scorer.bank), str(record["video"])
            for view in self.views:
                project = _projection(scorer.net, view)
                self._windows[view] = VideoWindows(bank, video, scorer.window, project, scorer.device)

    @torch.inference_mode()
    def scores(self, clips: Clips, times_s: Sequence[float]) -> np.ndarray:
        """Scores (K, classes) float32 of the actors of clips at `times_s`, none before those of earlier calls.

        Raises:
            UserError: as `VideoWindows.batch`, or a view is too small for the network.
        """
        scorer = self.scorer
        model: ModelConfig = scorer.net.config
        frames = network_input(clips.frames, model.backbone, scorer.device)
        clip_index = clips.clip_index.to(scorer.device)

        def logits(view: View) -> Tensor:
            bank = self._windows[view].batch(times_s) if self._windows else None
            boxes = view.boxes(clips.boxes_xyxy_norm).to(scorer.device)
            return scorer.net(view.frames(frames), boxes, clip_index, bank=bank)

        found = scores(mean_logits(self.views, logits), scorer.pose.to(scorer.device))
        return found.cpu().numpy()


def _projection(net: Any, view: View) -> Any:
    """What the network makes of a bank's rows for the clips of a view; see `VideoWindows`."""
    model: ModelConfig = net.config
    grid = encoded_grid(model.head, *feature_grid(model.backbone, view.height_px, view.width_px))

    def project(maps: Tensor | None, actors: Tensor | None) -> Projected:
        seen = None if maps is None else view.maps(maps, grid)
        return net.project_rows(seen, actors, view.height_px, view.width_px)

    return project
