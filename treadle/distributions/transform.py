"""Transforms: invertible functions, their compositions and other views of them.

``transform(x)`` is y, ``transform.inv(y)`` is x, ``transform.log_abs_det_jacobian(x, y)`` the
logarithm of ``|dy/dx|``, summed over the dimensions that belong together.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

from treadle.base.shapes import prod
from treadle.distributions import constraints
from treadle.ir.node import located
from treadle.tensor.creation import zeros_like
from treadle.tensor.tensor import Tensor


def sum_rightmost(value: Any, dim: int) -> Any:
    """The sum over the last ``dim`` dimensions."""
    if dim == 0 or not isinstance(value, Tensor):
        return value
    return value.flatten(value.ndim - dim).sum(-1)


class Transform:
    """A function; subclasses define ``_call``, ``_inverse`` and ``log_abs_det_jacobian``.

    ``cache_size=1`` remembers the last pair (x, y), so that inverting y gives back that x.
    """

    bijective = False
    domain: Any
    codomain: Any

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise located(ValueError(f"Transform: got cache_size {cache_size}; it is 0 or 1"))
        self._cache_size = cache_size
        self._inv: Any = None
        self._last: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inv": None, "_last": None}

    @property
    def event_dim(self) -> int:
        """How many of the last dimensions belong together, before or after."""
        if self.domain.event_dim == self.codomain.event_dim:
            return self.domain.event_dim
        raise located(ValueError(f"{type(self).__name__}: use .domain.event_dim or .codomain's"))

    @property
    def inv(self) -> Transform:
        """The inverse."""
        found = None if self._inv is None else self._inv()
        if found is None:
            found = _InverseTransform(self)
            self._inv = weakref.ref(found)
        return found

    @property
    def sign(self) -> Any:
        """1 where it rises, -1 where it falls."""
        raise located(NotImplementedError(f"{type(self).__name__} has no sign"))

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same transform with that cache."""
        if self._cache_size == cache_size:
            return self
        raise located(NotImplementedError(f"{type(self).__name__} has no with_cache()"))

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __call__(self, x: Any) -> Any:
        """y."""
        if self._cache_size == 0:
            return self._call(x)
        if self._last is not None and x is self._last[0]:
            return self._last[1]
        y = self._call(x)
        self._last = x, y
        return y

    def _inv_call(self, y: Any) -> Any:
        if self._cache_size and self._last is not None and y is self._last[1]:
            return self._last[0]
        x = self._inverse(y)
        if self._cache_size:
            self._last = x, y
        return x

    def _call(self, x: Any) -> Any:
        raise located(NotImplementedError(f"{type(self).__name__} has no _call()"))

    def _inverse(self, y: Any) -> Any:
        raise located(NotImplementedError(f"{type(self).__name__} has no inverse"))

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``log |dy/dx|``."""
        raise located(NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian()"))

    def forward_shape(self, shape: Any) -> Any:
        """The shape of y."""
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        """The shape of x."""
        return shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _InverseTransform(Transform):
    """The other direction of a transform."""

    def __init__(self, transform: Transform) -> None:
        super().__init__(transform._cache_size)
        self._forward = transform
        self.bijective = transform.bijective

    @property
    def domain(self) -> Any:
        """The codomain of the other."""
        return self._forward.codomain

    @property
    def codomain(self) -> Any:
        """The domain of the other."""
        return self._forward.domain

    @property
    def sign(self) -> Any:
        """As the other."""
        return self._forward.sign

    @property
    def inv(self) -> Transform:
        """The other."""
        return self._forward

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The inverse of the other with that cache."""
        return self._forward.with_cache(cache_size).inv

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InverseTransform) and self._forward == other._forward

    __hash__ = object.__hash__

    def __call__(self, x: Any) -> Any:
        """The other's inverse."""
        return self._forward._inv_call(x)

    def _inv_call(self, y: Any) -> Any:
        return self._forward(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """The negative of the other's."""
        return -self._forward.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Any) -> Any:
        """The shape of the result."""
        return self._forward.inverse_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        """The shape of the argument."""
        return self._forward.forward_shape(shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._forward!r})"


