"""Python's operators on tensors."""

from __future__ import annotations

from typing import Any, Self

from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.arithmetic import Operand
from treadle.tensor.handle import Handle

_CATEGORY = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}


def write_back(target: Any, result: Any, name: str) -> Any:
    """Makes ``result`` the value of ``target``: how every in-place operation ends."""
    new = result.node
    old = target.node.type
    if new.shape != old.shape:
        raise located(ShapeError(
            f"{name}: got a tensor of shape {old.shape} and a result of shape {new.shape}; an "
            f"in-place operation cannot change the shape; write x = x.{name.rstrip('_')}(...)"
        ))  # fmt: skip
    if new.dtype is not old.dtype:
        if _CATEGORY[new.dtype.kind] > _CATEGORY[old.dtype.kind]:
            raise located(DTypeError(
                f"{name}: got a result of dtype {new.dtype.name} for a tensor of dtype "
                f"{old.dtype.name}, which cannot hold it; convert the tensor with .to(dtype) first"
            ))  # fmt: skip
        new = a.cast(new, old.dtype)
    target._write(new)
    return target


class Operators(Handle):
    """``+ - * / // % ** @``, comparisons, bits, and their in-place forms."""

    __slots__ = ()

    __add__ = a.add  # no frame in between: the shortest way to record

    def __radd__(self, other: Operand) -> Any:
        return a.add(other, self)

    def __iadd__(self, other: Operand) -> Self:  # type: ignore[misc]
        return write_back(self, a.add(self, other), "add_")

    __sub__ = a.sub

    def __rsub__(self, other: Operand) -> Any:
        return a.sub(other, self)

    def __isub__(self, other: Operand) -> Self:  # type: ignore[misc]
        return write_back(self, a.sub(self, other), "sub_")

    __mul__ = a.mul

    def __rmul__(self, other: Operand) -> Any:
        return a.mul(other, self)

    def __imul__(self, other: Operand) -> Self:  # type: ignore[misc]
        return write_back(self, a.mul(self, other), "mul_")

    def __truediv__(self, other: Operand) -> Any:
        return a.div(self, other)

    def __rtruediv__(self, other: Operand) -> Any:
        return a.div(other, self)

    def __itruediv__(self, other: Operand) -> Self:
        return write_back(self, a.div(self, other), "div_")

    def __floordiv__(self, other: Operand) -> Any:
        return a.floor_divide(self, other)

    def __rfloordiv__(self, other: Operand) -> Any:
        return a.floor_divide(other, self)

    def __ifloordiv__(self, other: Operand) -> Self:
        return write_back(self, a.floor_divide(self, other), "floor_divide_")

    def __mod__(self, other: Operand) -> Any:
        return a.remainder(self, other)

    def __rmod__(self, other: Operand) -> Any:
        return a.remainder(other, self)

    def __imod__(self, other: Operand) -> Self:
        return write_back(self, a.remainder(self, other), "remainder_")

    def __pow__(self, other: Operand) -> Any:
        return a.pow(self, other)

    def __rpow__(self, other: Operand) -> Any:
        return a.pow(other, self)

    def __ipow__(self, other: Operand) -> Self:
        return write_back(self, a.pow(self, other), "pow_")

    def __neg__(self) -> Any:
        return a.neg(self)  # type: ignore[arg-type]

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Any:
        return a.abs(self)  # type: ignore[arg-type]

    def __invert__(self) -> Any:
        return a.bitwise_not(self)  # type: ignore[arg-type]

    def __and__(self, other: Operand) -> Any:
        return a.bitwise_and(self, other)

    def __or__(self, other: Operand) -> Any:
        return a.bitwise_or(self, other)

    def __xor__(self, other: Operand) -> Any:
        return a.bitwise_xor(self, other)

    def __lshift__(self, other: Operand) -> Any:
        return a.bitwise_left_shift(self, other)

    def __rshift__(self, other: Operand) -> Any:
        return a.bitwise_right_shift(self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __rlshift__(self, other: Operand) -> Any:
        return a.bitwise_left_shift(other, self)

    def __rrshift__(self, other: Operand) -> Any:
        return a.bitwise_right_shift(other, self)

    def __iand__(self, other: Operand) -> Self:
        return write_back(self, a.bitwise_and(self, other), "bitwise_and_")

    def __ior__(self, other: Operand) -> Self:
        return write_back(self, a.bitwise_or(self, other), "bitwise_or_")

    def __ixor__(self, other: Operand) -> Self:
        return write_back(self, a.bitwise_xor(self, other), "bitwise_xor_")

    def __ilshift__(self, other: Operand) -> Self:
        return write_back(self, a.bitwise_left_shift(self, other), "bitwise_left_shift_")

    def __irshift__(self, other: Operand) -> Self:
        return write_back(self, a.bitwise_right_shift(self, other), "bitwise_right_shift_")

    def __eq__(self, other: object) -> Any:
        return False if other is None else a.eq(self, other)

    def __ne__(self, other: object) -> Any:
        return True if other is None else a.ne(self, other)

    def __lt__(self, other: Operand) -> Any:
        return a.lt(self, other)

    def __le__(self, other: Operand) -> Any:
        return a.le(self, other)

    def __gt__(self, other: Operand) -> Any:
        return a.gt(self, other)

    def __ge__(self, other: Operand) -> Any:
        return a.ge(self, other)

    __hash__ = object.__hash__  # of its identity; __eq__ above would take it away
