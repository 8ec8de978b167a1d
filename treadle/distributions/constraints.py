"""Sets of values: what a parameter may be, and what a distribution gives.

``constraint.check(value)`` says of every element (or vector, or matrix) whether it is in the set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.tensor.joining import cat as cat_tensors
from treadle.tensor.joining import stack as stack_tensors
from treadle.tensor.tensor import Tensor


class Constraint:
    """A set of values.

    ``is_discrete``: of integers; ``event_dim``: how many of the last dimensions belong together.
    ``rule``: the rule of ``ops.checks`` that tests the elements one by one, where there is one.
    """

    is_discrete = False
    event_dim = 0
    rule: str | None = None

    def check(self, value: Any) -> Any:
        """Which elements are in the set: bool, without the event dimensions."""
        raise NotImplementedError(f"{type(self).__name__} has no check()")

    def __repr__(self) -> str:
        return type(self).__name__.lstrip("_").replace("_", " ").title().replace(" ", "") + "()"


class _Dependent(Constraint):
    """A set that depends on the other parameters: known of instances only."""

    def __init__(self, *, is_discrete: Any = NotImplemented, event_dim: Any = NotImplemented):
        self._known = {"is_discrete": is_discrete, "event_dim": event_dim}

    def __getattribute__(self, name: str) -> Any:
        if name in ("is_discrete", "event_dim"):
            value = object.__getattribute__(self, "_known")[name]
            if value is NotImplemented:
                raise NotImplementedError(f".{name} cannot be determined of the class alone")
            return value
        return object.__getattribute__(self, name)

    def __call__(
        self, *, is_discrete: Any = NotImplemented, event_dim: Any = NotImplemented
    ) -> Any:
        """The set with what is known of it."""
        known = self._known
        return _Dependent(
            is_discrete=known["is_discrete"] if is_discrete is NotImplemented else is_discrete,
            event_dim=known["event_dim"] if event_dim is NotImplemented else event_dim,
        )

    def check(self, value: Any) -> Any:
        """Raises ValueError: ask an instance of the distribution."""
        raise ValueError("a dependent constraint has no check(); ask an instance for its support")


def is_dependent(constraint: Any) -> bool:
    """Whether a set is known of instances only."""
    return isinstance(constraint, _Dependent)


class _DependentProperty(property, _Dependent):
    """A property of distributions that is a dependent constraint when asked of the class."""

    def __init__(
        self, fn: Callable[..., Any] | None = None, *, is_discrete: Any = NotImplemented,
        event_dim: Any = NotImplemented,
    ) -> None:  # fmt: skip
        property.__init__(self, fn)
        _Dependent.__init__(self, is_discrete=is_discrete, event_dim=event_dim)

    def __call__(self, fn: Callable[..., Any]) -> Any:  # type: ignore[override]
        """The property of ``fn``."""
        return _DependentProperty(fn, **self._known)


class _IndependentConstraint(Constraint):
    """A set whose last ``reinterpreted_batch_ndims`` dimensions belong together too."""

    def __init__(self, base_constraint: Any, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.is_discrete = base_constraint.is_discrete
        self.event_dim = base_constraint.event_dim + reinterpreted_batch_ndims
        self.rule = base_constraint.rule

    def check(self, value: Any) -> Any:
        """Whether all elements that belong together are in the set."""
        result = self.base_constraint.check(value)
        count = self.reinterpreted_batch_ndims
        if result.ndim < count:
            raise ValueError(
                f"independent: got a value with {result.ndim} dimensions, but {count} belong "
                f"together; give it as many"
            )
        return result.reshape(*result.shape[: result.ndim - count], -1).all(-1) if count else result

    def __repr__(self) -> str:
        return f"IndependentConstraint({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamilyConstraint(Constraint):
    """The set of what the components of a mixture give."""

    def __init__(self, base_constraint: Any) -> None:
        self.base_constraint = base_constraint
        self.is_discrete = base_constraint.is_discrete
        self.event_dim = base_constraint.event_dim

    def check(self, value: Any) -> Any:
        """Whether the value is in every component's set."""
        event = self.event_dim
        spread = value.unsqueeze(-1 - event)
        result = self.base_constraint.check(spread)
        return result.all(-1)


