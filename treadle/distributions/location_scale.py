"""Distributions of all numbers: a place and a width, and what is made of these."""

from __future__ import annotations

import math
from typing import Any

from treadle.distributions import constraints
from treadle.distributions.distribution import Distribution, ExponentialFamily
from treadle.distributions.utils import broadcast_all, eps_of, lazy_property, tiny_of
from treadle.random.gamma import standard_gamma
from treadle.random.sampling import rand, randn
from treadle.special import i0e, i1e
from treadle.tensor.arithmetic import log1p
from treadle.tensor.creation import full_like
from treadle.tensor.functions import erfinv
from treadle.tensor.reduction import argmax
from treadle.tensor.selection import gather, where
from treadle.tensor.tensor import Tensor

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def _open_uniform(shape: Any, like: Tensor) -> Tensor:
    """Uniform numbers of (0, 1): never an end."""
    return rand(tuple(shape), dtype=like.dtype).clamp(min=tiny_of(like))


class LocationScale(Distribution):
    """``loc + scale * z`` for a fixed distribution of z."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support: Any = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "loc", "scale")

    def _standard(self, value: Any) -> Tensor:
        """``z`` of a value."""
        if self._validate_args:
            self._validate_sample(value)
        return (value - self.loc) / self.scale

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc


class Normal(LocationScale, ExponentialFamily):
    """``exp(-((x - loc) / scale)^2 / 2) / (scale sqrt(2 pi))``.

    >>> import treadle
    >>> d = treadle.distributions.Normal(0.0, 1.0)
    >>> round(d.log_prob(treadle.tensor(0.0)).item(), 4)
    -0.9189
    """

    _mean_carrier_measure = 0

    @property
    def stddev(self) -> Tensor:
        """``scale``."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """``scale^2``."""
        return self.scale**2

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = self._extended_shape(sample_shape)
        return self.loc + self.scale * randn(tuple(shape), dtype=self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        z = self._standard(value)
        return -(z * z) / 2 - self.scale.log() - _HALF_LOG_TAU

    def cdf(self, value: Tensor) -> Tensor:
        """``(1 + erf(z / sqrt(2))) / 2``."""
        return 0.5 * (1 + (self._standard(value) * math.sqrt(0.5)).erf())

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        """``1/2 + log(2 pi) / 2 + log scale``."""
        return 0.5 + _HALF_LOG_TAU + self.scale.log()

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        variance = self.scale**2
        return self.loc / variance, -0.5 / variance

    def _log_normalizer(self, x: Any, y: Any) -> Tensor:
        return -0.25 * x * x / y + 0.5 * (-math.pi / y).log()


class Laplace(LocationScale):
    """``exp(-|x - loc| / scale) / (2 scale)``."""

    @property
    def variance(self) -> Tensor:
        """``2 scale^2``."""
        return 2 * self.scale**2

    @property
    def stddev(self) -> Tensor:
        """``sqrt(2) scale``."""
        return math.sqrt(2) * self.scale

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        u = 2 * rand(tuple(self._extended_shape(sample_shape)), dtype=self.loc.dtype) - 1
        u = u.clamp(min=eps_of(u) - 1)
        return self.loc - self.scale * u.sign() * log1p(-u.abs())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        return -(2 * self.scale).log() - self._standard(value).abs()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value or less."""
        z = self._standard(value)
        return 0.5 - 0.5 * z.sign() * (-z.abs()).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        term = value - 0.5
        return self.loc - self.scale * term.sign() * log1p(-2 * term.abs())

    def entropy(self) -> Tensor:
        """``1 + log(2 scale)``."""
        return 1 + (2 * self.scale).log()


