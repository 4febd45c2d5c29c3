"""Detectors are built, loaded and refused as the config says."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.ops import FrozenBatchNorm2d

from acar.config import DetectorConfig
from acar.detection.faster_rcnn import SMALL, build_detector, detect_people, load_detector
from acar.detection.published import NAMES, check_published
from acar.errors import UserError


def settings(**changes) -> DetectorConfig:
    values = {"architecture": SMALL, "min_side_px": 64, "max_side_px": 96, **changes}
    return DetectorConfig().model_copy(update=values)


def frames(count: int = 2) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize("architecture", [SMALL, "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_from_scratch_every_layer_is_trainable_and_normalised(architecture):
    model = build_detector(settings(architecture=architecture))
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert model.roi_heads.box_predictor.cls_score.out_features == 2
    assert (model.transform.min_size, model.transform.max_size) == ((64,), 96)


def test_extra_reaches_the_builder_and_is_checked():
    sizes = [[16, 24], [32, 48], [64, 80], [96, 112]]
    model = build_detector(settings(extra={"box_batch_size_per_image": 17, "anchor_sizes_px": sizes}))
    assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 17
    assert model.rpn.anchor_generator.sizes[0] == (16.0, 24.0)
    boxes = detect_people(model.eval(), frames(), max_boxes=3)
    assert len(boxes) == 2
    with pytest.raises(UserError, match=r"detector\.extra\.box_nms_tresh.*did you mean `box_nms_thresh`"):
        build_detector(settings(extra={"box_nms_tresh": 0.3}))
    with pytest.raises(UserError, match="expected 4 lists"):
        build_detector(settings(extra={"anchor_sizes_px": [[16]]}))


def test_only_people_are_kept_best_first():
    model = build_detector(settings(keep_score=0.0, nms_iou=1.0), n_classes=5).eval()
    with torch.no_grad():  # class 4 always wins, the person is second
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 2.0, 0.0, 0.0, 5.0]))
    found = detect_people(model, frames(), max_boxes=4)
    assert [len(score) for _, score in found] == [4, 4]
    for boxes, score in found:
        assert boxes.shape == (4, 4) and boxes.dtype == np.float32
        assert (np.diff(score) <= 0).all() and score.max() < 0.5
        assert (boxes >= 0).all() and (boxes[:, 2] <= 80).all() and (boxes[:, 3] <= 64).all()


def test_result_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = build_detector(settings(keep_score=0.0)).eval()
    images = frames(3)
    together = detect_people(model, images, max_boxes=5)
    for image, (boxes, score) in zip(images, together, strict=True):
        [(alone_boxes, alone_score)] = detect_people(model, [image], max_boxes=5)
        np.testing.assert_allclose(alone_boxes, boxes, atol=1e-3)
        np.testing.assert_allclose(alone_score, score, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("n_classes", [2, 91])
def test_weights_come_back(tmp_path, suffix, n_classes):
    model = build_detector(settings(), n_classes=n_classes)
    path = tmp_path / f"weights{suffix}"
    # Weights of frozen norms count no batches.
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    if suffix == ".pth":
        torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        save_file(state, path)
    loaded = load_detector(settings(), str(path))
    for name, value in loaded.state_dict().items():
        if name in state:
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_wrong_weights_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="state dict of torchvision's"):
        load_detector(settings(), str(tmp_path / "a.safetensors"))
    save_file({"roi_heads.box_predictor.cls_score.weight": torch.zeros(2, 8)}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=f"does not fit {SMALL}"):
        load_detector(settings(), str(tmp_path / "b.safetensors"))
    (tmp_path / "c.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a readable state dict"):
        load_detector(settings(), str(tmp_path / "c.pth"))
    with pytest.raises(UserError, match="no such file"):
        load_detector(settings(), str(tmp_path / "absent.pth"))


def test_unknown_weights_names_are_refused():
    with pytest.raises(UserError, match="no published weights"):
        load_detector(settings(), "COCO_V1")
    with pytest.raises(UserError, match="'COCO_V9' is neither a file nor published weights"):
        load_detector(settings(architecture="fasterrcnn_mobilenet_v3_large_320_fpn"), "COCO_V9")


@pytest.mark.parametrize("name", ["mobilenet_v3_large_320_fpn", "resnet50_fpn", "resnet50_fpn_v2"])
def test_names_of_published_weights_are_torchvisions(name):
    architecture = f"fasterrcnn_{name}"
    assert set(NAMES) == set(torchvision.models.get_model_weights(architecture).__members__)
    for weights in NAMES:
        check_published(settings(architecture=architecture), weights)
    with pytest.raises(UserError, match="neither a file nor published weights"):
        check_published(settings(architecture=architecture), "COCO_V9")


def test_published_weights_are_fetched_by_torchvision(monkeypatch):
    zoo_settings = settings(architecture="fasterrcnn_mobilenet_v3_large_320_fpn")
    published = build_detector(zoo_settings, n_classes=91).state_dict()
    asked = []

    def fetched(url, **_):
        asked.append(url)
        return {name: value for name, value in published.items() if "num_batches" not in name}

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetched)
    model = load_detector(zoo_settings, "COCO_V1")
    assert len(asked) == 1 and "fasterrcnn_mobilenet_v3_large_320_fpn" in asked[0]
    name = "rpn.head.cls_logits.weight"
    torch.testing.assert_close(model.state_dict()[name], published[name])
    assert (model.transform.min_size, model.roi_heads.detections_per_img) == ((64,), 1000)

    def unreachable(url, **_):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    with pytest.raises(
        UserError, match=r"could not download COCO_V1.*no route.*set detector\.weights to its path"
    ):
        load_detector(zoo_settings, "COCO_V1")
