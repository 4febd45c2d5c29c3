"""Baseline of tables 1a and 1b: a linear classifier on the actor feature, without any relation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from acar.config import HeadConfig
from acar.models.hr2o import BankBatch
from acar.models.precision import Float32Linear
from acar.models.relation_head import temporal_means
from acar.models.roi import roi_features


class LinearHead(nn.Module):
    """Logits W A^i; parameter names as released.

    Equation: none; "the video backbone, actor detector and one-layer action classifier" (table 1).
    Inputs: the pathways' maps and the boxes; no bank.
    Parameters: width classes; 2304 x 60 on AVA, no bias.
    Reading: the released linear head. RoIAlign and maximum on each pathway's temporal mean as it is, 2048 and 256
    channels: without the other heads' reduction to C channels.
    """

    def __init__(self, config: HeadConfig, channels: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.fc = Float32Linear(sum(channels), n_classes, bias=False)

    def forward(
        self, maps: Sequence[Tensor], boxes_xyxy_norm: Tensor, clip_index: Tensor,
        bank: BankBatch | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (K, classes) from backbone maps, (B, C_p, T_p, h, w) a pathway."""
        assert bank is None, "the baseline reads no bank"
        return self.fc(roi_features(temporal_means(maps), boxes_xyxy_norm, clip_index, self.config.roi_size))
