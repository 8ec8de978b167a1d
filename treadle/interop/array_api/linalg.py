"""The standard's extension ``linalg``."""

from __future__ import annotations

from typing import Any, NamedTuple

from treadle import linalg as ours
from treadle.interop.array_api.arranging import matrix_transpose
from treadle.interop.array_api.functions import promoted, t
from treadle.interop.array_api.reducing import _wide
from treadle.tensor.tensor import Tensor


class EighResult(NamedTuple):
    """What ``eigh`` gives."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """What ``qr`` gives."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """What ``slogdet`` gives."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """What ``svd`` gives."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product."""
    return t.matmul(*promoted("matmul", x1, x2))


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Products summed over axes of both arrays."""
    return t.tensordot(*promoted("tensordot", x1, x2), dims=axes)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The inner product of vectors along an axis; of the first the conjugate."""
    return ours.vecdot(*promoted("vecdot", x1, x2), dim=axis)


def cholesky(x: Tensor, /, *, upper: Any = False) -> Tensor:
    """The triangular factor of a positive definite matrix."""
    return ours.cholesky(x, upper=upper)


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three elements along an axis."""
    return ours.cross(*promoted("cross", x1, x2), dim=axis)


def det(x: Tensor, /) -> Tensor:
    """The determinant."""
    return ours.det(x)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonal of each matrix."""
    return t.diagonal(x, offset, -2, -1)


def eigh(x: Tensor, /) -> EighResult:
    """Eigenvalues and eigenvectors of a symmetric matrix."""
    return EighResult(*ours.eigh(x))


def eigvalsh(x: Tensor, /) -> Tensor:
    """Eigenvalues of a symmetric matrix."""
    return ours.eigvalsh(x)


def inv(x: Tensor, /) -> Tensor:
    """The inverse."""
    return ours.inv(x)


def matrix_norm(x: Tensor, /, *, keepdims: Any = False, ord: Any = "fro") -> Tensor:
    """A norm of each matrix."""
    return ours.matrix_norm(x, ord, (-2, -1), keepdims)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """The n-th power of a square matrix."""
    return ours.matrix_power(x, n)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values are larger than ``rtol`` times the largest."""
    return ours.matrix_rank(x, rtol=rtol)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of the elements of two vectors."""
    return t.outer(*promoted("outer", x1, x2))


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverse."""
    return ours.pinv(x, rtol=rtol)


def qr(x: Tensor, /, *, mode: str = "reduced") -> QRResult:
    """Orthonormal columns and a triangular matrix whose product is ``x``."""
    return QRResult(*ours.qr(x, mode))


def slogdet(x: Tensor, /) -> SlogdetResult:
    """The sign of the determinant and the logarithm of its size."""
    return SlogdetResult(*ours.slogdet(x))


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The x with ``x1 @ x = x2``; x2 is a vector where it has one dimension."""
    a, b = promoted("solve", x1, x2)
    return ours.solve(a, b[:, None])[..., 0] if b.ndim == 1 else ours.solve(a, b)


def svd(x: Tensor, /, *, full_matrices: Any = True) -> SVDResult:
    """The singular value decomposition."""
    return SVDResult(*ours.svd(x, full_matrices))


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values."""
    return ours.svdvals(x)


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of the diagonal of each matrix."""
    wide = _wide(x, dtype)
    return t.sum(diagonal(wide, offset=offset), -1, dtype=wide.dtype)


def vector_norm(x: Tensor, /, *, axis: Any = None, keepdims: Any = False, ord: Any = 2) -> Tensor:
    """A norm of the vectors along axes."""
    return ours.vector_norm(x, ord, axis, keepdims)


__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm",
    "matrix_power", "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve",
    "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
