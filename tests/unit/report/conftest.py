"""A made-up results folder: every file that the report reads, small and with numbers one can look for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from acar.config import Config, parse_config
from acar.paths import Paths

HOSTILE = '<img src=x onerror=alert(1)>&"$x$'
CLASSES = [
    # name, group, chance, clip only, AP of stage 1, of stage 2, with the wrong bank
    ("stand", "pose", 0.41, 1.0, 0.903, 0.911, 0.902),
    ("crouch", "pose", 0.33, 1.0, 0.871, 0.866, 0.861),
    (HOSTILE, "object", 0.12, 1.0, 0.642, 0.655, 0.640),
    ("served", "second_order", 0.09, 1.0, 0.412, 0.437, 0.405),
    ("recall_lamp", "long_term", 0.301, 0.352, 0.3137, 0.7461, 0.3053),
    ("unseen", "long_term", 0.0, 0.352, None, None, None),
]
TIMINGS = {"synthesize": 31.25, "ingest/train-000": 12.5, "ingest/val-000": 4.0, "report": 9.0,
           "train_detector": 140.0, "train_stage1": 1234.5, "extract_bank/train-000": 61.0,
           "train_stage2": 1500.0, "predict/stage2-000": 20.0}  # fmt: skip


@pytest.fixture
def fake_run(tmp_path: Path) -> Config:
    """A finished run on drawn data."""
    return build_fake_run(tmp_path / "results")


def build_fake_run(root: Path, overrides: dict | None = None) -> Config:
    """Write the folder and return the config that points to it."""
    config = parse_config({"run": {"results": str(root)}, **(overrides or {})})
    paths = Paths.of(config)
    rng = np.random.default_rng(0)
    for column, variant in enumerate(("stage1", "stage2", "stage2_wrong_bank")):
        write_json(paths.evaluation(variant) / "metrics.json", metrics_json(variant, 4 + column))
    for folder, steps in ((paths.training(1), 900), (paths.training(2), 900), (paths.detector, 120)):
        write_training(folder, steps, rng)
    for split, rows in (("train", 15234), ("val", 4321)):
        write_json(paths.bank(split) / "manifest.json", manifest_json(split, rows))
        write_data(paths, split)
    law = [
        {"name": c[0], "group": c[1], "cause": "scene event in the window", "clip_only_ap": c[3]}
        for c in CLASSES
    ]
    write_json(paths.data / "law.json", {"classes": law})
    for name, s in TIMINGS.items():
        write_text(paths.timing(name), f"s\th:m:s\tmax_rss\tmax_vms\n{s}\t0:00:31\t612.5\t4000\n")
    write_text(paths.config, "run:\n  seed: 4711\n")
    write_examples(paths.predictions("stage2", 0) / "examples.npz", rng)
    return config


def metrics_json(variant: str, ap_column: int) -> dict:
    """What `evaluate` writes."""
    classes = [
        {"id": i, "name": c[0], "group": c[1], "ap": c[ap_column], "positives": 0 if c[4] is None else 40 * i,
         "chance": c[2], "clip_only": c[3], "pr": []}
        for i, c in enumerate(CLASSES, start=1)
    ]  # fmt: skip
    groups = {}
    for name in dict.fromkeys(c[1] for c in CLASSES):
        members = [c for c in classes if c["group"] == name and c["ap"] is not None]
        means = {key: mean(m[of] for m in members) for key, of in
                 (("mAP", "ap"), ("chance", "chance"), ("clip_only", "clip_only"))}  # fmt: skip
        groups[name] = means | {"classes": [c["id"] for c in classes if c["group"] == name]}
    recall = np.linspace(0, 0.971, 50)
    return {
        "variant": variant,
        "metric_name": "PascalBoxes_Precision/mAP@0.5IOU",
        "mAP": mean(c["ap"] for c in classes if c["ap"] is not None),
        "classes": classes,
        "groups": groups,
        "n_ground_truth_boxes": 900,
        "n_detections": 5000,
        "detector": {"ap50": 0.9542, "recall50": 0.971, "n_boxes": 1021, "n_ground_truth": 987,
                     "pr": np.stack([recall, 1 - 0.2 * recall**4], 1).tolist()},
        "skipped": [],
    }  # fmt: skip


def manifest_json(split: str, rows: int) -> dict:
    """What `seal_bank` writes."""
    fill = {"nonzero_fraction": 0.4321, "mean": 0.2, "min": 0.0, "max": 7.0}
    grids = {g: {"rows": rows // 2, "bytes": rows * 3000, "videos": 12, "fill": fill} for g in ("4x4", "4x6")}
    counts = {"d": 96, "rows": rows, "bytes": rows * 6000, "videos": 24, "seconds": 600, "empty_seconds": 21}
    origin = {"weights_sha256": "0f" * 32}
    return {"format": 1, "split": split, **counts, "grids": grids, "shards": [], "provenance": origin}


def write_training(folder: Path, steps: int, rng: np.random.Generator) -> None:
    """metrics.jsonl, with a last line cut off by a kill, and facts.json."""
    lines = [
        {"iteration": 20 * i, "loss": 2.5 * np.exp(-i / 200) + 0.4 + 0.1 * rng.random(),
         "lr": 0.01 * min(1, i / 100), "clips_per_s": 21.5, "actors": 70}
        for i in range(steps)
    ]  # fmt: skip
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines) + '{"iterat')
    write_json(folder / "facts.json", {"iterations": 20 * steps, "parameters": 1234567, "device": "cuda"})


def write_data(paths: Paths, split: str) -> None:
    """Labels, exclusions and the videos table."""
    rows = [f"v,{t},0.1,0.1,0.4,0.9,{a},0\n" for t in range(1, 8) for a in (1, 5)]
    write_text(paths.data / f"{split}.csv", "".join(rows))
    write_text(paths.data / f"{split}_excluded.csv", "v,3\n")
    videos = pd.DataFrame(
        [
            {"video": "v", "path": "v.mp4", "status": "ok", "reason": "", "duration_s": 24.0},
            {"video": "w", "path": "", "status": "skipped", "reason": "moov atom <lost>", "duration_s": 0.0},
        ]
    )
    folder = paths.ingest(split, 0)
    folder.mkdir(parents=True)
    videos.to_parquet(folder / "videos.parquet")


def write_examples(path: Path, rng: np.random.Generator, count: int = 3) -> None:
    """Key frames with two boxes each; the last has no attention."""
    arrays = {"classes": np.array(json.dumps([c[0] for c in CLASSES]))}
    for i in range(count):
        meta = {"video": f"val_{i:03d}", "time_s": 7.0, "actor": 0}
        arrays |= {
            f"{i}/frame": fake_frame(rng),
            f"{i}/boxes": np.array([[0.1, 0.2, 0.4, 0.9], [0.6, 0.3, 0.9, 0.95]], np.float32),
            f"{i}/scores": rng.random((2, len(CLASSES))).astype(np.float32),
            f"{i}/gt": np.array([[0.1, 0.2, 0.42, 0.9]], np.float32),
            f"{i}/gt_targets": np.array([[1, 0, 1, 0, 1, 0]], np.uint8),
            f"{i}/meta": np.array(json.dumps(meta)),
        }
        if i < count - 1:
            support = [{"time_s": 4.0 + 2 * j, "weight": 0.4 / (j + 1)} for j in range(4)]
            arrays |= {
                f"{i}/attention": rng.random((4, 4, 6)).astype(np.float32) ** 3 * 0.4,
                f"{i}/support_frames": np.stack([fake_frame(rng) for _ in range(4)]),
                f"{i}/support_boxes": np.tile(np.float32([0.6, 0.3, 0.9, 0.95]), (4, 1)),
                f"{i}/support_meta": np.array(json.dumps(support)),
            }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def fake_frame(rng: np.random.Generator) -> np.ndarray:
    """(128, 170, 3) uint8: a slope of colour and two figures."""
    y, x = np.mgrid[0:128, 0:170]
    frame = np.stack([90 + x // 2, 70 + y, np.full_like(x, int(rng.integers(60, 180)))], -1).astype(np.uint8)
    frame[26:115, 17:68] = rng.integers(0, 255, 3)
    frame[38:121, 102:153] = rng.integers(0, 255, 3)
    return frame


def mean(values: object) -> float | None:
    """Mean of an iterable, None if empty."""
    found = list(values)  # type: ignore[call-overload]
    return float(np.mean(found)) if found else None


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def build() -> Callable[..., Config]:
    """`build_fake_run`, for tests that change the config."""
    return build_fake_run
