"""Which functions mixed precision runs in a shorter dtype, and which in float32.

Inside ``treadle.autocast`` products (``lowered``) convert float32 tensors to the shorter dtype, and
losses and others that need the range (``in_float32``) convert shorter floats to float32. Whatever
such a function calls runs as it is. The lists are PyTorch's for the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from treadle.base.dtypes import DType, float32, float64
from treadle.ir.node import recorder
from treadle.ops.elementwise import convert
from treadle.tensor.handle import Handle, wrap

F = TypeVar("F", bound=Callable[..., Any])


def cast_tensors(value: Any, dtype: DType) -> Any:
    """Floating-point tensors, but for float64, in a dtype; also those in lists and dictionaries."""
    if isinstance(value, Handle):
        node = value.node
        kind = node.dtype
        if not kind.is_floating_point or kind is float64 or kind is dtype:
            return value
        return wrap(convert(node, dtype=dtype))
    if type(value) in (list, tuple):
        return type(value)(cast_tensors(x, dtype) for x in value)
    if type(value) is dict:
        return {key: cast_tensors(x, dtype) for key, x in value.items()}
    return value


def _called(function: F, args: Any, kwargs: Any, active: DType, wanted: DType) -> Any:
    state = recorder.state
    state.autocast = None
    try:
        return function(*cast_tensors(args, wanted), **cast_tensors(kwargs, wanted))
    finally:
        state.autocast = active


def lowered(function: F) -> F:
    """A function that autocast runs in its shorter dtype."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        active = recorder.state.autocast
        if active is None:
            return function(*args, **kwargs)
        return _called(function, args, kwargs, active, active)

    return wrapped  # type: ignore[return-value]


def in_float32(function: F) -> F:
    """A function that autocast runs in float32."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        active = recorder.state.autocast
        if active is None:
            return function(*args, **kwargs)
        return _called(function, args, kwargs, active, float32)

    return wrapped  # type: ignore[return-value]


__all__ = ["cast_tensors", "lowered", "in_float32"]
