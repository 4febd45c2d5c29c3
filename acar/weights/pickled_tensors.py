"""What stands for numpy's and torch's own constructors while a pickle is read (`restricted_pickle`).

No argument of a pickle reaches numpy or torch before it is checked: a shape must account for exactly the bytes
that are there, a view must stay inside of its storage and not repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acar.weights.pickle_values import DamagedPickle, RefusedPickle, pairs, scalars

MOST_DIMENSIONS = 32
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class DType:
    """A numpy type of numbers, in the making."""

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin-1")
        if not isinstance(code, str) or len(code) > 4:
            raise RefusedPickle("has a numpy type that is no type of numbers")
        if code.lstrip("<>=|")[:1] == "O":
            raise RefusedPickle("has a numpy array of Python objects")
        if code.lstrip("<>=|") not in {
            "b1",
            "i1",
            "i2",
            "i4",
            "i8",
            "u1",
            "u2",
            "u4",
            "u8",
            "f2",
            "f4",
            "f8",
        }:
            raise RefusedPickle(f"has a numpy array of {code[:8]!r}, expected numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order; all else is of structured types."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise RefusedPickle("has a structured numpy type")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order == ">":
            self.dtype = self.dtype.newbyteorder(">")
        elif order not in ("<", "=", "|"):
            raise RefusedPickle("has a numpy type of unknown byte order")


class Array:
    """A numpy array of numbers, in the making; empty until its state is set."""

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0, np.float32)

    def build(self, state: Any) -> None:
        """Take (version, shape, type, in Fortran order?, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedPickle("has a numpy array with a state of another form")
        _, shape, dtype, fortran, data = state
        self._fill(data, dtype, shape, "F" if fortran else "C")

    def _fill(self, data: Any, dtype: Any, shape: Any, order: str) -> None:
        if not isinstance(dtype, DType):
            raise RefusedPickle("has a numpy array without a type of numbers")
        raw = _bytes(data)
        sizes = _sizes(shape)
        if math.prod(sizes) * dtype.dtype.itemsize != len(raw):
            raise DamagedPickle(
                f"has an array of shape {sizes} and type {dtype.dtype}, but {len(raw)} bytes for it"
            )
        flat = np.frombuffer(raw, dtype.dtype)
        self.array = flat.reshape(sizes, order="F" if order == "F" else "C")

    @classmethod
    def of_buffer(cls, data: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
        """Stands for numpy's `_frombuffer` (pickle protocol 5)."""
        made = cls()
        made._fill(data, dtype, shape, order)
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    @property
    def n_bytes(self) -> int:
        """Bytes of its numbers."""
        return self.array.nbytes

    def tensor(self) -> Tensor:
        """A copy in this machine's byte order and in C order."""
        native = self.array.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(self.array, native, order="C"))


def _scalar(dtype: Any, data: Any = None) -> float | int | bool:
    """Stands for numpy's constructor of a single number."""
    return Array.of_buffer(data, dtype, ()).array.item()


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):  # of Python 2, read as Latin-1
        return data.encode("latin-1")
    if not isinstance(data, bytes):
        raise RefusedPickle(f"has an array whose content is a {type(data).__name__}, not bytes")
    return data


def _sizes(shape: Any) -> tuple[int, ...]:
    listed = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if len(listed) > MOST_DIMENSIONS or any(type(n) is not int or not 0 <= n < 1 << 62 for n in listed):
        raise RefusedPickle("has an array of an impossible shape")
    return listed


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise RefusedPickle("encodes text otherwise than as Latin-1")
    return text.encode("latin-1")


@dataclass(frozen=True)
class StorageType:
    """A torch storage's type of numbers."""

    dtype: torch.dtype


