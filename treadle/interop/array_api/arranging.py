"""The standard's functions that move elements: shapes, indexing, sorting, sets."""

from __future__ import annotations

from typing import Any, NamedTuple

from treadle.base import dtypes
from treadle.base.shapes import normalize_axis
from treadle.interop.array_api.functions import promoted, t
from treadle.tensor.tensor import Tensor


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """The arrays in the shape that they have together."""
    return list(t.broadcast_tensors(*arrays))


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that arrays of these shapes have together."""
    return tuple(t.broadcast_shapes(*shapes))


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """``x`` repeated to a shape."""
    return t.broadcast_to(x, shape)


def concat(arrays: Any, /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other along an axis, or flattened."""
    parts = promoted("concat", *arrays)
    if axis is None:
        parts, axis = tuple(x.reshape(-1) for x in parts), 0
    return t.cat(parts, axis)


def stack(arrays: Any, /, *, axis: int = 0) -> Tensor:
    """Arrays side by side along a new axis."""
    return t.stack(promoted("stack", *arrays), axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of an array along an axis."""
    return tuple(t.unbind(x, axis))


def expand_dims(x: Tensor, /, axis: Any) -> Tensor:
    """A new axis of size 1 at a place, or several."""
    if isinstance(axis, int):
        return t.unsqueeze(x, axis)
    ndim = x.ndim + len(axis)
    for place in sorted(normalize_axis(a, ndim) for a in axis):
        x = t.unsqueeze(x, place)
    return x


def squeeze(x: Tensor, /, axis: Any) -> Tensor:
    """Without these axes, which must be of size 1."""
    places = sorted(normalize_axis(a, x.ndim) for a in ((axis,) if isinstance(axis, int) else axis))
    wrong = [a for a in places if x.shape[a] != 1]
    if wrong:
        raise ValueError(
            f"squeeze: got the axes {wrong} of an array of shape {tuple(x.shape)}; expected axes "
            f"of size 1"
        )
    return x.reshape([n for a, n in enumerate(x.shape) if a not in places])


def flip(x: Tensor, /, *, axis: Any = None) -> Tensor:
    """Backwards along an axis, several, or all."""
    return t.flip(x, _all_axes(axis, x.ndim)) if x.ndim else x


def _all_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    """With axes in other places."""
    return t.moveaxis(x, source, destination)


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """With the axes in another order."""
    return t.permute(x, axes)


def matrix_transpose(x: Tensor, /) -> Tensor:
    """With the last two axes exchanged."""
    if x.ndim < 2:
        raise ValueError(
            f"matrix_transpose: got an array of shape {tuple(x.shape)}; expected two dimensions "
            f"at least"
        )
    return t.transpose(x, -2, -1)


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: Any = None) -> Tensor:
    """The same elements in another shape."""
    if copy is False:
        return x.view(shape)
    return x.reshape(shape).clone() if copy else x.reshape(shape)


def roll(x: Tensor, /, shift: Any, *, axis: Any = None) -> Tensor:
    """Shifted along an axis (all elements in a row if None), what falls off coming in again."""
    return t.roll(x, shift, axis)


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """Repeated along each axis."""
    return t.tile(x, tuple(repetitions))


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element so many times, along an axis."""
    return t.repeat_interleave(x, repeats, dim=axis)


# --- indexing -------------------------------------------------------------------------------------


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The parts of an array at these indices along an axis."""
    place = normalize_axis(0 if axis is None else axis, x.ndim)
    return x[(slice(None),) * place + (indices.to(dtypes.int64),)]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """For each line along an axis, its elements at the indices of that line."""
    size = x.shape[axis]
    index = indices.to(dtypes.int64)
    return t.take_along_dim(x, t.where(index < 0, index + size, index), axis)


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The indices of the elements that are not 0, for each dimension."""
    if not x.ndim:
        raise ValueError("nonzero: got an array without dimensions; reshape it to (1,) first")
    return tuple(t.nonzero(x, as_tuple=True))


def searchsorted(
    x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None
) -> Tensor:
    """Where the elements of ``x2`` belong in the sorted ``x1``."""
    a, b = promoted("searchsorted", x1, x2)
    return t.searchsorted(a if sorter is None else a[sorter], b, side=side)


# --- sorting and sets -----------------------------------------------------------------------------


def sort(x: Tensor, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Tensor:
    """Sorted along an axis."""
    return t.sort(x, dim=axis, descending=descending, stable=stable)[0]


def argsort(x: Tensor, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Tensor:
    """The indices that sort an array along an axis."""
    return t.argsort(x, dim=axis, descending=descending, stable=stable)


class UniqueAll(NamedTuple):
    """What ``unique_all`` gives."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What ``unique_counts`` gives."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What ``unique_inverse`` gives."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAll:
    """The different values, where each comes first, which one each element is, how many."""
    flat = x.reshape(-1)
    order = t.argsort(flat, stable=True)
    ordered = flat[order]
    count = int(flat.numel())
    begins = t.ones(count, dtype=dtypes.bool_)
    if count > 1:
        begins = t.cat([begins[:1], ordered[1:] != ordered[:-1]])  # NaNs differ from each other
    places = t.nonzero(begins)[:, 0]
    ends = t.cat([places[1:], t.tensor([count])]) if count else places
    number = t.cumsum(begins.to(dtypes.int64), 0) - 1
    inverse = t.zeros(count, dtype=dtypes.int64).scatter(0, order, number)
    return UniqueAll(ordered[places], order[places], inverse.reshape(x.shape), ends - places)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The different values, and how often each comes."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The different values, and which of them each element is."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Tensor, /) -> Tensor:
    """The different values, sorted."""
    return unique_all(x).values


def isin(x1: Any, x2: Any, /, *, invert: Any = False) -> Tensor:
    """Whether each element of ``x1`` is among those of ``x2``."""
    return t.isin(*promoted("isin", x1, x2), invert=invert)


__all__ = [
    "argsort", "broadcast_arrays", "broadcast_shapes", "broadcast_to", "concat", "expand_dims",
    "flip", "isin", "matrix_transpose", "moveaxis", "nonzero", "permute_dims", "repeat", "reshape",
    "roll", "searchsorted", "sort", "squeeze", "stack", "take", "take_along_axis", "tile",
    "unique_all", "unique_counts", "unique_inverse", "unique_values", "unstack",
]  # fmt: skip
