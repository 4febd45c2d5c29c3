"""The law of the drawn data set: who does what in which second, and which labels follow. No pixels.

Shape legend: A actors of a video, S = video_s + 1 whole seconds 0..video_s, F floor places, C classes.
The state of second s holds for times in [s - 0.5, s + 0.5); key frames are the seconds 1..video_s - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acar.config import SPLITS, Split, SynthesizeConfig

MARK_HALF_S = 0.15
"""What marks one second only (lit lamp, lit sign, cutaway) shows while |tau - s| is at most this."""
HINT_FREE_REACH_S = 1.0 - MARK_HALF_S
"""A clip that stays strictly within this distance of its key frame shows no mark of another second."""
SWAY_PERIOD_S = 0.8

STAND, CROUCH, SWAY = range(3)
NOTHING, BALL, TRAY = range(3)
SEATS_PER_TABLE = 3
N_TABLES = 2
FLOOR = -1
"""`table_of_place` of a place away from both tables."""

POSE_REDRAW = 0.42  # a redraw returns the old value one time in three: a mean dwell of 3.6 s
HOLD_REDRAW = 0.42
HOLD_SHARES = (0.49, 0.21, 0.30)  # nothing, ball, tray
MOVE = 0.28  # to another free place: a mean dwell of 3.6 s
LEAVE, RETURN = 0.05, 0.25
FLOOR_WEIGHT = 0.6  # all floor places together; a seat weighs (1 + GATHER * people there) / SEATS_PER_TABLE
GATHER = 20.0
BURN_IN_S = 40  # ten dwells: second 1 is distributed like second 20, so the clip does not tell the time
EXCLUDED = 0.01


@dataclass(frozen=True)
class LawClass:
    """One action class and the only thing that decides it."""

    id: int
    name: str
    group: str
    cause: str


_LONG = "scene event in the window, outside the clip"
CLASSES: tuple[LawClass, ...] = (
    LawClass(1, "stand", "pose", "actor alone: motion"),
    LawClass(2, "crouch", "pose", "actor alone: shape"),
    LawClass(3, "sway", "pose", "actor alone: motion"),
    LawClass(4, "hold_ball", "object", "actor-object"),
    LawClass(5, "carry_tray", "object", "actor-object"),
    LawClass(6, "lamp_lit", "scene", "scene now"),
    LawClass(7, "sign_lit", "scene", "scene now"),
    LawClass(8, "served", "second_order", "another actor's relation to a shared place"),
    LawClass(9, "recall_lamp", "long_term", _LONG),
    LawClass(10, "recall_sign", "long_term", _LONG),
)


@dataclass(frozen=True)
class VideoScript:
    """Everything that happens in one video; indices of the second axis are whole seconds.

    `present, place, pose, phase_rad, hold, side` have shape (A, S); `lamp, sign, cutaway, excluded` (S,).
    `place` counts the seats of table 0, those of table 1, then the floor places; it keeps its last value
    while the actor is away. `side` is -1 or +1, the hand that holds. Marks are False at second 0 and at the last.
    """

    split: Split
    index: int
    window_radius_s: int
    present: np.ndarray
    place: np.ndarray
    pose: np.ndarray
    phase_rad: np.ndarray
    hold: np.ndarray
    side: np.ndarray
    lamp: np.ndarray
    sign: np.ndarray
    cutaway: np.ndarray
    excluded: np.ndarray

    @property
    def video(self) -> str:
        """Video id, e.g. `val_007`."""
        return f"{self.split}_{self.index:03d}"

    @property
    def n_actors(self) -> int:
        """Actors of the video, on stage or away."""
        return self.present.shape[0]

    @property
    def key_seconds(self) -> range:
        """The seconds that have a key frame."""
        return range(1, self.present.shape[1] - 1)

    @cached_property
    def table(self) -> np.ndarray:
        """(A, S) int: the table that an actor is at; FLOOR elsewhere and while away."""
        table = np.where(self.place < N_TABLES * SEATS_PER_TABLE, self.place // SEATS_PER_TABLE, FLOOR)
        return np.where(self.present, table, FLOOR)

    @cached_property
    def on_stage(self) -> np.ndarray:
        """(A, S) bool: drawn at the key frame, that is present and no cutaway."""
        return self.present & ~self.cutaway[None]

    @cached_property
    def labels(self) -> np.ndarray:
        """(A, S, C) bool in the order of CLASSES; all False for an actor that is not on stage."""
        served = _served(self.table, self.hold)
        scene = [self.lamp, self.sign]
        recall = [self._recalled(event) for event in scene]
        poses = [self.pose == pose for pose in (STAND, CROUCH, SWAY)]
        holds = [self.hold == BALL, self.hold == TRAY]
        shared = [np.broadcast_to(row, self.pose.shape) for row in (*scene, *recall)]
        columns = [*poses, *holds, *shared[:2], served, *shared[2:]]
        return np.stack(columns, axis=2) & self.on_stage[:, :, None]

    def _recalled(self, event: np.ndarray) -> np.ndarray:
        """(S,) bool: the event counts, that is happens with an actor on stage, in another second of the window."""
        counts = event & self.on_stage.any(axis=0)
        recalled = np.zeros_like(counts)
        for step in range(1, min(self.window_radius_s, len(counts) - 1) + 1):
            recalled[step:] |= counts[:-step]
            recalled[:-step] |= counts[step:]
        return recalled


def simulate_video(config: SynthesizeConfig, split: Split, index: int) -> VideoScript:
    """Draw the script of one video; the same arguments give the same script."""
    rng = random_stream(config, split, index, "actors")
    n_actors = int(rng.integers(max(2, config.max_actors - 1), config.max_actors + 1))
    states = _simulate_actors(rng, n_actors, floor_places(config), config.video_s + 1)
    rng = random_stream(config, split, index, "events")
    chances = (config.event_probability, config.event_probability, config.cutaway_probability, EXCLUDED)
    marks = rng.random((4, config.video_s + 1)) < np.array(chances)[:, None]
    marks[:, [0, -1]] = False
    lamp, sign, cutaway, excluded = marks
    return VideoScript(
        split=split, index=index, window_radius_s=config.window_radius_s, **states,
        lamp=lamp, sign=sign, cutaway=cutaway, excluded=excluded,
    )  # fmt: skip


def clip_only_recall(config: SynthesizeConfig, weight_of_second: np.ndarray | None = None) -> float:
    """Probability of a long-term class given the clip but not its second; see docs/drawn-data.md.

    `weight_of_second` (video_s - 1,): annotated actors of each key-frame second over all videos; None: equal.
    A constant score's average precision equals this prevalence.
    """
    seconds = np.arange(1, config.video_s)
    first = np.maximum(seconds - config.window_radius_s, 1)
    last = np.minimum(seconds + config.window_radius_s, config.video_s - 1)
    counts = config.event_probability * (1 - config.cutaway_probability)
    chance = 1 - (1 - counts) ** (last - first)
    return float(np.average(chance, weights=weight_of_second))


def floor_places(config: SynthesizeConfig) -> int:
    """F: enough that a free place always exists."""
    return max(4, config.max_actors)


def random_stream(config: SynthesizeConfig, split: Split, index: int, purpose: str) -> np.random.Generator:
    """Independent generators of one video, so that, say, the look never depends on the number of events."""
    purposes = ("actors", "events", "look")
    entropy = [config.seed, SPLITS.index(split), index]
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(purposes.index(purpose),)))


def _served(table_AS: np.ndarray, hold_AS: np.ndarray) -> np.ndarray:
    """(A, S) bool: at a table, holding nothing, while another actor stands there with a tray."""
    served = np.zeros(table_AS.shape, dtype=bool)
    for table in range(N_TABLES):
        here = table_AS == table
        tray_here = (here & (hold_AS == TRAY)).any(axis=0)
        served |= here & (hold_AS == NOTHING) & tray_here[None]
    return served


def _simulate_actors(rng: np.random.Generator, n: int, n_floor: int, seconds: int) -> dict[str, np.ndarray]:
    """The memoryless process of all actors, after the burn-in; arrays of shape (n, seconds)."""
    n_places = N_TABLES * SEATS_PER_TABLE + n_floor
    steps = BURN_IN_S + seconds
    draws = rng.random((steps, n, 4))
    present = [True] * n
    place = [int(p) for p in rng.permutation(n_places)[:n]]
    where = np.zeros((n, steps), dtype=np.int64)
    here = np.zeros((n, steps), dtype=bool)
    for step in range(steps):
        for actor in range(n):
            _move(actor, present, place, draws[step, actor].tolist(), n_floor)
        where[:, step], here[:, step] = place, present
    pose = _hold_or_redraw(rng, rng.integers(0, 3, (n, steps)), POSE_REDRAW)
    phase = _hold_or_redraw(rng, rng.random((n, steps)) * 2 * np.pi, POSE_REDRAW, like=pose)
    hold = _hold_or_redraw(rng, rng.choice(3, (n, steps), p=HOLD_SHARES), HOLD_REDRAW)
    side = _hold_or_redraw(rng, rng.choice([-1, 1], (n, steps)), HOLD_REDRAW, like=hold)
    states = {"present": here, "place": where, "pose": pose, "phase_rad": phase, "hold": hold, "side": side}
    return {name: values[:, BURN_IN_S:] for name, values in states.items()}


def _move(actor: int, present: list[bool], place: list[int], draws: list[float], n_floor: int) -> None:
    """One actor's step: leave (never as the last one), return, or change place."""
    leave_or_return, move, choice, _ = draws
    if present[actor]:
        if leave_or_return < LEAVE and sum(present) > 1:
            present[actor] = False
        elif move < MOVE:
            place[actor] = _choose_place(actor, present, place, choice, n_floor)
    elif leave_or_return < RETURN:
        place[actor] = _choose_place(actor, present, place, choice, n_floor)
        present[actor] = True


