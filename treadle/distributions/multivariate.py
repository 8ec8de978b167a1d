"""Distributions of vectors and of matrices."""

from __future__ import annotations

import math
from typing import Any

from treadle.base.shapes import broadcast_shapes
from treadle.distributions import constraints
from treadle.distributions.distribution import Distribution, ExponentialFamily
from treadle.distributions.positive import Beta
from treadle.distributions.utils import broadcast_all, eps_of, lazy_property, tiny_of
from treadle.ir.node import located
from treadle.random.gamma import standard_gamma
from treadle.random.sampling import randn
from treadle.tensor.creation import arange, eye, full
from treadle.tensor.functions import mvlgamma
from treadle.tensor.joining import pad
from treadle.tensor.tensor import Size, Tensor

_LOG_TAU = math.log(2 * math.pi)


def cholesky(x: Tensor) -> Tensor:
    """The lower triangular L with ``L L^T = x``."""
    from treadle.linalg import cholesky as factor

    return factor(x)


def solve_lower(factor: Tensor, x: Tensor) -> Tensor:
    """``factor^-1 x`` for a lower triangular factor."""
    from treadle.linalg import solve_triangular

    return solve_triangular(factor, x, upper=False)


def squared_distance(factor: Tensor, x: Tensor) -> Tensor:
    """``x^T (L L^T)^-1 x`` for factors (..., n, n) and vectors (..., n)."""
    batch = broadcast_shapes(tuple(factor.shape[:-2]), tuple(x.shape[:-1]))
    n = x.shape[-1]
    solved = solve_lower(factor.expand(*batch, n, n), x.expand(*batch, n).unsqueeze(-1))
    return (solved * solved).sum((-2, -1))


def log_diagonal(factor: Tensor) -> Tensor:
    """Half the logarithm of the determinant of ``L L^T``."""
    return factor.diagonal(0, -2, -1).log().sum(-1)


def factor_of_precision(precision: Tensor) -> Tensor:
    """The lower triangular factor of the inverse of a matrix."""
    turned = cholesky(precision.flip((-2, -1))).flip((-2, -1)).mT
    return solve_lower(turned, eye(precision.shape[-1], dtype=precision.dtype).expand_as(turned))


def _one_matrix(name: str, given: dict[str, Any]) -> str:
    """Which of several matrices was given."""
    names = [k for k, x in given.items() if x is not None]
    if len(names) != 1:
        raise located(ValueError(
            f"{name}: got {', '.join(names) or 'none'} of {', '.join(given)}; give exactly one"
        ))  # fmt: skip
    if given[names[0]].ndim < 2:
        raise located(ValueError(
            f"{name}: got {names[0]} of shape {tuple(given[names[0]].shape)}; it must have two "
            f"dimensions at least"
        ))  # fmt: skip
    return names[0]


