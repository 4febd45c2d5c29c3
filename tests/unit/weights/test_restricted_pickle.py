"""Nothing in a weights file is run, and what it would have called is named."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from weights_hostile import HOSTILE, write

from acar.errors import UserError
from acar.pickles.interpreter import Machine
from acar.pickles.values import DamagedPickle, RefusedPickle, Source
from acar.weights.containers import opened
from acar.weights.pickled_tensors import ALLOWED, Array


def run(content: bytes) -> Any:
    return Machine(Source(content), ALLOWED).run()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, name)
    tracemalloc.start()
    with pytest.raises(UserError, match=HOSTILE[name][1]) as error, opened(path) as content:
        content.value["state_dict"]["slow_conv1.weight"].tensor()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(path) in str(error.value)
    assert not (tmp_path / "WITNESS").exists()
    assert peak < 100 << 20


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=20,
)


@given(plain, st.integers(0, 5))
def test_plain_values_come_as_by_pythons_own(value: Any, protocol: int) -> None:
    assert run(pickle.dumps(value, protocol)) == value


@given(plain, st.integers(0, 5), st.data())
def test_a_damaged_pickle_raises_nothing_else(value: Any, protocol: int, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(value, protocol))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        try:
            run(damaged)
        except (DamagedPickle, RefusedPickle):
            continue


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i8", ">i2", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (1, 0, 2)])
def test_arrays_come_back(protocol: int, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(np.random.default_rng(0).uniform(0, 9, shape)).astype(dtype)
    for value in (array, np.array(array, order="F")):
        found = run(pickle.dumps({"a": value}, protocol))["a"]
        assert isinstance(found, Array)
        expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        assert torch.equal(found.tensor(), expected)
        assert found.tensor().shape == shape


def test_pickles_of_python_2_are_read() -> None:
    raw = np.arange(3, dtype="<f4").tobytes()
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n"
    dtype = b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    quoted = "".join(f"\\x{byte:02x}" for byte in raw).encode()
    text = run(head + dtype + b"S'" + quoted + b"'\ntb.")
    assert text.tensor().tolist() == [0.0, 1.0, 2.0]
    binary = run(b"\x80\x02" + head + dtype + b"U" + struct.pack("<B", len(raw)) + raw + b"tb.")
    assert binary.tensor().tolist() == [0.0, 1.0, 2.0]


def test_scalars_sets_and_ordered_dictionaries() -> None:
    value = OrderedDict(a=np.float64(1.5), b={1, 2}, c=frozenset("x"), d=Counter([4, 4]), e=bytearray(b"12"))
    for protocol in range(6):
        found = run(pickle.dumps(value, protocol))
        assert found["a"] == 1.5 and sorted(found["b"]) == [1, 2] and found["c"] == ["x"]
        assert found["d"] == {4: 2} and found["e"] == b"12"


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_back(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "view": base[1:3, ::2],
        "transposed": base.t(),
        "half": base.half(),
        "brain": base.bfloat16(),
        "count": torch.tensor(7),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
        "size": base.shape,
        "dtype": torch.float32,
    }
    torch.save(value, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    with opened(tmp_path / "x") as content:
        assert content.value["size"] == (4, 6) and content.value["dtype"] == "float32"
        for name, expected in value.items():
            if isinstance(expected, torch.Tensor):
                found = content.value[name].tensor()
                assert torch.equal(found, expected.detach()) and found.dtype == expected.dtype, name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_torch_file_is_named(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"w": torch.zeros(999)}}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"x\.pth: .*fetch it again"), opened(path):
        pytest.fail("was read")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><body>please log in</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\x1f\x8b\x08" + b"x" * 30, "unpack it first"),
        (b"\x18\x4b" + b"\x00" * 6 + b'{"a":{"dtype"', "cut off in its header"),
        (b"short", "holds 5 bytes"),
        (b"\x00" * 40, "no pickle"),
        (b"PK\x03\x04" + b"\x00" * 40, "damaged or cut off zip"),
    ],
)
def test_what_is_no_weights_file_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=message), opened(tmp_path / "x"):
        pytest.fail("was read")
