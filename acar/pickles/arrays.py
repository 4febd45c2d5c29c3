"""What stands for numpy's own constructors while a pickle is read (`acar.pickles.interpreter`). Never imports torch.

No argument of a pickle reaches numpy before it is checked: a type is one of a short list, and a shape must account
for exactly the bytes that are there.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from acar.pickles.values import DamagedPickle, RefusedPickle, pairs, scalars

MOST_DIMENSIONS = 32
MOST_LETTERS = 10_000  # of a numpy text
NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


class NumberType:
    """A numpy type of numbers, in the making."""

    expected = "numbers"

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin-1")
        if not isinstance(code, str):  # shown by its kind alone: it may hold itself, or take forever to print
            raise RefusedPickle(f"has a numpy type that is a {type(code).__name__}, expected {self.expected}")
        bare = code.lstrip("<>=|")
        if not self.takes(bare):
            objects = " of Python objects" if bare[:1] == "O" else ""
            raise RefusedPickle(f"has a numpy array{objects} of type {code[:8]!r}, expected {self.expected}")
        self.dtype = np.dtype(code)

    def takes(self, bare: str) -> bool:
        """Whether a type is read, by numpy's code without the byte order."""
        return bare in NUMBERS

    def build(self, state: Any) -> None:
        """Take the byte order; all else is of structured types."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise RefusedPickle("has a structured numpy type")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise RefusedPickle("has a numpy type of unknown byte order")
        if order == ">":
            self.dtype = self.dtype.newbyteorder(">")


class NumberOrTextType(NumberType):
    """A numpy type of numbers or of text, in the making."""

    expected = "numbers or text"

    def takes(self, bare: str) -> bool:
        """Whether a type is read; texts are of a bounded length."""
        length = bare[1:]
        is_text = bare[:1] in ("U", "S") and length.isascii() and length.isdigit() and len(length) <= 5
        return super().takes(bare) or (is_text and int(length) <= MOST_LETTERS)


class PickledArray:
    """A numpy array, in the making; empty until its state is set.

    Attributes:
        array: read-only where it has any content.
    """

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0, np.float32)

    def build(self, state: Any) -> None:
        """Take (version, shape, type, in Fortran order?, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedPickle("has a numpy array with a state of another form")
        _, shape, dtype, fortran, data = state
        self.array = _filled(data, dtype, shape, "F" if fortran else "C")

    @classmethod
    def of_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any = "C") -> Self:
        """Stands for numpy's `_frombuffer` (pickle protocol 5)."""
        made = cls()
        made.array = _filled(data, dtype, shape, order)
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    @property
    def n_bytes(self) -> int:
        """Bytes of its elements."""
        return self.array.nbytes


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, NumberType):
        raise RefusedPickle("has a numpy array without a type of numbers")
    raw, sizes = _bytes(data), sizes_of(shape)
    if math.prod(sizes) * dtype.dtype.itemsize != len(raw):
        raise DamagedPickle(
            f"has an array of shape {sizes} and type {dtype.dtype}, but {len(raw)} bytes for it"
        )
    return np.frombuffer(raw, dtype.dtype).reshape(sizes, order="F" if order == "F" else "C")


def sizes_of(shape: Any) -> tuple[int, ...]:
    """A shape, checked: at most 32 whole numbers, none negative.

    Raises:
        RefusedPickle: it is something else.
    """
    listed = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if len(listed) > MOST_DIMENSIONS or any(type(n) is not int or not 0 <= n < 1 << 62 for n in listed):
        raise RefusedPickle("has an array of an impossible shape")
    return listed


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Stands for numpy's constructor of a single number or text."""
    return _filled(data, dtype, (), "C").item()


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):  # of Python 2, read as Latin-1
        return data.encode("latin-1")
    if not isinstance(data, bytes):
        raise RefusedPickle(f"has an array whose content is a {type(data).__name__}, not bytes")
    return data


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise RefusedPickle("encodes text otherwise than as Latin-1")
    return text.encode("latin-1")


def _bytearray(data: Any = b"", coding: Any = "latin1") -> bytes:
    """Stands for `bytes` and `bytearray`; without arguments how protocols 0 to 2 write empty content."""
    return _bytes(data) if coding == "latin1" else _encode(data, coding)


def numpy_names(array: type[PickledArray], dtype: type[NumberType]) -> dict[str, Any]:
    """What stands for numpy's names, and for those of the plain containers about its arrays.

    Args:
        array: makes the arrays.
        dtype: says of which types they may be.
    """
    found: dict[str, Any] = {
        "numpy ndarray": array,
        "numpy dtype": dtype,
        "_codecs encode": _encode,
        "collections OrderedDict": pairs,
    }
    for builtins in ("builtins", "__builtin__"):
        found |= {f"{builtins} {kind}": scalars for kind in ("set", "frozenset")}
        found |= {f"{builtins} {kind}": _bytearray for kind in ("bytes", "bytearray")}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray _reconstruct"] = array
        found[f"{core}.multiarray scalar"] = _scalar
        found[f"{core}.numeric _frombuffer"] = array.of_buffer
    return found
