"""Weights of norm one, orthogonal weights, weights as length times direction."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn.convolution import _Transposed
from treadle.nn.module import Module
from treadle.nn.utils import parametrize
from treadle.tensor.creation import eye
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


def norm_except_dim(v: Tensor, dim: int | None) -> Tensor:
    """The norms of the slices along a dimension (of the whole if None), with ones elsewhere."""
    if dim is None or dim == -1:
        return (v * v).sum().sqrt()
    axes = tuple(i for i in range(v.ndim) if i != dim % v.ndim)
    return (v * v).sum(axes, keepdim=True).sqrt()


class _WeightNorm(Module):
    """``g v / |v|``."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """The weight."""
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Its length and its direction."""
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Trains a weight as length ``original0`` times direction ``original1``, per slice of ``dim``.

    Salimans and Kingma, 2016.

    >>> from treadle import nn
    >>> layer = weight_norm(nn.Linear(3, 2))
    >>> [name for name, _ in layer.named_parameters()]
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    return parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """``W / s``, s being the largest singular value by iteration."""

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if n_power_iterations < 1 or not -weight.ndim <= dim < weight.ndim:
            raise located(ValueError(
                f"spectral_norm: got n_power_iterations={n_power_iterations} and dim={dim} for a "
                f"weight of shape {tuple(weight.shape)}; there must be an iteration, and the "
                f"dimension"
            ))  # fmt: skip
        self.dim = dim % weight.ndim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            from treadle.random.sampling import randn

            matrix = self._matrix(weight)
            rows, columns = matrix.shape
            u, v = (randn(n, dtype=weight.dtype) for n in (rows, columns))
            self.register_buffer("_u", F.normalize(u, dim=0, eps=eps))
            self.register_buffer("_v", F.normalize(v, dim=0, eps=eps))
            self._iterate(matrix.detach(), 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        order = (self.dim, *[i for i in range(weight.ndim) if i != self.dim])
        return weight.permute(*order).flatten(1) if weight.ndim > 1 else weight

    @no_grad()
    def _iterate(self, matrix: Tensor, count: int) -> None:
        for _ in range(count):
            self._u.copy_(F.normalize(matrix.mv(self._v), dim=0, eps=self.eps))
            self._v.copy_(F.normalize(matrix.t().mv(self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight; in training the singular vectors move on."""
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()
        return weight / u.dot(matrix.mv(v))

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value itself: dividing it again changes nothing."""
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """Divides a weight by its largest singular value (Miyato et al., 2018).

    The weight is a matrix with ``dim`` as rows: 0, for transposed convolutions 1, unless given.
    """
    weight = _tensor_of("spectral_norm", module, name)
    if dim is None:
        dim = 1 if isinstance(module, _Transposed) else 0
    function = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return parametrize.register_parametrization(module, name, function)


def _tensor_of(function: str, module: Module, name: str) -> Tensor:
    found = getattr(module, name, None)
    if not isinstance(found, Tensor):
        raise located(ValueError(
            f"{function}: got the name {name!r}, but {type(module).__name__} has no such parameter "
            f"or buffer"
        ))  # fmt: skip
    return found


class _Maps(Enum):
    matrix_exp = auto()
    cayley = auto()
    householder = auto()


class _Orthogonal(Module):
    """A matrix with orthonormal columns (or rows), times a fixed base."""

    base: Any

    def __init__(self, weight: Tensor, orthogonal_map: _Maps, use_trivialization: bool) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        self.orthogonal_map = orthogonal_map
        self.register_buffer("base", None)
        if use_trivialization:
            self.base = self._square(weight.detach())

    def _square(self, weight: Tensor) -> Tensor:
        """Orthonormal columns beside those of the weight, to a square."""
        from treadle.linalg import qr

        tall = weight if weight.shape[-2] >= weight.shape[-1] else weight.mT
        k = tall.shape[-1]
        q, r = qr(tall, mode="complete")
        signs = r.diagonal(0, -2, -1).sign()
        q = q.clone()
        q[..., :k] = q[..., :k] * signs.unsqueeze(-2)
        return q

    def forward(self, x: Tensor) -> Tensor:
        """The orthogonal matrix."""
        from treadle.linalg import householder_product, matrix_exp, solve

        wide = x.shape[-2] < x.shape[-1]
        x = x.mT if wide else x
        n, k = x.shape[-2:]
        if self.orthogonal_map is _Maps.householder:
            lower = x.tril(-1)
            tau = 2.0 / (1.0 + (lower * lower).sum(-2))
            q = householder_product(lower + eye(n, k, dtype=x.dtype), tau)
            q = q * x.diagonal(0, -2, -1).sign().unsqueeze(-2)
        else:
            lower = x.tril()
            if n != k:
                lower = F.pad(lower, (0, n - k))
            skew = lower - lower.mT
            if self.orthogonal_map is _Maps.matrix_exp:
                q = matrix_exp(skew)
            else:
                identity = eye(n, dtype=x.dtype)
                q = solve(identity - skew * 0.5, identity + skew * 0.5)
            q = q[..., :k]
        if self.base is not None:
            q = self.base @ q
        return q.mT if wide else q

    @no_grad()
    def right_inverse(self, value: Tensor) -> Tensor:
        """What gives an orthogonal ``value`` back."""
        if tuple(value.shape) != self.shape:
            raise located(ShapeError(
                f"orthogonal: got a value of shape {tuple(value.shape)}; it must be {self.shape}"
            ))  # fmt: skip
        if self.base is not None:
            self.base = self._square(value)
            nothing = value * 0  # what the map turns into the identity
            if self.orthogonal_map is not _Maps.householder:
                return nothing
            return nothing - eye(*value.shape[-2:], dtype=value.dtype)
        if self.orthogonal_map is not _Maps.householder:
            raise located(NotImplementedError(
                "orthogonal: without use_trivialization a value can be assigned to the map "
                "'householder' only"
            ))  # fmt: skip
        from treadle.linalg import qr

        tall = value if value.shape[-2] >= value.shape[-1] else value.mT
        reflectors = _reflectors(qr(tall)[0])
        return reflectors if value.shape[-2] >= value.shape[-1] else reflectors.mT


def _reflectors(q: Tensor) -> Tensor:
    """The Householder vectors of a matrix below the diagonal, and the signs on it."""
    from treadle.linalg.aliases import geqrf

    a, _ = geqrf(q)
    diagonal = a.diagonal(0, -2, -1).sign()
    return a.tril(-1) + F.pad(diagonal.diag_embed(), (0, 0, 0, a.shape[-2] - a.shape[-1]))


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *,
    use_trivialization: bool = True,
) -> Module:  # fmt: skip
    """Keeps a weight orthogonal: ``Q^T Q = 1`` for (..., n, k), or ``Q Q^T`` where n < k.

    ``orthogonal_map`` is "matrix_exp" of a skew matrix (for squares, unless given), "cayley", or
    "householder" (for others). With ``use_trivialization`` Q is the map of the original times a
    fixed base, so that any weight can be assigned.
    """
    weight = _tensor_of("orthogonal", module, name)
    if weight.ndim < 2:
        raise located(ShapeError(
            f"orthogonal: got a weight of shape {tuple(weight.shape)}; it must be a matrix"
        ))  # fmt: skip
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in _Maps.__members__:
        raise located(ValueError(
            f"orthogonal: got orthogonal_map {orthogonal_map!r}; it is "
            f"{', '.join(map(repr, _Maps.__members__))}"
        ))  # fmt: skip
    function = _Orthogonal(weight, _Maps[orthogonal_map], use_trivialization)
    return parametrize.register_parametrization(module, name, function, unsafe=True)


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
