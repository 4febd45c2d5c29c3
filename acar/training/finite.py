"""A loss that is not finite: which clips are to blame, and what a training does without them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acar.data.clip_dataset import Clips
from acar.models.loss import action_loss


def finite_loss(logits: Tensor, targets: Tensor, pose: Tensor) -> Tensor | None:
    """`action_loss`, or None if it, or a logit, is not finite.

    Logits are looked at first: at a NaN the loss of exclusive classes would raise, on a GPU for good.
    """
    if not bool(torch.isfinite(logits).all()):
        return None
    total = action_loss(logits, targets, pose)
    return total if math.isfinite(float(total.detach())) else None


def guilty_clips(logits: Tensor, targets: Tensor, clip_index: Tensor, pose: Tensor) -> list[int]:
    """The clips of a micro-batch whose own actors have logits or a loss that are not finite; by number."""
    found = []
    for clip in clip_index.unique().tolist():
        rows = (clip_index == clip).nonzero()[:, 0].to(logits.device)
        if finite_loss(logits[rows], targets[rows], pose) is None:
            found.append(int(clip))
    return found


def without_clips(clips: Clips, gone: Sequence[int]) -> Clips:
    """The micro-batch without some of its clips; at least one must be left."""
    kept = [clip for clip in range(len(clips.names)) if clip not in set(gone)]
    number = torch.full((len(clips.names),), -1, dtype=torch.int64)
    number[kept] = torch.arange(len(kept))
    actors = number[clips.clip_index] >= 0
    maps, index, features = clips.bank_maps, clips.bank_index, clips.bank_actors
    if maps is not None and index is not None:
        rows = number[index] >= 0
        maps, index = maps[rows], number[index][rows]
        features = None if features is None else features[rows]
    return Clips(
        frames=clips.frames[kept],
        boxes_xyxy_norm=clips.boxes_xyxy_norm[actors],
        clip_index=number[clips.clip_index][actors],
        targets=clips.targets[actors],
        names=[clips.names[clip] for clip in kept],
        bank_maps=maps,
        bank_index=index,
        bank_actors=features,
        sizes_px=None if clips.sizes_px is None else clips.sizes_px[kept],
    )


class KeptBuffers:
    """A network's buffers as they were: a forward pass that gave a NaN has put it into batch norm's averages."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.values = [buffer.detach().clone() for buffer in net.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        for buffer, value in zip(self.net.buffers(), self.values, strict=True):
            buffer.copy_(value)
