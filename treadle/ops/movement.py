"""Movement: the same elements under other indices, joined, or partly replaced.

All but ``concatenate`` and ``slice_update`` are views: they only re-read memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, broadcast_shapes, contiguous_strides, prod
from treadle.ir.launch import In, Layout, Out, Plan
from treadle.ir.nest import copy_launch
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import (
    ANY_LEADING,
    DIAGONAL,
    LINEAR,
    NEXT_AXES,
    NEXT_AXIS,
    ErrorSample,
    Joint,
    Loops,
    NoGradient,
    Op,
    Sample,
    Stacked,
    View,
)
from treadle.ops.registry import (
    ALL,
    check_same,
    elements_cost,
    floats,
    no_cost,
    no_errors,
    register,
)

Strides = tuple[int, ...]
Moved = tuple[Strides, int] | None
_VIEW: dict[str, Any] = {"family": "movement", "traits": frozenset({"movement"}), "residuals": (),
         "cost": no_cost, "dtypes": ALL, "jvp": LINEAR}  # fmt: skip
_SAME = _VIEW | {"traits": frozenset({"movement", "holds_complex"})}


def _sum_to(g: Node, shape: Shape) -> Node:
    """The adjoint of expanding from ``shape``: sums over what was repeated."""
    from treadle.ops.reduce import reduce_sum

    extra = len(g.shape) - len(shape)
    axes = tuple(
        axis
        for axis in range(len(g.shape))
        if axis < extra or (shape[axis - extra] == 1 and g.shape[axis] != 1)
    )
    summed = reduce_sum(g, axes=axes) if axes else g
    return summed if summed.shape == shape else reshape(summed, shape=shape)


# --- identity -------------------------------------------------------------------------------------

alias: Op = register(
    Op(
        name="alias", infer=lambda types, attrs: types[0], gradient=(lambda g, n: g,),
        batch=ANY_LEADING,
        lower=View(lambda layout, out: (layout.strides, 0)), reference=lambda x: x,
        samples=lambda: (Sample((floats(2, 3),)),), errors=no_errors,
        doc="the same value under a new identity: the leaves that gradients are taken of", **_SAME,
    )
)  # fmt: skip
detach: Op = register(
    Op(
        name="detach", infer=lambda types, attrs: types[0],
        gradient=NoGradient("detach() cuts the gradient off"), batch=ANY_LEADING,
        lower=View(lambda layout, out: (layout.strides, 0)), reference=lambda x: x,
        samples=lambda: (Sample((floats(2, 3),)),), errors=no_errors,
        doc="the same value, through which no gradient flows", **_SAME,
    )
)  # fmt: skip

graft: Op = register(
    Op(
        name="graft", infer=lambda types, attrs: types[0],
        gradient=(NoGradient("the new value came in behind the gradient's back"), lambda g, n: g),
        batch=ANY_LEADING,
        lower=View(lambda layout, out: (layout.strides, 0)), reference=lambda new, old: new,
        samples=lambda: (Sample((floats(2, 3), floats(2, 3, seed=1)), smooth=False),),
        errors=no_errors,
        doc="the value of ``new`` with the gradient of ``old``: what a write through .data leaves",
        **_SAME | {"jvp": DIAGONAL},
    )
)  # fmt: skip

# --- reshape --------------------------------------------------------------------------------------


def _reshape_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    shape = attrs["shape"]
    if prod(shape) != types[0].size or any(s < 0 for s in shape):
        raise ShapeError(
            f"reshape: got a tensor of shape {types[0].shape} with {types[0].size} elements and "
            f"the new shape {shape} with {prod(shape)}; they must have equally many"
        )
    return type_of(types[0].dtype, shape, types[0].device)


def _reshape_move(layout: Layout, out: Type, shape: Shape) -> Moved:
    """New strides where every new axis lies within a run of old axes that are one in memory."""
    if layout.is_contiguous:
        return contiguous_strides(shape), 0
    runs: list[tuple[int, int]] = []  # (elements, innermost stride) of merged old axes
    for size, stride in zip(layout.shape, layout.strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    strides = [0] * len(shape)
    axis = len(shape) - 1
    for elements, stride in reversed(runs):
        filled = 1
        while filled < elements:
            if axis < 0 or elements % (filled * shape[axis]):
                return None
            strides[axis] = stride * filled
            filled *= shape[axis]
            axis -= 1
    return tuple(strides), 0


reshape: Op = register(
    Op(
        name="reshape", infer=_reshape_infer,
        gradient=(lambda g, n: reshape(g, shape=n.inputs[0].shape),), lower=View(_reshape_move),
        batch=Stacked(lambda size, n: {"shape": (size, *n.shape)}),
        reference=lambda x, shape: x.reshape(shape),
        samples=lambda: (
            Sample((floats(2, 3),), {"shape": (3, 2)}),
            Sample((floats(4, 3),), {"shape": (12,)}),
            Sample((floats(1),), {"shape": ()}),
            Sample((floats(0, 3),), {"shape": (3, 0, 2)}),
        ),
        errors=lambda: (
            ErrorSample((floats(2, 3),), {"shape": (4,)}, ShapeError, "reshape: got a tensor"),
        ),
        doc="the elements in row-major order under another shape", **_VIEW,
    )
)  # fmt: skip

# --- permute --------------------------------------------------------------------------------------


def _permute_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    axes = attrs["axes"]
    if sorted(axes) != list(range(types[0].ndim)):
        raise ShapeError(
            f"permute: got dims {axes} for a tensor of shape {types[0].shape}; every one of its "
            f"{types[0].ndim} dimensions must be named once"
        )
    return type_of(types[0].dtype, tuple(types[0].shape[a] for a in axes), types[0].device)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


permute: Op = register(
    Op(
        name="permute", infer=_permute_infer,
        gradient=(lambda g, n: permute(g, axes=_inverse(n.attrs["axes"])),),
        batch=Stacked(lambda size, n: {"axes": (0, *[a + 1 for a in n.attrs["axes"]])}),
        lower=View(lambda layout, out, axes: (tuple(layout.strides[a] for a in axes), 0)),
        reference=lambda x, axes: np.transpose(x, axes),
        samples=lambda: (
            Sample((floats(2, 3),), {"axes": (1, 0)}),
            Sample((floats(2, 3, 4),), {"axes": (2, 0, 1)}),
            Sample((floats(),), {"axes": ()}),
        ),
        errors=lambda: (
            ErrorSample((floats(2, 3),), {"axes": (0, 0)}, ShapeError, "permute: got dims (0, 0)"),
        ),
        doc="axes in another order: out's axis i is axes[i] of the input", **_VIEW,
    )
)  # fmt: skip

# --- expand ---------------------------------------------------------------------------------------


def _expand_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    shape, source = attrs["shape"], types[0].shape
    try:
        fits = len(shape) >= len(source) and broadcast_shapes(source, shape) == shape
    except ShapeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"expand: got a tensor of shape {source} and the new shape {shape}; counted from the "
            f"right, sizes must be equal or the tensor's size 1"
        )
    return type_of(types[0].dtype, shape, types[0].device)


def _expand_move(layout: Layout, out: Type, shape: Shape) -> Moved:
    extra = len(shape) - len(layout.shape)
    kept = [
        0 if size == 1 and shape[axis + extra] != 1 else stride
        for axis, (size, stride) in enumerate(zip(layout.shape, layout.strides, strict=True))
    ]
    return (0,) * extra + tuple(kept), 0


def _expand_batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """The axes that expand adds come behind the one that it knows nothing of."""
    shape = n.inputs[0].shape
    added = (1,) * (len(n.shape) - len(shape))
    x = reshape(inputs[0], shape=(size, *added, *shape)) if added else inputs[0]
    return expand(x, shape=(size, *n.shape))


expand: Op = register(
    Op(
        name="expand", infer=_expand_infer,
        gradient=(lambda g, n: _sum_to(g, n.inputs[0].shape),), lower=View(_expand_move),
        batch=_expand_batch,
        reference=lambda x, shape: np.broadcast_to(x, shape),
        samples=lambda: (
            Sample((floats(),), {"shape": (3,)}),
            Sample((floats(3, 1),), {"shape": (2, 3, 4)}),
            Sample((floats(2),), {"shape": (2,)}),
        ),
        errors=lambda: (
            ErrorSample((floats(2),), {"shape": (3,)}, ShapeError, "expand: got a tensor of shape"),
        ),
        doc="axes of size 1, and new leading axes, repeated without copying", **_VIEW,
    )
)  # fmt: skip

# --- slice and flip -------------------------------------------------------------------------------


def _slice_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    shape, starts, sizes, steps = types[0].shape, attrs["starts"], attrs["sizes"], attrs["steps"]
    for axis, (size, start, count, step) in enumerate(
        zip(shape, starts, sizes, steps, strict=True)
    ):
        last = start + (count - 1) * step
        if step < 1 or start < 0 or count < 0 or (count and last >= size):
            raise ShapeError(
                f"slice: got start {start}, {count} elements and step {step} on axis {axis} of a "
                f"tensor of shape {shape}; all elements must lie inside and step be positive"
            )
    return type_of(types[0].dtype, tuple(sizes), types[0].device)


def _slice_move(
    layout: Layout, out: Type, starts: Any, sizes: Any, steps: Any
) -> tuple[tuple[int, ...], int]:
    offset = sum(a * s for a, s in zip(starts, layout.strides, strict=True)) if out.size else 0
    return tuple(a * s for a, s in zip(steps, layout.strides, strict=True)), offset


def _slices(starts: Any, sizes: Any, steps: Any) -> tuple[slice, ...]:
    return tuple(
        slice(a, a + (n - 1) * s + 1 if n else a, s)
        for a, n, s in zip(starts, sizes, steps, strict=True)
    )


def zeros_of(kind: Type) -> Node:
    """A node of zeros of that type."""
    from treadle.ops.source import number

    return expand(number(0, kind.dtype), shape=kind.shape)


def _slice_batch(size: int, n: Node) -> dict[str, Any]:
    added = {"starts": 0, "sizes": size, "steps": 1}
    return {name: (added[name], *numbers) for name, numbers in n.attrs.items()}


slice_: Op = register(
    Op(
        name="slice", infer=_slice_infer,
        gradient=(
            lambda g, n: slice_update(
                zeros_of(n.inputs[0].type), g, starts=n.attrs["starts"], steps=n.attrs["steps"]
            ),
        ),
        batch=Stacked(_slice_batch), lower=View(_slice_move),
        reference=lambda x, starts, sizes, steps: x[_slices(starts, sizes, steps)],
        samples=lambda: (
            Sample((floats(7),), {"starts": (1,), "sizes": (3,), "steps": (2,)}),
            Sample((floats(3, 5),), {"starts": (1, 0), "sizes": (2, 5), "steps": (1, 1)}),
            Sample((floats(3, 5),), {"starts": (1, 5), "sizes": (2, 0), "steps": (1, 1)}),
        ),
        errors=lambda: (
            ErrorSample(
                (floats(3),), {"starts": (1,), "sizes": (3,), "steps": (1,)}, ShapeError,
                "slice: got start 1, 3 elements and step 1 on axis 0",
            ),
        ),
        doc="sizes[i] elements from starts[i] on by steps[i] along every axis", **_VIEW,
    )
)  # fmt: skip


def _flip_move(layout: Layout, out: Type, axes: tuple[int, ...]) -> Moved:
    if not out.size:
        return layout.strides, 0
    offset = sum((layout.shape[a] - 1) * layout.strides[a] for a in axes)
    return tuple(-s if a in axes else s for a, s in enumerate(layout.strides)), offset


flip: Op = register(
    Op(
        name="flip", infer=lambda types, attrs: types[0],
        gradient=(lambda g, n: flip(g, axes=n.attrs["axes"]),), lower=View(_flip_move),
        batch=NEXT_AXES,
        reference=lambda x, axes: np.flip(x, axes),
        samples=lambda: (
            Sample((floats(5),), {"axes": (0,)}),
            Sample((floats(3, 5),), {"axes": (0, 1)}),
            Sample((floats(0, 5),), {"axes": (0,)}),
        ),
        errors=no_errors, doc="the order along some axes reversed", **_VIEW,
    )
)  # fmt: skip

# --- slice_update ---------------------------------------------------------------------------------


def _update_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    base, patch = types
    if patch.dtype is not base.dtype:
        check_same("slice_update", (type_of(base.dtype, ()), type_of(patch.dtype, ())))
    _slice_infer((base,), {**attrs, "sizes": patch.shape})
    return base


def _update_plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    base, patch = inputs
    strides, offset = _slice_move(
        outputs[0], type_of(patch.dtype, patch.shape), attrs["starts"], (), attrs["steps"]
    )
    launches = [copy_launch(base, Out(0), outputs[0].strides)]
    if prod(patch.shape):
        launches.append(copy_launch(patch, Out(0, offset), strides, In(1)))
    return Plan(tuple(launches))


def _update_reference(base: np.ndarray, patch: np.ndarray, starts: Any, steps: Any) -> np.ndarray:
    out = base.copy()
    out[_slices(starts, patch.shape, steps)] = patch
    return out


slice_update: Op = register(
    Op(
        name="slice_update", family="movement", traits=frozenset({"update"}),
        infer=_update_infer,
        gradient=(
            lambda g, n: slice_update(
                g, zeros_of(n.inputs[1].type), starts=n.attrs["starts"], steps=n.attrs["steps"]
            ),
            lambda g, n: slice_(
                g, starts=n.attrs["starts"], sizes=n.inputs[1].shape, steps=n.attrs["steps"]
            ),
        ),
        residuals=(), lower=Loops(_update_plan), reference=_update_reference, jvp=LINEAR,
        batch=Stacked(_slice_batch),
        samples=lambda: (
            Sample((floats(7), floats(3, seed=1)), {"starts": (1,), "steps": (2,)}),
            Sample((floats(3, 5), floats(2, 2, seed=1)), {"starts": (1, 3), "steps": (1, 1)}),
            Sample((floats(3, 5), floats(0, 2, seed=1)), {"starts": (1, 3), "steps": (1, 1)}),
        ),
        errors=lambda: (
            ErrorSample(
                (floats(3), floats(3)), {"starts": (1,), "steps": (1,)}, ShapeError,
                "slice: got start 1, 3 elements and step 1",
            ),
        ),
        cost=elements_cost(1), dtypes=ALL,
        doc="base with the slice that starts at starts[i] by steps[i] replaced by patch",
    )
)  # fmt: skip

# --- concatenate ----------------------------------------------------------------------------------


def _concatenate_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    axis, first = attrs["axis"], types[0]
    for other in types[1:]:
        rest = [s for a, s in enumerate(other.shape) if a != axis]
        if other.ndim != first.ndim or rest != [s for a, s in enumerate(first.shape) if a != axis]:
            raise ShapeError(
                f"concatenate: got shapes {', '.join(str(t.shape) for t in types)} along "
                f"dimension {axis}; all other sizes must be equal"
            )
        if other.dtype is not first.dtype:
            check_same("concatenate", (type_of(first.dtype, ()), type_of(other.dtype, ())))
    shape = list(first.shape)
    shape[axis] = sum(t.shape[axis] for t in types)
    return type_of(first.dtype, tuple(shape), first.device)


def _concatenate_plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    axis, strides = attrs["axis"], outputs[0].strides
    launches, at = [], 0
    for index, layout in enumerate(inputs):
        if prod(layout.shape):
            launches.append(copy_launch(layout, Out(0, at * strides[axis]), strides, In(index)))
        at += layout.shape[axis]
    return Plan(tuple(launches))


def _concatenate_gradient(g: Node, n: Node) -> Sequence[Node]:
    axis, at, parts = n.attrs["axis"], 0, []
    for i in n.inputs:
        starts = tuple(at if a == axis else 0 for a in range(len(g.shape)))
        parts.append(slice_(g, starts=starts, sizes=i.shape, steps=(1,) * len(g.shape)))
        at += i.shape[axis]
    return parts


def _concatenate_samples() -> Iterable[Sample]:
    yield Sample((floats(2), floats(3, seed=1)), {"axis": 0})
    yield Sample((floats(2, 3), floats(2, 1, seed=1), floats(2, 2, seed=2)), {"axis": 1})
    yield Sample((floats(0, 3), floats(2, 3, seed=1)), {"axis": 0})


concatenate: Op = register(
    Op(
        name="concatenate", family="movement", traits=frozenset({"update"}),
        infer=_concatenate_infer, gradient=Joint(_concatenate_gradient), residuals=(),
        jvp=LINEAR, batch=NEXT_AXIS,
        lower=Loops(_concatenate_plan),
        reference=lambda *x, axis: np.concatenate(x, axis),
        samples=_concatenate_samples,
        errors=lambda: (
            ErrorSample(
                (floats(2, 3), floats(2, 4)), {"axis": 0}, ShapeError,
                "concatenate: got shapes (2, 3), (2, 4) along dimension 0",
            ),
        ),
        cost=elements_cost(1), dtypes=ALL, doc="operands joined along one axis",
    )
)  # fmt: skip
