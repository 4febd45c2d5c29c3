"""Running the repository's workflow in a folder of its own, and reading what Snakemake said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STUBS = Path(__file__).with_name("stub_stages")


def run_snakemake(
    folder: Path,
    *arguments: str | Path,
    stubs: bool = False,
    snakefile: Path = REPOSITORY / "Snakefile",
    under: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Snakemake with `folder` as working folder.

    `stubs`: the stages only write what their rules declare. `under`: a command that starts the command.
    """
    python_path = [str(STUBS)] * stubs + [str(REPOSITORY)]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(python_path)}
    command = [*under, sys.executable, "-m", "snakemake", "--snakefile", snakefile, *arguments]
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule, from the table that a dry run prints; empty if nothing is to be done."""
    table = re.search(r"^Job stats:\n.*\n-.*\n((?:\w+ +\d+\n)+)", output, re.MULTILINE)
    if table is None:
        assert "Nothing to be done" in output, output
        return {}
    counts = (line.split() for line in table.group(1).splitlines())
    return {name: int(count) for name, count in counts if name != "total"}
