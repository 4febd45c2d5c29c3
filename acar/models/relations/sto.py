"""STO: actor-actor relations within the clip (table 1a, after Wu et al. 2019), and LFB by a bank (eq. 5)."""

from __future__ import annotations

from torch import Tensor, nn

from acar.config import HeadConfig
from acar.models.hr2o import BankBatch, Memory, Projected, project_rows
from acar.models.relations.actor_attention import ActorAttention


class STO(nn.Module):
    """Stacked modified non-local blocks over the actor features of a clip: (K, C) to (K, d).

    Equation: 1 and 2 of the paper with S^i = W_s A^i in R^d for F^i, no context.
    Inputs: A (K, C); with `memory: lfb` the bank's actor features (M, C), which then take the place of keys and
    values. The context map is taken and not read.
    Parameters: C d + depth (4 d^2 + 2 d).
    Reading: the paper calls STO "a degraded version of LFB that only captures actor interactions within the
    current short clip", on its own baseline. So the operator is LFB's non-local one fed with the clip's own
    actors, d the paper's 512 (also LFB's), depth `hr2o_depth` (2 in both), and the classifier ACAR-Net's, with S'
    where the pooled maps stand. Actors and bank rows share the reduction W_s: they are the same kind of feature.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        c, d = config.reduce_channels, config.hidden_channels
        self.reduce = nn.Linear(c, d, bias=False)
        self.blocks = nn.ModuleList(ActorAttention(d, d, config.dropout) for _ in range(config.hr2o_depth))

    def project_rows(self, actors: Tensor) -> Projected:
        """Keys and values of a bank's actor features (M, C)."""
        rows = self.reduce(actors)
        return project_rows(self.blocks, rows)

    def forward(
        self, actors: Tensor, context: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """S' (K, d) of A (K, C) in clips `clip_index` (K,) of contexts (B, C, h, w)."""
        rows = None
        if bank is not None and bank.projected is None:
            assert bank.actors is not None, "a bank without actor features"
            rows = self.reduce(bank.actors.to(actors.dtype))
        memory = Memory.over(clip_index, len(context), bank, rows)
        state = self.reduce(actors)
        for block in self.blocks:
            state = block(state, memory)
        return state
