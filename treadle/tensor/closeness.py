"""Comparing whole tensors, and replacing what is not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from treadle.base import dtypes
from treadle.ops.complex import join, parts
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.methods import in_place

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

# The largest finite numbers; what a dtype rounds to infinity would not do.
_LARGEST = {
    "f64": (2 - 2.0**-52) * 2.0**1023,
    "f32": (2 - 2.0**-23) * 2.0**127,
    "f16": 65504.0,
    "bf16": (2 - 2.0**-7) * 2.0**127,
}


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """True where ``|input - other| <= atol + rtol * |other|``, or both are equal.

    Infinities are close to themselves only, and NaN to NaN with ``equal_nan``.
    """
    x, y = (t if t.dtype.is_inexact else t.to(dtypes.float64) for t in (input, other))
    error = a.abs(a.sub(x, y))
    allowed = a.add(a.mul(a.abs(y), rtol), atol)
    near = a.logical_and(a.isfinite(error), a.le(error, allowed))
    near = a.logical_or(near, a.eq(x, y))
    return a.logical_or(near, a.logical_and(a.isnan(x), a.isnan(y))) if equal_nan else near


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether ``isclose`` holds everywhere.

    >>> import treadle
    >>> allclose(treadle.tensor([1.0, 1e-9]), treadle.tensor([1.000001, 0.0]))
    True
    """
    return bool(reduction.all(isclose(input, other, rtol, atol, equal_nan)).item())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same elements (NaN is no element's equal)."""
    return input.shape == other.shape and bool(reduction.all(a.eq(input, other)).item())


def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN, inf and -inf replaced; the infinities by the largest finite numbers unless given."""
    if input.dtype.kind == "c":
        real, imaginary = (nan_to_num(wrap(p), nan, posinf, neginf) for p in parts(input.node))
        return wrap(join(real.node, imaginary.node))
    if not input.dtype.is_floating_point:
        return input
    largest = _LARGEST[input.dtype.short]
    out = a.where(a.isnan(input), nan, input)
    out = a.where(a.eq(out, math.inf), largest if posinf is None else posinf, out)
    return a.where(a.eq(out, -math.inf), -largest if neginf is None else neginf, out)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    isclose, allclose, equal, nan_to_num = isclose, allclose, equal, nan_to_num
    (nan_to_num_,) = map(in_place, (nan_to_num,))


__all__ = ["allclose", "equal", "isclose", "nan_to_num"]
