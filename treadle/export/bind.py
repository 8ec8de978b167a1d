"""Makes a graph ready to be called with tensors of given sizes.

The operations become a template (``ir/call.py``), so that a call records one item, and what repeats
runs as a fused program like everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import TreadleError
from treadle.base.record import Record
from treadle.export.bodies import with_bodies
from treadle.export.ratios import ratio_at
from treadle.ir.call import Reference, Spec, Template, call_template
from treadle.ir.graph import Graph, Input, Number, Operation, Weight, refs, type_text, value_text
from treadle.ir.node import Node, Scalar, Type, recorder, signature_of, type_of, user_site
from treadle.ir.op import Bundle, Op, Source
from treadle.ir.size import Size, resolve
from treadle.ops.project import project
from treadle.ops.random import counters
from treadle.ops.registry import find
from treadle.ops.source import number
from treadle.random.generator import default_generator

_HALF, _WHOLE = 1 << 63, 1 << 64
DRAWN = ("seed", "stream", "offset")
_BODY = {(0, "Body")}  # the kind of an attribute that is one


class GraphError(TreadleError, ValueError):
    """A graph whose operations do not fit together, or do not fit the sizes that it is called with:
    the value, and what was expected."""


class Bound(Record):
    """A graph for given sizes. ``draws`` says how many counters each random operation uses up, by
    the numbers that it reads; ``results`` are the values that are outputs or new weights."""

    template: Template | None
    draws: dict[int, int]
    results: tuple[int, ...]
    sizes: dict[str, int]


def op_of(operation: Operation) -> Op:
    """The op that is applied, with the attributes it takes.

    Raises:
        GraphError: where there is none of the name, or the attributes are others.
    """
    op = find(operation.op)
    if op is None or isinstance(op.lower, (Source, Bundle)):
        raise GraphError(
            f"got the op {operation.op!r}; there is none of this name that a graph may use; was "
            f"the file made by a newer version?"
        )
    required, kinds = _attributes(op)
    if not required <= set(operation.attrs) <= set(kinds):
        raise GraphError(
            f"{operation.op}: got the attributes {sorted(operation.attrs)}; expected "
            f"{sorted(kinds)}"
        )
    for name, value in operation.attrs.items():
        if kinds[name] == _BODY:
            continue  # ``with_bodies`` looks into it
        if not _kinds(value) <= kinds[name]:
            raise GraphError(
                f"{operation.op}: got {name}={value_text(value)}; expected "
                f"{' or '.join(sorted(kind for _, kind in kinds[name]))}"
            )
    return op


def _attributes(op: Op) -> tuple[set[str], dict[str, set[tuple[int, str]]]]:
    """The attributes that an op must have, and of what kinds each may be, as in its samples."""
    known = _known.get(op)
    if known is None:
        kinds: dict[str, set[tuple[int, str]]] = {}
        samples = [sample.attrs for sample in op.samples()]
        for attrs in samples:
            for name, value in attrs.items():
                kinds.setdefault(name, set()).update(_kinds(value))
        required = {name for name in kinds if all(name in attrs for attrs in samples)}
        known = _known[op] = required, kinds
    return known


_known: dict[Op, tuple[set[str], dict[str, set[tuple[int, str]]]]] = {
    project: ({"index"}, {"index": {(0, "int")}})
}


def _kinds(value: Any, depth: int = 0) -> set[tuple[int, str]]:
    """The types of what is in a value, and how deep it is there. Empty tuples have none."""
    if isinstance(value, tuple):
        return {kind for item in value for kind in _kinds(item, depth + 1)}
    return {(depth, "int" if isinstance(value, Size) else type(value).__name__)}


def bind(graph: Graph, sizes: Mapping[str, int]) -> Bound:
    """The graph with these sizes.

    Raises:
        GraphError: where an operation cannot be applied, with its value, line and reason.
    """
    types: list[Any] = [_type(x, sizes) for x in graph.inputs]
    types += [_type(w, sizes) for w in graph.weights]
    types += [type_of(n.dtype, ()) for n in graph.numbers]
    outside = len(graph.inputs) + len(graph.weights)
    specs: list[Spec] = []
    draws: dict[int, int] = {}
    for operation in graph.operations:
        value = len(types)
        try:
            sig = _signature(operation, types, sizes)
        except (TreadleError, ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
            told = f" [{operation.site}]" if operation.site else ""
            raise GraphError(f"graph {graph.name!r}, %{value}: {error}{told}") from None
        inputs: list[Reference] = []
        for i in operation.inputs:
            if i >= graph.first:
                inputs.append(i - graph.first)
            else:
                inputs.append((i - outside,) if i >= outside else ~i)
        specs.append(Spec(sig, tuple(inputs), False, 0))
        if "random" in sig.op.traits:
            for i in operation.inputs[:3]:
                draws[i] = counters(sig.types[0].size, sig.types[0].dtype)
        types.append(sig.type)
    results = tuple(dict.fromkeys([*refs(graph.outputs), *graph.updates.values()]))
    made = tuple([v - graph.first for v in results if v >= graph.first])
    _check_results(graph, results, types, sizes)
    template = Template(tuple(specs), made, None) if made else None
    return Bound(template, draws, results, dict(sizes))


def _type(told: Input | Weight, sizes: Mapping[str, int]) -> Type:
    return type_of(told.dtype, resolve(told.shape, sizes))  # type: ignore[arg-type]


def _signature(operation: Operation, types: Sequence[Any], sizes: Mapping[str, int]) -> Any:
    op = op_of(operation)
    attrs: dict[str, Any] = {k: resolve(v, sizes) for k, v in operation.attrs.items()}
    attrs = with_bodies(op, attrs, op_of)
    sig = signature_of(op, tuple([types[i] for i in operation.inputs]), attrs)
    if operation.types is not None:
        told = [type_text(dtype, resolve(shape, sizes)) for dtype, shape in operation.types]  # type: ignore[arg-type]
        if told != list(map(str, sig.types)):
            raise GraphError(f"{op.name}: got the types {told}; expected {list(sig.types)}")
    return sig


def _check_results(
    graph: Graph, results: Sequence[int], types: Sequence[Any], sizes: Mapping[str, int]
) -> None:
    for value in results:
        if not isinstance(types[value], Type):
            raise GraphError(f"graph {graph.name!r}: %{value} has several results; project one")
    weights = {w.name: _type(w, sizes) for w in graph.weights}
    for name, value in graph.updates.items():
        if name in weights and weights[name] is not types[value]:
            raise GraphError(
                f"graph {graph.name!r}: got {types[value]} for the weight {name!r}, which is "
                f"{weights[name]}"
            )


def scalars_of(
    graph: Graph, bound: Bound, step_number: Callable[[int, int], float]
) -> tuple[Scalar, ...]:
    """The numbers of one call: random operations draw now, ``step_number`` knows optimizers'."""
    key: tuple[int, ...] = ()
    made = []
    first = len(graph.inputs) + len(graph.weights)
    for position, n in enumerate(graph.numbers):
        if n.rule == "draw":
            if n.value == "seed":
                key = default_generator.next_offset(bound.draws.get(first + position, 0))
            x = key[DRAWN.index(n.value)]
            made.append(number((x + _HALF) % _WHOLE - _HALF, dtypes.int64))
        else:
            made.append(number(plain_number(n, bound, step_number), n.dtype))
    return tuple(made)


def plain_number(n: Number, bound: Bound, step_number: Callable[[int, int], float]) -> Any:
    """What a number is that nobody draws."""
    if n.rule == "optimizer":
        return step_number(*n.value)
    if n.rule == "ratio":
        try:
            return ratio_at(n.value, bound.sizes)
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise GraphError(f"the number {n.value} with {bound.sizes}: {error}") from None
    if n.rule == "size":
        return n.value.at(bound.sizes) if isinstance(n.value, Size) else n.value
    return n.value


def call(bound: Bound, nodes: Sequence[Node], scalars: tuple[Scalar, ...]) -> dict[int, Node]:
    """Records a call; ``nodes`` are inputs and weights. The results by their values."""
    known: dict[int, Node] = dict(enumerate((*nodes, *scalars)))
    first = len(known)
    if bound.template is not None:
        outs = call_template(
            bound.template, scalars, tuple(nodes), recorder.state, user_site(), None
        )
        made = [v for v in bound.results if v >= first]
        known.update(zip(made, outs, strict=True))
    return {v: known[v] for v in bound.results}


__all__ = [
    "DRAWN", "Bound", "GraphError", "bind", "call", "op_of", "plain_number", "scalars_of",
]  # fmt: skip
