"""An ensemble: the weighted average of several runs' detections, row by row. Never imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from acar.data.csv_files import DECIMALS
from acar.ensemble.average import Shared, average_scores, check_exclusive
from acar.ensemble.boxes import match_boxes
from acar.ensemble.runs import Run, VideoRows, by_video
from acar.errors import UserError
from acar.progress import progress

Average = Literal["scores", "logits"]
Unmatched = Literal["refuse", "average", "zero"]
LEAST_WEIGHT = 1e-12
"""Of the largest weight: beside it a smaller one would be lost in rounding."""
_CHOICES = (
    "say what counts instead: --unmatched average (the runs that have a row) or --unmatched zero (0 where a run "
    "has none)"
)


@dataclass(frozen=True)
class Settings:
    """How rows are averaged.

    Attributes:
        average: `scores`, or `logits`: log-odds, and log probabilities of the exclusive classes.
        unmatched: what becomes of a row that a run lacks: `refuse`, `average` over the runs that have it, or
            `zero`, which counts as a score of 0.
        exclusive: ids of the mutually exclusive classes (softmax), maybe none; None where nothing tells them, which
            averages likewise. `logits` alone reads them.
    """

    average: Average = "scores"
    unmatched: Unmatched = "refuse"
    exclusive: Collection[int] | None = None


@dataclass(frozen=True)
class Combined:
    """The ensemble and what it was made of.

    Attributes:
        detections: as `ensemble` returns them.
        weights: (R,) float64, their sum 1.
        key_frames: each run's number of (video, second).
        in_every_run: rows that all runs have.
        in_some_runs: rows that at least one run lacks.
        rounded_actors: actors whose boxes differ between the runs, by rounding.
    """

    detections: pd.DataFrame
    weights: np.ndarray
    key_frames: list[int]
    in_every_run: int
    in_some_runs: int
    rounded_actors: int


@dataclass
class _Tally:
    """What is counted video by video.

    Attributes:
        key_frames: of each run.
        rounded_actors: as in `Combined`.
        lacking: rows that at least one run lacks.
        first_lacking: the first of them in the order of the ensemble: the first run that has it, its place there, and
            the first run without it.
    """

    key_frames: list[int]
    rounded_actors: int = 0
    lacking: int = 0
    first_lacking: tuple[int, int, int] | None = None


def ensemble(
    tables: Sequence[pd.DataFrame],
    weights: Sequence[float] | None = None,
    settings: Settings | None = None,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Average the detections of several runs.

    Rows of different runs are of one actor and class where video, second (at 6 decimals), class and box are the
    same; boxes as `acar.ensemble.boxes.match_boxes` says. Of rows that a run has twice the k-th goes with
    the other runs' k-th.

    Args:
        tables: as `read_detections` gives them, with scores in 0..1.
        weights: one a run, above 0, of any sum; None: equal ones.
        settings: how; None: the mean of scores, and rows that a run lacks are refused.
        names: of the runs, for messages; None: `run 1`, ...

    Returns:
        The columns of `read_detections`: the first run's rows in its order, then those that only later runs have, in
        theirs; boxes are those of the first run that has the row; boxes and scores at 6 decimals. One run alone is
        itself.

    Raises:
        UserError: no run, an empty one, a score outside 0..1, bad weights, rows that a run lacks (under `refuse`), or
            exclusive classes whose scores sum to more than 1.
    """
    names = names or [f"run {number}" for number in range(1, len(tables) + 1)]
    return combine([Run.of(table, name) for table, name in zip(tables, names, strict=True)], weights,
                   settings).detections  # fmt: skip


def combine(
    runs: Sequence[Run], weights: Sequence[float] | None = None, settings: Settings | None = None
) -> Combined:
    """`ensemble` of runs whose tables are gone already, with its figures."""
    settings = settings or Settings()
    share_R = normalised(weights, len(runs))
    if settings.unmatched == "refuse":
        _check_classes(runs)
    class_ids = np.unique(np.concatenate([run.class_ids for run in runs]))
    tally = _Tally([0] * len(runs))
    scores = [np.full(len(run), np.nan) for run in runs]  # at the place of the first run that has a row
    n_videos, videos = by_video(runs)
    for rows_R in progress(videos, total=n_videos, desc="ensemble", unit="videos"):
        shared = _shared_rows(rows_R, class_ids, settings, tally)
        if settings.average == "logits":
            check_exclusive(shared, runs, rows_R)
        values = np.round(average_scores(shared, share_R, settings.average, settings.unmatched), DECIMALS)
        _collect(rows_R, shared, values, scores, tally)
    if settings.unmatched == "refuse":
        _check_none_lacking(runs, tally)
    places = [np.flatnonzero(~np.isnan(values)) for values in scores]
    tables = [
        run.table(place, values[place]) for run, place, values in zip(runs, places, scores) if len(place)
    ]
    together = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    in_every_run = len(together) - tally.lacking
    return Combined(together, share_R, tally.key_frames, in_every_run, tally.lacking, tally.rounded_actors)


