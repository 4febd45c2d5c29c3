"""Atomic writes: whatever is killed, a final name holds either nothing or the whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed to disk and renamed onto `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, then rename."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write indented JSON (NaN refused) under a temporary name, then rename."""
    write_text_atomic(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def finished_folder(final: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`; on success it takes the place of `final`."""
    final = Path(final)
    temporary = final.parent / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    replace_folder(temporary, final)


def replace_folder(source: Path, final: Path) -> None:
    """Rename `source` onto `final`, removing what was there."""
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
