"""Pickles that would do something else than hold weights. Each would leave the file `WITNESS` behind if run."""

from __future__ import annotations

import functools
import io
import operator
import os
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def of(value: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({"blobs": {"conv1_w": value}}, protocol=protocol)


def evil_array() -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = Calls(os.system, "touch WITNESS")
    return array


def state_of_a_class() -> bytes:
    """BUILD on a class itself, to put an attribute of its own there."""
    return b"\x80\x02cnumpy\nndarray\n}X\x05\x00\x00\x00shapeK\x01sb."


def evil_torch_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"slow_conv1.weight": torch.zeros(2)}}, buffer)
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("data.pkl"):
                data = of(Calls(os.system, "touch WITNESS"))
            new.writestr(info.filename, data)
    return out.getvalue()


def evil_torch_legacy() -> bytes:
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + of(Calls(subprocess.check_output, ["touch", "WITNESS"])) + pickle.dumps([], 2)


def overlong_view() -> bytes:
    """A tensor of 2**40 numbers on a storage of one: stride 0."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"slow_conv1.weight": torch.zeros(1).expand(2**40)}}, buffer)
    return buffer.getvalue()


def huge_shape() -> bytes:
    """An array of 2**60 numbers whose bytes are not there."""
    content = of(np.zeros((3, 5), np.float32), protocol=2)
    small, huge = b"K\x03K\x05\x86", b"\x8a\x08" + struct.pack("<q", 2**55) + b"K\x05\x86"
    assert small in content
    return content.replace(small, huge)


def nested_keys() -> bytes:
    """A dictionary's key of 2**200 leaves: hashing it would not end."""
    return b"\x80\x02}(" + b")" + b"2\x86" * 200 + b"K\x01u."


def many_copies() -> bytes:
    """One string of a mebibyte, turned to bytes a hundred thousand times."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    once = b"h\x00h\x01\x85R0"
    return b"\x80\x02c_codecs\nencode\nq\x00" + text + b"q\x01" + once * 100_000 + b"."


def name_by_parts() -> bytes:
    """A dotted name of protocol 4: what Python would look up by `getattr` upon `getattr`."""
    names = b"".join(b"\x8c" + bytes([len(n)]) + n for n in (b"collections", b"abc.sys.modules"))
    return b"\x80\x04" + names + b"\x93)R."


def extension_code() -> bytes:
    return b"\x80\x02N0N0N0\x82\x01)R."


HOSTILE: dict[str, tuple[Any, str]] = {
    "os.system": (lambda: of(Calls(os.system, "touch WITNESS")), r"posix\.system\('touch WITNESS'\)"),
    "eval by getattr": (
        lambda: of(Calls(getattr, Calls(__import__, "builtins"), "eval")),
        r"__import__\('builtins'\)",
    ),
    "getattr itself": (lambda: of(Calls(getattr, "x", "upper")), r"getattr\('x', 'upper'\)"),
    "exec by text": (
        lambda: b"cbuiltins\nexec\n(S'open(\"WITNESS\", \"w\")'\ntR.",
        r"builtins\.exec\('open",
    ),
    "nested global": (lambda: b"\x80\x02cos\nsystem\n(cposix\nsystem\nX\x01\x00\x00\x00xtR.", r"os\.system"),
    "partial": (lambda: of(Calls(functools.partial, os.system, "touch WITNESS"), 4), r"functools\.partial\("),
    "operator": (
        lambda: of(Calls(operator.methodcaller, "system", "touch WITNESS")), r"operator\.methodcaller",
    ),
    "attrgetter": (lambda: of(Calls(operator.attrgetter, "system")), r"operator\.attrgetter\('system'\)"),
    "array of objects": (lambda: of(evil_array()), r"numpy array of Python objects"),
    "INST": (lambda: b"(S'touch WITNESS'\nios\nsystem\n.", r"os\.system\('touch WITNESS'\)"),
    "OBJ": (lambda: b"(cos\nsystem\nS'touch WITNESS'\no.", r"os\.system\('touch WITNESS'\)"),
    "NEWOBJ": (
        lambda: b"\x80\x02csubprocess\nPopen\nX\x05\x00\x00\x00touch\x85\x81.",
        r"subprocess\.Popen\('touch'\)",
    ),
    "BUILD of a class": (state_of_a_class, r"tries to set the state of a type"),
    "BUILD of a foreign one": (lambda: b"cbuiltins\nprint\n}b.", r"set the state of builtins\.print"),
    "only named": (lambda: b"\x80\x02cos\nsystem\n.", r"refers to os\.system"),
    "numpy's own loader": (lambda: of(Calls(np.load, "x.npy")), r"numpy\.load\('x.npy'\)"),
    "torch.load": (lambda: of(Calls(torch.load, "x.pt")), r"torch\.serialization\.load\('x.pt'\)"),
    "dotted name": (name_by_parts, r"collections\.abc\.sys\.modules"),
    "extension code": (extension_code, r"extension code \(1\)"),
    "torch zip": (evil_torch_zip, r"posix\.system\('touch WITNESS'\)"),
    "torch legacy": (evil_torch_legacy, r"check_output\(\['touch', 'WITNESS'\]\)"),
    "huge view": (overlong_view, r"which it exceeds"),
    "huge shape": (huge_shape, r"but 60 bytes for it"),
    "endless key": (nested_keys, r"has a tuple as a dictionary's key"),
    "copies": (many_copies, r"copies its content over and over"),
    "persistent id": (lambda: b"\x80\x02X\x01\x00\x00\x00xQ.", r"refers to something outside of the file: 'x'"),
}  # fmt: skip


def write(folder: Path, name: str) -> Path:
    path = folder / "weights.pkl"
    path.write_bytes(HOSTILE[name][0]())
    return path
