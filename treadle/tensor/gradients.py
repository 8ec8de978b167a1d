"""Gradients for users: ``backward``, ``grad`` and functions with gradients of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from treadle.autodiff.reverse import backward as backward_nodes
from treadle.autodiff.reverse import has_hooks
from treadle.base.errors import GradientError, ShapeError
from treadle.ir.node import Leaf, Node, located, recorder
from treadle.ops import elementwise as e
from treadle.ops.bundle import record_call
from treadle.ops.movement import detach, zeros_of
from treadle.ops.project import project
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.repeated import backward_of
from treadle.tensor.tensor import Tensor, retained

Tensors = Tensor | Sequence[Tensor]


def _sequence(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _seed(name: str, output: Tensor, gradient: Tensor | None, create_graph: bool) -> Node:
    """The adjoint to start from: a constant, unless gradients are to be differentiated."""
    node = output.node
    if not node.needs_grad:
        raise located(GradientError(
            f"{name}: got a tensor of shape {node.shape} through which no gradient flows: nothing "
            f"that it was computed from requires one; call requires_grad_() on an input, and do "
            f"not compute under no_grad()"
        ))  # fmt: skip
    if gradient is None:
        if node.type.size != 1:
            raise located(GradientError(
                f"{name}: got a tensor of shape {node.shape}; without a gradient argument it must "
                f"have one element; reduce it, for example with .sum(), or pass the gradient"
            ))  # fmt: skip
        return e.full_like(node, 1)
    seed = gradient.node if create_graph or not gradient.node.needs_grad else detach(gradient.node)
    if seed.shape != node.shape:
        raise located(ShapeError(
            f"{name}: got a gradient of shape {seed.shape} for a tensor of shape "
            f"{node.shape}; they must be equal"
        ))  # fmt: skip
    return seed if seed.dtype is node.dtype else e.convert(seed, dtype=node.dtype)


def accumulate_gradients(
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
    inputs: Tensors | None,
) -> None:
    """What ``Tensor.backward`` does, for several tensors at once."""
    owners = None if inputs is None else {t.node: t for t in _sequence(inputs)}
    retain = create_graph if retain_graph is None else retain_graph

    def record() -> dict[Node, Node]:
        seeds = [
            _seed("backward", t, g, create_graph) for t, g in zip(tensors, gradients, strict=True)
        ]
        return backward_nodes(
            [t.node for t in tensors], seeds, wanted=owners, kept=list(retained),
            create_graph=create_graph, retain_graph=retain,
        )  # fmt: skip

    repeats = len(tensors) == 1 and gradients[0] is None and owners is None and not create_graph
    if repeats and not retained and not has_hooks():
        found = backward_of(tensors[0].node, retain, recorder.state, record)
    else:
        found = record()
    before = recorder.state.grad_enabled
    recorder.state.grad_enabled = create_graph
    try:
        for node, adjoint in found.items():
            if owners is not None:
                owner = owners.get(node)
            else:
                owner = node.owner() if isinstance(node, Leaf) else retained[node]()
            if owner is None:
                continue
            if owner._grad is None:
                owner._grad = wrap(adjoint)
            else:
                owner._grad._write(e.add(owner._grad.node, adjoint))
            for hook in list(getattr(owner, "_after", {}).values()):
                hook(owner)
    finally:
        recorder.state.grad_enabled = before


def backward(
    tensors: Tensors,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Adds the gradients of the (weighted) sum of ``tensors`` to the ``grad`` of the leaves."""
    items = _sequence(tensors)
    weights = [None] * len(items) if grad_tensors is None else _sequence(grad_tensors)
    accumulate_gradients(items, weights, retain_graph, create_graph, inputs)


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the (weighted) sum of ``outputs`` with respect to ``inputs``.

    >>> import treadle
    >>> x = treadle.tensor(3.0, requires_grad=True)
    >>> (g,) = treadle.autograd.grad(x**3, x, create_graph=True)
    >>> (h,) = treadle.autograd.grad(g, x)
    >>> g.item(), h.item()
    (27.0, 18.0)
    """
    items, wanted = _sequence(outputs), _sequence(inputs)
    weights = [None] * len(items) if grad_outputs is None else _sequence(grad_outputs)
    seeds = [_seed("grad", t, g, create_graph) for t, g in zip(items, weights, strict=True)]
    for position, t in enumerate(wanted):
        if not t.requires_grad:
            raise located(GradientError(
                f"grad: input {position} does not require a gradient; call requires_grad_() on it "
                f"before it is used"
            ))  # fmt: skip
    found = backward_nodes(
        [t.node for t in items], seeds, wanted=[t.node for t in wanted],
        create_graph=create_graph,
        retain_graph=create_graph if retain_graph is None else retain_graph,
    )  # fmt: skip
    result: list[Tensor | None] = []
    for position, t in enumerate(wanted):
        adjoint = found.get(t.node)
        if adjoint is None and materialize_grads:
            adjoint = zeros_of(t.node.type)
        if adjoint is None and not allow_unused:
            raise located(GradientError(
                f"grad: input {position} was not used to compute the outputs; pass "
                f"allow_unused=True to get None for it"
            ))  # fmt: skip
        result.append(None if adjoint is None else wrap(adjoint))
    return tuple(result)


# --- functions with gradients of their own --------------------------------------------------------


class Function:
    """A function with a gradient written by hand.

    Subclasses define static ``forward(ctx, *args)`` and ``backward(ctx, *grad_outputs)`` and are
    called by ``apply``. The older form with ordinary methods, where ``self`` takes the place of
    ``ctx`` and an instance is called, works too.

    >>> import treadle
    >>> class Cube(treadle.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, grad_output):
    ...         (x,) = ctx.saved_tensors
    ...         return grad_output * 3 * x * x
    >>> x = treadle.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad.item()
    12.0
    """

    _saved: tuple[Any, ...] = ()
    _results: dict[Any, int] = {}  # the saved ones that are results, and which
    _node: Node | None = None  # the call whose backward runs
    _discrete: tuple[Any, ...] = ()
    _materialize = True
    needs_input_grad: tuple[bool, ...] = ()

    @staticmethod
    def forward(*args: Any) -> Any:
        """To be defined: the value."""
        raise NotImplementedError("a Function must define forward()")

    @staticmethod
    def backward(*args: Any) -> Any:
        """To be defined: one gradient (or None) for each argument of ``forward``."""
        raise NotImplementedError("a Function must define backward() to be differentiated")

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors (their values of now) for ``backward``."""
        self._saved = tuple(t.node if isinstance(t, Handle) else t for t in tensors)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors kept by ``save_for_backward``; gradients flow on through all of them."""
        return tuple(self._shown(n) if isinstance(n, Node) else n for n in self._saved)

    def _shown(self, saved: Node) -> Tensor:
        if self._node is None or saved not in self._results:
            return wrap(saved)
        return wrap(project(self._node, index=self._results[saved]))

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Says that no gradient flows through these outputs."""
        self._discrete = tuple(t.node for t in outputs)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Accepted for PyTorch's sake: arguments written and returned are seen without a mark."""

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (the default) or None for outputs nobody used."""
        self._materialize = value

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Calls the function, recording its own gradient."""
        ctx = cls()
        return _call(ctx, lambda *a: cls.forward(ctx, *a), lambda *g: cls.backward(ctx, *g), args)

    def __call__(self, *args: Any) -> Any:
        """Calls a function written in the older way, with plain methods."""
        ctx = copy.copy(self)
        return _call(ctx, ctx.forward, ctx.backward, args)


