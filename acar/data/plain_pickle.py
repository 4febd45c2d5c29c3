"""Pickles of plain containers, numpy arrays of numbers, numbers and texts, read without running anything in them.

The interpreter is that of weights (`acar.weights.restricted_pickle`); here numpy's names are known, and torch's are
not. Never imports torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from acar.errors import UserError
from acar.weights.pickle_values import DamagedPickle, RefusedPickle, Source, pairs, scalars
from acar.weights.restricted_pickle import Machine

MOST_DIMENSIONS = 32
MOST_LETTERS = 10_000  # of a numpy text
NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


def load_plain_pickle(path: str | Path) -> Any:
    """The value of a pickle; numpy scalars become Python's own, sets become lists.

    Texts of Python 2 are read as Latin-1.

    Raises:
        UserError: no such file, it is no pickle, or it would call something else than numpy's constructors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return _plain(Machine(Source(path.read_bytes()), ALLOWED).run(), {})
    except RefusedPickle as error:
        raise UserError(
            f"{path}: refused: the pickle {error}; only numpy arrays and plain containers are read (anything else "
            "could run code); convert the file to csv where you trust it"
        ) from None
    except (DamagedPickle, RecursionError) as error:
        raise UserError(f"{path}: not a readable pickle ({error}); fetch it again") from None


class _DType:
    """A numpy type of numbers or text, in the making."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        bare = code.lstrip("<>=|") if isinstance(code, str) else ""
        is_text = bare[:1] in ("U", "S") and bare[1:].isdigit() and int(bare[1:]) <= MOST_LETTERS
        if bare not in NUMBERS and not is_text:
            raise RefusedPickle(f"has a numpy array of {str(code)[:8]!r}, expected numbers or text")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order; all else is of structured types."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise RefusedPickle("has a structured numpy type")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise RefusedPickle("has a numpy type of unknown byte order")
        if order == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """A numpy array, in the making; empty until its state is set."""

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0)

    def build(self, state: Any) -> None:
        """Take (version, shape, type, in Fortran order?, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedPickle("has a numpy array with a state of another form")
        self.array = _filled(state[4], state[2], state[1], "F" if state[3] else "C")


def _of_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    """Stands for numpy's `_frombuffer` (pickle protocol 5)."""
    made = _Array()
    made.array = _filled(data, dtype, shape, "F" if order == "F" else "C")
    return made


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Stands for numpy's constructor of a single number or text."""
    return _filled(data, dtype, (), "C").item()


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise RefusedPickle("has a numpy array without a type of numbers")
    raw = data.encode("latin-1") if isinstance(data, str) else data  # of Python 2
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not isinstance(raw, bytes) or len(sizes) > MOST_DIMENSIONS:
        raise RefusedPickle("has a numpy array whose content or shape is none")
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in sizes):
        raise RefusedPickle("has a numpy array of an impossible shape")
    if math.prod(sizes) * dtype.dtype.itemsize != len(raw):
        raise DamagedPickle(f"an array of shape {sizes} and type {dtype.dtype} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(sizes, order=order)


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise RefusedPickle("encodes text otherwise than as Latin-1")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """How protocols 0 to 2 write the content of an empty array."""
    return b""


def _default_dict(*_: Any) -> dict[Any, Any]:
    """Stands for `defaultdict`, whose items follow."""
    return {}


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with arrays in place of `_Array`; containers anew, each once however often it is referred to."""
    if isinstance(value, _Array):
        return value.array
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)([_plain(item, done) for item in value])
    return done[id(value)]


def _allowed() -> dict[str, Any]:
    found: dict[str, Any] = {
        "numpy ndarray": _Array,
        "numpy dtype": _DType,
        "_codecs encode": _encode,
        "collections OrderedDict": pairs,
        "collections defaultdict": _default_dict,
    }
    for builtins in ("builtins", "__builtin__"):
        found |= {f"{builtins} {kind}": scalars for kind in ("set", "frozenset")}
        found |= {f"{builtins} bytes": _no_bytes}
        # What a defaultdict makes anew: a name, which cannot be called.
        found |= {f"{builtins} {kind}": kind for kind in ("list", "dict", "int", "float")}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray _reconstruct"] = _Array
        found[f"{core}.multiarray scalar"] = _scalar
        found[f"{core}.numeric _frombuffer"] = _of_buffer
    return found


ALLOWED = _allowed()
