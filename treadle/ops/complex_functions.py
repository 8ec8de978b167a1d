"""Functions of complex numbers z = x + iy, by real functions of x and y.

Formulas are those of W. Kahan, "Branch cuts for complex elementary functions" (1987), where the
obvious one would lose digits or take the wrong side of a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from treadle.ir.node import Node
from treadle.ops import elementwise as e
from treadle.ops import functions as g
from treadle.ops.complex import complex_number, join, part, parts
from treadle.ops.elementwise import full_like
from treadle.ops.movement import expand


def _like(z: Node, value: complex) -> Node:
    return expand(complex_number(value, z.dtype), shape=z.shape)


def _scaled(z: Node, factor: float) -> Node:
    """Both parts times a real number."""
    x, y = parts(z)
    by = full_like(x, factor)
    return join(e.mul(x, by), e.mul(y, by))


def _square(x: Node) -> Node:
    return e.mul(x, x)


def times_i(z: Node) -> Node:
    """iz."""
    x, y = parts(z)
    return join(e.neg(y), x)


def over_i(z: Node) -> Node:
    """z/i."""
    x, y = parts(z)
    return join(y, e.neg(x))


def conj(z: Node) -> Node:
    """x - iy."""
    x, y = parts(z)
    return join(x, e.neg(y))


def _is_zero(z: Node) -> Node:
    x, y = parts(z)
    zero = full_like(x, 0)
    return e.bitwise_and(e.eq(x, zero), e.eq(y, zero))


def absolute(z: Node) -> Node:
    """|z|; the gradient at 0 is 0."""
    x, y = parts(z)
    origin = _is_zero(z)
    return e.where(origin, full_like(x, 0), g.hypot(e.where(origin, full_like(x, 1), x), y))


def angle(z: Node) -> Node:
    """The angle of z, in (-pi, pi]; the gradient at 0 is 0."""
    x, y = parts(z)
    origin = _is_zero(z)
    # The angle of a zero depends on the signs of its parts: atan2 is asked, without a gradient.
    turned = g.atan2(y, e.where(origin, full_like(x, 1), x))
    from treadle.ops.movement import detach

    return e.where(origin, g.atan2(detach(y), detach(x)), turned)


def sign(z: Node) -> Node:
    """z / |z|, and 0 at 0."""
    x, y = parts(z)
    size = absolute(z)
    by = e.where(e.eq(size, full_like(size, 0)), full_like(size, 1), size)
    return join(e.div(x, by), e.div(y, by))


def divide(z: Node, w: Node) -> Node:
    """z / w, by R. L. Smith's method: neither overflow nor underflow on the way."""
    (a, b), (c, d) = parts(z), parts(w)
    wide = e.ge(e.abs_(c), e.abs_(d))
    large, small = e.where(wide, c, d), e.where(wide, d, c)
    ratio = e.div(small, e.where(_is_zero(w), full_like(large, 1), large))
    scale = e.div(full_like(large, 1), e.add(large, e.mul(small, ratio)))
    first, second = e.where(wide, a, b), e.where(wide, b, a)
    real = e.mul(e.add(first, e.mul(second, ratio)), scale)
    turned = e.sub(second, e.mul(first, ratio))
    return join(real, e.mul(e.where(wide, turned, e.neg(turned)), scale))


# --- powers -------------------------------------------------------------------------------------


def sqrt(z: Node) -> Node:
    """The root with a real part that is not negative."""
    x, y = parts(z)
    half = full_like(x, 0.5)
    root = e.sqrt(e.mul(e.add(e.abs_(x), absolute(z)), half))
    is_zero = e.eq(root, full_like(x, 0))
    other = e.div(e.mul(y, half), e.where(is_zero, full_like(x, 1), root))
    right = e.ge(x, full_like(x, 0))
    return join(
        e.where(right, root, e.abs_(other)),
        e.where(right, other, g.copysign(root, y)),
    )


def rsqrt(z: Node) -> Node:
    """1 / sqrt(z)."""
    return divide(_like(z, 1), sqrt(z))


def power(z: Node, w: Node) -> Node:
    """e^(w log z); 0^w is 0, but 0^0 is 1."""
    origin = _is_zero(z)
    general = exp(e.mul(w, log(e.where(origin, _like(z, 1), z))))
    at_zero = e.where(_is_zero(w), _like(z, 1), _like(z, 0))
    return e.where(origin, at_zero, general)


# --- exponentials and logarithms ----------------------------------------------------------------


def exp(z: Node) -> Node:
    """e^x (cos y + i sin y)."""
    x, y = parts(z)
    size = e.exp(x)
    return join(e.mul(size, e.cos(y)), e.mul(size, e.sin(y)))


def exp2(z: Node) -> Node:
    """2^z."""
    return exp(_scaled(z, math.log(2)))


def expm1(z: Node) -> Node:
    """e^z - 1, accurate near 0."""
    x, y = parts(z)
    grown, half = e.expm1(x), e.sin(e.mul(y, full_like(y, 0.5)))
    bent = e.mul(full_like(y, 2), _square(half))  # 1 - cos y
    size = e.exp(x)
    return join(e.sub(grown, e.mul(size, bent)), e.mul(size, e.sin(y)))


def log(z: Node) -> Node:
    """log |z| + i angle(z)."""
    x, y = parts(z)
    return join(e.log(g.hypot(x, y)), g.atan2(y, x))


def _log_to(base: float) -> Callable[[Node], Node]:
    return lambda z: _scaled(log(z), 1 / math.log(base))


