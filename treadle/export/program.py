"""Programs that run without the code that made them: graphs, their weights, optimizers' steps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.errors import ShapeError
from treadle.compiler.tier0 import force
from treadle.export.bind import Bound, GraphError, bind, call, scalars_of
from treadle.ir.graph import Graph, Input, Ref, filled, type_text
from treadle.ir.node import Node, located
from treadle.ir.size import Size
from treadle.tensor.creation import as_tensor, zeros
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.handle import Handle, commit, wrap
from treadle.tensor.tensor import Tensor

if TYPE_CHECKING:
    from treadle.nn.module import Module
    from treadle.optim.optimizer import Optimizer

_MOST_BOUND = 64  # combinations of sizes that are kept ready


class Steps:
    """The numbers of an optimizer's steps, which follow from its settings and their count.

    ``settings`` (``lr``, ``betas``, ...) may be changed between calls; ``steps`` counts those
    that were taken.
    """

    def __init__(self, kind: str, settings: Mapping[str, Any], steps: int) -> None:
        from treadle import optim
        from treadle.optim.optimizer import Optimizer

        known = getattr(optim, kind, None)
        if not (isinstance(known, type) and issubclass(known, Optimizer)):
            raise GraphError(f"got the optimizer {kind!r}; there is none of this name")
        try:
            self._optimizer: Optimizer = known([zeros(1)], **_arguments(known, settings))
        except (TypeError, ValueError) as error:
            raise GraphError(f"got the settings {dict(settings)} for {kind}: {error}") from None
        self.kind = kind
        self.settings = self._optimizer.param_groups[0]
        for name, value in settings.items():
            if name not in self.settings or not _alike(self.settings[name], value):
                raise GraphError(f"got {name}={value!r} for {kind}; expected a setting of it")
            self.settings[name] = value
        self.steps = steps

    def own(self) -> dict[str, Any]:
        """The settings that are saved."""
        return {k: v for k, v in self.settings.items() if k != "params"}

    def numbers(self) -> tuple[float, ...]:
        """Those of the next step."""
        return self.numbers_at(self.steps + 1)

    def numbers_at(self, step: int) -> tuple[float, ...]:
        """Those of a step, counted from 1."""
        return self._optimizer._numbers(self.settings, step)

    def __repr__(self) -> str:
        told = ", ".join(f"{k}={v!r}" for k, v in self.own().items())
        return f"{self.kind}({told}), {self.steps} steps"


def _arguments(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    import inspect

    names = inspect.signature(kind).parameters
    return {k: v for k, v in settings.items() if k in names}


def _alike(known: Any, value: Any) -> bool:
    """True where a setting may have this value: numbers stay numbers, pairs of them pairs."""
    if isinstance(known, tuple):
        return (
            isinstance(value, tuple) and len(value) == len(known)
            and all(_alike(a, b) for a, b in zip(known, value, strict=True))
        )  # fmt: skip
    if isinstance(known, bool) or known is None or isinstance(known, str):
        return value is None or isinstance(value, (bool, str, int, float))
    return isinstance(value, (int, float))


class ExportedProgram:
    """Graphs by name, which share weights. Calling it runs the first of them.

    Made by ``export`` and ``load``. What a graph does to its weights (running statistics, a whole
    training step) happens to the program's weights when it is called, all at once or not at all.
    ``optimizations`` says by graph what ``export(..., optimize=True)`` did, and how often.
    It may be called from many threads at a time; calls that change weights wait for each other.
    """

    def __init__(
        self, graphs: Mapping[str, Graph], weights: Mapping[str, Tensor], steps: Sequence[Steps],
        optimizations: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:  # fmt: skip
        self.graphs = dict(graphs)
        self.weights = dict(weights)
        self.optimizers = list(steps)
        self.optimizations = {k: dict(v) for k, v in (optimizations or {}).items()}
        self._bound: OrderedDict[Any, Bound] = OrderedDict()
        self._lock = threading.Lock()
        for name in self.optimizations:
            if name not in self.graphs:
                raise GraphError(f"got optimizations of {name!r}; there is no graph of this name")
        for graph in self.graphs.values():
            self._check(graph)

    def _check(self, graph: Graph) -> None:
        for w in graph.weights:
            known = self.weights.get(w.name)
            if known is None or (known.dtype, tuple(known.shape)) != (w.dtype, w.shape):
                there = "none" if known is None else str(known.node.type)
                raise GraphError(
                    f"graph {graph.name!r}: got {there} for the weight {w.name!r}; expected "
                    f"{type_text(w.dtype, w.shape)}"
                )
        for name in graph.updates:
            if name not in self.weights:
                raise GraphError(f"graph {graph.name!r}: there is no weight {name!r} to update")
        for n in graph.numbers:
            if n.rule == "optimizer" and not (
                0 <= n.value[0] < len(self.optimizers)
                and 0 <= n.value[1] < len(self.optimizers[n.value[0]].numbers())
            ):
                raise GraphError(f"graph {graph.name!r}: there is no number {n.value} of a step")
        if not graph.sizes:
            self._bound_to(graph, {})

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The weights by name, as they are now."""
        return dict(self.weights)

    @property
    def graph(self) -> Graph:
        """The first graph; ``print`` it to read it."""
        return next(iter(self.graphs.values()))

    @property
    def range_constraints(self) -> dict[str, tuple[int, int]]:
        """The least and the most of every open size."""
        return {k: v for graph in self.graphs.values() for k, v in graph.sizes.items()}

    def module(self) -> Module:
        """The program as a module, whose parameters are its weights."""
        from treadle.export.program_module import ProgramModule

        return ProgramModule(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the first graph."""
        return self.run(self.graph.name, *args, **kwargs)

    def run(self, graph_name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the graph of this name on tensors (or NumPy arrays) and returns its outputs."""
        graph = self.graphs.get(graph_name)
        if graph is None:
            raise located(ValueError(
                f"got the graph {graph_name!r}; the program has {', '.join(self.graphs)}"
            ))  # fmt: skip
        given: dict[int, Any] = {}
        _match(graph, graph.arguments, args, "argument", given)
        _match(graph, graph.keywords, kwargs, "keyword", given)
        with no_grad():
            tensors = [_input(graph, x, given[i]) for i, x in enumerate(graph.inputs)]
            bound = self._bound_to(graph, _sizes(graph, tensors))
            if graph.updates or self.optimizers:
                with self._lock:
                    found = self._run(graph, bound, tensors)
            else:
                found = self._run(graph, bound, tensors)
        return filled(graph.outputs, {v: wrap(n) for v, n in found.items()})

    def _run(self, graph: Graph, bound: Bound, tensors: Sequence[Tensor]) -> dict[int, Node]:
        rows: dict[int, tuple[float, ...]] = {}

        def step_number(optimizer: int, place: int) -> float:
            if optimizer not in rows:
                rows[optimizer] = self.optimizers[optimizer].numbers()
            return rows[optimizer][place]

        nodes = [t.node for t in tensors] + [self.weights[w.name].node for w in graph.weights]
        found = call(bound, nodes, scalars_of(graph, bound, step_number))
        if graph.updates:
            force(found.values())
            handles = [self.weights[name] for name in graph.updates]
            commit(handles, [found[v] for v in graph.updates.values()])
            for optimizer in rows:
                self.optimizers[optimizer].steps += 1
        return found

    def _bound_to(self, graph: Graph, sizes: dict[str, int]) -> Bound:
        key = (graph.name, *sizes.values())
        bound = self._bound.get(key)
        if bound is None:
            bound = bind(graph, sizes)
            if graph.weights and any(isinstance(s, Size) for w in graph.weights for s in w.shape):
                raise GraphError(f"graph {graph.name!r}: a weight has an open size")
            self._bound[key] = bound
            if len(self._bound) > _MOST_BOUND:
                self._bound.popitem(last=False)
        return bound

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.graphs.values()))

    def __repr__(self) -> str:
        told = "; ".join(f"{g.name}: {len(g.operations)} operations" for g in self.graphs.values())
        count = sum(w.numel() for w in self.weights.values())
        return f"<ExportedProgram {told}; {len(self.weights)} weights of {count:,} numbers>"


