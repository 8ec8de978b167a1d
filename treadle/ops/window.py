"""Windows that slide over the last two axes of a tensor (..., H, W).

- ``max_pool``: the largest element of every window, and where it lies;
- ``window_sum``: the sum over every window, and ``window_spread``, its adjoint, which adds the
  value of every window to the elements the window covers. Average pooling is composed of them.

Window number o along an axis covers the elements o*stride - before + i*dilation, i = 0..window-1;
those outside [0, size) are absent: they neither count nor add. An axis of ``size`` elements has
(size + before + after - dilation*(window - 1) - 1) // stride + 1 windows; ``ceil_mode`` is a larger
``after``.

Windows that lie wholly inside are computed by a kernel with the window written out, those at the
border (and windows of many elements) by one that asks of every tap whether it is there. Both visit
the taps of a window in row-major order, for several windows of a row at once: a ``block`` of them,
whose last one in a row overlaps the one before, so that no window is computed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import ShapeError
from treadle.base.shapes import Shape, prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Kernel, Operand
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import Cost, ErrorSample, Joint, Loops, Op, Sample
from treadle.ops.indexing import scatter_add
from treadle.ops.movement import reshape, zeros_of
from treadle.ops.project import project
from treadle.ops.registry import FLOATS, NUMERIC, check_dtype, floats, register

Pair = tuple[int, int]
_WRITTEN_OUT = 64  # taps of the largest window that is written out in the kernel


class Axis(NamedTuple):
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


def _axes(shape: Shape, attrs: dict[str, Any]) -> tuple[Axis, Axis]:
    dilation = attrs.get("dilation", (1, 1))
    window, stride, padding = attrs["window"], attrs["stride"], attrs["padding"]
    first, second = (
        Axis(shape[i - 2], window[i], stride[i], padding[i][0], padding[i][1], dilation[i])
        for i in range(2)
    )
    return first, second


# --- what is done with the taps of a window -----------------------------------------------------


class Fold(NamedTuple):
    """A way to fold the taps of a window.

    ``start(k, value, position)`` gives the state after the first tap, ``step(k, state, value,
    position)`` after another one; ``position`` is the tap's place in its (H, W) plane.
    """

    name: str
    outputs: Callable[[DType], tuple[DType, ...]]
    state: Callable[[DType], tuple[DType, ...]]
    start: Callable[..., tuple[Operand, ...]]
    step: Callable[..., tuple[Operand, ...]]


def _larger(
    k: Builder, state: tuple[Operand, ...], value: Operand, position: Operand
) -> tuple[Operand, ...]:
    """The first largest element; NaN is larger than any number, and the first NaN stays."""
    best, where = state
    if value.dtype.kind == "f":
        # Not "value > best", which is false for NaN.
        better = k.op("not", k.compare("le", value, best))
        better = k.op("and", better, k.compare("eq", best, best))
    else:
        better = k.compare("gt", value, best)
    return k.select(better, value, best), k.select(better, position, where)


def _wide(dtype: DType) -> DType:
    return dtypes.float32 if dtype.bits == 16 else dtype


_MAX = Fold(
    "max_pool",
    outputs=lambda dtype: (dtype, I64),
    state=lambda dtype: (dtype, I64),
    start=lambda k, value, position: (value, position),
    step=_larger,
)
_SUM = Fold(
    "window_sum",
    outputs=lambda dtype: (dtype,),
    state=lambda dtype: (_wide(dtype),),
    start=lambda k, value, position: (k.convert(value, _wide(value.dtype)),),
    step=lambda k, state, value, position: (k.add(state[0], k.convert(value, _wide(value.dtype))),),
)
_FOLDS = {fold.name: fold for fold in (_MAX, _SUM)}


# --- kernels ------------------------------------------------------------------------------------


_SIZES = (
    "height", "width", "out_height", "out_width", "row0", "rows", "col0", "col1", "blocks",
    "stride_h", "top", "left", "dilation_h", "dilation_w",
)  # fmt: skip


class _Block(NamedTuple):
    """Some windows of a row: where plane, results and the first window's first tap are."""

    plane: Operand
    out: Operand
    y: Operand
    x: Operand


@contextmanager
def _each_block(
    k: Builder, sizes: dict[str, Operand], block: int, stride_w: int
) -> Iterator[_Block]:
    """Loops over the blocks of the rows row0..row0+rows of every plane."""
    with k.loop(BEGIN, END) as r:
        plane = k.div(r, sizes["rows"])
        row = k.add(sizes["row0"], k.sub(r, k.mul(plane, sizes["rows"])))
        out = k.mul(k.add(k.mul(plane, sizes["out_height"]), row), sizes["out_width"])
        with k.loop(0, sizes["blocks"]) as b:
            column = k.add(sizes["col0"], k.mul(b, block))
            column = k.minimum(column, k.sub(sizes["col1"], block))
            yield _Block(
                plane=k.mul(plane, k.mul(sizes["height"], sizes["width"])),
                out=k.add(out, column),
                y=k.sub(k.mul(row, sizes["stride_h"]), sizes["top"]),
                x=k.sub(k.mul(column, stride_w), sizes["left"]),
            )


