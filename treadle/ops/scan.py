"""Running results along one axis: sums, products, extrema, log-sums and linear recurrences.

The order is part of the definition. Along the axis (from its end, where ``reverse`` says so) the
elements are cut into chunks of 1024. With x[c, i] element i of chunk c and + for "joined with":

    local[c, 0] = x[c, 0]            local[c, i] = local[c, i-1] + x[c, i]
    carry[1] = last of local[0]      carry[c+1] = carry[c] + last of local[c]
    out[0, i] = local[0, i]          out[c, i] = carry[c] + local[c, i]    for c > 0

Every join is rounded to the dtype, which for float16 and bfloat16 is float32: their results are
rounded once. Chunks are independent until the carries are known, so they may be computed in any
order and by any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape
from treadle.ir.launch import Layout, Plan
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import (
    LINEAR,
    NEXT_AXIS,
    ErrorSample,
    Forward,
    Gradient,
    Joint,
    Loops,
    NoGradient,
    Op,
    Sample,
)
from treadle.ops.elementwise import eq, exp, full_like, mul, sub, where
from treadle.ops.indexing import scatter_add
from treadle.ops.movement import concatenate, expand, slice_, zeros_of
from treadle.ops.project import project
from treadle.ops.registry import (
    ALL,
    FLOATS,
    check_dtype,
    check_same,
    elements_cost,
    floats,
    register,
)
from treadle.ops.source import number


def accumulated(dtype: DType) -> DType:
    """The dtype of a running sum or product: int64 for integers and bools."""
    return dtype if dtype.kind == "f" else dtypes.int64


def _plan(name: str) -> Callable[..., Plan]:
    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        from treadle.ops.scan_kernels import scan_plan

        return scan_plan(name, inputs, outputs, attrs, threads)

    return plan


# --- checks ---------------------------------------------------------------------------------------


def check_axis(name: str, kind: Type, axis: int) -> None:
    """ShapeError unless the operand has that axis."""
    if not 0 <= axis < kind.ndim:
        raise ShapeError(
            f"{name}: got axis {axis} for a tensor of shape {kind.shape}; it must be one of its "
            f"{kind.ndim} axes, counted from 0 (reshape a tensor without dimensions to (1,) first)"
        )


def _infer(
    name: str, allowed: Sequence[DType], results: Callable[[DType], tuple[DType, ...]]
) -> Callable[..., Any]:
    def infer(types: Sequence[Type], attrs: dict[str, Any]) -> Any:
        kind = types[0]
        check_dtype(name, kind, allowed)
        check_same(name, types)
        check_axis(name, kind, attrs["axis"])
        outs = tuple(type_of(dtype, kind.shape, kind.device) for dtype in results(kind.dtype))
        return outs if len(outs) > 1 else outs[0]

    return infer


# --- gradients ------------------------------------------------------------------------------------


def _shifted(x: Node, axis: int, forward: bool, fill: float) -> Node:
    """x[i-1] (``forward``) or x[i+1] in the place of x[i], and ``fill`` where there is none."""
    n = x.shape[axis]
    if not x.type.size:
        return x
    edge = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
    filler = expand(number(fill, x.dtype), shape=edge)
    starts = tuple(int(a == axis and not forward) for a in range(len(x.shape)))
    sizes = tuple(n - 1 if a == axis else size for a, size in enumerate(x.shape))
    rest = slice_(x, starts=starts, sizes=sizes, steps=(1,) * len(sizes))
    return concatenate(*((filler, rest) if forward else (rest, filler)), axis=axis)


def _sum_gradient(g: Node, n: Node) -> Node:
    """Every element counts for itself and all that come after."""
    return cumsum(g, axis=n.attrs["axis"], reverse=not n.attrs["reverse"])


def _product_gradient(g: Node, n: Node) -> Node:
    """The product of all before, times s[i] = g[i] + x[i+1] s[i+1]: no division, so zeros are
    nothing special."""
    x, axis = n.inputs[0], n.attrs["axis"]
    before = _shifted(n, axis, True, 1.0)
    after = linear_recurrence(_shifted(x, axis, False, 0.0), g, axis=axis, reverse=True)
    return mul(before, after)


def _extreme_gradient(g: Sequence[Node | None], n: Node) -> Sequence[Node | None]:
    """To the element that each result was."""
    if g[0] is None:
        return (None,)
    place = project(n, index=1)
    return (scatter_add(zeros_of(n.inputs[0].type), place, g[0], axis=n.attrs["axis"]),)


def _log_sum_gradient(g: Node, n: Node) -> Node:
    """sum over k >= i of g[k] exp(x[i] - y[k]), as exp(x[i] - y[i]) t[i] with
    t[i] = g[i] + exp(y[i] - y[i+1]) t[i+1]: no exponent is positive."""
    x, axis = n.inputs[0], n.attrs["axis"]
    decay = _falling_exp(n, _shifted(n, axis, False, 0.0))
    total = linear_recurrence(decay, g, axis=axis, reverse=True)
    return mul(_falling_exp(x, n), total)


def _falling_exp(a: Node, b: Node) -> Node:
    """exp(a - b), and 1 where they are the same infinity."""
    return where(eq(a, b), full_like(a, 1), exp(sub(a, b)))


def _recurrence_input(g: Node, n: Node) -> Node:
    """d[i] = g[i] + a[i+1] d[i+1]: what reaches b."""
    axis, reverse = n.attrs["axis"], n.attrs["reverse"]
    following = _shifted(n.inputs[0], axis, reverse, 0.0)
    return linear_recurrence(following, g, axis=axis, reverse=not reverse)


def _recurrence_factor(g: Node, n: Node) -> Node:
    """What reaches a: h[i-1] d[i]."""
    previous = _shifted(n, n.attrs["axis"], not n.attrs["reverse"], 0.0)
    return mul(previous, _recurrence_input(g, n))


# --- references and samples -----------------------------------------------------------------------


def _total(function: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: np.ndarray, axis: int, reverse: bool = False) -> Any:
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.int64)
        out = function(np.flip(x, axis) if reverse else x, axis=axis, dtype=dtype)
        return np.flip(out, axis) if reverse else out

    return reference


def _extreme_reference(better: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: np.ndarray, axis: int) -> Any:
        rows = np.moveaxis(x, axis, -1)
        places = np.zeros(rows.shape, np.int64)
        for i in range(1, rows.shape[-1]):
            here, best = rows[..., i], places[..., i - 1]
            held = np.take_along_axis(rows, best[..., None], -1)[..., 0]
            places[..., i] = np.where(better(here, held) | (here != here), i, best)
        return np.moveaxis(np.take_along_axis(rows, places, -1), -1, axis), np.moveaxis(
            places, -1, axis
        )

    return reference


def _recurrence_reference(a: np.ndarray, b: np.ndarray, axis: int, reverse: bool) -> Any:
    steps = [np.moveaxis(np.flip(x, axis) if reverse else x, axis, 0) for x in (a, b)]
    out = steps[1].copy()
    for i in range(1, len(out)):
        out[i] += steps[0][i] * out[i - 1]
    out = np.moveaxis(out, 0, axis)
    return np.flip(out, axis) if reverse else out


_SHAPES: tuple[tuple[Shape, int], ...] = (
    ((1,), 0), ((7,), 0), ((5, 3), 1), ((5, 3), 0), ((2, 3, 4), 1), ((3, 18), 0), ((2, 4, 17), 1),
    ((0,), 0), ((3, 0), 1), ((0, 3), 1),
)  # fmt: skip


def _samples(count: int, reverses: tuple[bool, ...]) -> Callable[[], Iterable[Sample]]:
    def samples() -> Iterable[Sample]:
        for shape, axis in _SHAPES:
            for reverse in reverses or (None,):
                attrs = {"axis": axis} if reverse is None else {"axis": axis, "reverse": reverse}
                yield Sample(tuple(floats(*shape, seed=i) for i in range(count)), attrs)

    return samples


def _errors(name: str, count: int, attrs: dict[str, Any]) -> Callable[[], Iterable[ErrorSample]]:
    def errors() -> Iterable[ErrorSample]:
        for axis in (2, -1):
            text = f"{name}: got axis {axis} for a tensor of shape (2, 3); it must be one of its 2"
            yield ErrorSample((floats(2, 3),) * count, attrs | {"axis": axis}, ShapeError, text)
        if count > 1:
            text = f"{name}: got shapes (2, 3) and (3, 2); they must be equal here"
            yield ErrorSample((floats(2, 3), floats(3, 2)), attrs | {"axis": 0}, ShapeError, text)

    return errors


# --- records --------------------------------------------------------------------------------------


def _define(
    name: str, gradient: Gradient | Joint | NoGradient, residuals: tuple[int | str, ...],
    reference: Callable[..., Any], doc: str, *, allowed: Sequence[DType] = ALL,
    results: Callable[[DType], tuple[DType, ...]] = lambda dtype: (dtype,), inputs: int = 1,
    reverses: bool = False, jvp: Forward | None = None,
) -> Op:  # fmt: skip
    """One record; ``reverses`` where it takes the attribute ``reverse``."""
    return register(
        Op(
            name=name, family="scan", traits=frozenset({"scan"}),
            infer=_infer(name, allowed, results), gradient=gradient, residuals=residuals,
            jvp=jvp, batch=NEXT_AXIS,
            lower=Loops(_plan(name), contiguous=frozenset(range(inputs))),
            reference=reference, samples=_samples(inputs, (False, True) if reverses else ()),
            errors=_errors(name, inputs, {"reverse": False} if reverses else {}),
            cost=elements_cost(2), dtypes=tuple(allowed), doc=doc,
        )
    )  # fmt: skip


cumsum = _define(
    "cumsum", (_sum_gradient,), (),
    _total(lambda x, axis, dtype: np.cumsum(x, axis=axis, dtype=dtype)),
    "the sums of the first 1, 2, ... elements along one axis, or with ``reverse`` of the last ones;"
    " integers and bools give int64", results=lambda dtype: (accumulated(dtype),), reverses=True,
    jvp=LINEAR,
)  # fmt: skip
cumprod = _define(
    "cumprod", (_product_gradient,), (0, "out"),
    _total(lambda x, axis, dtype: np.cumprod(x, axis=axis, dtype=dtype)),
    "the products of the first 1, 2, ... elements along one axis; integers and bools give int64",
    results=lambda dtype: (accumulated(dtype),),
)  # fmt: skip
cummax = _define(
    "cummax", Joint(_extreme_gradient), ("out",), _extreme_reference(lambda a, b: a >= b),
    "the largest of the first 1, 2, ... elements along one axis, and where it is: of equal "
    "elements the last, of NaNs, which beat all numbers, the last; 0 and -0 are equal",
    results=lambda dtype: (dtype, dtypes.int64),
)  # fmt: skip
cummin = _define(
    "cummin", Joint(_extreme_gradient), ("out",), _extreme_reference(lambda a, b: a <= b),
    "the smallest of the first 1, 2, ... elements along one axis, and where it is, as cummax",
    results=lambda dtype: (dtype, dtypes.int64),
)  # fmt: skip
logcumsumexp = _define(
    "logcumsumexp", (_log_sum_gradient,), (0, "out"),
    lambda x, axis: np.logaddexp.accumulate(x, axis=axis),
    "log of the sums of exp of the first 1, 2, ... elements along one axis: pairs (m, s) that "
    "stand for s exp(m), the larger m kept", allowed=FLOATS,
)  # fmt: skip
linear_recurrence: Op = _define(
    "linear_recurrence", (_recurrence_factor, _recurrence_input), (0, 1, "out"),
    _recurrence_reference,
    "h[0] = b[0], h[i] = a[i] h[i-1] + b[i] along one axis, rounded once for each (fma); with "
    "``reverse`` from its end; joining (a1, b1) and (a2, b2) gives (a1 a2, a2 b1 + b2)",
    allowed=FLOATS, inputs=2, reverses=True,
)  # fmt: skip

__all__ = ["accumulated", "check_axis", "cummax", "cummin", "cumprod", "cumsum",
           "linear_recurrence", "logcumsumexp"]  # fmt: skip
