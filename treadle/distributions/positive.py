"""Distributions of positive numbers, of shares, and of vectors of shares: by gamma numbers."""

from __future__ import annotations

import math
from typing import Any

from treadle.distributions import constraints
from treadle.distributions.distribution import Distribution, ExponentialFamily
from treadle.distributions.utils import broadcast_all, eps_of, tiny_of
from treadle.ir.node import located
from treadle.random.gamma import standard_gamma
from treadle.random.sampling import rand
from treadle.tensor.arithmetic import log1p
from treadle.tensor.functions import xlogy
from treadle.tensor.joining import stack
from treadle.tensor.selection import where
from treadle.tensor.tensor import Tensor


class Exponential(ExponentialFamily):
    """``rate exp(-rate x)``."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "rate")

    @property
    def mean(self) -> Tensor:
        """``1 / rate``."""
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.rate * 0

    @property
    def stddev(self) -> Tensor:
        """``1 / rate``."""
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        """``1 / rate^2``."""
        return self.rate**-2

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        u = rand(tuple(self._extended_shape(sample_shape)), dtype=self.rate.dtype)
        return -log1p(-u) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """``1 - exp(-rate x)``."""
        if self._validate_args:
            self._validate_sample(value)
        return -(-self.rate * value).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return -log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        """``1 - log rate``."""
        return 1 - self.rate.log()

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (-self.rate,)

    def _log_normalizer(self, x: Any) -> Tensor:
        return -(-x).log()


class Gamma(ExponentialFamily):
    """``rate^c x^(c - 1) exp(-rate x) / Gamma(c)`` with the concentration c."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "concentration", "rate")

    @property
    def mean(self) -> Tensor:
        """``c / rate``."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """``(c - 1) / rate``, at least 0."""
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        """``c / rate^2``."""
        return self.concentration / self.rate**2

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = self._extended_shape(sample_shape)
        value = standard_gamma(self.concentration.expand(shape)) / self.rate
        return value.clamp(min=tiny_of(value))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        c, rate = self.concentration, self.rate
        return xlogy(c, rate) + xlogy(c - 1, value) - rate * value - c.lgamma()

    def entropy(self) -> Tensor:
        """``c - log rate + log Gamma(c) + (1 - c) digamma(c)``."""
        c = self.concentration
        return c - self.rate.log() + c.lgamma() + (1 - c) * c.digamma()

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return self.concentration - 1, -self.rate

    def _log_normalizer(self, x: Any, y: Any) -> Tensor:
        return (x + 1).lgamma() + (x + 1) * (-y.reciprocal()).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The regularised incomplete gamma function."""
        from treadle.special import gammainc

        if self._validate_args:
            self._validate_sample(value)
        return gammainc(self.concentration, self.rate * value)


class Chi2(Gamma):
    """The sum of the squares of ``df`` normal numbers."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    @property
    def df(self) -> Tensor:
        """The degrees of freedom."""
        return self.concentration * 2


class FisherSnedecor(Distribution):
    """The quotient of two chi-squared numbers, each divided by its degrees of freedom."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "df1", "df2")

    @property
    def mean(self) -> Tensor:
        """``df2 / (df2 - 2)``, where df2 > 2."""
        df2 = where(self.df2 > 2, self.df2, math.nan)
        return df2 / (df2 - 2)

    @property
    def mode(self) -> Tensor:
        """``(df1 - 2) / df1 * df2 / (df2 + 2)``, where df1 > 2."""
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 <= 2, math.nan, mode)

    @property
    def variance(self) -> Tensor:
        """Known where df2 > 4."""
        df1, df2 = self.df1, where(self.df2 > 4, self.df2, math.nan)
        return 2 * df2**2 * (df1 + df2 - 2) / (df1 * (df2 - 2) ** 2 * (df2 - 4))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = self._extended_shape(sample_shape)
        above = standard_gamma((self.df1 / 2).expand(shape)) / self.df1
        below = standard_gamma((self.df2 / 2).expand(shape)) / self.df2
        y = above / below.clamp(min=tiny_of(below))
        return y.clamp(min=tiny_of(y))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        c1, c2, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        beta = c1.lgamma() + c2.lgamma() - (c1 + c2).lgamma()
        shape = c1 * ratio.log() + (c1 - 1) * value.log()
        return shape - (c1 + c2) * log1p(ratio * value) - beta


