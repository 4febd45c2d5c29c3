"""Gather what a run left in its results folder; absent or unreadable parts become sentences, not errors."""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml

from acar.config import SPLITS, Config, Split
from acar.data.sources import excluded_path, labels_path
from acar.data.tables import read_excluded, read_labels, read_videos, repeated_labels
from acar.errors import UserError
from acar.paths import Paths

T = TypeVar("T")
VARIANTS = ("stage1", "stage2", "stage2_wrong_bank")
TRAININGS = ("stage1", "stage2", "detector")
STAGES = ("synthesize", "ingest", "train_detector", "detect", "train_stage1", "extract_bank", "seal_bank",
          "train_stage2", "predict", "evaluate", "report")  # fmt: skip
METRIC_COLUMNS = ["iteration", "loss", "lr"]
PACKAGES = ("acar", "torch", "torchvision", "dask", "zarr", "numcodecs", "snakemake", "numpy", "pandas",
            "pyarrow", "av", "pydantic", "safetensors", "matplotlib", "jinja2", "pillow")  # fmt: skip


@dataclass(frozen=True)
class Training:
    """What one training wrote: `metrics` holds a row a logged iteration, `facts` is facts.json."""

    metrics: pd.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True)
class Trouble:
    """A video that ingest skipped, or took although some of it was damaged."""

    split: str
    video: str
    is_skipped: bool
    reason: str


@dataclass(frozen=True)
class SplitFacts:
    """The size of one split; a number is None where its source could not be read."""

    videos: int | None
    seconds: float | None
    key_frames: int | None
    excluded: int | None
    actors: int | None
    troubles: list[Trouble]


@dataclass(frozen=True)
class Example:
    """One predicted key frame, as the predict stage saves it.

    Boxes are xyxy in 0..1 of their frame. `actor` is the row of `boxes_xyxy_norm` that is the actor of
    interest. The attention arrays have J = 0 rows where the prediction used no bank.
    """

    video: str
    time_s: float
    actor: int | None
    frame: np.ndarray  # (H, W, 3) uint8 RGB
    boxes_xyxy_norm: np.ndarray  # (N, 4) float32
    scores: np.ndarray  # (N, C) float32
    gt_boxes_xyxy_norm: np.ndarray  # (G, 4) float32
    gt_targets: np.ndarray  # (G, C) bool
    attention: np.ndarray  # (J, h, w) float32, Att^{i,j} at each location
    support_frames: np.ndarray  # (J, H, W, 3) uint8 RGB
    support_boxes_xyxy_norm: np.ndarray  # (J, 4) float32
    support: list[dict[str, float]]  # J dicts of time_s and weight


@dataclass(frozen=True)
class Run:
    """All that the page shows. `notes` are sentences on what is missing and why."""

    config: Config
    config_text: str
    metrics: dict[str, dict[str, Any]]
    trainings: dict[str, Training]
    banks: dict[str, dict[str, Any]]
    timings: pd.DataFrame  # rule, job, s, max_rss_mib
    splits: dict[str, SplitFacts]
    law: dict[str, Any] | None
    example_classes: list[str]
    examples: list[Example]
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)


def collect(config: Config) -> Run:
    """Read every artefact under `config.run.results`; nothing there is required."""
    paths = Paths.of(config)
    notes: list[str] = []
    examples_npz = _examples_file(paths)
    found = _attempt(lambda: load_examples(examples_npz), notes, "Key frames") if examples_npz else None
    classes, examples = found or ([], [])
    law = None
    if config.data.source == "synthetic":
        law = _json(paths.data / "law.json", notes)
    metrics = {v: _json(paths.evaluation(v) / "metrics.json", notes) for v in VARIANTS}
    banks = {s: _json(paths.bank(s) / "manifest.json", notes) for s in SPLITS}
    return Run(
        config=config,
        config_text=_config_text(config, paths),
        metrics={k: v for k, v in metrics.items() if v is not None},
        trainings=_trainings(paths, notes),
        banks={k: v for k, v in banks.items() if v is not None},
        timings=read_timings(paths.timing("x").parent),
        splits={s: _split_facts(config, paths, s, notes) for s in SPLITS},
        law=law,
        example_classes=classes,
        examples=examples,
        versions=package_versions(),
        notes=notes,
    )


