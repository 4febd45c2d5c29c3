"""Batches, learning rate, and that a resumed training equals an uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acar.config import DetectorConfig
from acar.detection import train
from acar.detection.faster_rcnn import SMALL, build_detector
from acar.detection.key_images import KeyImage
from acar.errors import UserError

WIDTH, HEIGHT = 64, 48


def settings(**changes) -> DetectorConfig:
    values = {"architecture": SMALL, "min_side_px": HEIGHT, "max_side_px": WIDTH, "iterations": 3,
              "batch_images": 2, "base_lr": 0.01, "warmup_iterations": 1,
              "extra": {"rpn_pre_nms_top_n_train": 20, "rpn_post_nms_top_n_train": 10}}  # fmt: skip
    return DetectorConfig().model_copy(update={**values, **changes})


def batches(seed: int = 0) -> train.Batches:
    """Five images; image i has brightness i in its box, whose left edge is at i / 10, and none at i = 4."""
    images = [
        KeyImage("v", float(i), i, np.array([[i / 10, 0.25, 0.5, 1]] * (i != 4), np.float32).reshape(-1, 4))
        for i in range(5)
    ]

    def read(index: int) -> np.ndarray:
        frame = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
        for x1, y1, x2, y2 in images[index].boxes_xyxy_norm * [WIDTH, HEIGHT, WIDTH, HEIGHT]:
            frame[round(y1) : round(y2), round(x1) : round(x2)] = index
        return frame

    return train.Batches(images, read, batch_images=2, seed=seed)


def fit(tmp_path, *, seed: int = 0, key: str = "k", **changes) -> tuple[dict[str, torch.Tensor], list[dict]]:
    torch.manual_seed(seed)
    model = build_detector(settings(**changes))
    metrics = train.fit(
        model, batches(seed), settings(**changes), device=torch.device("cpu"),
        checkpoint=tmp_path / "work" / "checkpoint.pt", run_key=key,
    )  # fmt: skip
    return model.state_dict(), metrics


def test_epochs_see_every_image_once():
    source = batches()
    seen = [index for iteration in range(5) for index in source.indices(iteration)]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
    assert seen == [index for iteration in range(5) for index in batches().indices(iteration)]


def test_flips_move_the_boxes_with_the_picture():
    flipped = 0
    for iteration in range(20):
        for frame, boxes in zip(*batches()(iteration), strict=True):
            inside = np.zeros((HEIGHT, WIDTH), bool)
            for x1, y1, x2, y2 in boxes:
                assert x1 < x2 and y1 < y2
                inside[round(y1) : round(y2), round(x1) : round(x2)] = True
                flipped += bool(x2 > WIDTH / 2)
            np.testing.assert_array_equal(frame[..., 0] < 100, inside)
    assert 5 < flipped < 30


def test_learning_rate_warms_up_and_ends_near_zero():
    s = settings(iterations=100, warmup_iterations=10, base_lr=1.0)
    rates = [train.learning_rate(s, iteration) for iteration in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert (np.diff(rates[10:]) <= 0).all() and 0 < rates[-1] < 1e-3
    assert train.learning_rate(settings(iterations=5, warmup_iterations=100, base_lr=1.0), 4) == 1.0


def test_same_seed_same_weights(tmp_path):
    first, metrics = fit(tmp_path)
    again, _ = fit(tmp_path)
    other, _ = fit(tmp_path, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert [line["iteration"] for line in metrics] == [3]
    assert {"loss", "lr", "images_per_s", "loss_classifier"} <= set(metrics[0])


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "LOG_EVERY", 1)
    whole, metrics = fit(tmp_path / "whole")
    assert not (tmp_path / "whole" / "work").exists()  # nothing was saved within a minute

    monkeypatch.setattr(train, "CHECKPOINT_EVERY_S", 0.0)
    real_step, steps = train._step, []

    def killed_at_the_third(*arguments):
        steps.append(arguments[-1])
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(train, "_step", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut")
    resumed, metrics_resumed = fit(tmp_path / "cut")
    assert steps == [0, 1, 2, 2]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [line["loss"] for line in metrics_resumed] == [line["loss"] for line in metrics]

    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", key="another config")
    assert steps == [0, 1, 2] and "starting afresh" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_the_key_frames(tmp_path):
    with pytest.raises(UserError, match=r"not finite at iteration \d.*v at \d s.*base_lr"):
        fit(tmp_path, base_lr=1e30, iterations=4)
