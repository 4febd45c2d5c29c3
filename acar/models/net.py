"""The whole network of both stages: a backbone and a head; a bank is the only difference."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from acar.config import ModelConfig
from acar.errors import UserError
from acar.models.backbones import build_backbone
from acar.models.grid import check_feature_grid, encoded_grid, feature_grid, has_encoder
from acar.models.head import ActorContextHead
from acar.models.heads import build_head
from acar.models.hr2o import BankBatch, Projected
from acar.models.mixed_sizes import SizeGroup, cells, in_groups
from acar.models.precision import in_own_precision
from acar.models.relations.baseline import LinearHead
from acar.weights.headers import read_weights_header

BACKBONE_PREFIX = "backbone."
MAX_NAMED = 5  # keys that an error about weights spells out


class ActionNet(nn.Module):
    """Frames and person boxes to action logits.

    All calls take `frames` (B, 3, T, H, W) float, normalised RGB, T a multiple of SlowFast's `alpha`;
    `boxes_xyxy_norm` (K, 4) in 0..1 of the frame; `clip_index` (K,) int64, each box's clip in 0..B-1. K may be 0.
    Clips are of one size; only `forward` takes others, zero-padded at the right and the bottom.

    `autocast_dtype` is the precision of all but the logits (None: the weights'); outputs are never below float32.
    """

    autocast_dtype: torch.dtype | None = None

    def __init__(self, config: ModelConfig, n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone)
        self.head = build_head(config.head, self.backbone.channels, n_classes)

    @in_own_precision
    def features(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Backbone maps: slow (B, Cs, T / alpha, h, w) and fast (B, Cf, T, h, w), or I3D's one.

        Raises:
            UserError: T is not a multiple of alpha, or the frame is too small for the encoder.
        """
        height, width = frames.shape[-2:]
        if has_encoder(self.config.head):
            check_feature_grid(*feature_grid(self.config.backbone, height, width), height, width)
        return self.backbone(*self.backbone.inputs(frames))

    @in_own_precision
    def forward(
        self, frames: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor, bank: BankBatch | None = None,
        sizes_px: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (K, n_classes); keys and values come from the bank's rows if one is given (eq. 5).

        Args:
            frames, boxes_xyxy_norm, clip_index: as above; boxes in 0..1 of their clip's own, unpadded frame.
            bank: rows of the clips; maps of smaller grids zero-padded at the right and the bottom.
            sizes_px: (B, 2) int64 height and width of each clip inside padded `frames`; None: all of H x W.
                `model.batch_padding` says how they are treated (`acar.models.mixed_sizes`).

        Raises:
            UserError: as `features`, or the bank's maps do not fit.
        """
        if sizes_px is None:
            return self.head(self.features(frames), boxes_xyxy_norm, clip_index, bank)
        if self.config.batch_padding == "released":
            return self._padded(frames, boxes_xyxy_norm, clip_index, bank, sizes_px)

        def alone(group: SizeGroup) -> Tensor:
            own = frames[group.clips, ..., : group.height, : group.width]
            grid = encoded_grid(
                self.config.head, *feature_grid(self.config.backbone, group.height, group.width)
            )
            return self.head(
                self.features(own), boxes_xyxy_norm[group.actors], group.clip_index, group.rows(bank, grid)
            )

        return in_groups(sizes_px, clip_index, alone)

    def _padded(
        self, frames: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor, bank: BankBatch | None,
        sizes_px: Tensor,
    ) -> Tensor:  # fmt: skip
        """As released: one pass over the padded frames, the context cut to each clip's own cells."""
        maps = self.features(frames)
        height, width = frames.shape[-2:]
        ratio = sizes_px.to(boxes_xyxy_norm) / boxes_xyxy_norm.new_tensor([height, width])
        boxes = boxes_xyxy_norm * ratio[:, [1, 0, 1, 0]][clip_index]
        if isinstance(self.head, LinearHead):
            return self.head(maps, boxes, clip_index, bank)
        head = self.head
        context = head.context(maps)
        actors = head.actors(context, boxes, clip_index)

        def own_cells(group: SizeGroup) -> Tensor:
            h, w = cells(context.shape[2], group.height, height), cells(context.shape[3], group.width, width)
            if has_encoder(head.config):
                check_feature_grid(h, w, group.height, group.width)
            rows = group.rows(bank, encoded_grid(head.config, h, w))
            return head.reason(context[group.clips, :, :h, :w], actors[group.actors], group.clip_index, rows)

        return in_groups(sizes_px, clip_index, own_cells)

    @in_own_precision
    def project_rows(
        self, maps: Tensor | None, actors: Tensor | None, height_px: int, width_px: int
    ) -> Projected:
        """What the relation makes of bank rows (M, ...) alone, for `BankBatch.projected` of clips of one size.

        Raises:
            UserError: the maps have another grid or number of channels than clips of that size.
        """
        assert not isinstance(self.head, LinearHead), "the baseline reads no bank"
        cells_hw = feature_grid(self.config.backbone, height_px, width_px)
        return self.head.project_rows(maps, actors, encoded_grid(self.config.head, *cells_hw))

    def first_order(self, frames: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor) -> Tensor:
        """F^i (K, d, h, w) before any HR2O block: the rows L^i of the bank (paper section 3.3)."""
        maps = self.bank_rows(frames, boxes_xyxy_norm, clip_index)[0]
        assert maps is not None, f"relation {self.config.head.relation} has no first-order maps"
        return maps

    @in_own_precision
    def bank_rows(
        self, frames: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor, with_maps: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """What a bank may hold of the actors: maps F^i (K, d, h, w) and features A^i (K, C).

        No maps where the head has none, or if they are not asked for.
        """
        head = self.head
        assert not isinstance(head, LinearHead), "the baseline makes no bank"
        context = head.context(self.features(frames))
        actors = head.actors(context, boxes_xyxy_norm, clip_index)
        if isinstance(head, ActorContextHead) and with_maps:
            return head.encode(context, actors, clip_index), actors
        return None, actors

    @torch.no_grad()
    @in_own_precision
    def attention(
        self, frames: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor, bank: BankBatch | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each HR2O block: Att (K, J, h, w) over the clip's actors or bank rows, and the valid j (K, J).

        J is the batch's largest number of keys; the j-th key of a clip is its j-th actor, or its j-th bank
        entry. Places that are not valid (bool) hold 0. A head without attention over maps has none: [].
        """
        if not isinstance(self.head, ActorContextHead):
            return []
        return self.head.attention(self.features(frames), boxes_xyxy_norm, clip_index, bank)


def build_network(config: ModelConfig, n_classes: int) -> ActionNet:
    """The network of the config with fresh weights (He initialisation); see `load_weights`."""
    return ActionNet(config, n_classes)


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load a safetensors file into a network (or a part of it); every key must be there and fit.

    Raises:
        UserError: the file is absent or not safetensors, or keys are missing, unexpected or of another shape.
    """
    _fill(module, read_weights(path), path)


def load_backbone_weights(net: ActionNet, path: str | Path) -> None:
    """Load initial backbone weights from a backbone's file, or from a whole network's (its `backbone.` part).

    What a file lacks that `acar import-weights --partial` wrote stays as it is, and how much is said.

    Raises:
        UserError: as `load_weights`.
    """
    state = read_weights(path)
    part = {
        key.removeprefix(BACKBONE_PREFIX): v for key, v in state.items() if key.startswith(BACKBONE_PREFIX)
    }
    chosen = part or state
    if is_partial(path):
        fresh = {key: v for key, v in net.backbone.state_dict().items() if key not in chosen}
        print(f"{path}: {len(fresh)} weights of the backbone start fresh", file=sys.stderr, flush=True)
        chosen = chosen | fresh
    _fill(net.backbone, chosen, path)


def is_partial(path: str | Path) -> bool:
    """Whether a safetensors file was written by `acar import-weights --partial`."""
    return read_weights_header(Path(path)).is_partial


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: the file is absent or not safetensors.
    """
    read_weights_header(Path(path))
    return load_file(path)


def _fill(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:MAX_NAMED])}" + (", ..." if len(keys) > MAX_NAMED else "")
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if keys
    ]
    if problems:
        raise UserError(
            f"{path}: weights do not fit this network (the config's `model` section and the number of "
            "classes must be those it was trained with)\n  " + "\n  ".join(problems)
        )
    module.load_state_dict(state)
