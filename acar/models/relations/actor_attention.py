"""Modified non-local block over actor features: the part that STO, AIA and the actor-first order share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from acar.models.hr2o import Memory


class ActorAttention(nn.Module):
    """S'^i = S^i + dropout(W(relu(norm(sum_j Att^ij V^j)))): eq. 1 and 2 with vectors for maps.

    Input: S (K, channels), the actors of all clips; a `Memory` says which j each attends to: the actors of its
    clip, itself included, or a bank's rows, of which (eq. 5) keys and values are then made.
    Parameters: 4 channels x inner + 2 inner (queries, keys, values, W; no biases; layer norm).
    Reading: the block of the long-term feature banks (Wu et al. 2019), which the paper modifies in turn
    ("following [46]"): scaled by 1 / sqrt(inner), layer norm before the ReLU, one linear layer, dropout.
    Without anything to attend to, S' = S.
    """

    def __init__(self, channels: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)
        self.norm = nn.LayerNorm(inner)
        self.out = nn.Linear(inner, channels, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, actors: Tensor, memory: Memory) -> Tensor:
        """(K, channels) to (K, channels); `memory.maps` are rows (M, channels) or None."""
        source = memory.source(actors)
        q = memory.queries.pad(self.query(actors))[:, None]
        k = memory.keys.pad(memory.entries(self.key(source)))[:, None]
        v = memory.keys.pad(memory.entries(self.value(source)))[:, None]
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=memory.mask())
        found = memory.queries.unpad(found[:, 0])
        found = self.dropout(self.out(F.relu(self.norm(found))))
        if memory.maps is not None:  # a window can be empty
            found = found.masked_fill(~memory.not_empty()[:, None], 0.0)
        return actors + found
