"""What is inside of a weights file, whatever its name: safetensors, torch's two forms, or a plain pickle."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from acar.errors import UserError
from acar.pickles.interpreter import Machine
from acar.pickles.values import DamagedPickle, RefusedPickle, Source
from acar.weights.pickled_tensors import ALLOWED, Array, StorageTable, TensorView

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
LARGEST_PICKLE_IN_ZIP = 256 << 20  # of names and shapes; the numbers lie beside it


@dataclass(frozen=True)
class Ready:
    """A tensor that is in memory; the like of `Array` and `TensorView`."""

    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.value.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of its numbers."""
        return self.value.numel() * self.value.element_size()

    def tensor(self) -> Tensor:
        """The tensor."""
        return self.value


Numbers = Array | TensorView | Ready


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        form: e.g. "torch zip file".
        value: nested dicts and lists of plain values and of `Numbers`; the file must stay open to read those.
    """

    form: str
    value: Any


@contextmanager
def opened(path: str | Path) -> Iterator[Content]:
    """Read a weights file without running anything in it.

    Raises:
        UserError: absent, cut off, of no known form, or a pickle that would call something.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    if path.stat().st_size < 9:
        raise UserError(f"{path}: holds {path.stat().st_size} bytes; a download that failed?")
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            content = _read(path, data)
            yield content
        except RefusedPickle as error:
            raise UserError(
                f"{path}: refused, nothing of it was run: the pickle in it {error}, and weights need only "
                "tensors, arrays and plain containers"
            ) from None
        except DamagedPickle as error:
            raise UserError(f"{path}: {error}; fetch it again") from None


def _read(path: Path, data: mmap.mmap) -> Content:
    begin = data[:512]
    length = int.from_bytes(begin[:8], "little")
    if begin[:4] == b"PK\x03\x04":
        return _torch_zip(path)
    if begin[8:9] == b"{" and 8 + length <= len(data):
        return _safetensors(path)
    if begin[8:10] == b'{"' and not any(begin[4:8]):
        raise UserError(f"{path}: a safetensors file that is cut off in its header; fetch or copy it again")
    for mark, what in (
        (b"<", "a web page, not weights: the link asks for a login or has moved"),
        (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for: run `git lfs pull`"),
        (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    ):
        if begin.lstrip()[: len(mark)] == mark:
            raise UserError(f"{path}: {what}")
    if begin[257:262] == b"ustar":
        raise UserError(f"{path}: a tar archive: unpack it first (torch before 0.1.10 wrote such files, too)")
    return _pickle(data)


def _safetensors(path: Path) -> Content:
    try:
        return Content("safetensors", {name: Ready(value) for name, value in load_file(path).items()})
    except SafetensorError as error:
        raise UserError(f"{path}: damaged safetensors file ({error})") from None


def _torch_zip(path: Path) -> Content:
    try:
        archive = zipfile.ZipFile(path)
        names = [info.filename for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged or cut off zip file ({error}); fetch it again") from None
    if len(names) != 1:
        raise UserError(f"{path}: a zip file without torch's data.pkl: no weights that torch has saved")
    root = names[0].removesuffix("data.pkl")
    table = StorageTable()
    order = root + "byteorder"
    if order in archive.namelist() and _entry(path, archive, order, 16) != b"little":
        raise UserError(f"{path}: written on a big-endian machine; save it again on another")
    pickled = _entry(path, archive, names[0], LARGEST_PICKLE_IN_ZIP)
    value = Machine(Source(pickled), ALLOWED, table).run()
    for storage in table.storages.values():
        storage.read = partial(_entry, path, archive, f"{root}data/{storage.key}", storage.n_bytes)
    return Content("torch zip file", value)


def _entry(path: Path, archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of an entry, which must lie in the file as they are: torch does not compress."""
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > max(most, 1):
            raise RefusedPickle(f"has an entry {name} that is compressed or longer than {most} bytes")
        return archive.read(info)
    except KeyError:
        raise UserError(f"{path}: {name} is not in it; damaged, fetch it again") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: {name} is damaged ({error}); fetch it again") from None


def _pickle(data: mmap.mmap) -> Content:
    source = Source(data)
    table = StorageTable()
    value = Machine(source, ALLOWED).run()
    if value != TORCH_MAGIC or isinstance(value, bool):
        return Content("plain pickle", value)
    if Machine(source, ALLOWED).run() != TORCH_PROTOCOL:
        raise DamagedPickle("of another version of torch's old form")
    if Machine(source, ALLOWED).run().get("little_endian") is not True:
        raise DamagedPickle("written on a big-endian machine")
    value = Machine(source, ALLOWED, table).run()
    keys = Machine(source, ALLOWED).run()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(table.storages):
        raise DamagedPickle("its list of storages is not that of its tensors")
    for key in keys:
        storage = table.storages[key]
        numel = source.number("<q")
        if numel != storage.numel:
            raise DamagedPickle(f"storage {key} holds {numel} numbers, expected {storage.numel}")
        begin = source.place
        if begin + storage.n_bytes > len(data):
            raise DamagedPickle(f"cut off: storage {key} ends behind the file")
        source.place = begin + storage.n_bytes
        storage.read = partial(_slice, source, begin, storage.n_bytes)
    return Content("torch file of the old form", value)


def _slice(source: Source, begin: int, n: int) -> bytes:
    return source.data[begin : begin + n]
