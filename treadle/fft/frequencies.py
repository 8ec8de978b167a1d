"""Which frequency an element of a transform stands for, and putting them in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.ir.node import located
from treadle.tensor.creation import tensor
from treadle.tensor.joining import roll
from treadle.tensor.movement import axis_of, node_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Dims = int | Sequence[int] | None


def _count(name: str, n: int) -> int:
    if n < 1:
        raise located(ValueError(f"{name}: got n={n}; it must be at least 1"))
    return n


def fftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of ``fft`` for ``n`` samples ``d`` apart: 0, 1, ..., -2, -1, over ``n d``.

    >>> fftfreq(4)
    tensor([ 0.0000,  0.2500, -0.5000, -0.2500])
    """
    half = (_count("fftfreq", n) - 1) // 2 + 1
    numbers = [*range(half), *range(half - n, 0)]
    made = tensor([k / (n * d) for k in numbers], dtype=dtype or float, device=device)
    return made.requires_grad_() if requires_grad else made


def rfftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of ``rfft`` for ``n`` samples ``d`` apart: 0, ..., n // 2, over ``n d``."""
    half = _count("rfftfreq", n) // 2 + 1
    made = tensor([k / (n * d) for k in range(half)], dtype=dtype or float, device=device)
    return made.requires_grad_() if requires_grad else made


def _shifted(name: str, input: Tensor, dim: Dims, back: bool) -> Tensor:
    shape = node_of(name, input).shape
    dims = range(len(shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [axis_of(name, d, len(shape)) for d in dims]
    if not axes:
        return input
    moves = [(shape[a] + 1) // 2 if back else shape[a] // 2 for a in axes]
    return roll(input, moves, axes)


def fftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """The elements moved so that frequency 0 is in the middle.

    >>> import treadle
    >>> fftshift(treadle.arange(5))
    tensor([3, 4, 0, 1, 2])
    """
    return _shifted("fftshift", input, dim, False)


def ifftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """The inverse of ``fftshift``."""
    return _shifted("ifftshift", input, dim, True)


__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]
