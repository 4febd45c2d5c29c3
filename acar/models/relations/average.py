"""HR2O as an average, "Avg" of table 1c."""

from __future__ import annotations

from torch import Tensor, nn

from acar.models.hr2o import Memory


class Average(nn.Module):
    """F'^i = F^i + H^i with H^i = 1/N sum_j F^j over the actors of the clip, itself included.

    Equation: section 4.2, "HR2O Design", fused as in eq. 2 (and 4).
    Inputs: F (K, d, h, w), the actors' first-order maps; with a bank the mean is over its rows (M, d, h, w).
    Parameters: none.
    Reading: the paper's sum over i on the right must run over j. `hr2o_depth` repeats it literally; table 1c's row
    is depth 1. Without anything to average, F' = F.
    """

    def forward(self, features: Tensor, memory: Memory) -> Tensor:
        """(K, d, h, w) to (K, d, h, w)."""
        entries = memory.entries(memory.source(features))
        keys = memory.keys
        sums = entries.new_zeros((keys.n_clips, *entries.shape[1:])).index_add(0, keys.clip_index, entries)
        counts = keys.valid.sum(1).clamp(min=1).view(-1, *[1] * (entries.dim() - 1))
        return features + (sums / counts).index_select(0, memory.queries.clip_index)
