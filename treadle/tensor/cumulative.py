"""Running results along a dimension, differences, and areas under sampled curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.base.record import Record
from treadle.ir.node import Node, located
from treadle.ops import scan
from treadle.ops.movement import concatenate, reshape, slice_
from treadle.ops.project import results
from treadle.tensor import arithmetic as a
from treadle.tensor.handle import wrap
from treadle.tensor.methods import in_place
from treadle.tensor.movement import axis_of, node_of, whole
from treadle.tensor.reduction import sum as sum_over

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


class Picked(Record):
    """Elements of a tensor, and where along the dimension they were."""

    values: Tensor
    indices: Tensor


def with_axis(name: str, node: Node, dim: Any) -> tuple[Node, int]:
    """The node, with a dimension if it has none, and ``dim`` counted from the front."""
    axis = axis_of(name, dim, len(node.shape))
    return (node if node.shape else reshape(node, shape=(1,))), axis


def shaped(node: Node, like: Node) -> Node:
    """The node without the dimension that ``with_axis`` gave it."""
    return node if like.shape else reshape(node, shape=())


def _sums(name: str, op: Any, input: Any, dim: int, dtype: DType | None, **attrs: Any) -> Tensor:
    node = node_of(name, input)
    if dtype is not None:
        node = a.cast(node, dtypes.as_dtype(dtype))
    line, axis = with_axis(name, node, dim)
    total = shaped(op(line, axis=axis, **attrs), node)
    return wrap(total if dtype is None else a.cast(total, node.dtype))


def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """out[i] = x[0] + ... + x[i] along ``dim``; integers and bools give int64.

    The order of the additions is fixed: chunks of 1024 elements are summed from their first
    element on, and later chunks get the sum of all chunks before, added from left to right.

    >>> import treadle
    >>> treadle.tensor([[1, 2], [3, 4]]).cumsum(0).tolist()
    [[1, 2], [4, 6]]
    """
    return _sums("cumsum", scan.cumsum, input, dim, dtype, reverse=False)


def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """out[i] = x[0] * ... * x[i] along ``dim``, in the order of ``cumsum``."""
    return _sums("cumprod", scan.cumprod, input, dim, dtype)


def _running_extreme(name: str, op: Any, input: Any, dim: int) -> Picked:
    node = node_of(name, input)
    line, axis = with_axis(name, node, dim)
    values, indices = results(op(line, axis=axis))
    return Picked(wrap(shaped(values, node)), wrap(shaped(indices, node)))


def cummax(input: Tensor, dim: int) -> Picked:
    """The largest of x[0], ..., x[i], and where it is: of equals and of NaNs, which win, the last.

    >>> import treadle
    >>> values, indices = treadle.tensor([1, 3, 2, 3]).cummax(0)
    >>> values.tolist(), indices.tolist()
    ([1, 3, 3, 3], [0, 1, 1, 3])
    """
    return _running_extreme("cummax", scan.cummax, input, dim)


def cummin(input: Tensor, dim: int) -> Picked:
    """The smallest of x[0], ..., x[i], and where it is: of equals and of NaNs, which win, the last.

    >>> import treadle
    >>> treadle.tensor([2.0, 3.0, 1.0]).cummin(0).values
    tensor([2., 2., 1.])
    """
    return _running_extreme("cummin", scan.cummin, input, dim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(exp(x[0]) + ... + exp(x[i])) along ``dim``, safe against overflow."""
    node = node_of("logcumsumexp", input)
    line, axis = with_axis("logcumsumexp", node, dim)
    return wrap(shaped(scan.logcumsumexp(line, axis=axis), node))


# --- differences and areas ------------------------------------------------------------------------


