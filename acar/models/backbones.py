"""Which backbone a config asks for: `model.backbone.kind`."""

from __future__ import annotations

from acar.config import BackboneConfig
from acar.models.i3d import I3D
from acar.models.slowfast import SlowFast

# What the network asks of one: `channels` of its maps, one a pathway; `inputs`, what it takes of clips; and that it
# returns its pathways' maps, (B, C, T', h, w) each, of `grid.feature_grid` cells.
Backbone = SlowFast | I3D


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of the config, with fresh weights (He initialisation)."""
    return I3D(config) if config.kind == "i3d" else SlowFast(config)
