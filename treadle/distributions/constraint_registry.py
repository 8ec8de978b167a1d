"""Transforms onto sets: ``biject_to(constraint)`` is one to one, ``transform_to(constraint)`` onto.

>>> import treadle
>>> from treadle.distributions import constraints, transform_to
>>> transform_to(constraints.positive)(treadle.zeros(2)).tolist()
[1.0, 1.0]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.distributions import constraints, transforms
from treadle.ir.node import located


class ConstraintRegistry:
    """Makers of transforms by the class of a constraint."""

    def __init__(self) -> None:
        self._registry: dict[type, Callable[[Any], Any]] = {}

    def register(self, constraint: Any, factory: Any = None) -> Any:
        """Registers ``factory(constraint)``; as a decorator without it."""
        if factory is None:
            return lambda made: self.register(constraint, made)
        kind = constraint if isinstance(constraint, type) else type(constraint)
        if not issubclass(kind, constraints.Constraint):
            raise located(TypeError(
                f"register: got {constraint!r}; it takes a Constraint or a class of them"
            ))  # fmt: skip
        self._registry[kind] = factory
        return factory

    def __call__(self, constraint: Any) -> Any:
        """The transform from all numbers onto the constraint."""
        factory = self._registry.get(type(constraint))
        if factory is None:
            raise located(NotImplementedError(
                f"no transform onto {type(constraint).__name__} is known; register one with "
                f".register(constraint, factory)"
            ))  # fmt: skip
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _both(constraint: Any, factory: Callable[[Any], Any]) -> None:
    biject_to.register(constraint, factory)
    transform_to.register(constraint, factory)


def _between(constraint: Any) -> Any:
    low, high = constraint.lower_bound, constraint.upper_bound
    squash = transforms.SigmoidTransform()
    if isinstance(low, (int, float)) and (low, high) == (0, 1):
        return squash
    shift = transforms.AffineTransform(low, high - low)
    return transforms.ComposeTransform([squash, shift])


def _above(constraint: Any) -> Any:
    grow, shift = transforms.ExpTransform(), transforms.AffineTransform(constraint.lower_bound, 1)
    return transforms.ComposeTransform([grow, shift])


def _below(constraint: Any) -> Any:
    grow, turn = transforms.ExpTransform(), transforms.AffineTransform(constraint.upper_bound, -1)
    return transforms.ComposeTransform([grow, turn])


_both(constraints.real, lambda c: transforms.identity_transform)
for _kind in (constraints.positive, constraints.nonnegative):
    _both(_kind, lambda c: transforms.ExpTransform())
_both(constraints.greater_than, _above)
_both(constraints.greater_than_eq, _above)
_both(constraints.less_than, _below)
_both(constraints.interval, _between)
_both(constraints.half_open_interval, _between)
_both(constraints.unit_interval, _between)
_both(constraints.corr_cholesky, lambda c: transforms.CorrCholeskyTransform())
_both(constraints.lower_cholesky, lambda c: transforms.LowerCholeskyTransform())
_both(constraints.positive_definite, lambda c: transforms.PositiveDefiniteTransform())
_both(constraints.positive_semidefinite, lambda c: transforms.PositiveDefiniteTransform())
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())


def _register_combinations(registry: ConstraintRegistry) -> None:
    def independent(c: Any) -> Any:
        base = registry(c.base_constraint)
        return transforms.IndependentTransform(base, c.reinterpreted_batch_ndims)

    def cat(c: Any) -> Any:
        return transforms.CatTransform([registry(part) for part in c.cseq], c.dim, c.lengths)

    def stack(c: Any) -> Any:
        return transforms.StackTransform([registry(part) for part in c.cseq], c.dim)

    registry.register(constraints.independent, independent)
    registry.register(constraints.cat, cat)
    registry.register(constraints.stack, stack)


_register_combinations(biject_to)
_register_combinations(transform_to)

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]
