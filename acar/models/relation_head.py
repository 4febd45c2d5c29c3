"""What all heads with a relation share: reduction, RoI features and classifier (paper section 3.1, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.config import HeadConfig
from acar.models.hr2o import BankBatch
from acar.models.precision import Float32Linear
from acar.models.roi import roi_features


def temporal_means(maps: Sequence[Tensor]) -> Tensor:
    """Means over time of a backbone's maps (B, C_p, T_p, h, w), one a pathway, concatenated: (B, sum C_p, h, w)."""
    return torch.cat([pathway.mean(2) for pathway in maps], dim=1)


class RelationHead(nn.Module):
    """Backbone maps and boxes to logits; what lies between A^i and the classifier is the subclass's.

    Subclasses make their layers in `_build` and relate in `reason`. C is `reduce_channels`, d is `hidden_channels`.
    The steps are methods, so that a caller can stop between them.
    """

    def __init__(self, config: HeadConfig, channels: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.config = config
        c, d = config.reduce_channels, config.hidden_channels
        self.conv_reduce = nn.Conv2d(sum(channels), c, 1, bias=False)
        self._build()
        self.fc1 = nn.Linear(c, d, bias=False)
        self.fc2 = Float32Linear(2 * d, n_classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _build(self) -> None:
        """Make the layers between reduction and classifier, which is where the released networks list them."""
        raise NotImplementedError

    def context(self, maps: Sequence[Tensor]) -> Tensor:
        """X (B, C, h, w): temporal means of the pathways' maps, concatenated and reduced (section 3.1)."""
        return self.conv_reduce(temporal_means(maps))

    def actors(self, context: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor) -> Tensor:
        """A^i (K, C) of boxes (K, 4) in 0..1 of the frame that `context` (B, C, h, w) covers."""
        return roi_features(context, boxes_xyxy_norm, clip_index, self.config.roi_size)

    def reason(
        self, context: Tensor, actors: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """Logits (K, classes) of A (K, C) in contexts X (B, C, h, w)."""
        raise NotImplementedError

    def joined(self, actors: Tensor, related: Tensor) -> Tensor:
        """Logits (K, classes) of A (K, C) and of what the relation makes of them (K, d)."""
        return self.fc2(torch.cat([F.relu(self.fc1(actors)), related], dim=1))

    def forward(
        self, maps: Sequence[Tensor], boxes_xyxy_norm: Tensor, clip_index: Tensor,
        bank: BankBatch | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (K, classes) from backbone maps, (B, C_p, T_p, h, w) a pathway."""
        context = self.context(maps)
        return self.reason(context, self.actors(context, boxes_xyxy_norm, clip_index), clip_index, bank)
