"""The standard's reductions and scans."""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.interop.array_api.functions import axes_of, promoted, t
from treadle.tensor.tensor import Tensor

_WIDE: dict[str, DType] = {"b": dtypes.int64, "i": dtypes.int64, "u": dtypes.uint64}


def _wide(x: Tensor, dtype: Any) -> Tensor:
    """For sums: whole numbers in 64 bits, signed or not as they are; others as they are."""
    if dtype is not None:
        return x.to(dtype)
    wide: DType | None = {"b": dtypes.int64, "i": dtypes.int64, "u": dtypes.uint64}.get(
        x.dtype.kind
    )
    return x if wide is None else x.to(wide)


def sum(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tensor:
    """The sum over axes."""
    wide = _wide(x, dtype)
    return t.sum(wide, axes_of(axis, x.ndim), keepdims, dtype=wide.dtype) if _any(x, axis) else wide


def _any(x: Tensor, axis: Any) -> bool:
    """Whether there is an axis to reduce at all."""
    return bool(axes_of(axis, x.ndim))


def prod(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tensor:
    """The product over axes."""
    wide = _wide(x, dtype)
    for place in sorted((a % x.ndim for a in axes_of(axis, x.ndim)), reverse=True):
        wide = t.prod(wide, place, keepdims, dtype=wide.dtype)
    return wide


def mean(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """The mean over axes."""
    return t.mean(x, axes_of(axis, x.ndim), keepdims) if _any(x, axis) else x


def var(
    x: Tensor, /, *, axis: Any = None, correction: float = 0.0, keepdims: Any = False
) -> Tensor:
    """The variance over axes, the sum of squares being divided by n - correction."""
    if not _any(x, axis):
        x, axis = x.reshape(1), 0
    return t.var(x, axes_of(axis, x.ndim), correction=correction, keepdim=keepdims).reshape(
        _kept(x, axis, keepdims)
    )


def std(
    x: Tensor, /, *, axis: Any = None, correction: float = 0.0, keepdims: Any = False
) -> Tensor:
    """The square root of the variance."""
    return t.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def _kept(x: Tensor, axis: Any, keepdims: Any) -> tuple[int, ...]:
    places = {a % x.ndim for a in axes_of(axis, x.ndim)}
    if keepdims:
        return tuple(1 if a in places else n for a, n in enumerate(x.shape))
    return tuple(n for a, n in enumerate(x.shape) if a not in places)


def max(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """The largest element over axes."""
    return t.amax(x, axes_of(axis, x.ndim), keepdims) if _any(x, axis) else x


def min(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """The smallest element over axes."""
    return t.amin(x, axes_of(axis, x.ndim), keepdims) if _any(x, axis) else x


def all(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """Whether all elements over axes are other than 0."""
    kept = t.logical_not(x)
    return t.logical_not(any(kept, axis=axis, keepdims=keepdims))


def any(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """Whether one element over axes is other than 0."""
    return count_nonzero(x, axis=axis, keepdims=keepdims) > 0


def count_nonzero(x: Tensor, /, *, axis: Any = None, keepdims: Any = False) -> Tensor:
    """How many elements over axes are other than 0."""
    return sum((x if x.dtype is dtypes.bool_ else x != 0).to(dtypes.int64), axis=axis,
               keepdims=keepdims)  # fmt: skip


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: Any = False) -> Tensor:
    """Where the largest element is, the first of several."""
    return _arg(t.argmax, x, axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: Any = False) -> Tensor:
    """Where the smallest element is, the first of several."""
    return _arg(t.argmin, x, axis, keepdims)


def _arg(function: Any, x: Tensor, axis: int | None, keepdims: Any) -> Tensor:
    if axis is not None:
        return function(x, axis, keepdims)
    found = function(x.reshape(-1), 0)
    return found.reshape((1,) * x.ndim) if keepdims else found


def _scan(function: Any, start: int, x: Tensor, axis: int | None, dtype: Any, first: Any) -> Tensor:
    if axis is None:
        if x.ndim != 1:
            raise ValueError(
                f"cumulative functions: got an array of shape {tuple(x.shape)} and no axis; name "
                f"the axis"
            )
        axis = 0
    wide = _wide(x, dtype)
    scanned = function(wide, axis, dtype=wide.dtype)
    if not first:
        return scanned
    shape = [1 if a == axis % x.ndim else n for a, n in enumerate(x.shape)]
    return t.cat([t.full(shape, start, dtype=wide.dtype), scanned], axis)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: Any = False
) -> Tensor:
    """The sums of the elements up to each along an axis."""
    return _scan(t.cumsum, 0, x, axis, dtype, include_initial)


def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: Any = False
) -> Tensor:
    """The products of the elements up to each along an axis."""
    return _scan(t.cumprod, 1, x, axis, dtype, include_initial)


def diff(
    x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The differences of neighbours along an axis, n times over."""
    parts = [part for part in (prepend, x, append) if part is not None]
    whole = t.cat(promoted("diff", *parts), axis) if len(parts) > 1 else x
    return t.diff(whole, n, axis)


__all__ = [
    "all", "any", "argmax", "argmin", "count_nonzero", "cumulative_prod", "cumulative_sum", "diff",
    "max", "mean", "min", "prod", "std", "sum", "var",
]  # fmt: skip
