"""Who works in a folder, so that a run can follow a killed one without `snakemake --unlock`.

A killed Snakemake leaves its locks behind, and the next call is refused. Here Snakemake's main process and
every job hold a shared kernel lock (flock) on one file while they live. Whoever gets it exclusively has
proved that nobody is alive, and that Snakemake's locks are abandoned.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

OWNERS = Path(".snakemake/acar.owners")
LOCKS = Path(".snakemake/locks")


def take_over(folder: Path = Path(), *, jobs_run_here: bool = True) -> bool:
    """Remove locks that no living process owns, then own the folder until this process ends.

    Args:
        folder: Snakemake's working folder.
        jobs_run_here: False on a cluster, where a job that still waits in the queue holds nothing: the locks
            are left alone then.

    Returns:
        Whether abandoned locks were removed.
    """
    file = folder / OWNERS
    file.parent.mkdir(exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    locks = list((folder / LOCKS).glob("*.lock"))
    abandoned = bool(locks) and jobs_run_here and _locked(descriptor, fcntl.LOCK_EX)
    if abandoned:
        for lock in locks:
            lock.unlink(missing_ok=True)
        print("Removed the locks of a Snakemake run that is gone.", file=sys.stderr)
    _own(descriptor)
    return abandoned


def join(folder: Path = Path()) -> None:
    """Own the folder until this process ends, as a job of a Snakemake run; elsewhere nothing happens."""
    if (folder / OWNERS).exists():
        _own(os.open(folder / OWNERS, os.O_RDONLY))


def _own(descriptor: int) -> None:
    # The descriptor stays open on purpose: the kernel lets go when the process ends, however it ends.
    if not _locked(descriptor, fcntl.LOCK_SH):
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    """Lock without waiting; False if another holds it, or if this file system knows no such locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
