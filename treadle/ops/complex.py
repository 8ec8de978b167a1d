"""Complex numbers as pairs of real ones.

A complex value lies in memory as pairs (real, imaginary). No kernel knows it: ``as_real`` shows it
with one more axis, of size 2, at the end, ``as_complex`` turns that back, both without copying, and
every other op is recorded as real ops in between (``complex_rules.py``). So complex numbers have
the gradients of what they are made of: the gradient of a real L by z = x + iy is dL/dx + i dL/dy,
which is PyTorch's convention (twice the derivative by the conjugate of z).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.ir.launch import Layout
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import ANY_LEADING, LINEAR, ErrorSample, Op, Sample, View
from treadle.ops.movement import Moved, concatenate, reshape, slice_
from treadle.ops.registry import check_dtype, floats, no_cost, register

REALS = (dtypes.float32, dtypes.float64)
_VIEW: dict[str, Any] = {
    "family": "movement", "traits": frozenset({"movement", "holds_complex"}), "residuals": (),
    "cost": no_cost, "jvp": LINEAR, "batch": ANY_LEADING,
}  # fmt: skip


def _as_real_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    kind = types[0]
    if kind.dtype.kind != "c":
        raise DTypeError(
            f"view_as_real: got a tensor of dtype {kind.dtype.name}; it takes complex64 and "
            f"complex128"
        )
    return type_of(kind.dtype.to_real(), (*kind.shape, 2), kind.device)


def _as_complex_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    kind = types[0]
    check_dtype("view_as_complex", kind, REALS)
    if not kind.ndim or kind.shape[-1] != 2:
        raise ShapeError(
            f"view_as_complex: got a tensor of shape {kind.shape}; the last size must be 2: real "
            f"and imaginary parts"
        )
    return type_of(kind.dtype.to_complex(), kind.shape[:-1], kind.device)


def _as_complex_move(layout: Layout, out: Type) -> Moved:
    *strides, last = layout.strides
    if last != 1 or any(s % 2 for s in strides):
        return None
    return tuple(s // 2 for s in strides), 0


def _pairs(*shape: int) -> np.ndarray[Any, Any]:
    return floats(*shape, 2).view(np.complex64)[..., 0]


def _complex_samples() -> Iterable[Sample]:
    for shape in ((), (3,), (2, 3), (2, 0)):
        yield Sample((_pairs(*shape),))


as_real: Op = register(
    Op(
        name="as_real", infer=_as_real_infer, gradient=(lambda g, n: as_complex(g),),
        lower=View(lambda layout, out: ((*(2 * s for s in layout.strides), 1), 0)),
        reference=lambda z: np.stack([z.real, z.imag], -1), samples=_complex_samples,
        errors=lambda: (
            ErrorSample((floats(2),), {}, DTypeError, "view_as_real: got a tensor of dtype"),
        ),
        doc="complex numbers as pairs along a new last axis", dtypes=dtypes.COMPLEX, **_VIEW,
    )
)  # fmt: skip
as_complex: Op = register(
    Op(
        name="as_complex", infer=_as_complex_infer, gradient=(lambda g, n: as_real(g),),
        lower=View(_as_complex_move), reference=lambda x: x[..., 0] + 1j * x[..., 1],
        samples=lambda: (Sample((floats(*s, 2),)) for s in ((), (3,), (2, 3), (2, 0))),
        errors=lambda: (
            ErrorSample((floats(2, 3),), {}, ShapeError, "view_as_complex: got a tensor of shape"),
        ),
        doc="pairs along the last axis as complex numbers", dtypes=REALS, **_VIEW,
    )
)  # fmt: skip


def part(z: Node, index: int) -> Node:
    """The real (0) or imaginary (1) part."""
    pairs = as_real(z)
    rank = len(z.shape)
    one = slice_(pairs, starts=(0,) * rank + (index,), sizes=(*z.shape, 1), steps=(1,) * (rank + 1))
    return reshape(one, shape=z.shape)


def parts(z: Node) -> tuple[Node, Node]:
    """The real and the imaginary part."""
    return part(z, 0), part(z, 1)


def join(real: Node, imaginary: Node) -> Node:
    """real + i imaginary."""
    shape = (*real.shape, 1)
    pair = concatenate(
        reshape(real, shape=shape), reshape(imaginary, shape=shape), axis=len(real.shape)
    )
    return as_complex(pair)


def complex_number(value: complex, dtype: DType) -> Node:
    """A node for a Python number in a complex dtype."""
    from treadle.ops.source import number

    real = dtype.to_real()
    return join(number(value.real, real), number(value.imag, real))


__all__ = ["REALS", "as_complex", "as_real", "complex_number", "join", "part", "parts"]