def log1p(z: Node) -> Node:
    """log(1 + z), accurate near 0."""
    x, y = parts(z)
    one = full_like(x, 1)
    near = e.mul(e.log1p(e.add(e.mul(x, e.add(x, full_like(x, 2))), _square(y))), full_like(x, 0.5))
    size = g.hypot(e.add(x, one), y)
    is_near = e.lt(size, full_like(x, 2))
    safe = e.where(is_near, full_like(x, 2), size)
    return join(e.where(is_near, near, e.log(safe)), g.atan2(y, e.add(x, one)))


def logaddexp(z: Node, w: Node) -> Node:
    """log(e^z + e^w), from the one with the larger real part."""
    larger = e.ge(part(z, 0), part(w, 0))
    top, low = e.where(larger, z, w), e.where(larger, w, z)
    return e.add(top, log1p(exp(e.sub(low, top))))


def sigmoid(z: Node) -> Node:
    """1 / (1 + e^-z)."""
    return divide(_like(z, 1), e.add(exp(e.neg(z)), _like(z, 1)))


# --- trigonometric and hyperbolic ---------------------------------------------------------------


def sinh(z: Node) -> Node:
    """sinh x cos y + i cosh x sin y."""
    x, y = parts(z)
    return join(e.mul(g.sinh(x), e.cos(y)), e.mul(g.cosh(x), e.sin(y)))


def cosh(z: Node) -> Node:
    """cosh x cos y + i sinh x sin y."""
    x, y = parts(z)
    return join(e.mul(g.cosh(x), e.cos(y)), e.mul(g.sinh(x), e.sin(y)))


def tanh(z: Node) -> Node:
    """(tanh x (1 + tan^2 y) + i tan y (1 - tanh^2 x)) / (1 + tanh^2 x tan^2 y)."""
    x, y = parts(z)
    a, b = e.tanh(x), g.tan(y)
    one = full_like(x, 1)
    below = e.add(one, e.mul(_square(a), _square(b)))
    real = e.mul(a, e.add(one, _square(b)))
    cosh_x = g.cosh(e.where(e.lt(e.abs_(x), full_like(x, 80)), x, full_like(x, 80)))
    return join(e.div(real, below), e.div(e.div(b, _square(cosh_x)), below))


def asinh(z: Node) -> Node:
    """The inverse of sinh."""
    return over_i(asin(times_i(z)))


def atanh(z: Node) -> Node:
    """The inverse of tanh."""
    x, y = parts(z)
    one = full_like(x, 1)
    far = e.add(_square(e.sub(one, x)), _square(y))
    size = e.mul(e.log1p(e.div(e.mul(x, full_like(x, 4)), far)), full_like(x, 0.25))
    turn = g.atan2(e.add(y, y), e.sub(e.mul(e.sub(one, x), e.add(one, x)), _square(y)))
    return join(size, e.mul(turn, full_like(x, 0.5)))


def _roots(z: Node) -> tuple[Node, Node]:
    """sqrt(1 - z) and sqrt(1 + z); 1 - x and -y apart, which keeps the sign of a zero y."""
    x, y = parts(z)
    one = full_like(x, 1)
    return sqrt(join(e.sub(one, x), e.neg(y))), sqrt(join(e.add(one, x), y))


def asin(z: Node) -> Node:
    """The inverse of sin."""
    below, above = _roots(z)
    turn = g.atan2(part(z, 0), part(e.mul(below, above), 0))
    return join(turn, g.asinh(part(e.mul(conj(below), above), 1)))


def acos(z: Node) -> Node:
    """The inverse of cos."""
    below, above = _roots(z)
    turn = g.atan2(part(below, 0), part(above, 0))
    return join(e.add(turn, turn), g.asinh(part(e.mul(conj(above), below), 1)))


def acosh(z: Node) -> Node:
    """The inverse of cosh."""
    x, y = parts(z)
    one = full_like(x, 1)
    below, above = sqrt(join(e.sub(x, one), y)), sqrt(join(e.add(x, one), y))
    turn = g.atan2(part(below, 1), part(above, 0))
    return join(g.asinh(part(e.mul(conj(below), above), 0)), e.add(turn, turn))


def sinc(z: Node) -> Node:
    """sin(pi z) / (pi z), 1 at 0."""
    origin = _is_zero(z)
    turned = _scaled(e.where(origin, _like(z, 1), z), math.pi)
    return e.where(origin, _like(z, 1), divide(sin(turned), turned))


def sin(z: Node) -> Node:
    """sinh(iz) / i."""
    return over_i(sinh(times_i(z)))


FUNCTIONS: dict[str, Callable[..., Node]] = {
    "abs": absolute, "sign": sign, "div": divide, "sqrt": sqrt, "rsqrt": rsqrt, "pow": power,
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log2": _log_to(2), "log10": _log_to(10),
    "log1p": log1p, "logaddexp": logaddexp, "sigmoid": sigmoid, "sinh": sinh, "cosh": cosh,
    "tanh": tanh, "sin": sin, "cos": lambda z: cosh(times_i(z)),
    "tan": lambda z: over_i(tanh(times_i(z))), "asinh": asinh, "atanh": atanh, "asin": asin,
    "acos": acos, "acosh": acosh, "atan": lambda z: over_i(atanh(times_i(z))), "sinc": sinc,
}  # fmt: skip

__all__ = ["FUNCTIONS", "absolute", "angle", "conj"]