def _match(graph: Graph, told: Any, got: Any, path: str, found: dict[int, Any]) -> None:
    """Finds the inputs among what a call was given."""
    if isinstance(told, Ref):
        found[told.value] = got
        return
    if isinstance(told, dict) and isinstance(got, dict) and set(told) == set(got):
        pairs: Iterator[Any] = ((f"{path} {k}", told[k], got[k]) for k in told)
    elif isinstance(told, (tuple, list)) and isinstance(got, type(told)) and len(told) == len(got):
        pairs = ((f"{path} {i}", *pair) for i, pair in enumerate(zip(told, got, strict=True)))
    elif isinstance(told, (tuple, list, dict)):
        names = ", ".join(x.name for x in graph.inputs)
        size = f"{len(got)} of them" if hasattr(got, "__len__") else type(got).__name__
        raise located(TypeError(
            f"{graph.name}: got {size} as {path}; expected {_told(told)} (the inputs are: {names})"
        ))  # fmt: skip
    elif told != got or type(told) is not type(got):
        raise located(ValueError(
            f"{graph.name}: got {got!r} as {path}; the program was exported with {told!r}, "
            f"which is part of it; export it again for another value"
        ))  # fmt: skip
    else:
        return
    for name, expected, value in pairs:
        _match(graph, expected, value, name, found)


