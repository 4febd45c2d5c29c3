"""Where things stand and how they look in one drawn video.

Lengths are in units of the frame's short side; x to the right and y down from the frame's top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acar.config import Split, SynthesizeConfig
from acar.data.synthetic.law import N_TABLES, SEATS_PER_TABLE, floor_places, random_stream

Colour = tuple[int, int, int]

TABLE_WIDTH, TABLE_HEIGHT = 0.24, 0.11
SEAT_GAP = 0.055  # of a side seat from the table's edge
LAMP_DIAMETER = 0.22
SIGN_WIDTH, SIGN_HEIGHT = 0.26, 0.16
FIXTURE_Y = 0.135
"""Centre height of the lamp and the sign; heads stay below 0.25."""
SHIRTS: tuple[Colour, ...] = (
    (52, 84, 170), (40, 125, 75), (125, 60, 145), (70, 70, 80), (150, 50, 70), (35, 120, 135),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = ((35, 40, 60), (70, 55, 45), (55, 65, 55), (30, 30, 30))
SKINS: tuple[Colour, ...] = ((236, 196, 164), (198, 145, 108), (134, 90, 62))


@dataclass(frozen=True)
class Place:
    """A spot to stand: the feet's centre, and how large people look there."""

    x: float
    y: float
    scale: float


@dataclass(frozen=True)
class Figure:
    """One actor's looks; `height` at scale 1."""

    height: float
    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour


@dataclass(frozen=True)
class Blob:
    """A static thing nobody touches: `kind` is box, round, ball or tray."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """The static part of one video; `places` as numbered in VideoScript.place, `tables` as (x, bottom y)."""

    size_px: tuple[int, int]
    unit_px: int
    width: float
    height: float
    tables: tuple[tuple[float, float], ...]
    places: tuple[Place, ...]
    figures: tuple[Figure, ...]
    blobs: tuple[Blob, ...]
    lamp_x: float
    sign_x: float
    wall: Colour
    floor: Colour
    floor_y: float
    texture_seed: int


def frame_size_px(config: SynthesizeConfig, index: int) -> tuple[int, int]:
    """(width, height) of a video, both even, the shorter one `short_side_px` (rounded down to even)."""
    aspect = config.aspect_ratios[index % len(config.aspect_ratios)]
    short = config.short_side_px // 2 * 2
    longer = 2 * round(short * max(aspect, 1 / aspect) / 2)
    return (longer, short) if aspect >= 1 else (short, longer)


def arrange_scene(config: SynthesizeConfig, split: Split, index: int, n_actors: int) -> Scene:
    """Draw the static part of one video; nothing here knows of states, events or labels."""
    rng = random_stream(config, split, index, "look")
    size_px = frame_size_px(config, index)
    unit = min(size_px)
    width, height = size_px[0] / unit, size_px[1] / unit
    tables = _tables(rng, width, height)
    lamp_x, sign_x = _fixtures(rng, width)
    warm = int(rng.integers(-12, 13))
    grey, floor = int(rng.integers(95, 140)), int(rng.integers(70, 110))
    floor_y = height - float(rng.uniform(0.40, 0.46))
    return Scene(
        size_px=size_px, unit_px=unit, width=width, height=height, tables=tables,
        places=_seats(tables) + _floor(rng, floor_places(config), width, height),
        figures=tuple(_figure(rng, actor) for actor in range(n_actors)),
        blobs=_blobs(rng, width, height, floor_y),
        lamp_x=lamp_x, sign_x=sign_x, floor_y=floor_y, texture_seed=int(rng.integers(2**31)),
        wall=(grey + warm, grey, grey - warm), floor=(floor + 8, floor, floor - 8),
    )  # fmt: skip


def _tables(rng: np.random.Generator, width: float, height: float) -> tuple[tuple[float, float], ...]:
    """One table in each half of the frame, at two depths."""
    bottoms = rng.permutation([height - 0.29, height - 0.20])
    jitter = rng.uniform(-0.015, 0.015, N_TABLES)
    shares = (0.25, 0.75)
    return tuple((width * s + float(j), float(y)) for s, j, y in zip(shares, jitter, bottoms, strict=True))


def _seats(tables: tuple[tuple[float, float], ...]) -> tuple[Place, ...]:
    """Left of, behind and right of each table."""
    reach = TABLE_WIDTH / 2 + SEAT_GAP
    offsets = ((-reach, 0.005), (0.0, -0.03), (reach, 0.005))
    assert len(offsets) == SEATS_PER_TABLE
    return tuple(Place(x + dx, y + dy, 1.0) for x, y in tables for dx, dy in offsets)


def _floor(rng: np.random.Generator, n: int, width: float, height: float) -> tuple[Place, ...]:
    """A row of places in front of everything."""
    centres = (np.arange(n) + 0.5) / n * width + rng.uniform(-0.03, 0.03, n)
    depths = height - rng.uniform(0.02, 0.05, n)
    return tuple(Place(float(x), float(y), 1.08) for x, y in zip(centres, depths, strict=True))


def _fixtures(rng: np.random.Generator, width: float) -> tuple[float, float]:
    """x of lamp and sign: well apart, whole in the frame, either one left."""
    margin, apart = 0.15, 0.34
    left = float(rng.uniform(margin, width - margin - apart))
    right = float(rng.uniform(left + apart, width - margin))
    return (left, right) if rng.random() < 0.5 else (right, left)


def _figure(rng: np.random.Generator, actor: int) -> Figure:
    hair = int(rng.integers(15, 70))
    return Figure(
        height=float(rng.uniform(0.36, 0.43)),
        shirt=SHIRTS[(actor + int(rng.integers(2)) * 3) % len(SHIRTS)],
        trousers=TROUSERS[int(rng.integers(len(TROUSERS)))],
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair=(hair, hair * 3 // 4, hair // 2),
    )


def _blobs(rng: np.random.Generator, width: float, height: float, floor_y: float) -> tuple[Blob, ...]:
    """Pale furniture along the wall; balls and trays that lie about on the floor, below any hand."""
    blobs = []
    for _ in range(int(rng.integers(3, 6))):
        grey = int(rng.integers(75, 150))
        tint = int(rng.integers(-15, 16))
        blobs.append(
            Blob(
                kind="box" if rng.random() < 0.7 else "round",
                x=float(rng.uniform(0, width)), y=floor_y - float(rng.uniform(-0.05, 0.12)),
                width=float(rng.uniform(0.10, 0.26)), height=float(rng.uniform(0.08, 0.22)),
                colour=(grey + tint, grey, grey - tint),
            )
        )  # fmt: skip
    for kind, count in (("ball", rng.integers(1, 4)), ("tray", rng.integers(1, 3))):
        for _ in range(int(count)):
            x, y = float(rng.uniform(0.08, width - 0.08)), height - float(rng.uniform(0.03, 0.10))
            blobs.append(Blob(kind, x, y, 0.0, 0.0, (0, 0, 0)))
    return tuple(blobs)
