"""Reductions of tensors, and what is composed of them: means, variances, norms, softmax."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.record import Record
from treadle.base.shapes import normalize_axes, normalize_axis
from treadle.base.shapes import prod as product
from treadle.ir.node import Node, located
from treadle.ir.op import Op
from treadle.ops import elementwise as e
from treadle.ops import reduce as r
from treadle.ops.complex import join, parts
from treadle.ops.indexing import gather
from treadle.ops.movement import detach, expand, permute, reshape
from treadle.ops.project import project
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import in_float32
from treadle.tensor.composed import composed
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.movement import axis_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Dim = int | Sequence[int] | None


class MinMax(Record):
    """The extreme values along a dimension, and where they are."""

    values: Tensor
    indices: Tensor


def _axes(name: str, node: Node, dim: Dim) -> tuple[int, ...]:
    try:
        return normalize_axes(dim, len(node.shape))
    except (IndexError, ShapeError) as error:
        raise located(type(error)(f"{name}: {error}")) from None


def keep(node: Node, axes: Sequence[int], source: Node, keepdim: bool = True) -> Node:
    """A reduced node with the reduced axes put back as size 1."""
    if not keepdim:
        return node
    shape = tuple(1 if i in axes else s for i, s in enumerate(source.shape))
    return node if node.shape == shape else reshape(node, shape=shape)


def _reduced(op: Op, node: Node, axes: tuple[int, ...], keepdim: bool) -> Node:
    """The op over these axes; a 0-d tensor reduces to itself."""
    if not node.shape:
        node = reshape(node, shape=(1,))
        return op(node, axes=(0,))
    return keep(op(node, axes=axes), axes, node, keepdim) if axes else node


def sum(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The sum over ``dim`` (all dimensions if None); integers and bools give int64."""
    node = input.node if dtype is None else a.cast(input.node, dtypes.as_dtype(dtype))
    total = _reduced(r.reduce_sum, node, _axes("sum", node, dim), keepdim)
    return wrap(total if dtype is None else a.cast(total, node.dtype))


