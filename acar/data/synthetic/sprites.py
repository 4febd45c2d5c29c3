"""The looks of people, things and rooms: small RGBA sprites, drawn large and reduced."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from acar.data.synthetic.scene import (
    FIXTURE_Y,
    LAMP_DIAMETER,
    SIGN_HEIGHT,
    SIGN_WIDTH,
    TABLE_HEIGHT,
    TABLE_WIDTH,
    Blob,
    Colour,
    Figure,
    Scene,
)  # fmt: skip

CROUCH_SHARE = 0.60
"""Height of a crouching figure over the standing one."""
FINE = 4  # sprites are drawn this many times larger
LYING_SCALE = 0.42  # things on the floor look as big as held ones

BALL_COLOUR: Colour = (255, 110, 20)
TRAY_COLOUR: Colour = (245, 245, 250)
LAMP_COLOUR: Colour = (255, 235, 90)
SIGN_COLOUR: Colour = (60, 250, 255)
SIGN_RIM: Colour = (255, 60, 230)
SIGN_LIGHT: Colour = (190, 90, 255)
LAMP_REACH, SIGN_REACH = 1.2, 1.2
"""How far a lit lamp or sign lights the room, in short sides: warm the one, violet the other."""
HALO = 0.5
"""Strength of that at its source, 0..1."""


class _Canvas:
    """A large transparent picture addressed in fractions of its height, centred in x, feet at y = 0."""

    def __init__(self, width: float, height_px: int) -> None:
        self.size = (max(2, round(width * height_px)), max(2, height_px))
        self.image = Image.new("RGBA", (self.size[0] * FINE, self.size[1] * FINE), (0, 0, 0, 0))
        self.pen = ImageDraw.Draw(self.image)

    def box(self, x1: float, y1: float, x2: float, y2: float) -> list[float]:
        """Corners as fractions (y upward) to pixels (y downward)."""
        width, height = self.image.size
        return [
            width / 2 + x1 * height,
            height * (1 - y2),
            width / 2 + x2 * height - 1,
            height * (1 - y1) - 1,
        ]

    def rectangle(
        self, corners: tuple[float, float, float, float], colour: Colour, radius: float = 0.0
    ) -> None:
        self.pen.rounded_rectangle(self.box(*corners), radius * self.image.size[1], fill=(*colour, 255))

    def ellipse(self, corners: tuple[float, float, float, float], colour: Colour) -> None:
        self.pen.ellipse(self.box(*corners), fill=(*colour, 255))

    def reduced(self) -> Image.Image:
        return self.image.resize(self.size, Image.Resampling.BOX)


def figure_sprite(figure: Figure, height_px: int, crouch: float) -> Image.Image:
    """A person `height_px` tall when upright; `crouch` 0..1 folds the legs and lowers the rest."""
    full = 1 - (1 - CROUCH_SHARE) * crouch  # of the upright height
    canvas = _Canvas(0.44 / full, round(height_px * full))

    def at(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
        """Fractions of the upright height to fractions of this canvas."""
        return x1 / full, y1 / full, x2 / full, y2 / full

    hip = full - 0.53  # head and trunk keep their size: 0.53 of the upright height
    if crouch > 0.5:  # knees to both sides
        canvas.ellipse(at(-0.22, 0.0, 0.02, hip + 0.13), figure.trousers)
        canvas.ellipse(at(-0.02, 0.0, 0.22, hip + 0.13), figure.trousers)
    else:
        canvas.rectangle(at(-0.11, 0.0, -0.01, hip + 0.05), figure.trousers, 0.02)
        canvas.rectangle(at(0.01, 0.0, 0.11, hip + 0.05), figure.trousers, 0.02)
    for x in (-0.19, 0.13):
        canvas.rectangle(at(x, hip + 0.02, x + 0.06, hip + 0.31), _darker(figure.shirt), 0.02)
    canvas.rectangle(at(-0.13, hip, 0.13, hip + 0.33), figure.shirt, 0.05)
    canvas.ellipse(at(-0.095, hip + 0.335, 0.095, hip + 0.53), figure.hair)
    canvas.ellipse(at(-0.08, hip + 0.32, 0.08, hip + 0.49), figure.skin)
    return canvas.reduced()


def thing_sprite(name: str, scale_px: int) -> Image.Image:
    """A ball or a tray for someone `scale_px` tall, or a table in a frame of short side `scale_px`."""
    if name == "ball":
        canvas = _Canvas(1.0, round(0.25 * scale_px))
        canvas.ellipse((-0.5, 0.0, 0.5, 1.0), _darker(BALL_COLOUR))
        canvas.ellipse((-0.46, 0.08, 0.42, 0.98), BALL_COLOUR)
        canvas.ellipse((-0.25, 0.55, 0.0, 0.82), (255, 220, 170))
    elif name == "tray":
        canvas = _Canvas(0.62 / 0.17, round(0.17 * scale_px))
        for x in (-1.1, 0.55):
            canvas.rectangle((x, 0.3, x + 0.6, 1.0), (225, 60, 60))
        canvas.rectangle((-1.82, 0.0, 1.82, 0.5), (90, 90, 95), 0.1)
        canvas.rectangle((-1.78, 0.1, 1.78, 0.46), TRAY_COLOUR, 0.1)
    else:
        canvas = _Canvas(TABLE_WIDTH / TABLE_HEIGHT, round(TABLE_HEIGHT * scale_px))
        half = TABLE_WIDTH / TABLE_HEIGHT / 2
        canvas.rectangle((-half + 0.1, 0.0, half - 0.1, 0.8), (92, 56, 28))
        canvas.rectangle((-half, 0.7, half, 1.0), (160, 104, 56))
    return canvas.reduced()


def room_image(scene: Scene) -> Image.Image:
    """The empty room without fixtures: wall and floor with a faint texture, furniture, things lying about."""
    rng = np.random.default_rng(scene.texture_seed)
    width, height = scene.size_px
    pixels = np.empty((height, width, 3), dtype=np.float32)
    split = round(scene.floor_y * scene.unit_px)
    pixels[:split], pixels[split:] = scene.wall, scene.floor
    coarse = rng.normal(0, 1, (12, 12, 3)).astype(np.float32)
    layers = [Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
              for channel in range(3)]  # fmt: skip
    pixels += 5 * np.stack([np.asarray(layer) for layer in layers], axis=-1)
    pixels += rng.normal(0, 2, (height, width, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    for blob in scene.blobs:
        _put_blob(image, blob, scene.unit_px)
    return image


def with_fixtures(room: Image.Image, scene: Scene, lamp: bool, sign: bool) -> Image.Image:
    """A copy of the room with lamp and sign, each lit or not."""
    image = room.copy()
    unit = scene.unit_px
    if sign:
        plate = (scene.sign_x * unit, FIXTURE_Y * unit)
        _shine(image, plate, SIGN_LIGHT, disk_px=0.0, reach_px=SIGN_REACH * unit)
    _put_lamp(image, scene.lamp_x * unit, unit, lit=lamp)
    _put_sign(image, scene.sign_x * unit, unit, lit=sign)
    return image


def _put_lamp(image: Image.Image, x: float, unit: int, *, lit: bool) -> None:
    """A hanging circle; lit, a disk of LAMP_DIAMETER and light on the room."""
    y, shade = FIXTURE_Y * unit, 0.042 * unit
    pen = ImageDraw.Draw(image)
    pen.line([x, 0, x, y], fill=(40, 40, 40), width=max(1, unit // 64))
    pen.ellipse([x - shade, y - shade, x + shade, y + shade], fill=(70, 66, 50), outline=(35, 35, 30))
    if lit:
        _shine(image, (x, y), LAMP_COLOUR, disk_px=LAMP_DIAMETER / 2 * unit, reach_px=LAMP_REACH * unit)


def _shine(
    image: Image.Image, centre: tuple[float, float], colour: Colour, *, disk_px: float, reach_px: float
) -> None:
    """A full disk, and light on the room that fades to nothing at `reach_px`."""
    columns, rows = np.meshgrid(np.arange(image.width) + 0.5, np.arange(image.height) + 0.5)
    distance = np.hypot(columns - centre[0], rows - centre[1])
    disk = np.clip((disk_px + 1.5 - distance) / 3, 0, 1)
    light = HALO * np.clip(1 - distance / reach_px, 0, 1)
    alpha = Image.fromarray((np.maximum(disk, light) * 255).astype(np.uint8))
    image.paste(Image.new("RGB", image.size, colour), (0, 0), alpha)


def _put_sign(image: Image.Image, x: float, unit: int, *, lit: bool) -> None:
    """A plate on the wall; lit, it glows over SIGN_WIDTH by SIGN_HEIGHT."""
    y = FIXTURE_Y * unit
    share = 1.0 if lit else 0.62
    half_width, half_height = share * SIGN_WIDTH / 2 * unit, share * SIGN_HEIGHT / 2 * unit
    corners = [x - half_width, y - half_height, x + half_width, y + half_height]
    fill, rim = (SIGN_COLOUR, SIGN_RIM) if lit else ((62, 74, 80), (45, 45, 50))
    ImageDraw.Draw(image).rectangle(corners, fill=fill, outline=rim, width=max(1, unit // 40))


def _put_blob(image: Image.Image, blob: Blob, unit: int) -> None:
    if blob.kind in ("ball", "tray"):
        sprite = thing_sprite(blob.kind, round(LYING_SCALE * unit))
        corner = round(blob.x * unit - sprite.width / 2), round(blob.y * unit - sprite.height)
        image.paste(sprite, corner, sprite)
        return
    pen = ImageDraw.Draw(image)
    half = blob.width / 2
    corners = [(blob.x - half) * unit, (blob.y - blob.height) * unit, (blob.x + half) * unit, blob.y * unit]
    shape = pen.rectangle if blob.kind == "box" else pen.ellipse
    shape(corners, fill=blob.colour, outline=_darker(blob.colour))


def _darker(colour: Colour) -> Colour:
    red, green, blue = (round(0.75 * channel) for channel in colour)
    return red, green, blue
