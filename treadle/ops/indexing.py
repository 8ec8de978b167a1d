"""Reading and writing at computed places.

Two families, each a read, an adding write and a replacing write that are one another's gradients:

- ``take``, ``take_add``, ``take_update``: whole slices along one axis, named by an index of any
  shape: ``take(x, index, axis=1)[a, i, j, b] = x[a, index[i, j], b]``;
- ``gather``, ``scatter_add``, ``scatter``: single elements, as in PyTorch:
  ``gather(x, index, axis=1)[a, i, b] = x[a, index[a, i, b], b]``.

An index is int64 and lies in [0, size), or with ``wraps=True`` in [-size, size), where negative
ones count from the end. Reads check it block by block before they use it; before writes a launch of
its own does. Elements that meet at one place do so in index order: the
writes run serially along the indexed axis and in parallel over all others, so neither the number of
threads nor the width of vectors changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, contiguous_strides, prod
from treadle.ir.launch import Argument, In, Launch, Layout, Out, Plan, Work
from treadle.ir.nest import Strides, copy_launch, nest_launch
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import (
    LINEAR,
    NEXT_AXIS,
    Batching,
    Cost,
    ErrorSample,
    Loops,
    NoGradient,
    Op,
    Sample,
)
from treadle.ops.checks import check_launch
from treadle.ops.elementwise import eq, where
from treadle.ops.movement import expand, permute, reshape, zeros_of
from treadle.ops.registry import ALL, NUMERIC, check_dtype, elements_cost, floats, register, rng
from treadle.ops.source import iota

if TYPE_CHECKING:
    from treadle.ops.indexing_kernels import Write

I64 = dtypes.int64
WHOLE = NoGradient("an index is a whole number")

# --- geometry -----------------------------------------------------------------------------------
#
# Both families visit a shape ("places") in which ``axis`` counts the indices. At every place there
# is one index and one element of the result (of a read) or of the patch (of a write).

Geometry = Callable[[Shape, Layout, int], tuple[Shape, Strides]]


def _slice_places(shape: Shape, index: Layout, axis: int) -> tuple[Shape, Strides]:
    """take: one index for a whole slice, so its strides are 0 along all axes but one."""
    places = (*shape[:axis], prod(index.shape), *shape[axis + 1 :])
    return places, tuple(int(a == axis) for a in range(len(places)))


def _element_places(shape: Shape, index: Layout, axis: int) -> tuple[Shape, Strides]:
    """gather: one index for every element."""
    return index.shape, contiguous_strides(index.shape)


def _flat_along(strides: Strides, axis: int) -> Strides:
    """The strides with 0 for ``axis``: there the index moves, not the place."""
    return (*strides[:axis], 0, *strides[axis + 1 :])


def _without(values: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*values[:axis], *values[axis + 1 :])


# --- plans --------------------------------------------------------------------------------------


def _out_of_range(size: int, axis: int, wraps: bool) -> str:
    return (
        f"index out of range: indices must lie in [{-size if wraps else 0}, {size}) along "
        f"dimension {axis} (the size of the tensor there)"
    )


def _check_launches(index: Layout, operand: int, size: int, axis: int, wraps: bool) -> list[Launch]:
    """The check of a contiguous index; none for an empty one."""
    if prod(index.shape) == 0:
        return []
    rule, message = "index_wraps" if wraps else "index_in_range", _out_of_range(size, axis, wraps)
    return [check_launch(In(operand), index, rule, (size,), message)]


def _read_plan(geometry: Geometry) -> Callable[..., Plan]:
    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        from treadle.ops.indexing_kernels import read_kernel  # when first needed

        x, index = inputs
        axis: int = attrs["axis"]
        size, wraps = x.shape[axis], attrs.get("wraps", False)
        places, index_strides = geometry(x.shape, index, axis)
        if prod(places) == 0:  # an index may be wrong all the same
            return Plan(tuple(_check_launches(index, 1, size, axis, wraps)))
        strides = (contiguous_strides(places), index_strides, _flat_along(x.strides, axis))
        unit = x.strides[axis] == 1
        arguments = (Out(0), In(1), In(0), size, *(() if unit else (x.strides[axis],)))
        launch = nest_launch(
            read_kernel, (x.dtype.short, wraps, unit), arguments, places, strides, turns=False
        )
        return Plan((launch._replace(message=_out_of_range(size, axis, wraps)),))

    return plan


def _write_plan(geometry: Geometry, add: bool) -> Callable[..., Plan]:
    """Copies the base and writes into the copy; 16-bit sums are kept in an f32 workspace."""

    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        from treadle.ops.indexing_kernels import Write  # when first needed

        base, index, patch = inputs
        out = outputs[0]
        axis: int = attrs["axis"]
        size, wraps = base.shape[axis], attrs.get("wraps", False)
        launches = _check_launches(index, 1, size, axis, wraps)
        places = geometry(base.shape, index, axis)
        after = prod(places[0][axis + 1 :])
        unit = after == out.strides[axis] == places[1][axis] == 1
        write = Write(out.dtype.short, patch.dtype.short, add, wraps, after > 1, unit)
        wide = add and base.dtype.kind == "f" and base.dtype.bits == 16
        if prod(base.shape) == 0:
            return Plan(tuple(launches))
        if not wide:
            launches.append(copy_launch(base, Out(0), out.strides))
            launches += _write_launches(Out(0), out, write, places, axis)
            return Plan(tuple(launches))
        sums = Layout(dtypes.float32, out.shape, out.strides)
        launches.append(_cast_launch(Work(0), sums, In(0), base))
        wide_write = write._replace(target=sums.dtype.short)
        launches += _write_launches(Work(0), sums, wide_write, places, axis)
        launches.append(_cast_launch(Out(0), out, Work(0), sums))
        return Plan(tuple(launches), (prod(out.shape) * sums.dtype.itemsize,))

    return plan


def _cast_launch(target: Argument, wanted: Layout, source: Argument, given: Layout) -> Launch:
    from treadle.ops.indexing_kernels import cast_kernel  # when first needed

    key = (wanted.dtype.short, given.dtype.short)
    strides = (wanted.strides, given.strides)
    return nest_launch(cast_kernel, key, (target, source), wanted.shape, strides)


def _write_launches(
    target: Argument, layout: Layout, write: Write, places: tuple[Shape, Strides], axis: int
) -> list[Launch]:
    """The launch that writes the patch into ``target``; none for an empty patch."""
    from treadle.ops.indexing_kernels import write_kernel  # when first needed

    sizes, index_strides = places
    if prod(sizes) == 0:
        return []
    patch_strides = contiguous_strides(sizes)
    steps = (layout.strides[axis], index_strides[axis], patch_strides[axis])
    arguments = (
        target, In(1), In(2), layout.shape[axis], sizes[axis], *(() if write.unit else steps),
    )  # fmt: skip
    strides = [_without(s, axis) for s in (layout.strides, index_strides, patch_strides)]
    shape, flops = _without(sizes, axis), 2 * sizes[axis]
    launch = nest_launch(
        write_kernel, (write,), arguments, shape, strides, flops, turns=False,
        is_vector=write.inside,
    )  # fmt: skip
    return [launch]


# --- checks -------------------------------------------------------------------------------------


def _check_index(name: str, x: Type, index: Type, axis: int) -> None:
    if index.dtype is not dtypes.int64:
        raise DTypeError(
            f"{name}: got an index of dtype {index.dtype.name}; it must be int64; convert it with "
            f".to(treadle.int64) first"
        )
    if not 0 <= axis < x.ndim:
        raise ShapeError(
            f"{name}: got dimension {axis} for a tensor of shape {x.shape}; it must be one of its "
            f"{x.ndim} dimensions, counted from 0"
        )


def _check_patch(name: str, base: Type, patch: Type, shape: Shape) -> None:
    if patch.dtype is not base.dtype:
        raise DTypeError(
            f"{name}: got a base of dtype {base.dtype.name} and a patch of dtype "
            f"{patch.dtype.name}; they must be equal (convert one of them first)"
        )
    if patch.shape != shape:
        raise ShapeError(
            f"{name}: got a patch of shape {patch.shape} for a base of shape {base.shape}; with "
            f"this index it must have the shape {shape} (reshape or expand it first)"
        )


def _slice_shape(name: str, x: Type, index: Type, axis: int) -> Shape:
    _check_index(name, x, index, axis)
    return (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _element_shape(name: str, x: Type, index: Type, axis: int) -> Shape:
    if x.ndim != index.ndim:
        raise ShapeError(
            f"{name}: got a tensor of shape {x.shape} and an index of shape {index.shape}; they "
            f"must have equally many dimensions"
        )
    _check_index(name, x, index, axis)
    for other, (size, count) in enumerate(zip(x.shape, index.shape, strict=True)):
        if other != axis and count > size:
            raise ShapeError(
                f"{name}: got a tensor of shape {x.shape} and an index of shape {index.shape}; "
                f"along dimension {other} the index must be no larger than the tensor (only "
                f"dimension {axis} may be)"
            )
    return index.shape


def _read_infer(name: str, shape_of: Callable[..., Shape]) -> Callable[..., Type]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        x, index = types
        return type_of(x.dtype, shape_of(name, x, index, attrs["axis"]), x.device)

    return infer


def _write_infer(
    name: str, shape_of: Callable[..., Shape], allowed: Sequence[DType]
) -> Callable[..., Type]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
        base, index, patch = types
        check_dtype(name, base, allowed)
        _check_patch(name, base, patch, shape_of(name, base, index, attrs["axis"]))
        return base

    return infer


# --- gradients ----------------------------------------------------------------------------------


def _last_slice(n: Node) -> Node:
    """Where in its patch a take_update's value stayed: no later index names the same place."""
    axis, index, patch = n.attrs["axis"], n.inputs[1], n.inputs[2]
    attrs = n.attrs | {"axis": 0}
    count = index.type.size
    flat, order = reshape(index, shape=(count,)), iota(shape=(count,), axis=0, dtype=dtypes.int64)
    places = zeros_of(type_of(dtypes.int64, (n.shape[axis],)))
    stayed = eq(take(take_update(places, flat, order, **attrs), flat, **attrs), order)
    after = len(n.shape) - axis - 1
    return expand(reshape(stayed, shape=(*index.shape, *(1,) * after)), shape=patch.shape)


