"""A view of flat memory by sizes and strides of one's own: ``as_strided``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Layout
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import LINEAR, ErrorSample, Op, Sample, View
from treadle.ops import elementwise as e
from treadle.ops.complex import as_complex, as_real
from treadle.ops.indexing import take_add, take_update
from treadle.ops.movement import reshape, zeros_of
from treadle.ops.registry import ALL, floats, no_cost, register
from treadle.ops.source import iota


def last_place(size: Shape, stride: Sequence[int], offset: int) -> int:
    """The highest place that is read, or -1 where none is."""
    if not prod(size):
        return -1
    return offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))


def overlaps(size: Shape, stride: Sequence[int]) -> bool:
    """Whether two elements may share a place (exact where the strides nest, as usual ones do)."""
    reach = 0
    for s, n in sorted((s, n) for n, s in zip(size, stride, strict=True) if n > 1):
        if s <= reach:
            return True
        reach += (n - 1) * s
    return False


def places(size: Shape, stride: Sequence[int], offset: int) -> Node:
    """The place of every element, flat."""
    total = e.full_like(zeros_of(type_of(dtypes.int64, size)), offset)
    for axis, s in enumerate(stride):
        counted = iota(shape=size, axis=axis, dtype=dtypes.int64)
        total = e.add(total, e.mul(counted, e.full_like(counted, s)))
    return reshape(total, shape=(prod(size),))


def _infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    kind, size, stride, offset = types[0], attrs["size"], attrs["stride"], attrs["offset"]
    last = last_place(size, stride, offset)
    if min((*stride, *size, offset), default=0) < 0 or last >= kind.size:
        raise ShapeError(
            f"as_strided: got size {size}, stride {stride} and storage offset {offset}, which "
            f"reach place {last} of a memory of {kind.size} elements; they must lie inside, and "
            f"not be negative"
        )
    return type_of(kind.dtype, size, kind.device)


def _move(
    layout: Layout, out: Type, size: Shape, stride: tuple[int, ...], offset: int
) -> tuple[tuple[int, ...], int]:
    (step,) = layout.strides
    return tuple(s * step for s in stride), offset * step if out.size else 0


def _gradient(g: Node, n: Node) -> Node:
    at = places(**n.attrs)
    flat = reshape(g, shape=at.shape)
    return take_add(zeros_of(n.inputs[0].type), at, flat, axis=0, wraps=False)


def _reference(x: Any, size: Shape, stride: Sequence[int], offset: int) -> Any:
    steps = tuple(s * x.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(x[offset:], size, steps)


def _batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """All memories behind each other, with a stride from one to the next."""
    (count,) = n.inputs[0].shape
    whole = reshape(inputs[0], shape=(size * count,))
    a = n.attrs
    return strided(whole, size=(size, *a["size"]), stride=(count, *a["stride"]), offset=a["offset"])


strided: Op = register(
    Op(
        name="strided", family="movement", traits=frozenset({"movement"}), infer=_infer,
        gradient=(_gradient,), residuals=(), lower=View(_move), reference=_reference,
        samples=lambda: (
            Sample((floats(12),), {"size": size, "stride": stride, "offset": offset})
            for size, stride, offset in (
                ((3, 2), (4, 1), 1), ((2, 3), (1, 2), 0), ((4, 3), (1, 1), 5), ((0, 2), (1, 1), 3),
                ((), (), 7),
            )
        ),
        errors=lambda: (
            ErrorSample(
                (floats(4),), {"size": (3, 3), "stride": (1, 1), "offset": 0}, ShapeError,
                "as_strided: got size (3, 3)",
            ),
        ),
        cost=no_cost, dtypes=ALL, jvp=LINEAR,
        batch=_batch,
        doc="element [i, j] is the one at place offset + i stride[0] + j stride[1]",
    )
)  # fmt: skip


def overwritten(op: Op, attrs: dict[str, Any], base: Node, value: Node) -> Node | None:
    """``base`` with what such a view of it shows replaced; None where elements share places."""
    if op is as_real:
        return as_complex(value)
    if op is as_complex:
        return as_real(value)
    if overlaps(attrs["size"], attrs["stride"]):
        return None
    at = places(**attrs)
    return take_update(base, at, reshape(value, shape=at.shape), axis=0, wraps=False)


__all__ = ["last_place", "overlaps", "overwritten", "places", "strided"]
