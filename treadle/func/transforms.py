"""Derivatives of functions: gradients, and products with the Jacobian from either side.

Everything takes and gives trees (``trees.py``), nests in any order, and runs the function once on
values that are there, so that its Python may look at them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.autograd.recorded import NEVER, Recorded, matching
from treadle.base.errors import GradientError, ShapeError
from treadle.ir import node as ir_node
from treadle.ir.node import located
from treadle.ops.elementwise import full_like
from treadle.tensor.handle import wrap

# --- reverse mode ---------------------------------------------------------------------------------


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives the gradient of ``func`` (a tensor of one element) and its value.

    With ``has_aux`` the function returns (output, aux), and this one (gradient, (output, aux)).

    >>> import treadle
    >>> f = grad_and_value(lambda x: (x * x).sum())
    >>> f(treadle.tensor([1.0, 2.0]))
    (tensor([2., 4.]), tensor(5.))
    """

    @functools.wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        run = Recorded("grad", func, args, argnums, has_aux, kwargs)
        if len(run.nodes) != 1 or run.outputs.make or run.nodes[0].type.ndim:
            shapes = ", ".join(str(n.shape) for n in run.nodes)
            raise located(ShapeError(
                f"grad: the function must return one tensor without dimensions; got shapes "
                f"{shapes}; reduce it, for example with .sum(), or use jacrev"
            ))  # fmt: skip
        value = run.nodes[0]
        found = run.pull({0: full_like(value, 1)})
        tree = (run.inputs.rebuild([wrap(n) for n in found]), (wrap(value), run.aux))
        grads, (output, aux) = run.settled_tree(tree, run.first)
        return grads, (output, aux) if has_aux else output

    return differentiated


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the gradient of ``func``, whose result has one element.

    With ``has_aux`` the function returns (output, aux), and this one (gradient, aux).

    >>> import treadle
    >>> cube = lambda x: x ** 3
    >>> grad(cube)(treadle.tensor(2.0)), grad(grad(cube))(treadle.tensor(2.0))
    (tensor(12.), tensor(12.))
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        grads, rest = both(*args, **kwargs)
        return (grads, rest[1]) if has_aux else grads

    return differentiated


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value at ``primals``, and a function v -> v^T J (J is the Jacobian there).

    That function takes a tree like the value, and gives a tuple with the product for every primal.
    With ``has_aux`` the aux of (output, aux) comes third.

    >>> import treadle
    >>> value, pull = vjp(treadle.sin, treadle.tensor([0.0, 1.0]))
    >>> pull(treadle.tensor([1.0, 0.0]))
    (tensor([1., 0.]),)
    """
    run = Recorded("vjp", func, primals, tuple(range(len(primals))), has_aux)

    def pull(
        cotangents: Any, retain_graph: bool | None = None, create_graph: bool | None = None
    ) -> Any:
        since = ir_node._next_order()
        given = matching("vjp", "cotangents", cotangents, run.nodes)
        found = run.settled(run.pull(dict(enumerate(given))), since)
        return run.inputs.rebuild(found)

    value, aux = run.settled_tree(
        (run.outputs.rebuild([wrap(n) for n in run.nodes]), run.aux), NEVER
    )
    return (value, pull, aux) if has_aux else (value, pull)


# --- forward mode ---------------------------------------------------------------------------------


def jvp(
    func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False,
    has_aux: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """The value at ``primals`` and J v, its derivative along ``tangents`` (a tuple like primals).

    With ``has_aux`` the aux of (output, aux) comes third. With ``strict`` an output that does not
    depend on the primals is an error.

    >>> import treadle
    >>> x, v = treadle.tensor([1.0, 2.0]), treadle.tensor([1.0, 0.5])
    >>> jvp(lambda x: x * x, (x,), (v,))
    (tensor([1., 4.]), tensor([2., 2.]))
    """
    if not isinstance(primals, tuple):
        raise located(TypeError(
            f"jvp: got a {type(primals).__name__} for primals; give a tuple with one tensor (or "
            f"tree) for each argument of the function"
        ))  # fmt: skip
    run = Recorded("jvp", func, primals, tuple(range(len(primals))), has_aux)
    given = matching("jvp", "tangents", tangents, run.variables)
    for n in run.nodes:
        if strict and not n.needs_grad:
            raise located(GradientError(
                f"jvp: the output of shape {n.shape} does not depend on the primals (strict=True)"
            ))  # fmt: skip
    moved = [wrap(n) for n in run.push(dict(enumerate(given)))]
    value = run.outputs.rebuild([wrap(n) for n in run.nodes])
    value, along, aux = run.settled_tree(
        (value, run.outputs.rebuild(moved), run.aux), run.first
    )  # fmt: skip
    return (value, along, aux) if has_aux else (value, along)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value at ``primals``, and the function v -> J v there; ``func`` runs once only.

    >>> import treadle
    >>> value, along = linearize(lambda x: x ** 3, treadle.tensor(2.0))
    >>> along(treadle.tensor(1.0)), along(treadle.tensor(-2.0))
    (tensor(12.), tensor(-24.))
    """
    run = Recorded("linearize", func, primals, tuple(range(len(primals))), False)

    def along(*tangents: Any) -> Any:
        since = ir_node._next_order()
        given = matching("linearize", "tangents", tangents, run.variables)
        return run.outputs.rebuild(run.settled(run.push(dict(enumerate(given))), since))

    value = run.outputs.rebuild(run.settled(run.nodes, NEVER))
    return value, along


__all__ = ["grad", "grad_and_value", "jvp", "linearize", "vjp"]
