"""Tensors joined, repeated, turned and padded: functions whose results have memory of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape
from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops import indexing as pick
from treadle.ops import movement as op
from treadle.ops.source import iota, number
from treadle.tensor.arithmetic import cast, common_dtype, stretch
from treadle.tensor.handle import Handle, view_of, wrap
from treadle.tensor.movement import (
    Dims,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    axis_of,
    diagonal,
    needs_dims,
    node_of,
    sizes_of,
    unshared,
    whole,
)
from treadle.tensor.storage import array_of, node_from_array

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

# --- joining --------------------------------------------------------------------------------------


def _checked(name: str, tensors: Any) -> list[Tensor]:
    """A list of at least one tensor."""
    if not isinstance(tensors, (list, tuple)):
        raise located(TypeError(
            f"{name}: got a {type(tensors).__name__}; it takes a list or tuple of tensors"
        ))  # fmt: skip
    if not tensors:
        raise located(ShapeError(f"{name}: got no tensors; it takes at least one"))
    for x in tensors:
        node_of(name, x)
    return list(tensors)


def _joined(name: str, tensors: list[Tensor], axis: int) -> Tensor:
    """The tensors along an existing axis, in their common dtype."""
    dtype = common_dtype(name, *tensors)
    nodes = [cast(x.node, dtype) for x in tensors]
    first = nodes[0].shape
    for other in (n.shape for n in nodes):
        rest = [s for a, s in enumerate(other) if a != axis]
        if len(other) != len(first) or rest != [s for a, s in enumerate(first) if a != axis]:
            raise located(ShapeError(
                f"{name}: got tensors of shapes {', '.join(str(n.shape) for n in nodes)}; they "
                f"must have equally many dimensions, of equal sizes except in dimension {axis}"
            ))  # fmt: skip
    return wrap(op.concatenate(*nodes, axis=axis))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along ``dim``, in their common dtype.

    As in PyTorch, tensors of shape (0,) may be among tensors of other shapes and are left out.

    >>> import treadle
    >>> treadle.cat([treadle.tensor([1, 2]), treadle.tensor([3])]).tolist()
    [1, 2, 3]
    """
    items = _checked("cat", tensors)
    if any(not x.node.shape for x in items):
        raise located(ShapeError(
            "cat: got a tensor without dimensions; use stack(), or add one with .unsqueeze(0)"
        ))  # fmt: skip
    solid = [x for x in items if x.node.shape != (0,)] or items[:1]
    axis = axis_of("cat", dim, len(solid[0].node.shape))
    return _joined("cat", solid, axis)


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, of one shape, along a new dimension ``dim``.

    >>> import treadle
    >>> treadle.stack([treadle.tensor([1, 2]), treadle.tensor([3, 4])], dim=1).tolist()
    [[1, 3], [2, 4]]
    """
    items = _checked("stack", tensors)
    shape = items[0].node.shape
    if any(x.node.shape != shape for x in items):
        raise located(ShapeError(
            f"stack: got tensors of shapes {', '.join(str(x.node.shape) for x in items)}; they "
            f"must have one shape (cat() joins along a dimension that exists)"
        ))  # fmt: skip
    axis = axis_of("stack", dim, len(shape) + 1)
    longer = (*shape[:axis], 1, *shape[axis:])
    return _joined("stack", [wrap(op.reshape(x.node, shape=longer)) for x in items], axis)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the columns: dimension 1, or 0 for vectors."""
    items = [atleast_1d(x) for x in _checked("hstack", tensors)]
    return _joined("hstack", items, min(1, len(items[0].node.shape) - 1))


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the rows; vectors become rows."""
    return _joined("vstack", [atleast_2d(x) for x in _checked("vstack", tensors)], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 2; vectors become (1, n, 1), matrices (m, n, 1)."""
    return _joined("dstack", [atleast_3d(x) for x in _checked("dstack", tensors)], 2)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of the grid that vectors span: one tensor of the grid's shape for each.

    ``indexing`` "ij" has the first vector along dimension 0, "xy" along dimension 1.
    """
    several = len(tensors) == 1 and isinstance(tensors[0], (tuple, list))
    items = _checked("meshgrid", tensors[0] if several else tensors)
    if indexing not in ("ij", "xy"):
        raise located(ValueError(f"meshgrid: got indexing {indexing!r}; it is 'ij' or 'xy'"))
    if any(len(x.node.shape) > 1 for x in items):
        raise located(ShapeError(
            f"meshgrid: got tensors of shapes {', '.join(str(x.node.shape) for x in items)}; it "
            f"takes vectors and tensors without dimensions"
        ))  # fmt: skip
    order = list(range(len(items)))
    if indexing == "xy" and len(items) > 1:
        order[:2] = 1, 0
    sizes = [x.node.type.size for x in items]
    shape = tuple(sizes[i] for i in order)
    grids = []
    for i, x in enumerate(items):
        line = tuple(n if order[a] == i else 1 for a, n in enumerate(shape))
        column = view_of(x, op.reshape, shape=line)
        grids.append(view_of(column, op.expand, shape=shape))
    return tuple(grids)


# --- repeating ------------------------------------------------------------------------------------


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor repeated ``repeats[i]`` times along dimension i, counted from the right."""
    node = node_of("repeat", input)
    times = sizes_of("repeat", repeats, "a number of repeats")
    if len(times) < len(node.shape) or any(n < 0 for n in times):
        raise located(ShapeError(
            f"repeat: got the numbers {times} for a tensor of shape {node.shape}; it takes one "
            f"for every dimension at least, and none may be negative"
        ))  # fmt: skip
    return wrap(_repeated(node, times))


