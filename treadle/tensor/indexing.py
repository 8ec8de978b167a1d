"""Subscripts: ``x[...]`` and ``x[...] = value``.

Ints, slices, None and Ellipsis give views. Tensors, arrays, lists and ranges of ints, and masks of
bools, give copies; assigning through any of them writes into the tensor. The dimensions of the
result are PyTorch's.

An index that is known (an int, a list, an array) is checked at once. A tensor of ints is checked
when it is used, and nothing is evaluated for it. A mask decides how large the result is, so reading
``x[mask]`` evaluates the mask at once; ``x[mask] = number`` stays recorded.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, IndexRangeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.base.shapes import Shape, broadcast_shapes, prod
from treadle.ir.node import Node, located
from treadle.ir.op import Op
from treadle.ops import elementwise as e
from treadle.ops import indexing as pick
from treadle.ops import movement as op
from treadle.ops.source import iota, number
from treadle.tensor.arithmetic import add, cast, mul, stretch
from treadle.tensor.composed import recorded_call
from treadle.tensor.handle import Handle, ViewStep, view_of, wrap
from treadle.tensor.movement import unshared
from treadle.tensor.storage import array_of, node_from_array, settle

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

Index: TypeAlias = "Node | np.ndarray"  # int64; an array is checked already, and not negative

# What the dimensions of a result come from, where not from an axis of the tensor (its number).
NEW = -1
INDEX = -2


class Selection(Record):
    """A subscript, taken apart.

    ``starts``, ``sizes`` and ``steps`` slice every axis (an int is a slice of one element).
    ``indices`` are the index tensors by axis; ``masks`` the masks that some of them came from, by
    their first axis. ``order`` lists what the dimensions of the result come from: an axis, NEW, or
    INDEX where an index tensor with dimensions stands.
    """

    starts: Shape
    sizes: Shape
    steps: Shape
    order: tuple[int, ...]
    indices: dict[int, Index]
    masks: dict[int, Node]


# --- reading a subscript --------------------------------------------------------------------------


def parse(input: Tensor, key: Any) -> tuple[Tensor, Selection]:
    """The subscript ``key`` of a tensor; IndexError where it does not fit.

    Also gives the tensor that the selection is of: ``input``, or (for a bool without dimensions,
    which stands for an axis of its own) a view of it with more axes.
    """
    input, items = _without_scalar_masks(input, _with_ellipsis(key, input.node.shape))
    return input, _selection(items, input.node.shape)


def _selection(items: list[Any], shape: Shape) -> Selection:
    slices: list[tuple[int, int, int]] = []
    order: list[int] = []
    indices: dict[int, Any] = {}
    masks: dict[int, Node] = {}
    for item in items:
        axis = len(slices)
        if item is None:
            order.append(NEW)
        elif isinstance(item, slice):
            slices.append(_slice(item, axis, shape))
            order.append(axis)
        elif not isinstance(item, (Handle, np.ndarray)):
            slices.append((_position(item, axis, shape), 1, 1))
        elif _is_mask(item):
            mask = _mask(item, axis, shape)
            masks[axis] = mask
            taken = range(axis, axis + len(mask.shape))
            indices.update(dict.fromkeys(taken, mask))
            order.append(INDEX)
            slices.extend((0, shape[a], 1) for a in taken)
        else:
            indices[axis] = index = _index(item, axis, shape)
            if index.shape:  # one without dimensions is like an int
                order.append(INDEX)
            slices.append((0, shape[axis], 1))
    starts, sizes, steps = zip(*slices, strict=True) if slices else ((), (), ())
    return Selection(starts, sizes, steps, tuple(order), indices, masks)


def _without_scalar_masks(input: Tensor, items: list[Any]) -> tuple[Tensor, list[Any]]:
    """True and False become an axis of size 1 of which everything or nothing is taken."""
    axis = 0
    for i, item in enumerate(items):
        if _is_mask(item) and not _axes_of(item):
            holds = item.item()
            shape = input.node.shape
            input = view_of(input, op.reshape, shape=(*shape[:axis], 1, *shape[axis:]))
            items[i] = np.zeros(int(holds), np.int64)
        axis += _axes_of(items[i])
    return input, items


def _with_ellipsis(key: Any, shape: Shape) -> list[Any]:
    """The items of a subscript for every axis, sequences of numbers as arrays."""
    items = [_as_item(item) for item in (key if isinstance(key, tuple) else (key,))]
    used = sum(_axes_of(item) for item in items)
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise located(IndexError("got more than one Ellipsis (...) in a subscript; use one"))
    if used > len(shape):
        raise located(IndexError(
            f"too many indices: got {used} for a tensor of shape {shape} with {len(shape)} "
            f"dimensions" + ("; read its value with .item()" if not shape else "")
        ))  # fmt: skip
    at = dots[0] if dots else len(items)
    items[at : at + 1] = [slice(None)] * (len(shape) - used)
    return items


def _as_item(item: Any) -> Any:
    """Sequences and NumPy numbers in the forms that ``parse`` knows."""
    if item is None or item is Ellipsis or isinstance(item, (slice, Handle)):
        return item
    if isinstance(item, (bool, np.bool_, list, tuple, range, np.ndarray)):
        try:
            array = np.asarray(_numbers(item))
        except ValueError:
            raise located(IndexError(
                f"got the index {item!r}, whose rows differ in length; they must be equal"
            )) from None  # fmt: skip
        return array.astype(np.int64) if array.size == 0 and array.dtype.kind == "f" else array
    return item


def _numbers(item: Any) -> Any:
    """Nested lists with the tensors in them as numbers."""
    if isinstance(item, (list, tuple)):
        return [_numbers(x) for x in item]
    return array_of(item.node).tolist() if isinstance(item, Handle) else item


def _is_mask(item: Any) -> bool:
    dtype = item.node.dtype if isinstance(item, Handle) else getattr(item, "dtype", None)
    return dtype is not None and dtype.kind == "b"


def _axes_of(item: Any) -> int:
    """How many axes an item takes up."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if _is_mask(item) else 1


