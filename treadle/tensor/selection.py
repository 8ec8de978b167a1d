"""Elements picked and written by index: gather, scatter, index_select, masks, nonzero, one_hot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape
from treadle.ir.node import Node, located
from treadle.ops import elementwise as e
from treadle.ops import indexing as pick
from treadle.ops import movement as op
from treadle.ops.checks import check
from treadle.ops.source import iota
from treadle.tensor import arithmetic as a
from treadle.tensor.arithmetic import cast, stretch
from treadle.tensor.creation import empty
from treadle.tensor.handle import Handle, wrap
from treadle.tensor.indexing import adding, get_item, set_item, value_for
from treadle.tensor.methods import in_place
from treadle.tensor.movement import axis_of, common_shape, node_of, unshared, whole
from treadle.tensor.storage import array_of, node_from_array

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _index_node(name: str, index: Any) -> Node:
    """An index tensor in int64."""
    node = node_of(name, index)
    if node.dtype.kind != "i" and node.type.size:
        raise located(DTypeError(
            f"{name}: got an index of dtype {node.dtype.name}; it must be int64 or int32; convert "
            f"it with .long()"
        ))  # fmt: skip
    return cast(node, dtypes.int64)


def _at_least_1d(node: Node) -> Node:
    return node if node.shape else op.reshape(node, shape=(1,))


def _source_of(name: str, node: Node, source: Any) -> Node:
    """A tensor of values for places in ``node``, of the same dtype."""
    given = node_of(name, source)
    if given.dtype is not node.dtype:
        raise located(DTypeError(
            f"{name}: got a tensor of dtype {node.dtype.name} and a source of dtype "
            f"{given.dtype.name}; they must be equal; convert the source with "
            f".to(treadle.{node.dtype.name})"
        ))  # fmt: skip
    return given


# --- slices along one dimension -------------------------------------------------------------------


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along ``dim`` that ``index`` (a vector of ints in [0, size)) names.

    >>> import treadle
    >>> treadle.tensor([[1, 2], [3, 4]]).index_select(1, treadle.tensor([1, 1])).tolist()
    [[2, 2], [4, 4]]
    """
    node, axis, at = _along("index_select", input, dim, index)
    taken = pick.take(_at_least_1d(node), at, axis=axis)
    return wrap(op.reshape(taken, shape=_taken_shape(node, at, axis)))


def _taken_shape(node: Node, index: Node, axis: int) -> Shape:
    if not node.shape:
        return ()
    return (*node.shape[:axis], index.type.size, *node.shape[axis + 1 :])


def _along(name: str, input: Any, dim: int, index: Any) -> tuple[Node, int, Node]:
    """(node, axis, index) where the index must be a vector or without dimensions."""
    node = node_of(name, input)
    axis = axis_of(name, dim, len(node.shape))
    at = _index_node(name, index)
    if len(at.shape) > 1:
        raise located(ShapeError(
            f"{name}: got an index of shape {at.shape}; it takes a vector (gather() and scatter() "
            f"take an index for every element)"
        ))  # fmt: skip
    return node, axis, _at_least_1d(at)


def _write_slices(
    write: Callable[..., Node], name: str, input: Any, dim: int, index: Any, source: Any,
    alpha: float = 1,
) -> Node:  # fmt: skip
    """``input`` with slices along ``dim`` added or replaced."""
    node, axis, at = _along(name, input, dim, index)
    given = _source_of(name, node, source)
    wanted = _taken_shape(node, at, axis)
    if given.shape != wanted and not (given.type.size == at.type.size == 1 and len(wanted) <= 1):
        raise located(ShapeError(
            f"{name}: got a source of shape {given.shape} for dimension {dim} of a tensor of shape "
            f"{node.shape} and {at.type.size} indices; it must have the shape {wanted}"
        ))  # fmt: skip
    if alpha != 1:
        by = e.bitwise_and if node.dtype is dtypes.bool_ else e.mul
        given = by(given, e.full_like(given, alpha))
    patch = op.reshape(given, shape=wanted or (1,))
    return op.reshape(write(_at_least_1d(node), at, patch, axis=axis), shape=node.shape)


