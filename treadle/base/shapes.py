"""Shapes and strides as plain tuples.

A size is a symbolic-integer expression by design; a constant, an ``int``, is the case that
exists today, and ``Dim`` is the name to widen when sizes become symbolic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import index

from treadle.base.errors import ShapeError

Dim = int
Shape = tuple[Dim, ...]

prod = math.prod


def contiguous_strides(shape: Shape) -> tuple[int, ...]:
    """Row-major strides in elements.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


def normalize_axis(axis: int, ndim: int, what: str = "dim") -> int:
    """``axis`` counted from the front; IndexError outside [-ndim, ndim)."""
    limit = max(ndim, 1)
    if not -limit <= axis < limit:
        raise IndexError(
            f"{what} out of range: got {axis}, expected one of [{-limit}, {limit - 1}] "
            f"for a tensor of {ndim} dimensions"
        )
    return axis % limit


def normalize_axes(axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Sorted distinct axes; None or () means all of them."""
    if axes is None or (not isinstance(axes, int) and len(axes) == 0):
        return tuple(range(ndim))
    if isinstance(axes, int):
        axes = (axes,)
    out = tuple(sorted(normalize_axis(int(a), ndim) for a in axes))
    if len(set(out)) != len(out):
        raise ShapeError(f"dim {tuple(axes)} names an axis twice; name each axis once")
    return out if ndim else ()


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape by NumPy's broadcasting.

    >>> broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    ndim = max((len(s) for s in shapes), default=0)
    out = [1] * ndim
    for shape in shapes:
        for axis, size in enumerate(shape, ndim - len(shape)):
            if size != 1:
                if out[axis] not in (1, size):
                    raise ShapeError(
                        f"shapes {' and '.join(map(str, shapes))} do not broadcast: dimension "
                        f"{axis - ndim} is {out[axis]} and {size}; sizes must be equal or 1"
                    )
                out[axis] = size
    return tuple(out)


def as_shape(sizes: Iterable[int]) -> Shape:
    """A tuple of ints from ``(2, 3)`` or ``((2, 3),)``, refusing negative sizes and fractions."""
    items = tuple(sizes)
    if len(items) == 1 and isinstance(items[0], (tuple, list)):
        items = tuple(items[0])
    try:
        shape = tuple(map(index, items))
    except TypeError:
        raise TypeError(f"got the shape {items}; sizes must be integers") from None
    if any(s < 0 for s in shape):
        raise ShapeError(f"got the shape {shape}; sizes must not be negative")
    return shape