def _last_element(n: Node) -> Node:
    """The same for scatter."""
    axis, index = n.attrs["axis"], n.inputs[1]
    order = iota(shape=index.shape, axis=axis, dtype=dtypes.int64)
    places = zeros_of(type_of(dtypes.int64, n.shape))
    return eq(gather(scatter(places, index, order, **n.attrs), index, **n.attrs), order)


def _where_last(last: Node, g: Node) -> Node:
    return where(last, g, zeros_of(g.type))


# --- batching -----------------------------------------------------------------------------------


def _slices_batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """Along the next axis, or element by element where every example has indices of its own."""
    axis, index = n.attrs["axis"], inputs[1]
    if n.op is take and not batched[0]:
        out = take(inputs[0], index, **n.attrs)
        return permute(out, axes=(axis, *[a for a in range(len(out.shape)) if a != axis]))
    others = [
        x if has else expand(x, shape=(size, *x.shape))
        for x, has in list(zip(inputs, batched, strict=True))[::2]
    ]  # fmt: skip
    attrs = n.attrs | {"axis": axis + 1}
    if not batched[1]:
        return n.op(others[0], index, *others[1:], **attrs)
    shape = n.inputs[0].shape
    places = (size, *shape[:axis], n.inputs[1].type.size, *shape[axis + 1 :])
    single = [s if a in (0, axis + 1) else 1 for a, s in enumerate(places)]
    spread = expand(reshape(index, shape=tuple(single)), shape=places)
    patch = [reshape(x, shape=places) for x in others[1:]]
    by_element = {take: gather, take_add: scatter_add, take_update: scatter}[n.op]
    return reshape(by_element(others[0], spread, *patch, **attrs), shape=(size, *n.shape))


