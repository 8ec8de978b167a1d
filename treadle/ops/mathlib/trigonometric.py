"""sin, cos and tan for every finite argument.

``x * 2/pi = 4 (whole turns) + n + r`` with n a number of quarter turns and |r| <= 1/2. Where |x| is
not large, pi/2 in three parts does: n times the first, taken from x inside an fma, is exact.

The larger x is, the more of the leading bits of 2/pi contribute whole turns only: where x is a
multiple of ``2**(b + 2)``, those worth 2**-b and more may be left out. So ``x' = x 2**-b`` is
multiplied by ``2**b 2/pi`` modulo 4 instead, with b growing in steps with x.
"""

from __future__ import annotations

import math
from fractions import Fraction

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib.floats import Floats, Pair

HALF_PI: dict[int, tuple[float, float]] = {
    23: (1.5707963705062866, -4.371138828673793e-08),
    52: (1.5707963267948966, 6.123233995736766e-17),
}
# in three parts, the second with so few bits that its product with n is exact
_HALF_PI_PARTS: dict[int, tuple[float, float, float]] = {
    23: (1.5707963705062866, -4.371395334601402e-08, 2.5633440682570896e-12),
    52: (1.5707963267948966, 6.123233932053594e-17, 6.36831716351095e-25),
}
_NEAR = {23: 2.0**10, 52: 2.0**26}  # below it three parts do
# 2/pi * 2**1219, cut to an integer: enough bits for the largest f64
_FRACTION = 1219
_TWO_OVER_PI = int(
    "517CC1B727220A94FE13ABE8FA9A6EE06DB14ACC9E21C820FF28B1D5EF5DE2B0DB92371D2126E97003249775"
    "04E8C90E7F0EF58E5894D39F74411AFA975DA24274CE38135A2FBF209CC8EB1CC1A99CFA4E422FC5DEFC941D"
    "8FFC4BFFEF02CC07F79788C5AD05368FB69B3F6793E584DBA7A31FB34F2FF516BA93DD63F5F2F8BD9E839CFB"
    "C529497535FDAFD88FC6AE842B0198237E3DB5D5F",
    16,
)
# sin(y) = y + y z p(z) and cos(y) = 1 - z/2 + z^2 p(z), z = y^2
_SIN = {
    23: (
        -0.166666552,
        0.00833216868,
        -0.000195160217,
    ),
    52: (
        -0.16666666666666632,
        0.008333333333322205,
        -0.00019841269829632985,
        2.755731362878695e-06,
        -2.5050747870669963e-08,
        1.589618233467936e-10,
    ),
}
_COS = {
    23: (
        0.0416666456,
        -0.0013887356,
        2.44370185e-05,
    ),
    52: (
        0.041666666666666595,
        -0.001388888888887384,
        2.4801587289297135e-05,
        -2.755731429662555e-07,
        2.0875715415695416e-09,
        -1.1359227088781831e-11,
    ),
}


def sin(k: Builder, x: Operand) -> Operand:
    """Sine of x radians; NaN at infinities; at most 1.0 ulp (f32) and 0.9 ulp (f64)."""
    return _turned(k, x, 0)


def cos(k: Builder, x: Operand) -> Operand:
    """Cosine of x radians; NaN at infinities; at most 1.0 ulp (f32) and 0.9 ulp (f64)."""
    return _turned(k, x, 1)


def tan(k: Builder, x: Operand) -> Operand:
    """Tangent of x radians; NaN at infinities; at most 2.5 ulp (f32) and 2.2 ulp (f64)."""
    f = Floats(k, x.dtype)
    y, rest, n = reduce(f, f.abs(x))
    sine, cosine = sine_and_cosine(f, y, rest)
    odd = _is_odd(k, n)
    result = f.div(f.select(odd, cosine, sine), f.select(odd, sine, cosine))
    flip = k.op("shl", k.op("and", n, 1), f.dtype.bits - 1)
    return f.with_sign(result, k.op("xor", flip, f.sign_bit(x)))


def _turned(k: Builder, x: Operand, quarters: int) -> Operand:
    """sin(x + quarters * pi/2), by the sine of |x|."""
    f = Floats(k, x.dtype)
    y, rest, n = reduce(f, f.abs(x))
    sine, cosine = sine_and_cosine(f, y, rest)
    n = k.add(n, quarters)
    result = f.select(_is_odd(k, n), cosine, sine)
    half_turn = k.op("shl", k.op("and", n, 2), f.dtype.bits - 2)
    if not quarters:
        half_turn = k.op("xor", half_turn, f.sign_bit(x))
    return f.with_sign(result, half_turn)