class _Boolean(Constraint):
    is_discrete = True

    def check(self, value: Any) -> Any:
        """0 or 1."""
        return (value == 0) | (value == 1)


class _OneHot(Constraint):
    is_discrete = True
    event_dim = 1

    def check(self, value: Any) -> Any:
        """Vectors of one 1 among zeros."""
        return ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == 1)


class _Bounded(Constraint):
    """Values compared with bounds, each of which may be left out."""

    def __init__(self, lower_bound: Any = None, upper_bound: Any = None) -> None:
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={x}" for name, x in (
                ("lower_bound", self.lower_bound), ("upper_bound", self.upper_bound)
            ) if x is not None
        )  # fmt: skip
        return f"{type(self).__name__.lstrip('_')}({shown})"


class _IntegerInterval(_Bounded):
    is_discrete = True

    def check(self, value: Any) -> Any:
        """Whole numbers, both bounds included."""
        return (value % 1 == 0) & (value >= self.lower_bound) & (value <= self.upper_bound)


class _IntegerGreaterThan(_Bounded):
    is_discrete = True

    def check(self, value: Any) -> Any:
        """Whole numbers from the bound on."""
        return (value % 1 == 0) & (value >= self.lower_bound)


class _GreaterThan(_Bounded):
    def check(self, value: Any) -> Any:
        """Above the bound."""
        return value > self.lower_bound


class _GreaterThanEq(_Bounded):
    def check(self, value: Any) -> Any:
        """The bound or more."""
        return value >= self.lower_bound


class _LessThan(_Bounded):
    def __init__(self, upper_bound: Any) -> None:
        super().__init__(None, upper_bound)

    def check(self, value: Any) -> Any:
        """Below the bound."""
        return value < self.upper_bound


class _Interval(_Bounded):
    def check(self, value: Any) -> Any:
        """Both bounds included."""
        return (value >= self.lower_bound) & (value <= self.upper_bound)


class _HalfOpenInterval(_Bounded):
    def check(self, value: Any) -> Any:
        """The lower bound included, the upper one not."""
        return (value >= self.lower_bound) & (value < self.upper_bound)


class _Real(Constraint):
    rule = "not_nan"

    def check(self, value: Any) -> Any:
        """Anything but NaN."""
        return value == value


class _Positive(_GreaterThan):
    rule = "positive"

    def __init__(self) -> None:
        super().__init__(0.0)


class _Nonnegative(_GreaterThanEq):
    rule = "not_negative"

    def __init__(self) -> None:
        super().__init__(0.0)


class _UnitInterval(_Interval):
    rule = "in_unit_interval"

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)


class _Simplex(Constraint):
    event_dim = 1
    rule = "not_negative"

    def check(self, value: Any) -> Any:
        """Vectors of numbers that are not negative and sum to 1."""
        return (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-6)


class _Multinomial(Constraint):
    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, value: Any) -> Any:
        """Vectors of counts whose sum is the bound."""
        return (value >= 0).all(-1) & (value.sum(-1) <= self.upper_bound)


class _Square(Constraint):
    event_dim = 2

    def check(self, value: Any) -> Any:
        """Square matrices."""
        from treadle.tensor.creation import full

        fits = value.shape[-2] == value.shape[-1]
        return full(tuple(value.shape[:-2]), fits, dtype=dtypes.bool_)


class _Symmetric(_Square):
    def check(self, value: Any) -> Any:
        """Symmetric matrices."""
        if not (fits := super().check(value)).all():
            return fits
        return ((value - value.mT).abs() <= 1e-6).flatten(-2).all(-1)


