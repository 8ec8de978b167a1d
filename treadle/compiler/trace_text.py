"""Traces as typed SSA text: ``print_trace`` and its inverse, ``parse_trace``; ``verify_trace``.

    %0 = input f32[2,3]
    %1 = input f32[3] strides=(2,)
    %2 = scalar f32[]
    %3 = expand(%1, shape=(2, 3)) : f32[2,3]
    %4 = moments(%0, axes=(1,)) : f32[2]; f32[2]
    %5 = mul(%0, %3) : f32[2,3] kept

A line is a value; several parts have a semicolon between them. ``kept`` is what outlives the
program. ``%6 = %4`` says that a value has that one's bits, and ``dead`` that nobody reads it.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import CompileError, TreadleError
from treadle.compiler.trace import Entry, Trace
from treadle.ir.launch import Layout, contiguous
from treadle.ir.node import Type, signature_of, type_of
from treadle.ops.registry import find

_LINE = re.compile(r"%(\d+) = (.*)")
_LAYOUT = re.compile(r"(\w+)\[([\d,]*)\](?: strides=(\(.*\)))?")
_SAME = re.compile(r"%(\d+) : (.*?)( kept)?")
_ENTRY = re.compile(r"(\w+\(.*\)) : (.*?)( kept)?( dead)?")


class TraceSyntaxError(TreadleError, ValueError):
    """Text that is not a trace: the line, and what was expected there."""


def print_trace(trace: Trace) -> str:
    """The trace, a value a line."""
    lines = [f"input {_layouts(x)}" for x in trace.externals]
    lines += [f"scalar {_layouts(x)}" for x in trace.scalars]
    first = trace.first
    for position, entry in enumerate(trace.entries):
        stand_in = trace.stand_in(first + position)
        types = "; ".join(map(str, entry.sig.types)) + " kept" * entry.keep
        if stand_in in (first + position, -1):
            lines.append(f"{_call(entry)} : {types}{' dead' * (stand_in < 0)}")
        else:
            lines.append(f"%{stand_in} : {types}")
    return "".join(f"%{value} = {line}\n" for value, line in enumerate(lines))


def _layouts(layouts: Layout | Sequence[Layout]) -> str:
    parts = [layouts] if isinstance(layouts, Layout) else layouts
    return "; ".join(
        f"{type_of(x.dtype, x.shape)}" + ("" if x.is_contiguous else f" strides={x.strides}")
        for x in parts
    )


def _call(entry: Entry) -> str:
    attrs = [
        f"{k}={v.short if isinstance(v, DType) else repr(v)}" for k, v in entry.sig.attrs.items()
    ]
    return f"{entry.sig.op.name}({', '.join([*(f'%{i}' for i in entry.inputs), *attrs])})"


def parse_trace(text: str) -> Trace:
    """The trace that prints so.

    A value with a stand-in has lost its own operands, so only that it is one is read back.

    Raises:
        TraceSyntaxError: with the line and what was expected.
    """
    externals: list[Any] = []
    scalars: list[Layout] = []
    types: list[tuple[Type, ...]] = []
    entries: list[Entry] = []
    same: list[int] = []
    for number, line in enumerate(text.splitlines()):
        match = _LINE.fullmatch(line.strip())
        if match is None or int(match[1]) != number:
            raise TraceSyntaxError(f"line {number + 1}: got {line!r}; expected '%{number} = ...'")
        kind, _, rest = match[2].partition(" ")
        if kind in ("input", "scalar"):
            layouts = tuple(_layout(part, number) for part in rest.split("; "))
            types.append(tuple(type_of(x.dtype, x.shape) for x in layouts))
            if kind == "scalar":
                scalars.append(layouts[0])
            else:
                externals.append(layouts if len(layouts) > 1 else layouts[0])
            continue
        found = _SAME.fullmatch(match[2])
        if found:
            of = int(found[1])
            entry = entries[of - len(types) + len(entries)]
            entries.append(entry._replace(keep=bool(found[3])))
            types.append(types[of])
            same.append(of)
            continue
        entries.append(_parse_entry(match[2], types, number))
        same.append(-1 if match[2].endswith(" dead") else number)
        types.append(entries[-1].sig.types)
    plain = same == list(range(len(types) - len(entries), len(types)))
    return Trace(tuple(externals), tuple(scalars), tuple(entries), () if plain else tuple(same))


def _layout(text: str, number: int) -> Layout:
    match = _LAYOUT.fullmatch(text)
    if match is None:
        raise TraceSyntaxError(f"line {number + 1}: got {text!r}; expected a type such as f32[2,3]")
    shape = tuple(int(n) for n in match[2].split(",") if n)
    layout = contiguous(dtypes.by_short(match[1]), shape)
    return layout._replace(strides=ast.literal_eval(match[3])) if match[3] else layout


def _parse_entry(text: str, types: Sequence[tuple[Type, ...]], number: int) -> Entry:
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise TraceSyntaxError(f"line {number + 1}: got {text!r}; expected 'op(...) : type'")
    call: Any = ast.parse(re.sub(r"%(\d+)", r"v\1", match[1]), mode="eval").body
    inputs = tuple(int(argument.id[1:]) for argument in call.args)
    op = find(call.func.id)
    if op is None or any(i >= number for i in inputs):
        raise TraceSyntaxError(
            f"line {number + 1}: got {text!r}; expected an op of the registry and values above"
        )
    attrs = {keyword.arg: _attribute(keyword.value) for keyword in call.keywords}
    whole: Any = tuple(types[i] if len(types[i]) > 1 else types[i][0] for i in inputs)
    sig = signature_of(op, whole, attrs)
    told = "; ".join(map(str, sig.types))
    if told != match[2]:
        raise TraceSyntaxError(f"line {number + 1}: got the type {match[2]}; expected {told}")
    return Entry(sig, inputs, bool(match[3]))


def _attribute(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        known = {"inf": math.inf, "nan": math.nan}.get(node.id)
        return dtypes.by_short(node.id) if known is None else known
    if isinstance(node, ast.UnaryOp):
        return -_attribute(node.operand)
    if isinstance(node, ast.Tuple):
        return tuple(_attribute(item) for item in node.elts)
    return ast.literal_eval(node)


def verify_trace(trace: Trace) -> None:
    """Raises CompileError where an entry reads what comes later or is of another type."""
    first = trace.first
    for position, entry in enumerate(trace.entries):
        value = first + position
        for i, kind in zip(entry.inputs, entry.sig.inputs, strict=False):
            if not 0 <= i < value:
                raise CompileError(f"%{value} reads %{i}, which is not before it")
            if i >= first and trace.stand_in(value) == value:
                source = trace.entry(i).sig
                if trace.stand_in(i) != i:
                    raise CompileError(f"%{value} reads %{i}, which is not computed")
                if source.type is source.types[0] and source.type is not kind:
                    raise CompileError(f"%{value} reads %{i} as {kind}; it is {source.type}")


__all__ = ["TraceSyntaxError", "parse_trace", "print_trace", "verify_trace"]
