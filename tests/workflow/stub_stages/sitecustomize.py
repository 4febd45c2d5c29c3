"""Python loads this at start where it is on PYTHONPATH: stages that only write what their rules declare.

The command lines, the merged config and the leases stay the real ones.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def outputs(stage: str, paths: Any, split: str = "val", shard: int = 0, variant: str = "") -> list[Any]:
    return {
        "synthesize": lambda: [paths.data / "train.csv"],
        "ingest": lambda: [paths.ingest(split, shard) / "videos.parquet"],
        "train_detector": lambda: [paths.detector / "facts.json"],
        "detect": lambda: [paths.boxes(split, shard) / "boxes.csv"],
        "train_stage1": lambda: [paths.training(1) / "facts.json"],
        "train_stage2": lambda: [paths.training(2) / "facts.json"],
        "extract_bank": lambda: [paths.bank_shard(split, shard) / "facts.json"],
        "seal_bank": lambda: [paths.bank(split) / "manifest.json", paths.bank(split) / "index.parquet"],
        "predict": lambda: [paths.predictions(variant, shard) / "detections.csv"],
        "evaluate": lambda: [paths.evaluation(variant) / name for name in ("metrics.json", "per_class.csv")],
        "report": lambda: [paths.report],
    }[stage]()


class StubStage(Loader):
    def exec_module(self, module: ModuleType) -> None:
        def run(config: Any, **ids: Any) -> None:
            from acar.paths import Paths

            for path in outputs(module.__name__.split(".")[-1], Paths.of(config), **ids):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")

        module.run = run


class StubStages(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, StubStage()) if name.startswith("acar.stages.") else None


sys.meta_path.insert(0, StubStages())