class ComposeTransform(Transform):
    """Several transforms, one after the other."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = [p.with_cache(cache_size) for p in parts] if cache_size else list(parts)
        self.bijective = all(p.bijective for p in self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposeTransform) and self.parts == other.parts

    __hash__ = object.__hash__

    @property
    def domain(self) -> Any:
        """What the first takes, with the dimensions that any of them needs together."""
        if not self.parts:
            return constraints.real
        event = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            event = max(event + part.domain.event_dim - part.codomain.event_dim,
                        part.domain.event_dim)  # fmt: skip
        return widened(self.parts[0].domain, event)

    @property
    def codomain(self) -> Any:
        """What the last gives, with the dimensions that any of them needs together."""
        if not self.parts:
            return constraints.real
        event = self.parts[0].domain.event_dim
        for part in self.parts:
            event = max(event + part.codomain.event_dim - part.domain.event_dim,
                        part.codomain.event_dim)  # fmt: skip
        return widened(self.parts[-1].codomain, event)

    @property
    def sign(self) -> Any:
        """The product of all signs."""
        return math.prod(p.sign for p in self.parts)

    @property
    def inv(self) -> Transform:
        """The inverses in the opposite order."""
        found = None if self._inv is None else self._inv()
        if found is None:
            found = ComposeTransform([p.inv for p in reversed(self.parts)])
            self._inv = weakref.ref(found)
            found._inv = weakref.ref(self)
        return found

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return ComposeTransform(self.parts, cache_size)

    def __call__(self, x: Any) -> Any:
        """All applied in order."""
        for part in self.parts:
            x = part(x)
        return x

    def _inv_call(self, y: Any) -> Any:
        for part in reversed(self.parts):
            y = part._inv_call(y)
        return y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """The sum of all."""
        if not self.parts:
            return zeros_like(x)
        values = [x]
        for part in self.parts[:-1]:
            values.append(part(values[-1]))
        values.append(y)
        event = self.domain.event_dim
        total: Any = 0
        for part, before, after in zip(self.parts, values[:-1], values[1:], strict=True):
            slope = part.log_abs_det_jacobian(before, after)
            total = total + sum_rightmost(slope, event - part.domain.event_dim)
            event += part.codomain.event_dim - part.domain.event_dim
        return total

    def forward_shape(self, shape: Any) -> Any:
        """The shape after all."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        """The shape before all."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __repr__(self) -> str:
        inside = ",\n    ".join(repr(p) for p in self.parts)
        return f"ComposeTransform(\n    {inside}\n)"


def widened(constraint: Any, event: int) -> Any:
    """The constraint over at least ``event`` dimensions."""
    more = event - constraint.event_dim
    return constraints.independent(constraint, more) if more > 0 else constraint


class IndependentTransform(Transform):
    """A transform whose last ``reinterpreted_batch_ndims`` dimensions belong together too."""

    def __init__(
        self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.base_transform = base_transform.with_cache(cache_size)
        self.bijective = base_transform.bijective
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return IndependentTransform(self.base_transform, self.reinterpreted_batch_ndims, cache_size)

    @property
    def domain(self) -> Any:
        """The base's, over more dimensions."""
        return constraints.independent(self.base_transform.domain, self.reinterpreted_batch_ndims)

    @property
    def codomain(self) -> Any:
        """The base's, over more dimensions."""
        return constraints.independent(self.base_transform.codomain, self.reinterpreted_batch_ndims)

    @property
    def sign(self) -> Any:
        """As the base."""
        return self.base_transform.sign

    def _call(self, x: Any) -> Any:
        return self.base_transform(x)

    def _inverse(self, y: Any) -> Any:
        return self.base_transform._inv_call(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """The base's, summed."""
        slope = self.base_transform.log_abs_det_jacobian(x, y)
        return sum_rightmost(slope, self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Any) -> Any:
        """As the base."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        """As the base."""
        return self.base_transform.inverse_shape(shape)

    def __repr__(self) -> str:
        return f"IndependentTransform({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


class ReshapeTransform(Transform):
    """The last dimensions in another shape."""

    bijective = True

    def __init__(self, in_shape: Any, out_shape: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if prod(self.in_shape) != prod(self.out_shape):
            raise located(ValueError(
                f"ReshapeTransform: got in_shape {self.in_shape} and out_shape {self.out_shape}; "
                f"they must have as many elements"
            ))  # fmt: skip
        self.domain = constraints.independent(constraints.real, len(self.in_shape))
        self.codomain = constraints.independent(constraints.real, len(self.out_shape))

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return ReshapeTransform(self.in_shape, self.out_shape, cache_size)

    def _call(self, x: Any) -> Any:
        return x.reshape(tuple(x.shape)[: x.ndim - len(self.in_shape)] + self.out_shape)

    def _inverse(self, y: Any) -> Any:
        return y.reshape(tuple(y.shape)[: y.ndim - len(self.out_shape)] + self.in_shape)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """0."""
        return zeros_like(x).sum(tuple(range(x.ndim - len(self.in_shape), x.ndim)))

    def forward_shape(self, shape: Any) -> Any:
        """The shape with the last dimensions replaced."""
        return _replaced(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Any) -> Any:
        """The shape with the last dimensions replaced."""
        return _replaced(shape, self.out_shape, self.in_shape)


def _replaced(shape: Any, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
    cut = len(shape) - len(old)
    if cut < 0 or tuple(shape[cut:]) != old:
        raise located(ValueError(
            f"ReshapeTransform: got the shape {tuple(shape)}; it must end in {old}"
        ))  # fmt: skip
    return tuple(shape[:cut]) + new


__all__ = [
    "ComposeTransform", "IndependentTransform", "ReshapeTransform", "Transform", "sum_rightmost",
    "widened",
]  # fmt: skip
