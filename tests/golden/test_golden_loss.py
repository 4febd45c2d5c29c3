"""Loss, gradients and scores equal those of the authors' code, at saturated logits too (no `batch_padding` in it)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acar.models.loss import action_loss, scores

ARRAYS = Path(__file__).parent / "arrays"
POSE = torch.arange(13)


@pytest.mark.parametrize("case", ["pose", "sigmoid", "single_row", "extreme", "no_pose_target"])
def test_loss_equals_released_code(case: str) -> None:
    golden = np.load(ARRAYS / "loss.npz")
    logits = torch.from_numpy(golden[f"{case}/logits"]).requires_grad_()
    targets = torch.from_numpy(golden[f"{case}/targets"])
    pose = POSE[:0] if case == "sigmoid" else POSE
    loss = action_loss(logits, targets, pose) / len(logits)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"{case}/loss"]), rel=1e-5)
    largest = np.abs(golden[f"{case}/grad"]).max()
    assert np.abs(logits.grad.numpy() - golden[f"{case}/grad"]).max() <= 1e-4 * largest
    np.testing.assert_allclose(scores(logits, pose).detach(), golden[f"{case}/scores"], rtol=1e-4, atol=1e-7)
