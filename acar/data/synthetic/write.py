"""Encode the drawn videos and write their AVA-format files and the law's own figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acar.config import SPLITS, Split, SynthesizeConfig
from acar.data.encode import write_video
from acar.data.synthetic.draw import Painter
from acar.data.synthetic.law import CLASSES, HINT_FREE_REACH_S, MARK_HALF_S, clip_only_recall, simulate_video
from acar.data.synthetic.scene import arrange_scene
from acar.data.tables import ActionClass, LabelMap, write_label_map
from acar.files import write_json_atomic, write_text_atomic


@dataclass(frozen=True)
class ActorRow:
    """One annotated actor at one key frame; box (x1, y1, x2, y2) in 0..1, `action_ids` in rising order."""

    video: str
    second: int
    actor: int
    box_xyxy_norm: tuple[float, float, float, float]
    action_ids: tuple[int, ...]


@dataclass(frozen=True)
class DrawnVideo:
    """What the tables need to know of one finished video."""

    split: Split
    index: int
    video: str
    key_frames: int
    excluded_s: tuple[int, ...]
    rows: tuple[ActorRow, ...]


def draw_video(config: SynthesizeConfig, split: Split, index: int, folder: str | Path) -> DrawnVideo:
    """Encode `<folder>/<video>.mp4` and return its annotations; same arguments, same bytes."""
    script = simulate_video(config, split, index)
    painter = Painter(script, arrange_scene(config, split, index, script.n_actors))
    frames = (painter.frame(number / config.fps) for number in range(config.video_s * config.fps))
    write_video(Path(folder) / f"{script.video}.mp4", frames, fps=config.fps)
    ids = np.array([c.id for c in CLASSES])
    rows = tuple(
        ActorRow(script.video, second, actor, box, tuple(ids[script.labels[actor, second]].tolist()))
        for second in script.key_seconds
        for actor, box in painter.boxes(second).items()
    )
    excluded = tuple(second for second in script.key_seconds if script.excluded[second])
    return DrawnVideo(split, index, script.video, len(script.key_seconds), excluded, rows)


def write_tables(config: SynthesizeConfig, folder: Path, videos: list[DrawnVideo]) -> None:
    """Write {split}.csv, {split}_excluded.csv, label_map.pbtxt and law.json into `folder`."""
    for split in SPLITS:
        mine = sorted((v for v in videos if v.split == split), key=lambda v: v.index)
        lines = [line for video in mine for row in video.rows for line in _csv_lines(row)]
        write_text_atomic(folder / f"{split}.csv", "".join(lines))
        excluded = [f"{video.video},{second}\n" for video in mine for second in video.excluded_s]
        write_text_atomic(folder / f"{split}_excluded.csv", "".join(excluded))
    label_map = LabelMap(tuple(ActionClass(c.id, c.name, c.group) for c in CLASSES))
    write_label_map(label_map, folder / "label_map.pbtxt")
    write_json_atomic(folder / "law.json", law_facts(config, videos))


def law_facts(config: SynthesizeConfig, videos: list[DrawnVideo]) -> dict[str, Any]:
    """The contents of law.json. Counts leave out excluded key frames, as the evaluation does."""
    rows = {split: [r for v in videos if v.split == split for r in _evaluated(v)] for split in SPLITS}
    positives = {
        split: {c.id: sum(c.id in row.action_ids for row in rows[split]) for c in CLASSES} for split in SPLITS
    }
    weights = np.bincount([row.second for row in rows["val"]], minlength=config.video_s)[1:]
    long_term = clip_only_recall(config, weights if weights.any() else None)
    classes = [
        asdict(c) | {
            "clip_only_ap": long_term if c.group == "long_term" else 1.0,
            "prevalence": {s: positives[s][c.id] / len(rows[s]) if rows[s] else 0.0 for s in SPLITS},
            "positives": {s: positives[s][c.id] for s in SPLITS},
        }
        for c in CLASSES
    ]  # fmt: skip
    return {
        "window_radius_s": config.window_radius_s,
        "event_probability": config.event_probability,
        "cutaway_probability": config.cutaway_probability,
        "mark_half_s": MARK_HALF_S,
        "hint_free_reach_s": HINT_FREE_REACH_S,
        "classes": classes,
        "splits": {split: _counts(videos, split) for split in SPLITS},
    }


def _counts(videos: list[DrawnVideo], split: Split) -> dict[str, int]:
    mine = [video for video in videos if video.split == split]
    peopled = {(row.video, row.second) for video in mine for row in video.rows}
    key_frames = sum(video.key_frames for video in mine)
    return {
        "videos": len(mine),
        "key_frames": key_frames,
        "key_frames_without_actors": key_frames - len(peopled),
        "excluded_key_frames": sum(len(video.excluded_s) for video in mine),
        "actors": sum(len(video.rows) for video in mine),
        "evaluated_actors": sum(len(_evaluated(video)) for video in mine),
    }


def _evaluated(video: DrawnVideo) -> list[ActorRow]:
    return [row for row in video.rows if row.second not in video.excluded_s]


def _csv_lines(row: ActorRow) -> list[str]:
    box = ",".join(f"{edge:.6f}" for edge in row.box_xyxy_norm)
    return [f"{row.video},{row.second},{box},{action_id},{row.actor}\n" for action_id in row.action_ids]
