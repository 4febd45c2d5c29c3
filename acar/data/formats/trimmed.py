"""Kinetics clips cut out of their videos: `<id>_<first second>_<last second>`, each six digits. Never imports torch.

AVA-Kinetics names the whole video and its second; who has the Kinetics clips needs the clip and the second in it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from acar.data.sources import VIDEO_SUFFIXES
from acar.errors import UserError

_CLIP = re.compile(r"(?P<video>.+)_(?P<first>[0-9]{6})_(?P<last>[0-9]{6})")


def clips_in(folder: Path) -> dict[str, list[tuple[float, float, str]]]:
    """First second, last second and name of each clip in a folder, by the id of its video.

    Raises:
        UserError: no such folder, or no clip in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected clips named <id>_000012_000022.mp4")
    clips: dict[str, list[tuple[float, float, str]]] = {}
    for path in sorted(folder.iterdir()):
        name = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
        match = _CLIP.fullmatch(name)
        if match:
            clips.setdefault(match["video"], []).append((float(match["first"]), float(match["last"]), name))
    if not clips:
        raise UserError(f"{folder}: no clip named <id>_000012_000022.mp4 (or a folder of frames so named)")
    return clips


def to_clips(rows: pd.DataFrame, folder: Path, *, what: str = "row(s)") -> tuple[pd.DataFrame, list[str]]:
    """Rows with the clip's name for `video` and the clip's second for `time_s`; those of no clip are left out.

    Ids that are named like a file of the folder already stay as they are. A clip has its first second and not its
    last one, at which it shows no frame any more: that is another clip's first, or no clip's.

    Args:
        rows: at least the columns video and time_s.
        folder: of the clips.
        what: the rows are, for what is told of them.

    Returns:
        the rows, and what to tell of them.

    Raises:
        UserError: as `clips_in`.
    """
    clips = clips_in(folder)
    names = {name for found in clips.values() for _, _, name in found}
    keys = list(zip(rows["video"], rows["time_s"], strict=True))
    place = {key: _clip_of(*key, clips, names) for key in set(keys)}
    kept = [place[key] is not None for key in keys]
    moved = [found for key in keys if (found := place[key]) is not None]
    result = rows[kept].assign(
        video=pd.Series([name for name, _ in moved], index=rows.index[kept], dtype="str"),
        time_s=pd.Series([time_s for _, time_s in moved], index=rows.index[kept], dtype="float64"),
    )
    outside = [key for key in place if place[key] is None]
    if not outside:
        return result.reset_index(drop=True), []
    told = f"lost: {len(rows) - len(moved)} {what} of {len(outside)} key frame(s) in no clip of {folder}"
    ends = sum(any(time_s == last for _, last, _ in clips.get(video, [])) for video, time_s in outside)
    at_end = f"; {ends} of these lie at the very second that a clip ends, where it has no frame"
    return result.reset_index(drop=True), [told + (at_end if ends else "")]


def _clip_of(
    video: str, time_s: float, clips: dict[str, list[tuple[float, float, str]]], names: set[str]
) -> tuple[str, float] | None:
    if video in names:
        return video, time_s
    found = [clip for clip in clips.get(video, []) if clip[0] <= time_s < clip[1]]
    if not found:
        return None
    first, _, name = found[0]
    return name, round(time_s - first, 6)
