"""log, log1p and log2.

``x = m 2**e`` with m in [sqrt(1/2), sqrt(2)), and ``log(x) = e ln 2 + log(1 + t)`` with t = m - 1.
"""

from __future__ import annotations

import math

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ir.loop_arithmetic import round_float
from treadle.ops.mathlib.floats import LN2, Floats, Number, Pair

Pair64 = tuple[float, float]  # a constant as an unevaluated sum

TWO_LOG2_E: tuple[float, float] = (2.8853900817779268, 4.0710547481862066e-17)
_THIRD_LO = 1.850371707708594e-17
# log(1 + t) = t - t^2/2 + t^3 p(t)
_LOG = (
    0.333333135,
    -0.250000089,
    0.200021192,
    -0.166679963,
    0.142195538,
    -0.1240559,
    0.118881524,
    -0.116756357,
    0.0674663857,
)
# atanh(s) = s + s z p(z), z = s^2
_ATANH = (
    0.3333333333333367,
    0.1999999999970735,
    0.14285714371192604,
    0.11111099286658006,
    0.09091782161557453,
    0.07657025282357979,
    0.07397974995901525,
)
# atanh(s) = s + s z (1/3 + z p(z)), z = s^2
_ATANH_TAIL = (
    0.2,
    0.14285714285714188,
    0.11111111111145289,
    0.09090909084626722,
    0.07692308376575384,
    0.06666620220039199,
    0.058843368187986196,
    0.0521145362750021,
    0.055066430746367606,
)


def log_tail(f: Floats, t: Operand, extra: Number) -> Operand:
    """log(1 + t) - t + extra for 1 + t in [sqrt(1/2), sqrt(2)]."""
    square = f.mul(t, t)
    if f.dtype is dtypes.float32:
        cubic = f.mul(f.mul(square, t), f.polynomial(t, _LOG))
        return f.fma(-0.5, square, f.add(extra, cubic))
    # log(1 + t) = 2 atanh(s) = t - t^2/2 + s (t^2/2 + 2 z p(z)), s = t/(2 + t)
    s = f.div(t, f.add(2.0, t))
    z = f.mul(s, s)
    half = f.mul(0.5, square)
    ratio = f.mul(f.add(z, z), f.polynomial(z, _ATANH))
    return f.sub(f.fma(s, f.add(half, ratio), extra), half)


def _log_near_one(f: Floats, t: Operand, e: Operand) -> Operand:
    """e ln 2 + log(1 + t) for 1 + t in [sqrt(1/2), sqrt(2)]."""
    hi, lo = LN2[f.mantissa]
    return f.fma(e, hi, f.add(t, log_tail(f, t, f.mul(e, lo))))


def _with_specials(f: Floats, x: Operand, result: Operand) -> Operand:
    """The logarithm of x: NaN below 0, -inf at 0, x itself at inf and NaN, else ``result``."""
    regular = f.k.op("and", f.op("gt", x, 0.0), f.op("lt", x, math.inf))
    negative = f.select(f.op("lt", x, 0.0), math.nan, x)
    return f.select(regular, result, f.select(f.op("eq", x, 0.0), -math.inf, negative))


def log(k: Builder, x: Operand) -> Operand:
    """Natural logarithm; log(+-0) = -inf, NaN below; at most 0.9 ulp (f32) and 0.9 ulp (f64)."""
    f = Floats(k, x.dtype)
    scaled, shift = f.normalize(x)
    m, e = f.split(scaled)
    return _with_specials(f, x, _log_near_one(f, f.sub(m, 1.0), f.sub(e, shift)))


def log_pair(f: Floats, x: Operand) -> Pair:
    """log of a positive x as a pair, a few bits better than the dtype."""
    scaled, shift = f.normalize(x)
    m, e = f.split(scaled)
    e, t = f.sub(e, shift), f.sub(m, 1.0)
    hi, lo = LN2[f.mantissa]
    tail = log_tail(f, t, f.mul(e, lo))
    product, lost = f.two_product(e, hi)
    lead, rest = f.fast_two_sum(product, t)
    return f.fast_two_sum(lead, f.add(tail, f.add(lost, rest)))


def log1p(k: Builder, x: Operand) -> Operand:
    """log(1 + x) without cancellation; at most 1.4 ulp (f32) and 1.4 ulp (f64)."""
    f = Floats(k, x.dtype)
    return log_of_sum(f, x, 0.0, 0.0)