class _OfMatrix(Distribution):
    """What the two with a covariance matrix share: one of three matrices, the others on demand."""

    _unbroadcasted_scale_tril: Tensor

    def _set_factor(self, which: str, matrix: Tensor) -> None:
        if which == "scale_tril":
            self._unbroadcasted_scale_tril = matrix
        elif which == "covariance_matrix":
            self._unbroadcasted_scale_tril = cholesky(matrix)
        else:
            self._unbroadcasted_scale_tril = factor_of_precision(matrix)

    def _matrix_shape(self) -> tuple[int, ...]:
        n = self._unbroadcasted_scale_tril.shape[-1]
        return (*self._batch_shape, n, n)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower triangular factor of the covariance."""
        return self._unbroadcasted_scale_tril.expand(self._matrix_shape())

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        factor = self._unbroadcasted_scale_tril
        return (factor @ factor.mT).expand(self._matrix_shape())

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        factor = self._unbroadcasted_scale_tril
        inverse = solve_lower(factor, eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor))
        return (inverse.mT @ inverse).expand(self._matrix_shape())


class MultivariateNormal(_OfMatrix):
    """Vectors ``loc + L z`` of independent normal numbers z, with covariance ``L L^T``.

    >>> import treadle
    >>> from treadle.distributions import MultivariateNormal
    >>> d = MultivariateNormal(treadle.zeros(2), scale_tril=treadle.eye(2))
    >>> round(d.log_prob(treadle.zeros(2)).item(), 4)
    -1.8379
    """

    arg_constraints = {
        "loc": constraints.real_vector, "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }  # fmt: skip
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, covariance_matrix: Any = None, precision_matrix: Any = None,
        scale_tril: Any = None, validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        given = {
            "covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }  # fmt: skip
        which = _one_matrix("MultivariateNormal", given)
        if loc.ndim < 1:
            raise located(ValueError(
                "MultivariateNormal: got a loc without dimensions; it is (..., n)"
            ))  # fmt: skip
        matrix = given[which]
        batch = broadcast_shapes(tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        n = loc.shape[-1]
        self.loc = loc.expand(*batch, n)
        self.__dict__[which] = matrix.expand(*batch, n, n)
        super().__init__(batch, (n,), validate_args=validate_args)
        self._set_factor(which, matrix)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "loc", events=1)

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        factor = self._unbroadcasted_scale_tril
        return (factor * factor).sum(-1).expand(*self._batch_shape, *self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = tuple(self._extended_shape(sample_shape))
        z = randn(shape, dtype=self.loc.dtype).unsqueeze(-1)
        return self.loc + (self._unbroadcasted_scale_tril @ z).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        factor = self._unbroadcasted_scale_tril
        distance = squared_distance(factor, value - self.loc)
        return -0.5 * (self._event_shape[0] * _LOG_TAU + distance) - log_diagonal(factor)

    def entropy(self) -> Tensor:
        """``n (1 + log 2 pi) / 2 + log det L``."""
        half = 0.5 * self._event_shape[0] * (1.0 + _LOG_TAU)
        return (half + log_diagonal(self._unbroadcasted_scale_tril)).expand(self._batch_shape)


class LowRankMultivariateNormal(Distribution):
    """``MultivariateNormal`` with the covariance ``W W^T + diag(D)``: W is (..., n, r), D (..., n).

    With r small, the inverse and the determinant come from a matrix of r rows (Woodbury).
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None:
        n = loc.shape[-1] if loc.ndim else 0
        if (
            loc.ndim < 1
            or cov_factor.ndim < 2
            or cov_factor.shape[-2] != n != 0
            or (cov_diag.shape[-1:] != (n,))
        ):
            raise located(ValueError(
                f"LowRankMultivariateNormal: got loc {tuple(loc.shape)}, cov_factor "
                f"{tuple(cov_factor.shape)} and cov_diag {tuple(cov_diag.shape)}; they are "
                f"(..., n), (..., n, r) and (..., n)"
            ))  # fmt: skip
        batch = broadcast_shapes(
            tuple(loc.shape[:-1]), tuple(cov_factor.shape[:-2]), tuple(cov_diag.shape[:-1])
        )
        self.loc = loc.expand(*batch, n)
        self.cov_factor = cov_factor.expand(*batch, *cov_factor.shape[-2:])
        self.cov_diag = cov_diag.expand(*batch, n)
        super().__init__(batch, (n,), validate_args=validate_args)
        self._capacitance_tril = self._capacitance()

    def _scaled(self) -> Tensor:
        """``W^T D^-1``."""
        return self.cov_factor.mT / self.cov_diag.unsqueeze(-2)

    def _capacitance(self) -> Tensor:
        """The factor of ``I + W^T D^-1 W``."""
        inner = self._scaled() @ self.cov_factor
        return cholesky(inner + eye(inner.shape[-1], dtype=inner.dtype))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        batch = tuple(batch_shape)
        return LowRankMultivariateNormal(
            self.loc.expand(*batch, *self._event_shape),
            self.cov_factor.expand(*batch, *self.cov_factor.shape[-2:]),
            self.cov_diag.expand(*batch, *self._event_shape), validate_args=False,
        )  # fmt: skip

    @property
    def mean(self) -> Tensor:
        """``loc``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """``loc``."""
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return (self.cov_factor**2).sum(-1) + self.cov_diag

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self.cov_factor @ self.cov_factor.mT + self.cov_diag.diag_embed()

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower triangular factor of the covariance."""
        return cholesky(self.covariance_matrix)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        solved = solve_lower(self._capacitance_tril, self._scaled())
        return self.cov_diag.reciprocal().diag_embed() - solved.mT @ solved

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = tuple(self._extended_shape(sample_shape))
        w = randn((*shape[:-1], self.cov_factor.shape[-1]), dtype=self.loc.dtype)
        d = randn(shape, dtype=self.loc.dtype)
        spread = (self.cov_factor @ w.unsqueeze(-1)).squeeze(-1)
        return self.loc + spread + self.cov_diag.sqrt() * d

    def _log_det(self) -> Tensor:
        return 2 * log_diagonal(self._capacitance_tril) + self.cov_diag.log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        apart = value - self.loc
        inner = (self._scaled() @ apart.unsqueeze(-1)).squeeze(-1)
        distance = (apart * apart / self.cov_diag).sum(-1)
        distance = distance - squared_distance(self._capacitance_tril, inner)
        return -0.5 * (self._event_shape[0] * _LOG_TAU + self._log_det() + distance)

    def entropy(self) -> Tensor:
        """``(n (1 + log 2 pi) + log det) / 2``."""
        return 0.5 * (self._event_shape[0] * (1.0 + _LOG_TAU) + self._log_det())