def _from(node: Node, axis: int, start: int, count: int) -> Node:
    """``count`` slices along an axis."""
    starts = tuple(start if i == axis else 0 for i in range(len(node.shape)))
    sizes = tuple(count if i == axis else s for i, s in enumerate(node.shape))
    return slice_(node, starts=starts, sizes=sizes, steps=(1,) * len(sizes))


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x[i + 1] - x[i] along ``dim``, ``n`` times over; of bools, whether they differ.

    ``prepend`` and ``append`` are put before and behind the tensor first.

    >>> import treadle
    >>> treadle.tensor([1, 2, 4, 7]).diff(2).tolist()
    [1, 1]
    """
    node = node_of("diff", input)
    if n == 0:
        return input
    if not node.shape:
        raise located(ShapeError(
            "diff: got a tensor without dimensions; it takes one with at least 1 dimension"
        ))  # fmt: skip
    axis = axis_of("diff", dim, len(node.shape))
    if whole("diff", n, "n") < 0:
        raise located(ValueError(f"diff: got n={n}; it must not be negative"))
    extra = (prepend, append)
    parts = [None if part is None else node_of("diff", part) for part in extra]
    whole_ = [part for part in (parts[0], node, parts[1]) if part is not None]
    if len(whole_) > 1:
        node = concatenate(*whole_, axis=axis)
    for _ in range(min(n, node.shape[axis])):
        count = max(node.shape[axis] - 1, 0)
        if not node.shape[axis]:
            break
        later, earlier = (wrap(_from(node, axis, start, count)) for start in (1, 0))
        changed = a.logical_xor if node.dtype is dtypes.bool_ else a.sub
        node = changed(later, earlier).node
    return wrap(node)


def _areas(name: str, y: Any, x: Any, dx: float | None, dim: int) -> tuple[Tensor, int]:
    """The area between neighbouring samples, and the dimension they lie along."""
    node = node_of(name, y)
    if not node.shape:
        raise located(ShapeError(f"{name}: got samples without dimensions; it takes at least 1"))
    axis = axis_of(name, dim, len(node.shape))
    if x is not None and dx is not None:
        raise located(TypeError(f"{name}: got both x and dx; the spacing is one or the other"))
    if not node.dtype.is_inexact:
        node = a.cast(node, dtypes.get_default_dtype())
    count = max(node.shape[axis] - 1, 0)
    first = min(1, node.shape[axis])
    pairs = a.add(wrap(_from(node, axis, first, count)), wrap(_from(node, axis, 0, count)))
    if x is None:
        return a.mul(pairs, (1.0 if dx is None else dx) / 2), axis
    places = node_of(name, x)
    if places.shape[-1:] != node.shape[axis : axis + 1] and len(places.shape) == 1:
        raise located(ShapeError(
            f"{name}: got x of shape {places.shape} for samples of shape {node.shape}; there must "
            f"be a place for every sample along dimension {axis}"
        ))  # fmt: skip
    if len(places.shape) == 1:
        after = len(node.shape) - axis - 1
        places = reshape(places, shape=(*places.shape, *(1,) * after))
    steps = diff(wrap(places), dim=axis - len(node.shape))
    return a.div(a.mul(pairs, steps), 2.0), axis


def trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1
) -> Tensor:
    """The area under samples ``y`` at places ``x`` (or ``dx`` apart), by the trapezoid rule.

    >>> import treadle
    >>> treadle.trapezoid(treadle.tensor([1.0, 2.0, 3.0]), dx=2.0).item()
    8.0
    """
    areas, axis = _areas("trapezoid", y, x, dx, dim)
    return sum_over(areas, axis)


def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1
) -> Tensor:
    """The areas under the first 2, 3, ... samples."""
    areas, axis = _areas("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(areas, axis)


class Methods:
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    cumsum, cumprod, cummax, cummin = cumsum, cumprod, cummax, cummin
    logcumsumexp, diff = logcumsumexp, diff
    cumsum_, cumprod_ = map(in_place, (cumsum, cumprod))


__all__ = [
    "cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "diff", "logcumsumexp",
    "trapezoid",
]  # fmt: skip
