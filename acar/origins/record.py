"""What an artefact was made from: the `origin.json` beside its files, which `acar status` holds against today.

The inputs of each stage are those of its rule (a test compares them with what Snakemake says).
Origins hold no times and no paths: the same inputs, config and code give the same bytes. Never imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import acar
from acar.config import SPLITS, Config, Split
from acar.files import sha256_of, write_json_atomic
from acar.paths import Paths
from acar.provenance import digest_of
from acar.workflow import (
    annotation_files,
    backbone_files,
    detector_files,
    examples_variant,
    has_stage2,
    initial_detector_files,
    key_frame_files,
    label_source,
    reads_bank,
    splits_boxed,
    splits_ingested,
    stage1_files,
    stage_config,
    trains_stage1,
    variants,
)

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Artefact:
    """What one job writes: the stage's name (as of its rule) and those of the ids that the stage has."""

    stage: str
    split: str = ""
    shard: int = 0
    variant: str = ""

    @property
    def ids(self) -> dict[str, Any]:
        """The arguments of the stage's `run`, e.g. `{"split": "train", "shard": 3}`."""
        return {name: getattr(self, name) for name in _KINDS[self.stage].ids}

    @property
    def job(self) -> str:
        """Name of the job, and of its lock: `extract-bank-train-3`."""
        return "-".join([self.stage.replace("_", "-"), *map(str, self.ids.values())])

    @property
    def config_split(self) -> Split:
        """The split whose config the stage reads; the stages without one read that of `val`."""
        return cast(Split, self.split or "val")

    def folder(self, paths: Paths) -> Path:
        """Where its files lie, `origin.json` too."""
        return _KINDS[self.stage].folder(paths, self)

    def declared(self, paths: Paths) -> Path:
        """What stands for it among the inputs of the rules: its folder or its main file."""
        kind = _KINDS[self.stage]
        return self.folder(paths) / kind.main_files[0] if kind.declares_files else self.folder(paths)

    def main_files(self, paths: Paths) -> list[Path]:
        """The files without which it is not there, and whose bytes stand for it."""
        return [self.folder(paths) / name for name in _KINDS[self.stage].main_files]

    def work(self, paths: Paths) -> Path | None:
        """Where a killed job leaves what the next one goes on with; None if it starts over."""
        name = _KINDS[self.stage].work
        return paths.work(name.format(**vars(self))) if name else None

    def __str__(self) -> str:
        """Its folder below the results folder, e.g. `boxes/train/shard-003`."""
        return self.folder(Paths(Path())).as_posix()


@dataclass(frozen=True)
class _Kind:
    """How the artefacts of a stage lie on disk.

    Attributes:
        ids: which of split, variant and shard tell them apart.
        folder: where one lies.
        main_files: names of the files that stand for it, in its folder.
        declares_files: its rule declares files, not the folder.
        work: name of the folder of its work in progress.
        lists_contents: it holds files (videos) whose digests no main file has; their names and sizes are noted.
    """

    ids: tuple[str, ...]
    folder: Callable[[Paths, Artefact], Path]
    main_files: tuple[str, ...]
    declares_files: bool = False
    work: str = ""
    lists_contents: bool = False


_DRAWN = (
    *(f"{split}{part}.csv" for split in SPLITS for part in ("", "_excluded")),
    "label_map.pbtxt",
    "law.json",
)
_SHARD = ("split", "shard")
_WEIGHTS = ("model.safetensors",)
_KINDS = {
    "synthesize": _Kind((), lambda paths, _: paths.data, _DRAWN, lists_contents=True),
    "ingest": _Kind(_SHARD, lambda paths, a: paths.ingest(a.split, a.shard), ("videos.parquet",),
                    work="ingest-{split}-{shard:03d}", lists_contents=True),
    "train_detector": _Kind((), lambda paths, _: paths.detector, _WEIGHTS, work="detector"),
    "detect": _Kind(_SHARD, lambda paths, a: paths.boxes(a.split, a.shard), ("boxes.parquet",),
                    work="detect-{split}-{shard:03d}"),
    "train_stage1": _Kind((), lambda paths, _: paths.training(1), _WEIGHTS, work="stage1"),
    "extract_bank": _Kind(_SHARD, lambda paths, a: paths.bank_shard(a.split, a.shard), ("facts.json",),
                          work="bank-{split}-{shard:03d}"),
    "seal_bank": _Kind(("split",), lambda paths, a: paths.bank(a.split), ("manifest.json",), True),
    "train_stage2": _Kind((), lambda paths, _: paths.training(2), _WEIGHTS, work="stage2"),
    "predict": _Kind(("variant", "shard"), lambda paths, a: paths.predictions(a.variant, a.shard),
                     ("detections.csv",), work="predict-{variant}-{shard:03d}"),
    "evaluate": _Kind(("variant",), lambda paths, a: paths.evaluation(a.variant), ("metrics.json",), True),
    "report": _Kind((), lambda paths, _: paths.report.parent, ("report.html",), True),
}  # fmt: skip

