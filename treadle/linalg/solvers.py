"""Equations, inverses and pseudoinverses, least squares."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import LinAlgError, ShapeError
from treadle.ir.node import Node, located
from treadle.linalg.common import (
    InverseInfo,
    LeastSquares,
    SolveInfo,
    fits,
    matrix,
    operand,
    results,
    together,
)
from treadle.linalg.factorisations import first_zero_pivot
from treadle.ops import decompositions as d
from treadle.ops import elementwise as e
from treadle.ops import linalg as op
from treadle.ops import matrices as m
from treadle.ops.movement import reshape
from treadle.tensor import arithmetic as a
from treadle.tensor import reduction
from treadle.tensor.creation import tensor, zeros
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.movement import axis_of, movedim
from treadle.tensor.queries import finfo

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


# --- equations ----------------------------------------------------------------------------------


def _system(name: str, A: Any, B: Any, left: bool) -> tuple[Node, Node, bool]:
    """A, B with matrices of right-hand sides in one batch, and whether B was vectors."""
    x, y = matrix(name, A, square=True), operand(name, B)
    is_vector = len(y.shape) == 1 or (len(y.shape) == len(x.shape) - 1 and y.shape == x.shape[:-1])
    if is_vector:
        y = m.rows(y)
    if not left:
        x, y = m.transpose(x), m.transpose(y) if not is_vector else y
    fits(name, f"B must have {x.shape[-1]} numbers for each system", A.shape, B.shape,
         len(y.shape) > 1 and x.shape[-1] == y.shape[-2])  # fmt: skip
    return *together(name, x, y), is_vector


def _unsystem(x: Node, is_vector: bool, left: bool) -> Tensor:
    if is_vector:
        return wrap(reshape(x, shape=x.shape[:-1]))
    return wrap(x if left else m.transpose(x))


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with ``A X = B`` (or ``X A = B`` with ``left=False``); B is vectors or matrices.

    Raises LinAlgError, when the value is needed, where a matrix is singular.

    >>> import treadle
    >>> solve(treadle.tensor([[2.0, 0.0], [0.0, 4.0]]), treadle.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    x, y, is_vector = _system("linalg.solve", A, B, left)
    return _unsystem(op.solve(x, y), is_vector, left)


def _info(A: Tensor, name: str, check_errors: bool) -> Tensor:
    info = first_zero_pivot(results(op.lu(matrix(name, A.detach(), square=True)))[0])
    if check_errors and bool(reduction.any(info).item()):
        raise located(LinAlgError(
            f"{name}: a matrix is singular: it has no inverse; add a small multiple of the "
            f"identity, or use linalg.lstsq or linalg.pinv"
        ))  # fmt: skip
    return info


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveInfo:
    """``solve``, and for each matrix which pivot is 0 (counted from 1), or 0."""
    return SolveInfo(solve(A, B, left=left), _info(A, "linalg.solve_ex", check_errors))


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X with ``A X = B`` (or ``X A = B``) for the upper or the lower triangle of A."""
    name = "linalg.solve_triangular"
    x, y = matrix(name, A, square=True), matrix(name, B)
    if not left:
        x, y, upper = m.transpose(x), m.transpose(y), not upper
    fits(name, f"the sizes {x.shape[-1]} and {y.shape[-2]} must be equal", A.shape, B.shape,
         x.shape[-1] == y.shape[-2])  # fmt: skip
    out = op.solve_triangular(*together(name, x, y), upper=upper, unit=unitriangular)
    return wrap(out if left else m.transpose(out))


def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """``solve`` with what ``lu_factor`` gave of A (of its adjoint, if ``adjoint``)."""
    name = "linalg.lu_solve"
    packed, right = together(name, matrix(name, LU, square=True), matrix(name, B))
    if not left:
        right, adjoint = m.adjoint(right), not adjoint
    exchanged = a.stretch(pivots.int().node, (*right.shape[:-2], pivots.shape[-1]))
    if adjoint:
        turned = m.adjoint(packed)
        out = op.solve_triangular(turned, right, upper=False, unit=False)
        out = op.solve_triangular(turned, out, upper=True, unit=True)
        out = op.exchange_rows(out, exchanged, back=True)
    else:
        out = op.exchange_rows(right, exchanged, back=False)
        out = op.solve_triangular(packed, out, upper=False, unit=True)
        out = op.solve_triangular(packed, out, upper=True, unit=False)
    return wrap(out if left else m.adjoint(out))


# --- inverses -----------------------------------------------------------------------------------