def _slice(item: slice, axis: int, shape: Shape) -> tuple[int, int, int]:
    """(start, size, step)."""
    try:
        step = 1 if item.step is None else operator.index(item.step)
        if step < 1:
            raise located(ValueError(
                f"got a slice with step {step} on dimension {axis} of a tensor of shape {shape}; "
                f"steps must be positive; reverse with .flip({axis})"
            ))  # fmt: skip
        start, stop, step = item.indices(shape[axis])
    except TypeError:
        raise located(TypeError(
            f"got the slice {item} on dimension {axis}; its parts must be ints or None"
        )) from None  # fmt: skip
    size = len(range(start, stop, step))
    return (start if size else 0), size, step


def _position(item: Any, axis: int, shape: Shape) -> int:
    """An int index, not negative."""
    try:
        at = operator.index(item)
    except TypeError:
        raise located(IndexError(
            f"got a {type(item).__name__} as an index on dimension {axis}; an index is an int, a "
            f"slice, None, ..., or a tensor, array or list of ints or bools"
        )) from None  # fmt: skip
    size = shape[axis]
    if not -size <= at < size:
        raise located(_out_of_range(at, axis, shape))
    return at % size


def _index(item: Any, axis: int, shape: Shape) -> Index:
    """An index as an array that is checked, or as a node of int64."""
    dtype = item.node.dtype if isinstance(item, Handle) else item.dtype
    if dtype.kind != "i":
        raise located(IndexError(
            f"got an index of dtype {dtype.name} on dimension {axis} of a tensor of shape {shape}; "
            f"an index holds signed ints, a mask bools; convert it with .long() or .bool()"
        ))  # fmt: skip
    size = shape[axis]
    if isinstance(item, Handle):
        return cast(item.node, dtypes.int64)
    wrong = item[(item < -size) | (item >= size)]
    if wrong.size:
        raise located(_out_of_range(wrong.flat[0], axis, shape))
    return np.where(item < 0, item + size, item).astype(np.int64)


