"""What stands for torch's own constructors while a pickle of weights is read, beside numpy's (`acar.pickles.arrays`).

No argument of a pickle reaches torch before it is checked: a view must stay inside of its storage and not repeat it.
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

from acar.pickles.arrays import NumberType, PickledArray, numpy_names, sizes_of
from acar.pickles.values import DamagedPickle, RefusedPickle, pairs

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


class Array(PickledArray):
    """A numpy array of numbers."""

    def tensor(self) -> Tensor:
        """A copy in this machine's byte order and in C order."""
        native = self.array.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(self.array, native, order="C"))


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
    sizes, strides = sizes_of(sizes), sizes_of(strides)
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
        (numel,) = sizes_of(numel)
        found = self.storages.setdefault(key, Storage(kind.dtype, key, numel))
        if (found.dtype, found.numel) != (kind.dtype, numel):
            raise RefusedPickle(f"describes storage {key} in two ways")
        return found


def _allowed() -> dict[str, Any]:
    found = numpy_names(Array, NumberType) | {
        "collections Counter": pairs,
        "torch._utils _rebuild_tensor": _tensor,
        "torch._utils _rebuild_tensor_v2": _tensor,
        "torch._utils _rebuild_parameter": _parameter,
        "torch Size": partial(sizes_of),
    }
    found |= {f"torch {name}": StorageType(dtype) for name, dtype in STORAGES.items()}
    dtypes = {str(d).removeprefix("torch."): d for d in STORAGES.values()}
    return found | {f"torch {name}": name for name in dtypes}


ALLOWED = _allowed()