class Beta(ExponentialFamily):
    """``x^(a - 1) (1 - x)^(b - 1) / B(a, b)`` for x from 0 to 1."""

    arg_constraints = {
        "concentration1": constraints.positive, "concentration0": constraints.positive,
    }  # fmt: skip
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        one, zero = broadcast_all(concentration1, concentration0)
        self._dirichlet = Dirichlet(stack([one, zero], -1), validate_args=validate_args)
        super().__init__(one.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape)
        new._dirichlet = self._dirichlet.expand(batch_shape)
        return new

    @property
    def concentration1(self) -> Tensor:
        """``a``."""
        return self._dirichlet.concentration[..., 0]

    @property
    def concentration0(self) -> Tensor:
        """``b``."""
        return self._dirichlet.concentration[..., 1]

    @property
    def mean(self) -> Tensor:
        """``a / (a + b)``."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        """That of the Dirichlet distribution."""
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        """``a b / ((a + b)^2 (a + b + 1))``."""
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total**2 * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        return self._dirichlet.rsample(sample_shape)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        return self._dirichlet.log_prob(stack([value, 1.0 - value], -1))

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        return self._dirichlet.entropy()

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return self.concentration1, self.concentration0

    def _log_normalizer(self, x: Any, y: Any) -> Tensor:
        return x.lgamma() + y.lgamma() - (x + y).lgamma()


class Dirichlet(ExponentialFamily):
    """``prod x^(c - 1) / B(c)`` for vectors x of positive numbers of sum 1.

    >>> import treadle
    >>> x = treadle.distributions.Dirichlet(treadle.ones(3)).sample()
    >>> abs(x.sum().item() - 1) < 1e-5
    True
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.ndim < 1:
            raise located(ValueError(
                "Dirichlet: got a concentration without dimensions; it needs at least one"
            ))  # fmt: skip
        self.concentration = concentration
        shape = tuple(concentration.shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "concentration", events=1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters: gamma numbers by their sum."""
        parts = standard_gamma(self.concentration.expand(self._extended_shape(sample_shape)))
        shares = parts / parts.sum(-1, keepdim=True)
        return shares.clamp(tiny_of(shares), 1 - eps_of(shares) / 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        c = self.concentration
        return xlogy(c - 1.0, value).sum(-1) + c.sum(-1).lgamma() - c.lgamma().sum(-1)

    @property
    def mean(self) -> Tensor:
        """``c / sum c``."""
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        """``(c - 1) / sum (c - 1)``; the corner of the largest where all are below 1."""
        above = (self.concentration - 1).clamp(min=0.0)
        mode = above / above.sum(-1, keepdim=True)
        largest = self.concentration.argmax(-1, keepdim=True)
        corner = (mode * 0).nan_to_num().scatter(-1, largest, 1.0)
        return where((self.concentration < 1).all(-1, keepdim=True), corner, mode)

    @property
    def variance(self) -> Tensor:
        """``c (s - c) / (s^2 (s + 1))`` with the sum s."""
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total**2 * (total + 1))

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        c = self.concentration
        k, total = c.shape[-1], c.sum(-1)
        inner = ((c - 1.0) * c.digamma()).sum(-1)
        return c.lgamma().sum(-1) - total.lgamma() - (k - total) * total.digamma() - inner

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.concentration,)

    def _log_normalizer(self, x: Any) -> Tensor:
        return x.lgamma().sum(-1) - x.sum(-1).lgamma()


__all__ = ["Beta", "Chi2", "Dirichlet", "Exponential", "FisherSnedecor", "Gamma"]
