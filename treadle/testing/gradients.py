"""Checking gradients against finite differences, to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.tensor.creation import tensor
from treadle.tensor.gradients import grad
from treadle.tensor.reduction import sum as tensor_sum
from treadle.tensor.tensor import Tensor


def check_grads(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    order: int = 2,
    *,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
) -> None:
    """Raises AssertionError unless the gradients of ``function`` are right, up to ``order``.

    Inputs must be float64; those that require a gradient are tried. For random directions u and
    weights v the derivative of <f(x), v> along u, by central differences with step ``eps``, must
    equal <df/dx^T v, u>; for order 2 the same is asked of the gradient itself, and so on.

    >>> import treadle
    >>> x = treadle.tensor([0.5, 2.0], dtype=treadle.float64, requires_grad=True)
    >>> check_grads(lambda x: x * x * x, [x])
    """
    for x in inputs:
        if x.requires_grad and x.dtype is not dtypes.float64:
            raise TypeError(f"check_grads: got an input of dtype {x.dtype.name}; use float64")
    rng = np.random.default_rng(seed)
    wanted = [i for i, x in enumerate(inputs) if x.requires_grad]
    weights = rng.standard_normal(tuple(function(*inputs).shape))
    directions = {i: rng.standard_normal(tuple(inputs[i].shape)) for i in wanted}

    def gradients(*xs: Tensor) -> tuple[Any, ...]:
        y = function(*xs)
        return grad(
            tensor_sum(y * tensor(weights)), [xs[i] for i in wanted], create_graph=order > 1,
            materialize_grads=True,
        )  # fmt: skip

    analytic = sum(
        float((g.detach().numpy() * directions[i]).sum())
        for i, g in zip(wanted, gradients(*inputs), strict=True)
    )

    numeric = _difference(function, inputs, directions, weights, eps)
    scale = max(abs(numeric), abs(analytic), 1.0)
    if not abs(numeric - analytic) <= atol + rtol * scale:
        raise AssertionError(
            f"the gradient is wrong: finite differences give {numeric!r}, backward {analytic!r} "
            f"(inputs {[tuple(x.shape) for x in inputs]})"
        )
    if order <= 1:
        return
    for position, i in enumerate(wanted):
        if not gradients(*inputs)[position].requires_grad:
            continue  # constant in all inputs: finite differences of it were just compared

        def component(*xs: Tensor, position: int = position) -> Tensor:
            return gradients(*xs)[position]

        check_grads(component, inputs, order - 1, eps=eps, rtol=10 * rtol, atol=10 * atol,
                    seed=seed + 1 + i)  # fmt: skip


def _difference(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    directions: dict[int, np.ndarray],
    weights: np.ndarray,
    eps: float,
) -> float:
    """The derivative of <f(x), weights> along the directions, by central differences."""

    def along(step: float) -> float:
        moved = [
            tensor(x.detach().numpy() + step * directions[i], requires_grad=True)
            if i in directions else x
            for i, x in enumerate(inputs)
        ]  # fmt: skip
        return float((function(*moved).detach().numpy() * weights).sum())

    return (along(eps) - along(-eps)) / (2 * eps)