def _inside_kernel(fold_name: str, short: str, window: Pair, stride_w: int, block: int) -> Kernel:
    """Windows that lie wholly inside, tap by tap in registers."""
    fold, dtype = _FOLDS[fold_name], dtypes.by_short(short)
    k = Builder(f"{fold_name}_{short}_{window[0]}x{window[1]}_{stride_w}_{block}")
    outs = [k.pointer(f"out{i}", d) for i, d in enumerate(fold.outputs(dtype))]
    x = k.pointer("x", dtype)
    s: dict[str, Operand] = {name: k.size(name) for name in _SIZES}
    down = k.mul(s["dilation_h"], s["width"])
    with _each_block(k, s, block, stride_w) as at, k.loop(0, block, kind="vector") as lane:
        first = k.add(k.mul(at.y, s["width"]), at.x)
        state: tuple[Operand, ...] = ()
        for i in range(window[0]):
            for j in range(window[1]):
                tap = k.add(k.mul(down, i), k.mul(s["dilation_w"], j))
                source = k.add(k.add(at.plane, first), tap)
                value = k.load(x, k.add(source, k.mul(lane, stride_w)))
                # Counted from the first tap, a place needs half the bits.
                place = k.convert(tap, dtypes.int32)
                folded = fold.step(k, state, value, place) if state else None
                state = folded or fold.start(k, value, place)
        own = k.add(first, k.mul(lane, stride_w))
        results = (state[0], *(k.add(own, k.convert(place, I64)) for place in state[1:]))
        for out, result in zip(outs, results, strict=True):
            k.store(out, k.add(at.out, lane), k.convert(result, out.dtype))
    return k.kernel


def _border_kernel(fold_name: str, short: str, stride_w: int, block: int) -> Kernel:
    """Any window: every tap is asked whether it is there."""
    fold, dtype = _FOLDS[fold_name], dtypes.by_short(short)
    k = Builder(f"{fold_name}_{short}_border_{stride_w}_{block}")
    outs = [k.pointer(f"out{i}", d) for i, d in enumerate(fold.outputs(dtype))]
    x = k.pointer("x", dtype)
    s: dict[str, Operand] = {name: k.size(name) for name in _SIZES}
    window_h, window_w = k.size("window_h"), k.size("window_w")
    is_fresh = k.local(dtypes.bool_, block)  # no tap was there yet
    state = [k.local(d, block) for d in fold.state(dtype)]
    with _each_block(k, s, block, stride_w) as at:
        with k.loop(0, block, kind="vector") as lane:
            k.store(is_fresh, lane, k.const(True, dtypes.bool_))
            for local in state:
                k.store(local, lane, k.const(0, local.dtype))
        with k.loop(0, window_h) as i:
            y = k.add(at.y, k.mul(i, s["dilation_h"]))
            with k.when(_within(k, y, s["height"])), k.loop(0, window_w) as j:
                first = k.add(at.x, k.mul(j, s["dilation_w"]))
                with k.loop(0, block, kind="vector") as lane:
                    column = k.add(first, k.mul(lane, stride_w))
                    is_there = _within(k, column, s["width"])
                    place = k.add(k.mul(y, s["width"]), k.select(is_there, column, 0))
                    value = k.load(x, k.add(at.plane, place))
                    fresh = k.load(is_fresh, lane)
                    before = tuple(k.load(local, lane) for local in state)
                    start = fold.start(k, value, place)
                    step = fold.step(k, before, value, place)
                    for local, a, b, c in zip(state, start, step, before, strict=True):
                        k.store(local, lane, k.select(is_there, k.select(fresh, a, b), c))
                    k.store(is_fresh, lane, k.op("and", fresh, k.op("not", is_there)))
        with k.loop(0, block, kind="vector") as lane:
            for out, local in zip(outs, state, strict=True):
                result = k.convert(k.load(local, lane), out.dtype)
                k.store(out, k.add(at.out, lane), result)
    return k.kernel


def _within(k: Builder, at: Operand, size: Operand) -> Operand:
    """0 <= at < size, in one comparison: negative numbers are large without a sign."""
    return k.compare("lt", k.bitcast(at, dtypes.uint64), k.bitcast(size, dtypes.uint64))