Source = Artefact | Path


@dataclass(frozen=True)
class Input:
    """One named input of a job.

    Attributes:
        name: as in the stage's rule.
        sources: artefacts of the run, or the user's files.
        only_looked_at: the stage's result does not depend on it (`ancient` in the rule).
    """

    name: str
    sources: tuple[Source, ...]
    only_looked_at: bool = False

    @property
    def artefacts(self) -> list[Artefact]:
        """Those of the sources that the run itself makes."""
        return [source for source in self.sources if isinstance(source, Artefact)]


def artefacts(config: Config) -> list[Artefact]:
    """Every artefact of a whole run, each behind all that it is made from."""
    drawn = [Artefact("synthesize")] if config.data.source == "synthetic" else []
    trained = [Artefact("train_detector")] if config.detector.source == "train" else []
    split_banks = [
        [*_shards(config, "extract_bank", split), Artefact("seal_bank", split)]
        for split in SPLITS
        if has_stage2(config)
    ]
    return [
        *drawn,
        *(artefact for split in splits_ingested(config) for artefact in _shards(config, "ingest", split)),
        *trained,
        *(artefact for split in splits_boxed(config) for artefact in _shards(config, "detect", split)),
        Artefact("train_stage1"),
        *(artefact for bank in split_banks for artefact in bank),
        *([Artefact("train_stage2")] if has_stage2(config) else []),
        *(artefact for variant in variants(config) for artefact in _predictions(config, variant)),
        *(Artefact("evaluate", variant=variant) for variant in variants(config)),
        Artefact("report"),
    ]


def inputs_of(config: Config, artefact: Artefact) -> list[Input]:
    """What the artefact's job reads, apart from the config and the folder of the user's videos."""
    made = {str(other.declared(Paths.of(config))): other for other in _NAMED_BY_PATH}

    def sources(named: Named) -> tuple[Source, ...]:
        if isinstance(named, str):
            return (made.get(named, Path(named)),)
        return tuple(named) if isinstance(named, list) else (named,)

    return [
        Input(name, sources(named), only_looked_at=(artefact.stage, name) == _LOOKED_AT)
        for name, named in _named_inputs(config, artefact).items()
    ]


Named = str | Artefact | list[Artefact]

# Artefacts that acar.workflow names by their paths, where a file of the user's may stand instead.
_NAMED_BY_PATH = (Artefact("synthesize"), Artefact("train_detector"))

# Both banks must come from the same weights: that is all that stage 2 asks the val bank for.
_LOOKED_AT = ("train_stage2", "val_bank")


def _named_inputs(config: Config, artefact: Artefact) -> Mapping[str, Named]:
    """The inputs of an artefact's rule by name: paths as acar.workflow gives them to the rules, or artefacts."""
    split, shard = artefact.config_split, artefact.shard
    if artefact.stage in ("train_detector", "train_stage1", "train_stage2"):
        split = "train"
    if "shard" in artefact.ids:
        videos: Named = Artefact("ingest", split, shard)
        boxes: Named = Artefact("detect", split, shard)
    else:
        videos, boxes = _shards(config, "ingest", split), _shards(config, "detect", split)
    annotations = annotation_files(config, split)
    weights = Artefact("train_stage1"), Artefact("train_stage2")
    bank = {name: Artefact("seal_bank", name) for name in SPLITS}
    clips = {**annotations, "videos": videos, "boxes": boxes}
    match artefact.stage:
        case "ingest":
            return {"labels": label_source(config, split)}
        case "train_detector":
            return {**annotations, **initial_detector_files(config), "videos": videos}
        case "detect":
            return {**detector_files(config, split), **key_frame_files(config, split), "videos": videos}
        case "train_stage1" if not trains_stage1(config):
            return stage1_files(config)
        case "train_stage1":
            return {**clips, **stage1_files(config)}
        case "extract_bank":
            return {**clips, "weights": weights[0]}
        case "seal_bank":
            rows = _shards(config, "extract_bank", split)
            return {"labels": label_source(config, split), "videos": videos, "rows": rows}
        case "train_stage2":
            banks = {"bank_weights": weights[0], "bank": bank["train"], "val_bank": bank["val"]}
            return {**clips, **backbone_files(config), **banks}
        case "predict" if not reads_bank(artefact.variant):
            return {**clips, "weights": weights[0]}
        case "predict":
            return {**clips, "weights": weights[1], "bank": bank["val"]}
        case "evaluate":
            return {**clips, "predictions": _predictions(config, artefact.variant)}
        case "report":
            metrics = [Artefact("evaluate", variant=name) for name in variants(config)]
            examples = Artefact("predict", variant=examples_variant(config))
            two = has_stage2(config)
            return {
                **annotations, "metrics": metrics, "trainings": list(weights if two else weights[:1]),
                "examples": examples, "banks": list(bank.values()) if two else [],
            }  # fmt: skip
    return {}


