"""Functions that NumPy computes on the host: for those too rare to have a kernel of their own.

All compute in float64, by vectorised series and continued fractions, and round once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lgamma, pi
from typing import Any, TypeAlias

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import ANY_LEADING, Gradient, Library, NoGradient, Op, Sample
from treadle.ops import elementwise as e
from treadle.ops.functions import lgamma as lgamma_op
from treadle.ops.project import project
from treadle.ops.registry import (
    FLOATS,
    check_dtype,
    check_same,
    elements_cost,
    floats,
    refuses,
    register,
)

Array: TypeAlias = "np.ndarray[Any, Any]"


def _define(
    name: str, arity: int, function: Callable[..., Array], gradient: Gradient | NoGradient,
    domain: tuple[float, float], doc: str, residuals: tuple[int | str, ...] = (),
) -> Op:  # fmt: skip
    def call(*arrays: Array) -> Array:
        wide = [a.astype(np.float64) for a in arrays]
        return function(*wide).astype(arrays[0].dtype)

    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        check_dtype(name, types[0], FLOATS)
        check_same(name, types)
        return types[0]

    return register(
        Op(
            name=name, family="host", traits=frozenset({"host"}), infer=infer, gradient=gradient,
            residuals=residuals, lower=Library(call), reference=call,
            samples=lambda: (
                Sample(tuple(floats(*s, low=domain[0], high=domain[1], seed=i)
                             for i in range(arity)), smooth=False)
                for s in ((), (5,), (2, 0), (3, 4))
            ),
            errors=lambda: refuses(name, *[np.arange(3)] * arity), cost=elements_cost(500),
            dtypes=tuple(FLOATS), doc=doc, batch=ANY_LEADING,
        )
    )  # fmt: skip


# --- incomplete gamma functions -----------------------------------------------------------------

_STEPS = 20000  # enough for a and x up to some millions, since terms shrink from sqrt(a) steps on
_TINY = 1e-300


def _log_gamma(a: Array) -> Array:
    return np.vectorize(lambda v: lgamma(v) if v > 0 else np.inf, otypes=[np.float64])(a)


def _power(a: Array, x: Array) -> Array:
    """x^a e^-x / gamma(a)."""
    return np.exp(a * np.log(x) - x - _log_gamma(a))


def _lower_series(a: Array, x: Array) -> Array:
    """P(a, x) where x < a + 1: the sum of x^n / (a (a+1) ... (a+n))."""
    term = 1 / a
    total = term.copy()
    for n in range(1, _STEPS):
        term = term * x / (a + n)
        total += term
        if not (np.abs(term) > 1e-17 * np.abs(total)).any():
            break
    return total * _power(a, x)


def _upper_fraction(a: Array, x: Array) -> Array:
    """Q(a, x) where x >= a + 1, by Lentz's method."""
    b = x + 1 - a
    c, d = np.full_like(x, 1 / _TINY), 1 / b
    h = d.copy()
    for n in range(1, _STEPS):
        factor = -n * (n - a)
        b = b + 2
        d = factor * d + b
        d = 1 / np.where(np.abs(d) < _TINY, _TINY, d)
        c = b + factor / c
        c = np.where(np.abs(c) < _TINY, _TINY, c)
        step = c * d
        h *= step
        if not (np.abs(step - 1) > 1e-16).any():
            break
    return h * _power(a, x)


def _incomplete(a: Array, x: Array, upper: bool) -> Array:
    out = np.full(a.shape, np.nan)
    valid = (a >= 0) & (x >= 0) & ~((a == 0) & (x == 0))
    at_end = valid & ((x == 0) | (a == 0) | np.isinf(x) | np.isinf(a))
    is_one = (a == 0) | (np.isinf(x) & ~np.isinf(a))  # P is 1 there, else 0
    out[at_end] = (is_one ^ upper)[at_end]
    out[np.isinf(a) & np.isinf(x)] = np.nan
    inner = valid & ~at_end
    low = inner & (x < a + 1)
    high = inner & ~low
    if low.any():
        below = _lower_series(a[low], x[low])
        out[low] = 1 - below if upper else below
    if high.any():
        above = _upper_fraction(a[high], x[high])
        out[high] = above if upper else 1 - above
    return out


def _density(g: Node, n: Node, sign: float) -> Node:
    """x^(a-1) e^-x / gamma(a)."""
    a, x = n.inputs
    exponent = e.sub(e.mul(e.sub(a, e.full_like(a, 1)), e.log(x)), e.add(x, lgamma_op(a)))
    return e.mul(g, e.mul(e.exp(exponent), e.full_like(x, sign)))


_FIRST = NoGradient("PyTorch has none by the first operand either")
igamma: Op = _define(
    "igamma", 2, lambda a, x: _incomplete(a, x, False),
    (_FIRST, lambda g, n: _density(g, n, 1.0)), (0.5, 4.0),
    "the regularised lower incomplete gamma function P(a, x)", residuals=(0, 1),
)  # fmt: skip
igammac: Op = _define(
    "igammac", 2, lambda a, x: _incomplete(a, x, True),
    (_FIRST, lambda g, n: _density(g, n, -1.0)), (0.5, 4.0),
    "the regularised upper incomplete gamma function Q(a, x)", residuals=(0, 1),
)  # fmt: skip

# --- Hurwitz's zeta -----------------------------------------------------------------------------

