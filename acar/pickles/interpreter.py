"""An interpreter of pickles that can make plain values and what it is handed by name, and nothing else.

Python's own unpickler looks names up in modules and calls what it finds; overriding `find_class` leaves it
open to big memo indices, extension codes and state setters. Here no opcode imports, and a call is a look-up in
a table of our own functions. A name outside of that table becomes a `Foreign` mark, so that the refusal can
say what would have been called with which arguments. Never imports torch.
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Callable, Mapping
from typing import Any

from acar.errors import UserError
from acar.pickles.values import DamagedPickle, Foreign, RefusedPickle, Source, key_of, scalars

HIGHEST_PROTOCOL = 5
MOST_COPIES = 16  # of the file's own bytes

_short = reprlib.Repr()
_short.maxlevel, _short.maxtuple, _short.maxlist, _short.maxdict = 2, 4, 4, 4
_short.maxstring = _short.maxother = 60


class Machine:
    """Runs one pickle.

    Args:
        source: where the pickle begins; stands behind its last byte afterwards.
        allowed: `module name` to a function of ours that stands for it, or to a value.
        persistent: turns a persistent id into a value; None refuses them.
    """

    def __init__(
        self,
        source: Source,
        allowed: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.source, self.allowed, self.persistent = source, allowed, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the marks
        self.memo: dict[int, Any] = {}
        self.foreign: list[Foreign] = []
        self.budget = MOST_COPIES * len(source.data) + (1 << 20)

    def run(self) -> Any:
        """The pickled value.

        Raises:
            RefusedPickle: it would call something that is not on the list.
            DamagedPickle: it is cut off or no pickle.
        """
        try:
            while True:
                code = self.source.take(1)
                if code == b".":
                    break
                step = STEPS.get(code)
                if step is None:
                    raise DamagedPickle(
                        f"no pickle: byte {code!r} at {self.source.place - 1} is no instruction"
                    )
                step(self)
            value = self.stack.pop()
        except UserError:
            raise
        except (
            IndexError,
            KeyError,
            ValueError,
            TypeError,
            struct.error,
            OverflowError,
            MemoryError,
        ) as error:
            raise DamagedPickle(
                f"damaged at byte {self.source.place}: {type(error).__name__} {str(error)[:80]}"
            ) from None
        if self.foreign:  # named, but never called
            raise RefusedPickle(f"refers to {self.foreign[0].name}")
        return value

    def name(self, module: str, name: str) -> None:
        """Push what stands for a global name."""
        known = self.allowed.get(f"{module} {name}")
        if known is None:
            known = Foreign(f"{module}.{name}")
            self.foreign.append(known)
        self.stack.append(known)

    def call(self, function: Any, arguments: Any, more: Any = None) -> None:
        """Push the result of one of our functions; refuse everything else."""
        if isinstance(function, Foreign):
            told = ", ".join(_short.repr(a) for a in (arguments if isinstance(arguments, tuple) else ()))
            raise RefusedPickle(f"tries to call {function.name}({told})")
        if not callable(function) or not isinstance(arguments, tuple) or more:
            raise RefusedPickle(f"tries to call {_short.repr(function)} with {_short.repr(arguments)}")
        self.charge(arguments)
        try:
            self.stack.append(function(*arguments))
        except TypeError as error:
            raise RefusedPickle(f"calls with arguments that do not fit: {str(error)[:100]}") from None

    def charge(self, given: Any) -> None:
        """Count what a call may copy: a small file must not become a big value by calling again and again."""
        sized = (str, bytes, list, tuple, dict)
        for part in given if isinstance(given, tuple) else (given,):
            self.budget -= len(part) if isinstance(part, sized) else 1
        if self.budget < 0:
            raise RefusedPickle("copies its content over and over")

    def build(self) -> None:
        """Set the state of one of our values."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, dict):
            return  # attributes of a state dict (`_metadata`), which nobody needs
        if isinstance(target, Foreign):
            raise RefusedPickle(f"tries to set the state of {target.name}")
        if isinstance(target, type) or not hasattr(target, "build"):
            raise RefusedPickle(f"tries to set the state of a {type(target).__name__}")
        self.charge(state)
        target.build(state)

    def marked(self) -> list[Any]:
        """What was pushed since the last mark, taken off."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def mark(self) -> None:
        """Begin a stack over this one."""
        self.below.append(self.stack)
        self.stack = []

    def top(self, kind: type) -> Any:
        """The value on top, which must be of a kind."""
        value = self.stack[-1]
        if type(value) is not kind:
            told = value.name if isinstance(value, Foreign) else f"a {type(value).__name__}"
            raise RefusedPickle(f"treats {told} as a {kind.__name__}")
        return value

    def set_items(self, flat: list[Any]) -> None:
        """Keys and values in turn, into the dictionary on top."""
        target = self.top(dict)
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            target[key_of(key)] = value


def _text(machine: Machine, form: str) -> None:
    data = machine.source.take(machine.source.number(form))
    machine.stack.append(data.decode("utf-8", "surrogatepass"))


def _data(machine: Machine, form: str) -> None:
    machine.stack.append(machine.source.take(machine.source.number(form)))


def _old_data(machine: Machine, form: str) -> None:
    """Python 2's `str`: text or bytes; read as Latin-1, which can be undone (numpy's bytes are)."""
    machine.stack.append(machine.source.take(machine.source.number(form)).decode("latin-1"))


def _quoted(machine: Machine) -> None:
    line = machine.source.line().strip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise DamagedPickle("a string has no quotes")
    machine.stack.append(line[1:-1].decode("unicode_escape"))


def _long(machine: Machine, form: str) -> None:
    machine.stack.append(
        int.from_bytes(machine.source.take(machine.source.number(form)), "little", signed=True)
    )


def _decimal(machine: Machine) -> None:
    line = machine.source.line()
    machine.stack.append({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


def _tuple(machine: Machine, n: int) -> None:
    if n > len(machine.stack):
        raise IndexError("stack")
    found = tuple(machine.stack[len(machine.stack) - n :])
    del machine.stack[len(machine.stack) - n :]
    machine.stack.append(found)


def _pushed(machine: Machine, kind: Callable[[list[Any]], Any]) -> None:
    """Replace what was pushed since the last mark by one value of it."""
    found = machine.marked()
    machine.stack.append(kind(found))


def _append(machine: Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)


def _add_to_set(machine: Machine) -> None:
    values = machine.marked()
    machine.top(list).extend(key_of(value) for value in values)


def _dict(machine: Machine) -> None:
    flat = machine.marked()
    machine.stack.append({})
    machine.set_items(flat)


def _one_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _many_items(machine: Machine) -> None:
    flat = machine.marked()
    machine.set_items(flat)


def _many_values(machine: Machine) -> None:
    values = machine.marked()
    _append(machine, values)


def _one_value(machine: Machine) -> None:
    value = machine.stack.pop()
    _append(machine, [value])


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


def _global(machine: Machine) -> None:
    module, name = machine.source.line().decode(), machine.source.line().decode()
    machine.name(module, name)


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise RefusedPickle("names a function by something that is no text")
    machine.name(module, name)


def _reduce(machine: Machine) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.call(function, arguments)


def _new(machine: Machine) -> None:
    arguments, kind = machine.stack.pop(), machine.stack.pop()
    machine.call(kind, arguments)


def _new_ex(machine: Machine) -> None:
    named, arguments, kind = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.call(kind, arguments, named)


def _inst(machine: Machine) -> None:
    module, name = machine.source.line().decode(), machine.source.line().decode()
    arguments = tuple(machine.marked())
    machine.name(module, name)
    machine.call(machine.stack.pop(), arguments)


def _obj(machine: Machine) -> None:
    kind, *arguments = machine.marked()
    machine.call(kind, tuple(arguments))


def _persistent(machine: Machine) -> None:
    name = machine.stack.pop()
    if machine.persistent is None:
        raise RefusedPickle(f"refers to something outside of the file: {_short.repr(name)}")
    machine.stack.append(machine.persistent(name))


def _persistent_line(machine: Machine) -> None:
    machine.stack.append(machine.source.line().decode())
    _persistent(machine)


def _extension(machine: Machine, form: str) -> None:
    raise RefusedPickle(f"calls by an extension code ({machine.source.number(form)})")


def _out_of_band(machine: Machine) -> None:
    raise RefusedPickle("refers to a buffer outside of the file")


def _protocol(machine: Machine) -> None:
    version = machine.source.number("<B")
    if version > HIGHEST_PROTOCOL:
        raise DamagedPickle(f"pickle protocol {version}; at most {HIGHEST_PROTOCOL} is known")


def _put(machine: Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _get(machine: Machine, place: int) -> None:
    machine.stack.append(machine.memo[place])


def _push(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


STEPS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": _protocol,
    b"\x95": lambda m: m.source.take(8),  # FRAME: a hint for readers that buffer
    b"N": _push(None),
    b"\x88": _push(True),
    b"\x89": _push(False),
    b"I": _decimal,
    b"L": lambda m: m.stack.append(int(m.source.line().rstrip(b"L"))),
    b"F": lambda m: m.stack.append(float(m.source.line())),
    b"J": lambda m: m.stack.append(m.source.number("<i")),
    b"K": lambda m: m.stack.append(m.source.number("<B")),
    b"M": lambda m: m.stack.append(m.source.number("<H")),
    b"\x8a": lambda m: _long(m, "<B"),
    b"\x8b": lambda m: _long(m, "<i"),
    b"G": lambda m: m.stack.append(struct.unpack(">d", m.source.take(8))[0]),
    b"S": _quoted,
    b"T": lambda m: _old_data(m, "<i"),
    b"U": lambda m: _old_data(m, "<B"),
    b"V": lambda m: m.stack.append(m.source.line().decode("raw_unicode_escape")),
    b"X": lambda m: _text(m, "<I"),
    b"\x8c": lambda m: _text(m, "<B"),
    b"\x8d": lambda m: _text(m, "<Q"),
    b"B": lambda m: _data(m, "<I"),
    b"C": lambda m: _data(m, "<B"),
    b"\x8e": lambda m: _data(m, "<Q"),
    b"\x96": lambda m: _data(m, "<Q"),  # BYTEARRAY8
    b"\x97": _out_of_band,
    b"\x98": lambda m: None,  # READONLY_BUFFER
    b"(": Machine.mark,
    b"0": _pop,
    b"1": Machine.marked,
    b"2": lambda m: m.stack.append(m.stack[-1]),
    b")": _push(()),
    b"t": lambda m: _pushed(m, tuple),
    b"\x85": lambda m: _tuple(m, 1),
    b"\x86": lambda m: _tuple(m, 2),
    b"\x87": lambda m: _tuple(m, 3),
    b"]": lambda m: m.stack.append([]),
    b"l": lambda m: _pushed(m, list),
    b"a": _one_value,
    b"e": _many_values,
    b"}": lambda m: m.stack.append({}),
    b"d": _dict,
    b"s": _one_item,
    b"u": _many_items,
    b"\x8f": lambda m: m.stack.append([]),  # EMPTY_SET
    b"\x90": _add_to_set,
    b"\x91": lambda m: _pushed(m, scalars),
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _new,
    b"\x92": _new_ex,
    b"i": _inst,
    b"o": _obj,
    b"b": Machine.build,
    b"P": _persistent_line,
    b"Q": _persistent,
    b"\x82": lambda m: _extension(m, "<B"),
    b"\x83": lambda m: _extension(m, "<H"),
    b"\x84": lambda m: _extension(m, "<i"),
    b"p": lambda m: _put(m, int(m.source.line())),
    b"q": lambda m: _put(m, m.source.number("<B")),
    b"r": lambda m: _put(m, m.source.number("<I")),
    b"\x94": lambda m: _put(m, len(m.memo)),
    b"g": lambda m: _get(m, int(m.source.line())),
    b"h": lambda m: _get(m, m.source.number("<B")),
    b"j": lambda m: _get(m, m.source.number("<I")),
}
