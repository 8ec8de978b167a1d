"""Norms of vectors and matrices, and condition numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.linalg.common import matrix, operand
from treadle.linalg.factorisations import svdvals
from treadle.linalg.solvers import inv
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.movement import axis_of, movedim
from treadle.tensor.reduction import norm as p_norm

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Dims = int | Sequence[int] | None
_MATRIX: tuple[int, int] = (-2, -1)


def _as(name: str, x: Tensor, dtype: DType | None) -> Tensor:
    if dtype is not None:
        return x.to(dtypes.as_dtype(dtype))
    if x.dtype.kind == "f":  # also of 16 bits
        return x
    operand(name, x)
    return x


def vector_norm(
    x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """``(sum |x|^ord)^(1/ord)`` over ``dim`` (over everything if None).

    ``ord`` inf and -inf give the largest and smallest |x|, 0 how many are not 0.

    >>> import treadle
    >>> vector_norm(treadle.tensor([3.0, -4.0])).item()
    5.0
    """
    if isinstance(ord, str):
        raise located(TypeError(
            f"linalg.vector_norm: got ord={ord!r}; it is a number; linalg.matrix_norm takes 'fro' "
            f"and 'nuc'"
        ))  # fmt: skip
    x = _as("linalg.vector_norm", x, dtype)
    if (abs(ord) == inf or ord < 0) and not x.numel():
        axes = [dim] if isinstance(dim, int) else dim or range(x.ndim)
        if 0 in [x.shape[d] for d in axes]:
            raise located(ShapeError(
                f"linalg.vector_norm: got a tensor of shape {tuple(x.shape)} and ord={ord}; there "
                f"is no such norm of no elements"
            ))  # fmt: skip
    return p_norm(x, ord, list(dim) if isinstance(dim, tuple) else dim, keepdim)


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Sequence[int] = _MATRIX, keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """A norm of matrices: "fro", "nuc" (the sum of singular values), inf, -inf (the largest or
    smallest sum of a row's sizes), 1, -1 (of a column's), 2, -2 (of the singular values)."""
    name = "linalg.matrix_norm"
    x = _as(name, A, dtype)
    if x.ndim < 2 or isinstance(dim, int) or len(dim) != 2:
        raise located(ShapeError(
            f"{name}: got a tensor of shape {tuple(x.shape)} and dim={dim}; it takes matrices and "
            f"two dimensions"
        ))  # fmt: skip
    row, column = (axis_of(name, d, x.ndim) for d in dim)
    if row == column:
        raise located(ShapeError(f"{name}: got dim={tuple(dim)}; the two must differ"))
    if ord == "fro":
        return p_norm(x, 2, [row, column], keepdim)
    if ord in (1, -1, inf, -inf):
        if ord in (inf, -inf):
            row, column = column, row
        sums = reduction.sum(a.abs(x), row, True)
        out = (reduction.amax if ord > 0 else reduction.amin)(sums, column, True)
    elif ord in ("nuc", 2, -2):
        values = svdvals(movedim(x, (row, column), (-2, -1)))
        pick = {"nuc": reduction.sum, 2: reduction.amax, -2: reduction.amin}[ord]
        out = pick(values, -1)
        return _kept(out, x.ndim, (row, column)) if keepdim else out
    else:
        raise located(ValueError(
            f"{name}: got ord={ord!r}; it is 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2"
        ))  # fmt: skip
    return out if keepdim else out.squeeze((row, column))


def _kept(x: Tensor, ndim: int, axes: tuple[int, int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def norm(
    A: Tensor, ord: Any = None, dim: Dims = None, keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """``vector_norm`` or ``matrix_norm``, as ``ord`` and ``dim`` say; of all elements without."""
    pair = not isinstance(dim, int) and dim is not None and len(dim) == 2
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if isinstance(ord, str) or pair or (dim is None and A.ndim == 2):
        if dim is None and A.ndim != 2:
            raise located(ShapeError(
                f"linalg.norm: got ord={ord!r} and a tensor of shape {tuple(A.shape)}; without "
                f"dim it takes a matrix"
            ))  # fmt: skip
        axes: Any = _MATRIX if dim is None else dim
        return matrix_norm(A, ord, axes, keepdim, dtype=dtype)
    if dim is None and A.ndim > 2:
        raise located(ShapeError(
            f"linalg.norm: got ord={ord!r} and a tensor of shape {tuple(A.shape)}; without dim it "
            f"takes a vector or a matrix"
        ))  # fmt: skip
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number ``||A|| ||A^-1||`` in the norm ``p`` (2 unless given).

    For 2 and -2 it is the ratio of the largest and smallest singular values, of any matrix.
    """
    matrix("linalg.cond", A, square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        values = svdvals(A)
        if not A.numel():
            return reduction.sum(values, -1)
        first, last = values[..., 0], values[..., -1]
        return a.div(last, first) if p == -2 else a.div(first, last)
    return a.mul(matrix_norm(A, p), matrix_norm(inv(A), p))


__all__ = ["cond", "matrix_norm", "norm", "vector_norm"]
