"""exp, exp2, expm1, sigmoid and tanh.

``x = n ln 2 + r`` with |r| <= ln(2)/2, and ``exp(x) = 2**n exp(r)``. Inside an fma the product of n
and the upper part of ln 2 is exact, and its difference from x fits in a float; so r is good to its
last bit.
"""

from __future__ import annotations

import math

from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib.floats import LN2, Floats, Number

LOG2_E = 1 / math.log(2)
# beyond it exp is 0 or infinite
_RANGE = {23: (-104.0, 89.0), 52: (-746.0, 710.0)}
# exp(r) = 1 + r + r^2 p(r)
_EXP = {
    23: (
        0.49999997,
        0.166665435,
        0.0416672006,
        0.00836651959,
        0.00138824724,
    ),
    52: (
        0.5000000000000006,
        0.16666666666666588,
        0.041666666666576764,
        0.008333333333389517,
        0.0013888888931563052,
        0.0001984126971909897,
        2.4801505275717363e-05,
        2.7557407449439857e-06,
        2.7626037200169913e-07,
        2.505380707531027e-08,
    ),
}
# 2^r = 1 + r p(r)
_EXP2 = {
    23: (
        0.693147182,
        0.240226477,
        0.0555033237,
        0.00961843692,
        0.00133988739,
        0.000153533634,
    ),
    52: (
        0.6931471805599453,
        0.2402265069591013,
        0.055504108664820084,
        0.009618129107594124,
        0.0013333558146774516,
        0.00015403530457107936,
        1.5252733493233534e-05,
        1.3215435284214375e-06,
        1.0178199527363321e-07,
        7.073782944787215e-09,
        4.434777869157164e-10,
    ),
}


def _reduce(f: Floats, x: Operand) -> tuple[Operand, Operand]:
    """The word n and r."""
    n, word = f.round(x, LOG2_E)
    hi, lo = LN2[f.mantissa]
    return word, f.fma(n, -lo, f.fma(n, -hi, x))


def _exp_small(f: Floats, r: Operand) -> Operand:
    """exp(r) for |r| <= ln(2)/2."""
    return f.add(1.0, f.fma(f.mul(r, r), f.polynomial(r, _EXP[f.mantissa]), r))


def _expm1_parts(f: Floats, x: Operand) -> tuple[Operand, Operand]:
    """The word n and exp(r) - 1 to its last bit: what r lost when it was rounded is added."""
    n, word = f.round(x, LOG2_E)
    hi, lo = LN2[f.mantissa]
    exact, small = f.fma(n, -hi, x), f.mul(n, lo)
    r = f.sub(exact, small)
    lost = f.sub(f.sub(exact, r), small)
    return word, f.add(r, f.fma(f.mul(r, r), f.polynomial(r, _EXP[f.mantissa]), lost))


def exp(k: Builder, x: Operand) -> Operand:
    """e to the power x; at most 1.1 ulp (f32) and 1.1 ulp (f64)."""
    f = Floats(k, x.dtype)
    lowest, highest = _RANGE[f.mantissa]
    n, r = _reduce(f, f.at_least(f.at_most(x, highest), lowest))
    return f.scale(_exp_small(f, r), n)


def expanded(f: Floats, x: Operand, shift: int, lost: Number = 0.0) -> Operand:
    """``exp(x + lost) * 2**shift``, with ``lost`` not above an ulp of x."""
    lowest, highest = _RANGE[f.mantissa]
    n, r = _reduce(f, f.at_least(f.at_most(x, highest + 8), lowest))
    r = f.add(r, lost)
    return f.scale(_exp_small(f, r), f.k.add(n, shift % (1 << f.dtype.bits)))


def exp_bounded(f: Floats, x: Operand) -> Operand:
    """exp where the result is known to be normal."""
    n, r = _reduce(f, x)
    return f.mul(_exp_small(f, r), f.power_of_two(f.k.add(n, f.bias)))


def exp2_reduced(f: Floats, r: Operand) -> Operand:
    """2**r for |r| <= 1/2."""
    return f.fma(r, f.polynomial(r, _EXP2[f.mantissa]), 1.0)


def exp2(k: Builder, x: Operand) -> Operand:
    """2 to the power x; exact for integers; at most 1.0 ulp (f32) and 1.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    limit = 1.0 + f.bias + f.mantissa
    x = f.at_least(f.at_most(x, limit), -limit - 1.0)
    n, word = f.round(x, 1.0)
    return f.scale(exp2_reduced(f, f.sub(x, n)), word)


def expm1(k: Builder, x: Operand) -> Operand:
    """exp(x) - 1 without cancellation; at most 1.6 ulp (f32) and 1.7 ulp (f64).

    ``2**n exp(r) - 1 = 2 (s (exp(r) - 1) + (s - 1/2))`` with ``s = 2**(n - 1)``, which is finite
    wherever the result is.
    """
    f = Floats(k, x.dtype)
    highest = _RANGE[f.mantissa][1]
    n, p = _expm1_parts(f, f.at_least(f.at_most(x, highest), -2.0 * f.mantissa))
    s = f.power_of_two(k.add(n, f.bias - 1))
    result = f.mul(2.0, f.fma(s, p, f.sub(s, 0.5)))
    # Below half an ulp of 1 the result is x, its sign and its subnormal bits included.
    tiny = f.op("lt", f.abs(x), 2.0 ** -(f.mantissa + 2))
    return f.select(tiny, x, result)


def sigmoid(k: Builder, x: Operand) -> Operand:
    """1 / (1 + exp(-x)) = exp(x) / (1 + exp(x)); at most 1.6 ulp (f32) and 1.6 ulp (f64)."""
    f = Floats(k, x.dtype)
    e = exp(k, f.neg(f.abs(x)))
    numerator = f.select(f.op("lt", x, 0.0), e, 1.0)
    return f.add(*f.quotient(numerator, f.fast_two_sum(1.0, e)))


def tanh(k: Builder, x: Operand) -> Operand:
    """Hyperbolic tangent; at most 1.7 ulp (f32) and 1.7 ulp (f64).

    ``tanh(|x|) = t / (t + 2)`` with ``t = exp(2|x|) - 1``.
    """
    f = Floats(k, x.dtype)
    n, p = _expm1_parts(f, f.at_most(f.abs(f.add(x, x)), 0.8 * f.mantissa))
    s = f.power_of_two(k.add(n, f.bias))
    t = f.fma(s, p, f.sub(s, 1.0))
    result = f.add(*f.quotient(t, f.two_sum(t, f.operand(2.0))))
    return f.with_sign(result, f.sign_bit(x))
