"""Where values come from: buffers, scalars, counting."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape
from treadle.ir.launch import KernelSpec, Launch, Layout, Out, Plan
from treadle.ir.node import Complex, Node, Scalar, Signature, Type, type_of
from treadle.ir.op import Loops, NoBatching, NoGradient, Op, Sample, Source
from treadle.ops.registry import ALL, elements_cost, no_cost, no_errors, register

if TYPE_CHECKING:
    from treadle.ir.loop import Kernel

NO_OPERANDS = NoBatching("it has no operands, so it is the same for every example")

_SOURCE: dict[str, Any] = {
    "family": "source", "traits": frozenset({"source"}), "residuals": (),
    "lower": Source(), "errors": no_errors, "cost": no_cost, "dtypes": ALL,
    "infer": lambda types, attrs: attrs["type"], "batch": NO_OPERANDS,
}  # fmt: skip

buffer = register(
    Op(
        name="buffer", doc="Data that came from outside, or was computed earlier.",
        gradient=NoGradient("data has no inputs"), reference=lambda type: None,
        samples=lambda: (), **_SOURCE,
    )
)  # fmt: skip

scalar = register(
    Op(
        name="scalar", doc="A Python number, rounded once to its dtype when recorded.",
        gradient=NoGradient("a number has no inputs"), reference=lambda type: None,
        samples=lambda: (), **_SOURCE,
    )
)  # fmt: skip


def _record_complex(op: Op, inputs: Sequence[Node], attrs: dict[str, Any]) -> Node:
    from treadle.ops.complex_rules import record_parts  # when the first complex number comes

    return record_parts(op, inputs, attrs)


Complex.record = staticmethod(_record_complex)


class _Signatures(dict[DType, Signature]):
    def __missing__(self, dtype: DType) -> Signature:
        sig = self[dtype] = Signature(scalar, {"type": type_of(dtype, ())}, ())
        return sig


_scalar_signatures = _Signatures()
_scalars: dict[tuple[DType, bytes], Scalar] = {}
_PACK = {"f64": "<d", "f32": "<f", "f16": "<e", "i64": "<q", "i32": "<i", "i16": "<h", "i8": "<b",
         "u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "b1": "<?"}  # fmt: skip
_RECENT = 1024


def number(value: complex, dtype: DType) -> Any:
    """A node for a Python number, rounded to ``dtype``; OverflowError where it does not fit.

    It is a ``Scalar``, unless the dtype is complex: then it is made of two.
    """
    if dtype.kind == "c":
        from treadle.ops.complex import complex_number  # which reads this module

        return complex_number(complex(value), dtype)
    if isinstance(value, complex):
        raise TypeError(f"the number {value} does not fit {dtype.name}; use a complex dtype")
    try:
        form = _PACK.get(dtype.short)
        packed = struct.pack(form, value) if form else _pack_bf16(value)
    except (struct.error, OverflowError):
        packed = _pack_slowly(value, dtype)
    known = _scalars.get((dtype, packed))
    if known is None:
        if len(_scalars) >= _RECENT:
            _scalars.clear()
        known = _scalars[dtype, packed] = Scalar(_scalar_signatures[dtype], packed, value)
    return known


def _pack_bf16(value: float | int | bool) -> bytes:
    """The upper half of the f32 that holds the rounded number."""
    from treadle.ir.loop_arithmetic import round_float

    return struct.pack("<f", round_float(float(value), dtypes.bfloat16))[2:]


def _pack_slowly(value: float | int | bool, dtype: DType) -> bytes:
    """What struct refuses: floats beyond the range (infinite), floats for integer dtypes."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype.numpy)
        whole = int(value)
        if not info.min <= whole <= info.max:
            raise OverflowError(
                f"the number {value} does not fit {dtype.name} ({info.min} to {info.max}); use a "
                f"wider dtype"
            )
        return np.array(whole, dtype.numpy).tobytes()
    with np.errstate(over="ignore"):
        return np.array(value).astype(dtype.numpy).tobytes()


# --- iota -----------------------------------------------------------------------------------------


def _iota_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    return type_of(attrs["dtype"], attrs["shape"])


def _iota_kernel(short: str) -> Kernel:
    """out[o, i, j] = i for a shape seen as (outer, n, inner)."""
    from treadle.ir.loop import BEGIN, END, Builder  # only where a kernel is built

    dtype = dtypes.by_short(short)
    k = Builder(f"iota_{short}")
    out, n, inner = k.pointer("out", dtype), k.size("n"), k.size("inner")
    with k.loop(BEGIN, END) as row:
        value = k.convert(k.rem(row, n), dtype)
        with k.loop(0, inner, kind="vector") as j:
            k.store(out, k.add(k.mul(row, inner), j), value)
    return k.kernel


def _iota_plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    shape: Shape = attrs["shape"]
    axis: int = attrs["axis"]
    n = shape[axis]
    inner = int(np.prod(shape[axis + 1 :], dtype=np.int64))
    rows = int(np.prod(shape[: axis + 1], dtype=np.int64))
    spec = KernelSpec(_iota_kernel, (outputs[0].dtype.short,))
    return Plan((Launch(spec, (Out(0), n, inner), rows, rows * inner),))


def _iota_reference(shape: Shape, axis: int, dtype: DType) -> np.ndarray:
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(view), shape).astype(dtype.numpy)


iota = register(
    Op(
        name="iota", family="source", traits=frozenset({"source"}), infer=_iota_infer,
        gradient=NoGradient("counting does not depend on anything"), residuals=(),
        batch=NO_OPERANDS,
        lower=Loops(_iota_plan), reference=_iota_reference,
        samples=lambda: (
            Sample((), {"shape": (5,), "axis": 0, "dtype": dtypes.int64}),
            Sample((), {"shape": (2, 3, 4), "axis": 1, "dtype": dtypes.float32}),
            Sample((), {"shape": (0, 3), "axis": 1, "dtype": dtypes.int32}),
        ),
        errors=no_errors, cost=elements_cost(1), dtypes=ALL,
        doc="out[..., i, ...] = i along one axis.",
    )
)  # fmt: skip

__all__ = ["Scalar", "buffer", "iota", "number", "scalar"]
