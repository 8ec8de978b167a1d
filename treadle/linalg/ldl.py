"""LDL factorisations of symmetric matrices, by SciPy's LAPACK, for NumPy has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base.errors import LinAlgError, MissingExtraError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.ir.node import located
from treadle.linalg.common import matrix, together
from treadle.tensor.creation import from_numpy

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


class LDL(Record):
    """The packed factors and what was exchanged."""

    LD: Tensor
    pivots: Tensor


class LDLInfo(Record):
    """As ``LDL``, and for each matrix 0 or which pivot is 0."""

    LD: Tensor
    pivots: Tensor
    info: Tensor


def _function(verb: str, like: Any, hermitian: bool) -> Any:
    try:
        from scipy.linalg import lapack  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise MissingExtraError("scipy", "linalg", f"linalg.ldl_{verb}") from None
    letter = "sdcz"[np.dtype(like).itemsize.bit_length() - 3 + (like.kind == "c")]
    kind = "he" if hermitian and like.kind == "c" else "sy"
    return getattr(lapack, f"{letter}{kind}{'trf' if verb == 'factor' else 'trs'}")


def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> LDLInfo:
    """``A = L D L^T`` of the lower triangle, packed as LAPACK's sytrf does; it has no gradient."""
    matrix("linalg.ldl_factor", A, square=True)
    array = A.detach().numpy()
    function = _function("factor", array.dtype, hermitian)
    packed, pivots = array.copy(), np.zeros(array.shape[:-1], np.int32)
    info = np.zeros(array.shape[:-2], np.int32)
    for index in np.ndindex(*array.shape[:-2]):
        factor, exchanged, code = function(array[index], lower=1)
        packed[index], pivots[index], info[index] = np.tril(factor), exchanged, code
    if check_errors and info.any():
        raise located(LinAlgError(
            f"linalg.ldl_factor: matrix {np.argwhere(info)[0].tolist()} has a pivot that is 0"
        ))  # fmt: skip
    return LDLInfo(*map(from_numpy, (packed, pivots.astype(np.int32), info)))


def ldl_factor(A: Tensor, *, hermitian: bool = False) -> LDL:
    """``ldl_factor_ex`` without its last result."""
    return LDL(*ldl_factor_ex(A, hermitian=hermitian)[:2])


def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with ``A X = B`` from what ``ldl_factor`` gave of A; it has no gradient."""
    name = "linalg.ldl_solve"
    together(name, matrix(name, LD, square=True), matrix(name, B))
    factors, right = LD.detach().numpy(), B.detach().numpy()
    batch = np.broadcast_shapes(factors.shape[:-2], right.shape[:-2])
    factors = np.broadcast_to(factors, batch + factors.shape[-2:])
    right = np.broadcast_to(right, batch + right.shape[-2:])
    exchanged = np.broadcast_to(pivots.numpy(), batch + pivots.shape[-1:])
    out = np.empty(right.shape, right.dtype)
    if not out.size:
        return from_numpy(out)
    size = factors.shape[-1]
    if exchanged.shape[-1] != size or not ((exchanged != 0) & (np.abs(exchanged) <= size)).all():
        raise located(ValueError(
            f"{name}: got pivots that ldl_factor does not give: there must be {size} for every "
            f"matrix, from 1 to {size}, negative ones for blocks"
        ))  # fmt: skip
    function = _function("solve", factors.dtype, hermitian)
    for index in np.ndindex(*batch):
        out[index] = function(factors[index], exchanged[index], right[index], lower=1)[0]
    return from_numpy(out)


__all__ = ["LDL", "LDLInfo", "ldl_factor", "ldl_factor_ex", "ldl_solve"]