class Wishart(_OfMatrix, ExponentialFamily):
    """``sum of z z^T`` of ``df`` normal vectors z with that covariance (Bartlett's way to draw)."""

    arg_constraints = {
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky, "df": constraints.greater_than(0),
    }  # fmt: skip
    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self, df: Any, covariance_matrix: Any = None, precision_matrix: Any = None,
        scale_tril: Any = None, validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        given = {
            "covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }  # fmt: skip
        which = _one_matrix("Wishart", given)
        matrix = given[which]
        n = matrix.shape[-1]
        degrees = df if isinstance(df, Tensor) else full((), float(df), dtype=matrix.dtype)
        batch = broadcast_shapes(tuple(matrix.shape[:-2]), tuple(degrees.shape))
        self.df = degrees.expand(batch)
        self.__dict__[which] = matrix.expand(*batch, n, n)
        if not bool((degrees > n - 1).all()):
            raise located(ValueError(
                f"Wishart: got df of {degrees.flatten()[:8].tolist()} for matrices of {n} rows; it "
                f"must be above {n - 1}"
            ))  # fmt: skip
        super().__init__(batch, (n, n), validate_args=validate_args)
        self._set_factor(which, matrix)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        return self._expanded(batch_shape, "df")

    @property
    def mean(self) -> Tensor:
        """``df`` times the covariance."""
        return self.df[..., None, None] * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        """``df - n - 1`` times the covariance, where that is positive."""
        factor = self.df - self._event_shape[-1] - 1
        factor = factor.masked_fill(factor <= 0, math.nan)
        return factor[..., None, None] * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        """``df (V_ij^2 + V_ii V_jj)``."""
        v = self.covariance_matrix
        diagonal = v.diagonal(0, -2, -1)
        outer = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return self.df[..., None, None] * (v**2 + outer)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws as a differentiable function of the parameters."""
        shape = self._extended_shape(sample_shape)
        n = shape[-1]
        degrees = self.df.unsqueeze(-1) - arange(n, dtype=self.df.dtype)
        chi2 = 2 * standard_gamma((degrees / 2).expand(shape[:-1]))
        noise = randn(tuple(shape), dtype=self.df.dtype).tril(-1)
        noise = noise + chi2.clamp(min=tiny_of(chi2)).sqrt().diag_embed()
        factor = self._unbroadcasted_scale_tril @ noise
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        n, df = self._event_shape[-1], self.df
        factor = self._unbroadcasted_scale_tril
        of_value = cholesky(value)
        batch = broadcast_shapes(tuple(of_value.shape[:-2]), tuple(factor.shape[:-2]))
        solved = solve_lower(factor.expand(*batch, n, n), of_value.expand(*batch, n, n))
        trace = (solved * solved).sum((-2, -1))
        norm = n * math.log(2) / 2 * df + df * log_diagonal(factor) + mvlgamma(df / 2, n)
        return (df - n - 1) * log_diagonal(of_value) - trace / 2 - norm

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        n, df = self._event_shape[-1], self.df
        log_det = log_diagonal(self._unbroadcasted_scale_tril)
        gamma = mvlgamma(df / 2, n)
        slopes = (df.unsqueeze(-1) / 2 - arange(n, dtype=df.dtype) / 2).digamma().sum(-1)
        head = (n + 1) * (log_det + math.log(2) * n / 2)
        return head + gamma - (df - n - 1) / 2 * slopes + df * n / 2


class LKJCholesky(Distribution):
    """Cholesky factors of correlation matrices, uniform for the concentration 1.

    Drawn by the onion method (Lewandowski, Kurowicka and Joe, 2009).
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(
        self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        if dim < 2:
            raise located(ValueError(f"LKJCholesky: got dim {dim}; it must be at least 2"))
        (self.concentration,) = broadcast_all(concentration)
        self.dim = dim
        batch = self.concentration.shape
        super().__init__(batch, (dim, dim), validate_args=validate_args)
        rows = arange(dim - 1, dtype=self.concentration.dtype)
        shifted = pad(rows, (1, 0))
        marginal = self.concentration + 0.5 * (dim - 2)
        second = marginal.unsqueeze(-1) - 0.5 * shifted
        self._beta = Beta((shifted + 0.5).expand_as(second), second, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with a larger batch."""
        new = self._expanded(batch_shape, "concentration")
        new._beta = self._beta.expand((*batch_shape, self.dim))
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, without gradients."""
        first = Size((sample_shape,) if isinstance(sample_shape, int) else sample_shape)
        y = self._beta.sample(first).unsqueeze(-1).detach()
        u = randn(tuple(self._extended_shape(first)), dtype=y.dtype).tril(-1)
        length = (u * u).sum(-1, keepdim=True).sqrt()
        rows = u / length.clamp(min=tiny_of(u))  # the first row is empty
        w = y.sqrt() * rows
        diagonal = (1 - (w * w).sum(-1)).clamp(min=eps_of(w) ** 2).sqrt()
        return w + diagonal.diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        if self._validate_args:
            self._validate_sample(value)
        diagonal = value.diagonal(0, -2, -1)[..., 1:]
        order = arange(2, self.dim + 1, dtype=self.concentration.dtype)
        order = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - order
        density = (order * diagonal.log()).sum(-1)
        less = self.dim - 1
        alpha = self.concentration + 0.5 * less
        denominator = alpha.lgamma() * less
        numerator = mvlgamma(alpha - 0.5, less)
        return density - (0.5 * less * math.log(math.pi) + numerator - denominator)


__all__ = [
    "LKJCholesky", "LowRankMultivariateNormal", "MultivariateNormal", "Wishart", "cholesky",
    "factor_of_precision", "log_diagonal", "solve_lower", "squared_distance",
]  # fmt: skip
