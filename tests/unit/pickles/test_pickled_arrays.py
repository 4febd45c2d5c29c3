"""Arrays in pickles: which types are read, that no argument reaches numpy unchecked, and that torch stays away."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from acar.pickles.arrays import NumberOrTextType, NumberType, PickledArray, numpy_names
from acar.pickles.interpreter import Machine
from acar.pickles.values import DamagedPickle, RefusedPickle, Source


def run(content: bytes, dtype: type[NumberType] = NumberOrTextType) -> Any:
    return Machine(Source(content), numpy_names(PickledArray, dtype)).run()


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, acar.pickles.interpreter, acar.pickles.arrays, acar.data.plain_pickle\n"
    code += "print([name for name in ('torch', 'acar.weights') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@given(
    arrays.arrays(arrays.array_dtypes() | arrays.unicode_string_dtypes() | arrays.scalar_dtypes(), 3),
    st.integers(0, 5),
)
def test_an_array_comes_back_or_is_refused(array: np.ndarray, protocol: int) -> None:
    code = array.dtype.str[1:]
    is_number = code in ("b1", "f2", "f4", "f8") or (code[0] in "iu" and code[1:] in "1248")
    content = pickle.dumps(array, protocol)
    for dtype, is_read in ((NumberType, is_number), (NumberOrTextType, is_number or code[0] in "US")):
        if is_read:
            found = run(content, dtype).array
            assert found.shape == array.shape and found.tobytes() == array.tobytes()
            assert found.dtype == array.dtype
        else:
            with pytest.raises(RefusedPickle):
                run(content, dtype)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.array([{}], object), "a numpy array of Python objects of type 'O8', expected numbers$"),
        (np.array(["a"]), "a numpy array of type 'U1', expected numbers$"),
        (np.zeros(1, "c16"), "a numpy array of type 'c16', expected numbers$"),
        (np.zeros(1, "f4,f4"), "a numpy array of type 'V8', expected numbers$"),
    ],
)
def test_other_types_are_named(value: np.ndarray, told: str) -> None:
    with pytest.raises(RefusedPickle, match=told):
        run(pickle.dumps(value), NumberType)


def test_a_type_that_is_no_text_is_not_printed() -> None:
    """A code of 2**200 leaves, which would take forever to show."""
    nested = b"cnumpy\ndtype\n" + b")" + b"2\x86" * 200 + b"\x85R."
    with pytest.raises(RefusedPickle, match=r"a numpy type that is a tuple, expected numbers or text"):
        run(b"\x80\x02" + nested)


STATE = (1, (3,), np.dtype("f4"), False, b"\x00" * 12)


def state_with(**changed: Any) -> bytes:
    """An array whose state is altered, by name of its part."""
    parts = dict(zip(("version", "shape", "dtype", "fortran", "data"), STATE, strict=True))
    stem = pickle.dumps(np.zeros(0), 2)
    made = pickle.dumps(tuple((parts | changed).values()), 2)
    return stem[: stem.index(b"(K\x01")] + made[2:-1] + b"b."


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"shape": (4,)}, DamagedPickle, r"shape \(4,\) and type float32, but 12 bytes"),
        ({"shape": (-3,)}, RefusedPickle, "impossible shape"),
        ({"shape": (3.0,)}, RefusedPickle, "impossible shape"),
        ({"shape": (1,) * 33}, RefusedPickle, "impossible shape"),
        ({"shape": (1 << 62,)}, RefusedPickle, "impossible shape"),
        ({"dtype": "f4"}, RefusedPickle, "without a type"),
        ({"data": [0, 0, 0]}, RefusedPickle, "content is a list, not bytes"),
    ],
)
def test_states_that_do_not_fit(changed: dict[str, Any], error: type[Exception], told: str) -> None:
    np.testing.assert_array_equal(run(state_with()).array, np.zeros(3, np.float32))
    with pytest.raises(error, match=told):
        run(state_with(**changed))


@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("ä"), np.bytes_(b"x")]
)
@pytest.mark.parametrize("protocol", range(6))
def test_scalars_are_pythons_own(value: Any, protocol: int) -> None:
    found = run(pickle.dumps(value, protocol))
    assert found == value.item() and type(found) is type(value.item())


def test_long_texts_are_refused() -> None:
    run(pickle.dumps(np.array(["a" * 10_000])))
    with pytest.raises(RefusedPickle, match="type 'U10001'"):
        run(pickle.dumps(np.array(["a" * 10_001])))