def index_add(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """``input`` with ``alpha * source`` added to the slices along ``dim`` that ``index`` names.

    Sums are in index order, beginning with ``input``.
    """
    return wrap(_write_slices(adding(pick.take_add), "index_add", input, dim, index, source, alpha))


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``input`` with the slices along ``dim`` that ``index`` names replaced by ``source``."""
    return wrap(_write_slices(pick.take_update, "index_copy", input, dim, index, source))


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """``input`` with the slices along ``dim`` that ``index`` names set to one number."""
    node, axis, at = _along("index_fill", input, dim, index)
    solid = _at_least_1d(node)
    shape = _taken_shape(node, at, axis) or (1,)
    patch = stretch(value_for(value, node.dtype, ()), shape)
    filled = pick.take_update(solid, at, patch, axis=axis, wraps=True)
    return wrap(op.reshape(filled, shape=node.shape))


# --- single elements ------------------------------------------------------------------------------


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """The elements whose coordinate along ``dim`` is what ``index`` says at that place.

    For three dimensions and dim 1: ``out[i, j, k] = input[i, index[i, j, k], k]``. Indices lie in
    [0, size). ``sparse_grad`` is accepted for PyTorch's sake: gradients are dense.

    >>> import treadle
    >>> treadle.tensor([[1, 2], [3, 4]]).gather(1, treadle.tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    node, axis, at = _elements("gather", input, dim, index)
    if not at.type.size:
        return empty(at.shape, dtype=node.dtype)
    picked = pick.gather(_at_least_1d(node), _at_least_1d(at), axis=axis)
    return wrap(op.reshape(picked, shape=at.shape))


def _elements(name: str, input: Any, dim: int, index: Any) -> tuple[Node, int, Node]:
    """(node, axis, index) where the index has as many dimensions as the tensor."""
    node = node_of(name, input)
    axis = axis_of(name, dim, len(node.shape))
    at = _index_node(name, index)
    if at.type.size and max(len(at.shape), 1) != max(len(node.shape), 1):
        raise located(ShapeError(
            f"{name}: got a tensor of shape {node.shape} and an index of shape {at.shape}; they "
            f"must have equally many dimensions"
        ))  # fmt: skip
    return node, axis, at


def _write_elements(
    write: Callable[..., Node], name: str, input: Any, dim: int, index: Any, source: Any
) -> Node:
    """``input`` with elements added or replaced; ``source`` may be larger than the index."""
    node, axis, at = _elements(name, input, dim, index)
    if not isinstance(source, Handle):
        patch = value_for(source, node.dtype, at.shape)
    else:
        patch = _source_of(name, node, source)
        if len(patch.shape) != len(at.shape) or any(
            n > m for n, m in zip(at.shape, patch.shape, strict=True)
        ):
            raise located(ShapeError(
                f"{name}: got an index of shape {at.shape} and a source of shape {patch.shape}; "
                f"the source must be at least as large in every dimension"
            ))  # fmt: skip
        if patch.shape != at.shape:
            ndim = len(at.shape)
            patch = op.slice_(patch, starts=(0,) * ndim, sizes=at.shape, steps=(1,) * ndim)
    written = write(_at_least_1d(node), _at_least_1d(at), _at_least_1d(patch), axis=axis)
    return op.reshape(written, shape=node.shape)


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
    reduce: str | None = None,
) -> Tensor:  # fmt: skip
    """``input`` with the elements that ``index`` names along ``dim`` replaced by ``src``.

    ``src`` is a tensor, or a number (also as ``value``). Of several values for one place the last
    stays. ``reduce="add"`` adds instead.
    """
    if (src is None) == (value is None):
        raise located(TypeError("scatter: give either src (a tensor or number) or value"))
    if reduce not in (None, "add"):
        raise located(ValueError(f"scatter: got reduce {reduce!r}; it is None or 'add'"))
    write = pick.scatter if reduce is None else adding(pick.scatter_add)
    return wrap(_write_elements(write, "scatter", input, dim, index, value if src is None else src))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``input`` with ``src`` added to the elements that ``index`` names, in index order."""
    node_of("scatter_add", src)
    return wrap(_write_elements(adding(pick.scatter_add), "scatter_add", input, dim, index, src))


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flat tensor that ``index`` names, in the index's shape."""
    node = node_of("take", input)
    at = _index_node("take", index)
    return wrap(pick.take(op.reshape(node, shape=(node.type.size,)), at, axis=0, wraps=True))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """``gather`` that broadcasts the other dimensions; without ``dim``, of the flat tensor."""
    if dim is None:
        return take(input, indices.reshape(-1))
    node, axis, at = _elements("take_along_dim", input, dim, indices)
    ones = tuple(1 if i == axis else n for i, n in enumerate(node.shape))
    others = tuple(1 if i == axis else n for i, n in enumerate(at.shape))
    shape = common_shape("take_along_dim", ones, others)
    source = stretch(node, tuple(node.shape[i] if i == axis else n for i, n in enumerate(shape)))
    places = stretch(at, tuple(at.shape[i] if i == axis else n for i, n in enumerate(shape)))
    return wrap(pick.gather(source, places, axis=axis, wraps=True))


# --- masks ----------------------------------------------------------------------------------------


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``input`` with ``value`` (a number or a tensor without dimensions) where ``mask`` is True."""
    node, holds = _masked("masked_fill", input, mask)
    if isinstance(value, Handle) and value.node.shape:
        raise located(ShapeError(
            f"masked_fill: got a value of shape {value.node.shape}; it takes a number or a tensor "
            f"without dimensions; use where(mask, value, input)"
        ))  # fmt: skip
    filling = stretch(value_for(value, node.dtype, ()), node.shape)
    return wrap(e.where(holds, filling, node))


def _masked(name: str, input: Any, mask: Any) -> tuple[Node, Node]:
    """The tensor and the mask, broadcast together."""
    node, holds = node_of(name, input), node_of(name, mask)
    if holds.dtype.kind != "b":
        raise located(DTypeError(
            f"{name}: got a mask of dtype {holds.dtype.name}; it must be bool: compare first, as "
            f"in x > 0, or convert it with .bool()"
        ))  # fmt: skip
    shape = common_shape(name, node.shape, holds.shape)
    return stretch(node, shape), stretch(holds, shape)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where ``mask`` is True, as a vector (evaluates the mask at once)."""
    node, holds = _masked("masked_select", input, mask)
    return get_item(wrap(node), wrap(holds)).reshape(-1)


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """``input`` with the elements of ``source``, in order, where ``mask`` is True."""
    node, holds = _masked("masked_scatter", input, mask)
    given = _source_of("masked_scatter", node, source)
    count = int(np.count_nonzero(array_of(holds)))
    if given.type.size < count:
        raise located(ShapeError(
            f"masked_scatter: got a source of shape {given.shape} with {given.type.size} elements "
            f"for {count} places; it must have at least as many"
        ))  # fmt: skip
    flat = op.reshape(given, shape=(given.type.size,))
    result = unshared(node)
    set_item(result, wrap(holds), wrap(op.slice_(flat, starts=(0,), sizes=(count,), steps=(1,))))
    return result


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The coordinates of what is not zero: (n, ndim), or a tuple of ndim vectors.

    Evaluates the tensor at once: the size of the result depends on its values.
    """
    array = array_of(node_of("nonzero", input))
    if as_tuple:
        found = np.nonzero(np.atleast_1d(array))
        return tuple(wrap(node_from_array(x, dtypes.int64)) for x in found)
    return wrap(node_from_array(np.argwhere(array), dtypes.int64))


def argwhere(input: Tensor) -> Tensor:
    """The coordinates of what is not zero, one row each."""
    return nonzero(input)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where the condition holds, else ``other``; all three broadcast.

    With the condition alone: ``nonzero(condition, as_tuple=True)``.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise located(TypeError("where: got one of input and other; give both of them or neither"))
    node_of("where", condition)
    return a.where(condition, input, other)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows with a 1 at the class that each element names: shape (*tensor.shape, classes).

    Without ``num_classes`` it is the largest class plus 1, for which the tensor is evaluated.

    >>> import treadle
    >>> treadle.one_hot(treadle.tensor([0, 2]), 3).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    index = _index_node("one_hot", tensor)
    count = whole("one_hot", num_classes, "num_classes")
    if count == -1 and index.type.size:
        count = int(array_of(index).max()) + 1
    if count < 1:
        raise located(ValueError(
            f"one_hot: got num_classes {num_classes} for a tensor of shape {index.shape}; it must "
            f"be positive, or -1 for a tensor that has elements, none of them negative"
        ))  # fmt: skip
    classes = iota(shape=(count,), axis=0, dtype=dtypes.int64)
    words = (
        f"one_hot: class {{value}} is out of range for {count} classes (0..{count - 1}){{where}}; "
        f"pass num_classes larger than every class, and no negative class"
    )
    checked = check(index, rule="index_in_range", limits=(count,), words=words)
    shape = (*index.shape, count)
    rows = stretch(op.reshape(checked, shape=(*index.shape, 1)), shape)
    return wrap(cast(e.eq(rows, stretch(classes, shape)), dtypes.int64))


# --- methods --------------------------------------------------------------------------------------


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    index_select, index_fill = index_select, index_fill
    index_add, index_copy = index_add, index_copy
    gather, scatter, scatter_add = gather, scatter, scatter_add
    take, take_along_dim = take, take_along_dim
    masked_fill, masked_select, masked_scatter = masked_fill, masked_select, masked_scatter
    nonzero, argwhere = nonzero, argwhere

    index_add_, index_copy_, index_fill_ = map(in_place, (index_add, index_copy, index_fill))
    scatter_, scatter_add_ = map(in_place, (scatter, scatter_add))
    masked_fill_, masked_scatter_ = map(in_place, (masked_fill, masked_scatter))


__all__ = [
    "argwhere", "gather", "index_add", "index_copy", "index_fill",
    "index_select", "masked_fill", "masked_scatter", "masked_select", "nonzero", "one_hot",
    "scatter", "scatter_add", "take", "take_along_dim", "where",
]  # fmt: skip
