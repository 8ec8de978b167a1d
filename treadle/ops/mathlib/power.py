"""pow: ``|x|**y = 2**(y log2 |x|)``, and C99's table of special cases."""

from __future__ import annotations

import math

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib.exponential import exp2_reduced
from treadle.ops.mathlib.floats import Floats
from treadle.ops.mathlib.logarithm import log2_f32, log2_pair


def pow(k: Builder, x: Operand, y: Operand) -> Operand:
    """x to the power y; at most 0.6 ulp (f32) and 1.1 ulp (f64).

    The special cases are those of C99: ``pow(x, 0) = pow(1, y) = 1`` even for NaN; negative x
    takes integer y only (else NaN) and is negative where y is odd; ``pow(-1, +-inf) = 1``; zeros
    and infinities of x keep their sign where y is an odd integer.
    """
    f = Floats(k, x.dtype)
    size = f.abs(x)
    # Beyond 2**70 every power of anything but 1 is 0 or inf, and finite y * 0 is 0.
    bounded = f.at_least(f.at_most(y, 2.0**70), -(2.0**70))
    magnitude = (_power_f32 if x.dtype is dtypes.float32 else _power_f64)(k, size, bounded)
    vanishes = k.compare("eq", f.op("eq", size, 0.0), f.op("gt", y, 0.0))
    degenerate = k.op("or", f.op("eq", size, 0.0), f.op("eq", size, math.inf))
    magnitude = f.select(degenerate, f.select(vanishes, 0.0, math.inf), magnitude)

    integer = f.op("eq", f.op("trunc", y), y)
    half = f.mul(y, 0.5)
    odd = k.op("and", integer, f.op("ne", f.op("trunc", half), half))
    result = f.with_sign(magnitude, k.select(odd, f.sign_bit(x), 0))
    negative = k.op("and", f.op("lt", x, 0.0), f.op("gt", x, -math.inf))
    result = f.select(k.op("and", negative, k.op("not", integer)), math.nan, result)
    unordered = k.op("or", f.op("ne", x, x), f.op("ne", y, y))
    result = f.select(unordered, math.nan, result)
    one = k.op("or", f.op("eq", y, 0.0), f.op("eq", x, 1.0))
    return f.select(one, 1.0, result)


def _power_f32(k: Builder, x: Operand, y: Operand) -> Operand:
    """x**y for finite x > 0 in f64, which holds every result that f32 does as a normal number."""
    f = Floats(k, dtypes.float64)
    product = f.mul(k.convert(y, f.dtype), log2_f32(f, k.convert(x, f.dtype)))
    product = f.at_least(f.at_most(product, 200.0), -200.0)
    n, word = f.round(product, 1.0)
    result = exp2_reduced(f, f.sub(product, n))
    return k.convert(f.mul(result, f.power_of_two(k.add(word, f.bias))), x.dtype)


def _power_f64(k: Builder, x: Operand, y: Operand) -> Operand:
    """x**y for finite x > 0, with the logarithm and its product with y as pairs."""
    f = Floats(k, dtypes.float64)
    hi, lo = log2_pair(f, x)
    product, rest = f.two_product(y, hi)
    rest = f.fma(y, lo, rest)
    inside = f.op("lt", f.abs(product), 1100.0)
    product = f.at_least(f.at_most(product, 1100.0), -1100.0)
    n, word = f.round(product, 1.0)
    r = f.add(f.sub(product, n), f.select(inside, rest, 0.0))
    return f.scale(exp2_reduced(f, r), word)
