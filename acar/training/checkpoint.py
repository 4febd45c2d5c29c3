"""Checkpoints of a running training; they live outside what a rule declares, so a failed job keeps them.

A file is one line (a magic word and the SHA-256 of the rest) and behind it what `torch.save` writes, whose
own checksums `torch.load` does not look at: a flipped bit would be trained on in silence.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acar.disk_errors import told_as_user_error
from acar.errors import UserError
from acar.files import atomic_path, write_text_atomic

MAGIC = b"acar-checkpoint sha256 "


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Store a dict of tensors and plain values atomically.

    Raises:
        UserError: the disk is full or refuses the write; an older checkpoint at `path` is untouched then.
    """
    # Not straight to the file: torch's own writer hides why a write failed.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n")
        stream.write(content)


def read_checkpoint(path: Path, keys: set[str]) -> dict[str, Any]:
    """The dict of `write_checkpoint`, on the CPU.

    Args:
        path: of the file.
        keys: that the dict must have.

    Raises:
        UserError: cut off, damaged or of something else; says how to start afresh.
    """
    head, _, content = path.read_bytes().partition(b"\n")
    if not head.startswith(MAGIC):
        raise _unusable(path, f"is not a checkpoint of this version of acar (it begins with {head[:12]!r})")
    if hashlib.sha256(content).hexdigest().encode() != head.removeprefix(MAGIC):
        raise _unusable(path, f"is damaged or cut off ({len(content)} bytes, not those that were written)")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler stumbles over
        raise _unusable(path, f"cannot be read ({str(error).splitlines()[0][:100]})") from error
    missing = sorted(keys - set(state)) if isinstance(state, dict) else sorted(keys)
    if missing:
        raise _unusable(path, f"holds a {type(state).__name__} without {', '.join(missing)}")
    return state


def unfitting(path: Path, error: Exception) -> UserError:
    """For a checkpoint whose parts another network or optimizer wrote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _unusable(path, f"is of another network or optimizer ({' '.join(lines)[:200]})")


def _unusable(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what}; remove this file to start the training afresh, and run the same command again"
    )


@dataclass
class Tally:
    """What a training counts.

    Attributes:
        loss_sum, actors, iterations, skipped: since the last line of the log; `skipped` in clips.
        skipped_clips: how often each clip was left out, over the whole training.
    """

    loss_sum: float = 0.0
    actors: int = 0
    iterations: int = 0
    skipped: int = 0
    skipped_clips: dict[str, int] = field(default_factory=dict)

    def count(self, loss: float, actors: int, skipped: Sequence[str]) -> None:
        """Add an iteration: its mean loss an actor, the actors in it and the names of clips left out."""
        self.loss_sum, self.actors, self.iterations = (
            self.loss_sum + loss,
            self.actors + actors,
            self.iterations + 1,
        )
        self.skipped += len(skipped)
        for name in skipped:
            self.skipped_clips[name] = self.skipped_clips.get(name, 0) + 1

    def new_line(self) -> None:
        """Begin the next line of the log."""
        self.loss_sum, self.actors, self.iterations, self.skipped = 0.0, 0, 0, 0


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

    def save(self, iteration: int, net: nn.Module, optimizer: torch.optim.Optimizer, tally: Tally) -> None:
        """Store the state after `iteration` iterations, atomically.

        Raises:
            UserError: the disk is full or refuses the write.
        """
        state: dict[str, Any] = {
            "source": self.source,
            "iteration": iteration,
            "tally": asdict(tally),
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        write_checkpoint(self.path, state)

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Tally]:
        """Load the newest checkpoint of this source.

        Returns:
            The number of iterations done (0 without a checkpoint), and what was counted in them.

        Raises:
            UserError: the checkpoint is damaged, or of another network although its source is the same.
        """
        if not self.path.is_file():
            return 0, Tally()
        state = read_checkpoint(self.path, {"source", "iteration", "tally", "net", "optimizer"})
        if state["source"] != self.source:
            print(f"{self.path}: of other inputs or settings; starting anew", file=sys.stderr)
            return 0, Tally()
        try:
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])
            return int(state["iteration"]), Tally(**state["tally"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unfitting(self.path, error) from error

    def cut_log(self, iteration: int) -> None:
        """Drop what was logged after `iteration` iterations (it will be logged again), and damaged lines."""
        kept = []
        if self.log.is_file() and iteration > 0:
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
                logged = _logged_iteration(line)
                if logged is not None and logged <= iteration:
                    kept.append(line + "\n")
        write_text_atomic(self.log, "".join(kept))

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one line.

        Raises:
            UserError: the disk is full or refuses the write; a half-written line goes at the next `cut_log`.
        """
        with told_as_user_error(self.log), open(self.log, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def _logged_iteration(line: str) -> float | None:
    """The iteration of a line of the log; None for a line that a kill or a full disk has cut off."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    found = entry.get("iteration") if isinstance(entry, dict) else None
    return found if isinstance(found, int | float) else None