def _shards(config: Config, stage: str, split: Split) -> list[Artefact]:
    return [Artefact(stage, split, shard) for shard in range(getattr(config.data, split).shards)]


def _predictions(config: Config, variant: str) -> list[Artefact]:
    return [Artefact("predict", shard=shard, variant=variant) for shard in range(config.data.val.shards)]


class Digests:
    """Digests of what stands for artefacts and files; each is read once."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._known: dict[Source, str | None] = {}

    def of(self, given: Input) -> str | None:
        """One digest of an input's sources, in their order; None if one of them is not there."""
        digests = [self._of_source(source) for source in given.sources]
        if None in digests:
            return None
        return digests[0] if len(digests) == 1 else digest_of(digests)

    def _of_source(self, source: Source) -> str | None:
        if source not in self._known:
            self._known[source] = self._read(source)
        return self._known[source]

    def _read(self, source: Source) -> str | None:
        if isinstance(source, Path):
            return _digest_if_there([source])
        digest = _digest_if_there(source.main_files(self.paths))
        if digest is None or not _KINDS[source.stage].lists_contents:
            return digest
        return digest_of([digest, (read_origin(source.folder(self.paths)) or {}).get("contents")])


def _digest_if_there(files: list[Path]) -> str | None:
    # Whatever keeps a file from being read: the stage, which reads it next, says it better.
    try:
        digests = [sha256_of(file) for file in files]
    except OSError:
        return None
    return digests[0] if len(digests) == 1 else digest_of(digests)


def origin_of(config: Config, stage: str, **ids: Any) -> dict[str, Any]:
    """What the artefact of a job that starts now is made from; write it with `write_origin`.

    Never fails over an absent or unreadable input (its digest is None): the stage itself reports that.

    Args:
        config: the merged config.
        stage: a rule's name, e.g. `extract_bank`.
        ids: the arguments of the stage's `run`.
    """
    artefact, digests = Artefact(stage, **ids), Digests(Paths.of(config))
    return {
        "stage": stage,
        "ids": artefact.ids,
        "config": config_of(config, artefact),
        "inputs": {given.name: digests.of(given) for given in inputs_of(config, artefact)},
        "code": code_version(),
    }


def config_of(config: Config, artefact: Artefact) -> dict[str, Any]:
    """The config that an artefact depends on, by dotted key, as plain values of JSON."""
    return stage_config(config, artefact.stage, artefact.config_split)


def write_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Write `origin.json`, atomically; call it when all other files are in the folder."""
    contents = {}
    if _KINDS[origin["stage"]].lists_contents:
        contents = {"contents": _contents(folder)}
    write_json_atomic(folder / ORIGIN, {**origin, **contents})


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What `write_origin` wrote; None if there is nothing, or nothing readable."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_one = isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("config", "inputs"))
    if not is_one or not all(isinstance(digest, str | None) for digest in found["inputs"].values()):
        return None
    return found


def _contents(folder: Path) -> str:
    """Digest of names and sizes: reading every byte of a film archive again would take hours."""
    not_its_own = {folder / ORIGIN, folder / ".snakemake_timestamp"}
    files = (path for path in folder.rglob("*") if path.is_file() and path not in not_its_own)
    return digest_of({path.relative_to(folder).as_posix(): path.stat().st_size for path in files})


@cache
def code_version() -> str:
    """`0.1.0+1a2b3c4`: the package's version and a digest of its Python files."""
    package, digest = Path(acar.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{acar.__version__}+{digest.hexdigest()[:7]}"
