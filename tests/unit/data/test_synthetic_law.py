"""The law of the drawn data set: labels against a second implementation, and a clip without hints."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.config import SynthesizeConfig, load_config
from acar.data.synthetic.law import (
    BALL,
    CLASSES,
    FLOOR,
    HINT_FREE_REACH_S,
    N_TABLES,
    NOTHING,
    SEATS_PER_TABLE,
    TRAY,
    VideoScript,
    clip_only_recall,
    floor_places,
    simulate_video,
)

REPOSITORY = Path(__file__).resolve().parents[3]
COLUMN = {item.name: column for column, item in enumerate(CLASSES)}
MANY = 2000
STANDARD_ERRORS = 4.0
"""The seed is fixed, so a failure is a change of the law, not bad luck."""


@st.composite
def small_scripts(draw: st.DrawFn) -> tuple[SynthesizeConfig, VideoScript]:
    config = SynthesizeConfig(
        seed=draw(st.integers(0, 2**40)),
        video_s=draw(st.integers(4, 14)),
        max_actors=draw(st.integers(2, 6)),
        window_radius_s=draw(st.integers(1, 20)),
        event_probability=draw(st.floats(0.02, 0.9)),
        cutaway_probability=draw(st.floats(0.0, 0.6)),
    )
    return config, simulate_video(config, draw(st.sampled_from(["train", "val"])), draw(st.integers(0, 99)))


def recalled_by_hand(script: VideoScript, event: np.ndarray, radius_s: int, second: int) -> bool:
    """An annotated second other than this one, at most `radius_s` away, shows the event and an actor."""
    last_key_second = script.present.shape[1] - 2
    for other in range(1, last_key_second + 1):
        if other == second or abs(other - second) > radius_s:
            continue
        somebody = any(script.present[actor, other] for actor in range(script.n_actors))
        if event[other] and somebody and not script.cutaway[other]:
            return True
    return False


def table_by_hand(place: int) -> int | None:
    for table in range(N_TABLES):
        if table * SEATS_PER_TABLE <= place < (table + 1) * SEATS_PER_TABLE:
            return table
    return None


def served_by_hand(script: VideoScript, actor: int, second: int) -> bool:
    own = table_by_hand(int(script.place[actor, second]))
    if own is None or script.hold[actor, second] != NOTHING:
        return False
    return any(
        other != actor
        and script.present[other, second]
        and table_by_hand(int(script.place[other, second])) == own
        and script.hold[other, second] == TRAY
        for other in range(script.n_actors)
    )


@settings(deadline=None, max_examples=40)
@given(small_scripts())
def test_labels_agree_with_a_second_implementation(case):
    config, script = case
    for second in script.key_seconds:
        lamp = recalled_by_hand(script, script.lamp, config.window_radius_s, second)
        sign = recalled_by_hand(script, script.sign, config.window_radius_s, second)
        for actor in range(script.n_actors):
            expected = {
                **{name: script.pose[actor, second] == pose for pose, name in enumerate(("stand", "crouch", "sway"))},
                "hold_ball": script.hold[actor, second] == BALL,
                "carry_tray": script.hold[actor, second] == TRAY,
                "lamp_lit": script.lamp[second],
                "sign_lit": script.sign[second],
                "served": served_by_hand(script, actor, second),
                "recall_lamp": lamp,
                "recall_sign": sign,
            }  # fmt: skip
            if script.cutaway[second] or not script.present[actor, second]:
                expected = dict.fromkeys(expected, False)
            found = dict(zip(COLUMN, script.labels[actor, second].tolist(), strict=True))
            assert found == {name: bool(value) for name, value in expected.items()}, (actor, second)


@settings(deadline=None, max_examples=40)
@given(small_scripts())
def test_states_are_possible(case):
    config, script = case
    assert script.present.shape == (script.n_actors, config.video_s + 1)
    assert list(script.key_seconds) == list(range(1, config.video_s))
    assert script.present.any(axis=0).all()  # so only a cutaway empties a key frame
    assert script.place.min() >= 0
    assert script.place.max() < N_TABLES * SEATS_PER_TABLE + floor_places(config)
    assert (script.table[~script.present] == FLOOR).all()
    for second in range(config.video_s + 1):
        taken = script.place[script.present[:, second], second]
        assert len(set(taken.tolist())) == len(taken)
    poses = script.labels[:, :, [COLUMN["stand"], COLUMN["crouch"], COLUMN["sway"]]]
    assert (poses.sum(axis=2) == script.on_stage).all()
    for mark in (script.lamp, script.sign, script.cutaway, script.excluded):
        assert not mark[0] and not mark[-1]


def test_window_is_cut_at_the_borders_and_leaves_out_the_second_itself():
    config = SynthesizeConfig(video_s=12, window_radius_s=3, cutaway_probability=0.0)
    script = simulate_video(config, "train", 0)
    script.lamp[:], script.cutaway[:] = False, False
    script.lamp[[1, 11]] = True
    recalled = script.labels[:, :, COLUMN["recall_lamp"]].any(axis=0)
    assert np.flatnonzero(recalled).tolist() == [0, 2, 3, 4, 8, 9, 10, 12]  # 0 and 12 have no key frame


def test_event_in_a_cutaway_does_not_count():
    config = SynthesizeConfig(video_s=12, window_radius_s=3, cutaway_probability=0.0)
    script = simulate_video(config, "train", 0)
    script.lamp[:], script.cutaway[:] = False, False
    script.lamp[6] = script.cutaway[6] = True
    assert not script.labels[:, :, COLUMN["recall_lamp"]].any()
    assert not script.labels[:, 6].any()


def test_same_arguments_give_the_same_script():
    config = SynthesizeConfig()
    first, again = simulate_video(config, "val", 3), simulate_video(config, "val", 3)
    others = [
        simulate_video(config, "train", 3),
        simulate_video(config, "val", 4),
        simulate_video(SynthesizeConfig(seed=1), "val", 3),
    ]
    for name in (item.name for item in fields(VideoScript) if item.name not in ("split", "index")):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    for other in others:
        assert first.phase_rad.shape != other.phase_rad.shape or (first.phase_rad != other.phase_rad).any()


def test_actors_do_not_depend_on_the_chance_of_events():
    few, many = (simulate_video(SynthesizeConfig(event_probability=p), "train", 5) for p in (0.05, 0.5))
    assert np.array_equal(few.pose, many.pose) and np.array_equal(few.place, many.place)
    assert many.lamp.sum() > few.lamp.sum()


class Rows:
    """Annotated actors of many videos, one a row: their video, second, and (name -> values) seen in the clip."""

    def __init__(self, config: SynthesizeConfig, n_videos: int) -> None:
        self.config = config
        parts: dict[str, list[np.ndarray]] = {}
        for index in range(n_videos):
            for name, values in self._of_video(simulate_video(config, "train", index), index).items():
                parts.setdefault(name, []).append(values)
        self.columns = {name: np.concatenate(values) for name, values in parts.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @staticmethod
    def _of_video(script: VideoScript, index: int) -> dict[str, np.ndarray]:
        actors, seconds = np.nonzero(script.on_stage[:, 1:-1])
        seconds = seconds + 1
        labels = script.labels[actors, seconds]
        return {
            **{name: labels[:, column] for name, column in COLUMN.items()},
            "at_table": script.table[actors, seconds] != FLOOR,
            "visible_actors": script.on_stage.sum(axis=0)[seconds],
            "actors_of_video": np.full(len(actors), script.n_actors),
            "both_lit": script.lamp[seconds] & script.sign[seconds],
            "cutaway_before": script.cutaway[seconds - 1],
            "cutaway_after": script.cutaway[seconds + 1],
            "second": seconds,
            "video": np.full(len(actors), index),
        }

    def standard_errors_off_zero(self, values: np.ndarray) -> float:
        """How many standard errors the mean of `values` is from 0, the videos being the independent draws."""
        sums = np.bincount(self["video"], weights=values)
        return float(sums.sum() / np.sqrt(np.sum(sums**2)))

    def covariance_z(self, a: np.ndarray, b: np.ndarray) -> float:
        return self.standard_errors_off_zero((a - a.mean()) * (b - b.mean()))


@pytest.fixture(scope="module")
def rows() -> Rows:
    return Rows(SynthesizeConfig(), MANY)


SEEN_IN_THE_CLIP = [
    *[name for name in COLUMN if not name.startswith("recall")],
    "at_table", "visible_actors", "actors_of_video", "both_lit",
]  # fmt: skip


@pytest.mark.parametrize("seen", SEEN_IN_THE_CLIP)
@pytest.mark.parametrize("recall", ["recall_lamp", "recall_sign"])
def test_long_term_labels_are_independent_of_the_clip(rows, recall, seen):
    assert abs(rows.covariance_z(rows[recall], rows[seen])) < STANDARD_ERRORS


@pytest.mark.parametrize("seen", SEEN_IN_THE_CLIP)
def test_the_clip_does_not_tell_how_near_the_border_is(rows, seen):
    radius_s, last = rows.config.window_radius_s, rows.config.video_s - 1
    seconds = rows["second"]
    window_s = np.minimum(seconds + radius_s, last) - np.maximum(seconds - radius_s, 1)
    assert abs(rows.covariance_z(window_s, rows[seen])) < STANDARD_ERRORS
    assert abs(rows.covariance_z(seconds, rows[seen])) < STANDARD_ERRORS


def test_the_audit_would_notice_a_hint(rows):
    """The same test finds a label that really depends on the clip, and a weak one too."""
    assert abs(rows.covariance_z(rows["served"], rows["visible_actors"])) > STANDARD_ERRORS
    hinted = rows["recall_lamp"] & (~rows["lamp_lit"] | (rows["second"] % 3 > 0))
    assert abs(rows.covariance_z(hinted, rows["lamp_lit"])) > STANDARD_ERRORS


@pytest.mark.parametrize("recall", ["recall_lamp", "recall_sign"])
def test_neighbouring_cutaways_matter_as_the_law_says_and_no_more(rows, recall):
    """A cutaway next door (which the clip does not show) takes away exactly that second's event."""
    config, seconds = rows.config, rows["second"]
    last = config.video_s - 1
    lit, counts = config.event_probability, config.event_probability * (1 - config.cutaway_probability)
    radius_s = config.window_radius_s
    others = np.minimum(seconds + radius_s, last) - np.maximum(seconds - radius_s, 1)
    none = np.ones(len(seconds))
    for cutaway, inside in ((rows["cutaway_before"], seconds > 1), (rows["cutaway_after"], seconds < last)):
        others = others - inside
        none *= np.where(inside & ~cutaway, 1 - lit, 1.0)
    surprise = rows[recall] - (1 - none * (1 - counts) ** others)
    for name in ("cutaway_before", "cutaway_after"):
        assert abs(rows.standard_errors_off_zero(surprise * rows[name])) < STANDARD_ERRORS
    assert abs(rows.standard_errors_off_zero(surprise)) < STANDARD_ERRORS


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"window_radius_s": 2, "event_probability": 0.2, "cutaway_probability": 0.3, "video_s": 8},
        {"window_radius_s": 30, "video_s": 10},
    ],
)
def test_clip_only_figure_is_the_prevalence(rows, sizes):
    """AP of a constant score is the prevalence, which the law gives without drawing anything."""
    found = rows if not sizes else Rows(SynthesizeConfig(**sizes), 800)
    weights = np.bincount(found["second"], minlength=found.config.video_s)[1:]
    expected = clip_only_recall(found.config, weights)
    for recall in ("recall_lamp", "recall_sign"):
        assert abs(found.standard_errors_off_zero(found[recall] - expected)) < STANDARD_ERRORS
    assert abs(clip_only_recall(found.config) - expected) < 0.005  # actors are as many at every second


def test_clip_only_figure_by_hand():
    config = SynthesizeConfig(video_s=4, window_radius_s=1, event_probability=0.5, cutaway_probability=0.2)
    assert clip_only_recall(config) == pytest.approx((0.4 + (1 - 0.6**2) + 0.4) / 3)  # seconds 1, 2, 3
    assert clip_only_recall(config, np.array([0, 7, 0])) == pytest.approx(1 - 0.6**2)


def test_default_clip_stays_within_the_hint_free_reach():
    config = load_config(REPOSITORY / "config.yaml")
    before_s = config.clip.frames // 2 * config.clip.stride / config.ingest.fps
    assert before_s < HINT_FREE_REACH_S  # the clip reaches farther back than ahead
    assert config.ingest.fps == config.synthesize.fps  # else a frame may stand for one that is farther away
    assert config.stage2.window.radius_s == config.synthesize.window_radius_s
