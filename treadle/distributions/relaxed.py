"""Discrete distributions relaxed to continuous ones, so that gradients flow through samples."""

from __future__ import annotations

import math
from typing import Any

from treadle.distributions import constraints
from treadle.distributions.classes import Categorical
from treadle.distributions.discrete import Binary
from treadle.distributions.distribution import Distribution, ExponentialFamily
from treadle.distributions.location_scale import Normal
from treadle.distributions.transformed import Named
from treadle.distributions.transforms import ExpTransform, SigmoidTransform, StickBreakingTransform
from treadle.distributions.utils import (
    broadcast_all,
    clamp_probs,
    eps_of,
    lazy_property,
    probs_to_logits,
    softplus,
    tiny_of,
)
from treadle.random.sampling import rand
from treadle.tensor.arithmetic import log1p
from treadle.tensor.reduction import logsumexp
from treadle.tensor.selection import where
from treadle.tensor.tensor import Tensor


class LogitRelaxedBernoulli(Binary):
    """The logit of a ``RelaxedBernoulli``: ``(logits + logistic noise) / temperature``."""

    support = constraints.real
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self.temperature = temperature
        self._set(probs, logits)
        Distribution.__init__(self, self._param.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = tuple(self._extended_shape(sample_shape))
        probs = clamp_probs(self.probs.expand(shape))
        u = clamp_probs(rand(shape, dtype=probs.dtype))
        noise = u.log() - log1p(-u) + probs.log() - log1p(-probs)
        return noise / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        apart = logits - value * self.temperature
        scale = self.temperature
        width = scale.log() if isinstance(scale, Tensor) else math.log(scale)
        return width + apart - 2 * softplus(apart)


class _Relaxed(Named):
    """What the two below share."""

    @property
    def temperature(self) -> Any:
        """How soft: 0 is discrete."""
        return self.base_dist.temperature

    @property
    def logits(self) -> Tensor:
        """The scores."""
        return self.base_dist.logits

    @property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self.base_dist.probs


class RelaxedBernoulli(_Relaxed):
    """Numbers of (0, 1) near 0 or 1 (Maddison et al., 2017; Jang et al., 2017)."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        base = LogitRelaxedBernoulli(temperature, probs, logits, validate_args)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)


class ExpRelaxedCategorical(Distribution):
    """The logarithm of a ``RelaxedOneHotCategorical``."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._categorical = Categorical(probs, logits, validate_args)
        self.temperature = temperature
        shape = tuple(self._categorical.param_shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        return new

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

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        u = clamp_probs(rand(tuple(logits.shape), dtype=logits.dtype))
        scores = (logits - (-u.log()).log()) / self.temperature
        return scores - logsumexp(scores, -1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        k, scale = self._event_shape[-1], self.temperature
        log_scale = scale.log() if isinstance(scale, Tensor) else math.log(scale)
        score = logits - value * scale
        score = (score - logsumexp(score, -1, keepdim=True)).sum(-1)
        return score + math.lgamma(k) + (k - 1) * log_scale


class RelaxedOneHotCategorical(_Relaxed):
    """Vectors near a one-hot one (Maddison et al., 2017; Jang et al., 2017)."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args=validate_args)


class LogisticNormal(Named):
    """A vector of normal numbers broken into shares: positive numbers of sum 1, one more."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base: Any = Normal(loc, scale, validate_args=validate_args)
        base = base if base.batch_shape else base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The means of the normal numbers."""
        return self.base_dist.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """Their standard deviations."""
        return self.base_dist.base_dist.scale


class ContinuousBernoulli(Binary, ExponentialFamily):
    """``C p^x (1 - p)^(1 - x)`` for x from 0 to 1 (Loaiza-Ganem and Cunningham, 2019).

    Near p = 1/2, between the ``lims``, series stand for what is 0 / 0 there.
    """

    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._lims = lims
        self._set(probs, logits)
        if self._is_probs:
            self.probs = clamp_probs(self.probs)
        super().__init__(self._param.shape, validate_args=validate_args)

    @lazy_property
    def logits(self) -> Tensor:
        """``log p - log(1 - p)``."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """``sigmoid(logits)``, away from 0 and 1."""
        return clamp_probs(self.logits.sigmoid())

    def _outside(self) -> Tensor:
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut(self) -> Tensor:
        """p where it is outside the limits, else the lower one."""
        return where(self._outside(), self.probs, self._lims[0])

    def _log_constant(self) -> Tensor:
        p = self._cut()
        low, high = where(p <= 0.5, p, 0.0), where(p >= 0.5, p, 1.0)
        spread = where(p <= 0.5, log1p(-2.0 * low), (2.0 * high - 1.0).log())
        exact = (log1p(-p) - p.log()).abs().log() - spread
        x = (self.probs - 0.5) ** 2
        near = math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * x) * x
        return where(self._outside(), exact, near)

    @property
    def mean(self) -> Tensor:
        """``p / (2 p - 1) + 1 / (log(1 - p) - log p)``."""
        p = self._cut()
        exact = p / (2.0 * p - 1.0) + 1.0 / (log1p(-p) - p.log())
        x = self.probs - 0.5
        return where(self._outside(), exact, 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * x**2) * x)

    @property
    def variance(self) -> Tensor:
        """``p (p - 1) / (1 - 2 p)^2 + 1 / (log(1 - p) - log p)^2``."""
        p = self._cut()
        exact = p * (p - 1.0) / (1.0 - 2.0 * p) ** 2 + 1.0 / (log1p(-p) - p.log()) ** 2
        x = (self.probs - 0.5) ** 2
        near = 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * x) * x
        return where(self._outside(), exact, near)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        u = rand(tuple(self._extended_shape(sample_shape)), dtype=self.probs.dtype)
        return self.icdf(u.clamp(tiny_of(u), 1 - eps_of(u) / 2))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        return value * self.logits - softplus(self.logits) + self._log_constant()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value or less."""
        if self._validate_args:
            self._validate_sample(value)
        p = self._cut()
        exact = (p**value * (1.0 - p) ** (1.0 - value) + p - 1.0) / (2.0 * p - 1.0)
        inside = where(self._outside(), exact, value)
        return where(value <= 0.0, 0.0, where(value >= 1.0, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        p = self._cut()
        exact = log1p(-p + value * (2.0 * p - 1.0)) - log1p(-p)
        return where(self._outside(), exact / (p.log() - log1p(-p)), value)

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        zero, one = log1p(-self.probs), self.probs.log()
        return self.mean * (zero - one) - self._log_constant() - zero

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, x: Any) -> Tensor:
        low, high = self._lims[0] - 0.5, self._lims[1] - 0.5
        outside = (x <= low) | (x > high)
        cut = where(outside, x, low)
        exact = (cut.exp() - 1).abs().log() - cut.abs().log()
        return where(outside, exact, 0.5 * x + x**2 / 24.0 - x**4 / 2880.0)


__all__ = [
    "ContinuousBernoulli", "ExpRelaxedCategorical", "LogisticNormal", "LogitRelaxedBernoulli",
    "RelaxedBernoulli", "RelaxedOneHotCategorical",
]  # fmt: skip
