"""UCF101-24 and JHMDB as the pipeline's files: labels csv of each split, label map, lists of videos. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import av
import numpy as np
import pandas as pd

from acar.data.csv_files import BOX_COLUMNS, DECIMALS, put_csv
from acar.data.formats.frame_names import RATES
from acar.data.frame_folder import BadVideoError
from acar.data.input_files import read_text
from acar.data.label_map import ActionClass, LabelMap, label_map_text
from acar.data.sources import SourceFolder
from acar.data.tables import LABEL_COLUMNS
from acar.data.ucf24 import TubeAnnotations
from acar.errors import UserError
from acar.files import replace_together

OUTPUTS = ("train.csv", "val.csv", "train_videos.txt", "val_videos.txt", "label_map.pbtxt")
# UCF101's three splits test these groups of clips (the g07 of v_Basketball_g07_c01) and train on the others.
TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
_GROUP = re.compile(r"_g(\d+)_c\d+$")


def read_video_list(path: str | Path) -> list[str]:
    """Read video ids, a line each; UCF101's own lists (`Basketball/v_Basketball_g01_c01.avi 1`) are read alike.

    Raises:
        UserError: no such file, a folder, not UTF-8, or no line.
    """
    lines = read_text(Path(path), "video ids, one a line").splitlines()
    videos = [line.split()[0].removesuffix(".avi") for line in lines if line.strip()]
    if not videos:
        raise UserError(f"{path}: no video; expected a video id a line")
    return videos


def split_by_list(annotations: TubeAnnotations, tested: Sequence[str]) -> tuple[list[str], list[str]]:
    """Training and test videos: the annotated ones that are not listed, and those that are.

    Raises:
        UserError: not one of the listed videos is annotated.
    """
    listed = set(tested)
    train = sorted(set(annotations.videos.index) - listed)
    test = sorted(set(annotations.videos.index) & listed)
    if not test:
        raise UserError(
            f"none of the {len(listed)} listed videos is annotated, such as {min(listed)!r}; ids are as {train[0]!r}"
        )
    return train, test


def split_videos(annotations: TubeAnnotations, split: int = 1) -> tuple[list[str], list[str]]:
    """The training and the test videos of a split (from 1): as the file lists them, else by UCF101's groups.

    Raises:
        UserError: there is no such split, or a video's name has no group.
    """
    listed = annotations.train_videos, annotations.test_videos
    known = list(range(1, len(listed[1]) + 1)) or list(TEST_GROUPS)
    if split not in known:
        raise UserError(f"split {split}: there are {', '.join(map(str, known))}")
    if listed[1]:
        return listed[0][split - 1] if len(listed[0]) >= split else [], listed[1][split - 1]
    is_test = {video: _group(video) in TEST_GROUPS[split] for video in annotations.videos.index}
    train = sorted(video for video, tested in is_test.items() if not tested)
    return train, sorted(video for video, tested in is_test.items() if tested)


def _group(video: str) -> int:
    found = _GROUP.search(video)
    if found is None:
        raise UserError(f"video `{video}`: its name has no group (such as _g07_c01) to tell the split by")
    return int(found[1])


def ucf_label_map(names: Sequence[str]) -> LabelMap:
    """The classes with ids from 1, all of group `pose`: an actor has exactly one, so they share a softmax."""
    return LabelMap(tuple(ActionClass(label + 1, name, "pose") for label, name in enumerate(names)))


def labels_table(
    annotations: TubeAnnotations, rates: dict[str, float], every: int = 1, background: bool = True
) -> pd.DataFrame:
    """AVA-style labels of every `every`-th frame of some videos, from the first one on.

    Frame n (from 1) is at (n - 1) / rate seconds; boxes are in 0..1 of the frame, cut at its borders; a tube is an
    actor.

    Args:
        annotations: as read.
        rates: frames a second, by video; other videos are left out.
        every: 1 for every frame.
        background: frames without an annotated actor have a row without a box, so that they are key frames too.

    Returns:
        The columns of `LABEL_COLUMNS`, by video and time; box, action and actor empty where nobody acts.
    """
    videos = annotations.videos.loc[sorted(set(rates) & set(annotations.videos.index))]
    boxes = annotations.boxes[annotations.boxes["video"].isin(videos.index)]
    boxes = boxes[(boxes["frame"] - 1) % every == 0].reset_index(drop=True)
    size = videos.loc[boxes["video"], ["width", "height", "width", "height"]].to_numpy(np.float64)
    norm = np.clip(boxes[BOX_COLUMNS].to_numpy(np.float64) / size, 0.0, 1.0)
    labels = boxes[["video", "frame"]].assign(
        action_id=(boxes["label"] + 1).astype("Int64"), actor_id=boxes["tube"]
    )
    labels[BOX_COLUMNS] = norm
    labels = labels[(norm[:, :2] < norm[:, 2:]).all(axis=1)]
    if background:
        frames = [np.arange(1, n + 1, every) for n in videos["n_frames"].tolist()]
        named = videos.index.repeat([len(part) for part in frames])
        grid = pd.DataFrame({"video": named, "frame": np.concatenate([np.empty(0, np.int64), *frames])})
        labels = grid.merge(labels, on=["video", "frame"], how="left")
    time_s = (labels["frame"] - 1) / labels["video"].map(rates).astype(np.float64)
    labels = labels.assign(time_s=time_s.round(DECIMALS), actor_id=labels["actor_id"].fillna(""))
    return labels.sort_values(["video", "frame", "actor_id"], kind="stable", ignore_index=True)[LABEL_COLUMNS]


def convert(
    annotations: TubeAnnotations, folder: Path, rate_of: Callable[[str], float | None], *,
    splits: tuple[list[str], list[str]], every: int = 1, background: bool = True, looked_in: Path | None = None,
) -> dict[str, int]:  # fmt: skip
    """Write label_map.pbtxt and, of train and val, a labels csv and a list of videos: all of them, or none.

    Args:
        annotations: as read.
        folder: where to.
        rate_of: frames a second of a video, or None to leave it out.
        splits: videos of train and of val.
        every: as in `labels_table`; of both splits.
        background: as in `labels_table`, of val; training has no use for frames without actors.
        looked_in: where `rate_of` looked for videos, for messages.

    Returns:
        Videos and label rows a split, for the user.

    Raises:
        UserError: a split without a labelled video, or a file that cannot be written: then none was.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name, videos in zip(("train", "val"), splits, strict=True):
        rates = {video: rate for video in videos if (rate := rate_of(video)) is not None}
        labels = labels_table(annotations, rates, every, background and name == "val")
        if not labels["action_id"].notna().any():
            raise UserError(_nothing(name, videos, bool(rates), looked_in))
        tables[name] = labels
    counts: dict[str, int] = {}
    writers: dict[Path, Callable[[Path], object]] = {}
    for name, labels in tables.items():
        named = sorted(labels["video"].unique())
        writers[folder / f"{name}.csv"] = partial(put_csv, labels)
        writers[folder / f"{name}_videos.txt"] = partial(_put_text, "".join(f"{video}\n" for video in named))
        counts[f"{name} videos"] = len(named)
        counts[f"{name} key frames"] = len(labels[["video", "time_s"]].drop_duplicates())
        counts[f"{name} boxes"] = int(labels["action_id"].notna().sum())
    classes = folder / "label_map.pbtxt"
    writers[classes] = partial(_put_text, label_map_text(ucf_label_map(annotations.names), classes))
    replace_together(writers)
    return counts


