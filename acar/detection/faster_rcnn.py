"""Faster R-CNN for one class, person: torchvision's builders, and a small one from torchvision's parts.

Images go in as a list of float32 (3, H, W) RGB in 0..1; boxes are xyxy in pixels of the image given.
"""

from __future__ import annotations

import difflib
import inspect
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
import torchvision.models.detection as zoo
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from acar.config import DetectorConfig
from acar.detection.published import SMALL, check_published, is_published
from acar.errors import UserError
from acar.weights.headers import check_state_dict

PERSON = 1  # 0 is the background; COCO's person is 1 too
SMALL_CHANNELS = 96
SMALL_HIDDEN = 256
SMALL_LAYERS = {"3": "0", "8": "1", "12": "2"}  # the last blocks at strides 8, 16 and 32
SMALL_LAYER_CHANNELS = [24, 48, 576]
# One size a level (strides 8, 16, 32, and 64 by pooling), at height / width ratios of standing people.
SMALL_ANCHOR_SIZES_PX = ((24.0,), (40.0,), (64.0,), (112.0,))
PERSON_RATIOS = (1.0, 1.75, 3.0)
ANCHOR_KEY = "anchor_sizes_px"
EXTRA_PREFIXES = ("min_size", "max_size", "image_", "rpn_", "box_")
# Of a detector of many classes, so that those that are dropped later do not crowd people out.
ALL_CLASSES_BOXES = 1000


def build_detector(detector: DetectorConfig, *, n_classes: int = 2, weights: str | None = None) -> FasterRCNN:
    """An untrained detector, or with `weights` the published one of that torchvision name.

    From scratch every norm is a trainable BatchNorm: a frozen one would leave the random network
    unnormalised. `detector.extra` goes to torchvision's `FasterRCNN`, apart from `anchor_sizes_px` (one list
    of anchor sizes a feature level, in pixels of the resized image).

    Args:
        detector: architecture, image sides, and which boxes inference keeps.
        n_classes: with the background; ignored with `weights`.
        weights: name such as COCO_V1; downloaded by torchvision.

    Raises:
        UserError: unknown weights, a failed download, or an `extra` that the builder does not take.
    """
    extra = _checked_extra(detector.extra)
    if weights is not None:
        check_published(detector, weights)
    anchor_sizes_px = extra.pop(ANCHOR_KEY, None)
    only_people = n_classes == 2 and weights is None
    options = {
        "min_size": detector.min_side_px,
        "max_size": detector.max_side_px,
        "box_score_thresh": detector.keep_score,
        "box_nms_thresh": detector.nms_iou,
        "box_detections_per_img": detector.max_boxes if only_people else ALL_CLASSES_BOXES,
        **extra,
    }
    if detector.architecture == SMALL:
        model = _build_small(n_classes, options)
    else:
        model = _build_from_zoo(detector.architecture, n_classes, weights, options)
    if anchor_sizes_px is not None:
        _set_anchors(model, anchor_sizes_px)
    return model


def load_detector(detector: DetectorConfig, weights: str) -> FasterRCNN:
    """A detector with trained weights: a state dict (.safetensors, .pth, .pt) or a torchvision weights name.

    A state dict may have any number of classes; class 1 is the person.

    Raises:
        UserError: no such file or name, or the weights do not fit the architecture.
    """
    path = Path(weights)
    if is_published(weights):
        return build_detector(detector, weights=weights)
    state = _read_state_dict(path)
    predictor = state.get("roi_heads.box_predictor.cls_score.weight")
    if predictor is None:
        raise UserError(
            f"{path}: no `roi_heads.box_predictor.cls_score.weight` among its {len(state)} tensors; "
            f"detector.weights must be a state dict of torchvision's {detector.architecture}"
        )
    model = build_detector(detector, n_classes=predictor.shape[0])
    try:
        # A plain dict (no metadata) lets weights of frozen norms, which count no batches, load as well.
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        first = "\n  ".join(str(error).splitlines()[:4])
        raise UserError(f"{path}: does not fit {detector.architecture}:\n  {first}") from None
    return model


def images_to_tensors(images: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """uint8 (H, W, 3) RGB frames as float32 (3, H, W) in 0..1 on `device`."""
    return [
        torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1).float().div_(255.0)
        for image in images
    ]


