"""erf, its complement and inverse, and the normal distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

from treadle.base import dtypes
from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib import tables
from treadle.ops.mathlib.exponential import exp_bounded, expanded
from treadle.ops.mathlib.floats import Floats, in_double
from treadle.ops.mathlib.logarithm import log, log1p

# erf(x) = x + x p(x^2) for |x| <= 1
_ERF = {
    23: (
        0.128379166,
        -0.37612626,
        0.112836003,
        -0.0268544443,
        0.00518953614,
        -0.00080208492,
        7.88914404e-05,
    ),
    52: (
        0.1283791670955126,
        -0.37612638903183754,
        0.1128379167095512,
        -0.026866170645129868,
        0.005223977625423608,
        -0.000854832702195592,
        0.00012055332903808842,
        -1.4925647594409642e-05,
        1.6462045979174039e-06,
        -1.6364649537127996e-07,
        1.4792469550498667e-08,
        -1.2164968265731347e-09,
        8.710464782554549e-11,
        -4.2331296213978e-12,
    ),
}
# erf(x) = 1 - exp(p(x - 1)) for x >= 1, in f64
_LOG_ERFC = (
    -1.8496055099332482,
    -2.638967514234791,
    -0.8431072563585149,
    -0.041561098045761406,
    0.010033825424138696,
    -0.001977902940491812,
    0.0002373242931080804,
    2.6271829994534117e-05,
    -2.7144736474871105e-05,
    9.58389476326525e-06,
    -2.0273999736665193e-06,
    1.1135470751662135e-07,
    1.2073320742313055e-07,
    -6.489955957455108e-08,
    2.0244937271144948e-08,
    -4.487845251036846e-09,
    7.197679287969692e-10,
    -7.993206930636398e-11,
    5.5074692295260335e-12,
    -1.7716496390514284e-13,
)
# 4 (1 - erfc(x)^(1/4)) = x + x p(x) for 0 <= x <= _ERF_IS_ONE, in f32
_ERFC_ROOT = (
    0.128379166,
    0.477464229,
    -0.0618389659,
    -0.0745693371,
    0.00508945109,
    0.00742571056,
    -0.000484865857,
    -0.00073213072,
    0.000209882986,
    -2.19894537e-05,
    7.5859748e-07,
)
_ERF_IS_ONE = 3.95  # where erf rounds to 1 in f32


def _erf_small(f: Floats, x: Operand) -> Operand:
    """erf(x) for |x| <= 1."""
    return f.fma(x, f.polynomial(f.mul(x, x), _ERF[f.mantissa]), x)


def erf(k: Builder, x: Operand) -> Operand:
    """The error function; at most 2.0 ulp (f32) and 1.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    return _erf_single(f, x) if f.dtype is dtypes.float32 else _erf_double(f, x)


def _erf_single(f: Floats, x: Operand) -> Operand:
    """One polynomial for all x: ``1 - (1 - u/4)^4`` with ``u = 4 (1 - erfc(x)^(1/4))``.

    The root is smooth, and the power comes without cancellation of two squarings,
    ``v = u - u^2/8`` and ``v - v^2/4``. As v is close to x, only its distance is rounded.
    """
    size = f.at_most(f.abs(x), _ERF_IS_ONE)
    square = f.mul(size, size)
    even, odd = f.polynomial(square, _ERFC_ROOT[::2]), f.polynomial(square, _ERFC_ROOT[1::2])
    rest = f.mul(size, f.fma(odd, size, even))
    u = f.add(size, rest)
    v = f.add(size, f.fma(f.mul(u, -1 / 8), u, rest))
    result = f.fma(f.mul(v, -1 / 4), v, v)
    return f.from_bits(f.k.op("or", f.bits(result), f.sign_bit(x)))


def _erf_double(f: Floats, x: Operand) -> Operand:
    """1 - erf(x) need not be relatively exact where x >= 1, and its logarithm is smooth."""
    size = f.abs(x)
    inner = _erf_small(f, x)
    t = f.sub(f.at_most(size, 6.0), 1.0)  # at 6 erf rounds to 1
    outer = f.sub(1.0, exp_bounded(f, f.polynomial(t, _LOG_ERFC)))
    outer = f.with_sign(outer, f.sign_bit(x))
    return f.select(f.op("lt", size, 1.0), inner, outer)


# --- the complement ------------------------------------------------------------------------------


def _erfcx_positive(f: Floats, x: Operand) -> Operand:
    """exp(x^2) erfc(x) for x >= 0: p(q)/(1 + 2x), q = (x - 4)/(x + 4); a series far out."""
    q = f.div(f.sub(x, 4.0), f.add(x, 4.0))
    p = f.polynomial(q, f.of_dtype(tables.ERFCX_F32, tables.ERFCX_F64))
    near = f.div(p, f.fma(2.0, x, 1.0))

    def series() -> tuple[Operand]:
        inverse = f.div(1.0, x)
        h = f.mul(0.5, f.mul(inverse, inverse))
        p = f.polynomial(h, (1.0, -1.0, 3.0, -15.0, 105.0, -945.0))
        return (f.mul(f.mul(inverse, 1 / math.sqrt(math.pi)), p),)

    return f.rarely(f.op("gt", x, f.of_dtype((22.0,), (75.0,))[0]), (near,), series)[0]


def _bell(f: Floats, x: Operand, factor: float) -> Operand:
    """exp(factor x^2), factor a power of two: the square is taken exactly."""
    square, lost = f.two_product(x, x)
    lost = f.select(f.op("lt", square, 2.0**14), lost, 0.0)  # beyond, 0 or infinite
    return expanded(f, f.mul(factor, square), 0, f.mul(factor, lost))


