from __future__ import annotations

import math

import pytest
import torch

from acar.models.loss import action_loss, scores

POSE = torch.tensor([1, 3])


def test_poses_share_one_softmax_wherever_their_columns_are() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 2.0, 0.0, -1.0]])
    expected = [0.5, 0.75, 1 / (1 + math.exp(-2)), 0.25, 1 / (1 + math.e)]
    assert scores(logits, POSE)[0].tolist() == pytest.approx(expected)


def test_loss_is_a_sum_over_actors_of_class_means() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 0.0, 0.0, 0.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    by_hand = -(3 * math.log(0.5) + math.log(0.75) + math.log(1 - 0.25)) / 5
    assert action_loss(logits, targets, POSE).item() == pytest.approx(by_hand)
    twice = action_loss(logits.repeat(2, 1), targets.repeat(2, 1), POSE)
    assert twice.item() == pytest.approx(2 * by_hand)


@pytest.mark.parametrize("pose", [POSE, POSE[:0]])
def test_no_actors_cost_nothing(pose: torch.Tensor) -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = action_loss(logits, torch.zeros(0, 5), pose)
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0, 5)


def test_saturated_wrong_pose_is_finite_and_flat() -> None:
    logits = torch.tensor([[0.0, 200.0, 0.0, -200.0, 0.0]], requires_grad=True)
    loss = action_loss(logits, torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]]), POSE)
    loss.backward()
    assert loss.item() == pytest.approx((200 + 3 * math.log(2)) / 5)
    assert logits.grad[0, [1, 3]].tolist() == [0.0, 0.0]
