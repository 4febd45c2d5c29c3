"""Head of the relations over actor features (STO, AIA): ACAR-Net's own, with vectors where the maps stand."""

from __future__ import annotations

from torch import Tensor

from acar.models.hr2o import BankBatch, Projected
from acar.models.relation_head import RelationHead
from acar.models.relations.aia import AIA
from acar.models.relations.sto import STO


class ActorHead(RelationHead):
    """Reduction, RoI features and classifier of `RelationHead` around a relation over actor features."""

    def _build(self) -> None:
        self.relation = STO(self.config) if self.config.relation == "sto" else AIA(self.config)

    def project_rows(self, maps: Tensor | None, actors: Tensor | None, grid: tuple[int, int]) -> Projected:
        """What the blocks make of a bank's rows A (M, C) alone (eq. 5); maps and their grid are not read."""
        assert isinstance(self.relation, STO) and actors is not None, "a bank without actor features"
        return self.relation.project_rows(actors.to(self.fc1.weight.dtype))

    def reason(
        self, context: Tensor, actors: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """Logits (K, classes) of A (K, C) in contexts X (B, C, h, w)."""
        return self.joined(actors, self.relation(actors, context, clip_index, bank))
