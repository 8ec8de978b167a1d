"""What ``export(..., optimize=True)`` does to graphs before they become a program.

It may change bits, so it is done once, where the user asks for it, and the file says what was done;
from then on the program's numbers are those of its graphs, as for every program.

- Batch normalisation behind a convolution goes into its weight: scales and shifts by channel, in
  double precision, rounded once.
- What depends on weights alone is computed now, by the same kernels.

Weights that one of the graphs updates stay as they are, with all that reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import numpy as np

from treadle.base.record import Record
from treadle.export.bind import op_of
from treadle.export.program import ExportedProgram
from treadle.ir.graph import Graph, Input, Number, Operation, Ref, Weight, filled, refs
from treadle.ir.op import View
from treadle.ir.size import names_in
from treadle.tensor.creation import as_tensor
from treadle.tensor.storage import array_of
from treadle.tensor.tensor import Tensor

Array = np.ndarray[Any, Any]
# A value of the graph by its number, a new weight by its name, or what stands before a value.
Value = int | str | tuple[int, str]

BATCH_NORM, CONSTANTS = "fold_batch_norm", "fold_constants"


def optimize(program: ExportedProgram) -> ExportedProgram:
    """The program with optimised graphs, which its ``optimizations`` list."""
    updated = {name for graph in program.graphs.values() for name in graph.updates}
    weights: dict[str, Tensor] = dict(program.weights)
    graphs: dict[str, Graph] = {}
    done: dict[str, dict[str, int]] = {}
    for name, graph in program.graphs.items():
        counts: dict[str, int] = {}
        for kind, rewrite in ((BATCH_NORM, _fold_batch_norm), (CONSTANTS, _fold_constants)):
            edit = _Edit(graph, weights, updated)
            counts[kind] = rewrite(edit)
            graph = edit.finished()
        graphs[name] = graph
        done[name] = counts
    used = {w.name for graph in graphs.values() for w in graph.weights} | updated
    kept = {name: tensor for name, tensor in weights.items() if name in used}
    return ExportedProgram(graphs, kept, program.optimizers, done)


class _Edit:
    """A graph while it is rewritten. New weights go to ``weights``, which the program shares."""

    def __init__(self, graph: Graph, weights: dict[str, Tensor], updated: set[str]) -> None:
        self.graph = graph
        self.weights = weights
        self.operations: dict[Value, Any] = dict(enumerate(graph.operations, graph.first))
        self.results = {*refs(graph.outputs), *graph.updates.values()}
        self.users: dict[int, list[int]] = {}
        for value, operation in enumerate(graph.operations, graph.first):
            for i in operation.inputs:
                self.users.setdefault(i, []).append(value)
        self.constant = self._constant(updated)

    def _constant(self, updated: set[str]) -> set[int]:
        """The values that are the same in every call."""
        outside = (*self.graph.inputs, *self.graph.weights, *self.graph.numbers)
        found = {
            value for value, told in enumerate(outside)
            if (isinstance(told, Weight) and told.name not in updated)
            or (isinstance(told, Number) and told.rule == "literal")
        }  # fmt: skip
        for value, operation in enumerate(self.graph.operations, self.graph.first):
            if (
                found.issuperset(operation.inputs)
                and "random" not in op_of(operation).traits
                and not names_in(operation.attrs.values())
            ):
                found.add(value)
        return found

    def operation(self, value: int) -> Operation | None:
        """What computes a value; None for inputs, weights and numbers."""
        return None if value < self.graph.first else self.graph.operations[value - self.graph.first]

    def is_view(self, value: int) -> bool:
        """True where a value is another one's memory read in another way."""
        operation = self.operation(value)
        return operation is not None and isinstance(op_of(operation).lower, View)

    def shape(self, value: int) -> Any:
        """The shape of a value; None where it is not told."""
        operation = self.operation(value)
        if operation is not None:
            return operation.types[0][1] if operation.types else None
        told: Any = (*self.graph.inputs, *self.graph.weights, *self.graph.numbers)[value]
        return getattr(told, "shape", ())

    def arrays(self, values: Iterable[int]) -> dict[int, Array]:
        """What constant values are."""
        wanted = tuple(dict.fromkeys(values))
        if not wanted:
            return {}
        part = self._rebuilt(tuple(map(Ref, wanted)), {}, ())
        weights = {w.name: self.weights[w.name] for w in part.weights}
        found = ExportedProgram({part.name: part}, weights, [])()
        return {v: array_of(t.node) for v, t in zip(wanted, found, strict=True)}

    def add_weight(self, name: str, array: Array) -> str:
        """A new weight; the one of this name, if it is the same. Its name."""
        made: Tensor = as_tensor(array.copy())
        names = (f"{name}.{number}" if number else name for number in count())
        while True:
            free = next(names)
            known = self.weights.setdefault(free, made)
            if known is made or _is_same(array_of(known.node), array):
                return free

    def finished(self) -> Graph:
        """The graph as it was rewritten, without what nobody needs any more."""
        return self._rebuilt(self.graph.outputs, self.graph.updates, self.graph.inputs)

    def _rebuilt(
        self, outputs: Any, updates: Mapping[str, int], inputs: tuple[Input, ...]
    ) -> Graph:
        needed: set[Value] = {*refs(outputs), *updates.values()}
        live: list[Value] = []
        for value in sorted(self.operations, key=_rank, reverse=True):
            if value in needed:
                live.append(value)
                needed.update(self.operations[value].inputs)
        live.reverse()
        first = len(self.graph.inputs)
        weights: list[tuple[Value, Weight]] = [
            (v, w) for v, w in enumerate(self.graph.weights, first) if v in needed
        ]
        known = {w.name for _, w in weights}
        for name in sorted(v for v in needed if isinstance(v, str) and v not in known):
            tensor = self.weights[name]
            weights.append((name, Weight(name, tensor.dtype, tuple(tensor.shape))))
        first += len(self.graph.weights)
        numbers = [(v, n) for v, n in enumerate(self.graph.numbers, first) if v in needed]
        order = [*range(len(inputs)), *(v for v, _ in weights), *(v for v, _ in numbers), *live]
        places = {value: place for place, value in enumerate(order)}
        return self.graph._replace(
            sizes=self.graph.sizes if inputs else {}, inputs=inputs,
            weights=tuple([w for _, w in weights]), numbers=tuple([n for _, n in numbers]),
            operations=tuple([
                o._replace(inputs=tuple([places[i] for i in o.inputs]))
                for o in map(self.operations.__getitem__, live)
            ]),
            arguments=self.graph.arguments if inputs else (),
            keywords=self.graph.keywords if inputs else {},
            outputs=_moved(outputs, places), updates={k: places[v] for k, v in updates.items()},
        )  # fmt: skip


