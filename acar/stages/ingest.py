"""`acar ingest`: the videos of a shard as constant-rate, short-GOP H.264 with an exact frame table.

Video files are decoded in order and resampled by presentation time (`acar.data.decode`), turned upright,
scaled to an even size of the configured short side and cut to `data.span_s` with a margin. Frame folders stay
where they are: `ingest.fps` is taken as the rate they were extracted at, and readers scale their images to
the short side.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import av
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acar.config import SPLITS, Config, Split
from acar.data.coverage import cut_of, folder_start_s, most_lost_s, uncovered
from acar.data.decode import SourceVideo, constant_rate, fitted_size, upright
from acar.data.encode import VideoWriter, exact_rate
from acar.data.frame_folder import BadVideoError, read_frame_folder
from acar.data.shards import videos_of_shard
from acar.data.source_checks import check_all_found, checked_labels, say_unnamed
from acar.data.sources import SourceFolder, labels_path, videos_folder
from acar.data.tables import check_any_usable
from acar.errors import UserError
from acar.files import atomic_path, replace_folder, write_json_atomic
from acar.models.grid import check_frame_sizes
from acar.origins.record import origin_of, write_origin
from acar.paths import Paths
from acar.progress import Progress, progress

LONGEST_SIDE_PX = 16384  # the H.264 encoder holds no longer one
FORMAT_VERSION = 1  # raise it when equal settings come to give other files: kept videos are then redone
SCHEMA = pa.schema({
    "video": pa.string(), "path": pa.string(), "kind": pa.string(), "pattern": pa.string(),
    "first_number": pa.int64(), "fps": pa.float64(), "n_frames": pa.int64(), "width": pa.int64(),
    "height": pa.int64(), "start_s": pa.float64(), "duration_s": pa.float64(), "status": pa.string(),
    "reason": pa.string(),
})  # fmt: skip


def run(config: Config, split: Split, shard: int) -> None:
    """Write a shard's folder: <video>.mp4 files and videos.parquet, which lists skipped videos too.

    Each finished video is kept outside the declared folder, so that a rerun after a kill goes on with the
    next. A kept video is used again only if its source file and the ingest settings are unchanged.

    Raises:
        UserError: the labels are malformed, have an unknown class or repeated rows (the last are only told under
            `ingest.on_error: skip`); frames would be too small for the network; a labelled video is absent,
            ambiguous, unreadable, truncated or shorter than its labels (under `skip` it is listed with status
            `skipped` and the reason instead); or all videos of the split are so.
    """
    labels_csv, folder, paths = labels_path(config, split), videos_folder(config), Paths.of(config)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (data.videos); expected the videos of {labels_csv}")
    check_frame_sizes(config)
    labelled_s = checked_labels(config, split, shard).groupby("video")["time_s"].agg(["min", "max"])
    n_shards = getattr(config.data, split).shards
    videos = videos_of_shard(list(labelled_s.index), shard, n_shards)
    work, sources = paths.work(f"ingest-{split}-{shard:03d}"), SourceFolder(folder)
    if (split, shard) == (SPLITS[0], 0):  # the folder is that of all splits and shards: said once
        say_unnamed(config, sources)
    if config.ingest.on_error == "stop":
        check_all_found(sources, videos, labels_csv)
    origin, store = origin_of(config, "ingest", split=split, shard=shard), work / "store"
    store.mkdir(parents=True, exist_ok=True)
    rows = []
    kept = {video for video in videos if _is_kept(config, video, sources, work)}
    bar: Progress[None] = progress(total=len(videos), desc=f"ingest {split} {shard}", unit="videos")
    bar.resume_at(len(kept))
    for video in videos:
        span_s = (float(labelled_s.at[video, "min"]), float(labelled_s.at[video, "max"]))
        try:
            rows.append(_ingest_video(config, video, sources.find(video), work, span_s))
        except BadVideoError as error:
            if config.ingest.on_error == "stop":
                raise UserError(
                    f"video `{video}`: {error}; replace the source, remove the video's rows from "
                    f"{labels_csv}, or leave such videos out with `ingest.on_error: skip`"
                ) from None
            print(f"ingest: video `{video}` skipped: {error}", file=sys.stderr)
            rows.append(_row(video, status="skipped", reason=str(error)))
        if video not in kept:
            bar.update()
    bar.close()
    if n_shards == 1:  # of several shards none knows of the others: the first stage that reads them all stops
        check_any_usable(pd.DataFrame(rows), split)
    _write_table(store, rows)
    write_origin(store, origin)
    replace_folder(store, paths.ingest(split, shard))
    shutil.rmtree(work)


def transcode(source_path: Path, target: Path, config: Config) -> dict[str, Any]:
    """Decode one file into constant-rate H.264 at `target`; returns its columns of the videos table.

    Raises:
        BadVideoError: nothing to decode, truncated, damaged, or nothing left after the cut to `data.span_s`.
    """
    ingest, (start_s, stop_s) = config.ingest, cut_of(config)
    fps = float(exact_rate(ingest.fps))
    with SourceVideo(source_path) as source:
        width, height = fitted_size(source.width, source.height, ingest.short_side_px)
        _refuse_strip(source.width, source.height, width, height)
        frames = constant_rate(
            source.timed_frames(start_s), fps=fps, source_rate=source.rate, start_s=start_s, stop_s=stop_s
        )
        before: av.VideoFrame | None = None
        shown: Any = None
        with VideoWriter(
            target, width=width, height=height, fps=ingest.fps, gop_frames=ingest.gop_frames, crf=ingest.crf
        ) as writer:
            for frame in frames:
                if frame is not before:  # a repeated frame is converted once
                    before, shown = frame, upright(frame, source.orientation, width, height)
                writer.write(shown)
        _refuse_losses(source, start_s, stop_s, writer.n_frames / fps)
        note = f"{source.damaged} damaged packets or frames concealed" if source.damaged else ""
    return {"fps": fps, "n_frames": writer.n_frames, "width": width, "height": height, "start_s": start_s,
            "duration_s": writer.n_frames / fps, "reason": note}  # fmt: skip


def _ingest_video(
    config: Config, video: str, source: Path, work: Path, labelled_s: tuple[float, float]
) -> dict[str, Any]:
    try:
        if source.is_dir():
            row = _frame_folder_row(config, video, source, labelled_s)
        else:
            row = _row(video, path=f"{video}.mp4", **_kept_or_transcoded(config, video, source, work))
        told = uncovered(row, labelled_s, cut=config.data.span_s is not None)
        if told is not None:
            raise BadVideoError(told)
    except BadVideoError as error:
        raise BadVideoError(f"{source}: {error}") from None
    return row


def _kept_or_transcoded(config: Config, video: str, source: Path, work: Path) -> dict[str, Any]:
    """The facts of work/store/<video>.mp4, made now unless a killed run has left it complete."""
    kept, key = _kept_facts(video, work), _key(config, source)
    if kept is not None and kept["key"] == key:
        return kept["facts"]
    with atomic_path(work / "store" / f"{video}.mp4") as temporary:
        facts = transcode(source, temporary, config)
    write_json_atomic(work / "facts" / f"{video}.json", {"key": key, "facts": facts})
    return facts


def _is_kept(config: Config, video: str, sources: SourceFolder, work: Path) -> bool:
    """Whether a killed run has left the video complete and its source and the settings are the same."""
    kept = _kept_facts(video, work)
    try:
        return kept is not None and kept["key"] == _key(config, sources.find(video))
    except BadVideoError:  # the source is gone; told at the video's turn
        return False


def _kept_facts(video: str, work: Path) -> dict[str, Any] | None:
    facts_json = work / "facts" / f"{video}.json"
    if not (facts_json.is_file() and (work / "store" / f"{video}.mp4").is_file()):
        return None
    return json.loads(facts_json.read_text(encoding="utf-8"))


def _key(config: Config, source: Path) -> dict[str, Any]:
    """What a kept video must agree in to be used again."""
    status = source.stat()
    return {
        "source": str(source.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns,
        "settings": _settings_digest(config),
    }  # fmt: skip


def _frame_folder_row(
    config: Config, video: str, folder: Path, labelled_s: tuple[float, float]
) -> dict[str, Any]:
    """A frame folder as it is; `acar.data.coverage.folder_start_s` says which time its first image shows."""
    found = read_frame_folder(folder, video)
    width, height = fitted_size(found.width, found.height, config.ingest.short_side_px)
    _refuse_strip(found.width, found.height, width, height)
    fps = float(exact_rate(config.ingest.fps))
    return _row(
        video, path=str(folder.resolve()), kind="frames", pattern=found.pattern,
        first_number=found.first_number, fps=fps, n_frames=found.n_frames, width=width, height=height,
        start_s=folder_start_s(config, found.n_frames, fps, labelled_s[1]), duration_s=found.n_frames / fps,
    )  # fmt: skip


def _refuse_strip(width: int, height: int, fitted_width: int, fitted_height: int) -> None:
    if max(fitted_width, fitted_height) > LONGEST_SIDE_PX:
        raise BadVideoError(
            f"its {width}x{height} px would become {fitted_width}x{fitted_height} at ingest.short_side_px; "
            f"expected sides of at most {LONGEST_SIDE_PX} px"
        )


def _refuse_losses(source: SourceVideo, start_s: float, stop_s: float | None, kept_s: float) -> None:
    ended_s = start_s + kept_s
    if kept_s == 0:
        raise BadVideoError(f"it ends before second {start_s:g}, where the cut to data.span_s begins")
    if source.declared_s is not None:
        expected_s = source.declared_s if stop_s is None else min(source.declared_s, stop_s)
        if expected_s - ended_s > most_lost_s(expected_s - start_s):
            raise BadVideoError(
                f"truncated: its pictures end at {ended_s:.2f} s, its header declares "
                f"{source.declared_s:.2f} s"
            )
    if source.damaged / source.rate > most_lost_s(kept_s):
        raise BadVideoError(f"damaged: {source.damaged} packets or frames cannot be decoded properly")


def _settings_digest(config: Config) -> str:
    settings = {
        "format": FORMAT_VERSION,
        "ingest": config.ingest.model_dump(exclude={"on_error"}),
        "span_s": config.data.span_s,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _row(video: str, **known: Any) -> dict[str, Any]:
    """A full row of the videos table: what is not `known` has its neutral value."""
    neutral = {
        "video": video, "path": "", "kind": "video", "pattern": None, "first_number": 0, "fps": 0.0,
        "n_frames": 0, "width": 0, "height": 0, "start_s": 0.0, "duration_s": 0.0, "status": "ok",
        "reason": "",
    }  # fmt: skip
    return {**neutral, **known}


def _write_table(store: Path, rows: list[dict[str, Any]]) -> None:
    """Write videos.parquet and remove what an earlier, killed run left of other videos."""
    listed = {store / row["path"] for row in rows if row["status"] == "ok" and row["kind"] == "video"}
    for path in sorted(store.rglob("*")):
        if path.is_file() and path not in listed:
            path.unlink()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), store / "videos.parquet")
