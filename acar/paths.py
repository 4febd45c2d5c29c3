"""Where every artefact of a run lies; rules and stages both read it here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acar.config import Config


@dataclass(frozen=True)
class Paths:
    """The artefacts under one results folder.

    Methods take `shard` as an int (or as a Snakemake wildcard such as "{shard}") and `split` likewise.
    """

    root: Path

    @classmethod
    def of(cls, config: Config) -> Paths:
        """The layout below `run.results`."""
        return cls(Path(config.run.results))

    @property
    def config(self) -> Path:
        """The merged config of the last `snakemake` call; what `--config` of each subcommand takes."""
        return self.root / "config.yaml"

    @property
    def data(self) -> Path:
        """The drawn data set: videos/, {split}.csv, {split}_excluded.csv, label_map.pbtxt, law.json."""
        return self.root / "data"

    def ingest(self, split: str, shard: int | str) -> Path:
        """Folder of a shard's clips store: <video>.mp4 and videos.parquet."""
        return self.root / "ingest" / split / shard_name(shard)

    @property
    def detector(self) -> Path:
        """Folder: model.safetensors, facts.json, metrics.jsonl."""
        return self.root / "detector"

    def boxes(self, split: str, shard: int | str) -> Path:
        """Folder: boxes.parquet and boxes.csv."""
        return self.root / "boxes" / split / shard_name(shard)

    def training(self, stage: int | str) -> Path:
        """Folder: model.safetensors, metrics.jsonl, facts.json, config.yaml."""
        return self.root / f"stage{stage}"

    def bank(self, split: str) -> Path:
        """Folder of a split's bank: shard-000/ ..., index.parquet, manifest.json."""
        return self.root / "bank" / split

    def bank_shard(self, split: str, shard: int | str) -> Path:
        """Folder: rows.zarr and facts.json, written by one job."""
        return self.bank(split) / shard_name(shard)

    def predictions(self, variant: str, shard: int | str) -> Path:
        """Folder: detections.csv (AVA result format) and .parquet, facts.json, and the examples of shard 0."""
        return self.root / "predictions" / variant / shard_name(shard)

    def evaluation(self, variant: str) -> Path:
        """Folder: metrics.json, per_class.csv."""
        return self.root / "evaluation" / variant

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.root / "report" / "report.html"

    def work(self, name: str) -> Path:
        """Resumable work in progress of a job, outside everything a rule declares."""
        return self.root / "work" / name

    @property
    def owners(self) -> Path:
        """Lock files that tell who is at work: run.lock and one a job."""
        return self.work("owners")

    def timing(self, name: str) -> Path:
        """Snakemake's benchmark file of a job."""
        return self.root / "timings" / f"{name}.tsv"

    def log(self, name: str) -> Path:
        """A job's log."""
        return self.root / "logs" / f"{name}.log"


def shard_name(shard: int | str) -> str:
    """`shard-003`; a wildcard or an already padded number passes through."""
    return f"shard-{shard:03d}" if isinstance(shard, int) else f"shard-{shard}"
