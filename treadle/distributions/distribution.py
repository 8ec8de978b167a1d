"""The base of all distributions.

Parameters and values are tested against their constraints, as in PyTorch. Values that are there
are tested at once (ValueError); parameters that are still to be computed, such as what a network
gives, when they are (RuntimeError), so that testing them waits for nothing.
"""

from __future__ import annotations

from typing import Any, Self

from treadle.base.errors import ShapeError
from treadle.base.shapes import broadcast_shapes
from treadle.distributions import constraints
from treadle.distributions.utils import lazy_property
from treadle.ir.node import Recording, Scalar, located, recorder
from treadle.ops.checks import RULES, check
from treadle.ops.movement import detach, expand, reshape
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.gradients import grad
from treadle.tensor.handle import wrap
from treadle.tensor.storage import array_of
from treadle.tensor.tensor import Size, Tensor


class Distribution:
    """A probability distribution, or a batch of independent ones.

    ``batch_shape`` says how many there are, ``event_shape`` what one draw of one of them is;
    samples have the shape (sample_shape, batch_shape, event_shape).
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = True
    arg_constraints: Any = {}
    support: Any = None

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether parameters and values are tested unless ``validate_args`` says otherwise."""
        if value not in (True, False):
            raise located(ValueError(
                f"set_default_validate_args: got {value!r}; it is True or False"
            ))  # fmt: skip
        Distribution._validate_args = value

    def __init__(
        self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None
    ) -> None:
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        for name, constraint in self.arg_constraints.items():
            given = self.__dict__.get(name)  # what is computed from others is not looked at
            if given is None or constraints.is_dependent(constraint):
                continue
            words = f"{type(self).__name__}: got {name} = {{value}}{{where}}; it must be in "
            self.__dict__[name] = _checked(given, constraint, words + f"{constraint!r}")

    def _validate_sample(self, value: Any) -> None:
        """ValueError for values that do not belong to the distribution, where they are known."""
        if not isinstance(value, Tensor):
            raise located(ValueError(
                f"{type(self).__name__}: got the value {value!r}; it must be a tensor"
            ))  # fmt: skip
        events = len(self._event_shape)
        shape = tuple(value.shape)
        if shape[len(shape) - events :] != tuple(self._event_shape):
            raise located(ShapeError(
                f"{type(self).__name__}: got a value of shape {shape}; it must end in "
                f"{tuple(self._event_shape)}"
            ))  # fmt: skip
        broadcast_shapes(shape, (*self._batch_shape, *self._event_shape))
        support = self.support
        if support is None or constraints.is_dependent(support):
            return
        known = _known(value)
        if known is not None and not _fits(support, value, known):
            raise located(ValueError(
                f"{type(self).__name__}: got a value of shape {shape} with elements outside the "
                f"support {support!r}; pass validate_args=False to compute with them"
            ))  # fmt: skip

    # --- what it is ------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> Size:
        """The shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one draw."""
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise self._has_no("mean")

    @property
    def mode(self) -> Tensor:
        """The most likely value."""
        raise self._has_no("mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise self._has_no("variance")

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def _has_no(self, what: str) -> Exception:
        return located(NotImplementedError(f"{type(self).__name__} has no {what}"))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        raise self._has_no("expand()")

    def _expanded(self, batch_shape: Any, *names: str, events: int = 0) -> Self:
        """A copy whose parameters are expanded; ``events`` of their dimensions belong together."""
        new = type(self).__new__(type(self))
        batch = tuple(batch_shape)
        new.__dict__.update({
            k: x for k, x in self.__dict__.items()
            if not isinstance(getattr(type(self), k, None), lazy_property)
        })  # fmt: skip
        for name in names:
            if name in self.__dict__:
                x = self.__dict__[name]
                last = tuple(x.shape)[x.ndim - events :] if events else ()
                new.__dict__[name] = x.expand(batch + last)
        new._batch_shape = Size(batch)
        return new

    # --- drawing ---------------------------------------------------------------------------------

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        """The shape of ``sample(sample_shape)``."""
        first = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        return Size(first + tuple(self._batch_shape) + tuple(self._event_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        with no_grad():
            return self.rsample(sample_shape).detach()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        raise self._has_no("rsample()")

    def sample_n(self, n: int) -> Tensor:
        """PyTorch's older name for ``sample((n,))``."""
        return self.sample((n,))

    # --- values ----------------------------------------------------------------------------------

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, of a value."""
        raise self._has_no("log_prob()")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value or less."""
        raise self._has_no("cdf()")

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which that much of the probability lies."""
        raise self._has_no("icdf()")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a discrete distribution."""
        raise self._has_no("enumerate_support()")

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        raise self._has_no("entropy()")

    def perplexity(self) -> Tensor:
        """``exp(entropy)``."""
        return self.entropy().exp()

    def __repr__(self) -> str:
        names = [n for n in self.arg_constraints if n in self.__dict__]
        shown = []
        for name in names:
            x = self.__dict__[name]
            is_one = isinstance(x, Tensor) and x.numel() == 1
            shape = f"Size({list(x.shape)})" if isinstance(x, Tensor) else x
            shown.append(f"{name}: {x.item() if is_one else shape}")
        return f"{type(self).__name__}({', '.join(shown)})"


class ExponentialFamily(Distribution):
    """``p(x) = exp(t(x) * theta - F(theta) + k(x))``; entropy and divergence by gradients of F."""

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise self._has_no("_natural_params")

    def _log_normalizer(self, *natural_params: Any) -> Tensor:
        raise self._has_no("_log_normalizer()")

    @property
    def _mean_carrier_measure(self) -> Any:
        raise self._has_no("_mean_carrier_measure")

    def entropy(self) -> Tensor:
        """``F(theta) - theta * F'(theta) - E[k(x)]``."""
        params = [p.detach().requires_grad_() for p in self._natural_params]
        normalizer = self._log_normalizer(*params)
        slopes = grad(normalizer.sum(), params, create_graph=True)
        result = normalizer - self._mean_carrier_measure
        for p, slope in zip(params, slopes, strict=True):
            term = p * slope
            kept = len(self._batch_shape)
            result = result - (term.flatten(kept).sum(-1) if term.ndim > kept else term)
        return result


# --- testing values -------------------------------------------------------------------------------


def _known(value: Tensor) -> Any:
    """The values that a tensor shows as an array, before it was expanded; None if not there yet."""
    node = value.node
    while not isinstance(node, Scalar) and node.value is None:
        if node.op not in (detach, expand, reshape):
            return None
        node = node.inputs[0]
    return array_of(node)


def _fits(constraint: Any, value: Tensor, known: Any) -> bool:
    """Whether known values keep to a constraint; what else is pending stays so."""
    rule = constraint.rule
    if rule is not None and value.is_floating_point():
        return not RULES[rule].find(known).any()
    state, recorder.state = recorder.state, Recording()
    recorder.state.grad_enabled = False
    try:
        return bool(constraint.check(value).all())
    finally:
        recorder.state = state


def _checked(value: Any, constraint: Any, words: str) -> Any:
    """The value, tested now or when it is computed."""
    if not isinstance(value, Tensor):
        return value
    known = _known(value)
    if known is not None:
        if not _fits(constraint, value, known):
            raise located(ValueError(words.format(value=known.ravel()[:8].tolist(), where="")))
        return value
    if constraint.rule is None or not value.is_floating_point():
        return value
    return wrap(check(value.node, rule=constraint.rule, limits=(), words=words))


__all__ = ["Distribution", "ExponentialFamily"]
