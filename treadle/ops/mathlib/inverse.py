"""asin, acos, atan and atan2; sinh, cosh and their inverses."""

from __future__ import annotations

import math

from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib import tables
from treadle.ops.mathlib.exponential import expanded
from treadle.ops.mathlib.floats import Floats, Pair
from treadle.ops.mathlib.logarithm import log_of_sum
from treadle.ops.mathlib.trigonometric import HALF_PI


def _half_pi(f: Floats) -> tuple[float, float]:
    return HALF_PI[f.mantissa]


def _asin_tail(f: Floats, s: Operand, z: Operand) -> Operand:
    """asin(s) - s for |s| <= 1/2 and z = s^2."""
    return f.mul(f.mul(s, z), f.polynomial(z, f.of_dtype(tables.ASIN_F32, tables.ASIN_F64)))


def asin(k: Builder, x: Operand) -> Operand:
    """Arc sine, NaN outside [-1, 1]; at most 2.4 ulp (f32) and 2.2 ulp (f64).

    Above 1/2, ``asin(x) = pi/2 - 2 asin(sqrt((1 - x)/2))``.
    """
    f = Floats(k, x.dtype)
    size = f.abs(x)
    large = f.op("gt", size, 0.5)
    z = f.select(large, f.fma(-0.5, size, 0.5), f.mul(x, x))
    s = f.select(large, f.op("sqrt", z), size)
    tail = _asin_tail(f, s, z)
    hi, lo = _half_pi(f)
    outer = f.sub(hi, f.sub(f.fma(2.0, tail, f.add(s, s)), lo))
    return f.with_sign(f.select(large, outer, f.add(s, tail)), f.sign_bit(x))


def acos(k: Builder, x: Operand) -> Operand:
    """Arc cosine, NaN outside [-1, 1]; at most 2.0 ulp (f32) and 2.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    size = f.abs(x)
    large = f.op("gt", size, 0.5)
    z = f.select(large, f.fma(-0.5, size, 0.5), f.mul(x, x))
    s = f.select(large, f.op("sqrt", z), x)
    tail = _asin_tail(f, s, z)
    hi, lo = _half_pi(f)
    inner = f.sub(hi, f.add(s, f.sub(tail, lo)))
    twice = f.mul(2.0, f.add(s, tail))
    negative = f.op("lt", x, 0.0)
    outer = f.select(negative, f.sub(2 * hi, f.sub(twice, 2 * lo)), twice)
    return f.select(large, outer, inner)


def _atan_of_ratio(f: Floats, small: Operand, large: Operand) -> Operand:
    """atan(small/large) for 0 <= small <= large, large > 0.

    From tan(pi/8) on, ``atan(t) = pi/4 + atan((t - 1)/(t + 1))``.
    """
    steep = f.op("gt", small, f.mul(large, 0.41421356))
    numerator = f.select(steep, f.sub(small, large), small)
    denominator = f.select(steep, f.add(small, large), large)
    t = f.div(numerator, denominator)
    z = f.mul(t, t)
    p = f.polynomial(z, f.of_dtype(tables.ATAN_F32, tables.ATAN_F64))
    hi, lo = _half_pi(f)
    tail = f.fma(f.mul(t, z), p, f.select(steep, lo / 2, 0.0))
    quarter = f.select(steep, hi / 2, 0.0)
    lead, lost = f.fast_two_sum(quarter, t)
    return f.add(lead, f.add(lost, tail))


def atan(k: Builder, x: Operand) -> Operand:
    """Arc tangent; at most 2.0 ulp (f32) and 2.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    size = f.abs(x)
    beyond = f.op("gt", size, 1.0)
    angle = _atan_of_ratio(f, f.select(beyond, 1.0, size), f.select(beyond, size, 1.0))
    hi, lo = _half_pi(f)
    angle = f.select(beyond, f.sub(hi, f.sub(angle, lo)), angle)
    return f.with_sign(angle, f.sign_bit(x))


