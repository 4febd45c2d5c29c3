"""Folders of numbered images: which images, which numbers, which size."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

NUMBERED_IMAGE = re.compile(r"(.*?)(\d+)(\.(?:jpe?g|png|bmp|webp))", re.IGNORECASE)


class BadVideoError(Exception):
    """A source that cannot be used; the message is the reason alone, without file, video or remedy."""


@dataclass(frozen=True)
class FrameFolder:
    """Images `pattern % number` for number in first_number .. first_number + n_frames - 1; size in px."""

    pattern: str
    first_number: int
    n_frames: int
    width: int
    height: int


def read_frame_folder(folder: Path, video: str) -> FrameFolder:
    """Find the numbered images of a folder.

    Names are `<video>_000001.jpg` (SlowFast), `image_000001.jpg` (ACAR-Net), `img_00001.jpg` (mmaction2) or
    any text with the number before the extension. If a folder holds several series, these three names win in
    that order.

    Raises:
        BadVideoError: no images, several unknown series, a number is missing, or the first image is broken.
    """
    series: dict[tuple[str, str], list[str]] = {}
    with os.scandir(folder) as entries:  # one look at the folder: AVA's hold 27,000 images each
        for entry in entries:
            match = NUMBERED_IMAGE.fullmatch(entry.name)
            if match and entry.is_file():
                series.setdefault((match[1], match[3]), []).append(match[2])
    if not series:
        raise BadVideoError("the folder holds no numbered images (.jpg, .png)")
    prefix, suffix = _choose(series, f"{Path(video).name}_")
    digits = series[prefix, suffix]
    pattern = prefix.replace("%", "%%") + f"%0{min(map(len, digits))}d" + suffix.replace("%", "%%")
    numbers, present = sorted(map(int, digits)), {prefix + text + suffix for text in digits}
    for number in range(numbers[0], numbers[-1] + 1):
        if pattern % number not in present:
            raise BadVideoError(f"image {pattern % number} is missing from its {len(numbers)} images")
    try:
        with Image.open(folder / (pattern % numbers[0])) as image:
            width, height = image.size
    except (OSError, SyntaxError) as error:
        raise BadVideoError(f"image {pattern % numbers[0]} cannot be read ({error})") from None
    return FrameFolder(pattern, numbers[0], numbers[-1] - numbers[0] + 1, width, height)


def _choose(series: dict[tuple[str, str], list[str]], own_prefix: str) -> tuple[str, str]:
    if len(series) == 1:
        return next(iter(series))
    for known in (own_prefix, "image_", "img_"):
        matching = [key for key in series if key[0] == known]
        if len(matching) == 1:
            return matching[0]
    names = ", ".join(sorted(f"{prefix}<number>{suffix}" for prefix, suffix in series)[:4])
    raise BadVideoError(f"the folder holds several series of images ({names}); keep one")