def _out_of_range(at: int, axis: int, shape: Shape) -> IndexRangeError:
    size = shape[axis]
    bounds = f"it must lie in [{-size}, {size})" if size else "that dimension is empty"
    return IndexRangeError(
        f"index {at} is out of range on dimension {axis} of a tensor of shape {shape}; {bounds}"
    )


def _mask(item: Any, axis: int, shape: Shape) -> Node:
    """A mask as a node."""
    mask = item.node.shape if isinstance(item, Handle) else item.shape
    covered = shape[axis : axis + len(mask)]
    if mask != covered:
        raise located(IndexError(
            f"got a mask of shape {mask} from dimension {axis} on of a tensor of shape {shape}; "
            f"its sizes must be those of the dimensions that it stands for, {covered}"
        ))  # fmt: skip
    return item.node if isinstance(item, Handle) else node_from_array(item)


# --- where the indices lead -----------------------------------------------------------------------


class Places(Record):
    """A selection by indices as one ``take``: permute the sliced tensor by ``axes``, give it
    ``shape``, in which the indexed axes are one, ``axis``, and take ``at`` there. The result,
    under ``result``, is what the subscript means."""

    axes: tuple[int, ...]
    shape: Shape
    axis: int
    at: Node
    result: Shape
    wraps: bool = False  # negative indices count from the end

    @property
    def attrs(self) -> dict[str, Any]:
        """Those of ``take`` and its kin."""
        return {"axis": self.axis} | ({"wraps": True} if self.wraps else {})


def places_of(selection: Selection) -> Places:
    """Merges the indices of a selection into one."""
    sizes, order = selection.sizes, selection.order
    indices = _without_masks(selection)
    together = common_index_shape(indices)
    at = [i for i, source in enumerate(order) if source == INDEX]
    adjacent = not at or at[-1] - at[0] == len(at) - 1
    first = at[0] if at and adjacent else 0 if at else len(order)
    before = [s for s in order[:first] if s != INDEX]
    after = [s for s in order[first:] if s != INDEX]
    result = tuple(1 if s == NEW else sizes[s] for s in before)
    result += together + tuple(1 if s == NEW else sizes[s] for s in after)
    indexed = sorted(indices)
    if len(indexed) == 1:
        axis = indexed[0]
        index = indices[axis]
        known = not isinstance(index, Node)
        return Places(
            tuple(range(len(sizes))), sizes, axis, _as_node(index), result, wraps=not known
        )
    front = [s for s in before if s != NEW]
    rest = [a for a in range(len(sizes)) if a not in indices and a not in front]
    merged = prod(sizes[a] for a in indexed)
    shape = (*(sizes[a] for a in front), merged, *(sizes[a] for a in rest))
    linear = _linear(indices, sizes, together)
    return Places((*front, *indexed, *rest), shape, len(front), linear, result)


def _without_masks(selection: Selection) -> dict[int, Index]:
    """The indices with masks replaced by where they are true."""
    indices = dict(selection.indices)
    for axis, mask in selection.masks.items():
        for i, found in enumerate(np.nonzero(array_of(mask))):
            indices[axis + i] = found.astype(np.int64)
    return indices


def common_index_shape(indices: dict[int, Index]) -> Shape:
    """The shape that the indices broadcast to."""
    shapes = [i.shape for i in indices.values()]
    try:
        return broadcast_shapes(*shapes)
    except ShapeError as error:
        raise located(IndexError(f"index tensors must broadcast together: {error}")) from None


def _as_node(index: Index) -> Node:
    return index if isinstance(index, Node) else node_from_array(index, dtypes.int64)


