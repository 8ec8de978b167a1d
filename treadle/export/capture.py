"""Captures what a function records as a graph of its own (``ir/graph.py``).

The function is run, but nothing is evaluated: what it recorded is followed back from its results,
and from what it left in the state that it reaches, to its arguments and to the values that were
there before. For sizes that are to stay open it is run with several sizes; what differs between
the graphs must follow from the sizes, and is fitted by polynomials.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NoReturn

from treadle.base import dtypes
from treadle.base.errors import TreadleError
from treadle.base.record import Record
from treadle.compiler.tier0 import evaluate, value_of
from treadle.export.bodies import plain
from treadle.export.scopes import Scopes
from treadle.export.state import Snapshot, State, nodes_by_identity
from treadle.ir.call import write_out
from treadle.ir.graph import Graph, Input, Number, Operation, Ref, Weight
from treadle.ir.node import (
    Leaf,
    Node,
    Recording,
    Scalar,
    describe_site,
    from_value,
    recorder,
    user_site,
)
from treadle.ir.op import Bundle
from treadle.ops.source import buffer, number
from treadle.optim.optimizer import Step
from treadle.tensor.creation import zeros
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.tensor import Tensor

_SAME = frozenset({"alias", "detach"})  # ops whose result is their input
_KEYS = ("seed", "stream", "offset")


class ExportError(TreadleError, RuntimeError):
    """A function that cannot become a graph: which line prevents it, and what to write instead."""


class Captured(Record):
    """A graph, the weights it reads from outside by name, and the numbers' optimizers in order."""

    graph: Graph
    constants: dict[str, Node]
    optimizers: tuple[str, ...]


class Tracer:
    """What recording asks instead of evaluating, while a function is captured."""

    def __init__(self, state: State) -> None:
        self.names = {id(o): name for name, o in state.optimizers.items()}
        self.optimizers: list[str] = []
        self.rules: dict[Scalar, tuple[int, int]] = {}  # the optimizer, and which of its numbers

    def refuse(self, n: Node) -> NoReturn:
        """A value was asked for."""
        site = user_site()
        raise ExportError(
            f"export: {describe_site(site)} asks for the value of a tensor ({n.type}, computed at "
            f"{describe_site(n.site)}), which a graph does not have while it is captured; choose "
            f"between tensors with treadle.where, or let Python decide by sizes and settings"
        )

    def step_numbers(self, step: Step) -> list[Scalar]:
        """The numbers of an optimizer's step, each a node of its own."""
        optimizer = step.optimizer
        name = self.names.get(id(optimizer))
        if name is None:
            raise ExportError(
                f"export: {describe_site(user_site())} takes a step of an optimizer "
                f"({type(optimizer).__name__}) that the exported function makes itself; make it "
                f"before, so that its state can be kept"
            )
        if name in self.optimizers:
            raise ExportError(
                f"export: {describe_site(user_site())} takes a second step of the same optimizer; "
                f"export a function that takes one, and call it as often as you like"
            )
        if not type(optimizer).__module__.startswith("treadle."):
            raise ExportError(
                f"export: the optimizer {type(optimizer).__name__} is a class of yours, whose code "
                f"no file holds; use one of treadle.optim"
            )
        counts = {job.state.get("step", 0) for job in step.jobs}
        if len(counts) > 1 or len(optimizer.param_groups) > 1:
            raise ExportError(
                f"export: the optimizer {type(optimizer).__name__} has "
                f"{len(optimizer.param_groups)} groups whose parameters have taken "
                f"{sorted(counts)} steps; export takes one group with one count"
            )
        self.optimizers.append(name)
        scalars = []
        for row, dtype in step.rows:
            for place, value in enumerate(row):
                scalar = number(value, dtype).twin()
                self.rules[scalar] = len(self.optimizers) - 1, place
                scalars.append(scalar)
        return scalars


def capture(
    name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any],
    state: State, apart: bool = False,
) -> Captured:  # fmt: skip
    """The graph of one call with these arguments; everything is as before when it returns.

    ``apart``: a number that is read in two places becomes two, which may differ elsewhere.
    """
    evaluate()
    _begin(state)
    snapshot = Snapshot(state)
    outside = recorder.state
    if outside.tracer is not None:
        raise ExportError("export: got a call of export inside a function being exported")
    settings = [[dict(g) for g in o.param_groups] for o in state.optimizers.values()]
    try:
        inputs = _Inputs(function)
        handed = inputs.named(args, kwargs)
        gradients = _foreign_gradients(state)
        evaluate()  # copies of arguments and the like
        known = nodes_by_identity(state)
        before = {p.name: p.get().node for p in state.places()}
        tracer = Tracer(state)
        recorder.state = recording = Recording()
        recording.grad_enabled, recording.tracer = outside.grad_enabled, tracer
        with Scopes(state) as scopes:
            result = function(*handed[0], **handed[1])
        write_out(recording)
        _check_settings(state, settings)
        after = {p.name: p.get().node for p in state.places()}
        if set(after) != set(before):
            more = ", ".join(sorted(set(after) ^ set(before)))
            raise ExportError(
                f"export: the function adds to, or removes from, what is kept between its calls "
                f"({more}); call it once before exporting, so that all of it is there"
            )
        changed = {k: n for k, n in after.items() if n is not before[k]}
        builder = _Builder(name, inputs, known, gradients, tracer, scopes, apart)
        return builder.build(handed, result, changed)
    finally:
        recorder.state = outside
        snapshot.restore()