# --- references and samples ---------------------------------------------------------------------


def _slices_key(index: np.ndarray, axis: int) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, np.ascontiguousarray(index))


def _elements_key(index: np.ndarray, axis: int) -> tuple[Any, ...]:
    key: list[Any] = list(np.indices(index.shape))
    key[axis] = np.ascontiguousarray(index)
    return tuple(key)


def _write_reference(key_of: Callable[..., Any], add: bool) -> Callable[..., np.ndarray]:
    """NumPy's own: ``add.at`` adds in order, and of several values assigned the last one stays."""

    def reference(
        base: np.ndarray, index: np.ndarray, patch: np.ndarray, axis: int, wraps: bool = False
    ) -> np.ndarray:
        key = key_of(index, axis)
        if not add:
            out = base.copy()
            out[key] = patch
            return out
        is_wide = base.dtype.kind in "iu" or base.itemsize > 2
        out = base.astype(base.dtype if is_wide else np.float32)
        np.add.at(out, key, patch.astype(out.dtype))
        return out.astype(base.dtype)

    return reference


def _take_reference(x: np.ndarray, index: np.ndarray, axis: int, wraps: bool = False) -> np.ndarray:
    return np.take(x, index, axis)


def _gather_reference(
    x: np.ndarray, index: np.ndarray, axis: int, wraps: bool = False
) -> np.ndarray:
    part = tuple(slice(None) if a == axis else slice(count) for a, count in enumerate(index.shape))
    return np.take_along_axis(x[part], index, axis)


