"""At which times of a video persons are looked for and scored (`data.key_frames`). Never imports torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from acar.config import Config, Split
from acar.data.clips import frames_at, keyframe_seconds
from acar.data.csv_files import read_csv
from acar.data.findings import Findings
from acar.data.sources import labels_path
from acar.data.tables import LABEL_COLUMNS


def named_times(path: str | Path, *, found: Findings | None = None) -> dict[str, list[float]]:
    """The times that a labels csv names, by video, rising; rows without a box (nobody is there) count.

    Args:
        path: the file.
        found: as `acar.data.tables.read_labels` takes it.

    Raises:
        UserError: no such file, not UTF-8 or a malformed row.
    """
    frame, lines = read_csv(Path(path), LABEL_COLUMNS, n_required=7, bare=2, found=found)
    grouped = lines.good(frame).groupby("video")["time_s"]
    return {str(video): sorted(set(times)) for video, times in grouped}


class KeyTimes:
    """Tells the key frames of each video of a split.

    Under `data.key_frames: seconds` they are the whole seconds (paper section 3.3: the bank has rows at every one);
    under `labelled` the times that the labels csv names, wherever they fall between frames; under `both` all
    of these.
    """

    def __init__(self, config: Config, split: Split) -> None:
        self.span_s = config.data.span_s
        self._whole = config.data.key_frames != "labelled"
        is_named = config.data.key_frames != "seconds"
        self._named = named_times(labels_path(config, split)) if is_named else {}

    def of(self, record: Mapping[str, Any]) -> list[float]:
        """Where persons are looked for: source seconds within `data.span_s` that have a frame, rising.

        Args:
            record: a row of the videos table.
        """
        return sorted({*self._seconds(record), *self._named_with_frame(record)})

    def scored(self, record: Mapping[str, Any], labelled_s: Collection[float]) -> set[float]:
        """Where persons are scored: where the labels were, or could have been.

        Those are the times that the labels name, and of the whole seconds those within `data.span_s`, or from the
        first to the last labelled one: at others nobody has looked, and a score would count as a false positive.
        Labels between whole seconds say nothing about these.

        Args:
            record: a row of the videos table.
            labelled_s: the times at which the video has labelled persons.
        """
        named = set(self._named_with_frame(record))
        if not self._whole:
            return named
        first_s, last_s = self.span_s or reach_of_seconds(labelled_s)
        seconds = {second for second in self._seconds(record) if first_s <= second <= last_s}
        low_s, high_s = self.span_s or (-math.inf, math.inf)
        return named | seconds | {time_s for time_s in labelled_s if low_s <= time_s <= high_s}

    def _seconds(self, record: Mapping[str, Any]) -> list[float]:
        return [float(second) for second in keyframe_seconds(record, self.span_s)] if self._whole else []

    def _named_with_frame(self, record: Mapping[str, Any]) -> list[float]:
        low_s, high_s = self.span_s or (-math.inf, math.inf)
        named = self._named.get(str(record["video"]), [])
        times_s = np.array(named, dtype=float)
        frame = frames_at(record, times_s)
        shown = (low_s <= times_s) & (times_s <= high_s) & (frame >= 0) & (frame < int(record["n_frames"]))
        return list(compress(named, shown))


def reach_of_seconds(times_s: Collection[float]) -> tuple[float, float]:
    """First and last whole second of `times_s`; (inf, -inf), which holds nothing, without any."""
    seconds = [time_s for time_s in times_s if float(time_s).is_integer()]
    return min(seconds, default=math.inf), max(seconds, default=-math.inf)
