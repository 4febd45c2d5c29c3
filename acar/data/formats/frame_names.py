"""Which second an extracted image shows, by its number. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acar.errors import UserError

RATES = (0.001, 10_000.0)
"""Least and greatest frames a second: beyond them a video's last frames are later than `csv_files.LATEST_S`, or its
frames are not apart by 6 decimals."""


@dataclass(frozen=True)
class FrameNames:
    """Where the frames of a second are among extracted images.

    Attributes:
        fps: images a second.
        first_s: second that image 1 shows.
        pattern: of the images' names.
    """

    fps: float = 30.0
    first_s: float = 0.0
    pattern: str = "image_%06d.jpg"

    def number(self, time_s: float) -> int:
        """Number of the image at a second; the first has number 1."""
        return round((time_s - self.first_s) * self.fps) + 1

    def number_to_write(self, path: Path, video: str, time_s: float) -> int:
        """`number`, for a file that is written.

        Raises:
            UserError: the key frame is before the first image.
        """
        number = self.number(time_s)
        if number < 1:
            raise UserError(
                f"{path}: not written: second {time_s:g} of video {video} would be image {number} by --first-second "
                f"{self.first_s:g} and --fps {self.fps:g}; expected the second that image 1 shows, at or before all "
                "key frames"
            )
        return number

    def time_s(self, number: int) -> float:
        """Second that an image shows."""
        return self.first_s + (number - 1) / self.fps
