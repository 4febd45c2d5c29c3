"""Size of the first-order maps for a frame size, by arithmetic alone (never imports torch)."""

from __future__ import annotations

from acar.config import BackboneConfig, Config, HeadConfig, ModelConfig
from acar.errors import UserError

ENCODER_KERNEL = 3  # the encoder's unpadded 3x3 convolution (paper section 3.2.1)


def feature_grid(backbone: BackboneConfig, height_px: int, width_px: int) -> tuple[int, int]:
    """Cells (h, w) of the backbone's maps for frames of `height_px` x `width_px`."""
    strides = (2, 2, *backbone.spatial_strides)  # stem convolution, stem max pool, the four stages
    h, w = height_px, width_px
    for stride in strides:  # each padded by half its kernel, or `SAME` (I3D): ceil(n / stride)
        h, w = -(-h // stride), -(-w // stride)
    return h, w


def grid_of(model: ModelConfig, height_px: int, width_px: int) -> tuple[int, int]:
    """Cells (h, w) of the maps F^i, after the encoder and its down-sampling: the grid of bank rows.

    Raises:
        UserError: the frame is too small for the encoder's unpadded convolution.
    """
    h, w = feature_grid(model.backbone, height_px, width_px)
    check_feature_grid(h, w, height_px, width_px)
    return encoded_grid(model.head, h, w)


def encoded_grid(head: HeadConfig, h: int, w: int) -> tuple[int, int]:
    """Cells of the maps F^i on context maps of (h, w) cells."""
    h, w = h - (ENCODER_KERNEL - 1), w - (ENCODER_KERNEL - 1)
    if head.downsample == "max2x2":
        h, w = -(-h // 2), -(-w // 2)
    return h, w


def has_encoder(head: HeadConfig) -> bool:
    """Whether the head encodes actors with their context, and so needs maps of at least its kernel."""
    return head.relation in ("acrn", "hr2o")


def check_feature_grid(h: int, w: int, height_px: int, width_px: int) -> None:
    """Refuse maps on which the encoder's unpadded convolution has no position.

    Raises:
        UserError: either side has fewer cells than the kernel.
    """
    if min(h, w) < ENCODER_KERNEL:
        raise UserError(
            f"frames of {height_px}x{width_px} px (height x width) give {h}x{w} cells, but the actor-context "
            f"encoder needs at least {ENCODER_KERNEL}x{ENCODER_KERNEL}; raise ingest.short_side_px, or lower "
            "model.backbone.spatial_strides"
        )


def check_frame_sizes(config: Config) -> None:
    """Refuse frames, and views at inference, that the network cannot read, before anything is computed.

    Raises:
        UserError: as `grid_of`, with the key to change. No frame's side is shorter than the short side.
    """
    if not has_encoder(config.model.head):
        return
    _check_short_side(config, config.ingest.short_side_px)
    for short_side_px in config.predict.short_sides_px or ():
        try:
            _check_short_side(config, short_side_px)
        except UserError as error:
            reason = str(error).partition(";")[0]
            raise UserError(f"predict.short_sides_px: {short_side_px}: {reason}; name a larger one") from None


def _check_short_side(config: Config, short_side_px: int) -> None:
    side = max(2, 2 * round(short_side_px / 2))
    grid_of(config.model, side, side)