def _spread_kernel(short: str, stride_w: int) -> Kernel:
    """Every row of the result from the windows that cover it, in row-major order of the windows."""
    dtype = dtypes.by_short(short)
    k = Builder(f"window_spread_{short}_{stride_w}")
    out, g = k.pointer("out", dtype), k.pointer("g", dtype)
    is_narrow = _wide(dtype) is not dtype
    sums = k.pointer("sums", _wide(dtype)) if is_narrow else out
    height, width, out_height, out_width = (
        k.size(name) for name in ("height", "width", "out_height", "out_width")
    )
    window_h, window_w, stride_h = k.size("window_h"), k.size("window_w"), k.size("stride_h")
    top, left = k.size("top"), k.size("left")
    kind = "vector" if stride_w == 1 else "serial"
    with k.loop(BEGIN, END) as r:
        plane = k.div(r, height)
        y = k.add(k.sub(r, k.mul(plane, height)), top)  # counted from the padding's edge
        row = k.mul(r, width)
        base = k.mul(THREAD, width) if is_narrow else row
        with k.loop(0, width, kind="vector") as column:
            k.store(sums, k.add(base, column), k.const(0, sums.dtype))
        first = _ceil_div(k, k.sub(k.add(y, 1), window_h), stride_h)
        last = k.minimum(k.add(k.div(y, stride_h), 1), out_height)
        with k.loop(k.maximum(first, 0), last) as window_row, k.loop(0, window_w) as tap:
            source = k.mul(k.add(k.mul(plane, out_height), window_row), out_width)
            # Rising windows along a row mean falling taps.
            shift = k.sub(left, k.sub(k.sub(window_w, 1), tap))
            lo = k.maximum(_ceil_div(k, shift, stride_w), 0)
            hi = k.minimum(_ceil_div(k, k.add(width, shift), stride_w), out_width)
            with k.loop(lo, hi, kind=kind) as window:
                value = k.convert(k.load(g, k.add(source, window)), sums.dtype)
                at = k.add(k.sub(base, shift), k.mul(window, stride_w))
                k.store(sums, at, k.add(k.load(sums, at), value))
        if is_narrow:
            with k.loop(0, width, kind="vector") as column:
                total = k.load(sums, k.add(base, column))
                k.store(out, k.add(row, column), k.convert(total, dtype))
    return k.kernel


def _ceil_div(k: Builder, a: Operand, b: Operand | int) -> Operand:
    """a / b rounded up where that is positive, else any number that is not."""
    return k.div(k.add(a, k.sub(b, 1) if not isinstance(b, int) else b - 1), b)


# --- plans --------------------------------------------------------------------------------------


def _fold_plan(fold: Fold) -> Callable[..., Plan]:
    def plan(
        inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
    ) -> Plan:
        shape = inputs[0].shape
        first, second = _axes(shape, attrs)
        planes = prod(shape[:-2])
        if planes == 0:
            return Plan(())
        pointers: tuple[Argument, ...] = (*(Out(i) for i in range(len(outputs))), In(0))
        inside, border = _regions(first, second)
        key = (fold.name, inputs[0].dtype.short)
        launches = []
        for rows, columns in inside:
            block = _power_of_two(columns[1] - columns[0])
            spec = KernelSpec(_inside_kernel, (*key, attrs["window"], second.stride, block))
            sizes = _sizes(first, second, rows, columns, block)
            launches.append(
                _launch(spec, (*pointers, *sizes), planes, first, second, rows, columns)
            )
        for rows, columns in border:
            # At least two windows: lanes have no branches that a processor could guess wrongly.
            block = _power_of_two(min(max(2 * (columns[1] - columns[0]) - 1, 2), second.windows))
            columns = _widened(columns, block, second.windows)
            spec = KernelSpec(_border_kernel, (*key, second.stride, block))
            sizes = (*_sizes(first, second, rows, columns, block), first.window, second.window)
            launches.append(
                _launch(spec, (*pointers, *sizes), planes, first, second, rows, columns)
            )
        return Plan(tuple(launches))

    return plan


def _power_of_two(count: int) -> int:
    """The largest one up to ``count`` that is at most 8."""
    return next(block for block in (8, 4, 2, 1) if block <= max(count, 1))


def _widened(columns: Pair, block: int, windows: int) -> Pair:
    """At least ``block`` columns: the neighbours are computed once more, to the same result."""
    start = min(columns[0], windows - block)
    return start, max(columns[1], start + block)