def _rank(value: Value) -> tuple[int, bool]:
    return (value[0], False) if isinstance(value, tuple) else (int(value), True)


def _is_same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _moved(structure: Any, places: Mapping[Value, int]) -> Any:
    return filled(structure, {v: Ref(places[v]) for v in refs(structure)})


class _Affine(Record):
    """A convolution and what scales and shifts its channels: (op, is the channels' value the
    second operand, that value), up to the value ``last``."""

    convolution: int
    steps: tuple[tuple[str, bool, int], ...]
    last: int


def _fold_batch_norm(edit: _Edit) -> int:
    """conv(x, w) * s + t  ->  conv(x, w * s) + t, where s and t are known; how many."""
    found = []
    for value, operation in enumerate(edit.graph.operations, edit.graph.first):
        if operation.op == "conv_forward" and operation.inputs[1] in edit.constant:
            chain = _affine(edit, value)
            if any(op in ("mul", "div") for op, _, _ in chain.steps):
                found.append(chain)
    needed = {v for chain in found for _, _, v in chain.steps}
    needed |= {edit.operations[chain.convolution].inputs[1] for chain in found}
    arrays = edit.arrays(needed)
    for chain in found:
        _fold(edit, chain, arrays)
    return len(found)


def _affine(edit: _Edit, convolution: int) -> _Affine:
    """What follows a convolution for as long as it goes over whole channels."""
    steps = []
    last = convolution
    while last not in edit.results and len(edit.users.get(last, ())) == 1:
        (user,) = edit.users[last]
        operation = edit.graph.operations[user - edit.graph.first]
        if operation.op not in ("add", "sub", "mul", "div"):
            break
        is_second = operation.inputs[0] == last
        channels = _channels(edit, operation.inputs[is_second], edit.shape(convolution))
        if channels is None or (operation.op == "div" and not is_second):
            break
        steps.append((operation.op, is_second, channels))
        last = user
    return _Affine(convolution, tuple(steps), last)


