"""What a full disk, a missing permission or a failing device means for the user: one message, no trace.

Writers raise all sorts of things (an `OSError` with or without a file name, PyAV's own kind, what torch's zip
writer makes of it), some through worker processes. The system's error number in the chain of exceptions is
what they share, and what is read here.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acar.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM}
BROKEN = {errno.EROFS, errno.EIO, errno.ENOTDIR}
UNFIT = {errno.ENAMETOOLONG: "the name is too long", errno.ELOOP: "symbolic links lead back to themselves"}
UNFIT_REMEDY = "expected a name that a file or folder can have; name another"
AGAIN = "run the same command again; finished work is kept"
# `.name.tmp` of a folder and `.name.123.tmp.suffix` of a file in the making (acar.files).
TEMPORARY = re.compile(r"\.(?P<name>.+?)(?:\.\d+)?\.tmp(?:\.[^.]+)?")


@contextmanager
def told_as_user_error(path: str | Path) -> Iterator[None]:
    """Raise what the disk refuses inside the block as a `UserError`.

    Args:
        path: what is being written; named where the error itself names no file.

    Raises:
        UserError: what failed, how much is free, and what to do. All other errors pass through.
    """
    try:
        yield
    except Exception as error:
        told = user_error(error, path)
        if told is None:
            raise
        raise told from error


def user_error(error: BaseException, path: str | Path | None = None) -> UserError | None:
    """The message for what the disk refused, if that is what `error` is or comes from; else None."""
    if isinstance(error, UserError):
        return None
    found = _of_the_disk(error)
    if found is None:
        return None
    # Of two names the second is the one that was to be written (copying, renaming).
    names = [name for name in (found.filename2, found.filename) if isinstance(name, str | os.PathLike)]
    name = names[0] if names else path
    where = final_name(Path(name)) if name is not None else None
    subject = "a file" if where is None else str(where)
    number = found.errno
    if number in UNFIT:
        return UserError(f"{subject}: {UNFIT[number]}; {UNFIT_REMEDY}")
    folder = _existing_folder(where or Path())
    if number in FULL:
        return UserError(f"{subject}: no space left{_limit(number)}; {_free(folder)}; free space and {AGAIN}")
    if number in REFUSED:
        return UserError(
            f"{subject}: permission denied; {_owner(folder)}; grant this user access (or, if results lie "
            f"there, set run.results to another folder) and {AGAIN}"
        )
    if number == errno.EROFS:
        return UserError(
            f"{subject}: the file system is read-only; mount it writable, or set run.results to a folder "
            f"elsewhere, and {AGAIN}"
        )
    if number == errno.ENOTDIR:
        return UserError(
            f"{subject}: a part of this path is a file, expected a folder; move it away and {AGAIN}"
        )
    return UserError(
        f"{subject}: the device reports an error ({os.strerror(number or 0)}); look at the system's log for a "
        f"failing disk, and {AGAIN}"
    )


def final_name(path: Path) -> Path:
    """The name that a temporary file or folder is renamed to when it is whole; others stay."""
    parts = [TEMPORARY.fullmatch(part) for part in path.parts]
    return Path(*(match["name"] if match else part for match, part in zip(parts, path.parts, strict=True)))


def _of_the_disk(error: BaseException) -> OSError | None:
    """The first error of the chain that the disk's error numbers explain."""
    seen: set[int] = set()
    current: BaseException | None = error
    is_cause = True
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError):
            known = FULL | BROKEN | UNFIT.keys() | (REFUSED if is_cause else set())
            if current.errno in known:
                return current
        # What an error was merely raised after is trusted less: a refusal may have been dealt with there.
        is_cause = is_cause and current.__cause__ is not None
        current = current.__cause__ or current.__context__
    return None


def _existing_folder(path: Path) -> Path:
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


def _limit(number: int | None) -> str:
    if number == errno.EDQUOT:
        return " in this user's quota"
    if number != errno.EFBIG:
        return ""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most == resource.RLIM_INFINITY:
        return " for a file of this size (the file system allows none so large)"
    return f" for a file of this size (the limit is {_size(most)}: `ulimit -f`)"


def _free(folder: Path) -> str:
    try:
        free = shutil.disk_usage(folder).free
        entries = os.statvfs(folder)
    except OSError as error:
        return f"what is free at {folder} cannot be read ({error.strerror})"
    few = (
        f" and {entries.f_favail} file entries (inodes)"
        if entries.f_files and entries.f_favail < 1000
        else ""
    )
    return f"{_size(free)}{few} free now at {folder}"


def _owner(folder: Path) -> str:
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    return f"{folder} is of user {status.st_uid} with mode {mode:04o}, this is user {os.geteuid()}"


def _size(n_bytes: int) -> str:
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= step:
            return f"{n_bytes / step:.1f} {unit}"
    return f"{n_bytes} bytes"
