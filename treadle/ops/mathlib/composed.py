"""Functions of the logarithm and of bits: what one or two lines make of the other modules."""

from __future__ import annotations

import math

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib.exponential import exp, exp2
from treadle.ops.mathlib.floats import Floats
from treadle.ops.mathlib.logarithm import log, log1p


def rsqrt(k: Builder, x: Operand) -> Operand:
    """1/sqrt(x)."""
    f = Floats(k, x.dtype)
    return f.div(1.0, f.op("sqrt", x))


def logit(k: Builder, x: Operand) -> Operand:
    """log(x/(1 - x)); about 1/2, ``log(1 + (2x - 1)/(1 - x))``."""
    f = Floats(k, x.dtype)
    rest = f.sub(1.0, x)
    near = f.op("lt", f.abs(f.sub(x, 0.5)), 0.25)
    inner = log1p(k, f.div(f.fma(2.0, x, -1.0), rest))
    return f.select(near, inner, log(k, f.div(x, rest)))


def _times_log(f: Floats, x: Operand, y: Operand, logarithm: Operand) -> Operand:
    """x times the logarithm of y: 0 where x is 0, unless y is NaN."""
    value = f.select(f.op("eq", x, 0.0), 0.0, f.mul(x, logarithm))
    return f.select(f.op("ne", y, y), math.nan, value)


def xlogy(k: Builder, x: Operand, y: Operand) -> Operand:
    """x log(y), 0 where x is 0."""
    return _times_log(Floats(k, x.dtype), x, y, log(k, y))


def xlog1py(k: Builder, x: Operand, y: Operand) -> Operand:
    """x log(1 + y), 0 where x is 0."""
    return _times_log(Floats(k, x.dtype), x, y, log1p(k, y))


def entr(k: Builder, x: Operand) -> Operand:
    """-x log(x), 0 at 0 and -inf below."""
    f = Floats(k, x.dtype)
    value = f.mul(f.neg(x), log(k, x))
    value = f.select(f.op("eq", x, 0.0), 0.0, value)
    return f.select(f.op("lt", x, 0.0), -math.inf, value)


def hypot(k: Builder, x: Operand, y: Operand) -> Operand:
    """sqrt(x^2 + y^2) without overflow; infinite where either is, even beside NaN."""
    f = Floats(k, x.dtype)
    if x.dtype is dtypes.float32:
        wide = Floats(k, dtypes.float64)
        a, b = k.convert(x, wide.dtype), k.convert(y, wide.dtype)
        result = k.convert(wide.op("sqrt", wide.fma(a, a, wide.mul(b, b))), x.dtype)
    else:
        a, b = f.abs(x), f.abs(y)
        swapped = f.op("lt", a, b)
        large, small = f.select(swapped, b, a), f.select(swapped, a, b)
        huge, tiny = f.op("gt", large, 2.0**500), f.op("lt", large, 2.0**-400)
        down = f.select(huge, 2.0**-600, f.select(tiny, 2.0**600, 1.0))
        up = f.select(huge, 2.0**600, f.select(tiny, 2.0**-600, 1.0))
        large, small = f.mul(large, down), f.mul(small, down)
        square, lost = f.two_product(large, large)
        total, rest = f.fast_two_sum(square, f.mul(small, small))
        root = f.op("sqrt", total)
        # one step of Newton's method adds what the sum lost
        excess = f.add(f.add(rest, lost), f.neg(f.fma(root, root, f.neg(total))))
        half = f.div(f.mul(0.5, excess), root)
        positive = f.op("gt", root, 0.0)
        result = f.mul(f.add(root, f.select(positive, half, 0.0)), up)
    infinite = k.op("or", f.op("eq", f.abs(x), math.inf), f.op("eq", f.abs(y), math.inf))
    return f.select(infinite, math.inf, result)


def _distance_below(f: Floats, x: Operand, y: Operand) -> Operand:
    """-|x - y|, 0 for equal infinities."""
    return f.select(f.op("eq", x, y), 0.0, f.neg(f.abs(f.sub(x, y))))


def logaddexp(k: Builder, x: Operand, y: Operand) -> Operand:
    """log(exp(x) + exp(y)) = max + log(1 + exp(-|x - y|))."""
    f = Floats(k, x.dtype)
    return f.add(k.maximum(x, y), log1p(k, exp(k, _distance_below(f, x, y))))


def logaddexp2(k: Builder, x: Operand, y: Operand) -> Operand:
    """log2(2^x + 2^y)."""
    f = Floats(k, x.dtype)
    more = log1p(k, exp2(k, _distance_below(f, x, y)))
    return f.fma(more, 1 / math.log(2), k.maximum(x, y))


def copysign(k: Builder, x: Operand, y: Operand) -> Operand:
    """|x| with the sign of y, that of zeros and NaNs included."""
    f = Floats(k, x.dtype)
    return f.with_sign(f.abs(x), f.sign_bit(y))


def nextafter(k: Builder, x: Operand, y: Operand) -> Operand:
    """The float next to x on the way to y."""
    f = Floats(k, x.dtype)
    bits = f.bits(x)
    outwards = k.op("eq", f.op("gt", y, x), f.op("gt", x, 0.0))
    moved = f.from_bits(k.select(outwards, k.add(bits, 1), k.sub(bits, 1)))
    smallest = f.from_bits(k.op("or", f.sign_bit(y), 1))
    moved = f.select(f.op("eq", x, 0.0), smallest, moved)
    moved = f.select(f.op("eq", x, y), y, moved)
    unordered = k.op("or", f.op("ne", x, x), f.op("ne", y, y))
    return f.select(unordered, math.nan, moved)
