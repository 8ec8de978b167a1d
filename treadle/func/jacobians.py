"""Whole Jacobians, by batched products with unit vectors from the left or the right."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.autograd.recorded import Recorded
from treadle.ir.node import Node, located
from treadle.tensor.handle import wrap


def _result(run: Recorded, found: list[list[Node]], has_aux: bool) -> Any:
    """The Jacobians ``found[output][input]`` in the structure of the outputs, of the inputs."""
    rows = [run.inputs.rebuild([wrap(n) for n in row]) for row in found]
    jacobian, aux = run.settled_tree((run.outputs.rebuild(rows), run.aux), run.first)
    return (jacobian, aux) if has_aux else jacobian


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that gives the Jacobian of ``func``, row by row in reverse mode.

    It has the shape of the output followed by that of the input, and is cheaper than ``jacfwd``
    where there are fewer outputs than inputs. ``chunk_size`` is the most rows at a time.

    >>> import treadle
    >>> jacrev(treadle.sin)(treadle.zeros(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    if chunk_size is not None and chunk_size < 1:
        raise located(ValueError(f"jacrev: got chunk_size={chunk_size}; it must be at least 1"))

    @functools.wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        run = Recorded("jacrev", func, args, argnums, has_aux, kwargs)
        return _result(run, run.rows(chunk_size), has_aux)

    return jacobian


def jacfwd(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """A function that gives the Jacobian of ``func``, column by column in forward mode.

    It has the shape of the output followed by that of the input, and is cheaper than ``jacrev``
    where there are more outputs than inputs. ``func`` runs once, so that random numbers are the
    same for all columns whatever ``randomness`` says.

    >>> import treadle
    >>> jacfwd(lambda x: x * x.sum())(treadle.tensor([1.0, 2.0]))
    tensor([[4., 1.],
            [2., 5.]])
    """

    @functools.wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        run = Recorded("jacfwd", func, args, argnums, has_aux, kwargs)
        return _result(run, run.columns(), has_aux)

    return jacobian


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that gives the second derivatives of ``func``: forward over reverse mode.

    >>> import treadle
    >>> hessian(lambda x: (x ** 3).sum())(treadle.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


__all__ = ["hessian", "jacfwd", "jacrev"]
