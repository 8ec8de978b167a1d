"""Sorted tensors and what is read off them: order, the first k, medians, quantiles, modes.

All sorts are stable; NaN is larger than every number, 0 and -0 are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops import scan
from treadle.ops import sort as op
from treadle.ops.indexing import gather
from treadle.ops.movement import concatenate, detach, expand, permute, reshape, slice_
from treadle.ops.project import project, results
from treadle.ops.reduce import argmax, reduce_sum
from treadle.ops.source import iota, number
from treadle.tensor import arithmetic as a
from treadle.tensor.autocast import in_float32
from treadle.tensor.cumulative import Picked, shaped, with_axis
from treadle.tensor.handle import wrap
from treadle.tensor.movement import node_of, whole
from treadle.tensor.reduction import keep
from treadle.tensor.storage import array_of

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _picked(pair: Node, like: Node) -> Picked:
    values, indices = results(pair)
    return Picked(wrap(shaped(values, like)), wrap(shaped(indices, like)))


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Picked:
    """The elements along ``dim`` in order, and where they were. Every sort is stable.

    >>> import treadle
    >>> values, indices = treadle.tensor([3.0, 1.0, 2.0]).sort()
    >>> values.tolist(), indices.tolist()
    ([1.0, 2.0, 3.0], [1, 2, 0])
    """
    node = node_of("sort", input)
    line, axis = with_axis("sort", node, dim)
    return _picked(op.sort(line, axis=axis, descending=bool(descending)), node)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort the elements along ``dim``."""
    return sort(input, dim, descending).indices


def msort(input: Tensor) -> Tensor:
    """The elements in order along the first dimension."""
    return sort(input, 0).values


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Picked:
    """The ``k`` largest (or smallest) elements along ``dim``, the first one first, and where they
    were; of equal elements those with the lowest index.

    >>> import treadle
    >>> treadle.tensor([1.0, 5.0, 3.0]).topk(2).indices.tolist()
    [1, 2]
    """
    node = node_of("topk", input)
    line, axis = with_axis("topk", node, dim)
    count = whole("topk", k, "k")
    return _picked(op.topk(line, axis=axis, k=count, largest=bool(largest)), node)


# --- one element of the sorted row ----------------------------------------------------------------


def _non_empty(name: str, node: Node, axis: int) -> None:
    if not node.shape[axis]:
        raise located(IndexError(
            f"{name}: got a tensor of shape {node.shape}, which has no element along dimension "
            f"{axis} to choose; reduce a dimension of size 1 or more"
        ))  # fmt: skip


def _line_shape(node: Node, axis: int) -> tuple[int, ...]:
    return tuple(1 if i == axis else s for i, s in enumerate(node.shape))


def _chosen(pair: Node, at: Node, axis: int, like: Node, keepdim: bool) -> Picked:
    """The elements of a sort at places ``at``, one for each row."""
    nodes = [gather(part, at, axis=axis) for part in results(pair)]
    shape = tuple(s for i, s in enumerate(nodes[0].shape) if i != axis or keepdim)
    shape = shape if like.shape else ()
    values, indices = (n if n.shape == shape else reshape(n, shape=shape) for n in nodes)
    return Picked(wrap(values), wrap(indices))


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Picked:
    """The ``k``-th smallest element along ``dim`` (from 1), and where it was."""
    node = node_of("kthvalue", input)
    line, axis = with_axis("kthvalue", node, dim)
    _non_empty("kthvalue", line, axis)
    count, size = whole("kthvalue", k, "k"), line.shape[axis]
    if not 1 <= count <= size:
        raise located(ValueError(
            f"kthvalue: got k={k} for dimension {dim} of a tensor of shape {node.shape}; it must "
            f"lie in [1, {size}]"
        ))  # fmt: skip
    first = op.topk(line, axis=axis, k=count, largest=False)
    at = expand(number(count - 1, dtypes.int64), shape=_line_shape(line, axis))
    return _chosen(first, at, axis, node, keepdim)


def _numbers(node: Node, axis: int) -> Node:
    """How many elements along an axis are not NaN; the axis is kept as size 1."""
    is_number = e.convert(e.eq(node, node), dtype=dtypes.int64)
    return keep(reduce_sum(is_number, axes=(axis,)), (axis,), node)


