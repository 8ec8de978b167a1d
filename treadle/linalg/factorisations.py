"""Factorisations of matrices: Cholesky, LU, QR, singular values, eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base.errors import LinAlgError
from treadle.ir.node import located
from treadle.linalg.common import (
    LU,
    QR,
    SVD,
    Eigen,
    PackedLU,
    PackedLUInfo,
    Reflectors,
    WithInfo,
    fits,
    matrix,
    operand,
    results,
)
from treadle.ops import decompositions as d
from treadle.ops import elementwise as e
from treadle.ops import linalg as op
from treadle.ops import matrices as m
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.handle import wrap

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L with ``L L^H = A`` for positive definite matrices (or its adjoint, if ``upper``).

    >>> import treadle
    >>> cholesky(treadle.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    return cholesky_ex(A, upper=upper, check_errors=True).L


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> WithInfo:
    """``cholesky``, and for each matrix the order of its first minor that is not positive, or 0."""
    node = matrix("linalg.cholesky", A, square=True)
    source = m.adjoint(node) if upper else node
    factor, info = results(op.cholesky(source, check=check_errors))
    return WithInfo(wrap(m.adjoint(factor.node)) if upper else factor, info)


def qr(A: Tensor, mode: str = "reduced") -> QR:
    """``A = Q R``: Q with orthonormal columns, R an upper triangle.

    ``mode`` is "reduced", "complete" (Q is square) or "r" (R alone).
    """
    node = matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise located(ValueError(
            f"linalg.qr: got mode={mode!r}; it is 'reduced', 'complete' or 'r'"
        ))  # fmt: skip
    q, r = results(d.qr(node, mode="complete" if mode == "complete" else "reduced"))
    return QR(wrap(e.full_like(m.block(q.node, (0, 0), (0, 0)), 0)) if mode == "r" else q, r)


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """``A = U diag(S) Vh``: orthonormal vectors and singular values, the largest first."""
    return SVD(*results(d.svd(matrix("linalg.svd", A), full=full_matrices)))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, the largest first."""
    return wrap(d.svdvals(matrix("linalg.svdvals", A)))


def _lower(name: str, UPLO: str) -> bool:
    if UPLO not in ("L", "U", "l", "u"):
        raise located(ValueError(f"{name}: got UPLO={UPLO!r}; it is 'L' or 'U'"))
    return UPLO in "Ll"


