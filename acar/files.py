"""Atomic writes: whatever is killed, a final name holds either nothing or the whole.

What the disk refuses (no space, no permission) is raised as a `UserError` that names the final file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from acar.disk_errors import UNFIT, UNFIT_REMEDY, told_as_user_error
from acar.errors import UserError

LONGEST_NAME = 255
"""Bytes of a file's name that Linux's file systems take."""
LONGEST_SUFFIX = 32
"""Bytes of a suffix that a temporary name keeps: a longer one names no format."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed to disk and renamed onto `path`.

    Raises:
        UserError: the disk is full or refuses the write; `path` is as it was before.
    """
    path = Path(path)
    temporary = path.with_name(_temporary_name(path))
    with told_as_user_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            _remove_file(temporary)


def replace_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files that belong together: all of them under temporary names, then all are renamed.

    Until the last one is whole on the disk, every final name holds what it held. Renaming takes no space; only a
    kill, or a folder that loses its permissions, between two renames can part them.

    Args:
        writers: by final path, what writes the file under the temporary name that it is given (same suffix).

    Raises:
        UserError: the disk is full or refuses a write, or a final name is a folder: nothing was replaced.
    """
    temporaries = {path: path.with_name(_temporary_name(path)) for path in writers}
    try:
        for path, write in writers.items():
            with told_as_user_error(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(temporaries[path])
                _sync(temporaries[path])
        for path in writers:
            if path.is_dir():  # the one thing that a rename would stop at, halfway through them
                raise UserError(f"{path}: a folder; expected a file's name; move it away")
        for path, temporary in temporaries.items():
            with told_as_user_error(path):
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            _remove_file(temporary)


def write_bytes_atomic(path: str | Path, content: bytes | memoryview) -> None:
    """Write bytes under a temporary name, then rename."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, then rename."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write indented JSON (NaN refused) under a temporary name, then rename."""
    write_text_atomic(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON; NaN is refused (a `ValueError`)."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


@contextmanager
def finished_folder(final: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`; on success it takes the place of `final`.

    After an exception it is removed: a disk that is full gets its space back.

    Raises:
        UserError: the disk is full or refuses a write; `final` is as it was before.
    """
    final = Path(final)
    temporary = final.parent / f".{final.name}.tmp"
    with told_as_user_error(final):
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        try:
            yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        replace_folder(temporary, final)


def replace_folder(source: Path, final: Path) -> None:
    """Rename `source` onto `final`, removing what was there.

    Raises:
        UserError: the disk refuses it.
    """
    with told_as_user_error(final):
        if final.exists():
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, final)


def _temporary_name(path: Path) -> str:
    """A hidden name of this process with the suffix, that the file system takes if it takes the name itself."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""
    name = f".{path.name}.{os.getpid()}.tmp{suffix}"
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return f".{digest}.{os.getpid()}.tmp{suffix}"


def check_name(path: str | Path, *, option: str = "") -> None:
    """Refuse a path that no file can have, whether or not one is there.

    Raises:
        UserError: a name that is too long, or symbolic links that lead back to themselves.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in UNFIT:
            told = f"{option} {path}".strip()
            raise UserError(f"{told}: {UNFIT[error.errno]}; {UNFIT_REMEDY}") from None


def check_output(path: str | Path, inputs: Iterable[str | Path] = (), *, option: str = "") -> None:
    """Refuse, before the work, a file that could not be written after it, or that would replace what it is made from.

    Args:
        path: the file to write; one that exists is replaced.
        inputs: files and folders that are read, and other files that are written by the same command.
        option: how the user gave `path`, such as `--out`, for the message.

    Raises:
        UserError: a folder, one of the inputs, a place under a file, or a folder without permission.
    """
    path = Path(path)
    told = f"{option} {path}".strip()
    check_name(path, option=option)
    if path.is_dir():
        raise UserError(f"{told}: a folder; expected a file's name, such as {path / 'result'}")
    if path.exists() and not path.is_file():
        raise UserError(f"{told}: a device or pipe; expected the name of a plain file")
    final = path.resolve()
    for other in map(Path, inputs):
        check_name(other)
        inside = path.exists() and other.is_dir() and final.is_relative_to(other.resolve())
        if inside or final == other.resolve():
            raise UserError(
                f"{told}: another file of this command ({other}), which would be overwritten; expected a name of "
                "its own"
            )
    _check_folder(told, path.absolute().parent)


def check_output_folder(path: str | Path, *, option: str = "") -> None:
    """Refuse, before the work, a folder that files could not be written into after it. It need not exist.

    Raises:
        UserError: a file, a place under one, or a folder without permission.
    """
    check_name(path, option=option)
    _check_folder(f"{option} {path}".strip(), Path(path).absolute())


def existing_folder(told: str, folder: Path) -> Path:
    """The folder that an absolute path is, or that it would be made in; nothing is written.

    Raises:
        UserError: begins with `told`; a file or a dangling link in its place, or it cannot be looked at.
    """
    with told_as_user_error(folder), suppress(FileNotFoundError, NotADirectoryError):
        folder.lstat()
    there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise UserError(f"{told}: {there} is a file, expected a folder; name another place")
    return there


def _check_folder(told: str, folder: Path) -> None:
    there = existing_folder(told, folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{told}: {there} may not be written by this user; name another place, or grant access"
        )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except FileNotFoundError:  # such as /proc, whose permissions allow root everything
        raise UserError(f"{told}: no file can be made in {there}; name another place") from None


def sha256_of(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _remove_file(path: Path) -> None:
    """Remove what may be there; where nothing may be written, nothing was left to remove."""
    if path.parent.is_dir() and path.exists():
        path.unlink(missing_ok=True)
