"""Distributions that transforms make of others."""

from __future__ import annotations

import math
from typing import Any

from treadle.distributions import constraints
from treadle.distributions.combined import TransformedDistribution
from treadle.distributions.distribution import Distribution
from treadle.distributions.location_scale import Cauchy, Normal, Uniform
from treadle.distributions.positive import Exponential, Gamma
from treadle.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ExpTransform,
    PowerTransform,
)
from treadle.distributions.utils import broadcast_all, eps_of, euler_constant
from treadle.tensor.creation import full_like, ones_like
from treadle.tensor.selection import where
from treadle.tensor.tensor import Tensor


class Named(TransformedDistribution):
    """A transformed distribution shown by its own parameters."""

    has_rsample = True

    def __repr__(self) -> str:
        return Distribution.__repr__(self)


class LogNormal(Named):
    """``exp(z)`` of a normal number z."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        super().__init__(base, ExpTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of z."""
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """The standard deviation of z."""
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        """``exp(loc + scale^2 / 2)``."""
        return (self.loc + self.scale**2 / 2).exp()

    @property
    def mode(self) -> Tensor:
        """``exp(loc - scale^2)``."""
        return (self.loc - self.scale**2).exp()

    @property
    def variance(self) -> Tensor:
        """``(exp(scale^2) - 1) exp(2 loc + scale^2)``."""
        square = self.scale**2
        return square.expm1() * (2 * self.loc + square).exp()

    def entropy(self) -> Tensor:
        """That of z, plus ``loc``."""
        return self.base_dist.entropy() + self.loc


class _Half(Named):
    """``|z|`` of a distribution that is symmetric about 0."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative

    def __init__(self, base: Distribution, validate_args: bool | None) -> None:
        super().__init__(base, AbsTransform(), validate_args=validate_args)

    @property
    def scale(self) -> Tensor:
        """The width."""
        return self.base_dist.scale

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.scale * 0

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        return where(value >= 0, self.base_dist.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """``2 cdf(z) - 1``."""
        if self._validate_args:
            self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """That of z, less log 2."""
        return self.base_dist.entropy() - math.log(2)


class HalfNormal(_Half):
    """``|z|`` of a normal number z of mean 0."""

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(0, scale, validate_args=validate_args), validate_args)

    @property
    def mean(self) -> Tensor:
        """``scale sqrt(2 / pi)``."""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """``scale^2 (1 - 2 / pi)``."""
        return self.scale**2 * (1 - 2 / math.pi)


class HalfCauchy(_Half):
    """``|z|`` of a Cauchy number z; it has no mean."""

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Cauchy(0, scale, validate_args=validate_args), validate_args)

    @property
    def mean(self) -> Tensor:
        """Infinite."""
        return full_like(self.scale, math.inf)

    @property
    def variance(self) -> Tensor:
        """Infinite."""
        return self.base_dist.variance


class InverseGamma(Named):
    """``1 / x`` of a gamma number x."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        base = Gamma(concentration, rate, validate_args=validate_args)
        super().__init__(base, PowerTransform(-1.0), validate_args=validate_args)

    @property
    def concentration(self) -> Tensor:
        """That of x."""
        return self.base_dist.concentration

    @property
    def rate(self) -> Tensor:
        """That of x."""
        return self.base_dist.rate

    @property
    def mean(self) -> Tensor:
        """``rate / (c - 1)``, where the concentration c is above 1."""
        c = self.concentration
        return where(c > 1, self.rate / (c - 1), math.inf)

    @property
    def mode(self) -> Tensor:
        """``rate / (c + 1)``."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """``rate^2 / ((c - 1)^2 (c - 2))``, where the concentration c is above 2."""
        c = self.concentration
        return where(c > 2, self.rate**2 / ((c - 1) ** 2 * (c - 2)), math.inf)

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        c = self.concentration
        return c + self.rate.log() + c.lgamma() - (1 + c) * c.digamma()


class _OfUniform(Named):
    """Distributions that a chain of transforms makes of a simple one, with parameters of theirs."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        values = {name: getattr(self, name).expand(batch_shape) for name in self.arg_constraints}
        return type(self)(**values, validate_args=False)


