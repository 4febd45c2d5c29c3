"""A video scored over views equals each clip of each view by itself, with the bank's rows read and resized anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn_bank import Rows

from acar.config import ModelConfig, PredictConfig, WindowConfig
from acar.data.clip_dataset import Clips, flip_boxes, network_input
from acar.data.label_map import ActionClass, LabelMap
from acar.inference.scorer import Scorer
from acar.inference.views import View, views_of
from acar.models.grid import grid_of
from acar.models.hr2o import BankBatch
from acar.models.loss import scores
from acar.models.net import ActionNet, build_network

HEIGHT, WIDTH = 64, 86
VIEWS = PredictConfig(short_sides_px=[48, 64, 80], flip=True)
TIMES = [1.0, 2.0, 4.0]
COUNTS = [2, 0, 3, 1, 1, 2]
POSE = torch.tensor([0, 1])


def network(**head: Any) -> ActionNet:
    backbone = {
        "depths": [1, 1, 1, 1], "width": 4, "fast_ratio": 2, "alpha": 2, "lateral_kernel": 3,
        "spatial_strides": [1, 2, 1, 1], "last_dilation": 1, "norm": "group",
    }  # fmt: skip
    small = {"reduce_channels": 8, "hidden_channels": 8, "encoder_norm": "group", "hr2o_depth": 2}
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"backbone": backbone, "head": small | head})
    return build_network(config, 4).eval()


def clips(seed: int = 0, actors: tuple[int, ...] = (2, 1, 2)) -> Clips:
    rng = np.random.default_rng(seed)
    frames = torch.from_numpy(rng.integers(0, 256, (len(actors), 4, HEIGHT, WIDTH, 3), np.uint8))
    low, high = rng.uniform(0, 0.4, (sum(actors), 2)), rng.uniform(0.5, 1, (sum(actors), 2))
    boxes = torch.from_numpy(np.concatenate([low, high], 1).astype(np.float32))
    return Clips(
        frames, boxes, torch.repeat_interleave(torch.arange(len(actors)), torch.tensor(actors)),
        torch.zeros(sum(actors), 4), ["v@1", "v@2", "v@4"],
    )  # fmt: skip


def scorer(net: ActionNet, bank: Any = None, settings: PredictConfig = VIEWS) -> Scorer:
    label_map = LabelMap(tuple(ActionClass(i, str(i)) for i in range(1, 5)))
    window = None if bank is None else WindowConfig(radius_s=1)
    return Scorer(net, torch.device("cpu"), POSE, label_map, settings, bank, window)


def bank_of(net: ActionNet) -> Rows:
    d = net.config.head.hidden_channels if net.config.head.memory == "acfb" else 0
    c = net.config.head.reduce_channels if net.config.head.memory == "lfb" else 0
    return Rows(COUNTS, grid_of(net.config, HEIGHT, WIDTH), d, c)


def record(video: str = "v") -> dict[str, Any]:
    return {"video": video, "height": HEIGHT, "width": WIDTH}


def plainly(net: ActionNet, batch: Clips, bank: Rows | None) -> np.ndarray:
    """View by view, clip by clip, the bank's rows read and resized for each anew."""
    total = torch.zeros(len(batch.boxes_xyxy_norm), 4)
    for view in views_of(VIEWS, HEIGHT, WIDTH):
        for place, time_s in enumerate(TIMES):
            mine = batch.clip_index == place
            frames = network_input(batch.frames[place : place + 1], net.config.backbone, torch.device("cpu"))
            frames = torch.stack(
                [
                    F.interpolate(
                        image[None], (view.height_px, view.width_px), mode="bilinear", antialias=True
                    )[0]
                    for image in frames[0].transpose(0, 1)
                ],
                1,
            )[None]
            boxes = batch.boxes_xyxy_norm[mine]
            if view.flip:
                frames, boxes = frames.flip(4), torch.from_numpy(flip_boxes(boxes.numpy()))
            rows = None if bank is None else _rows(net, bank, view, time_s)
            total[mine] += net(frames, boxes, torch.zeros(len(boxes), dtype=torch.int64), rows)
    return scores(total / len(views_of(VIEWS, HEIGHT, WIDTH)), POSE).numpy()


def _rows(net: ActionNet, bank: Rows, view: View, time_s: float) -> BankBatch:
    numbers = bank.rows_of("v", time_s, 1).numbers
    index = torch.zeros(len(numbers), dtype=torch.int64)
    if not bank.d:
        return BankBatch(None, index, actors=torch.from_numpy(bank.actors[numbers]).float())
    grid = grid_of(net.config, view.height_px, view.width_px)
    maps = torch.zeros(len(numbers), bank.d, *grid)
    for place, number in enumerate(numbers):
        one = torch.from_numpy(bank.maps[number]).float()[None]
        resized = F.interpolate(one, grid, mode="bilinear", align_corners=False)[0]
        maps[place] = torch.from_numpy(resized.numpy()[..., ::-1].copy()) if view.flip else resized
    return BankBatch(maps, index)


@pytest.mark.parametrize("head", [None, {"memory": "acfb"}, {"memory": "lfb"}])
@torch.no_grad()
def test_scores_are_those_of_each_view_and_clip_by_itself(head: dict[str, Any] | None) -> None:
    net, batch = network(**(head or {"memory": "none"})), clips()
    bank = None if head is None else bank_of(net)
    video = scorer(net, bank).of(record())
    halves = [(0, 2), (2, 3)]  # two batches, the second's windows overlap with the first's
    found = []
    for start, stop in halves:
        mine = (batch.clip_index >= start) & (batch.clip_index < stop)
        part = Clips(
            batch.frames[start:stop], batch.boxes_xyxy_norm[mine], batch.clip_index[mine] - start,
            batch.targets[mine], batch.names[start:stop],
        )  # fmt: skip
        found.append(video.scores(part, TIMES[start:stop]))
    expected = plainly(net, batch, bank)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-6)
    single = scorer(net, bank, PredictConfig()).of(record()).scores(batch, TIMES)
    assert abs(single - expected).max() > 1e-4  # the views do count


def test_the_views_share_one_reading_of_the_bank() -> None:
    net = network(memory="acfb")
    bank = bank_of(net)
    scorer(net, bank).of(record()).scores(clips(), TIMES)
    assert bank.read_numbers == list(range(sum(COUNTS)))


def test_with_flips_a_mirrored_film_has_the_same_scores() -> None:
    """Frames, boxes and bank mirrored: the two views of each size change places, and nothing else does."""
    net, batch = network(memory="acfb"), clips()
    bank, mirrored = bank_of(net), bank_of(net)
    mirrored.maps = bank.maps[..., ::-1].copy()
    film = Clips(
        batch.frames.flip(3), torch.from_numpy(flip_boxes(batch.boxes_xyxy_norm.numpy())), batch.clip_index,
        batch.targets, batch.names,
    )  # fmt: skip
    as_is = scorer(net, bank).of(record()).scores(batch, TIMES)
    turned = scorer(net, mirrored).of(record()).scores(film, TIMES)
    np.testing.assert_allclose(as_is, turned, atol=2e-6)


def test_a_head_without_a_bank_over_one_view_is_the_network_itself() -> None:
    net, batch = network(memory="none"), clips()
    found = scorer(net, None, PredictConfig()).of(record()).scores(batch, TIMES)
    with torch.no_grad():
        frames = network_input(batch.frames, net.config.backbone, torch.device("cpu"))
        logits = net(frames, batch.boxes_xyxy_norm, batch.clip_index)
    assert np.array_equal(found, scores(logits, POSE).numpy())