class Cauchy(LocationScale):
    """``1 / (pi scale (1 + ((x - loc) / scale)^2))``; it has no mean."""

    @property
    def mean(self) -> Tensor:
        """NaN."""
        return full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return full_like(self.loc, math.inf)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        u = rand(tuple(self._extended_shape(sample_shape)), dtype=self.loc.dtype)
        return self.loc + self.scale * (math.pi * (u - 0.5)).tan()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        z = self._standard(value)
        return -math.log(math.pi) - self.scale.log() - log1p(z * z)

    def cdf(self, value: Tensor) -> Tensor:
        """``atan(z) / pi + 1/2``."""
        return self._standard(value).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        """``log(4 pi scale)``."""
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(LocationScale):
    """``exp(-z - exp(-z)) / scale`` with z = (x - loc) / scale: the largest of many."""

    @property
    def mean(self) -> Tensor:
        """``loc + 0.5772 scale``."""
        return self.loc + self.scale * 0.57721566490153286060

    @property
    def stddev(self) -> Tensor:
        """``pi scale / sqrt(6)``."""
        return (math.pi / math.sqrt(6)) * self.scale

    @property
    def variance(self) -> Tensor:
        """``stddev^2``."""
        return self.stddev**2

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        u = _open_uniform(self._extended_shape(sample_shape), self.loc)
        u = u.clamp(max=1 - eps_of(u))
        return self.loc - self.scale * (-u.log()).log()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        z = self._standard(value)
        return -z - (-z).exp() - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """``exp(-exp(-z))``."""
        return (-(-self._standard(value)).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        """``log scale + 1.5772``."""
        return self.scale.log() + 1.57721566490153286060


class StudentT(Distribution):
    """Normal numbers divided by the root of a chi-squared one over its degrees of freedom."""

    arg_constraints = {
        "df": constraints.positive, "loc": constraints.real, "scale": constraints.positive,
    }  # fmt: skip
    support = constraints.real
    has_rsample = True

    def __init__(
        self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "df", "loc", "scale")

    @property
    def mean(self) -> Tensor:
        """``loc``, where df > 1."""
        return where(self.df > 1, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``scale^2 df / (df - 2)``, where df > 2."""
        known = self.df > 2
        df = where(known, self.df, 3.0)
        wide = where(self.df > 1, math.inf, math.nan).to(self.df.dtype)
        return where(known, self.scale**2 * df / (df - 2), wide)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = self._extended_shape(sample_shape)
        z = randn(tuple(shape), dtype=self.df.dtype)
        chi2 = 2 * standard_gamma((0.5 * self.df).expand(shape))
        return self.loc + self.scale * z * (chi2 / self.df).rsqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        norm = (
            self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi)
            + (0.5 * self.df).lgamma() - (0.5 * (self.df + 1)).lgamma()
        )  # fmt: skip
        return -0.5 * (self.df + 1) * log1p(y * y / self.df) - norm

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        half, next_half = 0.5 * self.df, 0.5 * (self.df + 1)
        beta = half.lgamma() + math.lgamma(0.5) - next_half.lgamma()
        spread = next_half * (next_half.digamma() - half.digamma())
        return self.scale.log() + spread + 0.5 * self.df.log() + beta


class Uniform(Distribution):
    """``1 / (high - low)`` between ``low`` and ``high``."""

    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)

    @property
    def arg_constraints(self) -> Any:
        """``low`` is below ``high``."""
        return {
            "low": constraints.less_than(self.high), "high": constraints.greater_than(self.low),
        }  # fmt: skip

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "low", "high")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From ``low`` to ``high``."""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """``(low + high) / 2``."""
        return (self.high + self.low) / 2

    @property
    def mode(self) -> Tensor:
        """NaN: all values are as likely."""
        return math.nan * self.high

    @property
    def stddev(self) -> Tensor:
        """``(high - low) / sqrt(12)``."""
        return (self.high - self.low) / math.sqrt(12)

    @property
    def variance(self) -> Tensor:
        """``(high - low)^2 / 12``."""
        return (self.high - self.low) ** 2 / 12

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        u = rand(tuple(self._extended_shape(sample_shape)), dtype=self.low.dtype)
        return self.low + u * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        inside = (self.low <= value) & (self.high > value)
        return inside.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The share below a value."""
        if self._validate_args:
            self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        """``log(high - low)``."""
        return (self.high - self.low).log()


class VonMises(Distribution):
    """``exp(concentration cos(x - loc)) / (2 pi I0(concentration))`` for angles x."""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "loc", "concentration")

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        k = self.concentration
        return k * ((value - self.loc).cos() - 1) - math.log(2 * math.pi) - i0e(k).log()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws (Best and Fisher, 1979): the first of 32 candidates that is accepted."""
        shape = tuple(self._extended_shape(sample_shape))
        k, loc = self.concentration.detach().double(), self.loc.detach().double()
        tau = 1 + (1 + 4 * k * k).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * k)
        r = where(k < 1e-5, 1 / k + k, (1 + rho * rho) / (2 * rho))
        u1, u2, u3 = rand((3, 32, *shape), dtype=k.dtype).unbind(0)
        z = (math.pi * u1).cos()
        f = (1 + r * z) / (r + z)
        c = k * (r - f)
        accepted = (c * (2 - c) - u2 > 0) | ((c / u2).log() + 1 - c >= 0)
        first = argmax(accepted.long(), 0, keepdim=True)
        angle = (u3 - 0.5).sign() * f.clamp(-1, 1).acos()
        drawn = gather(angle, 0, first)[0] + loc
        return ((drawn + math.pi) % (2 * math.pi) - math.pi).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:
        """The circular one: ``1 - I1 / I0``."""
        return 1 - i1e(self.concentration) / i0e(self.concentration)


class GeneralizedPareto(Distribution):
    """``(1 + concentration z)^(-1 / concentration - 1) / scale``, z = (x - loc) / scale >= 0."""

    arg_constraints = {
        "loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real,
    }  # fmt: skip
    has_rsample = True

    def __init__(
        self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "loc", "scale", "concentration")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From ``loc`` on; to ``loc - scale / concentration`` where that is negative."""
        upper = where(self.concentration < 0, self.loc - self.scale / self.concentration, math.inf)
        return constraints.interval(self.loc, upper)

    def _tail(self, value: Any) -> Tensor:
        """``log(1 + concentration z) / concentration``, which is z where that is 0."""
        z, c = (value - self.loc) / self.scale, self.concentration
        safe = where(c == 0, 1.0, c)
        return where(c == 0, z, log1p(safe * z) / safe)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        return -self.scale.log() - (1 + self.concentration) * self._tail(value)

    def cdf(self, value: Tensor) -> Tensor:
        """``1 - (1 + concentration z)^(-1 / concentration)``."""
        if self._validate_args:
            self._validate_sample(value)
        return -(-self._tail(value)).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        c, tail = self.concentration, -log1p(-value)
        safe = where(c == 0, 1.0, c)
        return self.loc + self.scale * where(c == 0, tail, (safe * tail).expm1() / safe)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        return self.icdf(rand(tuple(self._extended_shape(sample_shape)), dtype=self.loc.dtype))

    @property
    def mean(self) -> Tensor:
        """``loc + scale / (1 - concentration)``, where that is below 1."""
        c = self.concentration
        return where(c < 1, self.loc + self.scale / (1 - c), math.inf)

    @property
    def variance(self) -> Tensor:
        """``scale^2 / ((1 - c)^2 (1 - 2 c))``, where the concentration c is below 1/2."""
        c = self.concentration
        return where(c < 0.5, self.scale**2 / ((1 - c) ** 2 * (1 - 2 * c)), math.inf)

    def entropy(self) -> Tensor:
        """``log scale + concentration + 1``."""
        return self.scale.log() + self.concentration + 1

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc


__all__ = [
    "Cauchy", "GeneralizedPareto", "Gumbel", "Laplace", "LocationScale", "Normal", "StudentT",
    "Uniform", "VonMises",
]  # fmt: skip