def _linear(indices: dict[int, Index], sizes: Shape, together: Shape) -> Node:
    """One index into the merged axes, row-major: every part is checked against its own axis."""
    axes = sorted(indices)
    if not any(isinstance(i, Node) for i in indices.values()):
        total: Any = np.zeros(together, np.int64)
        for axis in axes:
            total = total * sizes[axis] + indices[axis]
        return node_from_array(total, dtypes.int64)
    parts = [wrap(_checked(indices[axis], axis, sizes)) for axis in axes]
    merged = parts[0]
    for axis, part in zip(axes[1:], parts[1:], strict=True):
        merged = add(mul(merged, sizes[axis]), part)
    return stretch(merged.node, together)


def _checked(index: Index, axis: int, sizes: Shape) -> Node:
    """The index, counted from the front, as a node.

    One that is not known yet goes through a take that fails off its axis.
    """
    if not isinstance(index, Node):
        return node_from_array(index, dtypes.int64)
    line = tuple(sizes[axis] if a == axis else 1 for a in range(axis + 1))
    line_of_axis = iota(shape=line, axis=axis, dtype=dtypes.int64)
    counted = pick.take(line_of_axis, index, axis=axis, wraps=True)
    return op.reshape(counted, shape=index.shape)


# --- reading --------------------------------------------------------------------------------------


def get_item(input: Tensor, key: Any) -> Tensor:
    """``input[key]``: a view for ints, slices, None and Ellipsis, else a copy.

    >>> import treadle
    >>> x = treadle.tensor([[1, 2, 3], [4, 5, 6]])
    >>> x[-1, ::2].tolist(), x[:, [2, 0]].tolist(), x[x > 3].tolist()
    ([4, 6], [[3, 1], [6, 4]], [4, 5, 6])
    """
    plain = _plain(key)
    if plain is not None:
        return _viewed(input, _plain_steps(plain, input.node.shape))
    input, selection = parse(input, key)
    if not selection.indices:
        view = _viewed(input, _steps(selection, input.node.shape))
        settle(view.node, input.node)
        return view
    places = places_of(selection)
    node = _merged(_slice_of(input, selection).node, places)
    taken = pick.take(node, places.at, **places.attrs)
    same = taken.shape == places.result
    return wrap(taken if same else op.reshape(taken, shape=places.result))


def _plain(key: Any) -> tuple[Any, ...] | None:
    """A subscript of ints, slices of ints, None and Ellipsis as something to look up."""
    items = []
    for item in key if type(key) is tuple else (key,):
        kind = type(item)
        if kind is slice:
            parts = (item.start, item.stop, item.step)  # slices have no hash before Python 3.12
            if not all(type(part) in _PLAIN_PARTS for part in parts):
                return None
            items.append(parts)
        elif kind in _PLAIN_ITEMS:
            items.append(item)
        else:
            return None
    return tuple(items)


_PLAIN_PARTS = frozenset({int, type(None)})
_PLAIN_ITEMS = frozenset({int, type(None), type(Ellipsis)})


@functools.lru_cache(maxsize=4096)
def _plain_steps(plain: tuple[Any, ...], shape: Shape) -> tuple[ViewStep, ...]:
    """The view steps of such a subscript."""
    key = tuple(slice(*item) if type(item) is tuple else item for item in plain)
    return _steps(_selection(_with_ellipsis(key, shape), shape), shape)


def _steps(selection: Selection, shape: Shape) -> tuple[ViewStep, ...]:
    """What ints, slices and None do to a tensor of that shape: at least one view step."""
    starts, sizes, steps = selection.starts, selection.sizes, selection.steps
    result = tuple(1 if s == NEW else sizes[s] for s in selection.order)
    cut = (op.slice_, {"starts": starts, "sizes": sizes, "steps": steps})
    renamed = (op.reshape, {"shape": result})
    if sizes == shape:
        return (renamed,)
    return (cut,) if result == sizes else (cut, renamed)


