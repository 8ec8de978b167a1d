"""lgamma, digamma and polygamma, computed in f64.

Below 0 they are reflected; there lgamma and digamma have zeros, next to which their errors are
those of values near 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib import tables
from treadle.ops.mathlib.floats import Floats, in_double
from treadle.ops.mathlib.logarithm import log, log_pair
from treadle.ops.mathlib.trigonometric import half_turns

_LOG_PI = 1.1447298858494002
_DIGAMMA_ROOT: tuple[float, float] = (1.4616321449683622, 9.549995429965697e-17)
_STIRLING = 8.0  # from here on asymptotic series do


@in_double
def lgamma(k: Builder, x: Operand) -> Operand:
    """log |gamma(x)|; at most 1.0 ulp (f32) and 4.0 ulp (f64).

    Below 0 the bound in f64 is 16 ulp of the larger of the result and 1:
    ``gamma(-x) gamma(x) = -pi / (x sin(pi x))``.
    """
    f = Floats(k, x.dtype)
    size = f.abs(x)
    result = _lgamma_positive(f, size)

    def reflected() -> tuple[Operand]:
        sine, _, _ = half_turns(f, x)
        product = log(k, f.mul(size, sine))
        value = f.sub(f.sub(_LOG_PI, product), result)
        tiny = f.op("lt", size, 2.0**-60)  # gamma(x) = 1/x
        value = f.select(tiny, f.neg(log(k, size)), value)
        return (f.select(f.op("eq", size, math.inf), math.inf, value),)

    return f.rarely(f.op("lt", x, 0.0), (result,), reflected)[0]


def _lgamma_positive(f: Floats, x: Operand) -> Operand:
    """By lgamma(2 + t) for |t| <= 1/2, where x = n + t, and the log of the factors between."""
    k = f.k
    n = f.op("roundeven", f.at_most(x, _STIRLING))
    t = f.sub(x, n)
    above = f.operand(1.0)
    for j in range(1, 7):
        above = f.select(f.op("gt", n, j + 1.5), f.mul(above, f.sub(x, float(j))), above)
    below = f.select(f.op("lt", n, 0.5), f.mul(x, f.add(x, 1.0)), x)
    low = f.op("lt", n, 1.5)
    hi, lo = log_pair(f, f.select(low, below, above))
    flip = k.select(low, f.bits(f.operand(-0.0)), f.bits(f.operand(0.0)))
    factors = f.with_sign(hi, flip)
    result = f.fma(t, f.polynomial(t, tables.LGAMMA_F64), factors)
    result = f.add(result, f.with_sign(lo, flip))
    result = f.select(f.op("eq", x, 0.0), math.inf, result)

    def stirling() -> tuple[Operand]:
        hi, lo = log_pair(f, x)
        less, lost = f.fast_two_sum(hi, f.operand(-1.0))
        inverse = f.div(1.0, x)
        tail = f.mul(inverse, f.polynomial(f.mul(inverse, inverse), tables.STIRLING_F64))
        factor = f.sub(x, 0.5)
        # (x - 1/2)(log x - 1) - 1/2 + log(2 pi)/2 + p/x
        rest = f.fma(factor, f.add(lo, lost), f.add(tail, 0.4189385332046728))
        value = f.fma(factor, less, rest)
        return (f.select(f.op("eq", x, math.inf), math.inf, value),)

    return f.rarely(f.op("ge", x, _STIRLING), (result,), stirling)[0]


@in_double
def digamma(k: Builder, x: Operand) -> Operand:
    """The derivative of lgamma; at most 1.0 ulp (f32) and 4.0 ulp (f64).

    Next to its zeros below 0 the bound in f64 is that of 1. NaN at negative integers, -inf
    at 0 and inf at -0.
    """
    f = Floats(k, x.dtype)
    negative = f.op("lt", x, 0.0)
    result = _digamma_positive(f, f.select(negative, f.sub(1.0, x), x))

    def reflected() -> tuple[Operand]:
        # digamma(1 - x) - pi cot(pi x)
        sine, cosine, r = half_turns(f, x)
        cotangent = f.with_sign(f.div(cosine, sine), f.sign_bit(r))
        value = f.fma(cotangent, -math.pi, result)
        return (f.select(f.op("eq", r, 0.0), math.nan, value),)

    (result,) = f.rarely(negative, (result,), reflected)
    return f.select(f.op("eq", x, 0.0), f.div(-1.0, x), result)


def _digamma_positive(f: Floats, x: Operand) -> Operand:
    """(x - x0) p by thirds of [1, 8]; digamma(x) = digamma(x + 1) - 1/x below, a series above."""
    low = f.op("lt", x, 1.0)
    y = f.select(low, f.add(x, 1.0), x)
    second, third = f.op("ge", y, 2.0), f.op("ge", y, 4.0)
    t = f.sub(f.mul(y, f.select(third, 0.25, f.select(second, 0.5, 1.0))), 1.5)
    rows = zip(tables.DIGAMMA0_F64, tables.DIGAMMA1_F64, tables.DIGAMMA2_F64, strict=True)
    p = f.polynomial(t, [f.select(third, c, f.select(second, b, a)) for a, b, c in rows])
    distance = f.sub(f.sub(y, _DIGAMMA_ROOT[0]), _DIGAMMA_ROOT[1])
    inverse = f.div(1.0, x)
    result = f.fma(distance, p, f.select(low, f.neg(inverse), 0.0))

    def series() -> tuple[Operand]:
        z = f.mul(inverse, inverse)
        tail = f.mul(z, f.polynomial(z, tables.DIGAMMA_TAIL_F64))
        return (f.sub(log(f.k, x), f.fma(0.5, inverse, tail)),)

    return f.rarely(f.op("ge", x, _STIRLING), (result,), series)[0]


# --- higher derivatives ---------------------------------------------------------------------------


def polygamma(k: Builder, x: Operand, n: int) -> Operand:
    """The n-th derivative of digamma, n >= 0; at most 1.0 ulp (f32) and 4 + n ulp (f64).

    The bound is that of x > 0. ``(-1)^(n+1) n! sum 1/(x + i)^(n+1)``, by a series after the first
    terms; below 0 by ``-n! S(1 - x) - pi d^n/dx^n cot(pi x)``.
    """
    if n == 0:
        return digamma(k, x)
    return _polygamma(k, x, n)


@in_double
def _polygamma(k: Builder, x: Operand, n: int) -> Operand:
    f = Floats(k, x.dtype)
    negative = f.op("lt", x, 0.0)
    size = f.select(negative, f.sub(1.0, x), f.add(x, 0.0))  # -0 counts as 0
    total = f.mul(float(math.factorial(n)), _hurwitz(f, size, n))
    result = total if n % 2 else f.neg(total)

    def reflected() -> tuple[Operand]:
        sine, cosine, r = half_turns(f, x)
        cotangent = f.with_sign(f.div(cosine, sine), f.sign_bit(r))
        slope = f.polynomial(cotangent, [float(c) for c in _cotangent_derivative(n)])
        return (f.sub(f.mul(slope, -(math.pi ** (n + 1))), total),)

    return f.rarely(negative, (result,), reflected)[0]


def _hurwitz(f: Floats, x: Operand, n: int) -> Operand:
    """sum 1/(x + i)^(n+1) over i >= 0: Euler's and Maclaurin's formula after n + 10 terms."""
    count = n + 10
    y = f.add(x, float(count))
    inverse = f.div(1.0, y)
    z = f.mul(inverse, inverse)
    series = f.polynomial(z, _euler_maclaurin(n))
    total = f.mul(_power(f, inverse, n), f.fma(0.5, inverse, series))
    for i in reversed(range(count)):
        shifted = f.add(x, float(i)) if i else x
        total = f.add(total, f.div(1.0, _power(f, shifted, n + 1)))
    return total


def _power(f: Floats, x: Operand, n: int) -> Operand:
    """x^n by squaring."""
    if n == 1:
        return x
    half = _power(f, x, n // 2)
    square = f.mul(half, half)
    return f.mul(square, x) if n % 2 else square


def _euler_maclaurin(n: int) -> Sequence[float]:
    """1/n and B_2j (2j + n - 1)!/((2j)! n!) for j = 1..10: of y^-n, by powers of 1/y^2."""
    rising = [
        _bernoulli(2 * j)
        * Fraction(math.factorial(2 * j + n - 1), math.factorial(2 * j) * math.factorial(n))
        for j in range(1, 11)
    ]
    return [1 / n, *(float(c) for c in rising)]


def _bernoulli(m: int) -> Fraction:
    """B_m, by Akiyama's and Tanigawa's triangle."""
    row = [Fraction(1, j + 1) for j in range(m + 1)]
    for stage in range(m):
        row = [(j + 1) * (row[j] - row[j + 1]) for j in range(m - stage)]
    return row[0]


def _cotangent_derivative(n: int) -> list[int]:
    """d^n/dy^n cot(y) as a polynomial in cot(y): ``c' = -(1 + c^2)``."""
    p = [0, 1]
    for _ in range(n):
        slope = [i * c for i, c in enumerate(p)][1:]
        p = [-a - b for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return p