def _is_odd(k: Builder, n: Operand) -> Operand:
    return k.compare("ne", k.op("and", n, 1), 0)


def sine_and_cosine(f: Floats, y: Operand, rest: Operand) -> Pair:
    """sin and cos of y + rest for |y| <= pi/4, rest below an ulp of it."""
    z = f.mul(y, y)
    sine = f.add(y, f.fma(f.mul(y, z), f.polynomial(z, _SIN[f.mantissa]), rest))
    # cos(y + rest) = 1 - z/2 + z^2 p(z) - rest y
    half = f.mul(0.5, z)
    leading, lost = f.fast_two_sum(1.0, f.neg(half))
    tail = f.fma(f.neg(y), rest, lost)
    cosine = f.add(leading, f.fma(f.mul(z, z), f.polynomial(z, _COS[f.mantissa]), tail))
    return sine, cosine


def half_turns(f: Floats, x: Operand) -> tuple[Operand, Operand, Operand]:
    """sin and cos of pi times the distance r of x to the nearest integer, and r with its sign."""
    r = f.sub(x, f.op("roundeven", x))
    size = f.abs(r)
    steep = f.op("gt", size, 0.25)
    part = f.select(steep, f.sub(0.5, size), size)
    hi, lo = HALF_PI[f.mantissa]
    y, rest = f.two_product(part, 2 * hi)
    sine, cosine = sine_and_cosine(f, y, f.fma(part, 2 * lo, rest))
    return f.select(steep, cosine, sine), f.select(steep, sine, cosine), r


def sinc(k: Builder, x: Operand) -> Operand:
    """sin(pi x)/(pi x), 1 at 0; at most 2.5 ulp (f32) and 2.5 ulp (f64)."""
    f = Floats(k, x.dtype)
    size = f.abs(x)
    sine, _, _ = half_turns(f, size)
    n = f.op("roundeven", size)
    half = f.mul(n, 0.5)
    # Beyond an integer n the sine has the sign of (-1)^n, before it the other one.
    flips = k.op("ne", f.op("ne", f.op("trunc", half), half), f.op("lt", size, n))
    hi, lo = HALF_PI[f.mantissa]
    angle = f.fma(size, 2 * hi, f.mul(size, 2 * lo))
    result = f.div(f.select(flips, f.neg(sine), sine), angle)
    result = f.select(f.op("eq", size, math.inf), 0.0, result)
    return f.select(f.op("eq", size, 0.0), 1.0, result)


def reduce(f: Floats, x: Operand) -> tuple[Operand, Operand, Operand]:
    """y in [-pi/4, pi/4] and what it lost when it was rounded, and the quarter turns n (a word).

    x >= 0. n times the first part of pi/2 differs from x by a multiple of the part's last bit, and
    by less than 1: exactly what an fma gives. n times the second part is exact too.
    """
    first, second, third = _HALF_PI_PARTS[f.mantissa]
    n, word = f.round(x, 2 / math.pi)
    exact = f.fma(n, -first, x)
    y = f.fma(n, -second, exact)
    rest = f.fma(n, -third, f.fma(n, -second, f.sub(exact, y)))
    far = f.k.op("not", f.op("lt", x, _NEAR[f.mantissa]))

    def reduced() -> tuple[Operand, Operand, Operand]:
        return _reduce_f32(f, x) if f.dtype is dtypes.float32 else _reduce_f64(f, x)

    y, rest, word = f.rarely(far, (y, rest, word), reduced)
    return y, rest, word


def _reduce_f32(narrow: Floats, x: Operand) -> tuple[Operand, Operand, Operand]:
    """The same for any f32, worked out in f64.

    b goes in steps of 16, so x' is below 2**42: what the pair ``2**b 2/pi`` leaves out is below
    2**-62, and no f32 is nearer than 2**-30 to a multiple of pi/2.
    """
    k, f = narrow.k, Floats(narrow.k, dtypes.float64)
    j = k.op("shr", _excess(narrow, x), 4)
    scaled = narrow.mul(x, narrow.power_of_two(k.sub(narrow.bias, k.op("shl", j, 4))))
    wide = k.convert(scaled, f.dtype)
    pairs = [_factor(16 * i) for i in range(7)]
    hi = _choose(f, j, [f.operand(pair[0]) for pair in pairs])
    lo = _choose(f, j, [f.operand(pair[1]) for pair in pairs])
    turns, rest = f.two_product(wide, hi)
    n, word = f.round(turns, 1.0)
    y = f.mul(f.add(f.sub(turns, n), f.fma(wide, lo, rest)), HALF_PI[52][0])
    near = k.convert(y, narrow.dtype)
    lost = k.convert(f.sub(y, k.convert(near, f.dtype)), narrow.dtype)
    return near, lost, k.convert(word, narrow.word)