class Weibull(_OfUniform):
    """``scale e^(1 / concentration)`` of an exponential number e."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        self.concentration_reciprocal = self.concentration.reciprocal()
        base = Exponential(ones_like(self.scale), validate_args=validate_args)
        chain = [PowerTransform(self.concentration_reciprocal), AffineTransform(0, self.scale)]
        super().__init__(base, chain, validate_args=validate_args)

    def _moment(self, k: int) -> Tensor:
        return (1 + k * self.concentration_reciprocal).lgamma()

    @property
    def mean(self) -> Tensor:
        """``scale Gamma(1 + 1 / concentration)``."""
        return self.scale * self._moment(1).exp()

    @property
    def mode(self) -> Tensor:
        """``scale (1 - 1 / concentration)^(1 / concentration)``, 0 below 1."""
        share = (1 - self.concentration_reciprocal).clamp(min=0)
        return self.scale * share**self.concentration_reciprocal

    @property
    def variance(self) -> Tensor:
        """``scale^2 (Gamma(1 + 2 / c) - Gamma(1 + 1 / c)^2)`` with the concentration c."""
        return self.scale**2 * (self._moment(2).exp() - (2 * self._moment(1)).exp())

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        inverse = self.concentration_reciprocal
        return euler_constant * (1 - inverse) + (self.scale * inverse).log() + 1


class Pareto(_OfUniform):
    """``scale e^(z)`` of an exponential number z of rate alpha."""

    arg_constraints = {"scale": constraints.positive, "alpha": constraints.positive}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        base = Exponential(self.alpha, validate_args=validate_args)
        super().__init__(
            base, [ExpTransform(), AffineTransform(0, self.scale)], validate_args=validate_args
        )

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """From the scale on."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """``alpha scale / (alpha - 1)``, where alpha > 1."""
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Tensor:
        """``scale``."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """``scale^2 alpha / ((alpha - 1)^2 (alpha - 2))``, where alpha > 2."""
        a = self.alpha.clamp(min=2)
        return self.scale**2 * a / ((a - 1) ** 2 * (a - 2))

    def entropy(self) -> Tensor:
        """``log(scale / alpha) + 1 + 1 / alpha``."""
        return (self.scale / self.alpha).log() + 1 + self.alpha.reciprocal()


class Kumaraswamy(_OfUniform):
    """``(1 - u^(1 / b))^(1 / a)`` of a uniform number u."""

    arg_constraints = {
        "concentration1": constraints.positive, "concentration0": constraints.positive,
    }  # fmt: skip
    support = constraints.unit_interval

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        a, b = broadcast_all(concentration1, concentration0)
        self.concentration1, self.concentration0 = a, b
        base = Uniform(full_like(b, eps_of(b) / 2), full_like(b, 1 - eps_of(b) / 2))
        chain = [
            PowerTransform(b.reciprocal()), AffineTransform(1.0, -1.0),
            PowerTransform(a.reciprocal()),
        ]  # fmt: skip
        super().__init__(base, chain, validate_args=validate_args)

    def _moment(self, n: int) -> Tensor:
        a, b = self.concentration1, self.concentration0
        c = 1 + n / a
        return (b.log() + c.lgamma() + b.lgamma() - (c + b).lgamma()).exp()

    @property
    def mean(self) -> Tensor:
        """``b B(1 + 1 / a, b)``."""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """``((a - 1) / (a b - 1))^(1 / a)``, where both are at least 1."""
        a, b = self.concentration1, self.concentration0
        mode = (a.reciprocal() * ((1 - a.reciprocal()).log() - (b - a.reciprocal()).log())).exp()
        return where((a < 1) | (b < 1), math.nan, mode)

    @property
    def variance(self) -> Tensor:
        """The second moment less the square of the first."""
        return self._moment(2) - self._moment(1) ** 2

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + euler_constant
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()


__all__ = [
    "HalfCauchy", "HalfNormal", "InverseGamma", "Kumaraswamy", "LogNormal", "Named", "Pareto",
    "Weibull",
]  # fmt: skip