def log_of_sum(f: Floats, x: Operand, rest: Number, doublings: Number) -> Operand:
    """``log(1 + x + rest) + doublings * log 2``, with ``rest`` below an ulp of x.

    With e from the rounded 1 + x and ``s = 2**-e``, ``t = s x + (s - 1)`` is rounded once. Zero for
    ``rest`` and ``doublings`` as Python's number costs nothing.
    """
    k = f.k
    u = f.add(1.0, x)
    m, e = f.split(u)
    # e + (-e): the exponent field of u/m, so s = m/u without a division
    s = f.from_bits(k.sub(k.add(f.bits(m), f.one_bits), f.bits(u)))
    t = f.select(f.op("eq", e, 0.0), x, f.fma(s, x, f.sub(s, 1.0)))
    large = f.op("gt", x, 2.0 ** (f.mantissa + 2))
    t = f.select(large, f.sub(m, 1.0), t)
    if isinstance(doublings, float):
        result = _log_near_one(f, t, e)
    else:
        hi, lo = LN2[f.mantissa]
        e = f.add(e, doublings)
        # d/dt log(1 + t) is near 1 where rest matters: where t is small
        tail = log_tail(f, t, f.mul(e, lo))
        small = f.select(large, 0.0, f.mul(rest, s))
        result = f.fma(e, hi, f.add(t, f.add(tail, small)))
    result = _with_specials(f, u, result)
    return f.select(f.op("lt", f.abs(x), 2.0 ** -(f.mantissa + 2)), x, result)


def log2_f32(f: Floats, x: Operand) -> Operand:
    """log2 of a positive f32, computed in f64 (``f``), good to about 50 bits."""
    m, e = f.split(x)
    s = f.div(f.sub(m, 1.0), f.add(m, 1.0))
    z = f.mul(s, s)
    atanh = f.fma(f.mul(s, z), f.polynomial(z, _ATANH), s)
    return f.fma(TWO_LOG2_E[0], atanh, e)


def log2_pair(f: Floats, x: Operand) -> Pair:
    """log2 of a positive finite f64 to about 65 bits, as a pair."""
    scaled, shift = f.normalize(x)
    m, e = f.split(scaled)
    s = f.quotient(f.sub(m, 1.0), f.fast_two_sum(1.0, m))
    z = f.pair_product(s, s)
    inner, lost = f.fast_two_sum(1.0 / 3.0, f.mul(z[0], f.polynomial(z[0], _ATANH_TAIL)))
    # atanh(s) = s + s (z (1/3 + z p(z)))
    cubic = f.pair_product(s, f.pair_product(z, (inner, f.add(lost, _THIRD_LO))))
    hi, lo = f.fast_two_sum(s[0], cubic[0])
    atanh = hi, f.add(lo, f.add(s[1], cubic[1]))
    fraction = f.pair_product(atanh, (f.operand(TWO_LOG2_E[0]), f.operand(TWO_LOG2_E[1])))
    hi, lo = f.fast_two_sum(f.sub(e, shift), fraction[0])
    return f.fast_two_sum(hi, f.add(lo, fraction[1]))


def _log_to_base(k: Builder, x: Operand, per_nat: Pair64, per_octave: Pair64) -> Operand:
    """log(x) times a constant: that of a factor 2 apart, so that powers of two come out exact."""
    f = Floats(k, x.dtype)
    scaled, shift = f.normalize(x)
    m, e = f.split(scaled)
    e, t = f.sub(e, shift), f.sub(m, 1.0)
    tail = log_tail(f, t, 0.0)
    near, lost = f.two_product(t, per_nat[0])
    low = f.fma(tail, per_nat[0], f.fma(t, per_nat[1], lost))
    if per_octave != (1.0, 0.0):
        low = f.fma(e, per_octave[1], low)
        e, lost = f.two_product(e, per_octave[0])
        low = f.add(lost, low)
    hi, lost = f.fast_two_sum(e, near)
    return _with_specials(f, x, f.add(hi, f.add(lost, low)))


def _parts(f: Floats, hi: float, lo: float) -> Pair64:
    """A constant given as a pair of doubles, as a pair of the dtype."""
    if f.dtype is dtypes.float64:
        return hi, lo
    upper = round_float(hi, f.dtype)
    return upper, hi - upper


def log2(k: Builder, x: Operand) -> Operand:
    """Logarithm to base 2, exact for powers of two; at most 1.0 ulp (f32) and 1.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    per_nat = _parts(f, 1.4426950408889634, 2.0355273740931033e-17)
    return _log_to_base(k, x, per_nat, (1.0, 0.0))


def log10(k: Builder, x: Operand) -> Operand:
    """Logarithm to base 10; at most 1.5 ulp (f32) and 1.5 ulp (f64)."""
    f = Floats(k, x.dtype)
    per_nat = _parts(f, 0.4342944819032518, 1.098319650216765e-17)
    per_octave = _parts(f, 0.3010299956639812, -2.8037281277851704e-18)
    return _log_to_base(k, x, per_nat, per_octave)
