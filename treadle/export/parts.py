"""A graph by its scopes: what a drawing shows as boxes, and what is inside of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from treadle.base.record import Record
from treadle.export.bind import bind
from treadle.ir.graph import Graph

MOST = 60  # boxes of one level, with those of inputs and outputs
_DEPTH = 24  # of scopes in each other


class Part(Record):
    """An operation (then ``inside`` is empty), a scope, or neighbours that were put together.

    ``operations`` are places in the graph's; ``path`` is the scope's.
    """

    name: str
    path: str
    operations: tuple[int, ...]
    inside: tuple[Part, ...]


def parts_of(graph: Graph) -> tuple[Part, ...]:
    """The parts of the top level.

    What depends on no input is not among them: it belongs to the weights that it reads.
    """
    known = set(range(len(graph.inputs)))
    shown = []
    for place, operation in enumerate(graph.operations):
        if known.intersection(operation.inputs) or not operation.inputs:
            known.add(graph.first + place)
            shown.append(place)
    most = MOST - 1 - min(len(graph.inputs), MOST // 4)
    parts = _inside(graph, shown, ())
    while len(parts) == 1 and parts[0].inside:  # a function that calls one module
        parts = parts[0].inside
    return _limited(parts, most)


def _inside(graph: Graph, places: Sequence[int], path: tuple[str, ...]) -> tuple[Part, ...]:
    """The operations and inner scopes of a scope, in the order in which they come."""
    found: dict[object, list[int]] = {}
    for place in places:
        scope = graph.operations[place].scope.split(".", _DEPTH)
        is_inner = bool(scope[0]) and len(scope) > len(path)
        found.setdefault(scope[len(path)] if is_inner else place, []).append(place)
    made = []
    for key, own in found.items():
        if isinstance(key, str):
            inner = (*path, key)
            parts = _inside(graph, own, inner)
            if len(parts) == 1 and parts[0].inside:  # one scope and nothing else
                made.append(parts[0]._replace(name=f"{key}.{parts[0].name}"))
            else:
                made.append(Part(key, ".".join(inner), tuple(own), _limited(parts, MOST)))
        else:
            name = graph.operations[own[0]].op
            made.append(Part(name, ".".join(path), tuple(own), ()))
    return tuple(made)


def _limited(parts: tuple[Part, ...], most: int) -> tuple[Part, ...]:
    """At most so many: neighbours are put together where there are more."""
    if len(parts) <= most:
        return parts
    size = -(-len(parts) // most)
    runs = [parts[i : i + size] for i in range(0, len(parts), size)]
    return tuple([_together(run) for run in runs])


def _together(run: tuple[Part, ...]) -> Part:
    if len(run) == 1:
        return run[0]
    operations = tuple([i for part in run for i in part.operations])
    return Part(f"{run[0].name} to {run[-1].name}", run[0].path, operations, _limited(run, MOST))


def costs(graph: Graph, sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    """Of each operation with these sizes: operations on numbers, and bytes read and written."""
    bound = bind(graph, sizes)
    found = []
    for spec in bound.template.specs if bound.template is not None else ():
        cost = spec.sig.op.cost(spec.sig.inputs, spec.sig.type, spec.sig.attrs)
        found.append((int(cost.flops), int(cost.bytes)))
    return found


def summary(graph: Graph, part: Part) -> str:
    """The operations of a part by kind, the most frequent first."""
    counts = Counter(graph.operations[i].op for i in part.operations)
    return ", ".join(f"{n} {op}" if n > 1 else op for op, n in counts.most_common())


__all__ = ["MOST", "Part", "costs", "parts_of", "summary"]
