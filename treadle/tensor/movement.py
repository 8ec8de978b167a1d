"""The same elements under other indices: functions that share memory with their input.

Every function here gives a view, as in PyTorch: writing into the result writes into the input, and
the other way round. What PyTorch copies (``cat``, ``repeat``, ``flip`` ...) is in ``joining.py``.

Whether PyTorch shares memory in ``reshape``, ``flatten`` and ``contiguous`` depends on strides. A
tensor has none here, so ``places.py`` works out which strides its chain of views would have made.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, IndexRangeError, ShapeError
from treadle.base.shapes import Shape, broadcast_shapes, normalize_axis, prod
from treadle.ir.node import Leaf, Node, located
from treadle.ops import movement as op
from treadle.tensor.handle import Handle, view_of, wrap
from treadle.tensor.places import layout_of, storage_offset

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Dims = int | Sequence[int]


def node_of(name: str, input: Any) -> Node:
    """The node of a tensor; TypeError for anything else."""
    if not isinstance(input, Handle):
        raise located(TypeError(
            f"{name}: got a {type(input).__name__}; it takes a tensor; make one with "
            f"treadle.tensor(value)"
        ))  # fmt: skip
    return input.node


def axis_of(name: str, dim: Any, ndim: int) -> int:
    """``dim`` counted from the front; IndexError where the tensor has no such dimension."""
    try:
        return normalize_axis(whole(name, dim, "dim"), ndim)
    except IndexError as error:
        raise located(IndexError(f"{name}: {error}")) from None


def whole(name: str, value: Any, what: str) -> int:
    """``value`` as an int; TypeError for what is not a whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise located(TypeError(
            f"{name}: got {value!r} for {what}; it must be an int"
        )) from None  # fmt: skip


def sizes_of(name: str, sizes: Sequence[Any], what: str = "a size") -> Shape:
    """Ints from ``f(2, 3)`` or ``f((2, 3))``."""
    items: Iterable[Any] = sizes
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        items = sizes[0]
    return tuple(whole(name, s, what) for s in items)


def unshared(node: Node) -> Tensor:
    """A tensor that shares memory with no other; values never change, so nothing is copied."""
    return wrap(op.reshape(node, shape=node.shape) if isinstance(node, Leaf) else node)


# --- shape ----------------------------------------------------------------------------------------


def _completed(name: str, node: Node, sizes: Shape) -> Shape:
    """The shape with the one -1 in it worked out."""
    size = node.type.size
    fitted = _fitted(size, sizes)
    if fitted is not None:
        return fitted
    if sizes.count(-1) > 1 or any(s < -1 for s in sizes):
        raise located(ShapeError(
            f"{name}: got the sizes {sizes}; one of them may be -1 (what is left), and no other "
            f"may be negative"
        ))  # fmt: skip
    undetermined = -1 in sizes and 0 in sizes
    raise located(ShapeError(
        f"{name}: got a tensor of shape {node.shape} with {size} elements and the sizes {sizes}; "
        f"their product must be {size}"
        + (" (what -1 stands for is not determined)" if undetermined else "")
    ))  # fmt: skip