def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices; LinAlgError, when it is needed, where there is none."""
    return wrap(op.inv(matrix("linalg.inv", A, square=True)))


def inv_ex(A: Tensor, *, check_errors: bool = False) -> InverseInfo:
    """``inv``, and for each matrix which pivot is 0 (counted from 1), or 0."""
    return InverseInfo(inv(A), _info(A, "linalg.inv_ex", check_errors))


def _per_matrix(value: Any, like: Node) -> Node:
    """A tolerance as a number for each matrix."""
    real = like.dtype.to_real()
    node = value.node if isinstance(value, Handle) else tensor(float(value)).node
    return a.stretch(e.cast(node, real), like.shape[:-2])


def tolerance(node: Node, values: Node, atol: Any, rtol: Any) -> Node:
    """Up to where singular values count as 0: ``max(atol, rtol * the largest)``."""
    shape = node.shape[-2:]
    if rtol is None:
        rtol = 0.0 if atol is not None and _is_positive(atol) else (
            max(shape) * finfo(node.dtype.to_real()).eps
        )  # fmt: skip
    top = wrap(values).abs()
    largest = reduction.amax(top, -1) if values.shape[-1] else reduction.sum(top, -1)
    relative = a.mul(wrap(_per_matrix(rtol, node)), largest)
    return a.maximum(wrap(_per_matrix(0.0 if atol is None else atol, node)), relative).node


def _is_positive(value: Any) -> bool:
    if isinstance(value, Handle):
        return bool(reduction.any(a.gt(value, 0)).item())
    return bool(value > 0)


def values_of(node: Node, hermitian: bool) -> Node:
    """Singular values, or the eigenvalues of a Hermitian matrix."""
    return d.eigvalsh(node, lower=True) if hermitian else d.svdvals(node)


def pinv(
    A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """The pseudoinverse; singular values up to ``max(atol, rtol * largest)`` count as 0.

    ``rtol`` is ``max(m, n) eps`` unless given, and 0 if only ``atol`` is; ``rcond`` is its old
    name.
    """
    node = matrix("linalg.pinv", A, square=hermitian)
    source = detached(node)
    limits = tolerance(source, values_of(source, hermitian), atol, rcond if rtol is None else rtol)
    return wrap(d.pinv(node, limits, hermitian=hermitian))


def detached(node: Node) -> Node:
    """The node without its history."""
    return wrap(node).detach().node


def matrix_rank(
    A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """How many singular values are above the tolerance (see ``pinv``); ``tol`` is ``atol``."""
    node = detached(matrix("linalg.matrix_rank", A, square=hermitian))
    if tol is not None:
        atol, rtol = tol, 0.0
    values = values_of(node, hermitian)
    limits = tolerance(node, values, atol, rtol)
    return reduction.sum(a.gt(wrap(values).abs(), wrap(m.rows(limits))), -1)


def lstsq(
    A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> LeastSquares:
    """The X of least norm that minimises ``||A X - B||``.

    With it come the rank, unless ``driver`` is "gels"; with "gelsd" and "gelss" the singular
    values; and with these three the squared residuals, where there are more rows than columns and
    the rank is full.
    """
    name = "linalg.lstsq"
    x, y = matrix(name, A), operand(name, B)
    is_vector = len(y.shape) == len(x.shape) - 1
    y = m.rows(y) if is_vector else y
    rows, columns = x.shape[-2:]
    fits(name, "A and B must have equally many rows", A.shape, B.shape,
         len(y.shape) > 1 and y.shape[-2] == rows)  # fmt: skip
    x, y = together(name, x, y)
    values = d.svdvals(detached(x))
    relative = finfo(x.dtype.to_real()).eps * max(rows, columns) if rcond is None else rcond
    limits = tolerance(x, values, None, relative)
    out = m.product(d.pinv(x, limits, hermitian=False), y)
    rank = reduction.sum(a.gt(wrap(values), wrap(m.rows(limits))), -1)
    none = zeros(0, dtype=x.dtype.to_real())
    residuals = none
    measured = driver in ("gels", "gelsd", "gelss") and rows > columns
    if measured and bool(reduction.all(a.eq(rank, columns)).item()):
        off = e.sub(m.product(x, out), y)
        residuals = reduction.sum(a.square(a.abs(wrap(off))), -2)
    if is_vector:
        out = reshape(out, shape=out.shape[:-1])
    no_rank = driver == "gels"
    return LeastSquares(
        wrap(out), residuals, zeros(0, dtype=dtypes.int64) if no_rank else rank,
        wrap(values) if driver in ("gelsd", "gelss") else none,
    )  # fmt: skip


# --- tensors as matrices ------------------------------------------------------------------------


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of what ``tensordot(A, x, ind)`` does; the first ``ind`` sizes are the rows."""
    shape = tuple(operand("linalg.tensorinv", A).shape)
    rows, columns = shape[:ind], shape[ind:]
    if ind < 1 or prod(rows) != prod(columns):
        raise located(ShapeError(
            f"linalg.tensorinv: got a tensor of shape {shape} and ind={ind}; the sizes before and "
            f"from ind on must have equal products, and ind be positive"
        ))  # fmt: skip
    flat = A.reshape(prod(rows), prod(columns))
    return inv(flat).reshape(*columns, *rows)


def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with ``tensordot(A, X, X.ndim) = B``; ``dims`` of A are moved to its end first."""
    operand("linalg.tensorsolve", A), operand("linalg.tensorsolve", B)
    if dims is not None:
        axes = [axis_of("linalg.tensorsolve", x, A.ndim) for x in dims]
        A = movedim(A, axes, list(range(A.ndim - len(axes), A.ndim)))
    shape = tuple(A.shape[B.ndim :])
    fits(
        "linalg.tensorsolve",
        "the first sizes of A must be B's, with the product of the others",
        A.shape,
        B.shape,
        prod(shape) == B.numel() == prod(A.shape[: B.ndim]),
    )
    return solve(A.reshape(B.numel(), prod(shape)), B.reshape(-1)).reshape(shape)


# --- with a Cholesky factor ---------------------------------------------------------------------


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with ``L L^H X = B`` (``L^H L X = B`` for an upper factor)."""
    right, factor = together("cholesky_solve", matrix("cholesky_solve", B),
                             matrix("cholesky_solve", L, square=True))  # fmt: skip
    if upper:
        factor = m.adjoint(factor)
    half = op.solve_triangular(factor, right, upper=False, unit=False)
    return wrap(op.solve_triangular(m.adjoint(factor), half, upper=True, unit=False))


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of ``L L^H`` (of ``L^H L`` for an upper factor)."""
    node = matrix("cholesky_inverse", L, square=True)
    return cholesky_solve(wrap(m.identity(node.type, node.shape[-1])), L, upper)


__all__ = [
    "cholesky_inverse", "cholesky_solve", "inv", "inv_ex", "lstsq", "lu_solve", "matrix_rank",
    "pinv", "solve", "solve_ex", "solve_triangular", "tensorinv", "tensorsolve",
]  # fmt: skip
