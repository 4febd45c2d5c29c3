"""First-order actor-context features F^i (paper section 3.2.1, after ACRN)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pointwise_on_pairs(conv: nn.Conv2d, context: Tensor, actors: Tensor, clip_index: Tensor) -> Tensor:
    """1x1 convolution of the concatenation [X ; A^i tiled], without building it: (K, d, h, w).

    W [X ; A] = Wx X + Wa A, so X (B, C, h, w) is convolved once a clip instead of once an actor, exactly.
    `actors` is (K, C), `clip_index` (K,), `conv` a bias-free 1x1 convolution from 2C channels to d.
    """
    c = context.shape[1]
    of_context = F.conv2d(context, conv.weight[:, :c])
    of_actors = F.linear(actors, conv.weight[:, c:].flatten(1))
    return of_context.index_select(0, clip_index) + of_actors[:, :, None, None]


def encode_pairs(
    conv1: nn.Conv2d,
    norm1: nn.Module,
    conv2: nn.Conv2d,
    norm2: nn.Module,
    context: Tensor,
    actors: Tensor,
    clip_index: Tensor,
    downsample: bool,
) -> Tensor:
    """Encode each actor with its clip's context: (K, d, h', w'), the maps F^i that a bank stores as L^i.

    1x1 convolution, unpadded 3x3 convolution (the map shrinks by 2), ReLU after each, then a 3x3 stride-2
    max pool if `downsample` (so in the released code; the paper leaves it out of its equations).
    """
    features = F.relu(norm1(pointwise_on_pairs(conv1, context, actors, clip_index)))
    features = F.relu(norm2(conv2(features)))
    return F.max_pool2d(features, 3, 2, 1) if downsample else features
