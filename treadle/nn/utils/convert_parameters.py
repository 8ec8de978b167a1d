"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from treadle.base.errors import ShapeError
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.joining import cat
from treadle.tensor.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one vector."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Gives the parameters the values of one vector, as ``parameters_to_vector`` made it."""
    items = list(parameters)
    needed = sum(p.numel() for p in items)
    if tuple(vec.shape) != (needed,):
        raise located(ShapeError(
            f"vector_to_parameters: got a vector of shape {tuple(vec.shape)} for {needed} numbers; "
            f"its shape must be ({needed},)"
        ))  # fmt: skip
    with no_grad():
        at = 0
        for p in items:
            count = prod(p.shape)
            p.copy_(vec.detach()[at : at + count].reshape(tuple(p.shape)))
            at += count


__all__ = ["parameters_to_vector", "vector_to_parameters"]
