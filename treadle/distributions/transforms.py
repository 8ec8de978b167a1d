"""Invertible functions of random variables, with the logarithms of their slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from treadle.distributions import constraints
from treadle.distributions.transform import (
    ComposeTransform,
    IndependentTransform,
    ReshapeTransform,
    Transform,
    sum_rightmost,
    widened,
)
from treadle.distributions.utils import (
    eps_of,
    softplus,
    tiny_of,
    tril_matrix_to_vec,
    vec_to_tril_matrix,
)
from treadle.ir.node import located
from treadle.tensor.creation import eye, ones, zeros_like
from treadle.tensor.joining import cat, pad, stack
from treadle.tensor.reduction import softmax
from treadle.tensor.tensor import Tensor


class _Elementwise(Transform):
    """Transforms without settings: equal where they are of one class."""

    bijective = True
    domain: Any = constraints.real
    sign = 1

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    __hash__ = object.__hash__

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        return self if self._cache_size == cache_size else type(self)(cache_size)


class ExpTransform(_Elementwise):
    """``y = exp(x)``."""

    codomain = constraints.positive

    def _call(self, x: Any) -> Any:
        return x.exp()

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``x``."""
        return x


class SigmoidTransform(_Elementwise):
    """``y = 1 / (1 + exp(-x))``."""

    codomain = constraints.unit_interval

    def _call(self, x: Any) -> Any:
        return x.sigmoid().clamp(tiny_of(x), 1.0 - eps_of(x))

    def _inverse(self, y: Any) -> Any:
        y = y.clamp(tiny_of(y), 1.0 - eps_of(y))
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``-softplus(-x) - softplus(x)``."""
        return -softplus(-x) - softplus(x)


class SoftplusTransform(_Elementwise):
    """``y = log(1 + exp(x))``."""

    codomain = constraints.positive

    def _call(self, x: Any) -> Any:
        return softplus(x)

    def _inverse(self, y: Any) -> Any:
        return (-(-y).expm1()).log() + y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``-softplus(-x)``."""
        return -softplus(-x)


class TanhTransform(_Elementwise):
    """``y = tanh(x)``."""

    codomain = constraints.interval(-1.0, 1.0)

    def _call(self, x: Any) -> Any:
        return x.tanh()

    def _inverse(self, y: Any) -> Any:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``2 (log 2 - x - softplus(-2 x))``."""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class AbsTransform(_Elementwise):
    """``y = |x|``; the inverse gives the positive one."""

    bijective = False
    codomain = constraints.positive

    def _call(self, x: Any) -> Any:
        return x.abs()

    def _inverse(self, y: Any) -> Any:
        return y


class PowerTransform(Transform):
    """``y = x^exponent`` for positive x."""

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return PowerTransform(self.exponent, cache_size)

    @property
    def sign(self) -> Any:
        """That of the exponent."""
        e = self.exponent
        return e.sign() if isinstance(e, Tensor) else math.copysign(1, e)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerTransform) and _equal(self.exponent, other.exponent)

    __hash__ = object.__hash__

    def _call(self, x: Any) -> Any:
        return x**self.exponent

    def _inverse(self, y: Any) -> Any:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``log |exponent y / x|``."""
        return (self.exponent * y / x).abs().log()


def _equal(a: Any, b: Any) -> bool:
    same = a == b
    return bool(same.all()) if isinstance(same, Tensor) else bool(same)


class AffineTransform(Transform):
    """``y = loc + scale * x``."""

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc = loc
        self.scale = scale
        self._event_dim = event_dim

    @property
    def event_dim(self) -> int:
        """How many of the last dimensions belong together."""
        return self._event_dim

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return AffineTransform(self.loc, self.scale, self.event_dim, cache_size)

    @property
    def domain(self) -> Any:
        """All numbers."""
        return widened(constraints.real, self.event_dim)

    codomain = domain

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, AffineTransform)
            and _equal(self.loc, other.loc) and _equal(self.scale, other.scale)
        )  # fmt: skip

    __hash__ = object.__hash__

    @property
    def sign(self) -> Any:
        """That of the scale."""
        s = self.scale
        if isinstance(s, Tensor):
            return s.sign()
        return (s > 0) - (s < 0)

    def _call(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Any) -> Any:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """``log |scale|``."""
        s = self.scale
        slope = s.abs().log() if isinstance(s, Tensor) else math.log(abs(s))
        return sum_rightmost(zeros_like(x) + slope, self.event_dim)


identity_transform = ComposeTransform([])


class SoftmaxTransform(_Elementwise):
    """``y = exp(x) / sum exp(x)``; the inverse, ``log y``, is one of many."""

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = False

    def _call(self, x: Any) -> Any:
        return softmax(x, -1)

    def _inverse(self, y: Any) -> Any:
        return y.log()


