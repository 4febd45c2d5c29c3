"""A split's videos: which are there, and whether they hold their labels. Decodes nothing.

What ingest would make of a video is told by its own rules (`acar.data.coverage`) from the header, and from the last
packets where a frame more or less decides.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from acar.config import Config
from acar.data.check.facts import COVERED, Problems, SplitFacts, each
from acar.data.clips import frame_index
from acar.data.coverage import cut_of, folder_start_s, most_lost_s, uncovered
from acar.data.decode import n_constant_rate, read_header
from acar.data.encode import exact_rate
from acar.data.frame_folder import BadVideoError, read_frame_folder
from acar.data.picture_end import PictureEnd, picture_end
from acar.data.sources import SourceFolder, labels_path
from acar.errors import UserError

OPEN_AT_ONCE = 8  # headers wait for the disk, not for the processor


@dataclass(frozen=True)
class _Source:
    """What a source would be once it is ingested, as far as it can be told, or why it is none.

    Attributes:
        row: its `start_s`, `fps` and `n_frames`; None: nothing tells.
        is_exact: whether decoding will give that number of frames, if nothing is damaged.
        bad: why it cannot be read.
    """

    row: dict[str, Any] | None = None
    is_exact: bool = True
    bad: str = ""


def check_videos(
    config: Config, facts: SplitFacts, sources: SourceFolder, problems: Problems, open_videos: bool
) -> None:
    """Note videos that are missing, unreadable or shorter than their labels; sums up the seconds.

    Args:
        config: the merged config.
        facts: with `reach_s`; gets `missing`, `unreadable`, `seconds`, `covered` and `unusable`.
        sources: where the videos are.
        problems: is added to.
        open_videos: whether to read headers.
    """
    found = _find(config, facts, sources, problems)
    facts.unusable = set(facts.videos()) - set(found)
    if open_videos:
        _open(config, facts, found, problems)
    if facts.reach_s and not set(facts.reach_s) - facts.unusable and config.ingest.on_error == "skip":
        problems.stop(
            f"{labels_path(config, facts.split)}: not one of its {len(facts.videos())} video(s) can be used"
        )


def _find(config: Config, facts: SplitFacts, sources: SourceFolder, problems: Problems) -> dict[str, Path]:
    """The file or folder of each video that has one."""
    found: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    no_ids: list[str] = []
    for video in facts.videos():
        try:
            found[video] = sources.find(video)
        except BadVideoError as error:
            reasons[video] = str(error)
        except UserError as error:
            no_ids.append(str(error))
    facts.missing = sorted(reasons)
    labels_csv, stops = labels_path(config, facts.split), config.ingest.on_error == "stop"
    if reasons:
        remedy = "put them there, remove their rows, or set `ingest.on_error: skip`"
        problems.note(
            f"{labels_csv}: {len(reasons)} of {len(facts.videos())} video(s) have no usable source; "
            + (remedy if stops else "left out (`ingest.on_error: skip`)")
            + each([f"{video}: {reasons[video]}" for video in facts.missing]),
            stops=stops,
        )
    if no_ids:
        problems.stop(f"{labels_csv}: {len(no_ids)} id(s) cannot be of a video" + each(no_ids))
    return found


def _open(config: Config, facts: SplitFacts, found: dict[str, Path], problems: Problems) -> None:
    """Read the headers: which are videos at all, and which times they show."""
    with ThreadPoolExecutor(OPEN_AT_ONCE) as pool:
        opened = pool.map(lambda video: _opened(config, video, found[video], facts.reach_s[video]), found)
        looked = dict(zip(found, opened, strict=True))
    facts.unreadable = [video for video, source in looked.items() if source.bad]
    facts.unusable |= set(facts.unreadable)
    if facts.unreadable:
        told = [f"video `{video}`: {found[video]}: {looked[video].bad}" for video in facts.unreadable]
        problems.note(
            f"{labels_path(config, facts.split)}: {len(told)} video(s) cannot be read; mend or replace them"
            + each(told),
            stops=config.ingest.on_error == "stop",
        )
    known = {video: source for video, source in looked.items() if source.row is not None}
    facts.seconds = sum(source.row["n_frames"] / source.row["fps"] for source in known.values() if source.row)
    rows = [{"video": video, **(source.row or {})} for video, source in known.items() if source.is_exact]
    facts.covered = pd.DataFrame(rows, columns=COVERED)
    _check_covered(config, facts, looked, problems)


def _check_covered(config: Config, facts: SplitFacts, looked: dict[str, _Source], problems: Problems) -> None:
    """Whether each video holds its labels, by the rule of ingest."""
    path, short, unsure = labels_path(config, facts.split), [], []
    for video, source in looked.items():
        if source.row is None:
            unsure += [] if source.bad else [f"video `{video}`: it does not tell its length"]
            continue
        told = uncovered(source.row, facts.reach_s[video], cut=config.data.span_s is not None)
        if told is not None and (source.is_exact or not _is_near_end(source.row, facts.reach_s[video][1])):
            short.append(f"video `{video}`: {told}")
            facts.unusable.add(video)
        elif told is not None:
            unsure.append(f"video `{video}`: {told}, if its header is right")
    if short:
        problems.note(
            f"{path}: {len(short)} video(s) do not hold all of their labels; correct the "
            "times (are they by another frame rate?), or give the whole videos" + each(short),
            stops=config.ingest.on_error == "stop",
        )
    if unsure:
        problems.warn(
            f"{path}: of {len(unsure)} video(s) only decoding shows whether they hold all of their labels"
            + each(unsure)
        )


def _opened(config: Config, video: str, source: Path, labelled_s: tuple[float, float]) -> _Source:
    fps = float(exact_rate(config.ingest.fps))
    try:
        if not source.is_dir():
            return _of_file(config, source, fps, labelled_s[1])
        n_frames = read_frame_folder(source, video).n_frames
    except BadVideoError as error:
        return _Source(bad=str(error))
    except OSError as error:
        return _Source(bad=f"cannot be read ({error.strerror or error})")
    start_s = folder_start_s(config, n_frames, fps, labelled_s[1])
    return _Source({"start_s": start_s, "fps": fps, "n_frames": n_frames})


def _of_file(config: Config, source: Path, fps: float, last_labelled_s: float) -> _Source:
    """A video file by its header, or by its packets where the labels reach to about its end."""
    header = read_header(source)
    declared = PictureEnd.of_header(header)
    if declared is not None:
        row = _row(config, declared, fps)
        if not _is_near_end(row, last_labelled_s):
            return _Source(row)
    end = picture_end(source, header.duration_s)
    return _Source() if end is None else _Source(_row(config, end, fps), end.is_exact)


def _row(config: Config, end: PictureEnd, fps: float) -> dict[str, Any]:
    start_s, stop_s = cut_of(config)
    n_frames = n_constant_rate(
        end.last_s, end.end_s, fps=fps, source_rate=end.rate, start_s=start_s, stop_s=stop_s
    )
    return {"start_s": start_s, "fps": fps, "n_frames": n_frames}


def _is_near_end(row: dict[str, Any], time_s: float) -> bool:
    """Whether a time is so near to the last frame that a header's inexactness could decide: pictures that end earlier
    than that make the video a truncated one."""
    slack = most_lost_s(row["n_frames"] / row["fps"]) * row["fps"]
    return abs(frame_index(row, time_s) - row["n_frames"]) <= slack + 1
