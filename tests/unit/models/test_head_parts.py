from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from acar.config import HeadConfig
from acar.models.first_order import pointwise_on_pairs
from acar.models.head import ActorContextHead
from acar.models.roi import roi_features


def test_split_convolution_equals_the_concatenated_one() -> None:
    conv = nn.Conv2d(10, 7, 1, bias=False)
    context, actors, clip = torch.randn(2, 5, 4, 6), torch.randn(3, 5), torch.tensor([0, 0, 1])
    tiled = actors[:, :, None, None].expand(-1, -1, 4, 6)
    expected = conv(torch.cat([context[clip], tiled], dim=1))
    torch.testing.assert_close(pointwise_on_pairs(conv, context, actors, clip), expected)


def test_roi_reads_the_boxs_own_clip_and_place() -> None:
    """Cell values are 1000 clip + 10 row + column; the maximum lies at the box's lower right edge."""
    row, column = torch.arange(8.0)[:, None], torch.arange(10.0)[None]
    maps = torch.stack([1000.0 * b + 10 * row + column for b in range(3)])[:, None]
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.2, 0.25, 0.6, 0.75]])
    features = roi_features(maps, boxes, torch.tensor([2, 1]), 7)[:, 0]
    # The last of 7 bins of an n-cell box is n / 7 wide and holds ceil(n / 7) = 1 sample, at n - n / 14.
    end = [10 * (4 - 4 / 14) + 5 - 5 / 14 + 2000, 10 * (2 + 4 - 4 / 14) + 2 + 4 - 4 / 14 + 1000]
    assert features.tolist() == pytest.approx(end)


def test_roi_takes_no_boxes() -> None:
    assert roi_features(
        torch.randn(2, 5, 4, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7
    ).shape == (0, 5)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_encoder_norm_is_where_it_is_said(norm: str) -> None:
    head = ActorContextHead(
        HeadConfig(reduce_channels=6, hidden_channels=4, encoder_norm=norm), (8, 4), 3
    ).eval()
    context, actors, clip = torch.randn(1, 6, 7, 8), torch.randn(2, 6), torch.zeros(2, dtype=torch.int64)
    pair = torch.cat([context.expand(2, -1, -1, -1), actors[:, :, None, None].expand(-1, -1, 7, 8)], dim=1)
    x = head.conv1(pair)
    x = F.relu(head.norm1(x) if norm == "group" else x)
    x = head.conv2(x)
    x = F.relu(head.norm2(x) if norm == "group" else x)
    torch.testing.assert_close(
        head.encode(context, actors, clip), F.max_pool2d(x, 3, 2, 1), rtol=1e-4, atol=1e-5
    )
    assert ("norm1.weight" in head.state_dict()) == (norm == "group")


def test_classifier_joins_actor_and_relation() -> None:
    head = ActorContextHead(HeadConfig(reduce_channels=6, hidden_channels=4), (8, 4), 3)
    actors, related = torch.randn(2, 6), torch.randn(2, 4, 3, 3)
    expected = torch.cat([head.fc1(actors).relu(), related.mean((2, 3))], 1) @ head.fc2.weight.T
    torch.testing.assert_close(head.classify(actors, related), expected)
