"""A split's videos: which are there, and whether they hold their labels and boxes. Decodes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from acar.config import Config
from acar.data.check.facts import Problems, SplitFacts, each
from acar.data.decode import read_header
from acar.data.frame_folder import BadVideoError, read_frame_folder
from acar.data.sources import SourceFolder, labels_path
from acar.errors import UserError

OPEN_AT_ONCE = 8  # headers wait for the disk, not for the processor


@dataclass(frozen=True)
class _Length:
    """Length of a source in seconds (None: it does not say), or why it is none."""

    length_s: float | None = None
    is_frames: bool = False
    bad: str = ""


def check_videos(
    config: Config, facts: SplitFacts, sources: SourceFolder, problems: Problems, open_videos: bool
) -> None:
    """Note videos that are missing, unreadable or shorter than their labels or boxes; sums up the seconds."""
    found = _find(config, facts, sources, problems)
    if open_videos:
        _open(config, facts, found, problems)
    usable = len(found) - len(facts.unreadable)
    stops = config.ingest.on_error == "stop"
    if facts.labels is not None and len(facts.labels) and usable == 0 and not stops:
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
    """Read the headers: which are videos at all, and how long."""
    with ThreadPoolExecutor(OPEN_AT_ONCE) as pool:
        lengths = dict(zip(found, pool.map(lambda item: _length(config, *item), found.items()), strict=True))
    stops = config.ingest.on_error == "stop"
    facts.unreadable = [video for video, length in lengths.items() if length.bad]
    if facts.unreadable:
        told = [f"video `{video}`: {found[video]}: {lengths[video].bad}" for video in facts.unreadable]
        problems.note(
            f"{labels_path(config, facts.split)}: {len(told)} video(s) cannot be read; mend or replace them"
            + each(told),
            stops=stops,
        )
    _check_lengths(config, facts, lengths, problems, stops)


def _check_lengths(
    config: Config, facts: SplitFacts, lengths: dict[str, _Length], problems: Problems, stops: bool
) -> None:
    covered: dict[str, tuple[float, float]] = {}
    for video, length in lengths.items():
        if not length.bad and length.length_s is not None:
            last_s = facts.reach_s[video][1] if length.is_frames else None
            covered[video] = _covered(config, length.length_s, last_s)
    facts.seconds = sum(max(0.0, end_s - start_s) for start_s, end_s in covered.values())
    short = [
        _beyond(config, video, ends, "labels reach", facts.reach_s[video])
        for video, ends in covered.items()
        if not _holds(config, ends, facts.reach_s[video])
    ]
    if short:
        problems.note(
            f"{labels_path(config, facts.split)}: {len(short)} video(s) do not hold all of their labels; correct the "
            "times (are they by another frame rate?), or give the whole videos" + each(short),
            stops=stops,
        )
    _check_box_times(config, facts, covered, problems)


def _check_box_times(
    config: Config, facts: SplitFacts, covered: dict[str, tuple[float, float]], problems: Problems
) -> None:
    """A run drops what an imported file has beyond a video's ends."""
    beyond = [
        _beyond(config, video, covered[video], "boxes reach", reach_s)
        for video, reach_s in facts.box_reach_s.items()
        if video in covered and not _holds(config, covered[video], reach_s)
    ]
    if beyond:
        assert config.detector.boxes is not None
        problems.warn(
            f"{config.detector.boxes[facts.split]}: {len(beyond)} video(s) do not hold all of their boxes, and those "
            "beyond their ends are not used; are the times by another frame rate?" + each(beyond)
        )


def _holds(config: Config, covered: tuple[float, float], reach_s: tuple[float, float]) -> bool:
    """Whether what is covered has the first and the last time, give or take a frame."""
    return covered[0] <= reach_s[0] and reach_s[1] <= covered[1] + 1 / config.ingest.fps


def _beyond(
    config: Config, video: str, covered: tuple[float, float], what: str, reach_s: tuple[float, float]
) -> str:
    cut = " (after the cut to data.span_s)" if config.data.span_s is not None else ""
    return (
        f"video `{video}`: it covers{cut} {covered[0]:.2f} to {covered[1]:.2f} s, its {what} from {reach_s[0]:g} to "
        f"{reach_s[1]:g} s"
    )


def _covered(config: Config, length_s: float, last_labelled_s: float | None) -> tuple[float, float]:
    """First and last second that ingest would keep, as `acar.stages.ingest` decides it.

    Args:
        config: for `data.span_s` and the margin.
        length_s: of the source.
        last_labelled_s: of a frame folder, which stays whole and may begin at the cut; None: a video file.
    """
    span_s, margin_s = config.data.span_s, config.ingest.margin_s
    start_s = 0.0 if span_s is None else max(0.0, span_s[0] - margin_s)
    if last_labelled_s is not None:
        start_s = 0.0 if last_labelled_s <= length_s + 1 / config.ingest.fps else start_s
        return start_s, start_s + length_s
    return start_s, length_s if span_s is None else min(length_s, span_s[1] + margin_s)


def _length(config: Config, video: str, source: Path) -> _Length:
    try:
        if not source.is_dir():
            return _Length(read_header(source).duration_s)
        n_frames = read_frame_folder(source, video).n_frames
    except BadVideoError as error:
        return _Length(bad=str(error))
    except OSError as error:
        return _Length(bad=f"cannot be read ({error.strerror or error})")
    return _Length(n_frames / config.ingest.fps, is_frames=True)
