"""Who works where: one live owner a run folder, and runs that follow a killed one without `snakemake --unlock`.

A killed Snakemake leaves its locks behind, and the next call is refused. Here Snakemake's main process and
every job hold a shared kernel lock (flock) on one file while they live. Whoever gets it exclusively has
proved that nobody is alive, and that Snakemake's locks are abandoned.

A results folder has one owner as well, whatever folder Snakemake was started in: its main process holds
`work/owners/run.lock` exclusively, and each job the lock of its own name beside it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acar.disk_errors import told_as_user_error
from acar.errors import UserError

OWNERS = Path(".snakemake/acar.owners")
LOCKS = Path(".snakemake/locks")
RUN_LOCK = "run.lock"
LOOKS = 4
LAUNCHER = "ACAR_LAUNCHER"
"""Environment variable: pid of the launcher, for the processes it starts."""


def take_over(folder: Path = Path(), *, jobs_run_here: bool = True, owners: Path | None = None) -> bool:
    """Remove locks that no living process owns, then own the folder until this process ends.

    Where somebody is alive it says so: Snakemake then refuses to run (a dry run goes on), and names nobody.

    Args:
        folder: Snakemake's working folder.
        jobs_run_here: False on a cluster, where a job that still waits in the queue holds nothing: the locks
            are left alone then.
        owners: the lock files of the results folder, to tell who is alive.

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
    elif locks and owners is not None and (alive := living(owners)):
        print(f"At work in this folder: {', '.join(alive)}; no second run until that ends.", file=sys.stderr)
    _own(descriptor)
    return abandoned


def own_run(owners: Path) -> None:
    """Own a results folder until this process ends, as the main process of a Snakemake run.

    Args:
        owners: the folder of the lock files, `Paths.owners`.

    Raises:
        UserError: another run, or a job that a killed run has left alive, is at work on it; names pid and host.
    """
    alive = living(owners)
    if alive:
        raise UserError(
            f"{owners.parent.parent}: {', '.join(alive)} is at work on this results folder; wait for it or stop "
            "it, or give this run another folder (run.results)"
        )
    _claim(owners / RUN_LOCK)


def living(owners: Path) -> list[str]:
    """Who holds the locks of a results folder: `run (pid 7 on host)`, `train-stage1 (pid 9 on host)`."""
    found = []
    for lock in sorted(owners.glob("*.lock")):
        descriptor = os.open(lock, os.O_RDONLY)
        try:
            if not _locked(descriptor, fcntl.LOCK_SH):
                found.append(f"{lock.stem} ({_owner_of(descriptor)})")
        finally:
            os.close(descriptor)
    return found


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
    descriptor = _claim(lock)
    try:
        os.set_inheritable(descriptor, True)
        yield
    finally:
        os.close(descriptor)


def _claim(lock: Path) -> int:
    """Take a lock exclusively, leave our pid and host in its file, and return the descriptor that holds it."""
    with told_as_user_error(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    if _held_by_another(descriptor):
        owner = _owner_of(descriptor)
        os.close(descriptor)
        raise UserError(f"{lock}: {owner} is at work on this; wait for it or stop it")
    try:
        with told_as_user_error(lock):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except UserError:
        os.close(descriptor)
        raise
    return descriptor


def _owner_of(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"


def _held_by_another(descriptor: int) -> bool:
    for _ in range(LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)  # it may only be somebody who looks (`living`), for an instant
            continue
        except OSError:
            return False  # this file system knows no such locks
        return False
    return True


def die_with_parent() -> None:
    """Be killed when the parent process ends, however it ends: for the processes that `torchrun` starts.

    They live in sessions of their own, and would go on computing on GPUs that nobody holds any more.

    Raises:
        UserError: the launcher has ended already.
    """
    parent = int(os.environ.get(LAUNCHER, os.getppid()))
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2); Linux only
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:  # whoever has adopted us is no launcher
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