def _indices(shape: Shape, size: int) -> np.ndarray:
    return rng(prod(shape)).integers(0, max(size, 1), shape, np.int64)


_TAKEN = (  # shape of x, shape of the index, axis
    ((5,), (), 0),
    ((5,), (9,), 0),
    ((1,), (2, 2), 0),
    ((4, 3), (2, 3), 0),
    ((4, 3), (7,), 1),
    ((2, 5, 18), (6,), 1),
    ((0, 3), (0,), 0),
    ((4, 3), (2, 0), 1),
    ((2, 0, 3), (4,), 2),
)
_GATHERED = (
    ((5,), (9,), 0),
    ((4, 3), (4, 7), 1),
    ((4, 3), (2, 2), 0),
    ((2, 5, 18), (2, 6, 17), 1),
    ((3, 4, 5), (2, 3, 7), 2),
    ((0, 3), (0, 3), 0),
    ((4, 3), (4, 0), 1),
)


def _cases(
    cases: Iterable[tuple[Shape, Shape, int]],
) -> Iterable[tuple[Shape, np.ndarray, dict[str, Any]]]:
    """(shape of x, index, attributes): from the front, and with some indices from the end."""
    for shape, index_shape, axis in cases:
        size = shape[axis]
        index = _indices(index_shape, size)
        yield shape, index, {"axis": axis}
        # The same places: two names of one place meet.
        odd = np.arange(index.size).reshape(index.shape) % 2 == 1
        yield shape, np.where(odd, index - size, index), {"axis": axis, "wraps": True}


def _read_samples(cases: Iterable[tuple[Shape, Shape, int]]) -> Callable[[], Iterable[Sample]]:
    return lambda: (Sample((floats(*shape), index), attrs) for shape, index, attrs in _cases(cases))


def _slices_samples() -> Iterable[Sample]:
    for shape, index, attrs in _cases(_TAKEN):
        axis = attrs["axis"]
        patch = floats(*shape[:axis], *index.shape, *shape[axis + 1 :], seed=1)
        yield Sample((floats(*shape), index, patch), attrs)


def _elements_samples() -> Iterable[Sample]:
    for shape, index, attrs in _cases(_GATHERED):
        yield Sample((floats(*shape), index, floats(*index.shape, seed=1)), attrs)


def _index_errors(name: str, index_shape: Shape, *patch: np.ndarray) -> Iterable[ErrorSample]:
    """The index and ``patch`` fit a tensor of shape (4, 3) along axis 1."""
    x, index = floats(4, 3), np.zeros(index_shape, np.int64)
    yield ErrorSample(
        (x, index.astype(np.int32), *patch), {"axis": 1}, DTypeError,
        f"{name}: got an index of dtype int32; it must be int64",
    )  # fmt: skip
    yield ErrorSample(
        (x, index, *patch), {"axis": 2}, ShapeError,
        f"{name}: got dimension 2 for a tensor of shape (4, 3)",
    )  # fmt: skip
    if index.ndim == 2:
        yield ErrorSample(
            (x, index[0], *patch), {"axis": 1}, ShapeError,
            f"{name}: got a tensor of shape (4, 3) and an index of shape (2,)",
        )  # fmt: skip
        yield ErrorSample(
            (x, np.zeros((5, 2), np.int64), *patch), {"axis": 1}, ShapeError,
            "along dimension 0 the index must be no larger than the tensor",
        )  # fmt: skip
    for fits in patch:
        yield ErrorSample(
            (x, index, fits[:, :1]), {"axis": 1}, ShapeError,
            f"{name}: got a patch of shape (4, 1) for a base of shape (4, 3)",
        )  # fmt: skip
        yield ErrorSample(
            (x, index, fits.astype(np.int32)), {"axis": 1}, DTypeError,
            f"{name}: got a base of dtype float32 and a patch of dtype int32",
        )  # fmt: skip


def _read_cost(inputs: Sequence[Type], out: Any, attrs: dict[str, Any]) -> Cost:
    """Only the elements that the index names are read, however large x is."""
    return Cost(out.size, inputs[1].nbytes + 2 * out.nbytes)


# --- records ------------------------------------------------------------------------------------


def _define_read(
    name: str, geometry: Geometry, shape_of: Callable[..., Shape], gradient: Callable[..., Node],
    reference: Callable[..., np.ndarray], cases: Iterable[tuple[Shape, Shape, int]],
    index_shape: Shape, batch: Batching, doc: str,
) -> Op:  # fmt: skip
    return register(
        Op(
            name=name, family="indexing", traits=frozenset({"indexing"}),
            infer=_read_infer(name, shape_of), gradient=(gradient, WHOLE), residuals=(1,),
            lower=Loops(_read_plan(geometry), contiguous=frozenset({1})), reference=reference,
            samples=_read_samples(cases), errors=lambda: _index_errors(name, index_shape),
            cost=_read_cost, dtypes=ALL, doc=doc, jvp=LINEAR, batch=batch,
        )
    )  # fmt: skip