def _viewed(input: Tensor, steps: tuple[ViewStep, ...]) -> Tensor:
    for step, attrs in steps:
        input = view_of(input, step, **attrs)
    return input


def _slice_of(input: Tensor, selection: Selection) -> Tensor:
    """The slices of a selection, all axes kept: a view, or the tensor itself for whole axes."""
    if selection.sizes == input.node.shape:
        return input
    return view_of(
        input, op.slice_, starts=selection.starts, sizes=selection.sizes, steps=selection.steps
    )


def _merged(node: Node, places: Places) -> Node:
    """The sliced tensor with the indexed axes as one."""
    if places.axes != tuple(range(len(places.axes))):
        node = op.permute(node, axes=places.axes)
    return node if node.shape == places.shape else op.reshape(node, shape=places.shape)


def _apart(node: Node, places: Places, sizes: Shape) -> Node:
    """Undoes ``_merged``."""
    permuted = tuple(sizes[a] for a in places.axes)
    node = node if node.shape == permuted else op.reshape(node, shape=permuted)
    if places.axes == tuple(range(len(places.axes))):
        return node
    back = sorted(range(len(places.axes)), key=places.axes.__getitem__)
    return op.permute(node, axes=tuple(back))


def _is_mask_of(key: Any, input: Tensor) -> bool:
    """Whether it has a bool for every element of floats."""
    return (
        isinstance(key, Handle) and key.node.shape == input.node.shape
        and key.node.dtype is dtypes.bool_ and input.node.dtype.is_floating_point
    )  # fmt: skip


def _put_where(_: None, node: Node, mask: Node, value: Node) -> Node:
    return e.where(mask, stretch(value, node.shape), node)


# --- writing --------------------------------------------------------------------------------------


def set_item(input: Tensor, key: Any, value: Any, *, accumulate: bool = False) -> None:
    """``input[key] = value``: numbers, tensors and arrays, broadcast to what the key selects.

    Of several values for one place the last stays; ``accumulate`` adds all of them instead.
    """
    plain = _plain(key)
    if plain is not None:
        _write_view(_viewed(input, _plain_steps(plain, input.node.shape)), value, accumulate)
        return
    is_number = type(value) is float or (type(value) is int and abs(value) < 1 << 53)
    if is_number and not accumulate and _is_mask_of(key, input):
        node = input.node
        nodes = node, key.node, number(value, node.dtype)
        input._write(recorded_call(_put_where, None, nodes))
        return
    target, selection = parse(input, key)
    if not selection.indices:
        _write_view(_viewed(target, _steps(selection, target.node.shape)), value, accumulate)
        return
    part = _slice_of(target, selection)
    masked = None if accumulate else _where_masked(part.node, selection, value)
    if masked is not None:
        part._write(masked)
        return
    places = places_of(selection)
    node = _merged(part.node, places)
    _same_dtype(value, node)
    shape = (*places.shape[: places.axis], *places.at.shape, *places.shape[places.axis + 1 :])
    patch = stretch(value_for(value, node.dtype, places.result), places.result)
    write = adding(pick.take_add) if accumulate else pick.take_update
    written = write(node, places.at, op.reshape(patch, shape=shape), **places.attrs)
    part._write(_apart(written, places, selection.sizes))


def _write_view(view: Tensor, value: Any, accumulate: bool) -> None:
    """Writes the value where a subscript gives a view."""
    node = view.node
    if not accumulate and _is_written(view, value):
        return
    patch = value_for(value, node.dtype, node.shape)
    if accumulate:
        patch = (e.bitwise_or if node.dtype is dtypes.bool_ else e.add)(node, patch)
    view._write(patch)


