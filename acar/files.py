"""Atomic writes: whatever is killed, a final name holds either nothing or the whole.

What the disk refuses (no space, no permission) is raised as a `UserError` that names the final file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acar.disk_errors import told_as_user_error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed to disk and renamed onto `path`.

    Raises:
        UserError: the disk is full or refuses the write; `path` is as it was before.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    with told_as_user_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        finally:
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
    write_text_atomic(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


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