def normalised(weights: Sequence[float] | None, n_runs: int) -> np.ndarray:
    """(R,) float64 weights whose sum is 1.

    Raises:
        UserError: no run, not one weight a run, or one that is not a number above 0.
    """
    if n_runs == 0:
        raise UserError("ensemble: no run; expected at least one")
    given = np.ones(n_runs) if weights is None else np.asarray(weights, np.float64)
    told = "weights " + " ".join(f"{weight:g}" for weight in given.tolist())
    if len(given) != n_runs:
        raise UserError(f"{told}: {len(given)} for {n_runs} run(s); expected one a run, in the runs' order")
    if not (np.isfinite(given) & (given > 0)).all():
        raise UserError(f"{told}: expected numbers above 0; leave a run out rather than give it no weight")
    given = given / given.max()
    if given.min() < LEAST_WEIGHT:
        raise UserError(
            f"{told}: the least is lost beside the largest; expected at least {LEAST_WEIGHT:g} of it; leave that "
            "run out"
        )
    return given / np.sort(given).sum()


def _check_classes(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        for one, other in ((runs[0], run), (run, runs[0])):
            absent = np.setdiff1d(one.class_ids, other.class_ids)
            if len(absent):
                shown = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
                raise UserError(
                    f"{other.name}: no row of {len(absent)} class(es) that {one.name} has ({shown}); expected runs "
                    f"on the same classes; remove those rows, or {_CHOICES}"
                )


def _check_none_lacking(runs: Sequence[Run], tally: _Tally) -> None:
    if tally.first_lacking is not None:
        run, place, lacks = tally.first_lacking
        before = runs[run].repeats_before(place)
        # The first row that is lacking is no repeat where the other run lacks the row altogether.
        if before:
            raise UserError(
                f"{runs[run].name}: repeats a row ({runs[run].told(place)}) that {runs[lacks].name} has {before} "
                f"time(s); in all {tally.lacking} row(s) are not in every run; expected each row once; remove the "
                f"repeated rows, or {_CHOICES}"
            )
        raise UserError(
            f"{runs[lacks].name}: no row for one of {runs[run].name} ({runs[run].told(place)}); in all "
            f"{tally.lacking} row(s) are not in every run; expected runs on the same person boxes and classes; "
            f"score the same boxes, or {_CHOICES}"
        )


def _shared_rows(rows_R: list[VideoRows], class_ids: np.ndarray, settings: Settings, tally: _Tally) -> Shared:
    """The different rows of one video over all runs; counts key frames and rounded boxes."""
    actors = match_boxes(rows_R)
    for number, rows in enumerate(rows_R):
        tally.key_frames[number] += len(np.unique(rows.micros))
    tally.rounded_actors += actors.rounded
    class_of = [np.searchsorted(class_ids, rows.classes) for rows in rows_R]
    keys = [number * len(class_ids) + column for number, column in zip(actors.of_rows, class_of)]
    times = [_occurrence(key) for key in keys]
    most = 1 + max(int(time.max(initial=0)) for time in times)
    key_U, column = np.unique(
        np.concatenate([key * most + time for key, time in zip(keys, times)]), return_inverse=True
    )
    place_RU = np.full((len(rows_R), len(key_U)), -1)
    scores_RU = np.zeros((len(rows_R), len(key_U)))
    bounds = np.cumsum([len(rows.scores) for rows in rows_R])
    for run, columns in enumerate(np.split(column, bounds[:-1])):
        place_RU[run, columns] = np.arange(len(columns))
        scores_RU[run, columns] = rows_R[run].scores
    exclusive = np.isin(class_ids, list(settings.exclusive or ()))[key_U // most % len(class_ids)]
    # Of rows that a run has twice, the second ones are another actor's.
    actor = key_U // most // len(class_ids) * most + key_U % most
    return Shared(scores_RU, place_RU, exclusive, actor)


def _occurrence(key: np.ndarray) -> np.ndarray:
    """How many equal keys come before each one."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    repeats = ordered[1:] == ordered[:-1]
    times = np.zeros(len(key), np.int64)
    if repeats.any():
        starts = np.concatenate([[0], np.flatnonzero(~repeats) + 1])
        counts = np.diff(starts, append=len(key))
        times[order] = np.arange(len(key)) - np.repeat(starts, counts)
    return times


def _collect(
    rows_R: list[VideoRows], shared: Shared, values: np.ndarray, scores: list[np.ndarray], tally: _Tally
) -> None:
    """Put each row's score to the first run that has it, and count the rows that a run lacks."""
    has = shared.has
    owner, lacking = has.argmax(axis=0), np.logical_not(has.all(axis=0))
    tally.lacking += int(lacking.sum())
    for number, rows in enumerate(rows_R):
        mine = owner == number
        place = rows.place[shared.place[number, mine]]
        scores[number][place] = values[mine]
        lacked = np.flatnonzero(lacking[mine])
        if len(lacked):
            first = lacked[place[lacked].argmin()]
            lacks = int(np.argmin(has[:, mine][:, first]))
            found = (number, int(place[first]), lacks)
            tally.first_lacking = min(tally.first_lacking or found, found)
