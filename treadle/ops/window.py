"""Windows that slide over the last two axes of a tensor (..., H, W).

- ``max_pool``: the largest element of every window, and where it lies;
- ``window_sum``: the sum over every window, and ``window_spread``, its adjoint, which adds the
  value of every window to the elements the window covers. Average pooling is composed of them.

Window number o along an axis covers the elements o*stride - before + i*dilation, i = 0..window-1;
those outside [0, size) are absent: they neither count nor add. An axis of ``size`` elements has
(size + before + after - dilation*(window - 1) - 1) // stride + 1 windows; ``ceil_mode`` is a larger
``after``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from treadle.base.dtypes import int64
from treadle.base.errors import ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Layout, Plan
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import ANY_LEADING, LINEAR, Cost, ErrorSample, Joint, Loops, Op, Sample
from treadle.ops.indexing import scatter_add
from treadle.ops.movement import reshape, zeros_of
from treadle.ops.project import project
from treadle.ops.registry import FLOATS, NUMERIC, check_dtype, floats, register, rng

Pair = tuple[int, int]

# --- geometry -----------------------------------------------------------------------------------


class Axis(Record):
    """How windows lie along one axis."""

    size: int
    window: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def windows(self) -> int:
        """The number of windows."""
        reach = self.dilation * (self.window - 1) + 1
        return (self.size + self.before + self.after - reach) // self.stride + 1

    @property
    def inside(self) -> tuple[int, int]:
        """The first window that lies wholly inside, and the first one after them."""
        reach = self.dilation * (self.window - 1) + 1
        first = min(-(-self.before // self.stride), self.windows)
        end = (self.size + self.before - reach) // self.stride + 1
        return first, min(max(end, first), self.windows)

    def is_empty(self, number: int) -> bool:
        """Whether a window covers no element at all."""
        start = number * self.stride - self.before
        taps = range(start, start + self.dilation * self.window, self.dilation)
        return not any(0 <= tap < self.size for tap in taps)


def axes_of(shape: Shape, attrs: dict[str, Any]) -> tuple[Axis, Axis]:
    """The last two axes of a tensor under windows with these attributes.

    >>> attrs = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (1, 1))}
    >>> [axis.windows for axis in axes_of((64, 20, 24, 24), attrs)]
    [12, 13]
    """
    dilation = attrs.get("dilation", (1, 1))
    window, stride, padding = attrs["window"], attrs["stride"], attrs["padding"]
    first, second = (
        Axis(shape[i - 2], window[i], stride[i], padding[i][0], padding[i][1], dilation[i])
        for i in range(2)
    )
    return first, second


# --- checks -------------------------------------------------------------------------------------


def _check_axes(name: str, shape: Shape, attrs: dict[str, Any]) -> tuple[Axis, Axis]:
    if len(shape) < 2:
        raise ShapeError(
            f"{name}: got a tensor of shape {shape}; it must have at least the two dimensions "
            f"(height, width) (insert one with unsqueeze)"
        )
    axes = axes_of(shape, attrs)
    for number, axis in enumerate(axes, -2):
        if min(axis.window, axis.stride, axis.dilation) < 1 or min(axis.before, axis.after) < 0:
            raise ShapeError(
                f"{name}: got window {axis.window}, stride {axis.stride}, dilation "
                f"{axis.dilation} and padding {(axis.before, axis.after)} along dimension "
                f"{number}; the padding must not be negative, and the others at least 1"
            )
        if axis.size < 1 or axis.windows < 1:
            raise ShapeError(
                f"{name}: got a tensor of shape {shape} and a window that reaches over "
                f"{axis.dilation * (axis.window - 1) + 1} elements along dimension {number}, "
                f"where there are {axis.size} and padding {(axis.before, axis.after)}; use a "
                f"smaller window or more padding"
            )
    return axes


def _max_pool_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    x = types[0]
    check_dtype("max_pool", x, NUMERIC)
    axes = _check_axes("max_pool", x.shape, attrs)
    for number, axis in enumerate(axes, -2):
        empty = next((i for i in range(axis.windows) if axis.is_empty(i)), None)
        if empty is not None:
            raise ShapeError(
                f"max_pool: got a tensor of shape {x.shape}; along dimension {number} window "
                f"{empty} of {axis.windows} lies wholly in the padding "
                f"{(axis.before, axis.after)} and has no largest element; use less padding"
            )
    shape = (*x.shape[:-2], axes[0].windows, axes[1].windows)
    return type_of(x.dtype, shape, x.device), type_of(int64, shape, x.device)


def _window_sum_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    x = types[0]
    check_dtype("window_sum", x, FLOATS)
    first, second = _check_axes("window_sum", x.shape, attrs)
    return type_of(x.dtype, (*x.shape[:-2], first.windows, second.windows), x.device)


def _window_spread_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    g = types[0]
    check_dtype("window_spread", g, FLOATS)
    shape = (*g.shape[:-2], *attrs["shape"])
    first, second = _check_axes("window_spread", shape, attrs)
    if g.shape[-2:] != (first.windows, second.windows):
        raise ShapeError(
            f"window_spread: got a tensor of shape {g.shape}; its last two sizes must be "
            f"{(first.windows, second.windows)}, the number of windows over {attrs['shape']}"
        )
    return type_of(g.dtype, shape, g.device)


# --- gradients ----------------------------------------------------------------------------------


def _max_pool_gradient(g: Sequence[Node | None], n: Node) -> Sequence[Node | None]:
    """Each window's adjoint is added where its largest element lies, in the order of windows."""
    values = g[0]
    if values is None:
        return (None,)
    x = n.inputs[0]
    lead = x.shape[:-2]
    plane, windows = (*lead, prod(x.shape[-2:])), (*lead, prod(values.shape[-2:]))
    where = reshape(project(n, index=1), shape=windows)
    zeros = zeros_of(type_of(x.dtype, plane, x.type.device))
    placed = scatter_add(zeros, where, reshape(values, shape=windows), axis=len(lead))
    return (reshape(placed, shape=x.shape),)