# B(2k) / (2k)!
_BERNOULLI = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000,
    -174611 / 802857662698291200000,
)  # fmt: skip
_DIRECT = 12  # terms before Euler and Maclaurin's formula


def _zeta(x: Array, q: Array) -> Array:
    """sum_k (q + k)^-x, by Euler and Maclaurin."""
    total = np.zeros_like(x)
    for k in range(_DIRECT):
        total += (q + k) ** -x
    end = q + _DIRECT
    total += end ** (1 - x) / (x - 1) + 0.5 * end**-x
    factor, power = x.copy(), end ** (-x - 1)
    for k, share in enumerate(_BERNOULLI):
        total += share * factor * power
        factor = factor * (x + 2 * k + 1) * (x + 2 * k + 2)
        power = power / (end * end)
    at_pole = (q <= 0) & (q == np.floor(q))
    total = np.where((q <= 0) & ~at_pole & (x != np.floor(x)), np.nan, total)
    total = np.where(at_pole, np.inf, total)
    return np.where(x == 1, np.inf, np.where(x < 1, np.nan, total))


def _zeta_slope(g: Node, n: Node) -> Node:
    x, q = n.inputs
    more = zeta(e.add(x, e.full_like(x, 1)), q)
    return e.mul(g, e.neg(e.mul(x, more)))


zeta: Op = _define(
    "zeta", 2, _zeta, (_FIRST, _zeta_slope), (1.5, 5.0),
    "Hurwitz's zeta function: the sum of (q + k)^-x for k = 0, 1, ...", residuals=(0, 1),
)  # fmt: skip

# --- others -------------------------------------------------------------------------------------


def _airy_series(x: Array) -> Array:
    """Ai near 0 by its power series."""
    cube, f, h = x**3, np.ones_like(x), x.copy()
    first, second = f.copy(), h.copy()
    for k in range(1, 60):
        f = f * cube / ((3 * k - 1) * (3 * k))
        h = h * cube / ((3 * k) * (3 * k + 1))
        first += f
        second += h
    return 0.355028053887817239 * first - 0.258819403792806798 * second


def _airy_sums(t: Array) -> tuple[Array, Array]:
    """The even and odd terms of the asymptotic series in 1/t, with alternating signs."""
    term, even, odd = np.ones_like(t), np.ones_like(t), np.zeros_like(t)
    for k in range(1, 12):
        term = term * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1) * t)
        if k % 2:
            odd += (-1) ** (k // 2) * term
        else:
            even += (-1) ** (k // 2) * term
    return even, odd


def _airy(x: Array) -> Array:
    out = np.empty_like(x)
    near = np.abs(x) < 5.5
    out[near] = _airy_series(x[near])
    right, left = ~near & (x > 0), ~near & ~(x > 0)
    t = 2 / 3 * x[right] ** 1.5
    term, total = np.ones_like(t), np.ones_like(t)
    for k in range(1, 12):
        term = -term * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1) * t)
        total += term
    out[right] = np.exp(-t) * total / (2 * np.sqrt(pi) * x[right] ** 0.25)
    size = -x[left]
    t = 2 / 3 * size**1.5
    even, odd = _airy_sums(t)
    turn = t - pi / 4
    out[left] = (np.cos(turn) * even + np.sin(turn) * odd) / (np.sqrt(pi) * size**0.25)
    return out


airy_ai: Op = _define(
    "airy_ai", 1, _airy, NoGradient("PyTorch has none either"), (-3.0, 3.0), "Airy's function Ai"
)


def _spherical(x: Array) -> Array:
    small = np.abs(x) < 0.5
    square = x * x
    near = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    safe = np.where(x == 0, 1, x)
    far = np.where(np.isinf(x), 0, np.sin(safe) / safe)
    return np.where(small, near, far)


spherical_bessel_j0: Op = _define(
    "spherical_bessel_j0", 1, _spherical, NoGradient("PyTorch has none either"), (-3.0, 3.0),
    "sin(x) / x",
)  # fmt: skip


def _frexp_call(x: Array) -> tuple[Array, Array]:
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return mantissa.astype(x.dtype), exponent.astype(np.int32)


def _frexp_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    check_dtype("frexp", types[0], FLOATS)
    return types[0], type_of(dtypes.int32, types[0].shape, types[0].device)


def _frexp_gradient(g: Any, n: Node) -> Node | None:
    from treadle.ops.functions import exp2

    if g[0] is None:
        return None
    exponent = e.convert(project(n, index=1), dtype=g[0].dtype)
    return e.mul(g[0], exp2(e.neg(exponent)))


frexp: Op = register(
    Op(
        name="frexp", family="host", traits=frozenset({"host"}), infer=_frexp_infer,
        gradient=(_frexp_gradient,), residuals=("out",), lower=Library(_frexp_call),
        reference=_frexp_call,
        samples=lambda: (Sample((floats(*s),), smooth=False) for s in ((), (5,), (2, 3))),
        errors=lambda: refuses("frexp", np.arange(3)), cost=elements_cost(10),
        dtypes=tuple(FLOATS), batch=ANY_LEADING,
        doc="the number as a mantissa of at least 1/2 and below 1, and an exponent of 2",
    )
)  # fmt: skip

__all__ = ["airy_ai", "frexp", "igamma", "igammac", "spherical_bessel_j0", "zeta"]
