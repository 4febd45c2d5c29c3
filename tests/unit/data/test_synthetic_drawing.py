"""Pixels of the drawn data set: marks show in their own second only, boxes fit what is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acar.config import SynthesizeConfig
from acar.data.synthetic.draw import Painter, second_shown
from acar.data.synthetic.law import HINT_FREE_REACH_S, MARK_HALF_S, NOTHING, VideoScript, simulate_video
from acar.data.synthetic.scene import FIXTURE_Y, LAMP_DIAMETER, Scene, arrange_scene

SMALL = SynthesizeConfig(video_s=8, short_side_px=64, cutaway_probability=0.2)
SECOND = 4


def unmarked(script: VideoScript, **marked: int) -> VideoScript:
    """The script with no marks but the given ones: lamp=SECOND lights the lamp in that second."""
    marks = {name: np.zeros_like(script.lamp) for name in ("lamp", "sign", "cutaway")}
    for name, second in marked.items():
        marks[name][second] = True
    return replace(script, **marks)


def video(index: int, config: SynthesizeConfig = SMALL) -> tuple[VideoScript, Scene]:
    script = simulate_video(config, "train", index)
    return script, arrange_scene(config, "train", index, script.n_actors)


def lamp_brightness(painter: Painter, tau_s: float) -> float:
    """Mean green of the lamp's disk, 0..255; a lit lamp is the only yellow thing that high up."""
    frame, unit = painter.frame(tau_s), painter.unit
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    distance = np.hypot(columns - painter.scene.lamp_x * unit, rows - FIXTURE_Y * unit)
    return float(frame[distance < 0.8 * LAMP_DIAMETER / 2 * unit, 1].mean())


@pytest.mark.parametrize("index", range(4))
def test_lamp_is_bright_exactly_around_its_second(index):
    script, scene = video(index)
    painter = Painter(unmarked(script, lamp=SECOND), scene)
    offsets_s = np.arange(-20, 21) / 20
    bright = {float(d): lamp_brightness(painter, SECOND + d) for d in offsets_s}
    assert {d for d, value in bright.items() if value > 200} == {
        float(d) for d in offsets_s if abs(d) <= MARK_HALF_S + 1e-9
    }
    assert all(value < 150 for value in bright.values() if value <= 200)


@pytest.mark.parametrize("mark", ["lamp", "sign", "cutaway"])
def test_a_mark_shows_in_its_second_and_leaves_no_trace_at_six_tenths(mark):
    script, scene = video(1)
    with_mark, without = Painter(unmarked(script, **{mark: SECOND}), scene), Painter(unmarked(script), scene)
    for offset_s in (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0):
        assert np.array_equal(with_mark.frame(SECOND + offset_s), without.frame(SECOND + offset_s)), offset_s
    for offset_s in (-0.1, 0.0, 0.1):
        assert not np.array_equal(with_mark.frame(SECOND + offset_s), without.frame(SECOND + offset_s))


@pytest.mark.parametrize("index", range(3))
def test_a_clip_looks_the_same_whatever_happens_in_other_seconds(index):
    """All marks of all other seconds are turned over: within the hint-free reach not one pixel changes."""
    script, scene = video(index)
    own = np.arange(len(script.lamp)) == SECOND
    marks = {name: getattr(script, name) for name in ("lamp", "sign", "cutaway")}
    turned = replace(script, **{name: np.where(own, mark, ~mark) for name, mark in marks.items()})
    one, other = Painter(script, scene), Painter(turned, scene)
    for hundredths in range(-84, 85, 6):
        tau_s = SECOND + hundredths / 100
        assert abs(tau_s - SECOND) < HINT_FREE_REACH_S
        assert np.array_equal(one.frame(tau_s), other.frame(tau_s)), tau_s
    for tau_s in (SECOND - HINT_FREE_REACH_S, SECOND + HINT_FREE_REACH_S):  # and at the reach itself it does
        assert not np.array_equal(one.frame(tau_s), other.frame(tau_s))


@given(st.integers(0, 1000), st.floats(-0.5, 0.5))
def test_second_shown(second, offset_s):
    shown = second_shown(second + offset_s)
    if abs(offset_s) < MARK_HALF_S - 1e-6:
        assert shown == second
    if abs(offset_s) > MARK_HALF_S + 1e-6:
        assert shown is None


def visible_share(script: VideoScript, scene: Scene, actor: int, second: int) -> np.ndarray:
    """(height, width) 0..1: how much brighter a pixel gets when the actor is painted white instead of black."""
    shades = []
    for level in (0, 255):
        grey = (level, level, level)
        painted = replace(scene.figures[actor], shirt=grey, trousers=grey, skin=grey, hair=grey)
        figures = (*scene.figures[:actor], painted, *scene.figures[actor + 1 :])
        shades.append(Painter(script, replace(scene, figures=figures)).frame(second)[..., 0].astype(float))
    return (shades[1] - shades[0]) / 255


def extent_px(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("index", range(4))
def test_boxes_hold_the_drawn_actor_tightly(index):
    """Also behind tables and others: the box holds what clearly shows, and all its edges touch what shows at all.

    A soft rim behind a soft rim shows by a quarter or less and may or may not be in the box.
    """
    script, scene = video(index)
    script = replace(unmarked(script), hold=np.full_like(script.hold, NOTHING))
    painter, checked = Painter(script, scene), 0
    width, height = scene.size_px
    for second in script.key_seconds:
        for actor, box in painter.boxes(second).items():
            assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
            share = visible_share(script, scene, actor, second)
            clearly, at_all = extent_px(share > 0.5), extent_px(share > 0.05)
            found = np.round(np.array(box) * [width, height, width, height]).astype(int)
            outward = np.array([-1, -1, 1, 1])
            assert ((found - clearly) * outward >= 0).all(), "the box cuts the actor"
            assert ((at_all - found) * outward >= 0).all(), "the box is larger than the actor"
            checked += 1
    assert checked > 5


def test_boxes_are_of_actors_on_stage_and_only_cutaways_have_none():
    empty = 0
    for index in range(6):
        script, scene = video(index)
        painter = Painter(script, scene)
        for second in script.key_seconds:
            boxes = painter.boxes(second)
            assert set(boxes) <= set(np.flatnonzero(script.on_stage[:, second]).tolist())
            assert (not boxes) == bool(script.cutaway[second])
            empty += not boxes
    assert empty > 0


def test_a_cutaway_shows_the_empty_room():
    script, scene = video(0)
    nobody = replace(unmarked(script), present=np.zeros_like(script.present))
    room = Painter(nobody, scene).frame(SECOND)
    painter = Painter(unmarked(script, cutaway=SECOND), scene)
    assert np.array_equal(painter.frame(SECOND), room)
    assert not np.array_equal(painter.frame(SECOND + 0.3), room)


@pytest.mark.parametrize(
    ("aspects", "sizes"),
    [([4 / 3, 1.0], [(86, 64), (64, 64), (86, 64)]), ([0.5, 16 / 9], [(64, 128), (114, 64), (64, 128)])],
)
def test_frame_sizes_take_turns(aspects, sizes):
    config = SynthesizeConfig(short_side_px=65, video_s=4, aspect_ratios=aspects)
    for index, size in enumerate(sizes):
        script, scene = video(index, config)
        frame = Painter(script, scene).frame(1.0)
        assert (frame.shape, frame.dtype) == ((size[1], size[0], 3), np.uint8)
