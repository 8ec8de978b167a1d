"""Distinct elements, counts, and search in sorted sequences.

How many distinct elements there are depends on the data, so ``unique``, ``unique_consecutive`` and
``bincount`` evaluate their input at once. They have no gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import Node, located, type_of
from treadle.ops import elementwise as e
from treadle.ops.indexing import take_add
from treadle.ops.movement import expand, reshape, zeros_of
from treadle.ops.project import results
from treadle.ops.reduce import reduce_max, reduce_min
from treadle.ops.sort import search_sorted
from treadle.ops.sort import sort as sort_op
from treadle.ops.source import number
from treadle.tensor import arithmetic as a
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.methods import in_place
from treadle.tensor.movement import axis_of, node_of, whole
from treadle.tensor.selection import gather
from treadle.tensor.storage import array_of, node_from_array

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


# --- distinct elements ----------------------------------------------------------------------------


def _told(values: Any, inverse: Any, counts: Any, return_inverse: bool, return_counts: bool) -> Any:
    """The tensors that were asked for: one, or a tuple."""
    parts = [values]
    parts += [inverse] if return_inverse else []
    parts += [counts] if return_counts else []
    tensors = [wrap(node_from_array(part)) for part in parts]
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


def _runs(is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where runs begin, the number of each element's run, and the runs' lengths."""
    starts = np.flatnonzero(is_new)
    return starts, np.cumsum(is_new) - 1, np.diff(starts, append=len(is_new))


def _is_new(slices: np.ndarray) -> np.ndarray:
    """Which slices along the first axis differ from the one before."""
    changed = (slices[1:] != slices[:-1]).any(tuple(range(1, slices.ndim)))
    return np.concatenate([np.ones(min(1, len(slices)), bool), changed])


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements (or slices along ``dim``) in ascending order. Every NaN is distinct.

    ``return_inverse`` also gives for every element of the input its place in the result,
    ``return_counts`` how often each occurs.

    >>> import treadle
    >>> [x.tolist() for x in treadle.tensor([3, 1, 3]).unique(return_counts=True)]
    [[1, 3], [1, 2]]
    """
    node = node_of("unique", input)
    if dim is None:
        flat = reshape(node, shape=(node.type.size,))
        values, places = map(array_of, results(sort_op(flat, axis=0, descending=False)))
        shape = node.shape
    else:
        array = np.moveaxis(array_of(node), axis_of("unique", dim, len(node.shape)), 0)
        # lexsort goes by its last key first, so the first element of a slice must be that.
        keys = array.reshape(len(array), prod(array.shape[1:])).T[::-1]
        places = np.lexsort(keys) if len(keys) else np.arange(len(array))
        values, shape = array[places], (len(array),)
    starts, runs, counts = _runs(_is_new(values))
    inverse = np.empty(len(places), np.int64)
    inverse[places] = runs
    found = values[starts]
    if dim is not None:
        found = np.moveaxis(found, 0, dim)
    return _told(found, inverse.reshape(shape), counts, return_inverse, return_counts)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The elements (or slices along ``dim``) that differ from the one before.

    >>> import treadle
    >>> treadle.tensor([1, 1, 2, 1]).unique_consecutive().tolist()
    [1, 2, 1]
    """
    node = node_of("unique_consecutive", input)
    array, shape = array_of(node), node.shape
    if dim is None:
        array = array.reshape(-1)
    else:
        array = np.moveaxis(array, axis_of("unique_consecutive", dim, len(shape)), 0)
        shape = (len(array),)
    starts, runs, counts = _runs(_is_new(array))
    found = array[starts]
    if dim is not None:
        found = np.moveaxis(found, 0, dim)
    return _told(found, runs.reshape(shape), counts, return_inverse, return_counts)