def eigh(A: Tensor, UPLO: str = "L") -> Eigen:
    """Eigenvalues, the smallest first, and orthonormal vectors of Hermitian matrices.

    Only the lower triangle is read (the upper one with ``UPLO`` "U").
    """
    node = matrix("linalg.eigh", A, square=True)
    return Eigen(*results(d.eigh(node, lower=_lower("linalg.eigh", UPLO))))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, the smallest first."""
    node = matrix("linalg.eigvalsh", A, square=True)
    return wrap(d.eigvalsh(node, lower=_lower("linalg.eigvalsh", UPLO)))


def eig(A: Tensor) -> Eigen:
    """Complex eigenvalues and vectors of square matrices."""
    return Eigen(*results(d.eig(matrix("linalg.eig", A, square=True))))


def eigvals(A: Tensor) -> Tensor:
    """The complex eigenvalues of square matrices."""
    return wrap(d.eigvals(matrix("linalg.eigvals", A, square=True)))


# --- LU -----------------------------------------------------------------------------------------


def _check_pivot(name: str, pivot: bool) -> None:
    if not pivot:
        raise located(ValueError(
            f"{name}: got pivot=False; on the CPU rows are always exchanged: leave it out"
        ))  # fmt: skip


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> PackedLUInfo:
    """``lu_factor``, and for each matrix which pivot is 0 (counted from 1), or 0."""
    node = matrix("linalg.lu_factor", A)
    _check_pivot("linalg.lu_factor", pivot)
    packed, pivots = results(op.lu(node))
    info = first_zero_pivot(packed)
    if check_errors and bool(reduction.any(info).item()):
        raise located(LinAlgError(
            "linalg.lu_factor: a matrix is singular: a pivot is 0; leave check_errors out to get "
            "the factors all the same"
        ))  # fmt: skip
    return PackedLUInfo(packed, pivots, info)


def first_zero_pivot(packed: Tensor) -> Tensor:
    """The number of the first zero on the diagonal, counted from 1; 0 where there is none."""
    k = min(packed.shape[-2:])
    square = wrap(m.block(packed.detach().node, (0, 0), (k, k)))
    zero = a.eq(square.diagonal(0, -2, -1), 0)
    if not k:
        return reduction.sum(zero, -1).int()
    return a.mul(reduction.argmax(zero.int(), -1) + 1, reduction.any(zero, -1)).int()


def lu_factor(A: Tensor, *, pivot: bool = True) -> PackedLU:
    """L and U in one matrix, by partial pivoting, and the rows exchanged, counted from 1."""
    packed, pivots, _ = lu_factor_ex(A, pivot=pivot)
    return PackedLU(packed, pivots)


def unpacked(LU_data: Tensor, LU_pivots: Tensor) -> LU:
    """P, L and U of what ``lu_factor`` gives."""
    node = operand("lu_unpack", LU_data)
    rows, columns = node.shape[-2:]
    k = min(rows, columns)
    one = m.identity(node.type, rows)
    swapped = op.exchange_rows(one, LU_pivots.int().node, back=True)
    below = m.triangle(m.block(node, (0, 0), (rows, k)), True, -1)
    lower = e.add(below, m.block(one, (0, 0), (rows, k)))
    upper = m.triangle(m.block(node, (0, 0), (k, columns)), False)
    return LU(*map(wrap, (swapped, lower, upper)))


def lu(A: Tensor, *, pivot: bool = True) -> LU:
    """``A = P L U``: a permutation, a lower triangle with ones on its diagonal, an upper one."""
    node = matrix("linalg.lu", A)
    _check_pivot("linalg.lu", pivot)
    packed = op.lu(node)
    return unpacked(*results(packed))


# --- Householder --------------------------------------------------------------------------------


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of ``(I - tau_1 v_1 v_1^H) ... (I - tau_k v_k v_k^H)``.

    v_i is column i of ``A`` below the diagonal, with 1 on it and 0 above.
    """
    node, factors = matrix("linalg.householder_product", A), operand("householder_product", tau)
    rows, columns = node.shape[-2:]
    k = factors.shape[-1]
    fits(
        "linalg.householder_product",
        "there may be as many factors as columns, and no more columns than rows",
        node.shape,
        factors.shape,
        k <= columns <= rows and node.shape[:-2] == factors.shape[:-1],
    )
    out = m.block(m.identity(node.type, rows), (0, 0), (rows, columns))
    vectors = reflectors(node, k)
    for i in reversed(range(k)):
        out = reflected(vectors, factors, i, out)
    return wrap(out)


def reflectors(node: Any, k: int) -> Any:
    """The vectors of Householder's reflections as columns."""
    rows = node.shape[-2]
    below = m.triangle(m.block(node, (0, 0), (rows, k)), True, -1)
    return e.add(below, m.block(m.identity(node.type, rows), (0, 0), (rows, k)))


def reflected(vectors: Any, factors: Any, i: int, x: Any, adjoint: bool = False) -> Any:
    """(I - tau v v^H) x for reflection number i, or its adjoint."""
    v = m.block(vectors, (0, i), (vectors.shape[-2], 1))
    tau = m.block(m.rows(factors), (i, 0), (1, 1))
    along = m.product(m.adjoint(v), x)
    return e.sub(x, m.product(v, m.times(m.conj(tau) if adjoint else tau, along)))


def geqrf(input: Tensor) -> Reflectors:
    """Householder's vectors and factors of a QR factorisation, with R above them."""
    return Reflectors(*results(d.geqrf(matrix("geqrf", input))))


__all__ = [
    "cholesky", "cholesky_ex", "eig", "eigh", "eigvals", "eigvalsh", "geqrf", "householder_product",
    "lu", "lu_factor", "lu_factor_ex", "qr", "svd", "svdvals",
]  # fmt: skip
