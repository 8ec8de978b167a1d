"""``export``: from functions and example inputs to a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from treadle.export.capture import Captured, ExportError, capture, fixed
from treadle.export.optimize import optimize as optimized
from treadle.export.program import ExportedProgram, Steps
from treadle.export.sizes import Dim, Open, points, unite
from treadle.export.state import State, find_state
from treadle.ir.graph import Graph
from treadle.ir.node import located
from treadle.nn.module import Module
from treadle.tensor.creation import zeros
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.tensor import Tensor


def export(
    mod: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None, *,
    dynamic_shapes: Any = None, strict: bool = False, optimize: bool = False,
) -> ExportedProgram:  # fmt: skip
    """The program of what ``mod``, a module or a function, does with tensors like ``args``.

    ``mod`` is run without computing anything, and is left as it was. What it reaches from outside
    (modules, optimizers, tensors) becomes the program's own: weights, with their values of now.
    A function that trains (``backward()``, ``optimizer.step()``) gives a program that goes on
    training. A dictionary of functions, with one of arguments, gives one graph for each; they share
    the weights. Numbers, texts and None among the arguments become part of the program.

    ``dynamic_shapes`` leaves sizes open: it maps names of inputs to ``{dimension: Dim("N")}`` (or
    is a sequence in the order of ``args``). ``strict`` is PyTorch's and changes nothing.

    ``optimize`` folds batch normalisation into the convolutions before it, and computes what
    depends on weights alone. Numbers change in their last digits, once: running the program never
    changes a bit. ``optimizations`` of the program, its file and ``treadle inspect`` say what was
    done. Source: PyTorch's ``torch.export.export``.

    Raises:
        ExportError: where Python decides by a value or an open size, with the line; for
            optimizers of the user's own; for gradients carried from one step to the next.
    """
    functions: Mapping[str, Any] = mod if isinstance(mod, Mapping) else {_name(mod): mod}
    several = isinstance(mod, Mapping)
    if not functions or not all(map(callable, functions.values())):
        raise located(TypeError(
            f"export: got {type(mod).__name__}; it takes a module, a function, or a dictionary of "
            f"them by name"
        ))  # fmt: skip
    graphs: dict[str, Graph] = {}
    captured: list[Captured] = []
    states: list[State] = []
    for name, function in functions.items():
        given = args[name] if several else args
        shapes = (dynamic_shapes or {}).get(name) if several else dynamic_shapes
        if isinstance(given, Handle):
            raise located(TypeError("export: got a tensor for args; it takes a tuple: (x,)"))
        state = _state_of(function, list(functions.values()))
        found = _with_sizes(name, function, tuple(given), kwargs or {}, shapes, state)
        captured.append(found)
        states.append(state)
        graphs[name] = found.graph
    program = _program(graphs, captured, states)
    return optimized(program) if optimize else program


def _name(mod: Any) -> str:
    return "forward" if isinstance(mod, Module) else getattr(mod, "__name__", "forward")


def _state_of(function: Any, all_functions: Sequence[Any]) -> State:
    """What a function reaches; modules that another one names are called as they are there."""
    state = find_state(function)
    for other in all_functions:
        if isinstance(function, Module) and other is not function:
            for name, module in find_state(other).modules.items():
                if module is function and name:
                    state.modules = {name: function}
    return state


def _with_sizes(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any],
    shapes: Any, state: State,
) -> Captured:  # fmt: skip
    """The graph of one function, with open sizes if there are any."""
    first = capture(name, function, args, kwargs, state)
    sizes = _open_sizes(first.graph, shapes)
    if not sizes:
        return first
    at = points(sizes)
    graphs = []
    for point in at:
        resized = _Resized(sizes, point)
        handed = tuple(map(resized, args)), {k: resized(v) for k, v in kwargs.items()}
        graphs.append(capture(name, function, *handed, state, apart=True).graph)
    return first._replace(graph=unite(graphs, at, sizes))


def _open_sizes(graph: Graph, shapes: Any) -> list[Open]:
    """The sizes that the user leaves open."""
    if not shapes:
        return []
    names = [x.name for x in graph.inputs]
    told = dict(shapes) if isinstance(shapes, Mapping) else dict(zip(names, shapes, strict=False))
    places: dict[str, list[tuple[int, int]]] = {}
    found: dict[str, Dim] = {}
    for name, dims in told.items():
        if name not in names:
            raise ExportError(
                f"export: got dynamic_shapes for {name!r}; the inputs are {', '.join(names)}"
            )
        pairs = dims.items() if isinstance(dims, Mapping) else enumerate(dims or ())
        for axis, dim in pairs:
            if dim is None:
                continue
            if not isinstance(dim, Dim):
                raise ExportError(
                    f"export: got {dim!r} for dimension {axis} of {name!r}; expected "
                    f'treadle.export.Dim("N") or None'
                )
            rank = len(graph.inputs[names.index(name)].shape)
            if not -rank <= axis < rank:
                raise ExportError(
                    f"export: got dimension {axis} of {name!r}, which has {rank} of them"
                )
            found[dim.__name__] = dim
            places.setdefault(dim.__name__, []).append((names.index(name), axis % rank))
    return [_open(graph, found[name], where) for name, where in places.items()]


def _open(graph: Graph, dim: Dim, places: Sequence[tuple[int, int]]) -> Open:
    examples = {int(graph.inputs[i].shape[axis]) for i, axis in places}  # type: ignore[arg-type]
    example = min(examples)
    if len(examples) > 1 or not dim.min <= example <= dim.max:
        raise ExportError(
            f"export: got the sizes {sorted(examples)} for {dim!r} in the example; expected one "
            f"from {dim.min} to {dim.max}"
        )
    return Open(dim, tuple(places), example)


class _Resized:
    """Arguments like the example's with other open sizes, called in the order of the inputs."""

    def __init__(self, sizes: Sequence[Open], point: Mapping[str, int]) -> None:
        self.wanted = {place: point[s.dim.__name__] for s in sizes for place in s.places}
        self.count = 0

    def __call__(self, x: Any) -> Any:
        if isinstance(x, Handle):
            return self._tensor(x)
        if isinstance(x, dict):
            return {key: self(value) for key, value in x.items()}
        if isinstance(x, (tuple, list)):
            return type(x)([self(value) for value in x])
        return x

    def _tensor(self, x: Any) -> Tensor:
        shape = list(x.shape)
        for axis in range(len(shape)):
            shape[axis] = self.wanted.get((self.count, axis), shape[axis])
        self.count += 1
        made = zeros(shape, dtype=x.dtype)
        return made.requires_grad_() if x.requires_grad else made