def atan2(k: Builder, y: Operand, x: Operand) -> Operand:
    """The angle of the point (x, y); at most 2.0 ulp (f32) and 2.0 ulp (f64).

    Signed zeros and infinities as in C99: ``atan2(+-0, -0) = +-pi``, ``atan2(inf, inf) = pi/4``.
    """
    f = Floats(k, x.dtype)
    a, b = f.abs(y), f.abs(x)
    swapped = f.op("gt", a, b)
    small, large = f.select(swapped, b, a), f.select(swapped, a, b)
    # Sizes at the ends of the range are brought where sums and quotients are normal.
    huge, tiny = f.op("gt", large, 2.0 ** (f.bias - 2)), f.op("lt", large, 2.0 ** (30 - f.bias))
    factor = f.select(huge, 0.25, f.select(tiny, 2.0 ** (f.mantissa + 30), 1.0))
    equal = f.op("eq", a, b)
    nothing = f.op("eq", large, 0.0)
    small = f.select(equal, f.select(nothing, 0.0, 1.0), f.mul(small, factor))
    large = f.select(equal, 1.0, f.mul(large, factor))
    angle = _atan_of_ratio(f, small, large)
    hi, lo = _half_pi(f)
    angle = f.select(swapped, f.sub(hi, f.sub(angle, lo)), angle)
    behind = k.compare("ne", f.sign_bit(x), 0)
    angle = f.select(behind, f.sub(2 * hi, f.sub(angle, 2 * lo)), angle)
    angle = f.with_sign(angle, f.sign_bit(y))
    unordered = k.op("or", f.op("ne", x, x), f.op("ne", y, y))
    return f.select(unordered, math.nan, angle)


# --- hyperbolic ----------------------------------------------------------------------------------


def _halves(f: Floats, size: Operand) -> Pair:
    """``exp(size)/2`` and ``exp(-size)/2``."""
    half = expanded(f, size, -1)
    return half, f.div(0.25, half)


def sinh(k: Builder, x: Operand) -> Operand:
    """Hyperbolic sine; at most 2.0 ulp (f32) and 2.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    size = f.abs(x)
    z = f.mul(size, size)
    p = f.polynomial(z, f.of_dtype(tables.SINH_F32, tables.SINH_F64))
    inner = f.fma(f.mul(size, z), p, size)
    result = f.select(f.op("lt", size, 1.0), inner, f.sub(*_halves(f, size)))
    return f.with_sign(result, f.sign_bit(x))


def cosh(k: Builder, x: Operand) -> Operand:
    """Hyperbolic cosine; at most 2.0 ulp (f32) and 2.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    return f.add(*_halves(f, f.abs(x)))


def asinh(k: Builder, x: Operand) -> Operand:
    """Inverse hyperbolic sine; at most 3.0 ulp (f32) and 3.0 ulp (f64).

    ``asinh(x) = log(1 + u)`` with ``u = x + x^2/(1 + sqrt(1 + x^2))``; ``log(2x)`` of a
    large x.
    """
    f = Floats(k, x.dtype)
    size = f.abs(x)
    large = f.op("gt", size, 2.0 ** (f.mantissa // 2 + 3))
    a = f.select(large, 1.0, size)
    square = f.mul(a, a)
    more = f.div(square, f.add(1.0, f.op("sqrt", f.fma(a, a, 1.0))))
    return f.with_sign(_log_or_twice(f, large, size, a, more), f.sign_bit(x))


def acosh(k: Builder, x: Operand) -> Operand:
    """Inverse hyperbolic cosine, NaN below 1; at most 3.0 ulp (f32) and 3.0 ulp (f64).

    ``acosh(1 + t) = log(1 + t + sqrt(2t + t^2))``; ``log(2x)`` where x is large.
    """
    f = Floats(k, x.dtype)
    large = f.op("gt", x, 2.0 ** (f.mantissa // 2 + 3))
    t = f.select(large, 1.0, f.sub(x, 1.0))
    result = _log_or_twice(f, large, x, f.op("sqrt", f.mul(t, f.add(t, 2.0))), t)
    return f.select(f.op("lt", x, 1.0), math.nan, result)


def _log_or_twice(f: Floats, large: Operand, x: Operand, a: Operand, b: Operand) -> Operand:
    """``log(2x)`` where x is large, else ``log(1 + a + b)``."""
    hi, lo = f.two_sum(f.select(large, x, a), f.select(large, -1.0, b))
    return log_of_sum(f, hi, lo, f.select(large, 1.0, 0.0))


def atanh(k: Builder, x: Operand) -> Operand:
    """Inverse hyperbolic tangent, NaN outside [-1, 1]; at most 3.0 ulp (f32) and 3.0 ulp (f64).

    ``atanh(x) = log(1 + 2x/(1 - x)) / 2``.
    """
    f = Floats(k, x.dtype)
    size = f.abs(x)
    u = f.div(f.add(size, size), f.sub(1.0, size))
    result = f.mul(0.5, log_of_sum(f, u, 0.0, 0.0))
    return f.with_sign(result, f.sign_bit(x))


__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cosh", "sinh",
]  # fmt: skip