class _Call:
    """One call of a Function: what the graph knows of it."""

    def __init__(
        self, ctx: Function, function: Any, arguments: list[int], results: list[bool]
    ) -> None:
        self.ctx = ctx
        self.function = function
        self.arguments = arguments  # the positions of the tensors
        self.results = results  # which are tensors
        self.count = sum(results)
        self.name = type(ctx).__name__

    def gradient(self, g: Any, node: Node) -> list[Node | None]:
        """Runs the user's backward and checks what it returns."""
        adjoints = iter(zip(g, node.type, strict=True))
        grads = [self._materialized(*next(adjoints)) if t else None for t in self.results]
        site, recorder.state.site = recorder.state.site, None
        self.ctx._node = node
        try:
            results = self.function(*grads)
        finally:
            recorder.state.site = site
            self.ctx._node = None
        given = list(results) if isinstance(results, tuple) else [results]
        expected = len(self.ctx.needs_input_grad)
        while len(given) > expected and given[-1] is None:  # of arguments that were left out
            given.pop()
        if len(given) != expected:
            raise located(GradientError(
                f"{self.name}.backward: returned {len(given)} gradients for {expected} arguments "
                f"of forward; return one for each, None where there is none"
            ))  # fmt: skip
        inputs = node.inputs[self.count :]
        return [self._checked(given[p], p, i) for p, i in zip(self.arguments, inputs, strict=True)]

    def _materialized(self, adjoint: Node | None, kind: Any) -> Tensor | None:
        if adjoint is None and self.ctx._materialize:
            adjoint = zeros_of(kind)
        return None if adjoint is None else wrap(adjoint)

    def _checked(self, value: Any, position: int, argument: Node) -> Node | None:
        """The adjoint of one argument."""
        if value is None or not argument.needs_grad:
            return None
        if not isinstance(value, Handle):
            raise located(TypeError(
                f"{self.name}.backward: returned a {type(value).__name__} as the gradient for "
                f"argument {position}; return a tensor, or None where there is no gradient"
            ))  # fmt: skip
        adjoint = value.node
        if adjoint.shape != argument.shape:
            raise located(ShapeError(
                f"{self.name}.backward: returned a gradient of shape {adjoint.shape} for "
                f"argument {position} of shape {argument.shape}; they must be equal"
            ))  # fmt: skip
        return adjoint if adjoint.dtype is argument.dtype else e.convert(
            adjoint, dtype=argument.dtype
        )  # fmt: skip


