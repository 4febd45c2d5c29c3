"""Starting one process a device through `torchrun`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from acar.jobs.leases import keep_through_exec
from acar.jobs.owners import LAUNCHER


def launch(arguments: Sequence[str], processes: int) -> NoReturn:
    """Become `torchrun`, which runs `acar <arguments>` in `processes` processes of one group.

    The process is replaced, not left waiting, so the GPU leases it holds stay with the training.
    """
    command = [
        sys.executable, "-m", "acar.training.torchrun", "--standalone", "--nproc-per-node", str(processes),
        "-m", "acar.cli", *arguments,
    ]  # fmt: skip
    keep_through_exec()
    # The pid lives through exec: by it the processes notice when their launcher is gone.
    os.execve(command[0], command, {**os.environ, LAUNCHER: str(os.getpid())})
