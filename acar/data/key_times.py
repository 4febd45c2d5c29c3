"""At which times of a video persons are looked for and scored (`data.key_frames`). Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acar.config import Config, Split
from acar.data.clips import frame_index, keyframe_seconds
from acar.data.csv_files import read_csv
from acar.data.sources import labels_path
from acar.data.tables import LABEL_COLUMNS


def named_times(path: str | Path) -> dict[str, list[float]]:
    """The times that a labels csv names, by video, rising; rows without a box (nobody is there) count.

    Raises:
        UserError: no such file, not UTF-8 or a malformed row.
    """
    frame, _ = read_csv(Path(path), LABEL_COLUMNS, n_required=7)
    return {str(video): sorted(set(times)) for video, times in frame.groupby("video")["time_s"]}


class KeyTimes:
    """Tells the key frames of each video of a split.

    Under `data.key_frames: seconds` they are the whole seconds (paper section 3.3: the bank has rows at every one);
    under `labelled` the times that the labels csv names, wherever they fall between frames.
    """

    def __init__(self, config: Config, split: Split) -> None:
        self.span_s = config.data.span_s
        is_labelled = config.data.key_frames == "labelled"
        self._named = named_times(labels_path(config, split)) if is_labelled else None

    def of(self, record: Mapping[str, Any]) -> list[float]:
        """Source seconds within `data.span_s` that have a frame, rising.

        Args:
            record: a row of the videos table.
        """
        if self._named is None:
            return [float(second) for second in keyframe_seconds(record, self.span_s)]
        low_s, high_s = self.span_s if self.span_s is not None else (float("-inf"), float("inf"))
        last = int(record["n_frames"]) - 1
        return [
            time_s
            for time_s in self._named.get(str(record["video"]), [])
            if low_s <= time_s <= high_s and 0 <= frame_index(record, time_s) <= last
        ]
