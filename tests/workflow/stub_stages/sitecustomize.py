"""Python loads this at start where it is on PYTHONPATH: stages that only write what their rules declare.

The command lines, the merged config, the leases and the origins stay the real ones.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def outputs(stage: str, paths: Any, split: str = "val", shard: int = 0, variant: str = "") -> list[Any]:
    return {
        "synthesize": lambda: [paths.data / "train.csv"],
        "ingest": lambda: [paths.ingest(split, shard) / "videos.parquet"],
        "train_detector": lambda: [paths.detector / "model.safetensors"],
        "detect": lambda: [paths.boxes(split, shard) / "boxes.parquet"],
        "train_stage1": lambda: [paths.training(1) / "model.safetensors"],
        "train_stage2": lambda: [paths.training(2) / "model.safetensors"],
        "extract_bank": lambda: [paths.bank_shard(split, shard) / "facts.json"],
        "seal_bank": lambda: [paths.bank(split) / "manifest.json", paths.bank(split) / "index.parquet"],
        "predict": lambda: [paths.predictions(variant, shard) / "detections.csv"],
        "evaluate": lambda: [paths.evaluation(variant) / name for name in ("metrics.json", "per_class.csv")],
        "report": lambda: [paths.report],
    }[stage]()


def manifest(config: Any, split: str) -> str:
    """What the real manifest says of the bank's source."""
    from acar.bank.source import shard_source

    shards = [shard_source(config, split, k) for k in range(getattr(config.data, split).shards)]
    return json.dumps({"provenance": shards[0], "shards": shards})


class StubStage(Loader):
    def exec_module(self, module: ModuleType) -> None:
        stage = module.__name__.split(".")[-1]

        def run(config: Any, **ids: Any) -> None:
            from acar.origins.record import Artefact, origin_of, write_origin
            from acar.paths import Paths

            paths, origin = Paths.of(config), origin_of(config, stage, **ids)
            time.sleep(float(os.environ.get("STUB_SECONDS", 0)))
            for path in outputs(stage, paths, **ids):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(manifest(config, **ids) if path.name == "manifest.json" else "{}")
            write_origin(Artefact(stage, **ids).folder(paths), origin)

        module.run = run


class StubStages(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, StubStage()) if name.startswith("acar.stages.") else None


sys.meta_path.insert(0, StubStages())
