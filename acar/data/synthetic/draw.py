"""Pixels and boxes of one drawn video: a painter's algorithm over small cached sprites."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from acar.data.synthetic.law import BALL, CROUCH, MARK_HALF_S, NOTHING, SWAY, SWAY_PERIOD_S, VideoScript
from acar.data.synthetic.scene import Scene
from acar.data.synthetic.sprites import CROUCH_SHARE, figure_sprite, room_image, thing_sprite, with_fixtures

CHANGE_S = 0.3
"""A change of state is spread over this long, centred half-way between two seconds."""
SWAY_UNITS = 0.075
"""Amplitude of the sway in short sides; others keep a fixed offset drawn from the same distribution."""
MIN_VISIBLE = 0.35
"""An actor of whom less shows is not annotated, unless nobody shows more."""
NOBODY = -1
"""In an id map: a pixel that no actor is seen at."""


@dataclass(frozen=True)
class Pose:
    """One actor at one moment: feet (x, y) and height in short sides, crouch 0..1, what is held where."""

    x: float
    y: float
    height: float
    crouch: float
    hold: int
    side: int


@dataclass(frozen=True)
class Layer:
    """One sprite and its top left pixel; `actor` is whose body or held thing it is, None for furniture."""

    sprite: Image.Image
    corner: tuple[int, int]
    actor: int | None = None
    is_body: bool = False


def second_shown(tau_s: float) -> int | None:
    """The second whose marks show at time `tau_s`, if any."""
    second = round(tau_s)
    return second if abs(tau_s - second) <= MARK_HALF_S + 1e-9 else None


def pose_at(script: VideoScript, scene: Scene, actor: int, tau_s: float) -> Pose | None:
    """Where and how an actor is at time `tau_s`; None while away. Changes slide over CHANGE_S."""
    last = script.present.shape[1] - 1
    before = min(max(math.ceil(tau_s - 0.5 - CHANGE_S / 2), 0), last)
    after = min(math.floor(tau_s + 0.5 + CHANGE_S / 2), last)
    old, new = (_settled(script, scene, actor, second, tau_s) for second in (before, after))
    if before == after or (old is None and new is None):
        return old
    ramp = (tau_s - (before + 0.5 - CHANGE_S / 2)) / CHANGE_S
    weight = ramp * ramp * (3 - 2 * ramp)
    old, new = old or _aside(scene, new), new or _aside(scene, old)
    held = old if tau_s < before + 0.5 else new
    pairs = zip(_numbers(old), _numbers(new), strict=True)
    x, y, height, crouch = ((1 - weight) * a + weight * b for a, b in pairs)
    return Pose(x, y, height, crouch, held.hold, held.side)


def _settled(script: VideoScript, scene: Scene, actor: int, second: int, tau_s: float) -> Pose | None:
    """The state of one second, with its sway at time `tau_s`."""
    at = (actor, second)
    if not script.present[at]:
        return None
    place = scene.places[script.place[at]]
    turning = 2 * math.pi * tau_s / SWAY_PERIOD_S if script.pose[at] == SWAY else 0.0
    offset = SWAY_UNITS * math.sin(float(script.phase_rad[at]) + turning)
    height = scene.figures[actor].height * place.scale
    crouch = 1.0 if script.pose[at] == CROUCH else 0.0
    return Pose(place.x + offset, place.y, height, crouch, int(script.hold[at]), int(script.side[at]))


def _aside(scene: Scene, pose: Pose | None) -> Pose:
    """The same pose just outside the nearer edge of the frame."""
    assert pose is not None
    x = -0.2 if pose.x < scene.width / 2 else scene.width + 0.2
    return Pose(x, pose.y, pose.height, pose.crouch, pose.hold, pose.side)


def _numbers(pose: Pose) -> tuple[float, float, float, float]:
    return pose.x, pose.y, pose.height, pose.crouch


class Painter:
    """Draws the frames of one video and finds the boxes at its key frames."""

    def __init__(self, script: VideoScript, scene: Scene) -> None:
        self.script, self.scene = script, scene
        self.unit = scene.unit_px
        self._figures: dict[tuple[int, int, int], Image.Image] = {}
        self._things: dict[tuple[str, int], Image.Image] = {}
        room = room_image(scene)
        both = (False, True)
        self._rooms = {(lamp, sign): with_fixtures(room, scene, lamp, sign) for lamp in both for sign in both}

    def frame(self, tau_s: float) -> np.ndarray:
        """(height, width, 3) uint8 RGB at time `tau_s`."""
        second = second_shown(tau_s)
        shown = second is not None
        lit = (shown and bool(self.script.lamp[second]), shown and bool(self.script.sign[second]))
        image = self._rooms[lit].copy()
        for layer in self._layers(tau_s, empty=shown and bool(self.script.cutaway[second])):
            image.paste(layer.sprite, layer.corner, layer.sprite)
        return np.asarray(image)

    def boxes(self, second: int) -> dict[int, tuple[float, float, float, float]]:
        """Annotated actors of a key frame: tight visible extent, (x1, y1, x2, y2) in 0..1 of the frame.

        The held thing is not part of the box, and does not hide its own holder. Never empty unless the second
        is a cutaway: the actor of whom most shows is always annotated.
        """
        ids, areas = self._id_map(second)
        if not areas:
            return {}
        shares = {actor: np.count_nonzero(ids == actor) / area for actor, area in areas.items()}
        clearest = max(shares, key=lambda actor: shares[actor])
        kept = [a for a in sorted(shares) if shares[a] >= MIN_VISIBLE or a == clearest]
        return {actor: _extent(ids == actor) for actor in kept}

    def _id_map(self, second: int) -> tuple[np.ndarray, dict[int, int]]:
        """(height, width) int16, the actor on top of each pixel; and every actor's whole area in pixels."""
        width, height = self.scene.size_px
        ids = np.full((height, width), NOBODY, dtype=np.int16)
        areas: dict[int, int] = {}
        for layer in self._layers(float(second), empty=bool(self.script.cutaway[second])):
            solid = np.asarray(layer.sprite.getchannel("A")) > 127
            left, top = layer.corner
            bottom, right = max(top + solid.shape[0], 0), max(left + solid.shape[1], 0)
            under = ids[max(top, 0) : bottom, max(left, 0) : right]
            inside = solid[max(-top, 0) :, max(-left, 0) :][: under.shape[0], : under.shape[1]]
            if layer.is_body and layer.actor is not None:
                areas[layer.actor] = int(solid.sum())
                under[inside] = layer.actor
            else:
                under[inside & ((under != layer.actor) if layer.actor is not None else True)] = NOBODY
        return ids, areas

    def _layers(self, tau_s: float, *, empty: bool) -> list[Layer]:
        """Sprites from back to front: people and tables in the order of their feet."""
        parts = [(y, [self._thing("table", 1.0, x, y)]) for x, y in self.scene.tables]
        for actor in range(0 if empty else self.script.n_actors):
            pose = pose_at(self.script, self.scene, actor, tau_s)
            if pose is not None:
                parts.append((pose.y, self._figure_and_thing(actor, pose)))
        return [layer for _, layers in sorted(parts, key=lambda part: part[0]) for layer in layers]

    def _figure_and_thing(self, actor: int, pose: Pose) -> list[Layer]:
        height_px, crouch = round(pose.height * self.unit), round(pose.crouch * 4)
        key = (actor, height_px, crouch)
        if key not in self._figures:
            self._figures[key] = figure_sprite(self.scene.figures[actor], height_px, crouch / 4)
        body = self._figures[key]
        layers = [Layer(body, self._corner(body, pose.x, pose.y), actor, is_body=True)]
        if pose.hold != NOTHING:
            name, reach, share = ("ball", 0.20, 0.36) if pose.hold == BALL else ("tray", 0.12, 0.46)
            rise = pose.height * (1 - (1 - CROUCH_SHARE) * pose.crouch)
            x = pose.x + pose.side * reach * pose.height
            layers.append(self._thing(name, pose.height, x, pose.y - share * rise, actor))
        return layers

    def _thing(self, name: str, scale: float, x: float, bottom: float, actor: int | None = None) -> Layer:
        key = (name, round(scale * self.unit))
        if key not in self._things:
            self._things[key] = thing_sprite(name, key[1])
        sprite = self._things[key]
        return Layer(sprite, self._corner(sprite, x, bottom), actor)

    def _corner(self, sprite: Image.Image, x: float, bottom: float) -> tuple[int, int]:
        """Top left pixel of a sprite that stands centred on (x, bottom)."""
        return round(x * self.unit - sprite.width / 2), round(bottom * self.unit) - sprite.height


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Tight box of a mask, 0..1; the far edges are exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        float(columns[0] / width), float(rows[0] / height),
        float((columns[-1] + 1) / width), float((rows[-1] + 1) / height),
    )  # fmt: skip