class _PositiveSemidefinite(_Symmetric):
    def check(self, value: Any) -> Any:
        """Symmetric matrices without negative eigenvalues."""
        fits = super().check(value)
        return fits & _eigenvalues(value).ge(0).all(-1) if fits.all() else fits


class _PositiveDefinite(_Symmetric):
    def check(self, value: Any) -> Any:
        """Symmetric matrices of positive eigenvalues."""
        fits = super().check(value)
        return fits & _eigenvalues(value).gt(0).all(-1) if fits.all() else fits


def _eigenvalues(value: Tensor) -> Tensor:
    from treadle.base.lazy_numpy import np
    from treadle.tensor.creation import tensor

    return tensor(np.linalg.eigvalsh(value.detach().numpy()))


class _LowerTriangular(Constraint):
    event_dim = 2

    def check(self, value: Any) -> Any:
        """Matrices without anything above the diagonal."""
        return (value.tril() == value).flatten(-2).all(-1)


class _LowerCholesky(_LowerTriangular):
    def check(self, value: Any) -> Any:
        """Lower triangular matrices with a positive diagonal."""
        return super().check(value) & (value.diagonal(0, -2, -1) > 0).all(-1)


class _CorrCholesky(_LowerCholesky):
    def check(self, value: Any) -> Any:
        """Such matrices whose rows have length 1."""
        is_unit = ((value * value).sum(-1) - 1).abs() < 1e-4
        return super().check(value) & is_unit.all(-1)


class _Cat(Constraint):
    """Several sets side by side along a dimension."""

    def __init__(
        self, cseq: Sequence[Any], dim: int = 0, lengths: Sequence[int] | None = None
    ) -> None:
        self.cseq = list(cseq)
        self.dim = dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq)

    def check(self, value: Any) -> Any:
        """Whether every part is in its set."""
        parts = value.split(self.lengths, self.dim)
        return cat_tensors([c.check(v) for c, v in zip(self.cseq, parts, strict=True)], self.dim)


class _Stack(Constraint):
    """Several sets along a dimension of their own."""

    def __init__(self, cseq: Sequence[Any], dim: int = 0) -> None:
        self.cseq = list(cseq)
        self.dim = dim
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        event = max(c.event_dim for c in self.cseq)
        self.event_dim = event + 1 if self.dim + event < 0 else event

    def check(self, value: Any) -> Any:
        """Whether every part is in its set."""
        parts = value.unbind(self.dim)
        return stack_tensors([c.check(v) for c, v in zip(self.cseq, parts, strict=True)], self.dim)


dependent = _Dependent()
dependent_property = _DependentProperty
independent = _IndependentConstraint
boolean = _Boolean()
one_hot = _OneHot()
nonnegative_integer = _IntegerGreaterThan(0)
positive_integer = _IntegerGreaterThan(1)
integer_interval = _IntegerInterval
real = _Real()
real_vector = independent(real, 1)
positive = _Positive()
nonnegative = _Nonnegative()
greater_than = _GreaterThan
greater_than_eq = _GreaterThanEq
less_than = _LessThan
multinomial = _Multinomial
unit_interval = _UnitInterval()
interval = _Interval
half_open_interval = _HalfOpenInterval
simplex = _Simplex()
lower_triangular = _LowerTriangular()
lower_cholesky = _LowerCholesky()
corr_cholesky = _CorrCholesky()
square = _Square()
symmetric = _Symmetric()
positive_semidefinite = _PositiveSemidefinite()
positive_definite = _PositiveDefinite()
cat = _Cat
stack = _Stack

__all__ = [
    "Constraint", "MixtureSameFamilyConstraint", "boolean", "cat", "corr_cholesky", "dependent",
    "dependent_property", "greater_than", "greater_than_eq", "half_open_interval", "independent",
    "integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky",
    "lower_triangular", "multinomial", "nonnegative", "nonnegative_integer", "one_hot", "positive",
    "positive_definite", "positive_integer", "positive_semidefinite", "real", "real_vector",
    "simplex", "square", "stack", "symmetric", "unit_interval",
]  # fmt: skip