def _call(ctx: Function, forward: Any, backward: Any, args: tuple[Any, ...]) -> Any:
    positions = [p for p, x in enumerate(args) if isinstance(x, Handle)]
    inputs = [args[p].node for p in positions]
    enabled = recorder.state.grad_enabled
    ctx.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
    recorder.state.grad_enabled = False
    try:
        outputs = forward(*args)
    finally:
        recorder.state.grad_enabled = enabled
    results = outputs if isinstance(outputs, tuple) else (outputs,)
    if not enabled or not any(ctx.needs_input_grad):
        return outputs
    tensors = [t for t in results if isinstance(t, Handle)]
    if not tensors:
        raise located(TypeError(
            f"{type(ctx).__name__}.forward: returned a {type(outputs).__name__}; return a tensor "
            f"or a tuple of tensors"
        ))  # fmt: skip
    values = [detach(t.node) if t.node.needs_grad else t.node for t in tensors]
    call = _Call(ctx, backward, positions, [isinstance(t, Handle) for t in results])
    node = record_call(call, values, inputs)
    ctx._results = {n: i for i, n in enumerate(values) if any(n is saved for saved in ctx._saved)}
    written = {
        id(args[p]) for p, before in zip(positions, inputs, strict=True)
        if args[p].node is not before
    }  # fmt: skip
    made = iter([
        t if t.node in ctx._discrete else _result(t, project(node, index=i), id(t) in written)
        for i, t in enumerate(tensors)
    ])  # fmt: skip
    final = tuple(next(made) if isinstance(t, Handle) else t for t in results)
    return final if isinstance(outputs, tuple) else final[0]


def _result(returned: Any, node: Node, is_written: bool) -> Tensor:
    """The tensor for one result: the argument itself where ``forward`` wrote to it."""
    if not is_written:
        return wrap(node)
    returned._write(node)
    return returned