def _excess(f: Floats, x: Operand) -> Operand:
    """The word E - 2 where the last bit of x is worth 2**E, or 0 where that is negative."""
    first = (f.bias + f.mantissa + 2) << f.mantissa
    size = f.bits(f.abs(x))
    return f.k.op("shr", f.k.sub(f.k.maximum(size, first), first), f.mantissa)


def _factor(b: int) -> tuple[float, float]:
    """``2**b * 2/pi`` modulo 4, in [-2, 2), as a pair."""
    value = (Fraction(_TWO_OVER_PI, 1 << _FRACTION) * 2**b + 2) % 4 - 2
    hi = float(value)
    return hi, float(value - Fraction(hi))


def _choose(f: Floats, j: Operand, values: list[Operand]) -> Operand:
    """values[j], by the bits of j."""
    step = 1
    while len(values) > 1:
        odd = f.k.compare("ne", f.k.op("and", j, step), 0)
        pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
        values = [f.select(odd, p[1], p[0]) if len(p) == 2 else p[0] for p in pairs]
        step *= 2
    return values[0]


def _reduce_f64(f: Floats, x: Operand) -> tuple[Operand, Operand, Operand]:
    """The same for any f64.

    b goes in steps of 53, with 2/pi cut into terms of 53 bits: j of them are left out and the next
    five count, as x' is below 2**108 and no double is nearer than 2**-62 to a multiple of pi/2.
    """
    k = f.k
    j = k.op("shr", k.mul(_excess(f, x), 1237), 16)  # divides by 53: exact below 1080
    scaled = f.mul(x, f.power_of_two(k.sub(f.bias, k.mul(j, 53))))
    products = [
        f.two_product(f.mul(scaled, 2.0 ** (-53 * i)), term)
        for i, term in enumerate(_terms(f, j, 5))
    ]
    (p0, q0), (p1, q1), (p2, q2), (p3, q3), (p4, _) = products
    # p0, q0 and p1 may be as large as 2**108, 2**55 and 2**55: whole turns go first.
    total = _modulo_4(f, p0)
    errors = []
    for part in (_modulo_4(f, q0), _modulo_4(f, p1), q1, p2):
        total, error = f.two_sum(total, part)
        errors.append(error)
    n, word = f.round(total, 1.0)
    low, rest = errors[0], f.add(q3, p4)
    for part in (*errors[1:], q2, p3):
        low, error = f.two_sum(low, part)
        rest = f.add(rest, error)
    hi, error = f.two_sum(f.sub(total, n), low)
    turn = f.fast_two_sum(hi, f.add(error, rest))
    half_pi = f.operand(HALF_PI[52][0]), f.operand(HALF_PI[52][1])
    hi, lo = f.pair_product(turn, half_pi)
    return *f.fast_two_sum(hi, lo), word


def _terms(f: Floats, j: Operand, width: int) -> list[Operand]:
    """Terms j to j + width - 1 of 2/pi: after each bit of j half as many candidates are left."""
    count = _FRACTION // 53
    cut = [(_TWO_OVER_PI >> (_FRACTION - 53 * (i + 1))) % (1 << 53) for i in range(count)]
    terms = [f.operand(c * 2.0**-53) for c in cut]
    step = 1 << ((count - width).bit_length() - 1)
    while step:
        far = f.k.compare("ne", f.k.op("and", j, step), 0)
        terms = [
            f.select(far, terms[i + step], terms[i]) if i + step < len(terms) else terms[i]
            for i in range(min(width + step - 1, len(terms)))
        ]
        step //= 2
    return terms


def _modulo_4(f: Floats, a: Operand) -> Operand:
    """a less a multiple of 4, exactly, in [-2, 2]."""
    return f.fma(-4.0, f.op("roundeven", f.mul(a, 0.25)), a)
