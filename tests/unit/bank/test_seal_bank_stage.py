"""The stage compares a bank's seconds with those of the ingested videos."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from bank_samples import Sample

from acar.config import Config, parse_config
from acar.detection.thresholds import why_bank_is_empty
from acar.errors import UserError
from acar.paths import Paths
from acar.stages import seal_bank


def _ingest(root: Path, sample: Sample, extra_s: int = 0) -> Config:
    """The config of a run in `root` whose ingest made the sample's videos, `f` longer by `extra_s`."""
    labels = root / "labels.csv"
    labels.write_text("".join(f"{v.name},{v.first_s + 1:g},0,0,1,1,1,0\n" for v in sample.videos))
    config = parse_config(
        {
            "run": {"results": str(root)},
            "data": {
                "source": "files", "videos": "videos", "label_map": "map.pbtxt", "train": {"labels": "none"},
                "val": {"labels": str(labels), "shards": sample.n_shards},
            },
        }
    )  # fmt: skip
    for shard in range(sample.n_shards):
        rows = [
            {"video": v.name, "path": f"{v.name}.mp4", "status": "ok", "start_s": v.first_s, "fps": 10.0,
             "n_frames": 10 * (len(v.seconds) + extra_s * (v.name == "f")) - 5}
            for v in sample.of_shard(shard)
        ]  # fmt: skip
        folder = Paths.of(config).ingest("val", shard)
        folder.mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(folder / "videos.parquet")
    return config


def test_seals_a_whole_bank(damaged_root: Path, sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    before = (damaged_root / "bank/val/manifest.json").read_bytes()
    seal_bank.run(_ingest(damaged_root, sample), split="val")
    assert (damaged_root / "bank/val/manifest.json").read_bytes() == before
    assert "sealed 65 rows of 24 seconds, 6 videos" in capsys.readouterr().out


def test_refuses_a_bank_that_lacks_an_ingested_second(damaged_root: Path, sample: Sample) -> None:
    config = _ingest(damaged_root, sample, extra_s=1)
    with pytest.raises(
        UserError, match=r"shard-001: 7 seconds, ingest expects 8; missing: video 'f', second 1"
    ) as e:
        seal_bank.run(config, split="val")
    assert f"acar extract-bank --config {damaged_root / 'config.yaml'} --split val --shard 1" in str(e.value)


@pytest.mark.parametrize(
    ("times", "source", "told"),
    [
        (
            [1.5, 2.25],
            "boxes",
            "none of its 2 boxes lies at a whole second, .*; give boxes of whole seconds, too",
        ),
        (
            [1.5],
            "train",
            "none of its 1 boxes lies at a whole second, .*; detect again, with `data.key_frames: both`",
        ),
        (
            [1.0, 2.25],
            "boxes",
            "bank.min_score is 0.5, best of 1 boxes 0.3 at whole seconds; lower bank.min_score",
        ),
        ([1.0, 2.0], "boxes", "bank.min_score is 0.5, best of 2 boxes 0.4; lower bank.min_score"),
        ([], "boxes", "bank.min_score is 0.5, no box at all"),
    ],
)
def test_why_a_bank_is_empty(times: list[float], source: str, told: str) -> None:
    files = {"boxes": {"train": "a", "val": "b"}} if source == "boxes" else {}
    config = parse_config({"detector": {"source": source, **files}})
    boxes = pd.DataFrame({"time_s": times, "score": [0.3, 0.4][: len(times)]}, dtype=float)
    assert re.match(told, why_bank_is_empty(boxes, config))
