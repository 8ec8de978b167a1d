"""The elementwise functions beyond the core ones of ``tensor/arithmetic.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from treadle.base import dtypes
from treadle.base.errors import DTypeError
from treadle.ir.node import located, record
from treadle.ir.op import Op
from treadle.ops import elementwise as e
from treadle.ops import functions as f
from treadle.tensor import arithmetic as a
from treadle.tensor.arithmetic import Operand, common_dtype, operand_nodes, refuse
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.methods import in_place

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _of_one(op: Op, name: str = "") -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        return a.unary_float(op, input)

    function.__name__ = function.__qualname__ = name or op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, elementwise; integers become floats."
    return function


def _of_two(op: Op, name: str = "") -> Callable[[Operand, Operand], Tensor]:
    def function(input: Operand, other: Operand) -> Tensor:
        dtype = common_dtype(function.__name__, input, other)
        real = dtype if dtype.is_inexact else dtypes.get_default_dtype()
        return wrap(record(op, operand_nodes(function.__name__, real, input, other), {}))

    function.__name__ = function.__qualname__ = name or op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, elementwise, with broadcasting."
    return function


# --- trigonometric and hyperbolic ---------------------------------------------------------------

tan, asin, acos, atan = map(_of_one, (f.tan, f.asin, f.acos, f.atan))
sinh, cosh, asinh, acosh, atanh = map(_of_one, (f.sinh, f.cosh, f.asinh, f.acosh, f.atanh))
arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh
sinc = _of_one(f.sinc)
atan2 = arctan2 = _of_two(f.atan2)
hypot = _of_two(f.hypot)


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return a.mul(_real("rad2deg", input), 180 / math.pi)


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return a.mul(_real("deg2rad", input), math.pi / 180)


def _real(name: str, input: Tensor) -> Tensor:
    """The tensor, integers as the default float."""
    if not isinstance(input, Handle):
        raise refuse(name, input)
    node = input.node
    if node.dtype.is_inexact:
        return wrap(node)
    return wrap(a.cast(node, dtypes.get_default_dtype()))


# --- powers and logarithms ----------------------------------------------------------------------

exp2, log2, log10, rsqrt = map(_of_one, (f.exp2, f.log2, f.log10, f.rsqrt))
logaddexp, logaddexp2 = map(_of_two, (f.logaddexp, f.logaddexp2))
xlogy, xlog1py = map(_of_two, (f.xlogy, f.xlog1py))


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """``log(x / (1 - x))``; with ``eps`` x is first clamped to [eps, 1 - eps]."""
    x = _real("logit", input)
    if eps is not None:
        x = a.clamp(x, eps, 1 - eps)
    return a.unary(f.logit, x)


def ldexp(input: Operand, other: Operand) -> Tensor:
    """``input * 2**other``."""
    power = exp2(wrap(other.node)) if isinstance(other, Handle) else 2.0**other
    return a.mul(input, power)


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """``input ** exponent`` in float64 (complex128 for complex numbers)."""
    is_complex = common_dtype("float_power", input, exponent).kind == "c"
    wide = dtypes.complex128 if is_complex else dtypes.float64
    x, y = operand_nodes("float_power", wide, input, exponent)
    return wrap(e.pow_(x, y))


# --- error function, gamma and Bessel -----------------------------------------------------------

erfc, erfcx, erfinv = map(_of_one, (f.erfc, f.erfcx, f.erfinv))
ndtr, ndtri, log_ndtr, entr = map(_of_one, (f.ndtr, f.ndtri, f.log_ndtr, f.entr))
lgamma, digamma = map(_of_one, (f.lgamma, f.digamma))
i0, i0e, i1, i1e = map(_of_one, (f.i0, f.i0e, f.i1, f.i1e))
bessel_j0, bessel_j1 = map(_of_one, (f.bessel_j0, f.bessel_j1))
bessel_y0, bessel_y1 = map(_of_one, (f.bessel_y0, f.bessel_y1))
modified_bessel_k0, modified_bessel_k1 = map(_of_one, (f.modified_bessel_k0, f.modified_bessel_k1))
scaled_modified_bessel_k0, scaled_modified_bessel_k1 = map(
    _of_one, (f.scaled_modified_bessel_k0, f.scaled_modified_bessel_k1)
)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of ``digamma``.

    >>> import treadle
    >>> treadle.polygamma(1, treadle.tensor([1.0]))  # pi^2 / 6
    tensor([1.6449])
    """
    if not isinstance(n, int) or not 0 <= n <= _HIGHEST_DERIVATIVE:
        raise located(ValueError(
            f"polygamma: got n = {n!r}; it is an int from 0 to {_HIGHEST_DERIVATIVE}"
        ))  # fmt: skip
    node = _real("polygamma", input).node
    return wrap(f.digamma(node) if n == 0 else f.polygamma(node, n=n))


_HIGHEST_DERIVATIVE = 100  # beyond it n! and its neighbours leave float64's range


def mvlgamma(input: Tensor, p: int) -> Tensor:
    """log of the multivariate gamma function of dimension p: a sum of p values of lgamma."""
    if not isinstance(p, int) or p < 1:
        raise located(ValueError(f"mvlgamma: got p = {p!r}; it is an int of at least 1"))
    x = _real("mvlgamma", input)
    total = lgamma(x)
    for j in range(1, p):
        total = a.add(total, lgamma(a.sub(x, j / 2)))
    return a.add(total, p * (p - 1) / 4 * math.log(math.pi))


# --- signs, fractions and bits ------------------------------------------------------------------

copysign = _of_two(f.copysign)


