"""What a file is that cannot be read as what was expected. Never imports torch."""

from __future__ import annotations

import re
from pathlib import Path

from acar.errors import UserError

# Protocol 2 and later begin with a byte of their own; the older two with a dictionary, a list or a tuple of them.
_PICKLE = re.compile(rb"\x80[\x00-\x05]|\([dl(\]}]|[\]}]q|c[\w.]+\n")
_KINDS = (
    (b"\x1f\x8b", "is compressed with gzip; unpack it with gunzip"),
    (b"PK\x03\x04", "is a zip file (or a spreadsheet); unpack it, or save it as csv"),
    (b"PAR1", "is a parquet table; write it as csv"),
    (b"\x80", "is a pickle; `acar convert-annotations` writes csv from those of docs/data.md"),
    (b"\xff\xfe", "is UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; save it as UTF-8"),
)


def check_input(path: Path) -> None:
    """Refuse what is no plain file.

    Raises:
        UserError: no such file, a folder, or a pipe or device.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a file")
    if path.exists():
        raise UserError(
            f"{path}: a pipe or device, which cannot be read twice; write what it holds to a file and name that"
        )
    raise UserError(f"{path}: no such file")


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so, with a line or more, is a pickle of any protocol."""
    return _PICKLE.match(head) is not None


def check_text(path: Path) -> None:
    """Refuse what is known to be no text by its first bytes.

    Raises:
        UserError: says what it is instead.
    """
    with open(path, "rb") as stream:
        first = stream.read(4)
    told = next((told for begin, told in _KINDS if first.startswith(begin)), None)
    if told is not None:
        raise UserError(f"{path}: expected csv as UTF-8 text; this file {told}")
