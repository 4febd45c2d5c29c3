"""Looks through the files that a config names and collects all problems. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from acar.config import SPLITS, Config, Split
from acar.data.check.boxes import check_boxes
from acar.data.check.facts import Problems, SplitFacts, Survey, reach_of, some
from acar.data.check.start import check_start
from acar.data.check.times import KEY_FRAME, check_times
from acar.data.check.tubes import check_tubes
from acar.data.check.videos import check_videos
from acar.data.class_groups import POSE, GroupSource, grouped
from acar.data.csv_files import BOX_COLUMNS
from acar.data.findings import NO_AREA, OUT_OF_RANGE, Findings
from acar.data.label_map import LabelMap, read_label_map
from acar.data.sources import SourceFolder, excluded_path, label_map_path, labels_path, videos_folder
from acar.data.tables import labels_in_span, read_excluded, read_labels, repeated_labels
from acar.paths import Paths
from acar.workflow import splits_ingested


def check_data(config: Config, *, open_videos: bool = True) -> Survey:
    """Everything that the config's files hold, and what is wrong with them.

    What the run does not read is not looked at: the training split of a network that is taken, without stage 2.

    Args:
        config: the merged config.
        open_videos: read the videos' headers; else only look whether the files are there.
    """
    problems, label_map = Problems(), None
    group_source: GroupSource | None = None
    if config.data.source == "synthetic" and not Paths.of(config).data.is_dir():
        problems.warn(
            f"data.source is synthetic, and {Paths.of(config).data} is not drawn yet: `acar synthesize` draws it"
        )
        check_start(config, None, problems)
        return Survey([], None, [], problems.found)
    poses: set[int] = set()
    with problems.caught():
        path = label_map_path(config)
        label_map = read_label_map(path)
        classes = grouped(label_map, config.data.class_groups, path)
        label_map, group_source = classes.label_map, classes.source
        poses = set(label_map.groups().get(POSE, []))
    check_start(config, label_map, problems)
    splits = [_check_split(config, split, label_map, poses, problems) for split in splits_ingested(config)]
    _check_both(splits, problems)
    unused = _check_sources(config, splits, problems, open_videos)
    for facts in splits:
        _check_any_counts(config, facts, problems)
    if config.detector.source == "boxes":
        for facts in splits:  # whose boxes are read: of imported ones no other split's videos are, either
            check_boxes(config, facts, problems)
    unread: list[Split] = [split for split in SPLITS if split not in splits_ingested(config)]
    return Survey(splits, label_map, unused, problems.found, group_source, unread)


def _check_split(
    config: Config, split: Split, label_map: LabelMap | None, poses: set[int], problems: Problems
) -> SplitFacts:
    facts, path = SplitFacts(split), labels_path(config, split)
    found = Findings()
    with problems.caught():
        rows = read_labels(path, found=found)
        _check_classes(rows, label_map, path, problems)
        _check_repeats(config, facts, path, problems)
        facts.reach_s = reach_of(rows)
        facts.labels = labels_in_span(rows, config.data.span_s)
        facts.unused_rows = len(rows) - len(facts.labels)
        if facts.unused_rows == len(rows) > 0:
            problems.stop(
                f"{path}: no row is inside of data.span_s {_span(config)}; correct that or the times"
            )
    problems.stop_at(found)
    facts.out_of_range, facts.no_area = found.count(OUT_OF_RANGE), found.count(NO_AREA)
    facts.malformed = sum(finding.count for finding in found) - facts.out_of_range - facts.no_area
    facts.excluded = _read_exclusions(config, split, problems)
    if facts.labels is not None and len(facts.labels):
        check_times(config, facts, path, problems)
        if facts.unused_rows:
            problems.warn(
                f"{path}: {facts.unused_rows} row(s) are outside of data.span_s {_span(config)}, and not used"
            )
        _check_excluded(config, facts, path, problems)
        if label_map is not None:
            _check_actors(facts, label_map, poses, path, problems)
            check_tubes(config, facts, label_map, path, problems)
    return facts


def _span(config: Config) -> list[float]:
    """Of a config that has one."""
    assert config.data.span_s is not None
    return list(config.data.span_s)


def _check_classes(rows: pd.DataFrame, label_map: LabelMap | None, path: Path, problems: Problems) -> None:
    if label_map is None or rows.empty:
        return
    ids = rows["action_id"].dropna()
    beyond = sorted(set(ids[ids > max(label_map.ids)].tolist()))
    if beyond:
        n = int(ids.isin(beyond).sum())
        problems.stop(
            f"{path}: {n} row(s) have classes that are not in the label map, whose last is {max(label_map.ids)}: "
            f"{some(list(map(str, beyond)))}; add them to the map or correct the rows"
        )
    gaps = sorted(set(ids.tolist()) - set(label_map.ids) - set(beyond))
    if gaps:
        problems.warn(
            f"{path}: {int(ids.isin(gaps).sum())} row(s) have a class that the label map leaves out, so they are "
            f"persons without an action: {some(list(map(str, gaps)))}"
        )
    if not ids.isin(label_map.ids).any():
        problems.stop(f"{path}: no row has a class of the label map; is it the right label map?")


def _check_repeats(config: Config, facts: SplitFacts, path: Path, problems: Problems) -> None:
    repeated = repeated_labels(path, found=Findings())
    facts.duplicates = repeated.count
    if repeated.count:
        remedy = (
            "remove what is repeated, or set `ingest.on_error: skip`, which takes each row once in training"
        )
        stops = config.ingest.on_error == "stop"
        tail = f"; {remedy}" if stops else ""
        problems.note(f"{path}: {repeated.count} repeated row(s): {repeated}{tail}", stops=stops)


def _read_exclusions(config: Config, split: Split, problems: Problems) -> set[tuple[str, float]]:
    """The excluded key frames, read whether the labels can be or not."""
    excluded: set[tuple[str, float]] = set()
    found, excluded_csv = Findings(), excluded_path(config, split)
    if excluded_csv is not None:
        with problems.caught():
            excluded = read_excluded(excluded_csv, found=found)
    problems.stop_at(found)
    return excluded


def _check_excluded(config: Config, facts: SplitFacts, path: Path, problems: Problems) -> None:
    excluded_csv, excluded = excluded_path(config, facts.split), facts.excluded
    key_frames = facts.key_frames()
    hit = pd.MultiIndex.from_frame(key_frames).isin(list(excluded)) if excluded else []
    facts.excluded_labelled = int(sum(hit))
    known = {*facts.videos(), *facts.unpeopled}
    unknown = sorted({video for video, _ in excluded} - known)
    if unknown:
        count = sum(video not in known for video, _ in excluded)
        problems.warn(
            f"{excluded_csv}: {count} of {len(excluded)} key frame(s) are of videos that {path} does not name, so "
            f"they exclude nothing: {some(unknown)}; ids there look like {facts.videos()[0]!r}"
        )


def _check_any_counts(config: Config, facts: SplitFacts, problems: Problems) -> None:
    """A training and a score need a key frame that is left."""
    if not facts.excluded or facts.labels is None or facts.labels.empty or not facts.counted().empty:
        return
    skips = config.ingest.on_error == "skip" and not facts.unusable.issuperset(facts.videos())
    if skips or facts.excluded_labelled == len(facts.key_frames()):
        what = "excluded, or of a video that is left out" if facts.unusable else "excluded"
        problems.stop(
            f"{excluded_path(config, facts.split)}: every labelled key frame of "
            f"{labels_path(config, facts.split)} is {what}"
        )


def _check_actors(
    facts: SplitFacts, label_map: LabelMap, poses: set[int], path: Path, problems: Problems
) -> None:
    """Classes without rows, and persons who have not exactly one of the exclusive classes."""
    assert facts.labels is not None
    counts = facts.class_counts()
    absent = [item.name for item in label_map.classes if item.id not in counts]
    if absent:
        problems.warn(f"{path}: {len(absent)} of {len(label_map)} classes have no row: {some(absent)}")
    if not poses:
        return
    box = [*KEY_FRAME, *BOX_COLUMNS]
    labelled = facts.labels[facts.labels["action_id"].isin(label_map.ids)]
    rows = labelled.drop_duplicates([*box, "action_id"])
    per_person = rows["action_id"].isin(poses).groupby([rows[name] for name in box]).sum()
    several, none = int((per_person > 1).sum()), int((per_person == 0).sum())
    if several or none:
        problems.warn(
            f"{path}: of {len(per_person)} labelled persons {several} have several of the exclusive classes and "
            f"{none} have none (the group `pose`)"
        )


def _check_both(splits: list[SplitFacts], problems: Problems) -> None:
    if len(splits) < len(SPLITS):
        return
    shared = sorted(set.intersection(*(set(facts.videos()) for facts in splits)))
    if shared:
        problems.warn(
            f"{len(shared)} video(s) are in both splits, so val does not measure what is new: {some(shared)}"
        )


def _check_sources(
    config: Config, splits: list[SplitFacts], problems: Problems, open_videos: bool
) -> list[str]:
    """The videos; returns those that no split names."""
    folder = videos_folder(config)
    if not folder.is_dir():
        problems.stop(f"{folder}: no such folder (data.videos); expected the labelled videos")
        return []
    sources = SourceFolder(folder)
    for facts in splits:
        check_videos(config, facts, sources, problems, open_videos)
    if len(splits) < len(SPLITS) or any(facts.labels is None for facts in splits):
        return []  # whatever is not named may be named there
    unused = sources.others({video for facts in splits for video in (*facts.videos(), *facts.unpeopled)})
    if unused:
        problems.warn(f"{folder}: {len(unused)} video(s) are named by neither split's labels: {some(unused)}")
    return unused