def _without_shape(attrs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if name != "shape"}


# --- references and samples ---------------------------------------------------------------------


def _windows(shape: Shape, attrs: dict[str, Any]) -> Iterator[tuple[Pair, list[Pair]]]:
    """Every window's number with the places of its taps, both in row-major order."""
    first, second = axes_of(shape, attrs)
    for number in np.ndindex(first.windows, second.windows):
        taps = [
            (
                number[0] * first.stride - first.before + i * first.dilation,
                number[1] * second.stride - second.before + j * second.dilation,
            )
            for i in range(first.window)
            for j in range(second.window)
        ]
        inside = [(y, x) for y, x in taps if 0 <= y < first.size and 0 <= x < second.size]
        yield (number[0], number[1]), inside


def _max_pool_reference(x: np.ndarray, **attrs: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second = axes_of(x.shape, attrs)
    values = np.empty((*x.shape[:-2], first.windows, second.windows), x.dtype)
    places = np.empty(values.shape, np.int64)
    for (p, q), taps in _windows(x.shape, attrs):
        window = np.stack([x[..., y, c] for y, c in taps], -1)
        at = np.argmax(window, -1)  # the first of several, and NaN above all
        values[..., p, q] = np.take_along_axis(window, at[..., None], -1)[..., 0]
        places[..., p, q] = np.array([y * second.size + c for y, c in taps])[at]
    return values, places


def _sums(shape: Shape, dtype: Any) -> np.ndarray:
    """Zeros in the dtype that sums are kept in."""
    return np.zeros(shape, np.float32 if np.dtype(dtype).itemsize == 2 else dtype)


def _window_sum_reference(x: np.ndarray, **attrs: Any) -> np.ndarray:
    first, second = axes_of(x.shape, attrs)
    out = _sums((*x.shape[:-2], first.windows, second.windows), x.dtype)
    for (p, q), taps in _windows(x.shape, attrs):
        for number, (y, c) in enumerate(taps):
            value = x[..., y, c].astype(out.dtype)
            out[..., p, q] = value if number == 0 else out[..., p, q] + value
    return out.astype(x.dtype)


def _window_spread_reference(g: np.ndarray, shape: Pair, **attrs: Any) -> np.ndarray:
    out = _sums((*g.shape[:-2], *shape), g.dtype)
    for (p, q), taps in _windows(out.shape, attrs):
        for y, c in taps:
            out[..., y, c] += g[..., p, q].astype(out.dtype)
    return out.astype(g.dtype)


_CASES: tuple[tuple[Shape, dict[str, Any]], ...] = (
    ((2, 3, 6, 8), {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}),
    ((1, 2, 5, 21), {"window": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))}),
    ((2, 7, 9), {"window": (3, 2), "stride": (2, 3), "padding": ((1, 1), (0, 1))}),
    ((4, 5), {"window": (2, 3), "stride": (3, 1), "padding": ((0, 0), (1, 0))}),
    ((1, 9, 9), {"window": (9, 9), "stride": (1, 1), "padding": ((0, 0), (0, 0))}),
    ((0, 2, 4, 4), {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}),
)


def _distinct(shape: Shape) -> np.ndarray:
    """Numbers far enough apart for finite differences of a maximum."""
    return rng(prod(shape)).permutation(prod(shape)).reshape(shape).astype(
        np.float32
    ) / 8  # fmt: skip


def _max_pool_samples() -> Iterable[Sample]:
    for shape, attrs in _CASES:
        yield Sample((_distinct(shape),), {**attrs, "dilation": (1, 1)})
    padding = ((1, 0), (2, 2))
    yield Sample(
        (_distinct((2, 7, 12)),),
        {"window": (3, 3), "stride": (1, 1), "padding": padding, "dilation": (2, 3)},
    )


def _window_sum_samples() -> Iterable[Sample]:
    for shape, attrs in _CASES:
        yield Sample((floats(*shape),), attrs)
    padding = ((0, 3), (0, 0))
    yield Sample((floats(1, 2, 4),), {"window": (2, 2), "stride": (1, 2), "padding": padding})


