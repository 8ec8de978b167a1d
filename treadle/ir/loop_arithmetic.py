"""What each arithmetic operation of the loop IR computes, exactly, on Python numbers.

A float of any dtype is a Python float (f64 holds f32, f16 and bf16 exactly), an integer an int
within its dtype's range, a b1 a bool. Floats are rounded once from the exact result, to nearest,
halves to even, with subnormals. For f32, f16 and bf16 the operations add, sub, mul, div and sqrt
may be computed in f64 and rounded again: 53 >= 2 * 24 + 2 bits make the second rounding harmless
(S. A. Figueroa, "When is double rounding innocuous?", 1995).
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from ctypes import c_float
from functools import lru_cache

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.loop import COMPARISONS

Number = float | int | bool

# dtype -> (bits of the significand, exponent of the smallest subnormal, greatest exponent)
_FORMATS = {
    dtypes.float64: (53, -1074, 1023),
    dtypes.float32: (24, -149, 127),
    dtypes.float16: (11, -24, 15),
    dtypes.bfloat16: (8, -133, 127),
}
_PACKED = {
    "f64": "<d", "f32": "<f", "f16": "<e", "i64": "<q", "i32": "<i", "i16": "<h", "i8": "<b",
    "u64": "<Q", "u32": "<I", "u16": "<H", "u8": "<B",
}  # fmt: skip


@lru_cache(maxsize=None)
def operation(op: str, dtype: DType, source: DType) -> Callable[..., Number]:
    """The function that ``op dtype`` applies to operands; ``source`` is the last one's dtype.

    >>> operation("add", dtypes.int8, dtypes.int8)(127, 1)
    -128
    >>> operation("fma", dtypes.float32, dtypes.float32)(1e20, 1e20, float("-inf"))
    -inf
    """
    if op == "select":
        return lambda condition, a, b: a if condition else b
    if op == "convert":
        return lambda a: convert(a, dtype)
    if op == "bitcast":
        return lambda a: bitcast(a, source, dtype)
    if op in COMPARISONS:
        return getattr(operator, op)
    if dtype.kind == "f":
        return _float_operation(op, dtype)
    if op == "not":
        return operator.not_ if dtype.kind == "b" else lambda a: wrap(~a, dtype)
    if dtype.kind == "b":
        return _BOOL[op]
    if op in ("shl", "shr"):
        return lambda a, b: _shift(op, a, b, dtype)
    compute = _INTEGER[op]
    return lambda *args: wrap(compute(*args), dtype)


# floats


def round_exact(mantissa: int, exponent: int, dtype: DType) -> float:
    """``mantissa * 2**exponent`` (an exact value) rounded once to ``dtype``; +0 for 0.

    >>> round_exact(2**24 + 1, 0, dtypes.float32) == 2.0**24
    True
    """
    precision, smallest, greatest = _FORMATS[dtype]
    magnitude = abs(mantissa)
    last = max(magnitude.bit_length() + exponent - precision, smallest)  # exponent of the last bit
    drop = last - exponent
    if drop > 0:
        half = 1 << (drop - 1)
        kept, rest = magnitude >> drop, magnitude & (2 * half - 1)
        kept += rest > half or (rest == half and kept & 1)
    else:
        kept = magnitude << -drop
    overflows = kept.bit_length() + last > greatest + 1
    result = math.inf if overflows else math.ldexp(kept, last)
    return -result if mantissa < 0 else result


def round_float(value: float, dtype: DType) -> float:
    """The f64 ``value`` rounded once to ``dtype``."""
    if dtype is dtypes.float64 or value == 0 or value - value != 0:
        return value
    if dtype is dtypes.float32:
        return c_float(value).value
    fraction, exponent = math.frexp(value)
    return round_exact(int(math.ldexp(fraction, 53)), exponent - 53, dtype)


def fma(a: float, b: float, c: float, dtype: DType) -> float:
    """``a*b + c`` rounded once to ``dtype``."""
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        # an infinity or NaN among the operands: a finite product must not overflow to infinity
        finite_product = math.isfinite(a) and math.isfinite(b)
        return c if finite_product else a * b + c
    (a_top, a_bottom), (b_top, b_bottom) = a.as_integer_ratio(), b.as_integer_ratio()
    c_top, c_bottom = c.as_integer_ratio()
    product_bottom = a_bottom * b_bottom  # the denominators are powers of two
    total = a_top * b_top * c_bottom + c_top * product_bottom
    if total:
        return round_exact(total, 1 - (product_bottom * c_bottom).bit_length(), dtype)
    product_sign = math.copysign(1.0, a) * math.copysign(1.0, b)
    both_negative = product_sign < 0 and math.copysign(1.0, c) < 0
    return -0.0 if both_negative else 0.0


def _float_operation(op: str, dtype: DType) -> Callable[..., float]:
    if op == "fma":
        return lambda a, b, c: fma(a, b, c, dtype)
    compute = _FLOAT[op]
    if op in _EXACT_FLOAT or dtype is dtypes.float64:
        return compute
    return lambda *args: round_float(compute(*args), dtype)


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _remainder(a: float, b: float) -> float:
    return math.nan if b == 0 or math.isinf(a) else math.fmod(a, b)


def _sqrt(a: float) -> float:
    return math.nan if a < 0 else math.sqrt(a)


def _to_integral(rounding: Callable[[float], int]) -> Callable[[float], float]:
    """A rounding to integers that keeps the sign of zero, infinities and NaN."""
    return lambda a: math.copysign(float(rounding(a)), a) if math.isfinite(a) else a


def _minimum(a: float, b: float) -> float:
    if a != a or b != b:
        return math.nan
    if a == b:
        return a if math.copysign(1.0, a) < 0 else b
    return min(a, b)


def _maximum(a: float, b: float) -> float:
    return -_minimum(-a, -b)


# the operations whose result needs no rounding
_EXACT_FLOAT: dict[str, Callable[..., float]] = {
    "neg": operator.neg,
    "abs": abs,
    "rem": _remainder,
    "floor": _to_integral(math.floor),
    "ceil": _to_integral(math.ceil),
    "trunc": _to_integral(math.trunc),
    "roundeven": _to_integral(round),
    "minimum": _minimum,
    "maximum": _maximum,
}
_FLOAT: dict[str, Callable[..., float]] = _EXACT_FLOAT | {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _divide,
    "sqrt": _sqrt,
}


# integers and b1


def wrap(value: int, dtype: DType) -> int:
    """``value`` modulo 2**bits, within the range of the integer ``dtype``."""
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.kind == "i" and value >> (dtype.bits - 1) else value


def _integer_divide(a: int, b: int) -> int:
    if b == 0:
        return 0
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _integer_remainder(a: int, b: int) -> int:
    return a - _integer_divide(a, b) * b if b else 0


def _shift(op: str, a: int, amount: int, dtype: DType) -> int:
    if not 0 <= amount < dtype.bits:  # a negative amount is a large unsigned one
        return -1 if op == "shr" and a < 0 else 0
    return a >> amount if op == "shr" else wrap(a << amount, dtype)


_INTEGER: dict[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "abs": abs,
    "div": _integer_divide,
    "rem": _integer_remainder,
    "minimum": min,
    "maximum": max,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
_BOOL: dict[str, Callable[..., bool]] = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "minimum": operator.and_,
    "maximum": operator.or_,
}


# between dtypes


def convert(value: Number, dtype: DType) -> Number:
    """``value`` as ``dtype``: see "convert" in ``loop.py``.

    >>> convert(-1e30, dtypes.int32), convert(300, dtypes.uint8), convert(2**24 + 1, dtypes.float32)
    (-2147483648, 44, 16777216.0)
    """
    if dtype.kind == "b":
        return value != 0
    if dtype.kind == "f":
        if isinstance(value, float):
            return round_float(value, dtype)
        return round_exact(value, 0, dtype)
    if not isinstance(value, float):
        return wrap(value, dtype)
    if value != value:
        return 0
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
    high = low + (1 << dtype.bits) - 1
    if not low <= value <= high:  # Python compares floats with ints exactly
        return low if value < low else high
    return math.trunc(value)


def bitcast(value: Number, source: DType, dtype: DType) -> Number:
    """The value of ``dtype`` with the bits that ``value`` has as ``source``."""
    bits = _to_bytes(value, source)
    if dtype is dtypes.bfloat16:
        return struct.unpack("<f", b"\0\0" + bits)[0]
    return struct.unpack(_PACKED[dtype.short], bits)[0]


def _to_bytes(value: Number, dtype: DType) -> bytes:
    if dtype is dtypes.bfloat16:  # the upper half of an f32
        return struct.pack("<f", value)[2:]
    return struct.pack(_PACKED[dtype.short], value)
