"""Files of boxes by frame, as `evaluate-frames` and `evaluate-tubes` take them: read, and held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from acar.data.frame_tables import (
    check_labels_named,
    read_class_names,
    read_frame_detections,
    read_frame_truth,
    read_yowo,
)
from acar.data.input_files import check_input, is_pickle
from acar.data.ucf24 import TubeAnnotations, read_annotations
from acar.data.ucf24_convert import split_videos
from acar.errors import UserError
from acar.evaluation.mismatch import ids_as_scores, unknown_videos

SNIFF_BYTES = 256


@dataclass(frozen=True)
class FrameFiles:
    """What was read.

    Attributes:
        truth: as `read_frame_truth` gives it.
        detections: as `read_frame_detections`.
        names: of the classes, by label.
        doubts: what suggests that the files do not belong together, a line each.
    """

    truth: pd.DataFrame
    detections: pd.DataFrame
    names: list[str]
    doubts: list[str]


def read_frame_files(
    groundtruth: Path, detections: Path, labels: Path | None, split: int | None, *, tubes: bool
) -> FrameFiles:
    """Read both sides; what they are is told by content.

    Args:
        groundtruth: csv, an annotation's pickle or a folder of YOWO's text files.
        detections: csv or a folder of YOWO's text files.
        labels: class names, a line each; None: a pickle's, or numbers.
        split: of a pickle: whose test videos; None: the first.
        tubes: ground truth must name each box's tube.

    Raises:
        UserError: a missing or malformed file, a label beyond the names, no tubes, or a split of what has none.
    """
    doubts: list[str | None] = []
    if split is not None and not _is_pickle(groundtruth):
        if not groundtruth.is_dir():
            check_input(groundtruth)
        raise UserError(
            f"--split {split}: {groundtruth} is no pickle of annotations, which alone have splits; leave --split out "
            "(all videos of the file count), or give a file of that split's test videos"
        )
    names = read_class_names(labels) if labels is not None else None
    if groundtruth.is_dir():
        truth = read_yowo(groundtruth, detections=False, names=names)
    elif _is_pickle(groundtruth):
        annotations = read_annotations(groundtruth)
        tested = split_videos(annotations, split or 1)[1]
        truth = annotations.of_videos(tested)
        doubts.append(_not_annotated(tested, annotations, groundtruth))
        names = names or annotations.names
    else:
        truth = read_frame_truth(groundtruth, tubes=tubes)
    if truth.empty:
        raise UserError(f"{groundtruth}: not one annotated box; expected ground truth to score against")
    if tubes and (truth["tube"] == "").any():
        raise UserError(
            f"{groundtruth}: no tube of each box; video-mAP needs a csv whose 8th column numbers the actors of a "
            "video, or the annotation's pickle"
        )
    if detections.is_dir():
        found = read_yowo(detections, detections=True, names=names)
    else:
        found = read_frame_detections(detections)
    if names is None:
        last = max(int(table["label"].max()) for table in (truth, found) if len(table))
        names = [str(label) for label in range(last + 1)]
    check_labels_named(truth, names, groundtruth)
    check_labels_named(found, names, detections)
    doubts += [
        _no_detections(found, detections),
        unknown_videos(found["video"].unique(), truth["video"].unique(), detections, groundtruth),
        ids_as_scores(found["score"].to_numpy(np.float64), detections),
    ]
    return FrameFiles(truth, found, names, [text for text in doubts if text is not None])


def _not_annotated(tested: list[str], annotations: TubeAnnotations, path: Path) -> str | None:
    """What to say of test videos that a pickle lists and does not annotate; None if it has all."""
    absent = sorted(set(tested) - set(annotations.videos.index))
    if not absent:
        return None
    return (
        f"{path}: of its {len(set(tested))} test video(s) {len(absent)} are not annotated and left out, such as "
        f"{absent[0]!r} (ids are as {annotations.videos.index[0]!r})"
    )


def _no_detections(found: pd.DataFrame, path: Path) -> str | None:
    if len(found):
        return None
    return f"{path}: not one detected box, so nothing is found and the mAP is 0; is it the right file?"


def _is_pickle(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return is_pickle(stream.read(SNIFF_BYTES))


def truth_at_step(truth: pd.DataFrame, detections: pd.DataFrame, step: int) -> pd.DataFrame:
    """The annotated boxes in those frames that the detector was run on.

    Detected tubes have a box every `step` frames: against boxes in every frame the best would overlap by 1 / step.
    Which frames they are, the detections of each video tell; of a video without any it is those of most others, or
    1, 1 + step and so on.

    Args:
        truth: video, frame and others.
        detections: likewise.
        step: frames from one that was looked at to the next.

    Raises:
        UserError: detections that are not whole steps apart, or no annotation in such frames.
    """
    if step == 1:
        return truth
    places = detections[["video", "frame"]].assign(phase=detections["frame"] % step)
    phases = places.drop_duplicates(["video", "phase"])
    twice = np.flatnonzero(phases["video"].duplicated())
    if len(twice):
        other = phases.iloc[twice[0]]
        first = phases.loc[phases["video"] == other["video"], "frame"].iloc[0]
        raise UserError(
            f"--step {step}: detections of video {other['video']} lie in frames {first} and {other['frame']}, "
            f"expected whole steps of {step} frames between them; give the step that the detector was run at"
        )
    most = int(phases["phase"].mode().iloc[0]) if len(phases) else 1 % step
    phase = truth["video"].map(phases.set_index("video")["phase"]).fillna(most)
    kept = truth[truth["frame"] % step == phase].reset_index(drop=True)
    if kept.empty:
        raise UserError(
            f"--step {step}: no annotated box lies in the frames of the detections, every {step}-th one; is it the "
            "right step, and are frames counted from the same number in both files?"
        )
    return kept
