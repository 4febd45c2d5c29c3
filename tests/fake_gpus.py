"""GPUs that only `nvidia-smi` knows of, for tests of who gets which."""

from __future__ import annotations

import os
from pathlib import Path


def uuid(number: int) -> str:
    """The UUID of a fake GPU; those of number 0 to 15 differ in the first digit."""
    return f"GPU-{number:x}0000000-aaaa-bbbb-cccc-0123456789ab"


def fake_gpus(folder: Path, n: int) -> str:
    """Write an `nvidia-smi` that lists `n` GPUs; returns a `PATH` on which it is the first."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvidia-smi"
    lines = "\n".join(uuid(number) for number in range(n))
    answer = f"cat <<'END'\n{lines}\nEND" if n else "echo 'No devices were found'; exit 6"
    program.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    program.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])