def _begin(state: State) -> None:
    """Makes the state that optimizers make at their first step."""
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    optimizer._begin(group, p, optimizer.state[p])
    evaluate()


def _foreign_gradients(state: State) -> dict[Node, str]:
    """Gives every parameter a gradient that the function must not read (restored by a snapshot)."""
    found = {}
    for p in state.trained():
        if p.requires_grad:
            p._grad = wrap(zeros(tuple(p.shape), dtype=p.dtype).node)
            found[p._grad._node] = f"a parameter of shape {tuple(p.shape)}"
    return found


def _check_settings(state: State, before: list[list[dict[str, Any]]]) -> None:
    for (name, optimizer), old in zip(state.optimizers.items(), before, strict=True):
        for group, was in zip(optimizer.param_groups, old, strict=True):
            for key, value in was.items():
                if key != "params" and group[key] != value:
                    raise ExportError(
                        f"export: the function changes {key} of {name} from {value} to "
                        f"{group[key]}, which a graph cannot do; step the scheduler outside, and "
                        f"set program.optimizers[0][{key!r}] between calls"
                    )


class _Inputs:
    """The tensors among a function's arguments, by name, in the order in which they come."""

    def __init__(self, function: Callable[..., Any]) -> None:
        target = getattr(function, "forward", function)
        try:
            self.signature: inspect.Signature | None = inspect.signature(target)
        except (TypeError, ValueError):
            self.signature = None
        self.nodes: dict[Node, int] = {}
        self.inputs: list[Input] = []

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The arguments with every tensor replaced by a new one, which is an input."""
        names = [f"arg{i}" for i in range(len(args))]
        if self.signature is not None:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise ExportError(f"export: the example arguments do not fit: {error}") from None
            parameters = list(self.signature.parameters.values())
            for position in range(len(args)):
                if position < len(parameters):
                    p = parameters[position]
                    if p.kind is p.VAR_POSITIONAL:
                        names[position:] = [f"{p.name}.{i}" for i in range(len(args) - position)]
                        break
                    names[position] = p.name
        handed = tuple([self._walk(n, x) for n, x in zip(names, args, strict=True)])
        return handed, {key: self._walk(key, x) for key, x in kwargs.items()}

    def _walk(self, name: str, x: Any) -> Any:
        if isinstance(x, Handle):
            return self._tensor(name, x)
        if isinstance(x, dict):
            return {key: self._walk(f"{name}.{key}", value) for key, value in x.items()}
        if isinstance(x, (tuple, list)):
            return type(x)([self._walk(f"{name}.{i}", value) for i, value in enumerate(x)])
        if x is None or isinstance(x, (bool, int, float, str)):
            return x
        raise ExportError(
            f"export: got a {type(x).__name__} for {name}; arguments are tensors, numbers, texts "
            f"and None, in tuples, lists and dictionaries"
        )

    def _tensor(self, name: str, x: Any) -> Tensor:
        value = x.detach()
        node = fixed(value.node)
        made: Tensor = wrap(node)
        if x.requires_grad:
            made.requires_grad_()
        self.nodes[made.node] = self.nodes[node] = len(self.inputs)
        self.inputs.append(Input(name, node.dtype, node.shape))
        return made

    def structure(self, x: Any) -> Any:
        """The arguments with references in the place of tensors."""
        if isinstance(x, Handle):
            return Ref(self.nodes[x.node])
        if isinstance(x, dict):
            return {key: self.structure(value) for key, value in x.items()}
        if isinstance(x, (tuple, list)):
            return type(x)([self.structure(value) for value in x])
        return x


def fixed(n: Node) -> Node:
    """A node of its own, without a past, with the value of ``n``."""
    made = from_value(buffer, n.type, value_of(n))
    made.keep = True
    return made


class _Builder:
    """Numbers the values of a graph, from what a function left back to what was there before."""

    def __init__(
        self, name: str, inputs: _Inputs, known: Mapping[Node, str],
        gradients: Mapping[Node, str], tracer: Tracer, scopes: Scopes, apart: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self.inputs = inputs
        self.known = known
        self.gradients = gradients
        self.tracer = tracer
        self.scopes = scopes
        self.apart = apart
        self.weights: dict[Node, str] = {}
        self.numbers: dict[Any, Number] = {}  # by a Scalar, or by who reads it and where
        self.order: list[Node] = []
        self.constants: dict[str, Node] = {}

    def build(self, handed: Any, result: Any, changed: Mapping[str, Node]) -> Captured:
        """The graph of a call that returned ``result`` and ``changed`` the state."""
        roots = [_source(n) for n in (*_tensors(result, self.name), *changed.values())]
        self._collect(roots)
        rank = {name: i for i, name in enumerate(self.known.values())}
        last = len(rank)
        self.weights = dict(sorted(self.weights.items(), key=lambda w: rank.get(w[1], last)))
        places: dict[Any, int] = dict(self.inputs.nodes)
        others = (*self.weights, *self.numbers, *self.order)
        places.update(zip(others, count(len(self.inputs.inputs)), strict=False))
        operations = [
            Operation(
                n.op.name, tuple([self._place(places, n, i) for i in range(len(n.inputs))]),
                plain(n.attrs), tuple([(t.dtype, t.shape) for t in n.sig.types]),
                describe_site(n.site) if n.site else "", self.scopes.of(n),
            )
            for n in self.order
        ]  # fmt: skip
        graph = Graph(
            self.name, {}, tuple(self.inputs.inputs),
            tuple([Weight(k, n.dtype, n.shape) for n, k in self.weights.items()]),
            tuple(self.numbers.values()), tuple(operations),
            self.inputs.structure(handed[0]), self.inputs.structure(handed[1]),
            _structure(result, lambda t: places[_source(t.node)]),
            {k: places[_source(n)] for k, n in changed.items()},
        )  # fmt: skip
        return Captured(graph, self.constants, tuple(self.tracer.optimizers))

    def _place(self, places: Mapping[Any, int], n: Node, position: int) -> int:
        if (n, position) in self.numbers:
            return places[n, position]
        return places[_source(n.inputs[position])]

    def _collect(self, roots: Sequence[Node]) -> None:
        """Finds everything that the roots depend on."""
        seen: set[Node] = set()
        found: list[Node] = []
        stack = list(roots)
        while stack:
            n = stack.pop()
            if n in seen or n in self.inputs.nodes:
                continue
            seen.add(n)
            if isinstance(n, Scalar):
                self.numbers[n] = self._number(n)
            elif n.value is not None:
                self._weight(n)
            else:
                found.append(n)
                for position, i in enumerate(n.inputs):
                    if _draws(n, position):
                        self.numbers[n, position] = Number("draw", _KEYS[position], dtypes.int64)
                    elif self.apart and isinstance(_source(i), Scalar):
                        self.numbers[n, position] = self._number(_source(i))
                    else:
                        stack.append(_source(i))
        self.order = sorted(found, key=lambda n: n.order)
        # Generators give their numbers in the order in which operations were recorded.
        self.numbers = dict(sorted(self.numbers.items(), key=_when))

    def _number(self, n: Any) -> Number:
        place = self.tracer.rules.get(n)
        if place is not None:
            return Number("optimizer", place, n.dtype)
        return Number("literal", n.number, n.dtype)

    def _weight(self, n: Node) -> None:
        if n in self.gradients:
            raise ExportError(
                f"export: the step adds to the gradient of {self.gradients[n]} that an earlier "
                f"step left; call optimizer.zero_grad() in it before backward()"
            )
        name = self.known.get(n)
        if name is None:
            name = f"constant.{len(self.constants)}"
            self.constants[name] = n
        self.weights[n] = name


def _when(item: tuple[Any, Number]) -> tuple[int, int]:
    key = item[0]
    return (key[0].order, key[1]) if isinstance(key, tuple) else (-1, key.order)


def _draws(n: Node, position: int) -> bool:
    """True where a random operation reads a number that its generator gave."""
    return "random" in n.op.traits and position < 3 and isinstance(n.inputs[position], Scalar)


def _source(n: Node) -> Node:
    """The node whose value this one passes on."""
    while True:
        if n.value is not None and not (isinstance(n, Leaf) and n.inputs):
            return n
        name = n.op.name
        if name in _SAME or name == "graft":
            n = n.inputs[0]
        elif name == "project" and isinstance(n.inputs[0].op.lower, Bundle):
            n = n.inputs[0].inputs[n.attrs["index"]]
        elif isinstance(n.op.lower, Bundle):
            n = n.inputs[0]  # of one result
        else:
            return n


def _tensors(result: Any, name: str) -> list[Node]:
    """The nodes of all tensors in what a function returned."""
    if isinstance(result, Handle):
        return [result.node]
    if isinstance(result, dict):
        return [n for value in result.values() for n in _tensors(value, name)]
    if isinstance(result, (tuple, list)):
        return [n for value in result for n in _tensors(value, name)]
    if result is None or isinstance(result, (bool, int, float, str)):
        return []
    raise ExportError(
        f"export: {name} returned a {type(result).__name__}; it may return tensors, numbers, texts "
        f"and None, in tuples, lists and dictionaries"
    )


def _structure(result: Any, place: Callable[[Any], int]) -> Any:
    if isinstance(result, Handle):
        return Ref(place(result))
    if isinstance(result, dict):
        return {str(key): _structure(value, place) for key, value in result.items()}
    if isinstance(result, list):
        return [_structure(value, place) for value in result]
    if isinstance(result, tuple):
        return tuple([_structure(value, place) for value in result])
    return result


__all__ = ["Captured", "ExportError", "Tracer", "capture", "fixed"]