def _regions(first: Axis, second: Axis) -> tuple[list[tuple[Pair, Pair]], list[tuple[Pair, Pair]]]:
    """The windows as rectangles (rows, columns): those wholly inside, and the others."""
    (row0, row1), (col0, col1) = first.inside, second.inside
    rows, columns = (0, first.windows), (0, second.windows)
    is_small = first.window * second.window <= _WRITTEN_OUT
    is_small &= first.window * first.dilation * (second.size + second.dilation) < 1 << 31
    if not is_small or row0 == row1 or col0 == col1:
        return [], [(rows, columns)]
    around = [
        ((0, row0), columns),
        ((row0, row1), (0, col0)),
        ((row0, row1), (col1, second.windows)),
        ((row1, first.windows), columns),
    ]
    border = [(r, c) for r, c in around if r[0] < r[1] and c[0] < c[1]]
    return [((row0, row1), (col0, col1))], border


def _sizes(first: Axis, second: Axis, rows: Pair, columns: Pair, block: int) -> tuple[int, ...]:
    """The parameters that both kernels share, as ``_SIZES`` names them."""
    blocks = -(-(columns[1] - columns[0]) // block)
    return (
        first.size, second.size, first.windows, second.windows, rows[0], rows[1] - rows[0],
        *columns, blocks, first.stride, first.before, second.before, first.dilation,
        second.dilation,
    )  # fmt: skip


def _launch(
    kernel: KernelSpec, args: tuple[Argument, ...], planes: int, first: Axis, second: Axis,
    rows: Pair, columns: Pair,
) -> Launch:  # fmt: skip
    units = planes * (rows[1] - rows[0])
    work = units * (columns[1] - columns[0]) * first.window * second.window * 2
    return Launch(kernel, args, units, work)


def _spread_plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    out = outputs[0]
    if prod(out.shape) == 0:
        return Plan(())
    first, second = _axes(out.shape, attrs)
    is_narrow = out.dtype.bits == 16
    pointers: tuple[Argument, ...] = (Out(0), In(0), *((Work(0),) if is_narrow else ()))
    sizes = (
        first.size, second.size, first.windows, second.windows, first.window, second.window,
        first.stride, first.before, second.before,
    )  # fmt: skip
    rows = prod(out.shape[:-1])
    taps = first.window * second.window // (first.stride * second.stride)
    launch = Launch(
        KernelSpec(_spread_kernel, (out.dtype.short, second.stride)), (*pointers, *sizes), rows,
        prod(out.shape) * (2 + 2 * taps),
    )  # fmt: skip
    scratch = (threads * second.size * dtypes.float32.itemsize,) if is_narrow else ()
    return Plan((launch,), scratch)


# --- checks -------------------------------------------------------------------------------------


def _check_axes(name: str, shape: Shape, attrs: dict[str, Any]) -> tuple[Axis, Axis]:
    if len(shape) < 2:
        raise ShapeError(
            f"{name}: got a tensor of shape {shape}; it must have at least the two dimensions "
            f"(height, width) (insert one with unsqueeze)"
        )
    axes = _axes(shape, attrs)
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
    return type_of(x.dtype, shape, x.device), type_of(I64, shape, x.device)


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
    first, second = _axes(shape, attrs)
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
    first, second = _axes(x.shape, attrs)
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
    first, second = _axes(x.shape, attrs)
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
    return np.random.default_rng(prod(shape)).permutation(prod(shape)).reshape(shape).astype(
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
        first, second = _axes(x.shape, sample.attrs)
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


# --- records ------------------------------------------------------------------------------------

_WINDOW: dict[str, Any] = {"family": "window", "traits": frozenset({"window"}), "cost": _cost}
_CONTIGUOUS = frozenset({0})

max_pool: Op = register(
    Op(
        name="max_pool", infer=_max_pool_infer, gradient=Joint(_max_pool_gradient),
        residuals=("out",), lower=Loops(_fold_plan(_MAX), _CONTIGUOUS),
        reference=_max_pool_reference, samples=_max_pool_samples, errors=_max_pool_errors,
        dtypes=NUMERIC, doc="the largest element of every window, and its place y*W + x in the "
        "plane (int64); the first of equal ones; NaN is larger than any number", **_WINDOW,
    )
)  # fmt: skip
window_sum: Op = register(
    Op(
        name="window_sum", infer=_window_sum_infer,
        gradient=(
            lambda g, n: window_spread(g, **n.attrs, shape=n.inputs[0].shape[-2:]),
        ),
        residuals=(), lower=Loops(_fold_plan(_SUM), _CONTIGUOUS),
        reference=_window_sum_reference, samples=_window_sum_samples,
        errors=lambda: _refused("window_sum"), dtypes=FLOATS,
        doc="the sum of every window's elements, one after the other in row-major order, 0 where "
        "there is none; f16 and bf16 add up in f32 and round once", **_WINDOW,
    )
)  # fmt: skip
window_spread: Op = register(
    Op(
        name="window_spread", infer=_window_spread_infer,
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
