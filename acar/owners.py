"""Who works in a folder, so that a run can follow a killed one without `snakemake --unlock`.

A killed Snakemake leaves its locks behind, and the next call is refused. Here Snakemake's main process and
every job hold a shared kernel lock (flock) on one file while they live. Whoever gets it exclusively has
proved that nobody is alive, and that Snakemake's locks are abandoned.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acar.errors import UserError

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


@contextmanager
def sole_owner(lock: Path) -> Iterator[None]:
    """Be the only process at work on one artefact until the block, or this process, ends.

    A launcher that this process turns into (`exec`) goes on owning.

    Raises:
        UserError: another process is at work on it; names its host and pid.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if _held_by_another(descriptor):
            owner = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
            raise UserError(f"{lock}: {owner} is at work on this; wait for it or stop it")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        os.set_inheritable(descriptor, True)
        yield
    finally:
        os.close(descriptor)


def _held_by_another(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # this file system knows no such locks
    return False


def die_with_parent() -> None:
    """Be killed when the parent process ends, however it ends: for the processes that `torchrun` starts.

    They live in sessions of their own, and would go on computing on GPUs that nobody holds any more.
    """
    parent = os.getppid()
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2); Linux only
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:
        raise UserError("the launcher of this process is gone")


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
