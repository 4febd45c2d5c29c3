"""Modified non-local blocks over actor features: the part that STO, AIA and the actor-first order share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from acar.models.hr2o import Memory


class VectorAttention(nn.Module):
    """Parameters of S'^i = S^i + dropout(W(relu(norm(sum_j Att^ij V^j)))), and all of it but Att.

    S is (K, channels), keys and values are made of vectors of `source_channels`. Parameters: 2 channels x inner +
    2 source_channels x inner + 2 inner (queries, W, keys, values; no biases; layer norm).
    """

    def __init__(self, channels: int, source_channels: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(source_channels, inner, bias=False)
        self.value = nn.Linear(source_channels, inner, bias=False)
        self.norm = nn.LayerNorm(inner)
        self.out = nn.Linear(inner, channels, bias=False)
        self.dropout = nn.Dropout(dropout)

    def transformed(self, found: Tensor) -> Tensor:
        """What is added to S (K, channels), of sum_j Att^ij V^j (K, inner)."""
        return self.dropout(self.out(F.relu(self.norm(found))))


class ActorAttention(VectorAttention):
    """S'^i = S^i + dropout(W(relu(norm(sum_j Att^ij V^j)))): eq. 1 and 2 with vectors for maps.

    Input: S (K, channels), the actors of all clips; a `Memory` says which j each attends to: the actors of its
    clip, itself included, or a bank's rows, of which (eq. 5) keys and values are then made.
    Parameters: 4 channels inner + 2 inner; queries, keys, values and W without biases, and the layer norm.
    Reading: the block of the long-term feature banks (Wu et al. 2019), which the paper modifies in turn
    ("following [46]"): scaled by 1 / sqrt(inner), layer norm before the ReLU, one linear layer, dropout.
    Without anything to attend to, S' = S.
    """

    def __init__(self, channels: int, inner: int, dropout: float) -> None:
        super().__init__(channels, channels, inner, dropout)

    def project(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (M, inner) of rows (M, channels)."""
        return self.key(rows), self.value(rows)

    def forward(self, actors: Tensor, memory: Memory) -> Tensor:
        """(K, channels) to (K, channels); a bank's rows in `memory` are (M, channels)."""
        q = memory.ask(self.query(actors))[:, None]
        k, v = (padded[:, None] for padded in memory.read(actors, self))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=memory.mask())
        return actors + memory.or_nothing(self.transformed(memory.answer(found[:, 0])))
