"""Distributions of whole numbers."""

from __future__ import annotations

import math
from typing import Any

from treadle.distributions import constraints
from treadle.distributions.distribution import Distribution, ExponentialFamily
from treadle.distributions.utils import (
    broadcast_all,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
    softplus,
    tiny_of,
)
from treadle.ir.node import located
from treadle.random.gamma import binomial, poisson, standard_gamma
from treadle.random.sampling import rand
from treadle.tensor.arithmetic import log1p
from treadle.tensor.creation import arange, zeros_like
from treadle.tensor.functions import xlogy
from treadle.tensor.selection import where
from treadle.tensor.tensor import Tensor


def one_of(name: str, probs: Any, logits: Any) -> None:
    """ValueError unless one of the two is given."""
    if (probs is None) == (logits is None):
        raise located(ValueError(
            f"{name}: got {'neither' if probs is None else 'both'} of probs and logits; give one "
            f"of them"
        ))  # fmt: skip


class Binary(Distribution):
    """What distributions of a probability share: ``probs`` or ``logits``, the other on demand."""

    arg_constraints: Any = {"probs": constraints.unit_interval, "logits": constraints.real}

    def _set(self, probs: Any, logits: Any, *others: Any) -> list[Tensor]:
        one_of(type(self).__name__, probs, logits)
        self._is_probs = probs is not None
        *rest, given = broadcast_all(*others, probs if self._is_probs else logits)
        self.__dict__["probs" if self._is_probs else "logits"] = given
        return rest

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape, "total_count")
        name = "probs" if self._is_probs else "logits"
        new.__dict__[name] = self.__dict__[name].expand(tuple(batch_shape))
        return new

    @lazy_property
    def logits(self) -> Tensor:
        """``log p - log(1 - p)``."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """``sigmoid(logits)``."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def _param(self) -> Tensor:
        return self.probs if self._is_probs else self.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._param.shape


class Bernoulli(Binary, ExponentialFamily):
    """1 with probability p, else 0.

    >>> import treadle
    >>> treadle.distributions.Bernoulli(treadle.tensor([0.0, 1.0])).sample().tolist()
    [0.0, 1.0]
    """

    support = constraints.boolean
    has_enumerate_support = True
    _mean_carrier_measure = 0

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._set(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """p."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """1 where p > 1/2, NaN where it is 1/2."""
        mode = (self.probs >= 0.5).to(self.probs.dtype)
        return where(self.probs == 0.5, math.nan, mode)

    @property
    def variance(self) -> Tensor:
        """``p (1 - p)``."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        shape = self._extended_shape(sample_shape)
        return self.probs.detach().expand(shape).bernoulli()

    def log_prob(self, value: Tensor) -> Tensor:
        """``value logits - log(1 + exp(logits))``."""
        if self._validate_args:
            self._validate_sample(value)
        return value * self.logits - softplus(self.logits)

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        return softplus(self.logits) - self.probs * self.logits

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1."""
        values = arange(2, dtype=self._param.dtype).reshape(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, x: Any) -> Tensor:
        return softplus(x)


class Geometric(Binary):
    """The number of failures before the first success of probability p."""

    support = constraints.nonnegative_integer

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._set(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """``1 / p - 1``."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0."""
        return zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        """``(1 / p - 1) / p``."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        p = self.probs.detach()
        u = rand(tuple(self._extended_shape(sample_shape)), dtype=p.dtype).clamp(min=tiny_of(p))
        return (u.log() / log1p(-p)).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        """``value log(1 - p) + log p``."""
        if self._validate_args:
            self._validate_sample(value)
        probs = where((self.probs == 1) & (value == 0), 0.0, self.probs)
        return value * log1p(-probs) + self.probs.log()

    def entropy(self) -> Tensor:
        """That of a Bernoulli number, divided by p."""
        return (softplus(self.logits) - self.probs * self.logits) / self.probs


class Binomial(Binary):
    """The number of successes in ``total_count`` trials of probability p."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval,
        "logits": constraints.real,
    }  # fmt: skip
    has_enumerate_support = True

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        (count,) = self._set(probs, logits, total_count)
        self.total_count = count.to(self._param.dtype)
        super().__init__(self._param.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """0 to ``total_count``."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """``n p``."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """``floor((n + 1) p)``, at most n."""
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        """``n p (1 - p)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients (evaluates the parameters)."""
        shape = self._extended_shape(sample_shape)
        return binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability."""
        if self._validate_args:
            self._validate_sample(value)
        n, logits = self.total_count, self.logits
        choices = (n + 1).lgamma() - (value + 1).lgamma() - (n - value + 1).lgamma()
        return choices + value * logits - n * softplus(logits)

    def entropy(self) -> Tensor:
        """The sum over all values; of equal counts only."""
        most = self.total_count.max()
        if not bool((self.total_count == most).all()):
            raise self._has_no("entropy() of different counts")
        logs = self.log_prob(self.enumerate_support(False))
        return -(logs.exp() * logs).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 to ``total_count``, which must all be equal."""
        most = int(self.total_count.max())
        if not bool((self.total_count == most).all()):
            raise self._has_no("enumerate_support() of different counts")
        values = arange(1 + most, dtype=self._param.dtype)
        values = values.reshape(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class NegativeBinomial(Binary):
    """The number of successes of probability p before ``total_count`` failures."""

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0), "logits": constraints.real,
    }  # fmt: skip
    support = constraints.nonnegative_integer

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        (count,) = self._set(probs, logits, total_count)
        self.total_count = count.to(self._param.dtype)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """``n exp(logits)``."""
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        """``floor((n - 1) exp(logits))``, at least 0."""
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        """``mean / (1 - p)``."""
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients: Poisson numbers of gamma rates."""
        shape = self._extended_shape(sample_shape)
        rate = standard_gamma(self.total_count.detach().expand(shape))
        return poisson(rate * self.logits.detach().exp())

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability."""
        if self._validate_args:
            self._validate_sample(value)
        n, logits = self.total_count, self.logits
        shape = n * -softplus(logits) + value * -softplus(-logits)
        norm = -(n + value).lgamma() + (1.0 + value).lgamma() + n.lgamma()
        return shape - where(n + value == 0.0, 0.0, norm)


class Poisson(ExponentialFamily):
    """``rate^k exp(-rate) / k!``."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "rate")

    @property
    def mean(self) -> Tensor:
        """``rate``."""
        return self.rate

    @property
    def mode(self) -> Tensor:
        """``floor(rate)``."""
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        """``rate``."""
        return self.rate

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients (evaluates the rates)."""
        return poisson(self.rate.detach().expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability."""
        if self._validate_args:
            self._validate_sample(value)
        rate, value = broadcast_all(self.rate, value)
        return xlogy(value, rate) - rate - (value + 1).lgamma()

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.rate.log(),)

    def _log_normalizer(self, x: Any) -> Tensor:
        return x.exp()


__all__ = [
    "Bernoulli", "Binary", "Binomial", "Geometric", "NegativeBinomial", "Poisson", "one_of",
]  # fmt: skip