def _middle(line: Node, axis: int, ignores_nan: bool) -> Node:
    """Where the lower median lies in the sorted row: a NaN, if it counts and there is one."""
    size = line.shape[axis]
    if not line.dtype.is_floating_point:
        return expand(number((size - 1) // 2, dtypes.int64), shape=_line_shape(line, axis))
    count = _numbers(line, axis)
    if ignores_nan:
        last = e.sub(count, e.full_like(count, 1))
        half = e.floor_divide(last, e.full_like(count, 2))
        return e.maximum(half, e.full_like(count, 0))
    return e.where(
        e.eq(count, e.full_like(count, size)), e.full_like(count, (size - 1) // 2), count
    )


def _median(name: str, input: Any, dim: int, keepdim: bool, ignores_nan: bool) -> Picked:
    node = node_of(name, input)
    line, axis = with_axis(name, node, dim)
    _non_empty(name, line, axis)
    order = op.sort(line, axis=axis, descending=False)
    return _chosen(order, _middle(line, axis, ignores_nan), axis, node, keepdim)


def _median_of_all(name: str, input: Any, ignores_nan: bool) -> Tensor:
    """The median; elements equal to it share the gradient."""
    node = node_of(name, input)
    flat = reshape(node, shape=(node.type.size,))
    if not node.type.size and node.dtype.is_floating_point:
        nothing = reduce_sum(flat, axes=(0,))
        return wrap(e.add(nothing, e.full_like(nothing, float("nan"))))
    value = _median(name, wrap(detach(flat)), 0, False, ignores_nan).values.node
    if not node.dtype.is_floating_point:
        return wrap(value)
    # x - x is 0 for every finite x: what is added changes no value and carries the gradient.
    tied = e.eq(flat, expand(value, shape=flat.shape))
    ties = reduce_sum(e.convert(tied, dtype=node.dtype), axes=(0,))
    offset = e.where(tied, e.sub(flat, detach(flat)), e.full_like(flat, 0))
    share = e.div(reduce_sum(offset, axes=(0,)), ties)
    return wrap(e.where(e.eq(share, share), e.add(value, share), value))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median along ``dim`` with its index, the lower one of two; without ``dim`` that of all.

    A row with NaN gives NaN, and the index of the first one.

    >>> import treadle
    >>> treadle.tensor([4.0, 1.0, 3.0, 2.0]).median().item()
    2.0
    """
    if dim is None:
        return _median_of_all("median", input, False)
    return _median("median", input, dim, keepdim, False)


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of the elements that are not NaN; NaN where there are none."""
    if dim is None:
        return _median_of_all("nanmedian", input, True)
    return _median("nanmedian", input, dim, keepdim, True)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Picked:
    """The most frequent element along ``dim``, of several the smallest, and where it was last.

    >>> import treadle
    >>> treadle.tensor([2, 1, 2, 1, 3]).mode().values.item()
    1
    """
    node = node_of("mode", input)
    line, axis = with_axis("mode", node, dim)
    _non_empty("mode", line, axis)
    order = op.sort(line, axis=axis, descending=False)
    values = detach(project(order, index=0))
    size = line.shape[axis]
    place = iota(shape=line.shape, axis=axis, dtype=dtypes.int64)
    if size == 1:
        return _chosen(order, place, axis, node, keepdim)
    sizes = tuple(size - 1 if i == axis else s for i, s in enumerate(line.shape))
    origin, steps = (0,) * len(sizes), (1,) * len(sizes)
    behind = tuple(int(i == axis) for i in range(len(sizes)))
    is_new = e.ne(
        slice_(values, starts=behind, sizes=sizes, steps=steps),
        slice_(values, starts=origin, sizes=sizes, steps=steps),
    )
    first = expand(number(True, dtypes.bool_), shape=_line_shape(line, axis))
    is_new = concatenate(first, is_new, axis=axis)
    # Every place minus where its run of equals began: largest at the end of the longest run.
    start = e.where(is_new, place, e.full_like(place, 0))
    run = e.sub(place, project(scan.cummax(start, axis=axis), index=0))
    best = keep(argmax(run, axes=(axis,)), (axis,), line)
    return _chosen(order, best, axis, node, keepdim)


# --- quantiles ------------------------------------------------------------------------------------

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _levels(name: str, q: Any, node: Node) -> Node:
    """The levels as a node of the tensor's dtype."""
    is_number = isinstance(q, (int, float))
    levels = number(q, node.dtype) if is_number else a.cast(node_of(name, q), node.dtype)
    if len(levels.shape) > 1:
        raise located(ShapeError(
            f"{name}: got q of shape {levels.shape}; it must be a number or a vector"
        ))  # fmt: skip
    if not (0 <= q <= 1 if is_number else all(0 <= x <= 1 for x in array_of(levels).flat)):
        raise located(ValueError(f"{name}: got q={q}; levels must lie in [0, 1]"))
    return levels


def _quantile(
    name: str, input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str,
    ignores_nan: bool,
) -> Tensor:  # fmt: skip
    node = node_of(name, input)
    if node.dtype not in (dtypes.float32, dtypes.float64):
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {node.dtype.name}; it takes float32 and float64; "
            f"convert it with .float() first"
        ))  # fmt: skip
    if interpolation not in _INTERPOLATIONS:
        raise located(ValueError(
            f"{name}: got interpolation={interpolation!r}; there are {', '.join(_INTERPOLATIONS)}"
        ))  # fmt: skip
    levels = _levels(name, q, node)
    line = node if dim is not None else reshape(node, shape=(node.type.size,))
    line, axis = with_axis(name, line, -1 if dim is None else dim)
    _non_empty(name, line, axis)
    last = len(line.shape) - 1
    order = (*(i for i in range(last + 1) if i != axis), axis)
    rows = op.sort(permute(line, axes=order), axis=last, descending=False)
    values = project(rows, index=0)
    found = _interpolated(values, levels, interpolation, ignores_nan)  # (rows..., levels)
    kept = found.shape[:-1]
    if keepdim:
        kept = (1,) * len(node.shape) if dim is None else _line_shape(line, axis)
        kept = kept if node.shape else ()
    if not levels.shape:
        return wrap(reshape(found, shape=kept))
    front = permute(found, axes=(last, *range(last)))
    return wrap(reshape(front, shape=(*levels.shape, *kept)))


def _interpolated(values: Node, levels: Node, interpolation: str, ignores_nan: bool) -> Node:
    """Between the neighbours of places level * (count - 1) in sorted rows (..., n)."""
    last = len(values.shape) - 1
    levels_last = reshape(levels, shape=(*(1,) * last, levels.type.size))
    shape = (*values.shape[:-1], levels.type.size)
    count = _numbers(values, last)
    total = e.full_like(count, values.shape[-1])
    top = e.maximum(e.sub(count, e.full_like(count, 1)), e.full_like(count, 0))
    top = top if ignores_nan else e.sub(total, e.full_like(total, 1))
    wide = expand(e.convert(top, dtype=values.dtype), shape=shape)
    rank = e.mul(expand(levels_last, shape=shape), wide)
    if not ignores_nan:  # a row with NaN is NaN, and that is its last element
        rank = e.where(expand(e.eq(count, total), shape=shape), rank, wide)
    below, above = e.floor(rank), e.ceil(rank)
    if interpolation in ("lower", "higher", "nearest"):
        at = {"lower": below, "higher": above, "nearest": e.round_(rank)}[interpolation]
        return gather(values, e.convert(at, dtype=dtypes.int64), axis=last)
    low, high = (
        wrap(gather(values, e.convert(at, dtype=dtypes.int64), axis=last)) for at in (below, above)
    )
    weight = wrap(e.full_like(rank, 0.5) if interpolation == "midpoint" else e.sub(rank, below))
    same = wrap(e.eq(below, above))  # infinities have no difference
    return a.where(same, low, a.lerp(low, high, weight)).node


@in_float32
def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear",
) -> Tensor:  # fmt: skip
    """The elements (or points between two) below which the share ``q`` of a row lies.

    ``q`` is a number in [0, 1] or a vector of them, which becomes the first dimension of the
    result. ``interpolation`` is linear, lower, higher, midpoint or nearest. NaN wins.

    >>> import treadle
    >>> treadle.tensor([1.0, 2.0, 4.0]).quantile(0.75).item()
    3.0
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@in_float32
def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear",
) -> Tensor:  # fmt: skip
    """``quantile`` of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


class Methods:
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    sort, argsort, msort, topk, kthvalue = sort, argsort, msort, topk, kthvalue
    median, nanmedian, mode = median, nanmedian, mode
    quantile, nanquantile = quantile, nanquantile


__all__ = [
    "argsort", "kthvalue", "median", "mode", "msort", "nanmedian", "nanquantile", "quantile",
    "sort", "topk",
]  # fmt: skip
