"""Reads the text of graphs (``ir/graph.py``), without trusting it.

Whatever the text says, reading takes time and memory in proportion to its length, and ends in a
Graph or in a GraphSyntaxError that names the line. Numbers of values, names and types are checked
here; whether an operation can be applied to its inputs, where the graph is bound to sizes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NoReturn

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import TreadleError
from treadle.ir.graph import (
    Dims,
    Graph,
    Input,
    Number,
    Operation,
    Ref,
    Weight,
    refs,
    value_text,
)
from treadle.ir.size import Size, names_in, parse_size

MOST_LINES = 1 << 20
MOST_CHARACTERS = 1 << 16  # of a line
MOST_DIMENSIONS = 64
MOST_ELEMENTS = 1 << 48
_DEPTH = 16  # of structures in each other
_STRING = r'"(?:[^"\\]|\\.)*"'
_ARITHMETIC = r"[-+]?\d+\.?\d*[eE][-+]?\d+|[-+]?[A-Za-z_0-9.*/]+(?: [-+] [A-Za-z_0-9*/]+)*"
_TOKEN = re.compile(rf"\s*(?:(%\d+)|({_STRING})|({_ARITHMETIC})|([()\[\]{{}},:=]))")
_VALUE = re.compile(r"%(\d+) = (.*)")
_NAMED = re.compile(rf"({_STRING}) (.*)")
_TYPE = re.compile(r"(\w+)\[([^\[\]]*)\]")
_SIZE = re.compile(r"([A-Za-z_]\w*) (\d{1,18}) (\d{1,18})")
_CALL = re.compile(r"(\w+)\((.*)\)(?: : ([^#\"]*?))?(?: in ([\w.-]{1,4096}))?(?:  # (.*))?")
_INTEGER = re.compile(r"[-+]?\d{1,20}")
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf|nan)")
_WORDS = {"True": True, "False": False, "None": None}
_DTYPES = frozenset(d.short for d in dtypes.ALL)
RESERVED = _DTYPES | {*_WORDS, "inf", "nan"}  # no names of sizes


class GraphSyntaxError(TreadleError, ValueError):
    """Text that is no graph: the line, and what was expected there."""


class _Line:
    """What is left to read of a structure, or of an operation's operands."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.number = number
        self.at = 0

    def next(self) -> tuple[int, str]:
        """The next token: 1 a reference, 2 a text, 3 a number or name, 4 a sign; 0 at the end."""
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            if self.text[self.at :].strip():
                self.fail(self.text[self.at :], "a value")
            return 0, ""
        self.at = match.end()
        return match.lastindex or 0, match[match.lastindex or 0]

    def peek(self) -> str:
        """The next token, which stays."""
        at = self.at
        token = self.next()[1]
        self.at = at
        return token

    def fail(self, got: str, expected: str) -> NoReturn:
        fail(self.number, got, expected)

    def take(self, sign: str) -> None:
        """Goes past a sign that must be there."""
        token = self.next()[1]
        if token != sign:
            self.fail(token, repr(sign))

    def value(self, depth: int = 0) -> Any:
        """The value that comes next."""
        kind, token = self.next()
        if depth > _DEPTH:
            self.fail(token, f"structures no more than {_DEPTH} deep")
        if kind == 1:
            return Ref(_integer(token[1:], self.number))
        if kind == 2:
            return _string(token, self.number)
        if kind == 3:
            return _atom(token, self.number)
        if token == "(":
            return tuple(self.items(")", depth))
        if token == "[":
            return list(self.items("]", depth))
        if token == "{":
            return self.entries(depth)
        return self.fail(token or self.text, "a value")

    def items(self, end: str, depth: int) -> Iterator[Any]:
        """Values with commas between them, up to ``end``."""
        while self.peek() != end:
            yield self.value(depth + 1)
            if self.peek() != end:
                self.take(",")
        self.take(end)

    def entries(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.peek() != "}":
            kind, token = self.next()
            if kind != 2:
                self.fail(token, "a key in quotes")
            key = _string(token, self.number)
            if key in found:
                self.fail(token, "a key that was not there before")
            self.take(":")
            found[key] = self.value(depth + 1)
            if self.peek() != "}":
                self.take(",")
        self.take("}")
        return found

    def end(self) -> None:
        """Fails unless everything was read."""
        token = self.next()[1]
        if token:
            self.fail(token, "the end of the line")


def fail(number: int, got: str, expected: str) -> NoReturn:
    """Raises the error for a line."""
    shown = got if len(got) <= 80 else f"{got[:80]}..."
    raise GraphSyntaxError(f"line {number}: got {shown!r}; expected {expected}")


def _integer(text: str, number: int) -> int:
    if not _INTEGER.fullmatch(text):
        fail(number, text, "a whole number of at most 20 digits")
    return int(text)


def _string(token: str, number: int) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        fail(number, token, "a text in quotes, as JSON writes it")


def _atom(token: str, number: int) -> Any:
    """A number, a name or a size."""
    if token in _WORDS:
        return _WORDS[token]
    if _INTEGER.fullmatch(token):
        return int(token)
    if _FLOAT.fullmatch(token):
        return float(token)
    if token in RESERVED:
        return dtypes.by_short(token)
    try:
        return parse_size(token)
    except ValueError as error:
        fail(number, token, f"a number, a dtype or a size ({error})")


def parse_value(text: str, number: int = 1) -> Any:
    """A structure that stands alone on (the rest of) a line."""
    line = _Line(text, number)
    value = line.value()
    line.end()
    return value


def parse_type(text: str, number: int) -> tuple[DType, Dims]:
    """``f32[N,784]``."""
    match = _TYPE.fullmatch(text.strip())
    if match is None or match[1] not in _DTYPES:
        fail(number, text, "a type such as f32[2,3]")
    parts = match[2].split(",") if match[2] else []
    shape: list[int | Size] = []
    for part in parts:
        try:
            shape.append(parse_size(part))
        except ValueError as error:
            fail(number, text, f"sizes ({error})")
    known = math.prod(s for s in shape if isinstance(s, int) and s)
    if (
        len(shape) > MOST_DIMENSIONS
        or known > MOST_ELEMENTS
        or any(isinstance(s, int) and s < 0 for s in shape)
    ):
        fail(number, text, f"at most {MOST_DIMENSIONS} sizes from 0 on, and 2**48 elements")
    return dtypes.by_short(match[1]), tuple(shape)


class _Reader:
    """Builds one graph from its lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes: dict[str, tuple[int, int]] = {}
        self.parts: dict[str, list[Any]] = {"input": [], "weight": [], "number": []}
        self.operations: list[Operation] = []
        self.structures: dict[str, Any] = {}
        self.updates: dict[str, int] = {}

    def line(self, text: str, number: int) -> None:
        """Adds what a line says."""
        match = _VALUE.fullmatch(text)
        kind, _, rest = text.partition(" ")
        if match is not None:
            self._value(_integer(match[1], number), match[2], number)
        elif kind == "size":
            self._size(rest, number)
        elif kind == "update":
            self._update(rest, number)
        elif kind in ("arguments", "keywords", "outputs") and kind not in self.structures:
            self.structures[kind] = parse_value(rest, number)
        else:
            fail(number, text, "'%n = ...', 'size', 'update', 'arguments', 'keywords' or 'outputs'")

    def _count(self) -> int:
        return sum(map(len, self.parts.values())) + len(self.operations)

    def _value(self, value: int, text: str, number: int) -> None:
        if value != self._count():
            fail(number, f"%{value}", f"%{self._count()}, values being numbered in their order")
        kind, _, rest = text.partition(" ")
        later = list(self.parts)[list(self.parts).index(kind) + 1 :] if kind in self.parts else []
        if (self.operations and kind in self.parts) or any(self.parts[k] for k in later):
            fail(number, text, "inputs, weights, numbers and operations in this order")
        if kind in ("input", "weight"):
            match = _NAMED.fullmatch(rest)
            if match is None:
                fail(number, text, f'{kind} "name" type')
            made = Input if kind == "input" else Weight
            name = _string(match[1], number)
            self.parts[kind].append(made(name, *parse_type(match[2], number)))
        elif kind == "number":
            self.parts["number"].append(_number(rest, number))
        else:
            self.operations.append(self._operation(text, number))

    def _operation(self, text: str, number: int) -> Operation:
        match = _CALL.fullmatch(text)
        if match is None:
            fail(number, text, "op(%0, attribute=...) : type")
        line = _Line(match[2], number)
        inputs: list[int] = []
        attrs: dict[str, Any] = {}
        while line.peek():
            if inputs or attrs:
                line.take(",")
            kind, token = line.next()
            if kind == 1 and not attrs:
                inputs.append(_integer(token[1:], number))
            elif kind == 3 and token.isidentifier() and token not in attrs:
                line.take("=")
                attrs[token] = line.value()
            else:
                fail(number, token, "operands, then attributes, each name once")
        count = self._count()
        if any(not 0 <= i < count for i in inputs):
            fail(number, text, "operands above this line")
        if any(refs(value) for value in attrs.values()):
            fail(number, text, "attributes without values in them")
        types = None
        if match[3]:
            types = tuple([parse_type(part, number) for part in match[3].split(";")])
        told = match[5] or "", match[4] or ""
        return Operation(match[1], tuple(inputs), attrs, types, *told)

    def _size(self, text: str, number: int) -> None:
        match = _SIZE.fullmatch(text)
        if match is None or match[1] in self.sizes or match[1] in RESERVED:
            fail(number, text, "'size NAME least most' with a new name")
        self.sizes[match[1]] = int(match[2]), int(match[3])

    def _update(self, text: str, number: int) -> None:
        match = _NAMED.fullmatch(text)
        value = parse_value(match[2], number) if match else None
        if match is None or not isinstance(value, Ref):
            fail(number, text, 'update "weight" %n')
        name = _string(match[1], number)
        if name in self.updates:
            fail(number, name, "a weight that was not updated before")
        self.updates[name] = value.value

    def graph(self, number: int) -> Graph:
        """The graph, when all its lines were read."""
        arguments = self.structures.get("arguments")
        keywords = self.structures.get("keywords", {})
        outputs = self.structures.get("outputs")
        if not isinstance(arguments, tuple) or not isinstance(keywords, dict):
            fail(number, value_text(arguments), "arguments (...), a tuple")
        if "outputs" not in self.structures:
            fail(number, "the end of the graph", "outputs")
        inputs, weights, numbers = map(tuple, self.parts.values())
        handed = refs(arguments) + refs(keywords)
        if sorted(handed) != list(range(len(inputs))):
            fail(number, value_text(arguments), f"each of the {len(inputs)} inputs once")
        for value in [*refs(outputs), *self.updates.values()]:
            if not 0 <= value < self._count():
                fail(number, f"%{value}", "a value of the graph")
        for names, told in ((inputs, "inputs"), (weights, "weights")):
            if len({x.name for x in names}) < len(names):
                fail(number, told, "a name for each of its own")
        used = names_in([x.shape for x in (*inputs, *weights)])
        used |= names_in([v for o in self.operations for v in o.attrs.values()])
        used |= names_in([n.value for n in numbers])
        used |= names_in([t[1] for o in self.operations for t in o.types or ()])
        if used - set(self.sizes):
            fail(number, ", ".join(sorted(used - set(self.sizes))), "sizes that have a 'size' line")
        return Graph(
            self.name, self.sizes, inputs, weights, numbers, tuple(self.operations), arguments,
            keywords, outputs, self.updates,
        )  # fmt: skip


def _number(text: str, number: int) -> Number:
    told, _, kind = text.rpartition(" ")
    dtype, shape = parse_type(kind, number)
    rule, _, rest = told.partition(" ")
    if shape == () and rule == "size":
        size = parse_value(rest, number)
        if isinstance(size, (int, Size)):
            return Number(rule, size, dtype)
    elif shape == () and rule == "ratio":
        parts = parse_value(rest, number)
        if isinstance(parts, tuple) and len(parts) == 3 and isinstance(parts[0], float):
            a, b = (Size({(): Fraction(x)}) if isinstance(x, int) else x for x in parts[1:])
            if isinstance(a, Size) and isinstance(b, Size):
                return Number(rule, (parts[0], a, b), dtype)
    elif shape == () and rule == "draw" and rest in ("seed", "stream", "offset"):
        return Number(rule, rest, dtype)
    elif shape == () and rule == "optimizer":
        places = rest.split(" ")
        if len(places) == 2:
            return Number(rule, tuple([_integer(p, number) for p in places]), dtype)
    elif shape == ():
        value = parse_value(told, number)
        if isinstance(value, (bool, int, float)):
            return Number("literal", value, dtype)
    fail(number, text, "number 0.5 f32[], or size, ratio, draw or optimizer in place of the number")


def parse_graph(text: str, first: int = 1) -> Graph:
    """The graph that prints so; ``first`` is the number of its first line in errors.

    Raises:
        GraphSyntaxError: with the line and what was expected there.
    """
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        fail(first, f"{len(lines)} lines", f"at most {MOST_LINES}")
    head, _, name = lines[0].partition(" ") if lines else ("", "", "")
    if head != "graph":
        fail(first, lines[0] if lines else "nothing", 'graph "name"')
    reader = _Reader(_string(name, first))
    for number, line in enumerate(lines[1:], first + 1):
        if len(line) > MOST_CHARACTERS:
            fail(number, line, f"at most {MOST_CHARACTERS} characters a line")
        if line.strip():
            reader.line(line, number)
    return reader.graph(first + len(lines))


__all__ = ["GraphSyntaxError", "RESERVED", "parse_graph", "parse_type", "parse_value"]
