"""The actor-context-actor relation head: from backbone maps and boxes to logits (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acar.models.first_order import encode_pairs
from acar.models.hr2o import HR2O, BankBatch, Memory, Projected, check_map_rows, project_rows
from acar.models.relation_head import RelationHead
from acar.models.relations.actor_attention import ActorAttention
from acar.models.relations.average import Average
from acar.models.relations.lfb import ActorRowsAsMaps, distinct_grid, distinct_locations
from acar.models.relations.relation_network import RelationNetwork


class ActorContextHead(RelationHead):
    """RoI features, first-order encoder, HR2O blocks and classifier; parameter names as released.

    Without a block (`relation: acrn`, or `hr2o_depth: 0`) this is ACRN: the classifier takes the pooled first-order
    maps F^i. With `order: actor_first` the blocks relate the actor features A^i, and the encoder combines what
    comes out, A'^i, with the context; the classifier then takes A'^i too (reading of section 4.2: self-attention
    between actor features "before incorporating context features").

    Equation: figure 2 and section 3.2. Inputs: the pathways' maps, the boxes, and a bank where `memory` says so.
    Parameters: width C + 3 C d + 9 d^2 + 2 d classes + blocks; without biases, `encoder_norm: group` has 4 d more.
    """

    def _build(self) -> None:
        config = self.config
        c, d = config.reduce_channels, config.hidden_channels
        self.conv1 = nn.Conv2d(2 * c, d, 1, bias=False)
        self.conv2 = nn.Conv2d(d, d, 3, bias=False)
        grouped = config.encoder_norm == "group"
        self.norm1 = nn.GroupNorm(1, d) if grouped else nn.Identity()
        self.norm2 = nn.GroupNorm(1, d) if grouped else nn.Identity()
        depth = 0 if config.relation == "acrn" else config.hr2o_depth
        self.hr2o = nn.ModuleList(self._block() for _ in range(depth))
        if config.memory == "lfb" and self._relates_maps():
            self.lfb = ActorRowsAsMaps(c, d)

    def _block(self) -> nn.Module:
        """One block of the config's order and design (tables 1c, 1d)."""
        config = self.config
        c, d = config.reduce_channels, config.hidden_channels
        if config.order == "actor_first":
            return ActorAttention(c, d, config.dropout)
        if config.hr2o_design == "avg":
            return Average()
        if config.hr2o_design == "rn":
            return RelationNetwork(c, d, config.downsample == "max2x2")
        return HR2O(d, config.hr2o_mlp_kernel, config.dropout)

    def _relates_maps(self) -> bool:
        return self.config.order == "context_first" and self.config.hr2o_design != "rn"

    def encode(self, context: Tensor, actors: Tensor, clip_index: Tensor) -> Tensor:
        """F^i (K, d, h', w') of actors (K, C) in contexts (B, C, h, w); see `grid.grid_of` for (h', w')."""
        return encode_pairs(
            self.conv1, self.norm1, self.conv2, self.norm2, context, actors, clip_index,
            downsample=self.config.downsample == "max2x2",
        )  # fmt: skip

    def relate(self, maps: Tensor, clip_index: Tensor, n_clips: int, bank: BankBatch | None = None) -> Tensor:
        """HR2O blocks on F (K, d, h', w'); with a bank, every block reads its rows again (eq. 5)."""
        memory = self._memory(maps, clip_index, n_clips, bank)
        for block in self.hr2o:
            maps = block(maps, memory)
        return maps

    def relate_means(
        self, maps: Tensor, clip_index: Tensor, n_clips: int, bank: BankBatch | None = None
    ) -> Tensor:
        """Spatial means (K, d) of what `relate` returns; the last block of HR2O need not make its maps for them."""
        last = self.hr2o[-1] if len(self.hr2o) else None
        if not isinstance(last, HR2O):
            return self.relate(maps, clip_index, n_clips, bank).mean((2, 3))
        memory = self._memory(maps, clip_index, n_clips, bank)
        for block in self.hr2o[:-1]:
            maps = block(maps, memory)
        return last.mean(maps, memory)

    def _memory(self, maps: Tensor, clip_index: Tensor, n_clips: int, bank: BankBatch | None) -> Memory:
        if bank is None or self.config.memory != "lfb":
            return Memory.of(clip_index, n_clips, bank, maps)
        h, w = maps.shape[2:]
        rows = None
        if bank.projected is None:
            assert bank.actors is not None, "a bank without actor features"
            rows = self.lfb(bank.actors.to(maps.dtype), *distinct_grid(h, w))
        memory = Memory.over(clip_index, n_clips, bank, rows)
        return memory.at(distinct_locations(h, w, maps.device))

    def project_rows(self, maps: Tensor | None, actors: Tensor | None, grid: tuple[int, int]) -> Projected:
        """What the blocks make of a bank's rows L (M, d, h', w') or A (M, C), for clips whose maps have `grid`.

        Every block reads the same rows (eq. 5), so this depends on no clip: in prediction it is done once a row.

        Raises:
            UserError: the maps have another grid or number of channels.
        """
        if self.config.memory == "acfb":
            assert maps is not None, "a bank without maps"
            check_map_rows(maps, (self.config.hidden_channels, *grid))
            rows = maps.to(self.fc1.weight.dtype)
        else:
            assert actors is not None, "a bank without actor features"
            actors = actors.to(self.fc1.weight.dtype)
            rows = self.lfb(actors, *distinct_grid(*grid)) if self._relates_maps() else actors
        return project_rows(self.hr2o, rows)

    def _relate_actors(
        self, actors: Tensor, clip_index: Tensor, n_clips: int, bank: BankBatch | None
    ) -> Tensor:
        """A' (K, C): the blocks of the actor-first order."""
        rows = None
        if bank is not None and bank.projected is None:
            assert bank.actors is not None, "a bank without actor features"
            rows = bank.actors.to(actors.dtype)
        memory = Memory.over(clip_index, n_clips, bank, rows)
        for block in self.hr2o:
            actors = block(actors, memory)
        return actors

    def reason(
        self, context: Tensor, actors: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> Tensor:
        """Logits (K, classes) of A (K, C) in contexts X (B, C, h, w)."""
        n_clips = len(context)
        if self.config.order == "actor_first":
            actors = self._relate_actors(actors, clip_index, n_clips, bank)
            return self.classify(actors, self.encode(context, actors, clip_index))
        maps = self.encode(context, actors, clip_index)
        if self._relates_maps():
            return self.joined(actors, self.relate_means(maps, clip_index, n_clips, bank))
        for block in self.hr2o:
            maps = maps + block(actors, context, clip_index, bank)
        return self.classify(actors, maps)

    def classify(self, actors: Tensor, related: Tensor) -> Tensor:
        """Logits (K, classes) of A^i (K, C) and of the spatial means of the related maps (K, d, h', w')."""
        return self.joined(actors, related.mean((2, 3)))

    @torch.no_grad()
    def attention(
        self,
        maps: Sequence[Tensor],
        boxes_xyxy_norm: Tensor,
        clip_index: Tensor,
        bank: BankBatch | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each HR2O block: Att (K, J, h', w') and the valid j (K, J) bool; none of another design or order."""
        if not all(isinstance(block, HR2O) for block in self.hr2o):
            return []
        context = self.context(maps)
        related = self.encode(context, self.actors(context, boxes_xyxy_norm, clip_index), clip_index)
        memory = self._memory(related, clip_index, len(context), bank)
        weights = []
        for block in self.hr2o:
            assert isinstance(block, HR2O)
            weights.append(block.attention(related, memory))
            related = block(related, memory)
        return weights
