"""The elementwise functions beyond the core ones of ``ops/elementwise.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, Type
from treadle.ir.op import Elementwise, Gradient, NoGradient, Op, Sample
from treadle.ops import references as r
from treadle.ops.elementwise import (
    FLOAT,
    add,
    bitwise_and,
    cos,
    define,
    div,
    eq,
    exp,
    full_like,
    le,
    log,
    log1p,
    mathlib_function,
    mul,
    neg,
    refused,
    sigmoid,
    sign,
    sqrt,
    sub,
    where,
)
from treadle.ops.registry import FLOATS, check_dtype, elements_cost, floats, register

if TYPE_CHECKING:
    from treadle.ir.loop import Builder, Operand

Rule = Callable[[Node, Node], Node]


def _number(node: Node, value: float) -> Node:
    return full_like(node, value)


def _times(node: Node, factor: float) -> Node:
    return mul(node, _number(node, factor))


def _square(node: Node) -> Node:
    return mul(node, node)


def _one_minus_square(x: Node) -> Node:
    one = _number(x, 1)
    return mul(sub(one, x), add(one, x))


def _function(
    name: str, reference: Callable[..., Any] | str, slope: Callable[[Node, Node], Node], doc: str,
    *, domain: tuple[float, float] = (-2.0, 2.0), flops: int = 30, out: bool = False,
) -> Op:  # fmt: skip
    """One function of one number; ``slope(x, n)`` is its derivative, which reads n if ``out``."""
    return define(
        name, 1, mathlib_function(name), reference,
        (lambda g, n: mul(g, slope(n.inputs[0], n)),), doc,
        residuals=(0, "out") if out else (0,), domain=domain, flops=flops, **FLOAT,
    )  # fmt: skip


# --- powers and logarithms ---------------------------------------------------------------------

rsqrt: Op = define(
    "rsqrt", 1, mathlib_function("rsqrt"), lambda x: 1 / np.sqrt(x),
    (lambda g, n: mul(_times(g, -0.5), mul(n, _square(n))),), "1 / sqrt(x)",
    residuals=("out",), domain=(0.5, 4.0), flops=2, **FLOAT,
)  # fmt: skip
exp2: Op = define(
    "exp2", 1, mathlib_function("exp2"), "exp2",
    (lambda g, n: mul(g, _times(n, math.log(2))),), "2^x", residuals=("out",), flops=15, **FLOAT,
)  # fmt: skip
log2: Op = _function(
    "log2", "log2", lambda x, n: div(_number(x, 1 / math.log(2)), x), "the logarithm to the base 2",
    domain=(0.2, 4.0),
)  # fmt: skip
log10: Op = _function(
    "log10", "log10", lambda x, n: div(_number(x, 1 / math.log(10)), x),
    "the logarithm to the base 10", domain=(0.2, 4.0),
)  # fmt: skip
logit: Op = _function(
    "logit", lambda x: np.log(x) - np.log1p(-x),
    lambda x, n: div(_number(x, 1), mul(x, sub(_number(x, 1), x))), "log(x / (1 - x))",
    domain=(0.1, 0.9),
)  # fmt: skip
entr: Op = _function(
    "entr", lambda x: -x * np.log(x), lambda x, n: sub(_number(x, -1), log(x)),
    "-x log(x); 0 at 0, -inf below", domain=(0.2, 4.0),
)  # fmt: skip


def _pair(
    name: str, reference: Callable[..., Any] | str, gradient: Gradient, doc: str,
    residuals: tuple[int | str, ...], domain: tuple[float, float] = (-2.0, 2.0), flops: int = 40,
) -> Op:  # fmt: skip
    return define(
        name, 2, mathlib_function(name), reference, gradient, doc, residuals=residuals,
        domain=domain, flops=flops, **FLOAT,
    )  # fmt: skip


def _log_factor(logarithm: Op, lowest: float) -> Rule:
    """The logarithm itself, and 0 where the product was 0 because x is 0."""

    def rule(g: Node, n: Node) -> Node:
        x, y = n.inputs
        zero = _number(g, 0)
        absent = bitwise_and(eq(x, _number(x, 0)), le(y, _number(y, lowest)))
        return where(absent, zero, mul(g, logarithm(y)))

    return rule


xlogy: Op = _pair(
    "xlogy", lambda x, y: x * np.log(y),
    (_log_factor(log, 0.0), lambda g, n: mul(g, div(n.inputs[0], n.inputs[1]))),
    "x log(y); 0 where x is 0", (0, 1), (0.2, 4.0),
)  # fmt: skip
xlog1py: Op = _pair(
    "xlog1py", lambda x, y: x * np.log1p(y),
    (
        _log_factor(log1p, -1.0),
        lambda g, n: mul(g, div(n.inputs[0], add(n.inputs[1], _number(g, 1)))),
    ),
    "x log(1 + y); 0 where x is 0", (0, 1), (0.2, 4.0),
)  # fmt: skip
logaddexp: Op = _pair(
    "logaddexp", "logaddexp",
    (
        lambda g, n: mul(g, sigmoid(sub(n.inputs[0], n.inputs[1]))),
        lambda g, n: mul(g, sigmoid(sub(n.inputs[1], n.inputs[0]))),
    ),
    "log(e^x + e^y)", (0, 1),
)  # fmt: skip
logaddexp2: Op = _pair(
    "logaddexp2", "logaddexp2",
    (
        lambda g, n: mul(g, sigmoid(_times(sub(n.inputs[0], n.inputs[1]), math.log(2)))),
        lambda g, n: mul(g, sigmoid(_times(sub(n.inputs[1], n.inputs[0]), math.log(2)))),
    ),
    "log2(2^x + 2^y)", (0, 1),
)  # fmt: skip

# --- trigonometric and hyperbolic ---------------------------------------------------------------

tan: Op = _function(
    "tan", "tan", lambda x, n: add(_square(n), _number(n, 1)), "the tangent", domain=(-1.2, 1.2),
    out=True,
)  # fmt: skip
asin: Op = _function(
    "asin", "arcsin", lambda x, n: div(_number(x, 1), sqrt(_one_minus_square(x))),
    "the arc sine, NaN outside [-1, 1]", domain=(-0.9, 0.9),
)  # fmt: skip
acos: Op = _function(
    "acos", "arccos", lambda x, n: div(_number(x, -1), sqrt(_one_minus_square(x))),
    "the arc cosine, NaN outside [-1, 1]", domain=(-0.9, 0.9),
)  # fmt: skip
atan: Op = _function(
    "atan", "arctan", lambda x, n: div(_number(x, 1), add(_square(x), _number(x, 1))),
    "the arc tangent",
)  # fmt: skip


def _over_square(g: Node, n: Node, position: int) -> Node:
    y, x = n.inputs
    return mul(g, div(n.inputs[position], add(_square(x), _square(y))))


atan2: Op = _pair(
    "atan2", "arctan2",
    (lambda g, n: _over_square(g, n, 1), lambda g, n: neg(_over_square(g, n, 0))),
    "the angle of the point (x, y), first operand y", (0, 1), (0.2, 2.0),
)  # fmt: skip
sinc: Op = _function(
    "sinc", "sinc",
    lambda x, n: where(
        eq(x, _number(x, 0)), _number(x, 0), div(sub(cos(_times(x, math.pi)), n), x)
    ),
    "sin(pi x) / (pi x), 1 at 0", domain=(0.2, 2.0), out=True,
)  # fmt: skip
sinh: Op = _function("sinh", "sinh", lambda x, n: cosh(x), "the hyperbolic sine")
cosh: Op = _function("cosh", "cosh", lambda x, n: sinh(x), "the hyperbolic cosine")
asinh: Op = _function(
    "asinh", "arcsinh", lambda x, n: rsqrt(add(_square(x), _number(x, 1))),
    "the inverse hyperbolic sine",
)  # fmt: skip
acosh: Op = _function(
    "acosh", "arccosh", lambda x, n: rsqrt(neg(_one_minus_square(x))),
    "the inverse hyperbolic cosine, NaN below 1", domain=(1.2, 3.0),
)  # fmt: skip
atanh: Op = _function(
    "atanh", "arctanh", lambda x, n: div(_number(x, 1), _one_minus_square(x)),
    "the inverse hyperbolic tangent, NaN outside [-1, 1]", domain=(-0.9, 0.9),
)  # fmt: skip
hypot: Op = _pair(
    "hypot", "hypot",
    (lambda g, n: mul(g, div(n.inputs[0], n)), lambda g, n: mul(g, div(n.inputs[1], n))),
    "sqrt(x^2 + y^2), without overflow", (0, 1, "out"), (0.2, 2.0),
)  # fmt: skip

# --- the error function and the normal distribution ---------------------------------------------


def _bell(x: Node, scale: float, factor: float) -> Node:
    """factor exp(scale x^2)."""
    return _times(exp(_times(_square(x), scale)), factor)


_ROOT_2_PI = math.sqrt(2 * math.pi)
erfc: Op = _function(
    "erfc", r.by_element(math.erfc), lambda x, n: _bell(x, -1.0, -2 / math.sqrt(math.pi)),
    "1 - erf(x), accurate where that is small", flops=50,
)  # fmt: skip
erfcx: Op = _function(
    "erfcx", r.by_element(r.erfcx),
    lambda x, n: sub(mul(add(x, x), n), _number(x, 2 / math.sqrt(math.pi))),
    "e^(x^2) erfc(x)", flops=50, out=True,
)  # fmt: skip
erfinv: Op = _function(
    "erfinv", r.by_element(r.erfinv), lambda x, n: _bell(n, 1.0, math.sqrt(math.pi) / 2),
    "the inverse of erf", flops=50, domain=(-0.9, 0.9), out=True,
)  # fmt: skip
ndtr: Op = _function(
    "ndtr", r.by_element(r.ndtr), lambda x, n: _bell(x, -0.5, 1 / _ROOT_2_PI),
    "the distribution function of the normal distribution", flops=50,
)  # fmt: skip
ndtri: Op = _function(
    "ndtri", r.by_element(r.ndtri), lambda x, n: _bell(n, 0.5, _ROOT_2_PI),
    "the inverse of ndtr", flops=100, domain=(0.1, 0.9), out=True,
)  # fmt: skip
log_ndtr: Op = _function(
    "log_ndtr", r.by_element(lambda x: math.log(r.ndtr(x))),
    lambda x, n: div(_number(x, math.sqrt(2 / math.pi)), erfcx(_times(x, -math.sqrt(0.5)))),
    "log(ndtr(x)), accurate in both tails", flops=100,
)  # fmt: skip

# --- gamma --------------------------------------------------------------------------------------


def _polygamma_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_dtype("polygamma", types[0], FLOATS)
    return types[0]


def _polygamma(k: Builder, x: Operand, n: int) -> Operand:
    from treadle.ops import mathlib

    return mathlib.polygamma(k, x, n)


polygamma: Op = register(
    Op(
        name="polygamma", family="elementwise", traits=frozenset({"elementwise"}),
        infer=_polygamma_infer,
        gradient=(lambda g, n: mul(g, polygamma(n.inputs[0], n=n.attrs["n"] + 1)),),
        residuals=(0,), lower=Elementwise(_polygamma, "f32"),
        reference=lambda x, n: r.by_element(lambda v: r.polygamma(n, v))(x),
        samples=lambda: (
            Sample((floats(3, 5, low=0.5, high=4.0, seed=n),), {"n": n}) for n in (0, 1, 2, 3)
        ),
        errors=refused("polygamma", 1, FLOATS), cost=elements_cost(150), dtypes=tuple(FLOATS),
        doc="the n-th derivative of digamma",
    )
)  # fmt: skip
digamma: Op = _function(
    "digamma", r.by_element(lambda x: r.polygamma(0, x)), lambda x, n: polygamma(x, n=1),
    "the derivative of lgamma", domain=(0.5, 6.0), flops=100,
)  # fmt: skip
lgamma: Op = _function(
    "lgamma", r.by_element(math.lgamma), lambda x, n: digamma(x), "log |gamma(x)|",
    domain=(0.5, 6.0), flops=100,
)  # fmt: skip

# --- Bessel -------------------------------------------------------------------------------------


def _first_quotient(x: Node, n: Node) -> Node:
    """n/x for what is x/2 near 0."""
    origin = eq(x, _number(x, 0))
    return where(origin, _number(x, 0.5), div(n, where(origin, _number(x, 1), x)))


def _bessel(
    name: str, reference: Callable[..., float], order: int, slope: Callable[[Node, Node], Node],
    doc: str, *, positive: bool = False, scaled: float = 0.0,
) -> Op:  # fmt: skip
    def element(x: float) -> float:
        return reference(order, x, abs(x)) if scaled else reference(order, x)

    return _function(
        name, r.by_element(element), slope, doc, domain=(0.5, 6.0) if positive else (-3.0, 3.0),
        flops=100, out=order == 1 or scaled != 0.0,
    )  # fmt: skip


bessel_j0: Op = _bessel(
    "bessel_j0", r.bessel_j, 0, lambda x, n: neg(bessel_j1(x)),
    "Bessel's function of the first kind, order 0",
)  # fmt: skip
bessel_j1: Op = _bessel(
    "bessel_j1", r.bessel_j, 1, lambda x, n: sub(bessel_j0(x), _first_quotient(x, n)),
    "Bessel's function of the first kind, order 1",
)  # fmt: skip
bessel_y0: Op = _bessel(
    "bessel_y0", r.bessel_y, 0, lambda x, n: neg(bessel_y1(x)),
    "Bessel's function of the second kind, order 0", positive=True,
)  # fmt: skip
bessel_y1: Op = _bessel(
    "bessel_y1", r.bessel_y, 1, lambda x, n: sub(bessel_y0(x), div(n, x)),
    "Bessel's function of the second kind, order 1", positive=True,
)  # fmt: skip
i0: Op = _bessel("i0", r.bessel_i, 0, lambda x, n: i1(x), "the modified Bessel function of order 0")
i1: Op = _bessel(
    "i1", r.bessel_i, 1, lambda x, n: sub(i0(x), _first_quotient(x, n)),
    "the modified Bessel function of order 1",
)  # fmt: skip
i0e: Op = _bessel(
    "i0e", r.bessel_i, 0, lambda x, n: sub(i1e(x), mul(sign(x), n)), "e^-|x| i0(x)", scaled=1.0
)
i1e: Op = _bessel(
    "i1e", r.bessel_i, 1,
    lambda x, n: sub(sub(i0e(x), mul(sign(x), n)), _first_quotient(x, n)),
    "e^-|x| i1(x)", scaled=1.0,
)  # fmt: skip
modified_bessel_k0: Op = _bessel(
    "modified_bessel_k0", r.bessel_k, 0, lambda x, n: neg(modified_bessel_k1(x)),
    "the modified Bessel function of the second kind, order 0", positive=True,
)  # fmt: skip
modified_bessel_k1: Op = _bessel(
    "modified_bessel_k1", r.bessel_k, 1, lambda x, n: neg(add(modified_bessel_k0(x), div(n, x))),
    "the modified Bessel function of the second kind, order 1", positive=True,
)  # fmt: skip
scaled_modified_bessel_k0: Op = _bessel(
    "scaled_modified_bessel_k0", r.bessel_k, 0,
    lambda x, n: sub(n, scaled_modified_bessel_k1(x)), "e^x modified_bessel_k0(x)",
    positive=True, scaled=1.0,
)  # fmt: skip
scaled_modified_bessel_k1: Op = _bessel(
    "scaled_modified_bessel_k1", r.bessel_k, 1,
    lambda x, n: sub(sub(n, scaled_modified_bessel_k0(x)), div(n, x)),
    "e^x modified_bessel_k1(x)", positive=True, scaled=1.0,
)  # fmt: skip

# --- bits of floats -----------------------------------------------------------------------------


def _copysign_gradient(g: Node, n: Node) -> Node:
    return mul(g, mul(sign(n.inputs[0]), sign(copysign(_number(g, 1), n.inputs[1]))))


copysign: Op = define(
    "copysign", 2, mathlib_function("copysign"), "copysign",
    (_copysign_gradient, lambda g, n: _number(g, 0)), "|x| with the sign of y", residuals=(0, 1),
    **FLOAT,
)  # fmt: skip
nextafter: Op = define(
    "nextafter", 2, mathlib_function("nextafter"), "nextafter",
    NoGradient("it moves by steps; PyTorch has none either"), "the float next to x towards y",
    allowed=(dtypes.float32, dtypes.float64),
)  # fmt: skip
