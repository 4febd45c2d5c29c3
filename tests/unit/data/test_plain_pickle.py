"""Pickles of plain values: what is read, and what is refused without being run."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from acar.data.plain_pickle import load_plain_pickle
from acar.errors import UserError


def load(folder: Path, content: bytes) -> Any:
    path = folder / "file.pkl"
    path.write_bytes(content)
    return load_plain_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_numbers_and_texts_at_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {
        np.str_("a/b"): [np.uint8(200), np.arange(6, dtype=np.uint8).reshape(2, 3)],
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "empty": np.zeros((0, 4), np.float32),
        "big": np.arange(3, dtype=">i4"), "plain": (1, 2.5, None, True, b"xy"),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, b=[2]),
    }  # fmt: skip
    found = load(tmp_path, pickle.dumps(value, protocol))
    assert list(found) == ["a/b", "fortran", "empty", "big", "plain", "ordered", "default"]
    assert found["a/b"][0] == 200 and type(found["a/b"][0]) is int
    for name in ("fortran", "empty", "big"):
        np.testing.assert_array_equal(found[name], value[name])
    assert (
        found["plain"] == value["plain"] and found["ordered"] == {"a": 1} and found["default"] == {"b": [2]}
    )


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """`{'v': np.array([1, 2], 'u1')}` as Python 2 wrote it: the bytes of the array are a `str`."""
    content = (
        b"\x80\x02}U\x01vcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\xfftbs."
    )
    assert load(tmp_path, content)["v"].tolist() == [1, 255]


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Calls(os.system, "touch WITNESS"), r"tries to call (posix|os)\.system\('touch WITNESS'\)"),
        (Calls(eval, "1"), r"tries to call builtins\.eval"),
        (np.array([{}], dtype=object), "expected numbers or text"),
        (np.zeros(1, [("a", "i4")]), "expected numbers or text"),
        (Path("x"), r"tries to call"),
    ],
)
def test_whatever_would_call_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"file\.pkl: refused: .*{told}"):
        load(tmp_path, pickle.dumps({"a": value}))
    assert not (tmp_path / "WITNESS").exists()


def test_references_do_not_multiply(tmp_path: Path) -> None:
    """40 lists, each of the last one twice: 2**40 elements if each were copied."""
    nested: list = []
    for _ in range(40):
        nested = [nested, nested]
    found = load(tmp_path, pickle.dumps(nested))
    assert found[0] is found[1]


HALF = pickle.dumps({"a": np.arange(9)})[:-30]
CYCLE = b"\x80\x02]q\x00h\x00a."  # a list that holds itself


@pytest.mark.parametrize("content", [b"", b"hello", HALF, CYCLE])
def test_no_pickle_or_half_of_one(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"file\.pkl: not a readable pickle"):
        load(tmp_path, content)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_plain_pickle(tmp_path / "none.pkl")


GOOD = pickle.dumps({"a/b": {"numf": np.uint8(3), "boxes": np.ones((2, 4), np.uint16)}}, 3)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_never_ends_in_a_trace(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    changed = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    try:
        load(tmp_path_factory.getbasetemp(), changed)
    except UserError as error:
        assert "file.pkl" in str(error)


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=2, min_side=0)), st.integers(0, 5))
def test_any_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int
) -> None:
    found = load(tmp_path_factory.getbasetemp(), pickle.dumps(array, protocol))
    assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