def adding(write: Op) -> Callable[..., Node]:
    """An op that adds at places, also to masks: a place holds where it or what is added does."""

    def added(node: Node, at: Node, patch: Node, **attrs: Any) -> Node:
        if node.dtype is not dtypes.bool_:
            return write(node, at, patch, **attrs)
        counts = write(e.cast(node, dtypes.int32), at, e.cast(patch, dtypes.int32), **attrs)
        return e.cast(counts, dtypes.bool_)

    return added


def _is_written(view: Tensor, value: Any) -> bool:
    """True for the last step of ``x[key] += 1``: the value is the view, already written."""
    return (
        isinstance(value, Handle)
        and value._base is view._base
        and value._version == view._version
        and value._chain == view._chain
    )


def _same_dtype(value: Any, node: Node) -> None:
    if isinstance(value, Handle) and value.node.shape and value.node.dtype is not node.dtype:
        raise located(DTypeError(
            f"got a value of dtype {value.node.dtype.name} for places in a tensor of dtype "
            f"{node.dtype.name}; they must be equal; convert the value with .to(treadle."
            f"{node.dtype.name})"
        ))  # fmt: skip


def value_node(value: Any, dtype: DType) -> Node:
    """A number, tensor or array as a node of that dtype."""
    if isinstance(value, Handle):
        return cast(value.node, dtype)
    try:
        if isinstance(value, (float, int)):
            return number(value, dtype)
        return node_from_array(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise located(type(error)(f"cannot assign {value!r}: {error}")) from None


def value_for(value: Any, dtype: DType, shape: Shape) -> Node:
    """A value to be assigned to a selection of that shape, broadcast to it."""
    node = value_node(value, dtype)
    given = node.shape
    extra = len(given) - len(shape)
    if extra > 0 and set(given[:extra]) == {1}:
        given = given[extra:]
        node = op.reshape(node, shape=given)
    padded = (1,) * -extra + given if extra < 0 else given
    if len(padded) != len(shape) or any(
        g not in (1, s) for g, s in zip(padded, shape, strict=True)
    ):
        raise located(ShapeError(
            f"got a value of shape {given} for a selection of shape {shape}; it must broadcast to "
            f"that: counted from the right, sizes must be equal or 1"
        ))  # fmt: skip
    return stretch(node, shape)


def _where_masked(node: Node, selection: Selection, value: Any) -> Node | None:
    """``node`` with the value where the only mask holds, without evaluating the mask.

    None where that cannot be: where there are other indices, or the value has an element for every
    place of the mask.
    """
    if len(selection.masks) != 1:
        return None
    ((first, mask),) = selection.masks.items()
    order, sizes = selection.order, selection.sizes
    after = len(order) - 1 - order.index(INDEX)  # dimensions after the one that the mask makes
    given = value.node.shape if isinstance(value, Handle) else np.shape(value)
    there = given[-1 - after : len(given) - after]  # the value's size at that one, if it has any
    if len(selection.indices) != len(mask.shape) or there not in ((), (1,)):
        return None
    same = value_for(value, node.dtype, tuple(1 if s < 0 else sizes[s] for s in order))
    patch = op.reshape(same, shape=tuple(n if a in order else 1 for a, n in enumerate(sizes)))
    last = first + len(mask.shape)
    over = (*(1,) * first, *mask.shape, *(1,) * (len(sizes) - last))
    holds = stretch(op.reshape(mask, shape=over), sizes)
    return e.where(holds, stretch(patch, sizes), node)


class Methods(Handle):
    """Subscripts of tensors."""

    __slots__ = ()

    __getitem__ = get_item
    __setitem__ = set_item

    def index_put_(self: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
        """``self[indices] = values``, or with ``accumulate`` added, in index order."""
        set_item(self, tuple(indices), values, accumulate=accumulate)
        return self

    def index_put(self: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
        """A copy with ``values`` at the places that ``indices`` name."""
        return unshared(self.node).index_put_(indices, values, accumulate)