def _repeated(node: Node, times: Shape) -> Node:
    shape = (*(1,) * (len(times) - len(node.shape)), *node.shape)
    apart = op.reshape(node, shape=tuple(x for n in shape for x in (1, n)))
    wide = op.expand(apart, shape=tuple(x for pair in zip(times, shape, strict=True) for x in pair))
    return op.reshape(wide, shape=tuple(k * n for k, n in zip(times, shape, strict=True)))


def tile(input: Tensor, *dims: Any) -> Tensor:
    """``repeat`` that takes fewer numbers than dimensions: those left out are 1."""
    node = node_of("tile", input)
    times = sizes_of("tile", dims, "a number of repeats")
    return repeat(input, (*(1,) * (len(node.shape) - len(times)), *times))


def repeat_interleave(
    input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Every element repeated in its place along ``dim`` (without it: of the flat tensor).

    ``repeats`` is a number, or a tensor or list with one for every element along ``dim``; a tensor
    is evaluated at once, because the size of the result depends on it (so ``output_size``, which is
    PyTorch's, is not needed).
    """
    node = node_of("repeat_interleave", input)
    if dim is None:
        node = op.reshape(node, shape=(node.type.size,))
    axis = axis_of("repeat_interleave", 0 if dim is None else dim, len(node.shape))
    shape = node.shape
    counts = array_of(repeats.node) if isinstance(repeats, Handle) else np.asarray(repeats)
    fits = counts.shape in ((), (1,), shape[axis : axis + 1])
    if counts.dtype.kind not in "iu" or not fits or (counts < 0).any():
        raise located(ShapeError(
            f"repeat_interleave: got repeats {counts.tolist()} for dimension {axis} of a tensor of "
            f"shape {shape}; it takes one number that is not negative, or {shape[axis]} of them"
        ))  # fmt: skip
    if counts.size != 1:
        places = np.repeat(np.arange(shape[axis]), counts)
        return wrap(pick.take(node, node_from_array(places, dtypes.int64), axis=axis))
    times = int(counts.reshape(()))
    before, after = shape[: axis + 1], shape[axis + 1 :]
    column = op.reshape(node, shape=(*before, 1, *after))
    wide = op.expand(column, shape=(*before, times, *after))
    return wrap(op.reshape(wide, shape=(*shape[:axis], shape[axis] * times, *after)))


# --- turning --------------------------------------------------------------------------------------


def flip(input: Tensor, *axes_: Any, dims: Any = ()) -> Tensor:
    """The order along ``dims`` reversed: ``flip(x, 0, 1)``, or ``flip(x, dims=(0, 1))``."""
    node = node_of("flip", input)
    wanted = sizes_of("flip", axes_ or (dims,), "a dim")
    axes = tuple(sorted(axis_of("flip", d, len(node.shape)) for d in wanted))
    if len(set(axes)) != len(axes):
        raise located(ShapeError(f"flip: got dims {wanted}; every dimension may be named once"))
    return wrap(op.flip(node, axes=axes if node.shape else ()))


def fliplr(input: Tensor) -> Tensor:
    """The columns in reverse order: dimension 1 flipped."""
    needs_dims("fliplr", input, 2)
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """The rows in reverse order: dimension 0 flipped."""
    needs_dims("flipud", input)
    return flip(input, 0)


def roll(input: Tensor, shifts: Dims, dims: Dims | None = None) -> Tensor:
    """Shifted by ``shifts`` along ``dims``; what leaves at the end comes back at the start.

    Without ``dims`` the flat tensor is shifted.

    >>> import treadle
    >>> treadle.arange(5).roll(2).tolist()
    [3, 4, 0, 1, 2]
    """
    node = node_of("roll", input)
    steps = sizes_of("roll", (shifts,), "a shift")
    if dims is None:
        if len(steps) != 1:
            raise located(ShapeError(
                f"roll: got the shifts {steps} and no dims; name as many dims as shifts"
            ))  # fmt: skip
        flat = _rolled(op.reshape(node, shape=(node.type.size,)), steps[0], 0)
        return wrap(op.reshape(flat, shape=node.shape))
    axes = sizes_of("roll", (dims,), "a dim")
    if len(axes) != len(steps):
        raise located(ShapeError(
            f"roll: got the shifts {steps} and the dims {axes}; there must be equally many"
        ))  # fmt: skip
    for step, dim in zip(steps, axes, strict=True):
        node = _rolled(node, step, axis_of("roll", dim, len(node.shape)))
    return unshared(node)


def _rolled(node: Node, shift: int, axis: int) -> Node:
    size = node.shape[axis] if node.shape else 0
    cut = -shift % size if size else 0
    if not cut:
        return node
    return op.concatenate(_part(node, axis, cut, size - cut), _part(node, axis, 0, cut), axis=axis)


def _part(node: Node, axis: int, start: int, length: int) -> Node:
    starts = tuple(start if a == axis else 0 for a in range(len(node.shape)))
    sizes = (*node.shape[:axis], length, *node.shape[axis + 1 :])
    return op.slice_(node, starts=starts, sizes=sizes, steps=(1,) * len(sizes))


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned k times by 90 degrees in the plane of ``dims``, from the first towards the second."""
    needs_dims("rot90", input, 2)
    node = input.node
    plane = [axis_of("rot90", d, len(node.shape)) for d in dims]
    if len(plane) != 2 or plane[0] == plane[1]:
        raise located(ShapeError(
            f"rot90: got dims {tuple(dims)} for a tensor of shape {node.shape}; they must be two "
            f"different dimensions"
        ))  # fmt: skip
    a, b = plane
    axes = list(range(len(node.shape)))
    axes[a], axes[b] = b, a
    match k % 4:
        case 1:
            node = op.permute(op.flip(node, axes=(b,)), axes=tuple(axes))
        case 2:
            node = op.flip(node, axes=(a, b))
        case 3:
            node = op.flip(op.permute(node, axes=tuple(axes)), axes=(b,))
    return unshared(node)


# --- triangles and diagonals ----------------------------------------------------------------------


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions: 0 where column > row + ``diagonal``."""
    return _triangle("tril", input, diagonal, e.le)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions: 0 where column < row + ``diagonal``."""
    return _triangle("triu", input, diagonal, e.ge)


def _triangle(name: str, input: Tensor, diagonal: int, compare: Any) -> Tensor:
    matrix = needs_dims(name, input, 2)[-2:]
    node = input.node
    rows = iota(shape=matrix, axis=0, dtype=dtypes.int64)
    columns = iota(shape=matrix, axis=1, dtype=dtypes.int64)
    limit = e.add(rows, e.full_like(rows, whole(name, diagonal, "diagonal")))
    kept = stretch(compare(columns, limit), node.shape)
    return wrap(e.where(kept, node, e.full_like(node, 0)))


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with the vector on its diagonal, or the diagonal of a matrix (a copy)."""
    node = node_of("diag", input)
    if len(node.shape) == 2:
        return wrap(_diagonal(input, diagonal).node)
    if len(node.shape) != 1:
        raise located(ShapeError(
            f"diag: got a tensor of shape {node.shape}; it takes a vector or a matrix; use "
            f"diagonal() for more dimensions"
        ))  # fmt: skip
    count = node.shape[0]
    size = count + abs(diagonal)
    start = diagonal if diagonal >= 0 else -diagonal * size
    zeros = stretch(number(0, node.dtype), (size * size,))
    filled = op.slice_update(zeros, node, starts=(start,), steps=(size + 1,))
    return wrap(op.reshape(filled, shape=(size, size)))


_diagonal = diagonal  # the function, under a name that no argument hides

# --- padding --------------------------------------------------------------------------------------

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # names in NumPy


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Elements added before and after the last dimensions.

    ``pad`` is (left, right, top, bottom, ...): a pair for each dimension, the last one first.
    Negative numbers take elements away. ``mode`` says what is added: "constant" (``value``, 0 by
    default), "reflect" (mirrored, without the edge), "replicate" (the edge) or "circular".

    >>> import treadle
    >>> treadle.pad(treadle.tensor([1, 2, 3]), (2, 1), mode="reflect").tolist()
    [3, 2, 1, 2, 3, 2]
    """
    node = node_of("pad", input)
    widths = sizes_of("pad", (pad,), "a width")
    ndim = len(node.shape)
    if len(widths) % 2 or len(widths) > 2 * ndim:
        raise located(ShapeError(
            f"pad: got the widths {widths} for a tensor of shape {node.shape}; it takes a pair "
            f"(before, after) for each of the last dimensions"
        ))  # fmt: skip
    pairs = {ndim - 1 - i: widths[2 * i : 2 * i + 2] for i in range(len(widths) // 2)}
    if mode != "constant" and mode not in _PAD_MODES:
        raise located(ValueError(
            f"pad: got mode {mode!r}; it is 'constant', {', '.join(map(repr, _PAD_MODES))}"
        ))  # fmt: skip
    if mode != "constant" and value is not None:
        raise located(ValueError(f"pad: got a value with mode {mode!r}; only 'constant' has one"))
    for axis, (before, after) in pairs.items():
        # The edge that is replicated may be one that is taken away.
        if mode != "replicate" or node.shape[axis] + before + after < 0:
            node = _cropped(node, axis, before, after)
    grown = {axis: (max(a, 0), max(b, 0)) for axis, (a, b) in pairs.items() if a > 0 or b > 0}
    if mode == "replicate":
        grown = {axis: (a, b) for axis, (a, b) in pairs.items() if a or b}
    if mode != "constant":
        for axis, widening in grown.items():
            node = _continued(node, axis, widening, mode)
        return unshared(node)
    return unshared(_surrounded(node, grown, value or 0) if grown else node)


def _cropped(node: Node, axis: int, before: int, after: int) -> Node:
    """Without the elements that negative widths take away."""
    start, end = max(-before, 0), node.shape[axis] - max(-after, 0)
    if start == 0 and end == node.shape[axis]:
        return node
    if end < start:
        raise located(ShapeError(
            f"pad: got the widths ({before}, {after}) for dimension {axis} of a tensor of shape "
            f"{node.shape}; they take away more elements than it has"
        ))  # fmt: skip
    return _part(node, axis, start, end - start)


def _surrounded(node: Node, grown: dict[int, tuple[int, int]], value: float) -> Node:
    """The node in the middle of a constant."""
    widths = [grown.get(axis, (0, 0)) for axis in range(len(node.shape))]
    shape = tuple(a + n + b for n, (a, b) in zip(node.shape, widths, strict=True))
    constant = stretch(number(value, node.dtype), shape)
    starts = tuple(a for a, _ in widths)
    return op.slice_update(constant, node, starts=starts, steps=(1,) * len(shape))


def _continued(node: Node, axis: int, widths: tuple[int, int], mode: str) -> Node:
    """The axis continued on both sides with its own elements."""
    size = node.shape[axis]
    limit = {"reflect": size - 1, "circular": size}.get(mode)
    if size == 0 or (limit is not None and max(widths) > limit):
        raise located(ShapeError(
            f"pad: got the widths {widths} for dimension {axis} of a tensor of shape {node.shape}; "
            + (f"mode {mode!r} takes at most {max(limit or 0, 0)} on each side" if limit is not None
               else "there must be an element to replicate")
        ))  # fmt: skip
    if mode == "replicate":
        places = np.clip(np.arange(-widths[0], size + widths[1]), 0, size - 1)
    else:
        places = np.pad(np.arange(size), widths, _PAD_MODES[mode])  # type: ignore[call-overload]
    return pick.take(node, node_from_array(places, dtypes.int64), axis=axis)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    repeat, tile, repeat_interleave = repeat, tile, repeat_interleave
    flip, fliplr, flipud, roll, rot90 = flip, fliplr, flipud, roll, rot90
    tril, triu, diag = tril, triu, diag


__all__ = [
    "cat", "concat", "concatenate", "diag", "dstack", "flip", "fliplr", "flipud",
    "hstack", "meshgrid", "pad", "repeat", "repeat_interleave", "roll", "rot90", "stack", "tile",
    "tril", "triu", "vstack",
]  # fmt: skip
