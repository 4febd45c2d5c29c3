"""Scores and loss of the released code: exclusive poses by softmax, all others by sigmoid, then BCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scores(logits: Tensor, pose: Tensor) -> Tensor:
    """Probabilities (K, classes) of logits (K, classes).

    `pose` (P,) int64 are the columns of the mutually exclusive classes: softmax over these, sigmoid over the
    others.
    """
    if pose.numel() == 0:
        return logits.sigmoid()
    probabilities = logits.sigmoid().index_copy(1, pose, logits.index_select(1, pose).softmax(1))
    return probabilities.clamp(0.0, 1.0)


def action_loss(logits: Tensor, targets: Tensor, pose: Tensor) -> Tensor:
    """Sum over the K actors of the mean over classes of the binary cross-entropy (a scalar; 0 if K is 0).

    The caller divides by the number of actors of the whole effective batch. `targets` (K, classes) hold 0 or
    1. As released, poses are also scored by BCE on their softmax probabilities; the log is cut at -100, so a
    saturated wrong score has no gradient. Without poses (`pose` empty) the loss is computed on the logits,
    which keeps that gradient.
    """
    targets = targets.to(logits.dtype)
    if pose.numel() == 0:
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    else:
        with torch.autocast(logits.device.type, enabled=False):  # probabilities need full precision
            loss = F.binary_cross_entropy(scores(logits.float(), pose), targets.float(), reduction="sum")
    return loss / logits.shape[1]