def _put_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _nothing(name: str, videos: Sequence[str], any_there: bool, looked_in: Path | None) -> str:
    """Why a split has no labels."""
    others = "choose other videos for it by --split or --test-list"
    if not videos:
        return f"{name}: no video is in this split; {others}"
    if any_there or looked_in is None:
        return (
            f"{name}: none of its {len(videos)} videos, such as {videos[0]}, has an annotated frame; {others}"
        )
    return (
        f"{name}: none of its {len(videos)} videos is in {looked_in}; looked for files such as "
        f"{looked_in / videos[0]}.avi (what is before an id's `/` is a folder); put them there, name another folder "
        f"by --videos, or {others}"
    )


def not_annotated(annotations: TubeAnnotations, listed: Sequence[str]) -> str | None:
    """What to say of a list's videos that the annotations lack; None if they have all."""
    strangers = sorted(set(listed) - set(annotations.videos.index))
    if not strangers:
        return None
    n_listed = len(set(listed))
    return (
        f"{len(strangers)} of its {n_listed} video(s) are not annotated and left out, such as {strangers[0]!r} (ids "
        f"are as {annotations.videos.index[0]!r})"
    )


def rates_in(folder: Path, *, only_present: bool) -> Callable[[str], float | None]:
    """Frames a second of a video of `folder`, as its file states it.

    Args:
        folder: of video files by id: `Basketball/v_Basketball_g01_c01.avi`.
        only_present: None for an absent video, instead of a refusal.

    Returns:
        A function that raises UserError for an absent or unreadable video, or an impossible rate.
    """
    sources = SourceFolder(folder)

    def rate_of(video: str) -> float | None:
        try:
            path = sources.find(video)
        except BadVideoError as error:
            if only_present:
                return None
            remedy = "put it there, give --present to leave such videos out, or --fps"
            raise UserError(f"video `{video}`: {error}; {remedy}") from None
        try:
            with av.open(str(path), metadata_errors="ignore") as container:
                rate = container.streams.video[0].average_rate
        except (av.FFmpegError, ValueError, IndexError) as error:
            raise UserError(f"{path}: cannot be read as a video ({error}); replace it") from None
        if not rate:
            raise UserError(f"{path}: states no frame rate; give --fps")
        if not RATES[0] <= rate <= RATES[1]:
            raise UserError(
                f"{path}: states {float(rate):g} frames a second; expected {RATES[0]:g} to {RATES[1]:g}; give --fps"
            )
        return float(rate)

    return rate_of
