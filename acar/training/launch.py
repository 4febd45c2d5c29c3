"""Starting one process a device through `torchrun`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def launch(arguments: Sequence[str], processes: int) -> NoReturn:
    """Become `torchrun`, which runs `acar <arguments>` in `processes` processes of one group.

    The process is replaced, not left waiting, so the GPU leases it holds stay with the training.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        "-m", "acar.cli", *arguments,
    ]  # fmt: skip
    os.execv(command[0], command)