def _channels(edit: _Edit, value: int, shape: Any) -> int | None:
    """The known value with a number for each channel that was expanded to this, if it was."""
    operation = edit.operation(value)
    if value not in edit.constant and (operation is None or operation.op != "expand"):
        return None
    if operation is not None and operation.op == "expand":
        (value,) = operation.inputs
    told = edit.shape(value)
    if value not in edit.constant or told is None or shape is None:
        return None
    whole = (1,) * (len(shape) - len(told)) + tuple(told)
    is_fitting = all(n == 1 or (axis == 1 and n == shape[1]) for axis, n in enumerate(whole))
    return value if is_fitting and len(whole) == len(shape) else None


def _fold(edit: _Edit, chain: _Affine, arrays: Mapping[int, Array]) -> None:
    operation = edit.operations[chain.convolution]
    weight = arrays[operation.inputs[1]]
    scale, shift = np.ones(len(weight)), np.zeros(len(weight))
    for op, is_second, value in chain.steps:
        numbers = arrays[value].astype(np.float64).reshape(-1)
        if op == "mul":
            scale, shift = scale * numbers, shift * numbers
        elif op == "div":
            scale, shift = scale / numbers, shift / numbers
        elif op == "add":
            shift = shift + numbers
        elif is_second:
            shift = shift - numbers
        else:
            scale, shift = -scale, numbers - shift
    spread = (-1, *(1,) * (weight.ndim - 1))
    name = _name(edit, operation.inputs[1])
    scaled = (weight * scale.reshape(spread)).astype(weight.dtype)
    folded = edit.add_weight(f"{name}.folded", scaled)
    bias = shift.astype(weight.dtype).reshape(spread[:-1])
    edit.operations[chain.convolution] = operation._replace(inputs=(operation.inputs[0], folded))
    last: Any = edit.graph.operations[chain.last - edit.graph.first]
    expand: Value = (chain.last, "shift")
    edit.operations[expand] = Operation(
        "expand", (edit.add_weight(f"{name}.shift", bias),),  # type: ignore[arg-type]
        {"shape": operation.types[0][1]}, operation.types, operation.site, operation.scope,
    )  # fmt: skip
    edit.operations[chain.last] = last._replace(
        op="add", inputs=(chain.convolution, expand), attrs={}, site=operation.site,
        scope=operation.scope,
    )  # fmt: skip


def _name(edit: _Edit, value: int) -> str:
    """The weight that a value is a view of; the name of its scope where it is computed."""
    while edit.is_view(value):
        (value, *_) = edit.graph.operations[value - edit.graph.first].inputs
    place = value - len(edit.graph.inputs)
    if 0 <= place < len(edit.graph.weights):
        return edit.graph.weights[place].name
    operation = edit.operation(value)
    return (operation.scope if operation is not None else "") or "constant"


def _fold_constants(edit: _Edit) -> int:
    """f(weights)  ->  a weight, for every known value that something unknown reads; how many."""
    found = set()
    for value, operation in enumerate(edit.graph.operations, edit.graph.first):
        if value not in edit.constant:
            found |= {_computed(edit, i) for i in operation.inputs if i in edit.constant}
    found |= {_computed(edit, v) for v in edit.results if v in edit.constant}
    wanted = sorted(v for v in found if v is not None)
    for value, array in edit.arrays(wanted).items():
        name = edit.add_weight(f"{_name(edit, value)}.folded", array)
        for user in edit.users[value]:
            inputs = edit.operations[user].inputs
            edit.operations[user] = edit.operations[user]._replace(
                inputs=tuple([name if i == value else i for i in inputs])
            )
    return len(wanted)


def _computed(edit: _Edit, value: int) -> int | None:
    """The value behind views, if it is computed and could be a weight."""
    while edit.is_view(value):
        (value, *_) = edit.graph.operations[value - edit.graph.first].inputs
    operation = edit.operation(value)
    is_one = operation is not None and operation.types is not None and len(operation.types) == 1
    return value if is_one and value not in edit.results else None


__all__ = ["optimize"]
