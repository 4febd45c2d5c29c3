"""Checkpoints of a running training; they live outside what a rule declares, so a failed job keeps them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acar.files import atomic_path, write_text_atomic


@dataclass(frozen=True)
class Checkpointer:
    """Saves and restores one training in `folder`.

    `source` is the digest of everything the training depends on: a checkpoint of another source is not resumed.
    """

    folder: Path
    source: str

    @property
    def path(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object a logged iteration."""
        return self.folder / "metrics.jsonl"

    def save(self, iteration: int, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Store the state after `iteration` iterations, atomically."""
        state: dict[str, Any] = {
            "source": self.source,
            "iteration": iteration,
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest checkpoint of this source; returns the number of iterations done, 0 without one."""
        if not self.path.is_file():
            return 0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["source"] != self.source:
            print(f"{self.path}: of other inputs or settings; starting anew", file=sys.stderr)
            return 0
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["iteration"])

    def cut_log(self, iteration: int) -> None:
        """Drop what was logged after `iteration` iterations: it will be logged again."""
        kept = []
        if self.log.is_file() and iteration > 0:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                if line.endswith("}") and json.loads(line)["iteration"] <= iteration:
                    kept.append(line + "\n")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.log, "".join(kept))

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one line."""
        with open(self.log, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