def _program(
    graphs: Mapping[str, Graph], captured: Sequence[Captured], states: Sequence[State]
) -> ExportedProgram:
    """The program of graphs: whose weights are whose, and which optimizers they step."""
    weights: dict[str, Tensor] = {}
    steps: dict[int, tuple[int, Steps]] = {}  # by optimizer
    finished: dict[str, Graph] = {}
    for (name, graph), made, state in zip(graphs.items(), captured, states, strict=True):
        known = {p.name: p.get().node for p in state.places()}
        renamed: dict[str, str] = {}
        for constant, node in made.constants.items():
            renamed[constant] = f"constant.{len(weights)}"
            weights[renamed[constant]] = wrap(fixed(node))
        for used in [w.name for w in graph.weights if w.name in known] + list(graph.updates):
            weights.setdefault(used, wrap(fixed(known[used])))
        numbers: dict[int, int] = {}
        for number, key in enumerate(made.optimizers):
            optimizer = state.optimizers[key]
            if id(optimizer) not in steps:
                steps[id(optimizer)] = len(steps), _steps(optimizer)
            numbers[number] = steps[id(optimizer)][0]
        finished[name] = graph._replace(
            weights=tuple([w._replace(name=renamed.get(w.name, w.name)) for w in graph.weights]),
            numbers=tuple([
                n._replace(value=(numbers[n.value[0]], n.value[1])) if n.rule == "optimizer" else n
                for n in graph.numbers
            ]),
        )  # fmt: skip
    return ExportedProgram(finished, weights, [s for _, s in steps.values()])


def _steps(optimizer: Any) -> Steps:
    group = optimizer.param_groups[0]
    settings = {k: v for k, v in group.items() if k != "params"}
    counts = [s.get("step", 0) for s in optimizer.state.values()]
    return Steps(type(optimizer).__name__, settings, int(max(counts, default=0)))


__all__ = ["export"]
