"""HR2O as an average, "Avg" of table 1c."""

from __future__ import annotations

from torch import Tensor, nn

from acar.models.hr2o import Memory, as_maps, by_location


class Average(nn.Module):
    """F'^i = F^i + H^i with H^i = 1/N sum_j F^j over the actors of the clip, itself included.

    Equation: section 4.2, "HR2O Design", fused as in eq. 2 (and 4).
    Inputs: F (K, d, h, w), the actors' first-order maps; with a bank the mean is over its rows (M, d, h, w).
    Parameters: 0.
    Reading: the paper's sum over i on the right must run over j. `hr2o_depth` repeats it literally; table 1c's row
    is depth 1. Without anything to average, F' = F.
    """

    def project(self, rows: Tensor) -> tuple[Tensor]:
        """The rows themselves, (M, d, h, w) as (M, h*w, d)."""
        return (by_location(rows),)

    def forward(self, features: Tensor, memory: Memory) -> Tensor:
        """(K, d, h, w) to (K, d, h, w)."""
        (entries,) = memory.entries(features, self)
        keys = memory.keys
        sums = entries.new_zeros((keys.n_clips, *entries.shape[1:])).index_add(0, keys.clip_index, entries)
        means = sums / keys.valid.sum(1).clamp(min=1)[:, None, None]
        return features + as_maps(means, features).index_select(0, memory.queries.clip_index)
