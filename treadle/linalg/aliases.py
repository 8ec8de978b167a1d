"""Linear algebra under the names that ``torch`` itself and its tensors have for it.

``treadle.svd``, ``treadle.qr``, ``treadle.cholesky`` ... are older than ``torch.linalg`` and take
other arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base.record import Record
from treadle.linalg import factorisations as f
from treadle.linalg import solvers
from treadle.linalg.common import LU, QR, LeastSquares, PackedLU, fits, matrix, operand
from treadle.linalg.factorisations import geqrf, reflected, reflectors
from treadle.linalg.products import (
    det,
    logdet,
    matrix_exp,
    matrix_power,
    slogdet,
)
from treadle.linalg.solvers import cholesky_inverse, cholesky_solve, matrix_rank
from treadle.ops import matrices as m
from treadle.tensor import reduction
from treadle.tensor.complex_numbers import adjoint
from treadle.tensor.creation import empty, zeros
from treadle.tensor.handle import Handle, wrap

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


class USV(Record):
    """input = U diag(S) V^H."""

    U: Tensor
    S: Tensor
    V: Tensor


class TriangularSolution(Record):
    """The solution, and the matrix."""

    solution: Tensor
    cloned_coefficient: Tensor


inverse = solvers.inv
orgqr = f.householder_product


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """``linalg.cholesky``."""
    return f.cholesky(input, upper=upper)


def qr(input: Tensor, some: bool = True) -> QR:
    """``linalg.qr`` in the mode "reduced", or "complete" with ``some=False``."""
    return f.qr(input, "reduced" if some else "complete")


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> USV:
    """``linalg.svd`` with V in place of its adjoint; zeros for U and V without ``compute_uv``."""
    if not compute_uv:
        rows, columns = matrix("svd", input).shape[-2:]
        batch = input.shape[:-2]
        values = f.svdvals(input)
        u, v = (zeros(*batch, n, n, dtype=input.dtype) for n in (rows, columns))
        return USV(u, values, v)
    u, s, vh = f.svd(input, full_matrices=not some)
    return USV(u, s, adjoint(vh))


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """``linalg.pinv`` with ``rtol=rcond``."""
    return solvers.pinv(input, rtol=rcond)


def lstsq(input: Tensor, b: Tensor, rcond: float | None = None) -> LeastSquares:
    """``linalg.lstsq``."""
    return solvers.lstsq(input, b, rcond)


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """``linalg.lu_factor``; with ``get_infos`` also which pivots are 0."""
    packed, pivots, info = f.lu_factor_ex(A, pivot=pivot)
    return (packed, pivots, info) if get_infos else PackedLU(packed, pivots)


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """``linalg.lu_solve`` with its operands in another order."""
    return solvers.lu_solve(LU_data, LU_pivots, b)


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> LU:
    """P, L and U of what ``lu_factor`` gives; what is not asked for is empty."""
    P, L, U = f.unpacked(LU_data, LU_pivots)
    none = empty(0, dtype=LU_data.dtype)
    return LU(P if unpack_pivots else none, *((L, U) if unpack_data else (none, none)))


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolution:
    """``linalg.solve_triangular``, and A."""
    factor, is_upper = (A.mT, not upper) if transpose else (A, upper)
    x = solvers.solve_triangular(factor, b, upper=is_upper, unitriangular=unitriangular)
    return TriangularSolution(x, A.clone())


def ormqr(
    input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False
) -> Tensor:
    """``other`` times the whole Q that ``geqrf`` gives in parts, from the left or right."""
    node, factors = matrix("ormqr", input), operand("ormqr", tau)
    x = matrix("ormqr", other)
    k = factors.shape[-1]
    x = x if left else m.adjoint(x)
    fits("ormqr", f"the sizes {node.shape[-2]} and {x.shape[-2]} must be equal", input.shape,
         other.shape, node.shape[-2] == x.shape[-2])  # fmt: skip
    vectors = reflectors(node, k)
    turned = transpose if left else not transpose
    for i in range(k) if turned else reversed(range(k)):
        x = reflected(vectors, factors, i, x, adjoint=turned)
    return wrap(x if left else m.adjoint(x))


def nuclear_norm(input: Tensor, dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The sum of the singular values."""
    from treadle.linalg.norms import matrix_norm

    return matrix_norm(input, "nuc", dim, keepdim)


def frobenius_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The square root of the sum of the squared sizes."""
    return reduction.norm(input, 2, dim, keepdim)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    cholesky, cholesky_inverse, cholesky_solve = cholesky, cholesky_inverse, cholesky_solve
    det, logdet, slogdet, inverse, pinverse = det, logdet, slogdet, inverse, pinverse
    geqrf, orgqr, ormqr, lstsq, lu, lu_solve = geqrf, orgqr, ormqr, lstsq, lu, lu_solve
    matrix_exp, matrix_power, qr, svd, triangular_solve = (
        matrix_exp, matrix_power, qr, svd, triangular_solve,
    )  # fmt: skip


__all__ = [
    "cholesky", "cholesky_inverse", "cholesky_solve", "det", "frobenius_norm",
    "geqrf", "inverse", "logdet", "lstsq", "lu", "lu_solve", "lu_unpack", "matrix_exp",
    "matrix_power", "matrix_rank", "nuclear_norm", "orgqr", "ormqr", "pinverse", "qr", "slogdet",
    "svd", "triangular_solve",
]  # fmt: skip
