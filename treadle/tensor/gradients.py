"""Gradients for users: ``backward`` and ``grad``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.autodiff.reverse import (
    Anomaly,
    call_hooks_of_leaves,
    has_hooks,
    hooks_of_leaves_only,
)
from treadle.autodiff.reverse import backward as backward_nodes
from treadle.base.errors import GradientError, ShapeError
from treadle.ir.node import Leaf, Node, located, recorder
from treadle.ops import elementwise as e
from treadle.ops.movement import detach, zeros_of
from treadle.tensor.handle import wrap
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
        if node.dtype.kind == "c":
            raise located(GradientError(
                f"{name}: got a complex tensor, which has no gradient by itself; pass the gradient "
                f"argument, or make it real first, for example with .abs()"
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
    if recorder.state.outer is not None:
        raise located(GradientError(
            "backward: got a call under vmap, where no tensor's .grad stands for the whole batch; "
            "use treadle.func.grad inside of vmap, or call backward() on the result"
        ))  # fmt: skip
    owners = None if inputs is None else {t.node: t for t in _sequence(inputs)}
    retain = create_graph if retain_graph is None else retain_graph

    def record() -> dict[Node, Node]:
        seeds = [
            _seed("backward", t, g, create_graph) for t, g in zip(tensors, gradients, strict=True)
        ]
        return backward_nodes(
            [t.node for t in tensors], seeds, wanted=owners, kept=list(retained),
            create_graph=create_graph, retain_graph=retain, with_hooks=not repeats,
        )  # fmt: skip

    repeats = _repeats(tensors, gradients, create_graph) and owners is None and not retained
    if repeats:
        found = backward_of(
            tensors[0].node, retain, recorder.state,
            lambda: _seed("backward", tensors[0], None, False), record,
        )  # fmt: skip
        if has_hooks():
            call_hooks_of_leaves(found)
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


def _repeats(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor | None], create_graph: bool
) -> bool:
    """Whether the pass follows from the graph alone, so that it may be recorded as before."""
    is_plain = len(tensors) == 1 and gradients[0] is None and not create_graph
    return is_plain and not Anomaly.enabled and (not has_hooks() or hooks_of_leaves_only())


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
    for position, t in enumerate(wanted):
        if not t.requires_grad:
            raise located(GradientError(
                f"grad: input {position} does not require a gradient; call requires_grad_() on it "
                f"before it is used"
            ))  # fmt: skip
    nodes = [t.node for t in wanted]
    retain = create_graph if retain_graph is None else retain_graph

    def record() -> dict[Node, Node]:
        seeds = [_seed("grad", t, g, create_graph) for t, g in zip(items, weights, strict=True)]
        found = backward_nodes(
            [t.node for t in items], seeds, wanted=nodes, create_graph=create_graph,
            retain_graph=retain,
        )  # fmt: skip
        return {n: found[n] for n in nodes if n in found}

    state = recorder.state
    if _repeats(items, weights, create_graph) and not has_hooks() and state.outer is None:
        found = backward_of(
            items[0].node, retain, state, lambda: _seed("grad", items[0], None, False), record,
            nodes,
        )  # fmt: skip
    else:
        found = record()
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
