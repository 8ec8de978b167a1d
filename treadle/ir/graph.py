"""A graph on its own: a closed list of operations with named inputs, weights and outputs.

    graph "predict"
    size N 1 1024
    %0 = input "x" f32[N,784]
    %1 = weight "0.weight" f32[10,784]
    %2 = number 0.5 f32[]
    %3 = permute(%1, axes=(1, 0)) : f32[784,10] in 0  # model.py:7
    %4 = matmul(%0, %3) : f32[N,10] in 0  # model.py:7
    arguments (%0,)
    outputs {"logits": %4}

A line is a value, and values are numbered in their order: inputs, weights, numbers, operations.
What a graph does to weights stands in lines ``update "0.weight" %9``. ``graph_syntax.py`` reads the
text back. Sizes in types and attributes may be polynomials over named sizes (``ir/size.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.ir.size import Size

Dims = tuple[int | Size, ...]


class Ref(Record):
    """A value of the graph where it stands in a structure of tuples, lists and dictionaries."""

    value: int


class Input(Record):
    """A tensor that whoever calls the graph hands in."""

    name: str
    dtype: DType
    shape: Dims


class Weight(Record):
    """A tensor that the program keeps: a parameter, a buffer, an optimizer's state, a constant."""

    name: str
    dtype: DType
    shape: Dims


class Number(Record):
    """A 0-d value that is known when the graph is called.

    ``rule`` is ``literal`` (``value`` is the number), ``size`` (a Size), ``ratio`` (a factor and
    two Sizes, a and b: factor * (a / b)), ``draw`` (``seed``, ``stream`` or ``offset``: what the
    random operation reading it draws) or ``optimizer`` (the number of the optimizer and the place
    among its numbers, which follow from its steps).
    """

    rule: str
    value: Any
    dtype: DType


class Operation(Record):
    """One application of an op; ``types`` are those of its results, None where sizes hide them.

    ``site`` is the line that recorded it, ``scope`` the path of the layer that did.
    """

    op: str
    inputs: tuple[int, ...]
    attrs: dict[str, Any]
    types: tuple[tuple[DType, Dims], ...] | None
    site: str
    scope: str = ""


class Graph(Record):
    """See the module. ``sizes`` has the least and the most of every named size."""

    name: str
    sizes: dict[str, tuple[int, int]]
    inputs: tuple[Input, ...]
    weights: tuple[Weight, ...]
    numbers: tuple[Number, ...]
    operations: tuple[Operation, ...]
    arguments: Any
    keywords: Any
    outputs: Any
    updates: dict[str, int]

    @property
    def first(self) -> int:
        """The number of the first operation's value."""
        return len(self.inputs) + len(self.weights) + len(self.numbers)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def refs(structure: Any) -> list[int]:
    """The values in a structure, in order."""
    if isinstance(structure, Ref):
        return [structure.value]
    if isinstance(structure, dict):
        return [v for item in structure.values() for v in refs(item)]
    if isinstance(structure, (tuple, list)):
        return [v for item in structure for v in refs(item)]
    return []


def filled(structure: Any, values: Mapping[int, Any]) -> Any:
    """The structure with values in the places of its references."""
    if isinstance(structure, Ref):
        return values[structure.value]
    if isinstance(structure, dict):
        return {key: filled(item, values) for key, item in structure.items()}
    if isinstance(structure, (tuple, list)):
        return type(structure)([filled(item, values) for item in structure])
    return structure


def type_text(dtype: DType, shape: Dims) -> str:
    """``f32[N,784]``."""
    return f"{dtype.short}[{','.join(map(str, shape))}]"


def value_text(value: Any) -> str:
    """An attribute, or a structure, as it is written."""
    if isinstance(value, Ref):
        return f"%{value.value}"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.short
    if isinstance(value, tuple):
        return f"({', '.join(map(value_text, value))}{',' * (len(value) == 1)})"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{value_text(k)}: {value_text(v)}' for k, v in value.items())}}}"
    return str(value) if isinstance(value, Size) else repr(value)


def _lines(graph: Graph) -> Iterator[str]:
    yield f"graph {json.dumps(graph.name)}"
    for name, (least, most) in graph.sizes.items():
        yield f"size {name} {least} {most}"
    lines = [f"input {json.dumps(x.name)} {type_text(x.dtype, x.shape)}" for x in graph.inputs]
    lines += [f"weight {json.dumps(w.name)} {type_text(w.dtype, w.shape)}" for w in graph.weights]
    for n in graph.numbers:
        told = value_text(n.value) if n.rule == "literal" else f"{n.rule} {_rule_text(n)}"
        lines.append(f"number {told} {n.dtype.short}[]")
    lines += map(operation_text, graph.operations)
    yield from (f"%{value} = {line}" for value, line in enumerate(lines))
    yield from (f"update {json.dumps(name)} %{value}" for name, value in graph.updates.items())
    yield f"arguments {value_text(graph.arguments)}"
    if graph.keywords:
        yield f"keywords {value_text(graph.keywords)}"
    yield f"outputs {value_text(graph.outputs)}"


def _rule_text(n: Number) -> str:
    if n.rule == "optimizer":
        return " ".join(map(str, n.value))
    return value_text(n.value) if n.rule == "ratio" else str(n.value)


def operation_text(operation: Operation) -> str:
    """The line of an operation, without the number of its value."""
    parts = [f"%{i}" for i in operation.inputs]
    parts += [f"{name}={value_text(value)}" for name, value in operation.attrs.items()]
    text = f"{operation.op}({', '.join(parts)})"
    if operation.types is not None:
        text += " : " + "; ".join(type_text(dtype, shape) for dtype, shape in operation.types)
    if operation.scope:
        text += f" in {operation.scope}"
    return f"{text}  # {operation.site}" if operation.site else text


__all__ = [
    "Dims", "Graph", "Input", "Number", "Operation", "Ref", "Weight", "filled", "operation_text",
    "refs", "type_text", "value_text",
]  # fmt: skip