# --- counts ---------------------------------------------------------------------------------------


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often 0, 1, 2, ... occur in a vector of whole numbers that are not negative.

    With ``weights`` the sum of these instead, added in order, in float32 or float64.

    >>> import treadle
    >>> treadle.bincount(treadle.tensor([1, 3, 1])).tolist()
    [0, 2, 0, 1]
    """
    node = node_of("bincount", input)
    if len(node.shape) != 1 or node.dtype.kind not in "iu":
        raise located(ValueError(
            f"bincount: got a tensor of dtype {node.dtype.name} and shape {node.shape}; it takes "
            f"a vector of integers"
        ))  # fmt: skip
    if whole("bincount", minlength, "minlength") < 0:
        raise located(ValueError(f"bincount: got minlength={minlength}; it must not be negative"))
    size = minlength
    if node.type.size:
        lowest, highest = (int(array_of(op(node, axes=(0,)))) for op in (reduce_min, reduce_max))
        if lowest < 0:
            raise located(ValueError(
                f"bincount: got the number {lowest}; it counts numbers that are not negative"
            ))  # fmt: skip
        size = max(size, highest + 1)
    if weights is None:
        each = expand(number(1, dtypes.int64), shape=node.shape)
    else:
        each = node_of("bincount", weights)
        if each.shape != node.shape:
            raise located(ShapeError(
                f"bincount: got weights of shape {each.shape} for a vector of shape {node.shape}; "
                f"there must be one for every element"
            ))  # fmt: skip
        if each.dtype is not dtypes.float32:
            each = a.cast(each, dtypes.float64)
    zeros = zeros_of(type_of(each.dtype, (size,)))
    return wrap(take_add(zeros, a.cast(node, dtypes.int64), each, axis=0))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of ``bins`` equal intervals of [min, max], ends included.

    Where ``min`` equals ``max`` the smallest and largest element are taken.

    >>> import treadle
    >>> treadle.tensor([1.0, 2.0, 1.0]).histc(bins=4, min=0, max=3).tolist()
    [0.0, 2.0, 1.0, 0.0]
    """
    node = node_of("histc", input)
    if not node.dtype.is_floating_point:
        raise located(DTypeError(
            f"histc: got a tensor of dtype {node.dtype.name}; it takes floating-point tensors; "
            f"convert it with .float() first"
        ))  # fmt: skip
    if whole("histc", bins, "bins") < 1 or max < min:
        raise located(ValueError(
            f"histc: got bins={bins}, min={min}, max={max}; there must be at least one bin, and "
            f"min must not be larger than max"
        ))  # fmt: skip
    flat = reshape(node, shape=(node.type.size,))
    low, high = float(min), float(max)
    if low == high and node.type.size:
        low, high = (float(array_of(op(flat, axes=(0,)))) for op in (reduce_min, reduce_max))
    if low == high:
        low, high = low - 1, high + 1
    if not np.isfinite(high - low):
        raise located(ValueError(
            f"histc: got elements from {low} to {high}; give a finite min and max"
        ))  # fmt: skip
    x = wrap(flat)
    inside = a.logical_and(a.ge(x, low), a.le(x, high))
    place = a.div(a.mul(a.sub(x, low), float(bins)), high - low)
    place = a.clamp(a.where(inside, place, 0.0), 0.0, float(bins - 1))
    zeros = zeros_of(type_of(node.dtype, (bins,)))
    at = e.convert(place.node, dtype=dtypes.int64)
    return wrap(take_add(zeros, at, a.cast(inside.node, node.dtype), axis=0))


# --- divisors -------------------------------------------------------------------------------------


def _of_integers(name: str, input: Tensor, other: Tensor) -> Tensor:
    """NumPy's function of whole numbers, element by element."""
    dtype = a.common_dtype(name, input, other)
    if dtype.kind not in "iu":
        raise located(DTypeError(
            f"{name}: got tensors of dtype {dtype.name}; it takes integers; convert with .long()"
        ))  # fmt: skip
    x, y = (array_of(n) for n in a.operand_nodes(name, dtype, input, other))
    return wrap(node_from_array(getattr(np, name)(x, y), dtype))


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor (evaluates both at once).

    >>> import treadle
    >>> treadle.gcd(treadle.tensor([12, 18]), treadle.tensor(8)).tolist()
    [4, 2]
    """
    return _of_integers("gcd", input, other)


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple (evaluates both at once)."""
    return _of_integers("lcm", input, other)


# --- search ---------------------------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where each value of ``input`` goes in ``sorted_sequence``, sorted along its last dimension.

    Before the first element that is not smaller, or with ``right`` (``side="right"``) before the
    first that is larger. The sequence is a vector, or has the dimensions of ``input`` but the last.
    ``sorter`` holds the indices that sort a sequence that is not sorted.

    >>> import treadle
    >>> treadle.searchsorted(treadle.tensor([1.0, 3.0, 5.0]), treadle.tensor([3.0, 6.0])).tolist()
    [1, 3]
    """
    if side not in (None, "left", "right") or (side == "left" and right):
        raise located(ValueError(
            f"searchsorted: got side={side!r} and right={right}; side is 'left' or 'right' and "
            f"must not contradict right"
        ))  # fmt: skip
    row = node_of("searchsorted", sorted_sequence)
    if sorter is not None:
        row = gather(sorted_sequence, -1, sorter).node
    return _search("searchsorted", row, input, right or side == "right", out_int32)


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """Which of the intervals between ``boundaries``, a sorted vector, each value lies in.

    >>> import treadle
    >>> treadle.bucketize(treadle.tensor([0.5, 3.0]), treadle.tensor([1.0, 2.0])).tolist()
    [0, 2]
    """
    row = node_of("bucketize", boundaries)
    if len(row.shape) != 1:
        raise located(ShapeError(
            f"bucketize: got boundaries of shape {row.shape}; they must be a vector"
        ))  # fmt: skip
    return _search("bucketize", row, input, right, out_int32)


def _search(name: str, row: Node, input: Any, right: bool, out_int32: bool) -> Tensor:
    dtype = a.common_dtype(name, wrap(row), input)
    values = input.node if isinstance(input, Handle) else number(input, dtype)
    row, values = a.cast(row, dtype), a.cast(values, dtype)
    shape = values.shape
    if len(row.shape) == 1:
        values = reshape(values, shape=(values.type.size,))
    found = search_sorted(row, values, right=right)
    found = reshape(found, shape=shape)
    return wrap(a.cast(found, dtypes.int32) if out_int32 else found)


class Methods:
    """The functions of this module that PyTorch has as methods."""

    __slots__ = ()

    unique, unique_consecutive = unique, unique_consecutive
    bincount, histc, gcd, lcm = bincount, histc, gcd, lcm
    gcd_, lcm_ = map(in_place, (gcd, lcm))


__all__ = [
    "bincount", "bucketize", "gcd", "histc", "lcm", "searchsorted", "unique", "unique_consecutive",
]  # fmt: skip
