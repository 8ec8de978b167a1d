"""Distributions of classes."""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtypes
from treadle.base.shapes import broadcast_shapes
from treadle.distributions import constraints
from treadle.distributions.discrete import Binomial, one_of
from treadle.distributions.distribution import Distribution
from treadle.distributions.utils import (
    lazy_property,
    logits_to_probs,
    normalized_logits,
    probs_to_logits,
    tiny_of,
)
from treadle.ir.node import located
from treadle.random.sampling import rand
from treadle.tensor.arithmetic import log1p
from treadle.tensor.creation import arange, full_like
from treadle.tensor.reduction import argmin
from treadle.tensor.selection import gather, one_hot, where
from treadle.tensor.tensor import Tensor


class Categorical(Distribution):
    """Class i with the probability of index i of the last dimension.

    ``probs`` are divided by their sum; ``logits`` are scores.

    >>> import treadle
    >>> d = treadle.distributions.Categorical(treadle.tensor([0.0, 1.0, 0.0]))
    >>> d.sample((2,)).tolist()
    [1, 1]
    """

    arg_constraints: Any = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name = type(self).__name__
        one_of(name, probs, logits)
        given = logits if probs is None else probs
        if given.ndim < 1:
            raise located(ValueError(
                f"{name}: got a parameter without dimensions; it needs at least one"
            ))  # fmt: skip
        if probs is None:
            self.logits = normalized_logits(logits)
        else:
            self.probs = probs / probs.sum(-1, keepdim=True)
        self._is_probs = probs is not None
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape)
        name = "probs" if self._is_probs else "logits"
        shape = (*batch_shape, self._num_events)
        new.__dict__[name] = self.__dict__[name].expand(shape)
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """0 to the number of classes less 1."""
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Tensor:
        """``log p``."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """``softmax(logits)``."""
        return logits_to_probs(self.logits)

    @property
    def _param(self) -> Tensor:
        return self.probs if self._is_probs else self.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._param.shape

    @property
    def mean(self) -> Tensor:
        """NaN: classes have no order."""
        return full_like(self.probs.sum(-1), math.nan)

    @property
    def mode(self) -> Tensor:
        """The most likely class."""
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Tensor:
        """NaN: classes have no order."""
        return full_like(self.probs.sum(-1), math.nan)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients: the first of exponential times of rates p."""
        first = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        p = self.probs.detach()
        p = p.float() if p.dtype.bits == 16 else p
        u = rand((*first, *self._param.shape), dtype=p.dtype)
        times = (-log1p(-u)).clamp(min=tiny_of(p)) / p
        return argmin(where(p > 0, times, math.inf), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of a class."""
        if self._validate_args:
            self._validate_sample(value)
        batch = broadcast_shapes(tuple(value.shape), tuple(self._batch_shape))
        index = value.to(dtypes.int64).expand(batch).unsqueeze(-1)
        return gather(self.logits.expand(*batch, self._num_events), -1, index).squeeze(-1)

    def entropy(self) -> Tensor:
        """``-sum p log p``."""
        logits = self.logits.clamp(min=-3.4028234663852886e38)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All classes."""
        values = arange(self._num_events).reshape(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class OneHotCategorical(Distribution):
    """A class as a vector with a 1 at its place."""

    arg_constraints: Any = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        shape = tuple(self._categorical.param_shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        return new

    @property
    def _param(self) -> Tensor:
        return self._categorical._param

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The most likely class."""
        return one_hot(self.probs.argmax(-1), self._event_shape[-1]).to(self._param.dtype)

    @property
    def variance(self) -> Tensor:
        """``p (1 - p)``."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        drawn = self._categorical.sample(sample_shape)
        return one_hot(drawn, self._event_shape[-1]).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of the class."""
        if self._validate_args:
            self._validate_sample(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All classes."""
        n = self._event_shape[0]
        values = one_hot(arange(n), n).to(self._param.dtype)
        values = values.reshape(n, *(1,) * len(self._batch_shape), n)
        return values.expand(n, *self._batch_shape, n) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """Gradients flow into the probabilities as if a sample were these (Bengio et al., 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """A draw whose gradient is that of the probabilities."""
        probs = self._categorical.probs
        return self.sample(sample_shape) + (probs - probs.detach())


class Multinomial(Distribution):
    """How often each class comes in ``total_count`` draws."""

    arg_constraints: Any = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self, total_count: int = 1, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(total_count, int):
            raise located(NotImplementedError(
                f"Multinomial: got a {type(total_count).__name__} for total_count; it is one int "
                f"for the whole batch"
            ))  # fmt: skip
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        shape = tuple(self._categorical.param_shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        """Vectors of counts of that sum."""
        return constraints.multinomial(self.total_count)

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        """``n p``."""
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        """``n p (1 - p)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        first = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        drawn = self._categorical.sample((self.total_count, *first))
        return one_hot(drawn, self._event_shape[-1]).sum(0).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of the counts."""
        if self._validate_args:
            self._validate_sample(value)
        logits = self.logits.expand(value.shape) if value.ndim > self.logits.ndim else self.logits
        logits = where((value == 0) & (logits == -math.inf), 0.0, logits)
        choices = (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1)
        return choices + (logits * value).sum(-1)

    def entropy(self) -> Tensor:
        """The entropy, in nats: by the binomial distribution of each class."""
        n = float(self.total_count)
        parts = Binomial(self.total_count, probs=self.probs)
        values = parts.enumerate_support(False)[1:]
        weighed = parts.log_prob(values).exp() * (values + 1).lgamma()
        return n * self._categorical.entropy() - math.lgamma(n + 1) + weighed.sum((0, -1))


__all__ = ["Categorical", "Multinomial", "OneHotCategorical", "OneHotCategoricalStraightThrough"]