def read_metrics_lines(path: Path) -> pd.DataFrame:
    """A metrics.jsonl as a table; a last line cut off by a kill, and lines without `iteration`, are dropped.

    A resumed run may log an iteration twice: the later line counts.
    """
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int | float):
            rows.append(row)
    if not rows:
        return pd.DataFrame(columns=METRIC_COLUMNS)
    table = pd.DataFrame(rows)
    for name in table.columns.intersection(["loss", "lr", "clips_per_s", "actors"]):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    table = table.drop_duplicates("iteration", keep="last")
    return table.sort_values("iteration", ignore_index=True)


def read_timings(folder: Path) -> pd.DataFrame:
    """Snakemake's benchmark files as one table [rule, job, s, max_rss_mib], a row a job, in pipeline order.

    The report's own file is left out: it is from the report before this one.
    Snakemake writes `-` or `NA` where a process was too short to be measured: those become NaN.
    """
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        try:
            table = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
        except (pd.errors.ParserError, pd.errors.EmptyDataError):
            continue
        if "s" not in table.columns or table.empty:
            continue
        job = path.relative_to(folder).with_suffix("").as_posix()
        if rule_of(job) == "report":
            continue
        memory = table["max_rss"] if "max_rss" in table.columns else pd.Series(dtype=float)
        seconds = pd.to_numeric(table["s"], errors="coerce").mean()
        rows.append((rule_of(job), job, seconds, pd.to_numeric(memory, errors="coerce").max()))
    table = pd.DataFrame(rows, columns=["rule", "job", "s", "max_rss_mib"])
    order = {rule: i for i, rule in enumerate(STAGES)}
    place = table["rule"].map(order).fillna(len(order))
    return table.loc[place.sort_values(kind="stable").index].reset_index(drop=True)


def rule_of(job: str) -> str:
    """The rule of a benchmark file: the longest stage name its path starts with, else its first part."""
    known = [stage for stage in STAGES if job.startswith(stage)]
    return max(known, key=len) if known else job.split("/")[0].split(".")[0]


