"""AIA without memory: actor-actor and actor-context relations in turn (table 1a, after Tang et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from acar.config import HeadConfig
from acar.models.hr2o import BankBatch, Memory, Ragged
from acar.models.relations.actor_attention import ActorAttention, VectorAttention


class ContextAttention(VectorAttention):
    """S'^i = S^i + dropout(W(relu(norm(sum_xy Att^i_xy V_xy)))): actors attend to the cells of their clip.

    Keys and values are linear in X_xy in R^C. Parameters: 2 C d + 2 d^2 + 2 d.
    """

    def __init__(self, context_channels: int, channels: int, dropout: float) -> None:
        super().__init__(channels, context_channels, channels, dropout)

    def forward(self, actors: Tensor, cells: Tensor, queries: Ragged) -> Tensor:
        """(K, d) to (K, d); `cells` are (B, h*w, C)."""
        q = queries.pad(self.query(actors))
        found = F.scaled_dot_product_attention(q, self.key(cells), self.value(cells))
        return actors + self.transformed(queries.unpad(found))


class AIA(nn.Module):
    """Blocks of actor-actor and of actor-context attention in series: (K, C) to (K, d).

    Equation: `actor_attention`, then `ContextAttention`, repeated `hr2o_depth` times, on S^i = W_s A^i.
    Inputs: A (K, C) and X (B, C, h, w); no bank.
    Parameters: C d + depth (2 C d + 6 d^2 + 4 d).
    Reading: AIA's interaction blocks are non-local blocks between persons (P), to objects (O) and to a memory (M),
    best stacked in series P, O, M, P, O, M. The paper adapts it "w/o memory", on its own baseline, which has no
    object detector; its text names "both actor and context relations". So M goes, the "objects" are all cells of
    the context map X, and the series is P, O, P, O; AIA's dense connections between blocks are left out.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        c, d, depth = config.reduce_channels, config.hidden_channels, config.hr2o_depth
        self.reduce = nn.Linear(c, d, bias=False)
        self.actor_blocks = nn.ModuleList(ActorAttention(d, d, config.dropout) for _ in range(depth))
        self.context_blocks = nn.ModuleList(ContextAttention(c, d, config.dropout) for _ in range(depth))

    def forward(
        self, actors: Tensor, context: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """S' (K, d) of A (K, C) in clips `clip_index` (K,) of contexts (B, C, h, w)."""
        assert bank is None, "AIA is without memory here"
        memory = Memory.over(clip_index, len(context))
        cells = context.flatten(2).transpose(1, 2)
        state = self.reduce(actors)
        for of_actors, of_context in zip(self.actor_blocks, self.context_blocks, strict=True):
            state = of_context(of_actors(state, memory), cells, memory.queries)
        return state