def _erfc_positive(f: Floats, x: Operand) -> Operand:
    """erfc(x) for x >= 0."""
    tail = f.mul(_bell(f, x, -1.0), _erfcx_positive(f, x))
    return f.select(f.op("lt", x, 0.75), f.sub(1.0, _erf_small(f, x)), tail)


def erfc(k: Builder, x: Operand) -> Operand:
    """1 - erf(x) without cancellation; at most 4.0 ulp (f32) and 4.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    tail = _erfc_positive(f, f.at_most(f.abs(x), 30.0))
    return f.select(f.op("lt", x, 0.0), f.sub(2.0, tail), tail)


def erfcx(k: Builder, x: Operand) -> Operand:
    """exp(x^2) erfc(x); at most 3.0 ulp (f32) and 3.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    result = _erfcx_positive(f, f.abs(x))

    def left() -> tuple[Operand]:
        bell = _bell(f, x, 1.0)
        reflected = f.fma(2.0, bell, f.neg(result))
        small = f.op("gt", x, -0.5)
        return (f.select(small, f.mul(bell, f.sub(1.0, _erf_small(f, x))), reflected),)

    return f.rarely(f.op("lt", x, 0.5), (result,), left)[0]


def _normal_tail(f: Floats, size: Operand) -> tuple[Operand, Operand]:
    """The normal distribution beyond size >= 0, and that times exp(size^2/2)."""
    x = f.mul(size, math.sqrt(0.5))
    scaled = f.mul(0.5, _erfcx_positive(f, x))
    tail = f.mul(_bell(f, f.at_most(size, 40.0), -0.5), scaled)
    return f.select(f.op("lt", x, 0.5), f.fma(-0.5, _erf_small(f, x), 0.5), tail), scaled


@in_double
def ndtr(k: Builder, x: Operand) -> Operand:
    """The normal distribution up to x; at most 1.0 ulp (f32) and 4.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    tail, _ = _normal_tail(f, f.abs(x))
    return f.select(f.op("gt", x, 0.0), f.sub(1.0, tail), tail)


@in_double
def log_ndtr(k: Builder, x: Operand) -> Operand:
    """log(ndtr(x)); at most 1.0 ulp (f32) and 4.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    size = f.abs(x)
    tail, scaled = _normal_tail(f, size)
    far = f.op("lt", x, -1.0)
    below = log(k, f.select(far, scaled, tail))
    below = f.select(far, f.fma(f.mul(size, -0.5), size, below), below)
    return f.select(f.op("gt", x, 0.0), log1p(k, f.neg(tail)), below)


# --- the inverse ---------------------------------------------------------------------------------

# erfinv(x) = x p(t) by pieces: up to which s, the middle of the piece, its half width (1 where t is
# not scaled) and its table; s = sqrt(w), w = -log(1 - x^2)
_Piece = tuple[float, float, float, Sequence[float]]
_INVERSE_TAILS: dict[int, tuple[_Piece, ...]] = {
    23: ((4.1, 3.168, 1.0, tables.ERFINV1_F32),),
    52: (
        (4.0, 3.25, 1.0, tables.ERFINV1_F64),
        (6.0, 5.05, 1.0, tables.ERFINV2_F64),
        (12.0, 9.0, 3.0, tables.NDTRI0_F64),
        (28.0, 20.0, 8.0, tables.NDTRI1_F64),
    ),
}


def _inverse(f: Floats, w: Operand, pieces: int) -> Operand:
    """erfinv(x)/x by w = -log(1 - x^2), up to the given number of pieces for larger w."""
    bound, middle = f.of_dtype((5.0, 2.5), (6.25, 3.125))
    table = f.of_dtype(tables.ERFINV0_F32, tables.ERFINV0_F64)
    result, lowest = f.polynomial(f.sub(w, middle), table), math.sqrt(bound)
    s = f.op("sqrt", w)
    for highest, centre, half, coefficients in _INVERSE_TAILS[f.mantissa][:pieces]:
        t = f.sub(s, centre)
        t = t if half == 1.0 else f.mul(t, 1 / half)

        def piece(t: Operand = t, table: Sequence[float] = coefficients) -> tuple[Operand]:
            return (f.polynomial(t, table),)

        (result,) = f.rarely(f.op("ge", s, lowest), (result,), piece)
        lowest = highest
    return result


def erfinv(k: Builder, x: Operand) -> Operand:
    """The inverse of erf, infinite at -1 and 1; at most 4.0 ulp (f32) and 4.0 ulp (f64)."""
    f = Floats(k, x.dtype)
    w = f.neg(log(k, f.mul(f.sub(1.0, x), f.add(1.0, x))))
    result = f.mul(x, _inverse(f, w, 2))
    end = f.op("eq", f.abs(x), 1.0)
    return f.select(end, f.mul(x, math.inf), result)


@in_double
def ndtri(k: Builder, p: Operand) -> Operand:
    """The inverse of ndtr; at most 1.0 ulp (f32) and 4.0 ulp (f64)."""
    f = Floats(k, p.dtype)
    x = f.fma(2.0, p, -1.0)
    w = f.neg(log(k, f.mul(f.mul(4.0, p), f.sub(1.0, p))))
    result = f.mul(f.mul(x, math.sqrt(2)), _inverse(f, w, 4))
    end = f.op("eq", f.abs(x), 1.0)
    is_end = k.op("or", f.op("eq", p, 0.0), k.op("and", end, f.op("gt", p, 0.5)))
    return f.select(is_end, f.mul(x, math.inf), result)
