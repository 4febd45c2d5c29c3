"""Augmentation and batching of clips: what is flipped, jittered and put together stays aligned."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acar.config import BackboneConfig, ClipConfig, TrainConfig, WindowConfig
from acar.data.clip_dataset import TrainingClips, collate, flip_boxes, jitter_boxes, network_input
from acar.data.encode import write_video
from acar.data.key_frames import KeyFrame
from acar.data.sequential import sequential_clips
from acar.training.plan import Slot

corners = arrays(np.float64, (5, 2, 2), elements=st.floats(0, 1))
boxes_of = corners.map(lambda c: np.concatenate([c.min(1), c.max(1)], axis=1).astype(np.float32))


@given(boxes_of)
def test_flipping_twice_is_the_identity(boxes):
    np.testing.assert_allclose(flip_boxes(flip_boxes(boxes)), boxes, atol=1e-6)
    flipped = flip_boxes(boxes)
    assert (flipped[:, 0] <= flipped[:, 2]).all() and (flipped[:, [1, 3]] == boxes[:, [1, 3]]).all()


@given(boxes_of, st.floats(0, 0.49), st.integers(0, 100))
def test_jitter_stays_in_the_frame_and_upright(boxes, share, seed):
    moved = jitter_boxes(boxes, share, np.random.default_rng(seed))
    sides = boxes[:, 2:] - boxes[:, :2]
    assert moved.dtype == np.float32 and (moved >= 0).all() and (moved <= 1).all()
    assert (moved[:, :2] <= moved[:, 2:] + 1e-6).all()
    assert (np.abs(moved - boxes) <= share * np.concatenate([sides, sides], axis=1) + 1e-6).all()


def test_normalisation_by_hand():
    frames = torch.full((1, 2, 3, 4, 3), 255, dtype=torch.uint8)
    values = network_input(frames, BackboneConfig(mean=(0.5, 0, 1), std=(0.25, 1, 2)), torch.device("cpu"))
    assert values.shape == (1, 3, 2, 3, 4)
    assert values[0, :, 0, 0, 0].tolist() == [2.0, 1.0, 0.0]


def item(actors: int, rows: int | None) -> dict:
    return {
        "frames": np.zeros((2, 4, 6, 3), np.uint8),
        "boxes": np.full((actors, 4), actors, np.float32),
        "targets": np.zeros((actors, 3), np.uint8),
        "name": f"{actors}",
        "maps": None if rows is None else np.full((rows, 2, 3, 3), rows, np.float16),
        "actors": None if rows is None else np.full((rows, 5), rows, np.float16),
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=6))
def test_collate_keeps_actors_and_rows_with_their_clip(sizes):
    clips = collate([item(actors, rows) for actors, rows in sizes])
    for place, (actors, rows) in enumerate(sizes):
        mine = clips.boxes_xyxy_norm[clips.clip_index == place]
        assert len(mine) == actors and (mine == actors).all()
        maps = clips.bank_maps[clips.bank_index == place]
        features = clips.bank_actors[clips.bank_index == place]
        assert len(maps) == len(features) == rows and (maps == rows).all() and (features == rows).all()
    assert clips.sizes_px is None
    assert collate([item(actors, None) for actors, _ in sizes]).bank(torch.device("cpu")) is None


def test_collate_pads_clips_of_several_sizes():
    items = [item(1, 2), item(2, 1)]
    items[0]["frames"] = np.ones((2, 6, 4, 3), np.uint8)
    items[0]["maps"] = np.ones((2, 2, 4, 2), np.float16)
    clips = collate(items)
    assert clips.frames.shape == (2, 2, 6, 6, 3) and clips.sizes_px.tolist() == [[6, 4], [4, 6]]
    assert clips.frames[0].sum() == items[0]["frames"].sum() and clips.frames[0, :, :, :4].all()
    assert clips.bank_maps.shape == (3, 2, 4, 3)
    assert clips.bank_maps[:2, :, :, :2].all() and not clips.bank_maps[:2, :, :, 2:].any()
    values = network_input(clips.frames, BackboneConfig(), torch.device("cpu"), clips.sizes_px)
    assert not values[0, ..., 4:].any() and not values[1, ..., 4:, :].any()
    assert values[0, ..., :4].all() and values[1, ..., :4, :].all()


class OneRow:
    """A bank whose only map counts its columns."""

    def window(self, video, time_s, radius_s, exclude_radius_s=None):
        maps = np.broadcast_to(np.arange(5, dtype=np.float16), (1, 2, 4, 5))
        return type("Rows", (), {"maps": maps, "actors": np.array([[3.0]], np.float16)})()


@pytest.fixture
def record(tmp_path):
    """A video of 40 frames, each brighter on its left half by its number."""
    frames = []
    for number in range(40):
        pixels = np.full((32, 48, 3), 20, np.uint8)
        pixels[:, :24] = 40 + 5 * number
        frames.append(pixels)
    write_video(tmp_path / "a.mp4", frames, fps=10, gop_frames=5)
    return {
        "video": "a", "location": str(tmp_path / "a.mp4"), "path": "a.mp4", "kind": "video", "pattern": None,
        "first_number": 0, "fps": 10.0, "n_frames": 40, "width": 48, "height": 32, "start_s": 0.0, "duration_s": 4.0,
        "status": "ok", "reason": "",
    }  # fmt: skip


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_pixels_boxes_and_bank_maps_flip_together(record, flip):
    frame = KeyFrame("a", 2.0, np.array([[0.0, 0.2, 0.5, 0.8]], np.float32), np.ones((1, 3), np.uint8))
    settings = TrainConfig(flip_probability=flip, box_jitter=0, workers=0, cache_mib=1)
    clip = ClipConfig(frames=4, stride=2)
    clips = TrainingClips([frame], pd.DataFrame([record]), clip, settings, 0, OneRow(), WindowConfig())
    found = clips[Slot(position=0, item=0)]
    bright_left = found["frames"][..., :10, :].mean() > found["frames"][..., -10:, :].mean()
    assert bright_left == (flip == 0)
    np.testing.assert_allclose(found["boxes"][0], [0.5, 0.2, 1, 0.8] if flip else [0, 0.2, 0.5, 0.8])
    assert found["maps"][0, 0, 0].tolist() == ([4, 3, 2, 1, 0] if flip else [0, 1, 2, 3, 4])
    assert found["actors"].tolist() == [[3.0]]
    assert clips.sizes() == [(32, 48)]


def test_sequential_clips_equal_clips_read_one_by_one(record):
    clip = ClipConfig(frames=8, stride=3)
    times = [0.0, 1.0, 1.5, 3.0, 3.9]
    blank = np.zeros((0, 4), np.float32)
    key_frames = [KeyFrame("a", t, blank, np.zeros((0, 3), np.uint8)) for t in times]
    settings = TrainConfig(flip_probability=0, workers=0, cache_mib=0)
    one_by_one = TrainingClips(key_frames, pd.DataFrame([record]), clip, settings, 0)
    for place, frames in enumerate(sequential_clips(record, times, clip)):
        assert np.array_equal(frames, one_by_one[Slot(0, place)]["frames"]), times[place]