def _window_spread_samples() -> Iterable[Sample]:
    for sample in _window_sum_samples():
        x = sample.args[0]
        first, second = axes_of(x.shape, sample.attrs)
        g = floats(*x.shape[:-2], first.windows, second.windows, seed=1)
        yield Sample((g,), {**sample.attrs, "shape": x.shape[-2:]})


def _refused(name: str, **more: Any) -> Iterable[ErrorSample]:
    plain = {"window": (2, 2), "stride": (1, 1), "padding": ((0, 0), (0, 0)), **more}
    x = floats(1, 3, 3)
    yield ErrorSample((x[0, 0],), plain, ShapeError, f"{name}: got a tensor of shape (3,)")
    yield ErrorSample(
        (x,), {**plain, "window": (2, 4)}, ShapeError,
        f"{name}: got a tensor of shape (1, 3, 3) and a window that reaches over 4 elements along "
        "dimension -1, where there are 3 and padding (0, 0)",
    )  # fmt: skip
    yield ErrorSample(
        (x,), {**plain, "stride": (0, 1)}, ShapeError, f"{name}: got window 2, stride 0"
    )


def _max_pool_errors() -> Iterable[ErrorSample]:
    yield from _refused("max_pool", dilation=(1, 1))
    attrs = {"window": (2, 2), "stride": (1, 1), "padding": ((0, 0), (0, 2)), "dilation": (1, 1)}
    yield ErrorSample(
        (floats(1, 3, 3),), attrs, ShapeError,
        "along dimension -1 window 3 of 4 lies wholly in the padding (0, 2)",
    )  # fmt: skip


def _window_spread_errors() -> Iterable[ErrorSample]:
    attrs = {"window": (2, 2), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "shape": (3, 3)}
    yield ErrorSample(
        (floats(1, 3, 2),), attrs, ShapeError,
        "window_spread: got a tensor of shape (1, 3, 2); its last two sizes must be (2, 2)",
    )  # fmt: skip


def _cost(inputs: Sequence[Type], out: Type | tuple[Type, ...], attrs: dict[str, Any]) -> Cost:
    outs = out if isinstance(out, tuple) else (out,)
    windows = (inputs[0] if "shape" in attrs else outs[0]).size
    return Cost(windows * prod(attrs["window"]), inputs[0].nbytes + sum(o.nbytes for o in outs))


# --- plans, whose kernels are loaded when the first is made -------------------------------------


def _fold_plan(name: str) -> Callable[..., Plan]:
    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        from treadle.ops.window_kernels import fold_plan

        return fold_plan(name, inputs, outputs, attrs)

    return plan


def _spread_plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    from treadle.ops.window_kernels import spread_plan

    return spread_plan(inputs, outputs, attrs, threads)


# --- records ------------------------------------------------------------------------------------

_WINDOW: dict[str, Any] = {
    "family": "window", "traits": frozenset({"window"}), "cost": _cost, "batch": ANY_LEADING,
}  # fmt: skip
_CONTIGUOUS = frozenset({0})

max_pool: Op = register(
    Op(
        name="max_pool", infer=_max_pool_infer, gradient=Joint(_max_pool_gradient),
        residuals=("out",), lower=Loops(_fold_plan("max_pool"), _CONTIGUOUS),
        reference=_max_pool_reference, samples=_max_pool_samples, errors=_max_pool_errors,
        dtypes=NUMERIC, doc="the largest element of every window, and its place y*W + x in the "
        "plane (int64); the first of equal ones; NaN is larger than any number", **_WINDOW,
    )
)  # fmt: skip
window_sum: Op = register(
    Op(
        name="window_sum", infer=_window_sum_infer, jvp=LINEAR,
        gradient=(
            lambda g, n: window_spread(g, **n.attrs, shape=n.inputs[0].shape[-2:]),
        ),
        residuals=(), lower=Loops(_fold_plan("window_sum"), _CONTIGUOUS),
        reference=_window_sum_reference, samples=_window_sum_samples,
        errors=lambda: _refused("window_sum"), dtypes=FLOATS,
        doc="the sum of every window's elements, one after the other in row-major order, 0 where "
        "there is none; f16 and bf16 add up in f32 and round once", **_WINDOW,
    )
)  # fmt: skip
window_spread: Op = register(
    Op(
        name="window_spread", infer=_window_spread_infer, jvp=LINEAR,
        gradient=(lambda g, n: window_sum(g, **_without_shape(n.attrs)),),
        residuals=(), lower=Loops(_spread_plan, _CONTIGUOUS),
        reference=_window_spread_reference, samples=_window_spread_samples,
        errors=_window_spread_errors, dtypes=FLOATS,
        doc="the adjoint of window_sum: to every element of a plane of the given shape, the "
        "values of the windows that cover it are added to +0 in row-major order of the windows; "
        "f16 and bf16 add up in f32 and round once", **_WINDOW,
    )
)  # fmt: skip

__all__ = ["max_pool", "window_spread", "window_sum"]