class StickBreakingTransform(_Elementwise):
    """From n - 1 numbers to n positive ones of sum 1: each takes a share of what is left."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _offsets(self, x: Any) -> Any:
        return (x.shape[-1] + 1 - ones(x.shape[-1], dtype=x.dtype).cumsum(-1)).log()

    def _call(self, x: Any) -> Any:
        z = SigmoidTransform()(x - self._offsets(x))
        left = (1 - z).cumprod(-1)
        return pad(z, (0, 1), value=1) * pad(left, (1, 0), value=1)

    def _inverse(self, y: Any) -> Any:
        cut = y[..., :-1]
        offset = y.shape[-1] - ones(cut.shape[-1], dtype=y.dtype).cumsum(-1)
        left = (1 - cut.cumsum(-1)).clamp(min=tiny_of(y))
        return cut.log() - left.log() + offset.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """The sum over the shares."""
        shifted = x - self._offsets(x)
        return (-shifted - softplus(-shifted) + y[..., :-1].log()).sum(-1) + 0 * shifted.sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        """One more."""
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: Any) -> Any:
        """One less."""
        return (*shape[:-1], shape[-1] - 1)


class CorrCholeskyTransform(_Elementwise):
    """From n (n - 1) / 2 numbers to the Cholesky factor of a correlation matrix of n rows."""

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky

    def _call(self, x: Any) -> Any:
        r = x.tanh()
        eps = eps_of(x)
        r = vec_to_tril_matrix(r.clamp(-1 + eps, 1 - eps), diag=-1)
        left = (1 - r * r).sqrt().cumprod(-1)
        r = r + eye(r.shape[-1], dtype=r.dtype)
        return r * pad(left[..., :-1], (1, 0), value=1)

    def _inverse(self, y: Any) -> Any:
        left = 1 - (y * y).cumsum(-1)
        shifted = pad(left[..., :-1], (1, 0), value=1)
        t = tril_matrix_to_vec(y, diag=-1) / tril_matrix_to_vec(shifted, diag=-1).sqrt()
        return (t.log1p() - (-t).log1p()) / 2

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Of the shares and of tanh."""
        left = 1 - (y * y).cumsum(-1)
        below = tril_matrix_to_vec(left, diag=-2)
        stick = 0.5 * below.log().sum(-1)
        return stick - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        """Of the matrix."""
        size = round((0.25 + 2 * shape[-1]) ** 0.5 + 0.5)
        if size * (size - 1) // 2 != shape[-1]:
            raise located(ValueError(
                f"CorrCholeskyTransform: got {shape[-1]} numbers; there are n (n - 1) / 2"
            ))  # fmt: skip
        return (*shape[:-1], size, size)

    def inverse_shape(self, shape: Any) -> Any:
        """Of the vector."""
        return (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)


class LowerCholeskyTransform(_Elementwise):
    """The part below the diagonal as it is, the diagonal's exponential."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Any) -> Any:
        return x.tril(-1) + x.diagonal(0, -2, -1).exp().diag_embed()

    def _inverse(self, y: Any) -> Any:
        return y.tril(-1) + y.diagonal(0, -2, -1).log().diag_embed()


class PositiveDefiniteTransform(_Elementwise):
    """``L L^T`` of the ``LowerCholeskyTransform``."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Any) -> Any:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Any) -> Any:
        from treadle.linalg import cholesky

        return LowerCholeskyTransform().inv(cholesky(y))


class CatTransform(Transform):
    """Several transforms of the parts of a tensor, cut along a dimension."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        self.dim = dim
        self.bijective = all(t.bijective for t in self.transforms)
        self.domain = constraints.cat([t.domain for t in self.transforms], dim, self.lengths)
        self.codomain = constraints.cat([t.codomain for t in self.transforms], dim, self.lengths)

    @property
    def length(self) -> int:
        """The size of the dimension."""
        return sum(self.lengths)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return CatTransform(self.transforms, self.dim, self.lengths, cache_size)

    def _parts(self, x: Tensor) -> Any:
        return zip(self.transforms, x.split(self.lengths, self.dim), strict=True)

    def _call(self, x: Any) -> Any:
        return cat([t(part) for t, part in self._parts(x)], self.dim)

    def _inverse(self, y: Any) -> Any:
        return cat([t.inv(part) for t, part in self._parts(y)], self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Those of the parts, side by side."""
        event = self.domain.event_dim
        results = y.split(self.lengths, self.dim)
        slopes = [
            sum_rightmost(t.log_abs_det_jacobian(part, result), event - t.domain.event_dim)
            for (t, part), result in zip(self._parts(x), results, strict=True)
        ]
        dim = self.dim - x.ndim if self.dim >= 0 else self.dim
        return cat(slopes, dim + event) if dim + event < 0 else sum(slopes)


class StackTransform(Transform):
    """A transform of its own for every index of a dimension."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.dim = dim
        self.bijective = all(t.bijective for t in self.transforms)
        self.domain = constraints.stack([t.domain for t in self.transforms], dim)
        self.codomain = constraints.stack([t.codomain for t in self.transforms], dim)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return StackTransform(self.transforms, self.dim, cache_size)

    def _call(self, x: Any) -> Any:
        parts = zip(self.transforms, x.unbind(self.dim), strict=True)
        return stack([t(part) for t, part in parts], self.dim)

    def _inverse(self, y: Any) -> Any:
        parts = zip(self.transforms, y.unbind(self.dim), strict=True)
        return stack([t.inv(part) for t, part in parts], self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Those of the parts."""
        parts = zip(self.transforms, x.unbind(self.dim), y.unbind(self.dim), strict=True)
        return stack([t.log_abs_det_jacobian(a, b) for t, a, b in parts], self.dim)


class CumulativeDistributionTransform(Transform):
    """``y = cdf(x)`` of a distribution."""

    bijective = True
    codomain = constraints.unit_interval
    sign = 1

    def __init__(self, distribution: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:
        """The support of the distribution."""
        return self.distribution.support

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with that cache."""
        if self._cache_size == cache_size:
            return self
        return CumulativeDistributionTransform(self.distribution, cache_size)

    def _call(self, x: Any) -> Any:
        return self.distribution.cdf(x)

    def _inverse(self, y: Any) -> Any:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """The log-density."""
        return self.distribution.log_prob(x)


__all__ = [
    "AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform", "CorrCholeskyTransform",
    "CumulativeDistributionTransform", "ExpTransform", "IndependentTransform",
    "LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform", "ReshapeTransform",
    "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StackTransform",
    "StickBreakingTransform", "TanhTransform", "Transform", "identity_transform",
]  # fmt: skip
