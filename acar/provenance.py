"""Digests that tell what an artefact came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from acar.files import sha256_of


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value or config section; independent of key order."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """One digest of several files' bytes, in the order given (names do not count)."""
    return digest_of([sha256_of(path) for path in paths])


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no digest of a {type(value).__name__}")
