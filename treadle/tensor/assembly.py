"""Tensors built of others by their places: blocks, diagonals, products of sets, index patterns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import located, type_of
from treadle.ops.movement import zeros_of
from treadle.tensor import arithmetic as a
from treadle.tensor.creation import tensor
from treadle.tensor.handle import wrap
from treadle.tensor.joining import cat, diag, hstack, meshgrid, stack, tril, triu, vstack
from treadle.tensor.methods import in_place
from treadle.tensor.movement import (
    axis_of,
    diagonal,
    movedim,
    needs_dims,
    node_of,
    reshape,
    select,
    sizes_of,
    sliced,
    split,
    tensor_split,
    unsqueeze,
    whole,
)
from treadle.tensor.selection import index_select

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _copy(input: Tensor) -> Tensor:
    """The tensor's value with a handle of its own, to be written into."""
    return wrap(input.node).clone()


# --- joining and cutting --------------------------------------------------------------------------


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 1; vectors and numbers become columns.

    >>> import treadle
    >>> treadle.column_stack([treadle.tensor([1, 2]), treadle.tensor([3, 4])]).tolist()
    [[1, 3], [2, 4]]
    """
    return hstack([x if x.ndim > 1 else reshape(x, (-1, 1)) for x in tensors])


row_stack = vstack


def block_diag(*tensors: Tensor) -> Tensor:
    """The matrices along the diagonal of one matrix; vectors are rows, zeros elsewhere.

    >>> import treadle
    >>> treadle.block_diag(treadle.tensor([[1]]), treadle.tensor([2, 3])).tolist()
    [[1, 0, 0], [0, 2, 3]]
    """
    rows, blocks = [], [reshape(x, (1, -1)) if x.ndim < 2 else x for x in tensors]
    for x in blocks:
        if node_of("block_diag", x).type.ndim != 2:
            raise located(ShapeError(
                f"block_diag: got a tensor of shape {tuple(x.shape)}; it takes at most 2 dimensions"
            ))  # fmt: skip
    dtype = a.common_dtype("block_diag", *blocks)
    width, before = sum(x.shape[1] for x in blocks), 0
    for x in blocks:
        height, own = x.shape
        left = wrap(zeros_of(type_of(dtype, (height, before))))
        right = wrap(zeros_of(type_of(dtype, (height, width - before - own))))
        rows.append(cat([left, x, right], 1))
        before += own
    return cat(rows)


def _cut(name: str, input: Tensor, sections: int | Sequence[int], dim: int, least: int) -> Any:
    needs_dims(name, input, least)
    if isinstance(sections, int) and (sections < 1 or input.shape[dim] % sections):
        raise located(ShapeError(
            f"{name}: got {sections} sections of dimension {dim} of a tensor of shape "
            f"{tuple(input.shape)}; they must divide {input.shape[dim]}; tensor_split() takes any"
        ))  # fmt: skip
    return tensor_split(input, sections, dim)


def hsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Equal parts, or parts that end at the indices, of the columns (of a vector's elements)."""
    return _cut("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


def vsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Equal parts, or parts that end at the indices, of the rows."""
    return _cut("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Equal parts, or parts that end at the indices, of dimension 2."""
    return _cut("dsplit", input, indices_or_sections, 2, 3)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of the sizes given along ``dim``."""
    return split(input, list(split_sizes), dim)


def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``narrow`` with memory of its own."""
    return _copy(input.narrow(dim, start, length))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` elements, every ``step``-th, along a dimension, as a new last dimension.

    The windows are a copy of the elements.

    >>> import treadle
    >>> treadle.arange(5).unfold(0, 3, 2).tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    shape = needs_dims("unfold", input, 0)
    axis = axis_of("unfold", dimension, len(shape))
    length = shape[axis] if shape else 1
    if not 0 <= size <= length or step < 1:
        raise located(ShapeError(
            f"unfold: got size {size} and step {step} for dimension {dimension} of a tensor of "
            f"shape {shape}; the size must fit in and the step be positive"
        ))  # fmt: skip
    if not shape:
        return reshape(input, (1,)) if size else reshape(input, (1,))[:0]
    count = (length - size) // step + 1
    places = tensor([[i * step + j for j in range(size)] for i in range(count)], dtype=dtypes.int64)
    picked = index_select(input, axis, reshape(places, (-1,)))
    apart = reshape(picked, (*shape[:axis], count, size, *shape[axis + 1 :]))
    return movedim(apart, axis + 1, -1)


# --- diagonals and parts written ------------------------------------------------------------------


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension of ``input`` on a diagonal, zeros elsewhere."""
    shape = needs_dims("diag_embed", input)
    ndim, size = len(shape) + 1, shape[-1] + abs(offset)
    first, second = axis_of("diag_embed", dim1, ndim), axis_of("diag_embed", dim2, ndim)
    if first == second:
        raise located(ShapeError(
            f"diag_embed: got dim1 {dim1} and dim2 {dim2}; they must be two different dimensions"
        ))  # fmt: skip
    zeros = wrap(zeros_of(type_of(input.dtype, (*shape[:-1], size, size))))
    return movedim(diagonal_scatter(zeros, input, offset, -2, -1), (-2, -1), (first, second))


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of ``input`` on a diagonal."""
    return diag(reshape(input, (-1,)), offset)


def _written(name: str, part: Tensor, whole_: Tensor, src: Tensor) -> Tensor:
    """``whole_`` after ``src`` was written to ``part``, a view of it."""
    if node_of(name, src).shape != part.shape:
        raise located(ShapeError(
            f"{name}: got a src of shape {tuple(src.shape)} for a part of shape "
            f"{tuple(part.shape)}; they must be equal"
        ))  # fmt: skip
    part.copy_(src)
    return whole_


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """``input`` with ``src`` on its diagonal."""
    out = _copy(input)
    return _written("diagonal_scatter", diagonal(out, offset, dim1, dim2), out, src)


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """``input`` with ``src`` as its slice at ``index`` along ``dim``."""
    out = _copy(input)
    return _written("select_scatter", select(out, dim, index), out, src)


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Tensor:  # fmt: skip
    """``input`` with ``src`` as its elements from ``start`` to ``end`` along ``dim``."""
    out = _copy(input)
    axis = axis_of("slice_scatter", dim, len(needs_dims("slice_scatter", input)))
    first, last, by = slice(start, end, step).indices(input.shape[axis])
    part = sliced(out, axis, first, len(range(first, last, by)), by)
    return _written("slice_scatter", part, out, src)


def fill_diagonal_(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Writes a number to the main diagonal (elements with equal indices) of the tensor.

    ``wrap`` begins anew below the square part of a tall matrix.
    """
    shape = needs_dims("fill_diagonal_", input, 2)
    if len(shape) > 2 and len({*shape}) > 1:
        raise located(ShapeError(
            f"fill_diagonal_: got a tensor of shape {shape}; with more than 2 dimensions all sizes "
            f"must be equal"
        ))  # fmt: skip
    stride = sum(prod(shape[i + 1 :]) for i in range(len(shape)))
    end = prod(shape) if wrap else min(prod(shape), shape[1] * prod(shape[1:]))
    mask = np.zeros(prod(shape), bool)
    mask[:end:stride] = True
    return input.masked_fill_(tensor(mask.reshape(shape)), fill_value)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``source`` at these places of the flat tensor, or added there."""
    flat = reshape(_copy(input), (-1,))
    flat.index_put_((reshape(index, (-1,)),), reshape(source, (-1,)), accumulate)
    return reshape(flat, tuple(input.shape))


# --- sets and index patterns ----------------------------------------------------------------------


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All tuples of one element of each vector: (n, k), or the vector itself if there is one.

    >>> import treadle
    >>> treadle.cartesian_prod(treadle.tensor([1, 2]), treadle.tensor([3, 4])).tolist()
    [[1, 3], [1, 4], [2, 3], [2, 4]]
    """
    if len(tensors) == 1:
        return reshape(tensors[0], (-1,))
    return stack([reshape(x, (-1,)) for x in meshgrid(*tensors, indexing="ij")], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of ``r`` elements of a vector, in the order of Python's ``itertools``."""
    if node_of("combinations", input).type.ndim != 1 or whole("combinations", r, "r") < 0:
        raise located(ShapeError(
            f"combinations: got a tensor of shape {tuple(input.shape)} and r={r}; it takes a "
            f"vector and an r that is not negative"
        ))  # fmt: skip
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = list(choose(range(len(input)), r))
    flat = tensor([i for row in places for i in row], dtype=dtypes.int64)
    return reshape(index_select(input, 0, flat), (len(places) if r else 0, r))


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Rows of powers: x^(N-1), ..., x, 1, or the other way round. ``N`` is the length if None."""
    if node_of("vander", x).type.ndim != 1:
        raise located(ShapeError(
            f"vander: got a tensor of shape {tuple(x.shape)}; it takes a vector"
        ))  # fmt: skip
    count = len(x) if N is None else N
    exponents = range(count) if increasing else range(count - 1, -1, -1)
    return a.pow(unsqueeze(x, 1), tensor(list(exponents), dtype=dtypes.int64))


def _triangle(name: str, row: int, col: int, offset: int, dtype: Any, lower: bool) -> Tensor:
    make = np.tril_indices if lower else np.triu_indices
    if whole(name, row, "row") < 0 or whole(name, col, "col") < 0:
        raise located(ShapeError(f"{name}: got {row} rows and {col} columns; neither is negative"))
    return tensor(np.stack(make(row, offset, col)), dtype=dtypes.int64 if dtype is None else dtype)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """The coordinates (2, n) of the elements on and below a diagonal, row by row."""
    return _triangle("tril_indices", row, col, offset, dtype, True)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """The coordinates (2, n) of the elements on and above a diagonal, row by row."""
    return _triangle("triu_indices", row, col, offset, dtype, False)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Places in a flat tensor as coordinates in a tensor of that shape.

    >>> import treadle
    >>> [x.tolist() for x in treadle.unravel_index(treadle.tensor([1, 5]), (2, 3))]
    [[0, 1], [1, 2]]
    """
    sizes = sizes_of("unravel_index", (shape,) if not isinstance(shape, int) else ((shape,),))
    out, left = [], indices
    for size in reversed(sizes):
        out.append(a.remainder(left, size))
        left = a.floor_divide(left, size)
    return tuple(reversed(out))


class Methods:
    """The functions of this module that PyTorch has as methods, and their in-place forms."""

    __slots__ = ()

    hsplit, vsplit, dsplit, split_with_sizes = hsplit, vsplit, dsplit, split_with_sizes
    narrow_copy, unfold, diag_embed, diagflat = narrow_copy, unfold, diag_embed, diagflat
    diagonal_scatter, select_scatter = diagonal_scatter, select_scatter
    slice_scatter, fill_diagonal_, put = slice_scatter, fill_diagonal_, put
    put_, tril_, triu_ = map(in_place, (put, tril, triu))


__all__ = [
    "block_diag", "cartesian_prod", "column_stack", "combinations", "diag_embed", "diagflat",
    "diagonal_scatter", "dsplit", "hsplit", "narrow_copy", "put", "row_stack", "select_scatter",
    "slice_scatter", "split_with_sizes", "tril_indices", "triu_indices", "unravel_index", "vander",
    "vsplit",
]  # fmt: skip
