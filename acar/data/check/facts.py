"""What `acar check-data` finds out. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pandas as pd

from acar.config import Split
from acar.data.class_groups import GroupSource
from acar.data.findings import Findings
from acar.data.label_map import LabelMap
from acar.errors import UserError

COVERED = ["video", "start_s", "fps", "n_frames"]
NAMED = 5
"""So many videos or classes are named in a line."""


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes:
        stops: whether a run would stop there.
        text: what, where, and what to do.
    """

    stops: bool
    text: str


@dataclass
class Problems:
    """A list of problems that `UserError`s can be caught into."""

    found: list[Problem] = field(default_factory=list)

    def stop(self, text: str) -> None:
        """Note what would stop a run."""
        self.found.append(Problem(True, text))

    def warn(self, text: str) -> None:
        """Note what would not."""
        self.found.append(Problem(False, text))

    def note(self, text: str, *, stops: bool) -> None:
        """Note either."""
        self.found.append(Problem(stops, text))

    def stop_at(self, found: Findings) -> None:
        """Note each kind of malformed rows with the first few of them."""
        for finding in found:
            more = finding.count - len(finding.told)
            told = [f"{finding.path}, {text}" for text in finding.told]
            self.stop("\n".join([*told, *([f"and {more} more such rows"] if more else [])]))

    @contextmanager
    def caught(self, prefix: str = "") -> Iterator[None]:
        """Turn a `UserError` inside the block into a problem that stops."""
        try:
            yield
        except UserError as error:
            self.stop(f"{prefix}{error}")


@dataclass
class SplitFacts:
    """What one split's files hold.

    Attributes:
        labels: the well-formed rows at seconds that are used, or None if the file cannot be read.
        reach_s: first and last second of each labelled video, used or not.
        seconds: of video, as the headers say; None: not looked at.
        missing: labelled videos without a file.
        unreadable: labelled videos whose file is none.
        out_of_range: label rows whose box leaves the frame; likewise no_area and malformed (all other mistakes).
        duplicates: label rows that repeat another.
        unused_rows: label rows outside of `data.span_s`.
        named: (video, time) of all key frames that are used, those where nobody is too.
        unpeopled: videos whose key frames are all without persons.
        fractional: key frames with persons that are not at a whole second.
        excluded: key frames that the exclusions name; excluded_labelled: number of those with labels.
        covered: video, start_s, fps, n_frames of each labelled video as ingest would leave it, where that is known.
        unusable: labelled videos that ingest refuses or skips, as far as that can be told.
        n_boxes: of the imported box file; None: no such file. boxes_without: labelled key frames without a box in it.
    """

    split: Split
    labels: pd.DataFrame | None = None
    reach_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float | None = None
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    out_of_range: int = 0
    no_area: int = 0
    malformed: int = 0
    duplicates: int = 0
    unused_rows: int = 0
    named: set[tuple[str, float]] = field(default_factory=set)
    unpeopled: list[str] = field(default_factory=list)
    fractional: int = 0
    excluded: set[tuple[str, float]] = field(default_factory=set)
    excluded_labelled: int = 0
    covered: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COVERED))
    unusable: set[str] = field(default_factory=set)
    n_boxes: int | None = None
    boxes_without: int = 0

    def videos(self) -> list[str]:
        """Ids of the labelled videos, sorted."""
        return sorted(self.reach_s)

    def key_frames(self) -> pd.DataFrame:
        """One row (video, time_s) a key frame with persons."""
        assert self.labels is not None
        return self.labels[["video", "time_s"]].drop_duplicates(ignore_index=True)

    def counted(self) -> pd.DataFrame:
        """Of the key frames with persons those that train or score: not excluded, of videos that can be used."""
        rows = self.key_frames()
        out = rows["video"].isin(self.unusable)
        return rows[~(out | pd.MultiIndex.from_frame(rows).isin(list(self.excluded)))]

    def without_persons(self) -> int:
        """Number of key frames that the labels name without a person."""
        return len(self.named) - len(self.key_frames()) if self.named else 0

    def persons(self) -> pd.DataFrame:
        """One row a distinct box of a key frame."""
        assert self.labels is not None
        return self.labels.drop_duplicates(["video", "time_s", "x1", "y1", "x2", "y2"])

    def actors_per_key_frame(self) -> dict[int, int]:
        """Number of key frames by number of persons, ascending."""
        if self.labels is None:
            return {}
        counts = self.persons().groupby(["video", "time_s"]).size().value_counts().sort_index()
        empty = {0: self.without_persons()} if self.without_persons() else {}
        return empty | {int(actors): int(n) for actors, n in counts.items()}

    def class_counts(self) -> dict[int, int]:
        """Number of label rows by class id."""
        if self.labels is None:
            return {}
        counts = self.labels["action_id"].dropna().value_counts()
        return {int(action): int(n) for action, n in counts.items()}


@dataclass
class Survey:
    """Both splits, the classes in their groups, the files of no split, and the problems.

    Attributes:
        group_source: what the classes' groups come from; None where they cannot be told.
        unread: the splits that the run does not read, of which nothing is looked at.
    """

    splits: list[SplitFacts]
    label_map: LabelMap | None
    unused: list[str]
    problems: list[Problem]
    group_source: GroupSource | None = None
    unread: list[Split] = field(default_factory=list)

    @property
    def would_stop(self) -> bool:
        """Whether a run would stop at one of the problems."""
        return any(problem.stops for problem in self.problems)


def reach_of(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """First and last second of each video's rows."""
    reach = rows.groupby("video")["time_s"].agg(["min", "max"])
    return dict(zip(reach.index, zip(reach["min"], reach["max"], strict=True), strict=True))


def each(texts: Sequence[str]) -> str:
    """The first few of a list, a line each, and how many more there are; goes behind a problem's first line."""
    rest = len(texts) - NAMED
    return "".join(f"\n{text}" for text in [*texts[:NAMED], *([f"and {rest} more"] if rest > 0 else [])])


def some(names: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