@torch.inference_mode()
def detect_people(
    model: FasterRCNN, images: Sequence[np.ndarray], *, max_boxes: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Person boxes of frames of one size, best first.

    Args:
        model: in eval mode.
        images: uint8 (H, W, 3) RGB, all of one size, so that none is padded to another's.
        max_boxes: kept of an image.

    Returns:
        For each image, boxes float32 (N, 4) xyxy in pixels of the image, and scores float32 (N,).
    """
    assert len({image.shape for image in images}) <= 1, "frames of different sizes in one batch"
    device = next(model.parameters()).device
    found = []
    for result in model(images_to_tensors(images, device)):
        people = (result["labels"] == PERSON).nonzero()[:, 0][:max_boxes]
        found.append((result["boxes"][people].cpu().numpy(), result["scores"][people].cpu().numpy()))
    return found


def _checked_extra(extra: dict[str, Any]) -> dict[str, Any]:
    """A copy; torchvision itself would pass over a misspelt option in silence."""
    known = [name for name in inspect.signature(FasterRCNN).parameters if name.startswith(EXTRA_PREFIXES)]
    known += ["size_divisible", ANCHOR_KEY]
    for name in extra:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known options: {', '.join(known)}"
            raise UserError(f"detector.extra.{name}: torchvision's FasterRCNN has no such option; {hint}")
    return dict(extra)


def _build_from_zoo(name: str, n_classes: int, weights: str | None, options: dict[str, Any]) -> FasterRCNN:
    builder = getattr(zoo, name)
    if weights is None:
        return builder(weights=None, weights_backbone=None, num_classes=n_classes, **options)
    try:
        return builder(weights=weights, **options)
    except (URLError, OSError) as error:
        raise UserError(
            f"detector.weights: torchvision could not download {weights} of {name} ({error}); "
            "fetch the file elsewhere and set detector.weights to its path"
        ) from None


def _build_small(n_classes: int, options: dict[str, Any]) -> FasterRCNN:
    """MobileNetV3-small, a slim pyramid at strides 8 to 64, a slim box head: for small images on a CPU."""
    features = mobilenet_v3_small(weights=None, norm_layer=nn.BatchNorm2d).features
    backbone = BackboneWithFPN(
        features, SMALL_LAYERS, SMALL_LAYER_CHANNELS, SMALL_CHANNELS, extra_blocks=LastLevelMaxPool()
    )
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=_anchors(SMALL_ANCHOR_SIZES_PX, PERSON_RATIOS),
        box_head=TwoMLPHead(SMALL_CHANNELS * 7 * 7, SMALL_HIDDEN),
        box_predictor=FastRCNNPredictor(SMALL_HIDDEN, n_classes),
        **options,
    )


def _anchors(sizes_px: Sequence[Sequence[float]], ratios: Sequence[float]) -> AnchorGenerator:
    sizes = tuple(tuple(float(size) for size in level) for level in sizes_px)
    return AnchorGenerator(sizes, (tuple(ratios),) * len(sizes))


def _set_anchors(model: FasterRCNN, sizes_px: Any) -> None:
    """Give an untrained model other anchors, and the RPN head that fits their number."""
    n_levels = len(model.rpn.anchor_generator.sizes)
    lists = isinstance(sizes_px, list | tuple) and all(isinstance(level, list | tuple) for level in sizes_px)
    if not lists or len(sizes_px) != n_levels or len({len(level) for level in sizes_px}) != 1:
        raise UserError(
            f"detector.extra.{ANCHOR_KEY}: expected {n_levels} lists (one a feature level) of equally many "
            f"sizes in pixels, found {sizes_px!r}"
        )
    ratios = model.rpn.anchor_generator.aspect_ratios[0]
    depth = len(model.rpn.head.conv)
    model.rpn.anchor_generator = _anchors(sizes_px, ratios)
    n_anchors = model.rpn.anchor_generator.num_anchors_per_location()[0]
    model.rpn.head = RPNHead(model.backbone.out_channels, n_anchors, conv_depth=depth)


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    check_state_dict(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: not a readable state dict ({str(error).splitlines()[0]})") from None
    for key in ("model", "state_dict", "model_state"):  # common wrappings of training checkpoints
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: expected a state dict (names to tensors), found {type(state).__name__}")
    return {name.removeprefix("module."): value for name, value in state.items()}