def _define_write(
    name: str, geometry: Geometry, shape_of: Callable[..., Shape], add: bool,
    gradients: tuple[Callable[..., Node], Callable[..., Node]],
    key_of: Callable[..., Any],
    samples: Callable[[], Iterable[Sample]], index_shape: Shape, batch: Batching, doc: str,
) -> Op:  # fmt: skip
    allowed = NUMERIC if add else ALL
    return register(
        Op(
            name=name, family="indexing", traits=frozenset({"indexing", "update"}),
            infer=_write_infer(name, shape_of, allowed),
            gradient=(gradients[0], WHOLE, gradients[1]), residuals=(1,),
            lower=Loops(_write_plan(geometry, add), contiguous=frozenset({1, 2})),
            reference=_write_reference(key_of, add), samples=samples,
            errors=lambda: _index_errors(name, index_shape, floats(4, 2)),
            cost=elements_cost(1), dtypes=allowed, doc=doc, jvp=LINEAR, batch=batch,
        )
    )  # fmt: skip


def _zeroed_patch(n: Node) -> Node:
    return zeros_of(n.inputs[2].type)


_SLICES: dict[str, Any] = {
    "geometry": _slice_places,
    "shape_of": _slice_shape,
    "index_shape": (2,),
    "batch": _slices_batch,
}
_ELEMENTS: dict[str, Any] = {
    "geometry": _element_places, "shape_of": _element_shape, "index_shape": (4, 2),
    "batch": NEXT_AXIS,
}  # fmt: skip

take: Op = _define_read(
    "take", **_SLICES, reference=_take_reference,
    cases=_TAKEN,
    gradient=lambda g, n: take_add(zeros_of(n.inputs[0].type), n.inputs[1], g, **n.attrs),
    doc="the slices of x along one axis that the index names, in the index's shape",
)  # fmt: skip
take_add: Op = _define_write(
    "take_add", **_SLICES, add=True, key_of=_slices_key, samples=_slices_samples,
    gradients=(lambda g, n: g, lambda g, n: take(g, n.inputs[1], **n.attrs)),
    doc="base with the patch added at the slices that the index names, one after the other in "
    "index order, beginning with base; f16 and bf16 add up in f32 and round once",
)  # fmt: skip
take_update: Op = _define_write(
    "take_update", **_SLICES, add=False, key_of=_slices_key, samples=_slices_samples,
    gradients=(
        lambda g, n: take_update(g, n.inputs[1], _zeroed_patch(n), **n.attrs),
        lambda g, n: _where_last(_last_slice(n), take(g, n.inputs[1], **n.attrs)),
    ),
    doc="base with the slices that the index names replaced by the patch; the last in index "
    "order stays, and the gradient goes to it alone (PyTorch gives it to every one of them)",
)  # fmt: skip
gather: Op = _define_read(
    "gather", **_ELEMENTS, reference=_gather_reference, cases=_GATHERED,
    gradient=lambda g, n: scatter_add(zeros_of(n.inputs[0].type), n.inputs[1], g, **n.attrs),
    doc="the elements of x with their coordinate along one axis taken from the index",
)  # fmt: skip
scatter_add: Op = _define_write(
    "scatter_add", **_ELEMENTS, add=True, key_of=_elements_key,
    samples=_elements_samples,
    gradients=(lambda g, n: g, lambda g, n: gather(g, n.inputs[1], **n.attrs)),
    doc="base with the patch added at the elements that the index names, one after the other in "
    "index order, beginning with base; f16 and bf16 add up in f32 and round once",
)  # fmt: skip
scatter: Op = _define_write(
    "scatter", **_ELEMENTS, add=False, key_of=_elements_key, samples=_elements_samples,
    gradients=(
        lambda g, n: scatter(g, n.inputs[1], _zeroed_patch(n), **n.attrs),
        lambda g, n: _where_last(_last_element(n), gather(g, n.inputs[1], **n.attrs)),
    ),
    doc="base with the elements that the index names replaced by the patch; the last in index "
    "order stays, and the gradient goes to it alone (PyTorch gives it to every one of them)",
)  # fmt: skip

__all__ = ["gather", "scatter", "scatter_add", "take", "take_add", "take_update"]
