"""Head of the relations over actor features (STO, AIA): ACAR-Net's own, with vectors where the maps stand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acar.config import HeadConfig
from acar.models.hr2o import BankBatch, Projected
from acar.models.relations.aia import AIA
from acar.models.relations.sto import STO
from acar.models.roi import roi_features


class ActorHead(nn.Module):
    """Reduction, RoI features, the relation and the classifier of `ActorContextHead`.

    C is `reduce_channels`, d is `hidden_channels`.
    """

    def __init__(self, config: HeadConfig, slow_channels: int, fast_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        c, d = config.reduce_channels, config.hidden_channels
        self.conv_reduce = nn.Conv2d(slow_channels + fast_channels, c, 1, bias=False)
        self.relation = STO(config) if config.relation == "sto" else AIA(config)
        self.fc1 = nn.Linear(c, d, bias=False)
        self.fc2 = nn.Linear(2 * d, n_classes, bias=False)
        nn.init.kaiming_normal_(self.conv_reduce.weight, mode="fan_out", nonlinearity="relu")

    def context(self, slow: Tensor, fast: Tensor) -> Tensor:
        """X (B, C, h, w): temporal means of both pathways' maps, concatenated and reduced (section 3.1)."""
        return self.conv_reduce(torch.cat([slow.mean(2), fast.mean(2)], dim=1))

    def actors(self, context: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor) -> Tensor:
        """A^i (K, C) of boxes (K, 4) in 0..1 of the frame that `context` (B, C, h, w) covers."""
        return roi_features(context, boxes_xyxy_norm, clip_index, self.config.roi_size)

    def project_rows(self, maps: Tensor | None, actors: Tensor | None, grid: tuple[int, int]) -> Projected:
        """What the blocks make of a bank's rows A (M, C) alone (eq. 5); maps and their grid are not read."""
        assert isinstance(self.relation, STO) and actors is not None, "a bank without actor features"
        return self.relation.project_rows(actors.to(self.fc1.weight.dtype))

    def reason(
        self, context: Tensor, actors: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """Logits (K, classes) of A (K, C) in contexts X (B, C, h, w)."""
        related = self.relation(actors, context, clip_index, bank)
        return self.fc2(torch.cat([F.relu(self.fc1(actors)), related], dim=1))

    def forward(
        self, slow: Tensor, fast: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor,
        bank: BankBatch | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (K, classes) from backbone maps slow (B, Cs, Ts, h, w) and fast (B, Cf, Tf, h, w)."""
        context = self.context(slow, fast)
        return self.reason(context, self.actors(context, boxes_xyxy_norm, clip_index), clip_index, bank)
