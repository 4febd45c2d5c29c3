"""The detectors' weights that torchvision publishes, by name. Never imports torch, as torchvision itself does."""

from __future__ import annotations

from pathlib import Path

from acar.config import DetectorConfig
from acar.errors import UserError

SMALL = "fasterrcnn_mobilenet_v3_small_fpn"
"""The architecture of ours, which torchvision does not have."""
NAMES = ("COCO_V1", "DEFAULT")
"""What torchvision has of each of the others."""


def is_published(weights: str) -> bool:
    """Whether `detector.weights` is a name and not a file's path."""
    path = Path(weights)
    return not path.suffix and not path.exists()


def check_published(detector: DetectorConfig, weights: str) -> None:
    """Refuse a name that torchvision does not have weights of.

    Raises:
        UserError: the architecture has none of that name.
    """
    if detector.architecture == SMALL:
        raise UserError(f"detector.weights: {SMALL} has no published weights; train it or give a file's path")
    if weights not in NAMES:
        raise UserError(
            f"detector.weights: {weights!r} is neither a file nor published weights of {detector.architecture}; "
            "COCO_V1 is what torchvision has, or give the path of a .safetensors or .pth file"
        )