def _told(structure: Any) -> str:
    if isinstance(structure, dict):
        return f"the names {', '.join(structure)}" if structure else "none"
    return f"a {type(structure).__name__} of {len(structure)}"


def _input(graph: Graph, told: Input, got: Any) -> Any:
    """The tensor for an input, checked but for its open sizes."""
    x: Any = got if isinstance(got, Handle) else as_tensor(got)
    shape = tuple(x.shape)
    fits = len(shape) == len(told.shape) and all(
        isinstance(a, Size) or a == b for a, b in zip(told.shape, shape, strict=False)
    )
    if not fits:
        raise located(ShapeError(
            f"{graph.name}: got the shape {shape} for the input {told.name!r}; expected "
            f"({', '.join(map(str, told.shape))})"
        ))  # fmt: skip
    if x.dtype is not told.dtype:
        raise located(TypeError(
            f"{graph.name}: got {x.dtype.name} for the input {told.name!r}; expected "
            f"{told.dtype.name}; convert it with .to({told.dtype!r})"
        ))  # fmt: skip
    return x


def _sizes(graph: Graph, tensors: Sequence[Tensor]) -> dict[str, int]:
    """What the open sizes are in a call."""
    found: dict[str, int] = {}
    for told, tensor in zip(graph.inputs, tensors, strict=True):
        for axis, (size, got) in enumerate(zip(told.shape, tensor.shape, strict=True)):
            if isinstance(size, Size) and len(size.names) == 1 and size == Size.of(str(size)):
                known = found.setdefault(str(size), got)
                if known != got:
                    raise located(ShapeError(
                        f"{graph.name}: got the size {got} in dimension {axis} of {told.name!r}; "
                        f"{size} is {known} elsewhere"
                    ))  # fmt: skip
    for name, (least, most) in graph.sizes.items():
        if name not in found:
            raise GraphError(f"graph {graph.name!r}: no input tells the size {name}")
        if not least <= found[name] <= most:
            raise located(ShapeError(
                f"{graph.name}: got {found[name]} for the size {name}; the program was exported "
                f"for {least} to {most}"
            ))  # fmt: skip
    return {name: found[name] for name in graph.sizes}


__all__ = ["ExportedProgram", "Steps"]
