"""Distributions made of others: transformed, taken together, mixed."""

from __future__ import annotations

from typing import Any

from treadle.base.shapes import broadcast_shapes
from treadle.distributions import constraints
from treadle.distributions.distribution import Distribution
from treadle.distributions.transform import ComposeTransform, Transform, sum_rightmost
from treadle.ir.node import located
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.reduction import log_softmax, logsumexp
from treadle.tensor.selection import gather
from treadle.tensor.tensor import Size, Tensor


class Independent(Distribution):
    """A distribution whose last ``reinterpreted_batch_ndims`` batch dimensions become one draw.

    >>> import treadle
    >>> from treadle.distributions import Independent, Normal
    >>> d = Independent(Normal(treadle.zeros(3, 2), treadle.ones(3, 2)), 1)
    >>> tuple(d.batch_shape), tuple(d.event_shape), tuple(d.log_prob(treadle.zeros(2)).shape)
    ((3,), (2,), (3,))
    """

    arg_constraints: Any = {}

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        batch = tuple(base_distribution.batch_shape)
        if not 0 <= reinterpreted_batch_ndims <= len(batch):
            raise located(ValueError(
                f"Independent: got reinterpreted_batch_ndims {reinterpreted_batch_ndims} for a "
                f"batch of shape {batch}; it is from 0 to {len(batch)}"
            ))  # fmt: skip
        cut = len(batch) - reinterpreted_batch_ndims
        self.base_dist = base_distribution
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        event = batch[cut:] + tuple(base_distribution.event_shape)
        super().__init__(batch[:cut], event, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        count = self.reinterpreted_batch_ndims
        batch = tuple(batch_shape) + tuple(self.event_shape)[:count]
        return Independent(self.base_dist.expand(batch), count, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base_dist.has_rsample

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """As the base, of single draws."""
        return self.reinterpreted_batch_ndims == 0 and self.base_dist.has_enumerate_support

    @constraints.dependent_property
    def support(self) -> Any:
        """The base's, over more dimensions."""
        count = self.reinterpreted_batch_ndims
        base = self.base_dist.support
        return constraints.independent(base, count) if count else base

    @property
    def mean(self) -> Tensor:
        """The base's."""
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        """The base's."""
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        """The base's."""
        return self.base_dist.variance

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The base's, summed."""
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        """The base's, summed."""
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The base's."""
        if self.reinterpreted_batch_ndims > 0:
            raise self._has_no("enumerate_support() over a product of sets")
        return self.base_dist.enumerate_support(expand)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


class TransformedDistribution(Distribution):
    """What transforms make of a distribution: ``log p(y) = log p(x) - log |dy/dx|``.

    >>> import treadle
    >>> from treadle.distributions import Normal, TransformedDistribution, transforms
    >>> d = TransformedDistribution(Normal(0.0, 1.0), [transforms.ExpTransform()])
    >>> round(d.log_prob(treadle.tensor(1.0)).item(), 4)
    -0.9189
    """

    arg_constraints: Any = {}

    def __init__(
        self, base_distribution: Distribution, transforms: Any, validate_args: bool | None = None
    ) -> None:
        items = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not all(isinstance(t, Transform) for t in items):
            raise located(ValueError(
                f"TransformedDistribution: got {transforms!r}; it takes a Transform or a list of "
                f"them"
            ))  # fmt: skip
        self.transforms = items
        whole = ComposeTransform(items)
        base = base_distribution
        shape = tuple(base.batch_shape) + tuple(base.event_shape)
        wanted = tuple(whole.inverse_shape(whole.forward_shape(shape)))
        if wanted != shape:
            cut = len(wanted) - len(base.event_shape)
            base = base.expand(wanted[:cut])
        more = whole.domain.event_dim - len(base.event_shape)
        base = Independent(base, more) if more > 0 else base
        self.base_dist: Any = base
        final = tuple(whole.forward_shape(wanted))
        events = max(
            len(base.event_shape) + whole.codomain.event_dim - whole.domain.event_dim,
            whole.codomain.event_dim,
        )
        cut = len(final) - events
        super().__init__(final[:cut], final[cut:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        shape = ComposeTransform(self.transforms).inverse_shape(
            tuple(batch_shape) + tuple(self.event_shape)
        )
        cut = len(shape) - len(self.base_dist.event_shape)
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.base_dist = self.base_dist.expand(tuple(shape)[:cut])
        new._batch_shape = Size(tuple(batch_shape))
        return new

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """What the last transform gives."""
        if not self.transforms:
            return self.base_dist.support
        support = self.transforms[-1].codomain
        more = len(self.event_shape) - support.event_dim
        return constraints.independent(support, more) if more > 0 else support

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return bool(self.base_dist.has_rsample)

    def _through(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        with no_grad():
            return self._through(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        return self._through(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        events = len(self.event_shape)
        total: Any = 0.0
        y: Any = value
        for transform in reversed(self.transforms):
            x = transform._inv_call(y)
            events += transform.domain.event_dim - transform.codomain.event_dim
            slope = transform.log_abs_det_jacobian(x, y)
            total = total - sum_rightmost(slope, events - transform.domain.event_dim)
            y = x
        base = self.base_dist.log_prob(y)
        return total + sum_rightmost(base, events - len(self.base_dist.event_shape))

    def _monotonized(self, value: Any) -> Any:
        """The value counted from the end where the transforms fall all in all."""
        sign: Any = 1
        for transform in self.transforms:
            sign = sign * transform.sign
        return value if isinstance(sign, (int, float)) and sign == 1 else sign * (value - 0.5) + 0.5

    def cdf(self, value: Tensor) -> Tensor:
        """The base's, of the value brought back."""
        if self._validate_args:
            self._validate_sample(value)
        for transform in reversed(self.transforms):
            value = transform._inv_call(value)
        return self._monotonized(self.base_dist.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of ``cdf``."""
        return self._through(self.base_dist.icdf(self._monotonized(value)))


class MixtureSameFamily(Distribution):
    """A mixture over the last batch dimension of a distribution; a Categorical has the weights."""

    arg_constraints: Any = {}

    def __init__(
        self, mixture_distribution: Any, component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        from treadle.distributions.classes import Categorical

        parts = tuple(component_distribution.batch_shape)
        if not isinstance(mixture_distribution, Categorical) or not parts:
            raise located(ValueError(
                f"MixtureSameFamily: got {type(mixture_distribution).__name__} weights and a batch "
                f"of shape {parts}; it takes a Categorical and a distribution with a batch"
            ))  # fmt: skip
        count = tuple(mixture_distribution.param_shape)[-1]
        if count != parts[-1]:
            raise located(ValueError(
                f"MixtureSameFamily: got {count} weights for {parts[-1]} components; they must be "
                f"as many"
            ))  # fmt: skip
        broadcast_shapes(tuple(mixture_distribution.batch_shape), parts[:-1])
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        self._num_component = count
        self._event_ndims = len(component_distribution.event_shape)
        super().__init__(parts[:-1], component_distribution.event_shape, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        batch = tuple(batch_shape)
        return MixtureSameFamily(
            self._mixture_distribution.expand(batch),
            self._component_distribution.expand((*batch, self._num_component)),
            validate_args=False,
        )

    @constraints.dependent_property
    def support(self) -> Any:
        """What the components give."""
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    @property
    def mixture_distribution(self) -> Any:
        """The weights."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    def _weights(self) -> Tensor:
        probs = self._mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1,) * self._event_ndims)

    def _averaged(self, x: Tensor) -> Tensor:
        return (self._weights() * x).sum(-1 - self._event_ndims)

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the means."""
        return self._averaged(self._component_distribution.mean)

    @property
    def variance(self) -> Tensor:
        """The mean of the variances, plus the variance of the means."""
        part = self._component_distribution
        apart = part.mean - self.mean.unsqueeze(-1 - self._event_ndims)
        return self._averaged(part.variance) + self._averaged(apart * apart)

    def _spread(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1 - self._event_ndims)

    def cdf(self, value: Tensor) -> Tensor:
        """The weighted mean of the components'."""
        parts = self._component_distribution.cdf(self._spread(value))
        return (parts * self._mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """``log sum of weight p(value)``."""
        if self._validate_args:
            self._validate_sample(value)
        parts = self._component_distribution.log_prob(self._spread(value))
        return logsumexp(parts + log_softmax(self._mixture_distribution.logits, -1), -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws a component, then from it."""
        first = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        which = self._mixture_distribution.sample(first)
        drawn = self._component_distribution.sample(first)
        axis = drawn.ndim - 1 - self._event_ndims
        event = tuple(self._event_shape)
        index = which.reshape(*which.shape, 1, *(1,) * len(event))
        index = index.expand(*drawn.shape[:axis], 1, *event)
        return gather(drawn, axis, index).squeeze(axis)

    def __repr__(self) -> str:
        return (
            f"MixtureSameFamily(\n  {self._mixture_distribution!r},\n  "
            f"{self._component_distribution!r})"
        )


__all__ = ["Independent", "MixtureSameFamily", "TransformedDistribution"]
