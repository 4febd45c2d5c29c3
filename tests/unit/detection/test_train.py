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
REAL_STEP = train._step


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
    first, metrics = fit(tmp_path / "first")
    again, _ = fit(tmp_path / "again")
    other, _ = fit(tmp_path / "other", seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert [line["iteration"] for line in metrics] == [3]
    assert {"loss", "lr", "images_per_s", "loss_classifier"} <= set(metrics[0])


def break_at(monkeypatch, iteration: int | None) -> list[int]:
    """Break off before this iteration (from 0); returns the iterations that are computed."""
    steps: list[int] = []

    def step(*arguments):
        if arguments[-1] == iteration:
            raise KeyboardInterrupt
        steps.append(arguments[-1])
        return REAL_STEP(*arguments)

    monkeypatch.setattr(train, "_step", step)
    return steps


def without_times(metrics: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in ("elapsed_s", "images_per_s")} for line in metrics]


@pytest.mark.parametrize("broken_at", range(5))
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, capsys, broken_at):
    monkeypatch.setattr(train, "LOG_EVERY", 3)  # checkpoints fall between two lines
    few = {"iterations": 5, "checkpoint_every": 2}
    whole, metrics = fit(tmp_path / "whole", **few)
    assert [line["iteration"] for line in metrics] == [3, 5]

    break_at(monkeypatch, broken_at)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", **few)
    steps, first = break_at(monkeypatch, None), broken_at // 2 * 2
    capsys.readouterr()
    resumed, metrics_resumed = fit(tmp_path / "cut", **few)
    assert steps == list(range(first, 5))
    line = f"train detector: going on at iteration {first} of 5"
    assert (line in capsys.readouterr().err) == (first > 0)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(metrics_resumed) == without_times(metrics)
    assert metrics_resumed[-1]["elapsed_s"] >= metrics_resumed[0]["elapsed_s"] >= 0


def test_a_finished_training_is_only_read_back(tmp_path, monkeypatch):
    whole, metrics = fit(tmp_path, checkpoint_every=2)
    steps = break_at(monkeypatch, None)
    again, metrics_again = fit(tmp_path, checkpoint_every=2)
    assert steps == [] and metrics_again == metrics
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_checkpoints_come_by_iterations(tmp_path, monkeypatch):
    saved, real = [], train._save
    monkeypatch.setattr(train, "_save", lambda *a: saved.append(a[-2]) or real(*a))
    fit(tmp_path, iterations=5, checkpoint_every=2)
    assert saved == [2, 4, 5]


def test_a_checkpoint_of_another_config_is_not_used(tmp_path, monkeypatch, capsys):
    break_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, checkpoint_every=1)
    steps = break_at(monkeypatch, None)
    fit(tmp_path, key="another config", checkpoint_every=1)
    assert steps == [0, 1, 2] and "starting afresh" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_the_key_frames(tmp_path):
    with pytest.raises(UserError, match=r"not finite at iteration \d.*v at \d s.*base_lr"):
        fit(tmp_path, base_lr=1e30, iterations=4)
