"""The standard's elementwise functions: those of Treadle, with the standard's promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.base import dtypes
from treadle.interop.array_api.functions import promoted, t
from treadle.tensor.tensor import Tensor

# By the standard's name: Treadle's.
_ONE_TEXT = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh exp expm1 floor imag isfinite isinf isnan "
    "log log10 log1p log2 logical_not positive real reciprocal round sign signbit sin sinh sqrt "
    "square tan tanh trunc"
)
_TWO_TEXT = (
    "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign "
    "floor_divide hypot logaddexp logical_and logical_or logical_xor maximum minimum nextafter pow "
    "remainder"
)
_ONE = {name: name for name in _ONE_TEXT.split()} | {
    "bitwise_invert": "bitwise_not", "negative": "neg",
}  # fmt: skip
_TWO = {name: name for name in _TWO_TEXT.split()} | {
    "divide": "div", "equal": "eq", "greater": "gt", "greater_equal": "ge", "less": "lt",
    "less_equal": "le", "multiply": "mul", "not_equal": "ne", "subtract": "sub",
}  # fmt: skip
_WHOLE = {"ceil", "floor", "round", "trunc"}  # which leave whole numbers as they are


def _unary(name: str, ours: str) -> Callable[..., Tensor]:
    def function(x: Tensor, /) -> Tensor:
        if name in _WHOLE and not x.dtype.is_floating_point and not x.dtype.is_complex:
            return x
        return getattr(t, ours)(x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}`` of the array API standard, element by element."
    return function


def _binary(name: str, ours: str) -> Callable[..., Tensor]:
    def function(x1: Tensor, x2: Tensor, /) -> Tensor:
        a, b = promoted(name, x1, x2)
        return getattr(t, ours)(a, b)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}`` of the array API standard, of two arrays or one and a number."
    return function


globals().update({name: _unary(name, ours) for name, ours in _ONE.items()})
globals().update({name: _binary(name, ours) for name, ours in _TWO.items()})


def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate."""
    return t.conj_physical(x) if x.dtype.is_complex else x


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Each element, at least ``min`` and at most ``max``, in the dtype of ``x``."""
    bounds = [b.to(x.dtype) if isinstance(b, Tensor) else b for b in (min, max)]
    return x if bounds == [None, None] else _clipped(x, *bounds)


def _clipped(x: Tensor, low: Any, high: Any) -> Tensor:
    for bound, choose in ((low, t.maximum), (high, t.minimum)):
        if bound is not None:
            x = choose(*promoted("clip", x, bound))
    return x


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """``x1`` where the condition holds, ``x2`` elsewhere."""
    return t.where(condition, *promoted("where", x1, x2))


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind (``"integral"`` ...), is another dtype, or one of several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if not isinstance(kind, str):
        return dtype is kind
    letters = {
        "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu",
        "real floating": "f", "complex floating": "c", "numeric": "iufc",
    }  # fmt: skip
    if kind not in letters:
        raise ValueError(f"isdtype: got the kind {kind!r}; expected one of {', '.join(letters)}")
    return dtypes.as_dtype(dtype).kind in letters[kind]


__all__ = [*_ONE, *_TWO, "clip", "conj", "isdtype", "where"]