def _choose_place(actor: int, present: list[bool], place: list[int], choice: float, n_floor: int) -> int:
    """A free place; seats at a table with people weigh more, since people gather."""
    taken = {place[other] for other in range(len(place)) if other != actor and present[other]}
    people = [sum(p // SEATS_PER_TABLE == table for p in taken) for table in range(N_TABLES)]
    weights = [(1 + GATHER * people[table]) / SEATS_PER_TABLE for table in range(N_TABLES)
               for _ in range(SEATS_PER_TABLE)] + [FLOOR_WEIGHT / n_floor] * n_floor  # fmt: skip
    for occupied in taken | {place[actor]}:
        weights[occupied] = 0.0
    threshold = choice * sum(weights)
    for candidate, weight in enumerate(weights):
        threshold -= weight
        if threshold < 0:
            return candidate
    return max(index for index, weight in enumerate(weights) if weight > 0)


def _hold_or_redraw(
    rng: np.random.Generator, fresh: np.ndarray, redraw: float, like: np.ndarray | None = None
) -> np.ndarray:
    """(A, steps): each step keeps the last value or, with probability `redraw`, takes the fresh one.

    With `like`, a redraw happens exactly where `like` changes (a phase belongs to one spell of a pose).
    """
    changes = None if like is None else np.diff(like, axis=1, prepend=like[:, :1] - 1) != 0
    again = rng.random(fresh.shape) < redraw if changes is None else changes
    again[:, 0] = True
    last = np.maximum.accumulate(np.where(again, np.arange(fresh.shape[1]), 0), axis=1)
    return np.take_along_axis(fresh, last, axis=1)