def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The float next to ``input`` towards ``other``."""
    dtype = common_dtype("nextafter", input, other)
    if dtype not in f.nextafter.dtypes:
        raise located(DTypeError(
            f"nextafter: got tensors of dtype {dtype.name}; it takes float32 and float64; convert "
            f"them with .to(dtype) first"
        ))  # fmt: skip
    return wrap(record(f.nextafter, operand_nodes("nextafter", dtype, input, other), {}))


def frac(input: Tensor) -> Tensor:
    """``input`` less its integer part, with its sign."""
    return a.sub(input, a.trunc(input))


def signbit(input: Tensor) -> Tensor:
    """True where the sign is minus, for -0 too."""
    if isinstance(input, Handle) and not input.node.dtype.is_floating_point:
        return a.lt(input, 0)
    return a.lt(copysign(1.0, input), 0)


def sgn(input: Tensor) -> Tensor:
    """``sign``, under its name for numbers that may be complex."""
    return a.sign(input)


def positive(input: Tensor) -> Tensor:
    """``input`` itself; bools are refused."""
    if not isinstance(input, Handle):
        raise refuse("positive", input)
    if input.node.dtype.kind == "b":
        raise located(DTypeError("positive: got a bool tensor; convert it with .to(dtype) first"))
    return input


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """``values`` where ``input`` is 0, else 1 above 0 and 0 otherwise (for NaN too)."""
    dtype = common_dtype("heaviside", input, values)
    x, at_zero = operand_nodes("heaviside", dtype, input, values)
    zero = e.full_like(x, 0)
    step = e.where(e.gt(x, zero), e.full_like(x, 1), zero)
    return wrap(e.where(e.eq(x, zero), at_zero, step))


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger one; a number beside NaN wins."""
    return _beside_nan(a.maximum, input, other)


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller one; a number beside NaN wins."""
    return _beside_nan(a.minimum, input, other)


def _beside_nan(choose: Callable[[Operand, Operand], Tensor], x: Tensor, y: Tensor) -> Tensor:
    return a.where(a.isnan(x), y, a.where(a.isnan(y), x, choose(x, y)))


def isposinf(input: Tensor) -> Tensor:
    """True where plus infinity."""
    return a.eq(input, math.inf)


def isneginf(input: Tensor) -> Tensor:
    """True where minus infinity."""
    return a.eq(input, -math.inf)


class Methods(Handle):
    """The functions of this module as methods, and their in-place forms."""

    __slots__ = ()

    tan, asin, acos, atan, atan2, sinc = tan, asin, acos, atan, atan2, sinc
    sinh, cosh, asinh, acosh, atanh, hypot = sinh, cosh, asinh, acosh, atanh, hypot
    arcsin, arccos, arctan, arctan2 = asin, acos, atan, atan2
    arcsinh, arccosh, arctanh = asinh, acosh, atanh
    rad2deg, deg2rad, exp2, log2, log10, rsqrt = rad2deg, deg2rad, exp2, log2, log10, rsqrt
    logaddexp, logaddexp2, xlogy, logit = logaddexp, logaddexp2, xlogy, logit
    ldexp, float_power, erfc, erfinv = ldexp, float_power, erfc, erfinv
    lgamma, digamma, mvlgamma, i0 = lgamma, digamma, mvlgamma, i0
    copysign, nextafter, frac, signbit, sgn = copysign, nextafter, frac, signbit, sgn
    positive, heaviside, fix = positive, heaviside, a.trunc
    fmax, fmin, isposinf, isneginf = fmax, fmin, isposinf, isneginf

    def polygamma(self, n: int) -> Tensor:
        """The n-th derivative of ``digamma``."""
        return polygamma(n, self)  # type: ignore[arg-type]

    tan_, asin_, acos_, atan_, atan2_ = map(in_place, (tan, asin, acos, atan, atan2))
    sinh_, cosh_, asinh_, acosh_, atanh_ = map(in_place, (sinh, cosh, asinh, acosh, atanh))
    arcsin_, arccos_, arctan_, arctan2_ = asin_, acos_, atan_, atan2_
    arcsinh_, arccosh_, arctanh_ = asinh_, acosh_, atanh_
    rad2deg_, deg2rad_, sinc_, hypot_ = map(in_place, (rad2deg, deg2rad, sinc, hypot))
    exp2_, log2_, log10_, rsqrt_ = map(in_place, (exp2, log2, log10, rsqrt))
    xlogy_, logit_, ldexp_, float_power_ = map(in_place, (xlogy, logit, ldexp, float_power))
    erfc_, erfinv_, lgamma_, digamma_ = map(in_place, (erfc, erfinv, lgamma, digamma))
    i0_, copysign_, nextafter_, frac_ = map(in_place, (i0, copysign, nextafter, frac))
    sgn_, heaviside_, mvlgamma_ = map(in_place, (sgn, heaviside, mvlgamma))
    (fix_,) = map(in_place, (a.trunc,))

    def polygamma_(self, n: int) -> Tensor:
        """``polygamma`` in place."""
        return _polygamma_in_place(self, n)


def _polygamma_of(input: Tensor, n: int) -> Tensor:
    return polygamma(n, input)


_polygamma_of.__name__ = "polygamma"
_polygamma_in_place = in_place(_polygamma_of)

fix = a.trunc

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "asin", "asinh", "atan", "atan2", "atanh", "copysign", "cosh", "deg2rad", "digamma", "erfc",
    "erfinv", "exp2", "fix", "float_power", "fmax", "fmin", "frac", "heaviside", "hypot", "i0",
    "isneginf", "isposinf", "ldexp", "lgamma", "log10", "log2", "logaddexp", "logaddexp2", "logit",
    "mvlgamma", "nextafter", "polygamma", "positive", "rad2deg", "rsqrt", "sgn", "signbit", "sinc",
    "sinh", "tan", "xlogy",
]  # fmt: skip
