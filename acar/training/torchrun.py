"""`torchrun`, except that a user's mistake, which a process has told already, ends it without a trace.

python -m acar.training.torchrun --nproc-per-node 2 -m acar.cli train-stage1 ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

TOLD = 2  # the status that `acar` ends with after a message


def main(arguments: Sequence[str]) -> int:
    """Run the processes; returns 0, or 2 if one of them ended with its message.

    Raises:
        ChildFailedError: a process ended otherwise; names it.
    """
    try:
        run(parse_args(list(arguments)))
    except ChildFailedError as error:
        # The others may have been stopped, or have broken down for want of the one that stopped first.
        if any(failure.exitcode == TOLD for failure in error.failures.values()):
            return TOLD
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