@dataclass
class Storage:
    """A torch storage of the file.

    Attributes:
        dtype: of its numbers.
        key: its name in the file.
        numel: how many numbers.
        read: its bytes; set by whoever knows the file's form.
    """

    dtype: torch.dtype
    key: str
    numel: int
    read: Callable[[], bytes] | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of its numbers."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class TensorView:
    """A torch tensor of the file: a view of a storage, checked."""

    storage: Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.sizes

    @property
    def n_bytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.sizes) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """A copy in C order.

        Raises:
            DamagedPickle: the file holds more or fewer bytes for the storage.
        """
        raw = self.storage.read() if self.storage.read is not None else b""
        if len(raw) != self.storage.n_bytes:
            raise DamagedPickle(
                f"storage {self.storage.key} holds {len(raw)} bytes, expected {self.storage.n_bytes}"
            )
        if not raw:
            return torch.empty(self.sizes, dtype=self.storage.dtype)
        flat = torch.frombuffer(bytearray(raw), dtype=self.storage.dtype)
        return flat.as_strided(self.sizes, self.strides, self.offset).clone(
            memory_format=torch.contiguous_format
        )


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> TensorView:
    """Stands for torch's `_rebuild_tensor` and `_rebuild_tensor_v2`."""
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise RefusedPickle("has a tensor without a storage")
    sizes, strides = _sizes(sizes), _sizes(strides)
    if len(sizes) != len(strides):
        raise RefusedPickle("has a tensor with more sizes than strides")
    n = math.prod(sizes)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides)) if n else offset - 1
    if last >= storage.numel or n > storage.numel:
        raise RefusedPickle(
            f"has a tensor of shape {sizes} on a storage of {storage.numel} numbers, which it exceeds"
        )
    return TensorView(storage, offset, sizes, strides)


def _parameter(data: Any, *_: Any) -> TensorView:
    """Stands for torch's `_rebuild_parameter`."""
    if not isinstance(data, TensorView):
        raise RefusedPickle("has a parameter that is no tensor")
    return data


class StorageTable:
    """The storages that a torch pickle refers to, by key; called with a persistent id."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}

    def __call__(self, name: Any) -> Storage:
        """The storage of ('storage', type, key, place, number of elements, maybe a view).

        Raises:
            RefusedPickle: a persistent id of another form.
        """
        form = tuple(name) if isinstance(name, tuple) else ()
        if len(form) not in (5, 6) or form[0] != "storage" or (len(form) == 6 and form[5] is not None):
            kind = form[0] if form and isinstance(form[0], str) else type(name).__name__
            raise RefusedPickle(f"refers to a {kind[:40]} outside of the pickle; expected plain storages")
        _, kind, key, _, numel = form[:5]
        if not isinstance(kind, StorageType) or not isinstance(key, str):
            raise RefusedPickle("has a storage of unknown type")
        (numel,) = _sizes(numel)
        found = self.storages.setdefault(key, Storage(kind.dtype, key, numel))
        if (found.dtype, found.numel) != (kind.dtype, numel):
            raise RefusedPickle(f"describes storage {key} in two ways")
        return found


def _bytearray(data: Any = b"", coding: Any = "latin1") -> bytes:
    return _bytes(data) if coding == "latin1" else _encode(data, coding)


def _allowed() -> dict[str, Any]:
    found: dict[str, Any] = {
        "numpy ndarray": Array,
        "numpy dtype": DType,
        "_codecs encode": _encode,
        "collections OrderedDict": pairs,
        "collections Counter": pairs,
        "torch._utils _rebuild_tensor": _tensor,
        "torch._utils _rebuild_tensor_v2": _tensor,
        "torch._utils _rebuild_parameter": _parameter,
        "torch Size": partial(_sizes),
    }
    for builtins in ("builtins", "__builtin__"):
        found |= {f"{builtins} {kind}": scalars for kind in ("set", "frozenset")}
        found |= {f"{builtins} {kind}": _bytearray for kind in ("bytes", "bytearray")}
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray _reconstruct"] = Array
        found[f"{core}.multiarray scalar"] = _scalar
        found[f"{core}.numeric _frombuffer"] = Array.of_buffer
    found |= {f"torch {name}": StorageType(dtype) for name, dtype in STORAGES.items()}
    dtypes = {str(d).removeprefix("torch."): d for d in STORAGES.values()}
    return found | {f"torch {name}": name for name in dtypes}


ALLOWED = _allowed()
