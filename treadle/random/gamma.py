"""Gamma, Poisson and binomial numbers.

Gamma numbers are recorded like all others: the first of several candidates that is accepted. The
other two are NumPy's, from a Philox generator at the next counters of ours.
"""

from __future__ import annotations

import functools
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import broadcast_shapes
from treadle.ir.node import located
from treadle.ops.random import counters
from treadle.random.generator import Generator, default_generator
from treadle.random.sampling import rand, randn
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import from_numpy
from treadle.tensor.function import Function
from treadle.tensor.functions import digamma
from treadle.tensor.reduction import argmax
from treadle.tensor.selection import gather, where
from treadle.tensor.storage import array_of
from treadle.tensor.tensor import Tensor

_CANDIDATES = 12  # each is accepted with a probability of at least 0.95
_NODES = 48  # of the quadrature


def standard_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma numbers of rate 1, elementwise: differentiable functions of the concentration.

    Marsaglia and Tsang, 2000. The gradient is that of the inverse distribution function,
    ``-(dF/da) / p`` (Figurnov et al., 2018), by quadrature in float64.

    >>> import treadle
    >>> bool((standard_gamma(treadle.full((3,), 2.0)) > 0).all())
    True
    """
    if not concentration.is_floating_point():
        raise located(DTypeError(
            f"standard_gamma: got a concentration of dtype {concentration.dtype.name}; it must be "
            f"floating-point"
        ))  # fmt: skip
    return _StandardGamma.apply(concentration, generator)


class _StandardGamma(Function):
    """The numbers, and their gradient."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, generator: Generator | None) -> Tensor:
        """Draws."""
        wide = alpha if alpha.dtype.bits == 64 else alpha.float()
        out = _drawn(wide, generator).to(alpha.dtype)
        ctx.save_for_backward(alpha, out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """By the inverse distribution function."""
        alpha, x = ctx.saved_tensors
        return g * gamma_slope(alpha, x).to(g.dtype), None


def _drawn(alpha: Tensor, generator: Generator | None) -> Tensor:
    shape = (_CANDIDATES, *alpha.shape)
    options: dict[str, Any] = {"generator": generator, "dtype": alpha.dtype}
    normal, uniform = randn(shape, **options), rand(shape, **options)
    small = alpha < 1
    d = where(small, alpha + 1, alpha) - 1 / 3
    v = (1 + normal / a.sqrt(9 * d)) ** 3
    positive = v > 0
    safe = where(positive, v, 1.0)
    bound = 0.5 * normal * normal + d - d * v + d * a.log(safe)
    accepted = positive & (a.log1p(-uniform) < bound)
    first = argmax(accepted.to(dtypes.int32), 0, keepdim=True)
    out = d * gather(safe, 0, first)[0]
    # Of a + 1 to a: times u^(1/a).
    power = a.exp(a.log1p(-rand(tuple(alpha.shape), **options)) / alpha)
    smallest = 2.0**-1022 if alpha.dtype.bits == 64 else 2.0**-126
    return a.clamp(where(small, out * power, out), min=smallest)


@functools.cache
def _quadrature() -> tuple[Any, Any]:
    """Gauss and Legendre's nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) / 2, weights / 2


def gamma_slope(alpha: Tensor, x: Tensor) -> Tensor:
    """``-(dF/d alpha) / p`` of gamma numbers ``x`` of rate 1, in float64.

    With t = x exp(s v), where s = 1 above the concentration and -1 below it, it is the integral of
    ``x (s (log x - digamma(alpha)) + v) exp(s alpha v - x (exp(s v) - 1))`` over v > 0. Beyond the
    upper limit L the exponential is less than exp(-30); v = L u^2 puts more nodes near 0.
    """
    c, z = alpha.double().unsqueeze(-1), x.double().unsqueeze(-1)
    nodes, weights = (from_numpy(values) for values in _quadrature())
    above = z > c
    side = where(above, 1.0, -1.0).double()
    gap = a.abs(z - c)
    b = 30 - 2 * gap
    root = a.sqrt(b * b + 240 * c)
    below = where(b > 0, (b + root) / (2 * c), 120 / (root - where(b > 0, 0.0, b)))
    beyond = 60 / (gap + a.sqrt(gap * gap + 60 * z))
    beyond = where(z < 1, a.minimum(beyond, a.log1p(60 / z)), beyond)
    reach = where(above, beyond, below)
    v = reach * nodes * nodes
    power = side * c * v - z * a.expm1(side * v)
    height = side * (a.log(z) - digamma(c)) + v
    area = (height * a.exp(power) * (weights * nodes)).sum(-1, keepdim=True)
    return (2 * z * reach * area).squeeze(-1)


def _numpy_generator(size: int, generator: Generator | None) -> Any:
    """NumPy's generator at the next counters of ours."""
    source = default_generator if generator is None else generator
    seed, stream, offset = source.next_offset(counters(size, dtypes.float64))
    words = [word % (1 << 64) for word in (seed, stream)]
    return np.random.Generator(np.random.Philox(key=words, counter=[0, 0, 0, offset % (1 << 64)]))


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers of the rates ``input``, in their dtype (evaluates them; NumPy draws).

    >>> import treadle
    >>> treadle.poisson(treadle.zeros(2)).tolist()
    [0.0, 0.0]
    """
    rates = array_of(input.detach().node).astype(np.float64)
    if not (rates >= 0).all():
        raise located(ValueError(
            f"poisson: got rates of shape {rates.shape} with negative or undefined ones; they must "
            f"be 0 or more"
        ))  # fmt: skip
    drawn = _numpy_generator(rates.size, generator).poisson(rates)
    return from_numpy(np.asarray(drawn)).to(input.dtype)


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of ``count`` trials of probability ``prob`` succeed (evaluates; NumPy draws)."""
    shape = broadcast_shapes(tuple(count.shape), tuple(prob.shape))
    counts, chances = (array_of(x.detach().node).astype(np.float64) for x in (count, prob))
    if not ((counts >= 0).all() and (chances >= 0).all() and (chances <= 1).all()):
        raise located(ValueError(
            "binomial: got negative counts, or probabilities outside [0, 1]"
        ))  # fmt: skip
    source = _numpy_generator(int(np.prod(shape)), generator)
    drawn = source.binomial(counts.astype(np.int64), chances, shape)
    return from_numpy(np.asarray(drawn)).to(prob.dtype)


__all__ = ["binomial", "gamma_slope", "poisson", "standard_gamma"]
