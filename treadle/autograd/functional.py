"""PyTorch's ``autograd.functional``: derivatives of a function of tensors at a point.

Inputs are a tensor or a tuple of tensors, which are the function's arguments; so are its outputs.
Results are detached, unless ``create_graph`` asks for ones that can be differentiated further.
``strict`` refuses outputs that do not depend on an input, whose derivative would be zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.autograd.recorded import Recorded, matching
from treadle.base.errors import GradientError, ShapeError
from treadle.ir.node import Node, located
from treadle.ops.elementwise import full_like
from treadle.tensor.tensor import Tensor

Tensors = Tensor | tuple[Tensor, ...]


def _run(name: str, func: Callable[..., Any], inputs: Any, strict: bool) -> Recorded:
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    run = Recorded(name, func, args, tuple(range(len(args))), False)
    for position, n in enumerate(run.nodes):
        if strict and not n.needs_grad:
            raise located(GradientError(
                f"{name}: output {position} of the function does not depend on the inputs "
                f"(strict=True)"
            ))  # fmt: skip
    return run


def _given(run: Recorded, inputs: Any, nodes: Sequence[Node], create_graph: bool) -> Any:
    """Results, a tuple if the inputs are one."""
    tensors = run.settled(nodes, run.first)
    if not create_graph:
        tensors = [t.detach() for t in tensors]
    return tuple(tensors) if isinstance(inputs, tuple) else tensors[0]


def _values(run: Recorded, create_graph: bool) -> Any:
    tensors = run.settled(run.nodes, run.first)
    return run.outputs.rebuild(tensors if create_graph else [t.detach() for t in tensors])


def _weights(name: str, v: Any, nodes: Sequence[Node], what: str) -> list[Node]:
    """v, or 1 for a single element."""
    if v is not None:
        return matching(name, "tensors in v", v, nodes)
    if len(nodes) != 1 or nodes[0].type.size != 1:
        raise located(ShapeError(
            f"{name}: got v=None; that is for {what} of one element only; give v in the shape of "
            f"the {what}"
        ))  # fmt: skip
    return [full_like(nodes[0], 1)]


def vjp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """The outputs and v^T J, with the Jacobian J at ``inputs`` and v like the outputs.

    >>> import treadle
    >>> vjp(lambda x: x * x, treadle.tensor([1.0, 2.0]), treadle.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    run = _run("vjp", func, inputs, strict)
    weights = _weights("vjp", v, run.nodes, "outputs")
    found = run.pull(dict(enumerate(weights)))
    return _values(run, create_graph), _given(run, inputs, found, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """The outputs and J v, with the Jacobian J at ``inputs`` and v like the inputs.

    >>> import treadle
    >>> jvp(lambda x: x * x, treadle.tensor([1.0, 2.0]), treadle.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    run = _run("jvp", func, inputs, strict)
    moved = run.push(dict(enumerate(_weights("jvp", v, run.variables, "inputs"))))
    tensors = run.settled(moved, run.first)
    along = run.outputs.rebuild(tensors if create_graph else [t.detach() for t in tensors])
    return _values(run, create_graph), along


def jacobian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian at ``inputs``: of the shape of the output followed by that of the input.

    A tuple of them over the inputs, of these a tuple over the outputs, where there are several.
    All rows (or columns, with ``strategy`` "forward-mode") are computed at once, ``vectorize`` or
    not.

    >>> import treadle
    >>> jacobian(lambda x: x * x.sum(), treadle.tensor([1.0, 2.0]))
    tensor([[4., 1.],
            [2., 5.]])
    """
    forward = _is_forward("jacobian: strategy", strategy)
    run = _run("jacobian", func, inputs, strict)
    found = run.columns() if forward else run.rows()
    tensors = run.settled([n for row in found for n in row], run.first)
    left = iter(tensors if create_graph else [t.detach() for t in tensors])
    rows = [tuple(next(left) for _ in row) for row in found]
    return run.outputs.rebuild(rows if isinstance(inputs, tuple) else [r[0] for r in rows])


def _is_forward(what: str, strategy: str) -> bool:
    if strategy not in ("reverse-mode", "forward-mode"):
        raise located(ValueError(
            f"{what}: got {strategy!r}; it is 'reverse-mode' or 'forward-mode'"
        ))  # fmt: skip
    return strategy == "forward-mode"


def _gradient(name: str, func: Callable[..., Any], strict: bool) -> Callable[..., Any]:
    """The function's gradient, and its value, as a function of the same arguments."""

    def gradient(*args: Tensor) -> tuple[Tensor, ...]:
        run = _run(name, func, args, strict)
        if len(run.nodes) != 1 or run.nodes[0].type.size != 1:
            shapes = ", ".join(str(n.shape) for n in run.nodes)
            raise located(ShapeError(
                f"{name}: the function must return one tensor of one element; got shapes {shapes}"
            ))  # fmt: skip
        value = run.nodes[0]
        return tuple(run.settled([*run.pull({0: full_like(value, 1)}), value], run.first))

    return gradient


def hessian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The second derivatives of a function with one element, by the inputs and the inputs.

    >>> import treadle
    >>> hessian(lambda x: (x ** 3).sum(), treadle.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    _is_forward("hessian: outer_jacobian_strategy", outer_jacobian_strategy)
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    gradient = _gradient("hessian", func, strict)
    found = jacobian(
        lambda *x: gradient(*x)[:-1], args, create_graph, strict, vectorize,
        outer_jacobian_strategy,
    )  # fmt: skip
    return found if isinstance(inputs, tuple) else found[0][0]


def hvp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensor, Any]:  # fmt: skip
    """The output and H v: forward over reverse mode, at the cost of a few evaluations.

    >>> import treadle
    >>> hvp(lambda x: (x ** 3).sum(), treadle.tensor([1.0, 2.0]), treadle.tensor([1.0, 1.0]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _hessian_product("hvp", func, inputs, v, create_graph, strict)


def vhp(
    func: Callable[..., Any], inputs: Tensors, v: Any = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensor, Any]:  # fmt: skip
    """The output and v^T H, which is H v: the Hessian is symmetric.

    >>> import treadle
    >>> vhp(lambda x: (x ** 3).sum(), treadle.tensor([1.0, 2.0]), treadle.tensor([1.0, 1.0]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _hessian_product("vhp", func, inputs, v, create_graph, strict)


def _hessian_product(
    name: str, func: Callable[..., Any], inputs: Any, v: Any, create_graph: bool, strict: bool
) -> tuple[Tensor, Any]:
    run = _run(name, _gradient(name, func, strict), inputs, strict)
    moved = run.push(dict(enumerate(_weights(name, v, run.variables, "inputs"))))
    (value,) = run.settled(run.nodes[-1:], run.first)
    product = _given(run, inputs, moved[:-1], create_graph)
    return value if create_graph else value.detach(), product


__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
