"""Bessel functions of the orders 0 and 1, computed in f64.

Up to 3 or 4 and up to 8 they are polynomials, most zeros taken out as factors; beyond 8 they are
``sqrt(2/(pi x)) m cos(x - pi/4 - n pi/2 + a)`` with a modulus and a phase that are smooth in 1/x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from treadle.ir.loop import Builder, Operand
from treadle.ops.mathlib import tables
from treadle.ops.mathlib.exponential import expanded
from treadle.ops.mathlib.floats import Floats, in_double
from treadle.ops.mathlib.logarithm import log
from treadle.ops.mathlib.trigonometric import HALF_PI, reduce, sine_and_cosine

_Zero = tuple[float, float]
_J_SMALL = (4.0, 3.0)  # where the middle pieces begin
_Y_SMALL = 3.0
_J0_ZERO: _Zero = (2.404825557695773, -1.176691651530894e-16)
_J_MIDDLE: tuple[tuple[_Zero, ...], ...] = (
    ((5.520078110286311, 8.088597146146722e-17),),
    (
        (3.8317059702075125, -1.5269184090088067e-16),
        (7.015586669815619, -9.414165653410389e-17),
    ),
)
_Y_MIDDLE: tuple[tuple[_Zero, ...], ...] = (
    (
        (3.957678419314858, -1.0764340697562706e-16),
        (7.086051060301773, -8.835285723085408e-17),
    ),
    ((5.429681040794135, 4.162514026670377e-16),),
)
_J = (tables.J0_F64, tables.J1_F64)
_Y = (tables.Y0_F64, tables.Y1_F64)
_J_MIDDLE_TABLES = (tables.J0_MIDDLE_F64, tables.J1_MIDDLE_F64)
_Y_MIDDLE_TABLES = (tables.Y0_MIDDLE_F64, tables.Y1_MIDDLE_F64)
_MODULUS = (tables.MODULUS0_F64, tables.MODULUS1_F64)
_PHASE = (tables.PHASE0_F64, tables.PHASE1_F64)


def _beside(f: Floats, x: Operand, zero: _Zero) -> Operand:
    return f.sub(f.sub(x, zero[0]), zero[1])


def _j_small(f: Floats, x: Operand, n: int) -> Operand:
    """J_n for 0 <= x <= _J_SMALL[n]."""
    p = f.polynomial(f.fma(f.mul(x, 2 / _J_SMALL[n] ** 2), x, -1.0), _J[n])
    if n:
        return f.mul(p, x)
    return f.mul(f.mul(_beside(f, x, _J0_ZERO), f.add(x, _J0_ZERO[0])), p)


def _middle(
    f: Floats, x: Operand, start: float, zeros: Sequence[_Zero], table: Sequence[float]
) -> Operand:
    """A function with these zeros from ``start`` to 8."""
    half = (8 - start) / 2
    value = f.polynomial(f.fma(1 / half, x, -(8 + start) / (8 - start)), table)
    for zero in zeros:
        value = f.mul(_beside(f, x, zero), value)
    return value


def _wave(f: Floats, x: Operand, n: int, second: bool) -> Operand:
    """J_n (or, ``second``, Y_n) for x > 8."""
    k = f.k
    inverse = f.div(1.0, x)
    z = f.mul(inverse, inverse)
    phase = f.mul(inverse, f.polynomial(z, _PHASE[n]))
    y, rest, turns = reduce(f, x)
    # -pi/4, or +pi/4 and a quarter turn less
    ahead = f.op("gt", y, 0.0)
    hi, lo = HALF_PI[f.mantissa][0] / 2, HALF_PI[f.mantissa][1] / 2
    turns = k.sub(turns, k.select(ahead, k.const(0, f.word), k.const(1, f.word)))
    y, lost = f.two_sum(y, f.select(ahead, -hi, hi))
    rest = f.add(rest, f.add(lost, f.select(ahead, -lo, lo)))
    y, lost = f.two_sum(y, phase)
    sine, cosine = sine_and_cosine(f, y, f.add(rest, lost))
    # cos(a) = sin(a + pi/2); one order more is a quarter turn less
    turns = k.add(turns, (0 if second else 1) + (3 if n else 0))
    odd = k.compare("ne", k.op("and", turns, 1), 0)
    value = f.select(odd, cosine, sine)
    value = f.with_sign(value, k.op("shl", k.op("and", turns, 2), f.dtype.bits - 2))
    modulus = f.mul(f.polynomial(z, _MODULUS[n]), math.sqrt(2 / math.pi))
    return f.mul(value, f.div(modulus, f.op("sqrt", x)))


def _first_kind(k: Builder, x: Operand, n: int) -> Operand:
    f = Floats(k, x.dtype)
    size = f.abs(x)
    result = _j_small(f, f.at_most(size, _J_SMALL[n]), n)

    def middle() -> tuple[Operand]:
        return (_middle(f, size, _J_SMALL[n], _J_MIDDLE[n], _J_MIDDLE_TABLES[n]),)

    def wave() -> tuple[Operand]:
        return (_wave(f, size, n, second=False),)

    (result,) = f.rarely(f.op("gt", size, _J_SMALL[n]), (result,), middle)
    (result,) = f.rarely(f.op("gt", size, 8.0), (result,), wave)
    result = f.select(f.op("eq", size, math.inf), 0.0, result)
    if n:
        return f.with_sign(result, f.sign_bit(x))
    return f.select(f.op("eq", x, 0.0), 1.0, result)


def _second_kind(k: Builder, x: Operand, n: int) -> Operand:
    f = Floats(k, x.dtype)
    near = f.at_most(x, _Y_SMALL)
    p = f.polynomial(f.fma(f.mul(near, 2 / _Y_SMALL**2), near, -1.0), _Y[n])
    product = f.mul(log(k, near), _j_small(f, near, n))
    if n:
        product = f.sub(product, f.div(1.0, near))
        p = f.mul(p, near)
    result = f.fma(product, 2 / math.pi, p)

    def middle() -> tuple[Operand]:
        return (_middle(f, x, _Y_SMALL, _Y_MIDDLE[n], _Y_MIDDLE_TABLES[n]),)

    def wave() -> tuple[Operand]:
        return (_wave(f, x, n, second=True),)

    (result,) = f.rarely(f.op("gt", x, _Y_SMALL), (result,), middle)
    (result,) = f.rarely(f.op("gt", x, 8.0), (result,), wave)
    result = f.select(f.op("eq", x, math.inf), 0.0, result)
    result = f.select(f.op("lt", x, 0.0), math.nan, result)
    return f.select(f.op("eq", x, 0.0), -math.inf, result)


@in_double
def bessel_j0(k: Builder, x: Operand) -> Operand:
    """J0; at most 1.0 ulp (f32) and 4.0 ulp (f64).

    Next to zeros above 8 the bound in f64 is that of ``sqrt(2/(pi x))/16``.
    """
    return _first_kind(k, x, 0)


@in_double
def bessel_j1(k: Builder, x: Operand) -> Operand:
    """J1; at most 1.0 ulp (f32) and 4.0 ulp (f64).

    Next to zeros above 8 the bound in f64 is that of ``sqrt(2/(pi x))/16``.
    """
    return _first_kind(k, x, 1)


@in_double
def bessel_y0(k: Builder, x: Operand) -> Operand:
    """Y0, NaN below 0; at most 1.0 ulp (f32) and 4.0 ulp (f64).

    In f64 the unit is that of the larger of the result and 1/2.
    """
    return _second_kind(k, x, 0)


@in_double
def bessel_y1(k: Builder, x: Operand) -> Operand:
    """Y1, NaN below 0; at most 1.0 ulp (f32) and 4.0 ulp (f64).

    In f64 the unit is that of the larger of the result and 1/2.
    """
    return _second_kind(k, x, 1)


# --- modified ------------------------------------------------------------------------------------

_I = (tables.I0_F64, tables.I1_F64)
_I_LARGE = (tables.I0_LARGE_F64, tables.I1_LARGE_F64)
_K = (tables.K0_F64, tables.K1_F64)
_K_LARGE = (
    (tables.K0_LARGE0_F64, tables.K0_LARGE1_F64), (tables.K1_LARGE0_F64, tables.K1_LARGE1_F64),
)  # fmt: skip


def _i_small(f: Floats, x: Operand, n: int) -> Operand:
    half = f.mul(0.5, x)
    value = f.polynomial(f.mul(half, half), _I[n])
    return f.mul(value, half) if n else value


def _first_modified(k: Builder, x: Operand, n: int, scaled: bool) -> Operand:
    """I_n(x), times exp(-|x|) where ``scaled``."""
    f = Floats(k, x.dtype)
    size = f.abs(x)
    result = _i_small(f, f.at_most(size, 8.0), n)
    if scaled:
        result = f.mul(result, expanded(f, f.neg(size), 0))

    def large() -> tuple[Operand]:
        inverse = f.div(1.0, size)
        value = f.polynomial(f.sub(inverse, 0.0625), _I_LARGE[n])
        value = f.div(value, f.op("sqrt", size))
        if scaled:
            return (value,)
        # 2^-8 because exp(x) overflows before I_n(x) does
        value = f.mul(f.mul(value, 256.0), expanded(f, size, -8))
        return (f.select(f.op("eq", size, math.inf), math.inf, value),)

    (result,) = f.rarely(f.op("gt", size, 8.0), (result,), large)
    return f.with_sign(result, f.sign_bit(x)) if n else result


def _second_modified(k: Builder, x: Operand, n: int, scaled: bool) -> Operand:
    """K_n(x), times exp(x) where ``scaled``; NaN below 0."""
    f = Floats(k, x.dtype)
    near = f.at_most(x, 1.0)
    p = f.polynomial(f.mul(near, near), _K[n])
    product = f.mul(log(k, near), _i_small(f, near, n))
    result = f.add(f.div(1.0, near), f.fma(near, p, product)) if n else f.sub(p, product)
    if scaled:
        result = f.mul(result, expanded(f, near, 0))

    def large() -> tuple[Operand]:
        inverse = f.div(1.0, x)
        far = f.op("lt", inverse, 0.25)
        t = f.sub(inverse, f.select(far, 0.125, 0.625))
        first, second = _K_LARGE[n]
        rows = zip(first, (*second, *(0.0,) * (len(first) - len(second))), strict=True)
        value = f.polynomial(t, [f.select(far, b, a) for a, b in rows])
        value = f.div(value, f.op("sqrt", x))
        return (value if scaled else f.mul(value, expanded(f, f.neg(x), 0)),)

    (result,) = f.rarely(f.op("gt", x, 1.0), (result,), large)
    result = f.select(f.op("lt", x, 0.0), math.nan, result)
    return f.select(f.op("eq", x, 0.0), math.inf, result)


def _modified(
    name: str, form: Callable[[Builder, Operand, int, bool], Operand], n: int, scaled: bool,
    what: str,
) -> Callable[[Builder, Operand], Operand]:  # fmt: skip
    def function(k: Builder, x: Operand) -> Operand:
        return form(k, x, n, scaled)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{what}; at most 1.0 ulp (f32) and 4.0 ulp (f64)."
    return in_double(function)


i0 = _modified("i0", _first_modified, 0, False, "I0")
i0e = _modified("i0e", _first_modified, 0, True, "exp(-|x|) I0(x)")
i1 = _modified("i1", _first_modified, 1, False, "I1")
i1e = _modified("i1e", _first_modified, 1, True, "exp(-|x|) I1(x)")
modified_bessel_k0 = _modified("modified_bessel_k0", _second_modified, 0, False, "K0")
modified_bessel_k1 = _modified("modified_bessel_k1", _second_modified, 1, False, "K1")
scaled_modified_bessel_k0 = _modified(
    "scaled_modified_bessel_k0", _second_modified, 0, True, "exp(x) K0(x)"
)
scaled_modified_bessel_k1 = _modified(
    "scaled_modified_bessel_k1", _second_modified, 1, True, "exp(x) K1(x)"
)
