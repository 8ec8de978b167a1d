"""Products and powers of matrices, determinants, and what else ``torch.linalg`` has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.linalg.common import SignAndLog, matrix, results
from treadle.linalg.solvers import inv
from treadle.ops import decompositions as d
from treadle.ops import linalg as op
from treadle.ops import matrices as m
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.complex_numbers import conj
from treadle.tensor.contraction import matmul
from treadle.tensor.creation import ones_like
from treadle.tensor.cumulative import cumprod
from treadle.tensor.handle import wrap
from treadle.tensor.joining import cat
from treadle.tensor.movement import axis_of, broadcast_tensors, node_of
from treadle.tensor.movement import diagonal as diagonal_of
from treadle.tensor.products import chain_matmul
from treadle.tensor.products import cross as cross_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def det(A: Tensor) -> Tensor:
    """The determinant of square matrices.

    >>> import treadle
    >>> det(treadle.tensor([[1.0, 2.0], [3.0, 5.0]])).round(decimals=3).item()
    -1.0
    """
    return wrap(op.det(matrix("linalg.det", A, square=True)))


def slogdet(A: Tensor) -> SignAndLog:
    """The sign of the determinant and the logarithm of its size: ``det = sign e^logabsdet``."""
    return SignAndLog(*results(op.slogdet(matrix("linalg.slogdet", A, square=True))))


def matrix_exp(A: Tensor) -> Tensor:
    """``I + A + A^2/2 + A^3/6 + ...`` of square matrices."""
    return wrap(d.matrix_exp(matrix("linalg.matrix_exp", A, square=True)))


def matrix_power(A: Tensor, n: int) -> Tensor:
    """The n-th power of square matrices; of the inverses for a negative n."""
    shape = node_of("linalg.matrix_power", A).shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise located(ShapeError(
            f"linalg.matrix_power: got a tensor of shape {shape}; it takes square matrices"
        ))  # fmt: skip
    if n < 0:
        A, n = inv(A), -n
    if n == 0:
        return wrap(m.identity(A.node.type, shape[-1]))
    result = None
    while n:
        if n & 1:
            result = A if result is None else matmul(result, A)
        n >>= 1
        A = matmul(A, A) if n else A
    return A if result is None else result


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices in the order that needs the fewest multiplications.

    The first may be a row and the last a column vector.
    """
    parts = list(tensors)
    if len(parts) < 2:
        raise located(ValueError(
            f"linalg.multi_dot: got {len(parts)} tensors; it takes at least 2"
        ))  # fmt: skip
    row, column = parts[0].ndim == 1, parts[-1].ndim == 1
    parts[0] = parts[0].unsqueeze(0) if row else parts[0]
    parts[-1] = parts[-1].unsqueeze(1) if column else parts[-1]
    out = reduce(matmul, parts) if len(parts) == 2 else chain_matmul(*parts)
    out = out.squeeze(-1) if column else out
    return out.squeeze(0) if row else out


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """``sum(conj(x) * y)`` along ``dim``, with broadcasting."""
    return reduction.sum(a.mul(conj(x), y), dim)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of 3 along ``dim``, with broadcasting."""
    x, y = broadcast_tensors(input, other)
    axis = axis_of("linalg.cross", dim, x.ndim)
    if input.ndim != other.ndim or x.shape[axis] != 3:
        raise located(ShapeError(
            f"linalg.cross: got shapes {tuple(input.shape)} and {tuple(other.shape)} along "
            f"dimension {dim}; the size there must be 3, and both have equally many dimensions"
        ))  # fmt: skip
    return cross_of(x, y, axis)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, sharing memory."""
    return diagonal_of(A, offset, dim1, dim2)


def vander(x: Tensor, N: int | None = None) -> Tensor:
    """The powers 0, 1, ..., N - 1 of every element along a new last dimension."""
    x = x if x.ndim else x.unsqueeze(0)
    size = x.shape[-1] if N is None else N
    if size < 2 and N is not None and N <= 1:
        raise located(ValueError(f"linalg.vander: got N={N}; it must be greater than 1"))
    column = x.unsqueeze(-1)
    one = ones_like(column)
    powers = cumprod(column.expand(*x.shape, size - 1), -1) if size > 1 else one[..., :0]
    return cat([one, powers], -1)


def logdet(A: Tensor) -> Tensor:
    """The logarithm of the determinant; NaN where that is negative."""
    sign, size = slogdet(A)
    if A.dtype.kind == "c":
        return a.add(a.log(sign), size)
    nan = a.mul(size.detach(), float("nan"))
    return a.where(a.lt(sign, 0), nan, size)


__all__ = [
    "cross", "det", "diagonal", "logdet", "matmul", "matrix_exp", "matrix_power", "multi_dot",
    "slogdet", "vander", "vecdot",
]  # fmt: skip
