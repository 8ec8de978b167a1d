"""A reader of pickles that can build plain values and what a closed list of names makes.

It is an interpreter of its own for the opcodes that ``torch.save`` writes (protocols 2 to 5), not
Python's: an opcode that is not in the table below does not exist, a name is looked up in the
dictionary that the caller gives and nowhere else (nothing is ever imported), and only a ``Maker``
can be called. So whatever the bytes say, the outcome is a value made of these parts, or a
``Refusal``.

Time and memory are bounded by the length of the pickle: every opcode takes a byte at least, and
what is made is charged to a ``Budget``. Keys are hashed, so they are short and of few types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

FLOOR = 64 << 20  # bytes that any file may take ...
TIMES_THE_FILE = 10  # ... and this many for each of its own
MAX_KEY = 4096  # characters of a key
MAX_TUPLE_KEYS = 10_000  # their hashes can be made to meet, which costs the square of their number
_MAX_NAME = 256  # bytes of a module's or a function's name
_KEYS = (str, bytes, int, float, bool, type(None))


class Refusal(Exception):
    """Why a pickle was not read on; becomes a ``CheckpointError`` with the file's name."""


class Maker:
    """A name that may be called: ``make`` checks its arguments and builds a value of them."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name = name
        self.make = make

    def __call__(self, args: Any) -> Any:
        """The value for a tuple of arguments; Refusal for arguments that do not fit."""
        if type(args) is not tuple:
            raise Refusal(f"{self.name} is called with a {type(args).__name__}, not a tuple")
        try:
            return self.make(*args)
        except (TypeError, ValueError, OverflowError) as error:
            raise Refusal(
                f"{self.name} is called with arguments that do not fit: {error}"
            ) from None


class Budget:
    """The bytes of memory that reading a file may still take."""

    def __init__(self, size: int) -> None:
        self.limit = self.left = FLOOR + TIMES_THE_FILE * size

    def charge(self, count: int) -> None:
        """Takes ``count`` bytes off; Refusal where there are not so many."""
        self.left -= count
        if self.left < 0:
            raise Refusal(
                f"what it describes takes more than {self.limit:,} bytes of memory, "
                f"{TIMES_THE_FILE} times the file and {FLOOR >> 20} MiB"
            )


class Machine:
    """Runs one pickle.

    Args:
        names: what ``module.name`` stands for: a value, or a ``Maker``.
        setters: how a ``BUILD`` opcode sets the state of values of these types.
        persistent: called with a persistent id, gives what it stands for.
        budget: what the values made are charged to.
        encoding: of strings that Python 2 wrote; ``"bytes"`` leaves them as bytes.
    """

    def __init__(
        self,
        names: Mapping[str, Any],
        setters: Mapping[type, Callable[[Any, Any], None]],
        persistent: Callable[[Any], Any],
        budget: Budget,
        encoding: str = "utf-8",
    ) -> None:
        self.names = names
        self.setters = setters
        self.persistent = persistent
        self.charge = budget.charge
        self.encoding = encoding
        self._tuple_keys = 0

    def run(self, data: bytes, start: int = 0) -> tuple[Any, int]:
        """The value of the pickle at ``start``, and where it ends."""
        self.data, self.position = data, start
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}
        begin = start
        try:
            while True:
                begin = self.position
                code = self.take(1)[0]
                if code == _STOP:
                    return self.pop(), self.position
                step = _STEPS[code]
                if step is None:
                    raise Refusal(f"it holds the opcode {bytes([code])!r}, which data do not need")
                step(self)
        except Refusal as error:
            raise Refusal(f"at byte {begin - start:,} of its pickle: {error}") from None

    # --- bytes and the stack ----------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self.position + count
        if end > len(self.data):
            raise Refusal(f"it ends early: {count:,} bytes were to follow")
        part = self.data[self.position : end]
        self.position = end
        return part

    def skip(self, count: int) -> None:
        """Goes past ``count`` bytes (the length of a frame says nothing that matters here)."""
        self.take(count)

    def number(self, size: int) -> int:
        """An unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """A name up to the end of its line."""
        end = self.data.find(b"\n", self.position, self.position + _MAX_NAME)
        if end < 0:
            raise Refusal("a name in it has no end")
        return self.take(end + 1 - self.position)[:-1].decode("utf-8", "replace")

    def push(self, value: Any, cost: int) -> None:
        """Puts a value on the stack; ``cost`` is its size in bytes."""
        self.charge(cost + 8)
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes the value on top of the stack."""
        if not self.stack:
            raise Refusal("it takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        """The value on top of the stack, which stays there."""
        if not self.stack:
            raise Refusal("it needs a value, and the stack is empty")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        """Takes the values above the last mark."""
        if not self.marked:
            raise Refusal("it goes back to a mark that was not set")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def key(self, value: Any) -> Any:
        """The value, if it may be a key or an element of a set."""
        if type(value) is tuple:
            self._tuple_keys += 1
            if self._tuple_keys <= MAX_TUPLE_KEYS and len(value) <= 16:
                for part in value:
                    plain_key(part)
                return value
            raise Refusal(
                f"it has tuples of more than 16 parts, or over {MAX_TUPLE_KEYS:,}, as keys"
            )
        return plain_key(value)

    def set_items(self, target: Any, pairs: list[Any]) -> None:
        """Puts keys and values, one after the other, into a dictionary."""
        if not isinstance(target, dict):
            raise Refusal(f"it sets items of a {type(target).__name__}; expected a dict")
        if len(pairs) % 2:
            raise Refusal("it sets an item with a key and no value")
        self.charge(50 * len(pairs))
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[self.key(key)] = value

    def global_(self, name: str) -> None:
        """Pushes what a name stands for."""
        if name not in self.names:
            raise Refusal(
                f"it asks for {name}, which is not among the names that build tensors and plain "
                f"containers"
            )
        self.push(self.names[name], 0)

    def bytes_(self, count: int) -> None:
        """Pushes the next ``count`` bytes."""
        self.push(self.take(count), 40 + count)

    def text(self, data: bytes) -> None:
        """Pushes a text."""
        try:
            value = data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Refusal("a text in it is not UTF-8") from None
        self.push(value, 64 + 4 * len(value))

    def string(self, data: bytes) -> None:
        """Pushes a string of Python 2."""
        if self.encoding == "bytes":
            return self.push(data, 40 + len(data))
        try:
            value = data.decode(self.encoding)
        except UnicodeDecodeError:
            raise Refusal(
                f"a string of Python 2 in it is not {self.encoding}; load with encoding='latin1' "
                f"or 'bytes'"
            ) from None
        return self.push(value, 64 + 4 * len(value))


def plain_key(value: Any) -> Any:
    """The value, if it may be a key that is no tuple."""
    kind = type(value)
    if kind not in _KEYS:
        raise Refusal(f"it has a {kind.__name__} as a key; keys are texts, numbers and None")
    if (kind is str or kind is bytes) and len(value) > MAX_KEY:
        raise Refusal(f"it has a key of {len(value):,} characters; {MAX_KEY:,} is the limit")
    if kind is int and value.bit_length() > 64:
        raise Refusal(f"it has a key of {value.bit_length():,} bits; 64 is the limit")
    return value


# --- opcodes --------------------------------------------------------------------------------------

_STOP = ord(".")
Step = Callable[[Machine], None]


def _proto(m: Machine) -> None:
    version = m.number(1)
    if not 2 <= version <= 5:
        raise Refusal(f"it is of protocol {version}; expected 2 to 5")


def _mark(m: Machine) -> None:
    m.charge(120)
    m.marked.append(m.stack)
    m.stack = []


def _float(m: Machine) -> None:
    m.push(struct.unpack(">d", m.take(8))[0], 24)


def _long(m: Machine) -> None:
    m.push(int.from_bytes(m.take(m.number(1)), "little", signed=True), 64)


def _tuple(m: Machine, items: list[Any]) -> None:
    m.push(tuple(items), 48 + 8 * len(items))


def _last(count: int) -> Step:
    def step(m: Machine) -> None:
        items = [m.pop() for _ in range(count)]
        _tuple(m, items[::-1])

    return step


def _append(m: Machine, items: list[Any]) -> None:
    target = m.top()
    if type(target) is not list:
        raise Refusal(f"it appends to a {type(target).__name__}; expected a list")
    m.charge(9 * len(items))
    target.extend(items)


def _set_item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items(m.top(), [key, value])


def _set_items(m: Machine) -> None:
    pairs = m.since_mark()
    m.set_items(m.top(), pairs)


def _add_items(m: Machine) -> None:
    items, target = m.since_mark(), m.top()
    if type(target) is not set:
        raise Refusal(f"it adds elements to a {type(target).__name__}; expected a set")
    m.charge(64 * len(items))
    target.update(map(m.key, items))


def _frozen_set(m: Machine) -> None:
    items = m.since_mark()
    m.push(frozenset(map(m.key, items)), 216 + 64 * len(items))


def _put(m: Machine, index: int) -> None:
    m.charge(140)
    m.memo[index] = m.top()


def _get(m: Machine, index: int) -> None:
    if index not in m.memo:
        raise Refusal(f"it refers to part {index}, which it has not")
    m.push(m.memo[index], 0)


def _global(m: Machine) -> None:
    module = m.line()
    m.global_(f"{module}.{m.line()}")


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    if type(name) is not str or type(module) is not str:
        raise Refusal("it names a function by something else than texts")
    m.global_(f"{module[:_MAX_NAME]}.{name[:_MAX_NAME]}")


def _reduce(m: Machine) -> None:
    args, function = m.pop(), m.pop()
    if type(function) is not Maker:
        raise Refusal(f"it calls a {type(function).__name__}; expected a name that builds data")
    made = function(args)
    m.push(made, 64 + (len(made) if type(made) is bytes else 0))


def _build(m: Machine) -> None:
    state, target = m.pop(), m.top()
    setter = m.setters.get(type(target))
    if setter is None:
        raise Refusal(f"it sets the state of a {type(target).__name__}, which has none here")
    try:
        setter(target, state)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refusal(f"it sets a state that does not fit: {error}") from None


def _persistent(m: Machine) -> None:
    m.push(m.persistent(m.pop()), 64)


_STEPS: list[Step | None] = [None] * 256
for _code, _step in {
    b"\x80": _proto, b"\x95": lambda m: m.skip(8), b"(": _mark,
    b"N": lambda m: m.push(None, 0), b"\x88": lambda m: m.push(True, 0),
    b"\x89": lambda m: m.push(False, 0),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True), 32),
    b"K": lambda m: m.push(m.number(1), 0), b"M": lambda m: m.push(m.number(2), 32),
    b"\x8a": _long, b"G": _float,
    b"T": lambda m: m.string(m.take(m.number(4))), b"U": lambda m: m.string(m.take(m.number(1))),
    b"X": lambda m: m.text(m.take(m.number(4))), b"\x8c": lambda m: m.text(m.take(m.number(1))),
    b"\x8d": lambda m: m.text(m.take(m.number(8))),
    b"B": lambda m: m.bytes_(m.number(4)), b"C": lambda m: m.bytes_(m.number(1)),
    b"\x8e": lambda m: m.bytes_(m.number(8)),
    b"]": lambda m: m.push([], 88), b"a": lambda m: _append(m, [m.pop()]),
    b"e": lambda m: _append(m, m.since_mark()),
    b")": lambda m: m.push((), 0), b"t": lambda m: _tuple(m, m.since_mark()),
    b"\x85": _last(1), b"\x86": _last(2), b"\x87": _last(3),
    b"}": lambda m: m.push({}, 240), b"s": _set_item, b"u": _set_items,
    b"\x8f": lambda m: m.push(set(), 216), b"\x90": _add_items, b"\x91": _frozen_set,
    b"q": lambda m: _put(m, m.number(1)), b"r": lambda m: _put(m, m.number(4)),
    b"\x94": lambda m: _put(m, len(m.memo)),
    b"h": lambda m: _get(m, m.number(1)), b"j": lambda m: _get(m, m.number(4)),
    b"c": _global, b"\x93": _stack_global, b"R": _reduce, b"\x81": _reduce, b"b": _build,
    b"Q": _persistent,
}.items():  # fmt: skip
    _STEPS[_code[0]] = _step