@in_float32
def prod(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The product over ``dim``; integers and bools give int64."""
    node = input.node if dtype is None else a.cast(input.node, dtypes.as_dtype(dtype))
    product_ = _reduced(r.reduce_prod, node, _axes("prod", node, dim), keepdim)
    return wrap(product_ if dtype is None else a.cast(product_, node.dtype))


def _inexact(name: str, node: Node) -> Node:
    return node if node.dtype.kind == "c" else _real(name, node)


def _real(name: str, node: Node) -> Node:
    if not node.dtype.is_floating_point:
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {node.dtype.name}; it takes floating-point tensors; "
            f"convert it with .float() first"
        ))  # fmt: skip
    return node


@composed
def mean(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The sum divided by the count."""
    node = input.node if dtype is None else a.cast(input.node, dtypes.as_dtype(dtype))
    wide = a.widened(_inexact("mean", node))
    axes = _axes("mean", wide, dim)
    total = _reduced(r.reduce_sum, wide, axes, keepdim)
    count = product(wide.shape[i] for i in axes)
    return wrap(a.cast(e.div(total, e.full_like(total, count)), node.dtype))


def _moments(node: Node, axes: tuple[int, ...]) -> tuple[Node, Node]:
    """Mean and biased variance, reduced axes dropped."""
    if not node.shape:
        node, axes = reshape(node, shape=(1,)), (0,)
    if node.dtype is dtypes.float64:  # the sums of ``moments`` are no wider than its input here
        count = product(node.shape[i] for i in axes)
        centre = _quotient(r.reduce_sum(node, axes=axes), count)
        off = e.sub(node, expand(keep(centre, axes, node), shape=node.shape))
        return centre, _quotient(r.reduce_sum(e.mul(off, off), axes=axes), count)
    both = r.moments(node, axes=axes)
    return project(both, index=0), project(both, index=1)


def _quotient(node: Node, divisor: float) -> Node:
    return e.div(node, e.full_like(node, divisor))


def _root(node: Node) -> Node:
    """The square root, with the gradient 0 at 0, as PyTorch's norms and deviations have it."""
    zero = e.full_like(node, 0)
    is_zero = e.eq(node, zero)
    return e.where(is_zero, zero, e.sqrt(e.where(is_zero, e.full_like(node, 1), node)))


def _variance(
    name: str, input: Tensor, dim: Dim, correction: float, keepdim: bool
) -> tuple[Node, Node]:
    """Variance and mean, in float32 for 16-bit floats."""
    if input.dtype.kind == "c":
        return _complex_variance(name, input, dim, correction, keepdim)
    node = a.widened(_real(name, input.node))
    axes = _axes(name, node, dim)
    count = product(node.shape[i] for i in axes)
    mean_, biased = _moments(node, axes)
    if correction:
        left = builtins.max(count - correction, 0)
        scaled = e.mul(biased, e.full_like(biased, count))
        biased = e.div(scaled, e.full_like(scaled, left))
    return keep(biased, axes, node, keepdim), keep(mean_, axes, node, keepdim)


def _spread_of(dim: Any, unbiased: bool, correction: float | None) -> tuple[Dim, float]:
    """Dimensions and correction: ``var(x, False)`` names the latter in the place of the former."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return dim, float(unbiased) if correction is None else correction


def _complex_variance(
    name: str, input: Tensor, dim: Dim, correction: float, keepdim: bool
) -> tuple[Node, Node]:
    """The mean of |x - mean|^2, the sum of the variances of both parts; and the mean."""
    both = [_variance(name, wrap(p), dim, correction, keepdim) for p in parts(input.node)]
    (first, real), (second, imaginary) = both
    return e.add(first, second), join(real, imaginary)


def _narrow(node: Node, input: Tensor) -> Tensor:
    """A result in the dtype of the input, rounded here and nowhere before."""
    return wrap(node if input.dtype.kind == "c" else a.cast(node, input.dtype))


@composed
def var(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The variance, sum((x - mean)^2) / (n - correction); ``correction`` is 1 unless given."""
    dim, fix = _spread_of(dim, unbiased, correction)
    return _narrow(_variance("var", input, dim, fix, keepdim)[0], input)


@composed
def std(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The square root of the variance."""
    dim, fix = _spread_of(dim, unbiased, correction)
    return _narrow(_root(_variance("std", input, dim, fix, keepdim)[0]), input)


def var_mean(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Variance and mean together."""
    dim, fix = _spread_of(dim, unbiased, correction)
    variance, mean_ = _variance("var_mean", input, dim, fix, keepdim)
    return _narrow(variance, input), _narrow(mean_, input)


def std_mean(
    input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Standard deviation and mean together."""
    dim, fix = _spread_of(dim, unbiased, correction)
    variance, mean_ = _variance("std_mean", input, dim, fix, keepdim)
    return _narrow(_root(variance), input), _narrow(mean_, input)


def amax(input: Tensor, dim: Dim = (), keepdim: bool = False) -> Tensor:
    """The largest value; ties share the gradient; NaN wins."""
    return wrap(_reduced(r.reduce_max, input.node, _axes("amax", input.node, dim), keepdim))


def amin(input: Tensor, dim: Dim = (), keepdim: bool = False) -> Tensor:
    """The smallest value; ties share the gradient; NaN wins."""
    return wrap(_reduced(r.reduce_min, input.node, _axes("amin", input.node, dim), keepdim))


def _arg(op: Op, input: Tensor, dim: int | None, keepdim: bool) -> Node:
    node = input.node
    if dim is None or not node.shape:
        flat = reshape(node, shape=(node.type.size,))
        found = op(flat, axes=(0,))
        return reshape(found, shape=(1,) * len(node.shape)) if keepdim else found
    axis = normalize_axis(dim, len(node.shape))
    return keep(op(node, axes=(axis,)), (axis,), node, keepdim)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The lowest index of the largest value, in the flat tensor if ``dim`` is None."""
    return wrap(_arg(r.argmax, input, dim, keepdim))


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The lowest index of the smallest value, in the flat tensor if ``dim`` is None."""
    return wrap(_arg(r.argmin, input, dim, keepdim))


def _extreme(
    name: str, all_of: Any, pairwise: Any, arg: Op, x: Tensor, other: Any, keepdim: bool
) -> Any:
    if other is None:
        return all_of(x)
    if isinstance(other, (Handle, float, bool)):
        return pairwise(x, other)
    node = x.node if x.node.shape else reshape(x.node, shape=(1,))
    axis = axis_of(name, other, len(node.shape))
    where = keep(arg(node, axes=(axis,)), (axis,), node)
    values = gather(node, where, axis=axis)
    shape = where.shape
    if not keepdim or not x.node.shape:
        shape = tuple(s for i, s in enumerate(shape) if i != axis)
    return MinMax(wrap(reshape(values, shape=shape)), wrap(reshape(where, shape=shape)))


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest value; with ``dim`` the pair (values, indices); with a tensor, elementwise."""
    return _extreme("max", amax, a.maximum, r.argmax, input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest value; with ``dim`` the pair (values, indices); with a tensor, elementwise."""
    return _extreme("min", amin, a.minimum, r.argmin, input, dim, keepdim)


def _truth(op: Op, name: str, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    node = a._as_bool(input).node
    return wrap(_reduced(op, node, _axes(name, node, dim), keepdim))


def any(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """True where some element is nonzero."""
    return _truth(r.reduce_any, "any", input, dim, keepdim)


def all(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """True where every element is nonzero."""
    return _truth(r.reduce_all, "all", input, dim, keepdim)


def count_nonzero(input: Tensor, dim: Dim = None) -> Tensor:
    """How many elements are not zero."""
    return sum(a._as_bool(input), dim)


@composed
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Dim = None, keepdim: bool = False, *,
    dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    """The vector norm (sum |x|^p)^(1/p); "fro" is p = 2; infinities give the largest |x|.

    "nuc" is the sum of the singular values of matrices.
    """
    if dtype is not None:
        input = wrap(a.cast(input.node, dtypes.as_dtype(dtype)))
    if p == "nuc":
        return _nuclear(input, dim, keepdim)
    power = 2.0 if p in ("fro", None) else float(p)
    wide = wrap(a.widened(_inexact("norm", input.node)))
    return _narrow(_norm(wide, power, dim, keepdim).node, input)


def _nuclear(input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    """The sum of the singular values of matrices."""
    from treadle.ops.decompositions import svdvals

    axes = _axes("norm", input.node, dim)
    if len(axes) != 2:
        raise located(ShapeError(
            f"norm: got p='nuc' and dim={dim} for a tensor of shape {tuple(input.shape)}; it takes "
            f"the two dimensions of matrices"
        ))  # fmt: skip
    rest = [i for i in range(len(input.shape)) if i not in axes]
    total = r.reduce_sum(svdvals(permute(input.node, axes=(*rest, *axes))), axes=(len(rest),))
    return wrap(keep(total, axes, input.node, keepdim))


def _norm(x: Tensor, power: float, dim: Dim, keepdim: bool) -> Tensor:
    if x.dtype.kind == "c":
        x = a.abs(x)
    if power == 2.0:
        return wrap(_root(sum(a.square(x), dim, keepdim).node))
    size = a.abs(x)
    if power in (float("inf"), float("-inf")):
        return (amax if power > 0 else amin)(size, () if dim is None else dim, keepdim)
    if power == 0.0:  # by the sign, whose gradient is 0
        return sum(a.where(a.isnan(size), 1.0, a.sign(size)), dim, keepdim)
    if power == 1.0:
        return sum(size, dim, keepdim)
    if power < 1:  # the gradient at 0 is 0, not infinite
        zero = a.eq(size, 0)
        powers = a.pow(a.where(zero, 1.0, size), power)
        size = a.where(zero, 0.0 if power > 0 else float("inf"), powers)
    else:
        size = a.pow(size, power)
    total = sum(size, dim, keepdim)
    is_zero = a.eq(total, 0)  # there the gradient is 0 too
    return a.where(is_zero, 0.0, a.pow(a.where(is_zero, 1.0, total), 1.0 / power))


# --- softmax --------------------------------------------------------------------------------------


def _peak(node: Node, axes: tuple[int, ...]) -> Node:
    """The maximum, spread back; no gradient flows: a shift by it changes nothing."""
    top = detach(r.reduce_max(node, axes=axes))
    return expand(keep(top, axes, node), shape=node.shape)


@composed
def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(x)))``, safe against overflow; integers become floats."""
    if not input.dtype.is_inexact:
        input = wrap(a.cast(input.node, dtypes.get_default_dtype()))
    node = a.widened(_inexact("logsumexp", input.node))
    axes = _axes("logsumexp", node, dim)
    if node.dtype.kind == "c":
        return _complex_logsumexp(node, axes, keepdim)
    if not node.type.size:  # there is no maximum; log(0) = -inf
        total = e.log(r.reduce_sum(node, axes=axes))
        return wrap(a.cast(keep(total, axes, node, keepdim), input.dtype))
    top = detach(r.reduce_max(node, axes=axes))
    infinite = e.eq(e.abs_(top), e.full_like(top, float("inf")))
    top = e.where(infinite, e.full_like(top, 0), top)
    shifted = e.sub(node, expand(keep(top, axes, node), shape=node.shape))
    total = e.add(e.log(r.reduce_sum(e.exp(shifted), axes=axes)), top)
    return wrap(a.cast(keep(total, axes, node, keepdim), input.dtype))


def _complex_logsumexp(node: Node, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """As for real numbers, shifted by the largest real part."""
    x = wrap(parts(node)[0])
    top = detach((amax if x.numel() else sum)(x, axes, True).node)
    finite = e.lt(e.abs_(top), e.full_like(top, float("inf")))
    shift = e.cast(e.where(finite, top, e.full_like(top, 0)), node.dtype)
    raised = e.exp(e.sub(node, expand(shift, shape=node.shape)))
    total = keep(r.reduce_sum(raised, axes=axes), axes, node)
    out = e.add(e.log(total), shift)
    if not keepdim:
        out = reshape(out, shape=tuple([s for i, s in enumerate(out.shape) if i not in axes]))
    return wrap(out)


def _softmax_input(name: str, input: Tensor, dim: int | None, dtype: DType | None) -> Any:
    if dim is None:
        raise located(TypeError(f"{name}: dim is missing; name the dimension that sums to one"))
    source = input.node if dtype is None else a.cast(input.node, dtypes.as_dtype(dtype))
    node = a.widened(_real(name, source))
    if not node.shape:
        node = reshape(node, shape=(1,))
    return node, _axes(name, node, dim), source


def _narrowed(node: Node, source: Node) -> Tensor:
    node = node if node.shape == source.shape else reshape(node, shape=source.shape)
    return wrap(a.cast(node, source.dtype))


@composed
def softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``dim``, computed as exp(x - max)."""
    node, axes, source = _softmax_input("softmax", input, dim, dtype)
    if node.type.size == 0:
        return wrap(source)
    raised = e.exp(e.sub(node, _peak(node, axes)))
    total = r.reduce_sum(raised, axes=axes)
    return _narrowed(e.div(raised, expand(keep(total, axes, node), shape=node.shape)), source)


@composed
def log_softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """``x - log(sum(exp(x)))`` along ``dim``, computed from x - max."""
    node, axes, source = _softmax_input("log_softmax", input, dim, dtype)
    if node.type.size == 0:
        return wrap(source)
    shifted = e.sub(node, _peak(node, axes))
    total = e.log(r.reduce_sum(e.exp(shifted), axes=axes))
    return _narrowed(e.sub(shifted, expand(keep(total, axes, node), shape=node.shape)), source)


class Methods:
    """The reductions as methods."""

    __slots__ = ()

    sum, prod, mean, var, std, amax, amin = sum, prod, mean, var, std, amax, amin
    max, min, argmax, argmin, any, all = max, min, argmax, argmin, any, all
    count_nonzero, norm, logsumexp = count_nonzero, norm, logsumexp
    softmax, log_softmax = softmax, log_softmax


__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "log_softmax", "logsumexp",
    "max", "mean", "min", "norm", "prod", "softmax", "std", "std_mean", "sum", "var", "var_mean",
]  # fmt: skip
