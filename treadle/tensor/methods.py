"""The elementwise functions as methods, and their in-place forms."""

from __future__ import annotations

from typing import Any

from treadle.tensor import arithmetic as a
from treadle.tensor.operators import write_back


def in_place(function: Any) -> Any:
    """The method that replaces the tensor's values by ``function(tensor, ...)``."""
    name = f"{function.__name__}_"

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return write_back(self, function(self, *args, **kwargs), name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``{function.__name__}`` in place."
    return method


class ElementwiseMethods:
    """The elementwise functions as methods."""

    __slots__ = ()

    add, sub, mul, div, pow = a.add, a.sub, a.mul, a.div, a.pow
    multiply, divide, true_divide, subtract = a.mul, a.div, a.div, a.sub
    floor_divide, remainder, fmod, neg, abs = a.floor_divide, a.remainder, a.fmod, a.neg, a.abs
    negative, absolute = a.neg, a.abs
    eq, ne, lt, le, gt, ge = a.eq, a.ne, a.lt, a.le, a.gt, a.ge
    maximum, minimum, clamp, clip = a.maximum, a.minimum, a.clamp, a.clamp
    exp, expm1, log, log1p = a.exp, a.expm1, a.log, a.log1p
    sin, cos, tanh, sigmoid, erf = a.sin, a.cos, a.tanh, a.sigmoid, a.erf
    sqrt, reciprocal, square, sign = a.sqrt, a.reciprocal, a.square, a.sign
    floor, ceil, trunc, round = a.floor, a.ceil, a.trunc, a.round
    isnan, isinf, isfinite = a.isnan, a.isinf, a.isfinite
    logical_and, logical_or, logical_xor = a.logical_and, a.logical_or, a.logical_xor
    logical_not, bitwise_not = a.logical_not, a.bitwise_not
    bitwise_and, bitwise_or, bitwise_xor = a.bitwise_and, a.bitwise_or, a.bitwise_xor
    bitwise_left_shift, bitwise_right_shift = a.bitwise_left_shift, a.bitwise_right_shift
    lerp, addcmul, addcdiv, relu = a.lerp, a.addcmul, a.addcdiv, a.relu

    add_, sub_, mul_, div_, pow_ = map(in_place, (a.add, a.sub, a.mul, a.div, a.pow))
    floor_divide_, remainder_, neg_, abs_ = map(
        in_place, (a.floor_divide, a.remainder, a.neg, a.abs)
    )
    clamp_, exp_, log_, sqrt_, fmod_ = map(in_place, (a.clamp, a.exp, a.log, a.sqrt, a.fmod))
    expm1_, log1p_, erf_ = map(in_place, (a.expm1, a.log1p, a.erf))
    multiply_, divide_, true_divide_, subtract_ = mul_, div_, div_, sub_
    negative_, absolute_, clip_ = neg_, abs_, clamp_
    bitwise_and_, bitwise_or_, bitwise_xor_ = map(
        in_place, (a.bitwise_and, a.bitwise_or, a.bitwise_xor)
    )
    bitwise_not_, logical_and_, logical_or_, logical_xor_, logical_not_ = map(
        in_place, (a.bitwise_not, a.logical_and, a.logical_or, a.logical_xor, a.logical_not)
    )
    bitwise_left_shift_, bitwise_right_shift_ = map(
        in_place, (a.bitwise_left_shift, a.bitwise_right_shift)
    )
    tanh_, sigmoid_, sin_, cos_, relu_ = map(in_place, (a.tanh, a.sigmoid, a.sin, a.cos, a.relu))
    floor_, ceil_, trunc_, round_ = map(in_place, (a.floor, a.ceil, a.trunc, a.round))
    square_, reciprocal_, sign_ = map(in_place, (a.square, a.reciprocal, a.sign))
    lerp_, addcmul_, addcdiv_ = map(in_place, (a.lerp, a.addcmul, a.addcdiv))

    def clamp_min(self, min: Any) -> Any:
        """``clamp(min=min)``."""
        return a.clamp(self, min=min)  # type: ignore[arg-type]

    def clamp_max(self, max: Any) -> Any:
        """``clamp(max=max)``."""
        return a.clamp(self, max=max)  # type: ignore[arg-type]

    def where(self, condition: Any, other: Any) -> Any:
        """``self`` where the condition holds, else ``other``."""
        return a.where(condition, self, other)
