"""What a file is that cannot be read as what was expected. Never imports torch."""

from __future__ import annotations

import codecs
import mmap
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

_MARK = "\ufeff"
_PIECE = 1 << 24  # bytes looked through at a time


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


def read_text(path: Path, expected: str = "") -> str:
    """A whole text file, without the byte order mark that it may begin with.

    Args:
        path: the file.
        expected: what it should hold, for the message if it is not there, or a folder.

    Raises:
        UserError: no such file, a folder, not UTF-8, or a byte order mark elsewhere.
    """
    if expected and not path.exists():
        raise UserError(f"{path}: no such file; expected {expected}")
    if expected and path.is_dir():
        raise UserError(f"{path}: a folder; expected a file of {expected}")
    check_input(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    place = text.find(_MARK)
    if place >= 0:
        raise _marked(path, 1 + text.count("\n", 0, place))
    return text


def _check_marks(path: Path) -> None:
    """Refuse a byte order mark anywhere but at the beginning of a file that is too large to read as one text.

    Raises:
        UserError: names the line.
    """
    if path.stat().st_size < 2 * len(codecs.BOM_UTF8):
        return
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(codecs.BOM_UTF8, 1)
        if place >= 0:
            pieces = (content[at : min(at + _PIECE, place)] for at in range(0, place, _PIECE))
            line = 1 + sum(piece.count(b"\n") for piece in pieces)
            raise _marked(path, line)


def _marked(path: Path, line: int) -> UserError:
    """Joined files have such marks within, and nobody sees them."""
    return UserError(
        f"{path}, line {line}: an invisible byte order mark (U+FEFF) within the text, as joining files "
        rf"leaves it; remove it, such as by: sed -i 's/\xEF\xBB\xBF//g' {path}"
    )


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so, with a line or more, is a pickle of any protocol."""
    return _PICKLE.match(head) is not None


def check_text(path: Path) -> None:
    """Refuse what is known to be no text by its first bytes, and byte order marks within text.

    Raises:
        UserError: says what it is instead, or where the mark is.
    """
    with open(path, "rb") as stream:
        first = stream.read(4)
    told = next((told for begin, told in _KINDS if first.startswith(begin)), None)
    if told is not None:
        raise UserError(f"{path}: expected csv as UTF-8 text; this file {told}")
    _check_marks(path)
