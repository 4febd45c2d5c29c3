"""Actor features A^i: RoIAlign and spatial max over one feature map (paper section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align


def roi_features(maps: Tensor, boxes_xyxy_norm: Tensor, clip_index: Tensor, size: int) -> Tensor:
    """Features of K boxes on maps (B, C, h, w): (K, C).

    `boxes_xyxy_norm` (K, 4) are in 0..1 of the frame that the maps cover; `clip_index` (K,) names each box's
    clip. RoIAlign as in the released code: adaptive sampling, no half-pixel shift (`aligned=False`), `size` x
    `size` bins, then their maximum.
    """
    h, w = maps.shape[-2:]
    dtype = torch.promote_types(maps.dtype, torch.float32)  # half precision would move boxes and mix up clips
    cells = boxes_xyxy_norm.to(dtype) * torch.tensor([w, h, w, h], dtype=dtype, device=maps.device)
    rois = torch.cat([clip_index.to(dtype)[:, None], cells], dim=1)
    bins = roi_align(maps.to(dtype), rois, (size, size), spatial_scale=1.0, sampling_ratio=-1, aligned=False)
    return F.max_pool2d(bins, size).flatten(1)