def load_examples(path: Path) -> tuple[list[str], list[Example]]:
    """Read an examples.npz: the class names (the columns of scores) and its key frames in order.

    Keys are `{i}/frame`, `{i}/boxes`, `{i}/scores`, `{i}/gt`, `{i}/gt_targets`, `{i}/meta`; with a bank also
    `{i}/attention`, `{i}/support_frames`, `{i}/support_boxes`, `{i}/support_meta`; and one `classes`.

    Raises:
        UserError: the file is not such an archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            count = sorted(int(n.split("/")[0]) for n in names if n.endswith("/frame"))
            classes = [str(name) for name in _json_array(archive["classes"])]
            return classes, [_example(archive, names, i) for i in count]
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not an examples file ({error}); rerun predict for shard 0") from None


def _example(archive: Any, names: set[str], i: int) -> Example:
    def get(name: str, default: np.ndarray) -> np.ndarray:
        return archive[f"{i}/{name}"] if f"{i}/{name}" in names else default

    meta = _json_array(archive[f"{i}/meta"])
    actor = meta.get("actor")
    frame, targets = archive[f"{i}/frame"], get("gt_targets", np.zeros((0, 0), np.uint8))
    attention = get("attention", np.zeros((0, 1, 1), np.float32))
    support = _json_array(archive[f"{i}/support_meta"]) if f"{i}/support_meta" in names else []
    boxes = archive[f"{i}/boxes"].reshape(-1, 4)
    return Example(
        video=str(meta.get("video", "?")),
        time_s=float(meta.get("time_s", 0.0)),
        actor=int(actor) if actor is not None and 0 <= int(actor) < len(boxes) else None,
        frame=frame,
        boxes_xyxy_norm=boxes,
        scores=archive[f"{i}/scores"],
        gt_boxes_xyxy_norm=get("gt", np.zeros((0, 4), np.float32)).reshape(-1, 4),
        gt_targets=targets.astype(bool),
        attention=attention[: len(support)],
        support_frames=get("support_frames", np.zeros((0, *frame.shape), np.uint8)),
        support_boxes_xyxy_norm=get("support_boxes", np.zeros((0, 4), np.float32)).reshape(-1, 4),
        support=[
            {key: float(item[key]) for key in ("time_s", "weight")} for item in support[: len(attention)]
        ],
    )


def _json_array(array: np.ndarray) -> Any:
    """The JSON text that a 0-d string array, or a uint8 array of UTF-8, holds."""
    text = array.tobytes().decode("utf-8") if array.dtype == np.uint8 else str(array.reshape(-1)[0])
    return json.loads(text)


def _examples_file(paths: Paths) -> Path | None:
    files = [paths.predictions(variant, 0) / "examples.npz" for variant in ("stage2", "stage1")]
    return next((path for path in files if path.is_file()), None)


def _json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        notes.append(f"{path} is not valid JSON ({error}) and is left out.")
        return None
    return value if isinstance(value, dict) else None


def _attempt(read: Callable[[], T], notes: list[str], what: str) -> T | None:
    try:
        return read()
    except (UserError, OSError, ValueError) as error:
        notes.append(f"{what}: {error}")
        return None


def _trainings(paths: Paths, notes: list[str]) -> dict[str, Training]:
    found = {}
    for name in TRAININGS:
        folder = paths.detector if name == "detector" else paths.root / name
        log = folder / "metrics.jsonl"
        metrics = read_metrics_lines(log) if log.is_file() else pd.DataFrame(columns=METRIC_COLUMNS)
        facts = _json(folder / "facts.json", notes)
        if facts is not None or not metrics.empty:
            found[name] = Training(metrics, facts or {})
    return found


def _split_facts(config: Config, paths: Paths, split: Split, notes: list[str]) -> SplitFacts:
    folders = sorted(p.parent for p in (paths.root / "ingest" / split).glob("shard-*/videos.parquet"))
    videos = _attempt(lambda: read_videos(folders), notes, f"Videos of {split}") if folders else None
    ok = videos[videos["status"] == "ok"] if videos is not None else None
    labels = _attempt(
        lambda: read_labels(labels_path(config, split), clip=False), notes, f"Labels of {split}"
    )
    repeated = repeated_labels(labels_path(config, split)) if labels is not None else None
    if repeated is not None and repeated.count:
        notes.append(
            f"Labels of {split}: {repeated.count} repeated row(s), each taken once in training and as often as "
            f"it is there by the evaluation: {repeated}."
        )
    key, excluded = ["video", "time_s"], excluded_path(config, split)
    left_out = None
    if excluded is not None and excluded.is_file():
        left_out = _attempt(lambda: read_excluded(excluded), notes, f"Excluded key frames of {split}")
    return SplitFacts(
        videos=len(ok) if ok is not None else None,
        seconds=float(ok["duration_s"].sum()) if ok is not None else None,
        key_frames=len(labels.drop_duplicates(key)) if labels is not None else None,
        excluded=len(left_out) if left_out is not None else None,
        actors=len(labels.drop_duplicates([*key, "x1", "y1", "x2", "y2"])) if labels is not None else None,
        troubles=_troubles(split, videos) if videos is not None else [],
    )


def _troubles(split: str, videos: pd.DataFrame) -> list[Trouble]:
    """Videos that ingest skipped, then those it took with concealed damage."""
    videos = videos.assign(reason=videos["reason"].fillna("").astype(str))
    told = videos[(videos["status"] != "ok") | (videos["reason"] != "")]
    found = [
        Trouble(split, str(v), s != "ok", r) for v, s, r in zip(told["video"], told["status"], told["reason"])
    ]
    return sorted(found, key=lambda trouble: (not trouble.is_skipped, trouble.video))


def _config_text(config: Config, paths: Paths) -> str:
    if paths.config.is_file():
        return paths.config.read_text(encoding="utf-8")
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages a run's numbers depend on, without importing any of them."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
