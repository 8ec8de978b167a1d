"""What all families share: Treadle's functions by name, and the standard's rule of promotion."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.node import located
from treadle.tensor import arithmetic, creation
from treadle.tensor.later import WHERE
from treadle.tensor.tensor import Tensor


class _Functions:
    """``t.sort`` is ``treadle.sort``; modules are imported when a function of theirs is named."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        for module in (arithmetic, creation):
            if hasattr(module, name):
                break
        else:
            if name not in WHERE:
                raise AttributeError(f"treadle has no function {name!r}")
            module = import_module(WHERE[name])
        found = getattr(module, name)
        setattr(self, name, found)
        return found


t: Any = _Functions()


def promoted(name: str, *values: Any) -> tuple[Tensor, ...]:
    """The operands in the dtype that the standard gives: that of all tensors, 0-d ones as any.

    A Python number takes the dtype of the tensors, which must be of its kind or a higher one.
    """
    tensors = [x for x in values if isinstance(x, Tensor)]
    if not tensors:
        raise located(TypeError(
            f"{name}: got {', '.join(type(x).__name__ for x in values)}; expected one array at "
            f"least; make one with asarray"
        ))  # fmt: skip
    common = tensors[0].dtype
    for x in tensors[1:]:
        common = dtypes.promote_types(common, x.dtype)
    return tuple(
        x.to(common) if isinstance(x, Tensor) else _scalar(name, x, common) for x in values
    )


def _scalar(name: str, value: Any, common: DType) -> Tensor:
    rank = "biufc".index(common.kind) if common.kind != "u" else 1
    wanted = {bool: 0, int: 1, float: 3, complex: 4}.get(type(value))
    if wanted is None or wanted > rank or (wanted == 0 and common is not dtypes.bool_):
        raise located(TypeError(
            f"{name}: got {value!r} with an array of dtype {common.name}; a number must be of the "
            f"array's kind; convert one of the two"
        ))  # fmt: skip
    return t.tensor(value, dtype=common)


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """One axis, several, or None for all, as a tuple."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
