"""Sizes that stay open: which ones the user wants, and one graph from graphs of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from treadle.base.record import Record
from treadle.export.capture import ExportError
from treadle.export.ratios import fit_ratio
from treadle.ir.graph import Graph, Number, Operation, Ref, filled
from treadle.ir.graph_syntax import RESERVED
from treadle.ir.size import fit, monomials

MOST = 1 << 31
_MOST_NAMES = 3


class Dim:
    """A size that is known when a program is called, between ``min`` and ``max``.

    Source: PyTorch's ``torch.export.Dim``.

    >>> Dim("batch", min=1, max=64)
    Dim('batch', min=1, max=64)
    """

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None) -> None:
        if not name.isidentifier() or not name.isascii() or name in RESERVED:
            raise ValueError(
                f"Dim: got the name {name!r}; expected letters, digits and underscores, and no "
                f"name of a dtype"
            )
        self.__name__ = name
        self.min = 1 if min is None else int(min)
        self.max = MOST if max is None else int(max)
        if not 0 <= self.min <= self.max:
            raise ValueError(f"Dim: got min={min} and max={max}; expected 0 <= min <= max")

    def __repr__(self) -> str:
        return f"Dim({self.__name__!r}, min={self.min}, max={self.max})"


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """Several ``Dim``: ``batch, length = dims("batch", "length")``."""
    return tuple([Dim(name, min=min, max=max) for name in names])


class Open(Record):
    """An open size: in which dimensions of which inputs (by position) it stands."""

    dim: Dim
    places: tuple[tuple[int, int], ...]
    example: int


def points(sizes: Sequence[Open]) -> list[dict[str, int]]:
    """The sizes to capture with, the example's first: enough of them to fit polynomials and to
    check these with others."""
    if len(sizes) > _MOST_NAMES:
        raise ExportError(
            f"export: got {len(sizes)} open sizes; at most {_MOST_NAMES} can be told apart"
        )
    found = [{s.dim.__name__: s.example for s in sizes}]
    wanted = len(monomials([s.dim.__name__ for s in sizes])) + 4
    step = 0
    draw = Random(0)
    while len(found) < wanted:
        step += 1
        point = {
            s.dim.__name__: _within(s.dim, s.example + draw.randrange(1, 37), step) for s in sizes
        }
        if point not in found:
            found.append(point)
        elif step > 400:
            least = min(s.dim.max - s.dim.min for s in sizes) + 1
            raise ExportError(
                f"export: an open size may take {least} values only; {wanted} are needed to find "
                f"out what follows from it; widen min and max of Dim"
            )
    return found


def _within(dim: Dim, size: int, step: int) -> int:
    if dim.min <= size <= dim.max:
        return size
    return dim.min + (size + step) % (dim.max - dim.min + 1)


def unite(graphs: Sequence[Graph], at: Sequence[Mapping[str, int]], sizes: Sequence[Open]) -> Graph:
    """The graph that is each of ``graphs`` at its sizes.

    Raises:
        ExportError: where Python decided by a size, or an attribute is no polynomial of them.
    """
    first = graphs[0]
    for other, point in zip(graphs, at, strict=True):
        _check_alike(first, other, point)
    bounds = {s.dim.__name__: (s.dim.min, s.dim.max) for s in sizes}
    fitter = _Fitter(at)
    inputs = tuple([
        x._replace(shape=fitter.tuple([g.inputs[i].shape for g in graphs], x.name, ""))
        for i, x in enumerate(first.inputs)
    ])  # fmt: skip
    numbers = tuple(
        [fitter.number([g.numbers[i] for g in graphs]) for i in range(len(first.numbers))]
    )
    operations = tuple(
        [fitter.operation([g.operations[i] for g in graphs]) for i in range(len(first.operations))]
    )
    united = first._replace(sizes=bounds, inputs=inputs, numbers=numbers, operations=operations)
    return without_twins(united)


def without_twins(graph: Graph) -> Graph:
    """The graph with equal numbers merged (what a random operation draws stays its own)."""
    start = len(graph.inputs) + len(graph.weights)
    kept: dict[Any, int] = {}
    numbers: list[Number] = []
    places = list(range(start))
    for n in graph.numbers:
        key: Any = object() if n.rule == "draw" else (n.rule, repr(n.value), n.dtype)
        if key not in kept:
            kept[key] = start + len(numbers)
            numbers.append(n)
        places.append(kept[key])
    places += range(start + len(numbers), start + len(numbers) + len(graph.operations))
    return graph._replace(
        numbers=tuple(numbers),
        operations=tuple([
            o._replace(inputs=tuple([places[i] for i in o.inputs])) for o in graph.operations
        ]),
        outputs=filled(graph.outputs, {v: Ref(place) for v, place in enumerate(places)}),
        updates={name: places[v] for name, v in graph.updates.items()},
    )  # fmt: skip


def _check_alike(first: Graph, other: Graph, point: Mapping[str, int]) -> None:
    told = ", ".join(f"{name}={size}" for name, size in point.items())
    for a, b in zip(first.operations, other.operations, strict=False):
        if (a.op, a.inputs, set(a.attrs)) != (b.op, b.inputs, set(b.attrs)):
            raise ExportError(
                f"export: with the sizes {told} the function records {b.op} at {b.site}, with "
                f"those of the example {a.op} at {a.site}: Python decided by an open size; fix "
                f"this size (leave it out of dynamic_shapes), or write it without the decision"
            )
    if (
        len(first.operations) != len(other.operations)
        or (first.outputs, first.updates) != (other.outputs, other.updates)
        or first.weights != other.weights
        or [n._replace(value=None) for n in first.numbers]
        != [n._replace(value=None) for n in other.numbers]
    ):
        raise ExportError(
            f"export: with the sizes {told} the function records {len(other.operations)} "
            f"operations, with those of the example {len(first.operations)}: Python decided by an "
            f"open size, or a loop runs over it; fix this size (leave it out of dynamic_shapes)"
        )


class _Fitter:
    """Finds the polynomials of what differs."""

    def __init__(self, at: Sequence[Mapping[str, int]]) -> None:
        self.at = at

    def value(self, values: Sequence[Any], what: str, site: str) -> Any:
        """One value for the values at all points."""
        first = values[0]
        if all(type(v) is type(first) and v == first for v in values):
            return first
        if isinstance(first, tuple) and len({len(v) for v in values}) == 1:
            return self.tuple(values, what, site)
        if all(type(v) is int for v in values):
            found = fit(values, self.at)
            if found is not None:
                return found
        told = "; ".join(
            f"{value} with {', '.join(f'{k}={n}' for k, n in point.items())}"
            for value, point in list(zip(values, self.at, strict=True))[:3]
        )
        raise ExportError(
            f"export: {what} at {site or 'an unknown line'} is {told}, which does not follow from "
            f"the open sizes by multiplying and adding; fix this size (leave it out of "
            f"dynamic_shapes)"
        )

    def tuple(self, values: Sequence[Any], what: str, site: str) -> tuple[Any, ...]:
        """``value`` for each place."""
        return tuple([self.value(items, what, site) for items in zip(*values, strict=True)])

    def number(self, numbers: Sequence[Number]) -> Number:
        """A number; one that is not the same everywhere becomes a size."""
        first = numbers[0]
        values = [n.value for n in numbers]
        if all(repr(v) == repr(values[0]) for v in values):
            return first
        if first.rule == "literal" and all(float(v).is_integer() for v in values):
            found = fit([int(v) for v in values], self.at)
            if found is not None:
                return Number("size", found, first.dtype)
        elif first.rule == "literal":
            ratio = fit_ratio(values, self.at)
            if ratio is not None:
                return Number("ratio", ratio, first.dtype)
        return first._replace(value=self.value(values, "a number", ""))

    def operation(self, operations: Sequence[Operation]) -> Operation:
        """An operation; its types are left out where the sizes in them are no polynomials."""
        first = operations[0]
        attrs = {
            key: self.value(
                [o.attrs[key] for o in operations], f"{first.op}({key}=...)", first.site
            )
            for key in first.attrs
        }
        types: Any = None
        shapes = [[shape for _, shape in o.types or ()] for o in operations]
        try:
            fitted = self.tuple([tuple(s) for s in shapes], first.op, first.site)
            types = tuple([(t[0], s) for t, s in zip(first.types or (), fitted, strict=True)])
        except ExportError:
            types = None
        return first._replace(attrs=attrs, types=types)


__all__ = ["Dim", "Open", "dims", "points", "unite", "without_twins"]