@lru_cache(maxsize=1024)
def _fitted(size: int, sizes: Shape) -> Shape | None:
    """``sizes`` with the -1 in it worked out for so many elements; None where they do not fit."""
    unknown = sizes.count(-1)
    known = prod(s for s in sizes if s != -1)
    fits = size == known if not unknown else known and size % known == 0
    if unknown > 1 or not fits or any(s < -1 for s in sizes):
        return None
    return tuple(size // known if s == -1 else s for s in sizes)


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements in row-major order under another shape; one size may be -1.

    Shares memory with ``input`` wherever PyTorch does (see the module's docstring).

    >>> import treadle
    >>> treadle.tensor([[1, 2], [3, 4]]).reshape(-1).tolist()
    [1, 2, 3, 4]
    """
    node = node_of("reshape", input)
    sizes = _completed("reshape", node, sizes_of("reshape", shape))
    return _reshaped(input, sizes)


def _reshaped(input: Tensor, shape: Shape) -> Tensor:
    """``input`` in that shape, as a view where strides allow one."""
    if input._chain:
        layout = layout_of(input)
        if op._reshape_move(layout, input.node.type, shape) is None:
            return wrap(op.reshape(input.node, shape=shape))
    return view_of(input, op.reshape, shape=shape)


def view(input: Tensor, *shape: Any) -> Tensor:
    """The same memory under another shape; one size may be -1.

    Unlike PyTorch's it takes every tensor: ``x.t().view(-1)`` works and shares memory with ``x``.
    A dtype is refused unless it is the tensor's own: bytes are not reinterpreted.
    """
    node = node_of("view", input)
    if len(shape) == 1 and isinstance(shape[0], DType):
        if shape[0] is not node.dtype:
            raise located(DTypeError(
                f"view: got the dtype {shape[0].name} for a tensor of dtype {node.dtype.name}; "
                f"bytes are not reinterpreted; convert the values with .to(treadle."
                f"{shape[0].name})"
            ))  # fmt: skip
        return view_of(input, op.reshape, shape=node.shape)
    sizes = _completed("view", node, sizes_of("view", shape))
    return view_of(input, op.reshape, shape=sizes)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.view(other.shape)``."""
    return view(input, node_of("view_as", other).shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.reshape(other.shape)``."""
    return reshape(input, node_of("reshape_as", other).shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from ``start_dim`` to ``end_dim`` as one.

    >>> import treadle
    >>> treadle.zeros(2, 3, 4).flatten(1).shape
    treadle.Size([2, 12])
    """
    shape = node_of("flatten", input).shape
    first = axis_of("flatten", start_dim, len(shape))
    last = axis_of("flatten", end_dim, len(shape))
    if first > last:
        raise located(ShapeError(
            f"flatten: got start_dim {start_dim} and end_dim {end_dim} for a tensor of shape "
            f"{shape}; start_dim must not come after end_dim"
        ))  # fmt: skip
    return _reshaped(input, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return _reshaped(input, (node_of("ravel", input).type.size,))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """The dimension ``dim`` split into ``sizes``, one of which may be -1."""
    shape = node_of("unflatten", input).shape
    axis = axis_of("unflatten", dim, len(shape))
    inner = sizes_of("unflatten", (sizes,))
    known = prod(s for s in inner if s != -1)
    whole_number = known and shape[axis] % known == 0
    if inner.count(-1) > 1 or not (whole_number if -1 in inner else known == shape[axis]):
        raise located(ShapeError(
            f"unflatten: got the sizes {inner} for dimension {dim} of a tensor of shape {shape}; "
            f"their product must be {shape[axis]} (one of them may be -1)"
        ))  # fmt: skip
    filled = tuple(shape[axis] // known if s == -1 else s for s in inner)
    return _reshaped(input, (*shape[:axis], *filled, *shape[axis + 1 :]))


def squeeze(input: Tensor, dim: Dims | None = None) -> Tensor:
    """Without the dimensions of size 1: all of them, or those of ``dim`` that have size 1."""
    shape = node_of("squeeze", input).shape
    if dim is None:
        dims = set(range(len(shape)))
    else:
        wanted = dim if isinstance(dim, (tuple, list)) else (dim,)
        dims = {axis_of("squeeze", d, len(shape)) for d in wanted}
    kept = tuple(s for axis, s in enumerate(shape) if s != 1 or axis not in dims)
    return view_of(input, op.reshape, shape=kept)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at position ``dim``."""
    shape = node_of("unsqueeze", input).shape
    axis = axis_of("unsqueeze", dim, len(shape) + 1)
    return view_of(input, op.reshape, shape=(*shape[:axis], 1, *shape[axis:]))


# --- order of dimensions -------------------------------------------------------------------------


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order: dimension i of the result is ``dims[i]`` of ``input``."""
    ndim = node_of("permute", input).type.ndim
    order = sizes_of("permute", dims, "a dim")
    axes = tuple(axis_of("permute", d, ndim) for d in order)
    return view_of(input, op.permute, axes=axes if ndim else order)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """With two dimensions swapped.

    >>> import treadle
    >>> treadle.zeros(2, 3, 4).transpose(0, -1).shape
    treadle.Size([4, 3, 2])
    """
    ndim = node_of("transpose", input).type.ndim
    a, b = axis_of("transpose", dim0, ndim), axis_of("transpose", dim1, ndim)
    axes = list(range(ndim))
    if ndim:
        axes[a], axes[b] = axes[b], axes[a]
    return view_of(input, op.permute, axes=tuple(axes))


swapaxes = swapdims = transpose


def t(input: Tensor) -> Tensor:
    """The transposed matrix; tensors of fewer than two dimensions stay as they are."""
    ndim = node_of("t", input).type.ndim
    if ndim > 2:
        raise located(ShapeError(
            f"t: got a tensor of shape {input.node.shape}; it takes at most 2 dimensions; use "
            f".mT for a batch of matrices or .transpose(dim0, dim1)"
        ))  # fmt: skip
    return view_of(input, op.permute, axes=tuple(reversed(range(ndim))))


def matrix_transpose(input: Tensor) -> Tensor:
    """The last two dimensions swapped: every matrix of a batch transposed."""
    needs_dims("mT", input, 2)
    return transpose(input, -2, -1)


def movedim(input: Tensor, source: Dims, destination: Dims) -> Tensor:
    """The dimensions ``source`` moved to ``destination``; the others keep their order."""
    shape = node_of("movedim", input).shape
    pairs = [x if isinstance(x, (tuple, list)) else (x,) for x in (source, destination)]
    origin, target = ([axis_of("movedim", d, len(shape)) for d in dims] for dims in pairs)
    if len(origin) != len(target) or any(len(set(x)) != len(x) for x in (origin, target)):
        raise located(ShapeError(
            f"movedim: got source {source} and destination {destination} for a tensor of shape "
            f"{shape}; they must name equally many dimensions, each once"
        ))  # fmt: skip
    rest = iter(a for a in range(len(shape)) if a not in origin)
    moved = dict(zip(target, origin, strict=True))
    axes = tuple(moved[a] if a in moved else next(rest) for a in range(len(shape)))
    return view_of(input, op.permute, axes=axes)


moveaxis = movedim

# --- repetition without copying ------------------------------------------------------------------


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Dimensions of size 1, and new leading ones, repeated without copying; -1 keeps a size.

    Writing into the result raises where several of its elements share one place in memory.

    >>> import treadle
    >>> treadle.tensor([[1], [2]]).expand(-1, 3).tolist()
    [[1, 1, 1], [2, 2, 2]]
    """
    node = node_of("expand", input)
    wanted = sizes_of("expand", sizes)
    extra = len(wanted) - len(node.shape)
    if extra < 0 or -1 in wanted[:extra]:
        raise located(ShapeError(
            f"expand: got the sizes {wanted} for a tensor of shape {node.shape}; there must be at "
            f"least {len(node.shape)} of them, and -1 may only stand for dimensions that the "
            f"tensor has"
        ))  # fmt: skip
    shape = (*wanted[:extra], *(
        own if size == -1 else size for size, own in zip(wanted[extra:], node.shape, strict=True)
    ))  # fmt: skip
    return _expanded(input, shape)


def _expanded(input: Tensor, shape: Shape) -> Tensor:
    node = input.node
    padded = (*(1,) * (len(shape) - len(node.shape)), *node.shape)
    if padded == shape:
        return view_of(input, op.reshape, shape=shape)  # nothing is repeated: one can write into it
    return view_of(input, op.expand, shape=shape)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.expand(other.shape)``."""
    return expand(input, node_of("expand_as", other).shape)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """``input.expand(shape)``."""
    return expand(input, tuple(shape))


def common_shape(name: str, *shapes: Shape) -> Shape:
    """The shape that all of them broadcast to; ShapeError with the user's line."""
    try:
        return broadcast_shapes(*shapes)
    except ShapeError as error:
        raise located(ShapeError(f"{name}: {error}")) from None


def broadcast_tensors(*tensors: Tensor) -> list[Tensor]:
    """All tensors expanded to their common shape."""
    items = _several(tensors)
    shape = common_shape(
        "broadcast_tensors", *(node_of("broadcast_tensors", x).shape for x in items)
    )
    return [_expanded(x, shape) for x in items]


def _several(tensors: Sequence[Any]) -> Sequence[Tensor]:
    """The tensors of ``f(x, y)`` or ``f([x, y])``."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        return tensors[0]
    return tensors


# --- parts ----------------------------------------------------------------------------------------


def sliced(input: Tensor, axis: int, start: int, length: int, step: int = 1) -> Tensor:
    """``length`` elements from ``start`` on by ``step`` along one axis: a view, unchecked."""
    shape = input.node.shape
    starts, steps = [0] * len(shape), [1] * len(shape)
    starts[axis], steps[axis] = start, step
    sizes = (*shape[:axis], length, *shape[axis + 1 :])
    return view_of(input, op.slice_, starts=tuple(starts), sizes=sizes, steps=tuple(steps))


def needs_dims(name: str, input: Any, least: int = 1) -> Shape:
    """The shape, which must have at least so many dimensions."""
    shape = node_of(name, input).shape
    if len(shape) < least:
        raise located(IndexRangeError(
            f"{name}: got a tensor of shape {shape}; it takes at least {least} dimensions; add "
            f"one with .unsqueeze(dim)"
        ))  # fmt: skip
    return shape


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The elements from ``start`` to ``start + length`` along ``dim``."""
    shape = needs_dims("narrow", input)
    axis = axis_of("narrow", dim, len(shape))
    first, count = whole("narrow", start, "start"), whole("narrow", length, "length")
    size = shape[axis]
    begin = first + size if first < 0 else first
    if count < 0 or not 0 <= begin <= size or begin + count > size:
        raise located(IndexRangeError(
            f"narrow: got start {first} and length {count} along dimension {dim} of a tensor of "
            f"shape {shape}; they must stay inside its {size} elements"
        ))  # fmt: skip
    return sliced(input, axis, begin, count)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at ``index`` along ``dim``, without that dimension."""
    shape = needs_dims("select", input)
    axis = axis_of("select", dim, len(shape))
    at = whole("select", index, "index")
    size = shape[axis]
    if not -size <= at < size:
        raise located(IndexRangeError(
            f"select: got index {at} along dimension {dim} of a tensor of shape {shape}; it must "
            f"lie in [{-size}, {size})"
        ))  # fmt: skip
    part = sliced(input, axis, at % size, 1)
    return view_of(part, op.reshape, shape=(*shape[:axis], *shape[axis + 1 :]))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, each without that dimension."""
    shape = needs_dims("unbind", input)
    axis = axis_of("unbind", dim, len(shape))
    return tuple(select(input, axis, i) for i in range(shape[axis]))


def split(
    input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Parts along ``dim``: of one size (the last may be smaller), or of the sizes given.

    >>> import treadle
    >>> [part.tolist() for part in treadle.arange(5).split(2)]
    [[0, 1], [2, 3], [4]]
    """
    shape = needs_dims("split", input)
    axis = axis_of("split", dim, len(shape))
    size = shape[axis]
    if isinstance(split_size_or_sections, (tuple, list)):
        lengths = sizes_of("split", (split_size_or_sections,))
        if sum(lengths) != size or any(n < 0 for n in lengths):
            raise located(ShapeError(
                f"split: got the sections {lengths} along dimension {dim} of a tensor of shape "
                f"{shape}; they must not be negative and must add up to {size}"
            ))  # fmt: skip
    else:
        step = whole("split", split_size_or_sections, "split_size")
        if step < 0 or (step == 0 and size):
            raise located(ShapeError(
                f"split: got split_size {step} along dimension {dim} of a tensor of shape {shape}; "
                f"it must be positive"
            ))  # fmt: skip
        lengths = tuple(min(step, size - at) for at in range(0, size, step)) if size else (0,)
    return _parts(input, axis, lengths)


def _parts(input: Tensor, axis: int, lengths: Iterable[int]) -> tuple[Tensor, ...]:
    parts, at = [], 0
    for length in lengths:
        parts.append(sliced(input, axis, at, length))
        at += length
    return tuple(parts)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` parts of equal size along ``dim``; the last may be smaller."""
    shape = needs_dims("chunk", input)
    axis = axis_of("chunk", dim, len(shape))
    count = whole("chunk", chunks, "chunks")
    if count < 1:
        raise located(ShapeError(f"chunk: got {count} chunks; it takes at least 1"))
    size = -(-shape[axis] // count)
    return split(input, size, axis) if size else _parts(input, axis, (0,) * count)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Exactly n parts whose sizes differ by at most 1, or parts that end at the indices given."""
    shape = needs_dims("tensor_split", input)
    axis = axis_of("tensor_split", dim, len(shape))
    size = shape[axis]
    if isinstance(indices_or_sections, Handle):
        indices_or_sections = indices_or_sections.tolist()  # type: ignore[attr-defined]
    if isinstance(indices_or_sections, (tuple, list)):
        indices = sizes_of("tensor_split", (indices_or_sections,), "an index")
        ends = [min(max(i + size if i < 0 else i, 0), size) for i in indices]
        cuts = [0, *ends, size]
        # An end before its start makes an empty part, as slices do.
        return tuple(sliced(input, axis, a, max(b - a, 0)) for a, b in pairwise(cuts))
    count = whole("tensor_split", indices_or_sections, "sections")
    if count < 1:
        raise located(ShapeError(f"tensor_split: got {count} sections; it takes at least 1"))
    least, larger = divmod(size, count)
    return _parts(input, axis, (least + (i < larger) for i in range(count)))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonals of the matrices that ``dim1`` and ``dim2`` span, as a new last dimension.

    >>> import treadle
    >>> treadle.tensor([[1, 2], [3, 4]]).diagonal().tolist()
    [1, 4]
    """
    shape = node_of("diagonal", input).shape
    rows, columns = axis_of("diagonal", dim1, len(shape)), axis_of("diagonal", dim2, len(shape))
    if rows == columns or len(shape) < 2:
        raise located(ShapeError(
            f"diagonal: got dim1 {dim1} and dim2 {dim2} for a tensor of shape {shape}; they must "
            f"be two different dimensions"
        ))  # fmt: skip
    rest = [a for a in range(len(shape)) if a not in (rows, columns)]
    m, n = shape[rows], shape[columns]
    start = offset if offset >= 0 else -offset * n
    count = max(min(m, n - offset) if offset >= 0 else min(m + offset, n), 0)
    last = view_of(input, op.permute, axes=(*rest, rows, columns))
    flat = view_of(last, op.reshape, shape=(*(shape[a] for a in rest), m * n))
    return sliced(flat, len(rest), start if count else 0, count, n + 1)


# --- at least so many dimensions ------------------------------------------------------------------


def _at_least(name: str, tensors: Sequence[Any], shape_of: Any) -> Any:
    items = _several(tensors)
    out = []
    for x in items:
        shape = node_of(name, x).shape
        wanted = shape_of(shape)
        out.append(x if wanted == shape else view_of(x, op.reshape, shape=wanted))
    return tuple(out) if len(items) != 1 or items is not tensors else out[0]


def atleast_1d(*tensors: Any) -> Any:
    """With at least 1 dimension; several tensors give a tuple."""
    return _at_least("atleast_1d", tensors, lambda s: s or (1,))


def atleast_2d(*tensors: Any) -> Any:
    """With at least 2 dimensions: a vector becomes a row."""
    return _at_least("atleast_2d", tensors, lambda s: (*(1,) * (2 - len(s)), *s))


def atleast_3d(*tensors: Any) -> Any:
    """With at least 3 dimensions: a vector becomes (1, n, 1) and a matrix (m, n, 1)."""
    return _at_least("atleast_3d", tensors, _three_dimensions)


def _three_dimensions(shape: Shape) -> Shape:
    if len(shape) >= 3:
        return shape
    rows = shape if len(shape) == 2 else (1, *(shape or (1,)))
    return (*rows, 1)


# --- memory ---------------------------------------------------------------------------------------


def stride(input: Tensor, dim: int | None = None) -> Any:
    """Elements from one index to the next, for every dimension or one, as PyTorch counts them."""
    strides = layout_of(input).strides
    return strides if dim is None else strides[axis_of("stride", dim, len(strides))]


def is_contiguous(input: Tensor) -> bool:
    """True where PyTorch would have the elements in row-major order without gaps.

    It only tells whether ``contiguous`` and ``reshape`` share memory: how a value really lies in
    memory is the engine's matter.
    """
    return not input._chain or layout_of(input).is_contiguous


def contiguous(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """The tensor itself if it is contiguous, else one that no longer shares memory.

    ``memory_format`` is PyTorch's and changes nothing: the engine lays out values itself.
    """
    return input if is_contiguous(input) else unshared(input.node)


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    reshape, view, view_as, reshape_as = reshape, view, view_as, reshape_as
    flatten, ravel, unflatten = flatten, ravel, unflatten
    squeeze, unsqueeze = squeeze, unsqueeze
    permute, transpose, swapaxes, swapdims = permute, transpose, swapaxes, swapdims
    t, movedim, moveaxis = t, movedim, moveaxis
    expand, expand_as, broadcast_to = expand, expand_as, broadcast_to
    narrow, select, unbind, split, chunk = narrow, select, unbind, split, chunk
    tensor_split, diagonal = tensor_split, diagonal
    stride, storage_offset = stride, storage_offset
    is_contiguous, contiguous = is_contiguous, contiguous

    @property
    def T(self: Any) -> Tensor:
        """The dimensions in reverse order."""
        return view_of(self, op.permute, axes=tuple(reversed(range(self.node.type.ndim))))

    @property
    def mT(self: Any) -> Tensor:
        """The last two dimensions swapped."""
        return matrix_transpose(self)


__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "broadcast_to", "chunk",
    "diagonal", "flatten", "moveaxis", "movedim", "narrow", "permute", "ravel", "reshape", "select",
    "split", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "transpose", "unbind",
    "unflatten", "unsqueeze",
]  # fmt: skip
