"""What a pickle is read from, and the plain values, marks and refusals that reading it can end in."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from acar.errors import UserError

SCALARS = (str, bytes, int, float, bool, type(None))


class RefusedPickle(UserError):
    """The pickle would call, or refers to, something that its reader has no use for."""


class DamagedPickle(UserError):
    """The bytes are no pickle, or only a part of one."""


class Foreign:
    """A name that the pickle refers to and that is not on the list."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Source:
    """Bytes read from a place onward; slices of `data` (bytes or a mapped file) are copies."""

    def __init__(self, data: Any, place: int = 0) -> None:
        self.data, self.place = data, place

    def take(self, n: int) -> bytes:
        """The next `n` bytes.

        Raises:
            DamagedPickle: there are fewer.
        """
        if n < 0 or n > len(self.data) - self.place:
            raise DamagedPickle(f"cut off: {n} bytes announced at byte {self.place} of {len(self.data)}")
        self.place += n
        return self.data[self.place - n : self.place]

    def line(self) -> bytes:
        """What comes before the next line feed, which is skipped."""
        found = bytearray()
        while len(found) < 1 << 20:
            piece = self.data[self.place : self.place + 256]
            end = piece.find(b"\n")
            found += piece if end < 0 else piece[:end]
            self.place += len(piece) if end < 0 else end + 1
            if end >= 0:
                return bytes(found)
            if not piece:
                break
        raise DamagedPickle(f"cut off: a line has no end at byte {self.place}")

    def number(self, form: str) -> int:
        """An integer in `struct` notation."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])


def key_of(value: Any) -> Any:
    """A dictionary's key, checked: nested tuples could take forever to hash."""
    if not isinstance(value, SCALARS):
        raise RefusedPickle(f"has a {type(value).__name__} as a dictionary's key")
    return value


def pairs(items: Iterable[Any] = ()) -> dict[Any, Any]:
    """Stands for `OrderedDict` and the like: a dict of a mapping or of pairs."""
    listed = list(items.items()) if isinstance(items, dict) else [tuple(pair) for pair in items]
    return {key_of(key): value for key, value in listed}


def scalars(items: Iterable[Any] = ()) -> list[Any]:
    """Stands for `set` and `frozenset`: a list of their elements."""
    return [key_of(item) for item in items]
