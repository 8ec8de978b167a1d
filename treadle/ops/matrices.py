"""Algebra of matrices in batches of any shape, for the gradients of linear algebra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.shapes import broadcast_shapes, prod
from treadle.ir.node import Node, Type, type_of
from treadle.ops import elementwise as e
from treadle.ops.contraction import matmul
from treadle.ops.movement import concatenate, expand, permute, reshape, slice_, zeros_of
from treadle.ops.source import iota


def product(a: Node, *others: Node) -> Node:
    """The matrix product of all, from the left."""
    for b in others:
        batch = a.shape[:-2]
        flat = (prod(batch),)
        pair = [x if len(x.shape) <= 3 else reshape(x, shape=flat + x.shape[-2:]) for x in (a, b)]
        a = reshape(matmul(*pair), shape=(*batch, a.shape[-2], b.shape[-1]))
    return a


def transpose(a: Node) -> Node:
    """Every matrix transposed."""
    rank = len(a.shape)
    return permute(a, axes=(*range(rank - 2), rank - 1, rank - 2))


def conj(a: Node) -> Node:
    """The complex conjugate."""
    from treadle.ops.complex_functions import conj as complex_conj

    return complex_conj(a) if a.dtype.kind == "c" else a


def adjoint(a: Node) -> Node:
    """Every matrix transposed and conjugated."""
    return conj(transpose(a))


def times(a: Node, b: Node) -> Node:
    """The elementwise product, with broadcasting and a real factor of a complex one."""
    if a.dtype is not b.dtype:
        wide = dtypes.promote_types(a.dtype, b.dtype)
        a, b = e.cast(a, wide), e.cast(b, wide)
    shape = broadcast_shapes(a.shape, b.shape)
    return e.mul(*[x if x.shape == shape else expand(x, shape=shape) for x in (a, b)])


def over(a: Node, b: Node) -> Node:
    """The elementwise quotient, as ``times``."""
    if a.dtype is not b.dtype:
        wide = dtypes.promote_types(a.dtype, b.dtype)
        a, b = e.cast(a, wide), e.cast(b, wide)
    shape = broadcast_shapes(a.shape, b.shape)
    return e.div(*[x if x.shape == shape else expand(x, shape=shape) for x in (a, b)])


def scaled(a: Node, factor: float) -> Node:
    """The node times a real number."""
    return e.mul(a, e.full_like(a, factor))


def rows(v: Node) -> Node:
    """Vectors as columns: what multiplies the rows of a matrix."""
    return reshape(v, shape=(*v.shape, 1))


def columns(v: Node) -> Node:
    """Vectors as rows: what multiplies the columns of a matrix."""
    return reshape(v, shape=(*v.shape[:-1], 1, v.shape[-1]))


def _places(shape: Sequence[int], axis: int) -> Node:
    return iota(shape=tuple(shape), axis=len(shape) + axis, dtype=dtypes.int64)


def triangle(a: Node, lower: bool, diagonal: int = 0) -> Node:
    """The elements on and below the diagonal (or above it), zeros elsewhere."""
    i, j = _places(a.shape, -2), _places(a.shape, -1)
    shifted = e.add(i, e.full_like(i, diagonal))
    return e.where((e.le if lower else e.ge)(j, shifted), a, e.full_like(a, 0))


def on_diagonal(a: Node, there: Node) -> Node:
    """``a`` with the diagonal replaced by that of ``there``."""
    return e.where(e.eq(_places(a.shape, -2), _places(a.shape, -1)), there, a)


def diagonal(a: Node) -> Node:
    """The diagonals of square matrices."""
    from treadle.ops.reduce import reduce_sum

    only = on_diagonal(e.full_like(a, 0), a)
    return reduce_sum(only, axes=(len(a.shape) - 1,))


def diagonal_matrix(v: Node) -> Node:
    """Square matrices with these diagonals, and zeros elsewhere."""
    shape = (*v.shape, v.shape[-1])
    spread = expand(columns(v), shape=shape)
    return on_diagonal(e.full_like(spread, 0), spread)


def identity(kind: Type, n: int) -> Node:
    """Identity matrices in the batch and dtype of ``kind``."""
    ones = e.full_like(zeros_of(type_of(kind.dtype, (*kind.shape[:-2], n))), 1)
    return diagonal_matrix(ones)


def block(a: Node, begin: tuple[int, int], size: tuple[int, int]) -> Node:
    """A part of every matrix."""
    rank = len(a.shape)
    return slice_(
        a, starts=(*(0,) * (rank - 2), *begin), sizes=(*a.shape[:-2], *size), steps=(1,) * rank
    )


def beside(*parts: Node) -> Node:
    """Matrices beside each other."""
    return concatenate(*parts, axis=len(parts[0].shape) - 1)


def above(*parts: Node) -> Node:
    """Matrices below each other."""
    return concatenate(*parts, axis=len(parts[0].shape) - 2)


def total(parts: Sequence[Node | None]) -> Any:
    """The sum of those that are there; None where none is."""
    found = None
    for part in parts:
        if part is not None:
            found = part if found is None else e.add(found, part)
    return found


__all__ = [
    "above", "adjoint", "beside", "block", "columns", "conj", "diagonal", "diagonal_matrix",
    "identity", "on_diagonal", "over", "product", "rows", "scaled", "times", "total", "transpose",
    "triangle",
]  # fmt: skip
