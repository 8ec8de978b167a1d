"""sin and cos for every finite argument.

``x * 2/pi = 4 (whole turns) + n + r`` with n a number of quarter turns and |r| <= 1/2. The larger x
is, the more of the leading bits of 2/pi contribute whole turns only: where x is a multiple of
``2**(b + 2)``, those worth 2**-b and more may be left out. So ``x' = x 2**-b`` is multiplied by
``2**b 2/pi`` modulo 4 instead, with b growing in steps with x.
"""

from __future__ import annotations

from fractions import Fraction

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib.floats import Floats, Pair

_HALF_PI: tuple[float, float] = (1.5707963267948966, 6.123233995736766e-17)
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
        0.008332178,
        -0.000195172441,
    ),
    52: (
        -0.16666666666666632,
        0.008333333333322413,
        -0.00019841269829808,
        2.7557313691988943e-06,
        -2.5050758127235012e-08,
        1.5896796396371824e-10,
    ),
}
_COS = {
    23: (
        0.0416666456,
        -0.00138873665,
        2.443839e-05,
    ),
    52: (
        0.0416666666666666,
        -0.0013888888888874123,
        2.480158728948199e-05,
        -2.7557314352290043e-07,
        2.0875723268962325e-09,
        -1.1359647651717683e-11,
    ),
}


def sin(k: Builder, x: Operand) -> Operand:
    """Sine of x radians; NaN at infinities; at most 1.6 ulp (f32) and 0.9 ulp (f64)."""
    return _sine(k, x, 0)


def cos(k: Builder, x: Operand) -> Operand:
    """Cosine of x radians; NaN at infinities; at most 1.6 ulp (f32) and 0.9 ulp (f64)."""
    return _sine(k, x, 1)


def _sine(k: Builder, x: Operand, quarters: int) -> Operand:
    """sin(x + quarters * pi/2)."""
    f = Floats(k, x.dtype)
    if x.dtype is dtypes.float32:
        y, n = _reduce_f32(k, x)
        z = f.mul(y, y)
        sine = f.fma(f.mul(y, z), f.polynomial(z, _SIN[23]), y)
        cosine = f.fma(f.mul(z, z), f.polynomial(z, _COS[23]), f.fma(-0.5, z, 1.0))
    else:
        (y, rest), n = _reduce_f64(f, x)
        z = f.mul(y, y)
        # sin(y + rest) = sin(y) + rest cos(y)
        half = f.mul(0.5, z)
        correction = f.mul(rest, f.sub(1.0, half))
        sine = f.add(y, f.fma(f.mul(y, z), f.polynomial(z, _SIN[52]), correction))
        # cos(y + rest) = cos(y) - rest y
        leading, lost = f.fast_two_sum(1.0, f.neg(half))
        tail = f.fma(f.neg(y), rest, lost)
        cosine = f.add(leading, f.fma(f.mul(z, z), f.polynomial(z, _COS[52]), tail))
    n = k.add(n, quarters)
    result = f.select(k.compare("ne", k.op("and", n, 1), 0), cosine, sine)
    half_turn = k.op("shl", k.op("and", n, 2), f.dtype.bits - 2)
    result = f.with_sign(result, half_turn)
    if quarters:
        return result
    # Tiny x: the reduction would lose the sign of zero and subnormal bits.
    return f.select(f.op("lt", f.abs(x), 2.0 ** -(f.mantissa // 2 + 2)), x, result)


def _reduce_f32(k: Builder, x: Operand) -> tuple[Operand, Operand]:
    """y in [-pi/4, pi/4] and the quarter turns n (a u32) of an f32, worked out in f64.

    b goes in steps of 16, so x' is below 2**42: what the pair ``2**b 2/pi`` leaves out is below
    2**-62, and no f32 is nearer than 2**-30 to a multiple of pi/2.
    """
    narrow, f = Floats(k, x.dtype), Floats(k, dtypes.float64)
    j = k.op("shr", _excess(narrow, x), 4)
    scaled = narrow.mul(x, narrow.power_of_two(k.sub(narrow.bias, k.op("shl", j, 4))))
    wide = k.convert(scaled, f.dtype)
    pairs = [_factor(16 * i) for i in range(7)]
    hi = _choose(f, j, [f.operand(pair[0]) for pair in pairs])
    lo = _choose(f, j, [f.operand(pair[1]) for pair in pairs])
    turns, rest = f.two_product(wide, hi)
    n, word = f.round(turns, 1.0)
    r = f.add(f.sub(turns, n), f.fma(wide, lo, rest))
    return k.convert(f.mul(r, _HALF_PI[0]), x.dtype), k.convert(word, dtypes.uint32)


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


def _reduce_f64(f: Floats, x: Operand) -> tuple[Pair, Operand]:
    """y in [-pi/4, pi/4] as a pair, and the quarter turns n of an f64.

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
    hi, lo = f.pair_product(turn, (f.operand(_HALF_PI[0]), f.operand(_HALF_PI[1])))
    return f.fast_two_sum(hi, lo), word


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
