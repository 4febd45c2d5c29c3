"""Pickles of plain containers, numpy arrays of numbers, numbers and texts, read without running anything in them.

The interpreter (`acar.pickles`) is that of weights; here numpy's names are known, and torch's are not. Never imports
torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acar.data.input_files import check_input
from acar.errors import UserError
from acar.pickles.arrays import NumberOrTextType, PickledArray, numpy_names
from acar.pickles.interpreter import Machine
from acar.pickles.values import DamagedPickle, RefusedPickle, Source


def load_plain_pickle(path: str | Path) -> Any:
    """The value of a pickle; numpy scalars become Python's own, sets become lists.

    Texts of Python 2 are read as Latin-1.

    Raises:
        UserError: no such file, it is no pickle, or it would call something else than numpy's constructors.
    """
    path = Path(path)
    check_input(path)
    try:
        return _plain(Machine(Source(path.read_bytes()), ALLOWED).run(), {})
    except RefusedPickle as error:
        raise UserError(
            f"{path}: refused: the pickle {error}; only numpy arrays and plain containers are read (anything else "
            "could run code); convert the file to csv where you trust it"
        ) from None
    except (DamagedPickle, RecursionError) as error:
        raise UserError(f"{path}: not a readable pickle ({error}); fetch it again") from None


def _default_dict(*_: Any) -> dict[Any, Any]:
    """Stands for `defaultdict`, whose items follow."""
    return {}


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with plain arrays; containers anew, each once however often it is referred to."""
    if isinstance(value, PickledArray):
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
    found = numpy_names(PickledArray, NumberOrTextType) | {"collections defaultdict": _default_dict}
    for builtins in ("builtins", "__builtin__"):
        # What a defaultdict makes anew: a name, which cannot be called.
        found |= {f"{builtins} {kind}": kind for kind in ("list", "dict", "int", "float")}
    return found


ALLOWED = _allowed()
