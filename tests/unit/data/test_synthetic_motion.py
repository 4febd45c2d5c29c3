"""How drawn actors move: sway, stand, crouch, the slide between two states, and what they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acar.config import SynthesizeConfig
from acar.data.synthetic.draw import Painter, Pose, pose_at
from acar.data.synthetic.law import CROUCH, NOTHING, STAND, SWAY, TRAY, simulate_video
from acar.data.synthetic.scene import arrange_scene

CONFIG = SynthesizeConfig(short_side_px=96, video_s=12)
AT_S = 3.0


def painter(index: int, **changes: np.ndarray) -> Painter:
    """The video `index`, without marks, with some of its states replaced."""
    script = simulate_video(CONFIG, "train", index)
    marks = {name: np.zeros_like(script.lamp) for name in ("lamp", "sign", "cutaway")}
    return Painter(
        replace(script, **marks, **changes), arrange_scene(CONFIG, "train", index, script.n_actors)
    )


def still(pose: int, *, hold: int = NOTHING, phase_rad: float = 0.6) -> Painter:
    """A video in which everyone keeps one place and one pose."""
    like = simulate_video(CONFIG, "train", 1).pose
    return painter(
        1, present=np.ones(like.shape, dtype=bool), pose=np.full_like(like, pose), hold=np.full_like(like, hold),
        place=np.broadcast_to(np.arange(len(like))[:, None], like.shape).copy(),
        phase_rad=np.full(like.shape, phase_rad),
    )  # fmt: skip


def pose_of(drawn: Painter, actor: int, tau_s: float) -> Pose:
    pose = pose_at(drawn.script, drawn.scene, actor, tau_s)
    assert pose is not None
    return pose


@pytest.mark.parametrize("pose", [STAND, CROUCH])
def test_standing_and_crouching_keep_still(pose: int) -> None:
    places = [pose_of(still(pose), 0, AT_S + step / 10).x for step in range(9)]
    assert places == pytest.approx([places[0]] * 9)


def test_swaying_goes_to_and_fro_in_eight_tenths() -> None:
    places = [pose_of(still(SWAY), 0, AT_S + step / 10).x for step in range(9)]
    assert max(places) - min(places) > 0.1
    assert places[0] == pytest.approx(places[8])


def test_one_frame_of_sway_is_a_frame_of_standing() -> None:
    """Some phase of standing gives the very frame that swaying gives, so one frame holds no hint."""
    turned = 0.6 + 2 * np.pi * AT_S / 0.8
    assert np.array_equal(still(SWAY).frame(AT_S), still(STAND, phase_rad=turned).frame(AT_S))


def test_crouching_is_shorter() -> None:
    def height(pose: int) -> float:
        _, top, _, bottom = still(pose).boxes(3)[0]
        return bottom - top

    assert height(CROUCH) < 0.75 * height(STAND)


def test_the_held_thing_is_drawn_but_not_boxed() -> None:
    """Everyone but actor 0 is sent away, so that nobody else's tray hides a part of anyone."""
    present = np.zeros_like(still(STAND).script.present)
    present[0] = True
    boxes, frames = [], []
    for hold in (NOTHING, TRAY):
        drawn = still(STAND, hold=hold)
        alone = Painter(replace(drawn.script, present=present), drawn.scene)
        boxes.append(alone.boxes(3))
        frames.append(alone.frame(AT_S))
    assert boxes[0] == boxes[1] and set(boxes[0]) == {0}
    assert not np.array_equal(*frames)


def test_changes_slide_around_the_half_second() -> None:
    """Nothing changes up to 0.34 s from a second; in between, positions move without a jump."""
    script = simulate_video(CONFIG, "train", 0)
    drawn = painter(0, pose=np.full_like(script.pose, STAND))
    moved = 0
    for actor in range(script.n_actors):
        for second in script.key_seconds:
            states = [pose_at(drawn.script, drawn.scene, actor, second + d) for d in (0.0, -0.34, 0.2, 0.34)]
            assert all(state == states[0] for state in states)
            if script.present[actor, second] and script.present[actor, second + 1]:
                path = [pose_of(drawn, actor, second + 0.3 + step / 100).x for step in range(41)]
                moved += abs(path[-1] - path[0]) > 0.1
                assert np.abs(np.diff(path)).max() < 0.06 * max(0.01, abs(path[-1] - path[0]))
    assert moved > 2


def test_leaving_and_returning_go_through_the_nearer_edge() -> None:
    script = simulate_video(CONFIG, "train", 0)
    for gone, moments_s in (
        (5, (4.36, 4.64)),
        (5, (5.64, 5.36)),
    ):  # leaving before second 5, returning after it
        present = np.ones_like(script.present)
        present[0, gone] = False
        drawn = painter(0, present=present)
        near, far = (pose_of(drawn, 0, tau) for tau in moments_s)
        assert pose_at(drawn.script, drawn.scene, 0, float(gone)) is None
        assert min(far.x, drawn.scene.width - far.x) < -0.1 < min(near.x, drawn.scene.width - near.x)
