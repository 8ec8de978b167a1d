"""Few singular values or eigenvalues of large matrices: random projections, and ``lobpcg``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.linalg.aliases import USV
from treadle.linalg.common import Eigen, matrix
from treadle.linalg.factorisations import cholesky, eigh, qr, svd
from treadle.linalg.solvers import solve_triangular
from treadle.random import randn
from treadle.tensor import arithmetic as a
from treadle.tensor.complex_numbers import adjoint
from treadle.tensor.contraction import matmul
from treadle.tensor.reduction import mean

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def svd_lowrank(
    A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
) -> USV:
    """U, S and V with ``A - M`` nearly U diag(S) V^H, of rank ``q``.

    By random projection and ``niter`` subspace iterations (N. Halko et al., 2009).
    """
    node = matrix("svd_lowrank", A)
    count, steps = 6 if q is None else q, 2 if niter is None else niter
    rows, columns = node.shape[-2:]
    if not 0 <= count <= min(rows, columns) or steps < 0:
        raise located(ValueError(
            f"svd_lowrank: got q={count} and niter={steps} for matrices of {rows} rows and "
            f"{columns} columns; q must lie in 0 to {min(rows, columns)} and niter not be negative"
        ))  # fmt: skip
    B = A if M is None else a.sub(A, M)
    is_wide = rows < columns
    B = adjoint(B) if is_wide else B
    basis = qr(matmul(B, randn(B.shape[-1], count, dtype=A.dtype))).Q
    for _ in range(steps):
        basis = qr(matmul(adjoint(B), basis)).Q
        basis = qr(matmul(B, basis)).Q
    u, s, vh = svd(matmul(adjoint(basis), B), full_matrices=False)
    u, v = matmul(basis, u), adjoint(vh)
    return USV(v, s, u) if is_wide else USV(u, s, v)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> USV:
    """The principal components of rows: ``svd_lowrank`` after subtracting the columns' means."""
    rows, columns = matrix("pca_lowrank", A).shape[-2:]
    count = min(6, rows, columns) if q is None else q
    centred = a.sub(A, mean(A, -2, True)) if center else A
    return svd_lowrank(centred, count, niter)


def lobpcg(
    A: Tensor, k: int | None = None, B: Tensor | None = None, X: Tensor | None = None,
    n: int | None = None, iK: Tensor | None = None, niter: int | None = None,
    tol: float | None = None, largest: bool | None = None, method: str | None = None,
    tracker: Any = None, ortho_iparams: Any = None, ortho_fparams: Any = None,
    ortho_bparams: Any = None,
) -> Eigen:  # fmt: skip
    """The ``k`` largest (or smallest) eigenvalues of ``A x = l B x`` and their vectors.

    A is symmetric and B positive definite. Computed from the whole decomposition, whose gradient it
    has; what tunes the iteration that PyTorch uses (``X``, ``niter``, ``iK`` ...) changes nothing.
    """
    size = matrix("lobpcg", A, square=True).shape[-1]
    count = (1 if X is None else X.shape[-1]) if k is None else k
    if not 1 <= count <= size:
        raise located(ShapeError(
            f"lobpcg: got k={count} for matrices of size {size}; it must lie in 1 to {size}"
        ))  # fmt: skip
    factor = None if B is None else cholesky(B)
    inner = A
    if factor is not None:
        half = solve_triangular(factor, A, upper=False)
        inner = adjoint(solve_triangular(factor, adjoint(half), upper=False))
    values, vectors = eigh(inner)
    if largest is None or largest:
        values, vectors = values.flip(-1), vectors.flip(-1)
    values, vectors = values[..., :count], vectors[..., :count]
    if factor is not None:
        vectors = solve_triangular(adjoint(factor), vectors, upper=True)
    return Eigen(values, vectors)


__all__ = ["lobpcg", "pca_lowrank", "svd_lowrank"]
