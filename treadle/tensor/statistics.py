"""Sums without NaN, extremes, traces, distances, covariances: what is composed of reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.base.record import Record
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import in_float32
from treadle.tensor.complex_numbers import complex, conj, real
from treadle.tensor.contraction import matmul
from treadle.tensor.handle import wrap
from treadle.tensor.methods import in_place
from treadle.tensor.movement import (
    axis_of,
    diagonal,
    needs_dims,
    node_of,
    reshape,
    sizes_of,
    transpose,
    unsqueeze,
)
from treadle.tensor.reduction import amax, amin, norm
from treadle.tensor.reduction import sum as sum_over

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Dim = int | Sequence[int] | None


# --- without NaN ----------------------------------------------------------------------------------


def _no_nan(input: Tensor) -> Tensor:
    node = node_of("nansum", input)
    return a.where(a.isnan(input), 0, input) if node.dtype.is_inexact else input


def nansum(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The sum over ``dim`` of what is not NaN.

    >>> import treadle
    >>> treadle.nansum(treadle.tensor([1.0, float("nan"), 2.0])).item()
    3.0
    """
    return sum_over(_no_nan(input), dim, keepdim, dtype=dtype)


def nanmean(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The mean over ``dim`` of what is not NaN."""
    if dtype is not None:
        input = input.to(dtype)
    count = sum_over(a.logical_not(a.isnan(input)), dim, keepdim)
    wide = wrap(a.widened(input.node))
    return a.div(nansum(wide, dim, keepdim), count).to(input.dtype)


# --- extremes -------------------------------------------------------------------------------------


class Extremes(Record):
    """The smallest and the largest value."""

    min: Tensor
    max: Tensor


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Extremes:
    """The smallest and the largest value over ``dim`` (all dimensions if None); NaN wins."""
    over: Any = () if dim is None else dim
    return Extremes(amin(input, over, keepdim), amax(input, over, keepdim))


# --- matrices -------------------------------------------------------------------------------------


@in_float32
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    if len(node_of("trace", input).shape) != 2:
        raise located(ShapeError(
            f"trace: got a tensor of shape {tuple(input.shape)}; it takes a matrix"
        ))  # fmt: skip
    return sum_over(diagonal(input))


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The covariances of the rows (variables) over the columns (observations).

    ``fweights`` says how often each observation counts, ``aweights`` how much. The sum of products
    is divided by the sum of the weights less ``correction``.

    >>> import treadle
    >>> treadle.cov(treadle.tensor([[0.0, 2.0], [3.0, 1.0]])).tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
    """
    shape = node_of("cov", input).shape
    if len(shape) > 2:
        raise located(ShapeError(
            f"cov: got a tensor of shape {shape}; it takes at most 2 dimensions: variables and "
            f"observations"
        ))  # fmt: skip
    source = input if input.dtype.is_inexact else input.to(dtypes.get_default_dtype())
    x = reshape(source, shape if len(shape) == 2 else (1, -1))
    weights = None
    for given in (fweights, aweights):
        if given is not None:
            if tuple(node_of("cov", given).shape) != (x.shape[1],):
                raise located(ShapeError(
                    f"cov: got weights of shape {tuple(given.shape)} for {x.shape[1]} "
                    f"observations; there must be one for each"
                ))  # fmt: skip
            weights = given if weights is None else a.mul(weights, given)
    count: Any = x.shape[1] if weights is None else sum_over(weights)
    weighted = x if weights is None else a.mul(x, weights)
    centred = a.sub(x, a.div(sum_over(weighted, 1, True), count))
    scaled = centred if weights is None else a.mul(centred, weights)
    left: Any = count - correction
    if weights is not None and aweights is not None:
        share = a.div(sum_over(a.mul(weights, aweights)), count)
        left = a.sub(count, a.mul(share, correction))
    left = max(left, 0) if weights is None else a.clamp(left, min=0)
    product = matmul(scaled, conj(transpose(centred, 0, 1)))
    return reshape(a.div(product, left), (len(x), len(x)) if len(x) > 1 else ())


def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of the rows: covariances over the product of deviations."""
    covariances = cov(input)
    if not covariances.ndim:
        return a.div(covariances, covariances)
    deviations = a.sqrt(real(diagonal(covariances)))
    scaled = a.div(a.div(covariances, unsqueeze(deviations, 1)), unsqueeze(deviations, 0))
    if scaled.dtype.kind == "c":
        return complex(a.clamp(scaled.real, -1, 1), a.clamp(scaled.imag, -1, 1))
    return a.clamp(scaled, -1, 1)


# --- distances ------------------------------------------------------------------------------------


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``, as one number."""
    return norm(a.sub(input, other), p)


@in_float32
def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:  # fmt: skip
    """The p-norm distance of every row of ``x1`` to every row of ``x2``.

    Shapes: (..., m, k), (..., n, k) -> (..., m, n). Always from differences, whatever the
    ``compute_mode``, which is PyTorch's: squares of large numbers would lose the small distances.

    >>> import treadle
    >>> treadle.cdist(treadle.zeros(1, 2), treadle.tensor([[3.0, 4.0], [1.0, 0.0]])).tolist()
    [[5.0, 1.0]]
    """
    shapes = needs_dims("cdist", x1, 2), needs_dims("cdist", x2, 2)
    if shapes[0][-1] != shapes[1][-1] or p < 0:
        raise located(ShapeError(
            f"cdist: got shapes {shapes[0]} and {shapes[1]} and p={p}; the last sizes must be "
            f"equal and p not negative"
        ))  # fmt: skip
    return norm(a.sub(unsqueeze(x1, -2), unsqueeze(x2, -3)), p, -1)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Every slice along ``dim`` whose p-norm is above ``maxnorm`` scaled down to it."""
    shape = needs_dims("renorm", input, 2)
    axis = axis_of("renorm", dim, len(shape))
    others = [i for i in range(len(shape)) if i != axis]
    length = norm(input, p, others, keepdim=True)
    scale = a.where(a.gt(length, maxnorm), a.div(maxnorm, a.add(length, 1e-7)), 1.0)
    return a.mul(input, scale)


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over what broadcasting a tensor of that size to ``input`` repeats."""
    shape, wanted = node_of("sum_to_size", input).shape, sizes_of("sum_to_size", size)
    extra = len(shape) - len(wanted)
    pairs = list(zip(shape[max(extra, 0) :], wanted, strict=extra >= 0))
    if extra < 0 or any(w not in (1, s) for s, w in pairs):
        raise located(ShapeError(
            f"sum_to_size: got the size {wanted} for a tensor of shape {shape}; it must broadcast "
            f"to that shape"
        ))  # fmt: skip
    gone = [i for i in range(len(shape)) if i < extra or (wanted[i - extra] == 1 != shape[i])]
    total = sum_over(input, gone, keepdim=True) if gone else input
    return reshape(total, wanted)


class Methods:
    """The functions of this module as methods."""

    __slots__ = ()

    nansum, nanmean, aminmax, trace = nansum, nanmean, aminmax, trace
    cov, corrcoef, dist, renorm, sum_to_size = cov, corrcoef, dist, renorm, sum_to_size
    (renorm_,) = map(in_place, (renorm,))


__all__ = [
    "aminmax", "cdist", "corrcoef", "cov", "dist", "nanmean", "nansum", "renorm", "trace",
]  # fmt: skip
