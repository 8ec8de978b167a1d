"""The kernels behind ``window.py``: folds over sliding windows, and the adjoint of their sum.

Windows that lie wholly inside are computed by a kernel with the window written out, those at the
border (and windows of many elements) by one that asks of every tap whether it is there. Both visit
the taps of a window in row-major order, for several windows of a row at once: a ``block`` of them,
whose last one in a row overlaps the one before, so that no window is computed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Kernel, Operand
from treadle.ops.window import Axis, axes_of

Pair = tuple[int, int]
_WRITTEN_OUT = 25  # taps of the largest window that is written out in the kernel


# --- what is done with the taps of a window -----------------------------------------------------


class Fold(Record):
    """A way to fold the taps of a window.

    ``start(k, value, position)`` gives the state after the first tap, ``step(k, state, value,
    position)`` after another one; ``position`` tells where the tap lies, in any integer dtype.
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


MAX = Fold(
    "max_pool",
    outputs=lambda dtype: (dtype, I64),
    state=lambda dtype: (dtype, I64),
    start=lambda k, value, position: (value, position),
    step=_larger,
)
SUM = Fold(
    "window_sum",
    outputs=lambda dtype: (dtype,),
    state=lambda dtype: (_wide(dtype),),
    start=lambda k, value, position: (k.convert(value, _wide(value.dtype)),),
    step=lambda k, state, value, position: (k.add(state[0], k.convert(value, _wide(value.dtype))),),
)
_FOLDS = {fold.name: fold for fold in (MAX, SUM)}


# --- kernels ------------------------------------------------------------------------------------


_SIZES = (
    "height", "width", "out_height", "out_width", "row0", "rows", "col0", "col1", "blocks",
    "stride_h", "top", "left", "dilation_h", "dilation_w",
)  # fmt: skip


class _Block(Record):
    """Some windows of a row: where plane, results and the first window's first tap are."""

    plane: Operand
    out: Operand
    y: Operand
    x: Operand


@contextmanager
def _each_row(k: Builder, rows: Operand) -> Iterator[tuple[Operand, Operand]]:
    """Loops over (plane, row) for begin..end, counted in rows; two divisions do for all of them."""
    with k.loop(k.div(BEGIN, rows), _ceil_div(k, END, rows)) as plane:
        before = k.mul(plane, rows)
        lo = k.maximum(k.sub(BEGIN, before), 0)
        hi = k.minimum(k.sub(END, before), rows)
        with k.loop(lo, hi) as row:
            yield plane, row


@contextmanager
def _each_block(
    k: Builder, sizes: dict[str, Operand], block: int, stride_w: int
) -> Iterator[_Block]:
    """Loops over the blocks of the rows row0..row0+rows of every plane."""
    with _each_row(k, sizes["rows"]) as (plane, number):
        row = k.add(sizes["row0"], number)
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
    taps = [
        k.add(k.mul(down, i), k.mul(s["dilation_w"], j))
        for i in range(window[0])
        for j in range(window[1])
    ]
    # What lies apart is collected by plain loads, whose addresses cost nothing.
    collected = [k.local(dtype, block) for _ in taps] if stride_w != 1 else []
    with _each_block(k, s, block, stride_w) as at:
        first = k.add(k.mul(at.y, s["width"]), at.x)
        sources = [k.add(k.add(at.plane, first), tap) for tap in taps]
        for local, source in zip(collected, sources, strict=False):
            with k.loop(0, block, kind="unrolled") as lane:
                k.store(local, lane, k.load(x, k.add(source, k.mul(lane, stride_w))))
        with k.loop(0, block, kind="vector") as lane:
            state: tuple[Operand, ...] = ()
            for number, (tap, source) in enumerate(zip(taps, sources, strict=True)):
                memory, at_lane = (
                    (collected[number], lane) if collected else (x, k.add(source, lane))
                )
                value = k.load(memory, at_lane)
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


def _spread_kernel(short: str, stride: Pair) -> Kernel:
    """Every row of the result from the windows that cover it, in row-major order of the windows."""
    dtype = dtypes.by_short(short)
    stride_h, stride_w = stride
    k = Builder(f"window_spread_{short}_{stride_h}x{stride_w}")
    out, g = k.pointer("out", dtype), k.pointer("g", dtype)
    is_narrow = _wide(dtype) is not dtype
    sums = k.pointer("sums", _wide(dtype)) if is_narrow else out
    height, width, out_height, out_width = (
        k.size(name) for name in ("height", "width", "out_height", "out_width")
    )
    window_h, window_w = k.size("window_h"), k.size("window_w")
    top, left = k.size("top"), k.size("left")
    kind = "vector" if stride_w == 1 else "serial"
    with _each_row(k, height) as (plane, number):
        y = k.add(number, top)  # counted from the padding's edge
        row = k.mul(k.add(k.mul(plane, height), number), width)
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
    return k.div(k.add(a, b - 1 if isinstance(b, int) else k.sub(b, 1)), b)


# --- plans --------------------------------------------------------------------------------------


class _Region(Record):
    """A rectangle of windows that one launch computes, ``block`` windows of a row at a time."""

    rows: Pair
    columns: Pair
    block: int
    is_inside: bool


def fold_plan(
    name: str, inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any]
) -> Plan:
    """How that fold of every window of a contiguous (..., H, W) becomes launches."""
    x = inputs[0]
    planes = prod(x.shape[:-2])
    if planes == 0:
        return Plan(())
    first, second = axes_of(x.shape, attrs)
    pointers: tuple[Argument, ...] = (*(Out(i) for i in range(len(outputs))), In(0))
    launches = []
    for region in _regions(first, second):
        key, sizes = (second.stride, region.block), _sizes(first, second, region)
        if region.is_inside:
            kernel = KernelSpec(_inside_kernel, (name, x.dtype.short, attrs["window"], *key))
        else:
            kernel = KernelSpec(_border_kernel, (name, x.dtype.short, *key))
            sizes += first.window, second.window
        units = planes * (region.rows[1] - region.rows[0])
        work = units * (region.columns[1] - region.columns[0]) * prod(attrs["window"]) * 2
        launches.append(Launch(kernel, (*pointers, *sizes), units, work))
    return Plan(tuple(launches))


def _regions(first: Axis, second: Axis) -> list[_Region]:
    """The windows that lie wholly inside, and the strips around them."""
    (row0, row1), (col0, col1) = first.inside, second.inside
    rows, columns = (0, first.windows), (0, second.windows)
    is_small = first.window * second.window <= _WRITTEN_OUT
    is_small &= first.window * first.dilation * (second.size + second.dilation) < 1 << 31
    if not is_small or row0 == row1 or col0 == col1:
        return [_border(rows, columns, second.windows)]
    block = _power_of_two(col1 - col0)
    if second.stride != 1 and block == 8:
        # Lanes are loaded one by one: half a block where clearly fewer are computed twice.
        halves, wholes = (-(-(col1 - col0) // n) * n for n in (4, 8))
        block = 4 if 6 * halves <= 5 * wholes else 8
    inside = _Region((row0, row1), (col0, col1), block, True)
    strips = [
        ((0, row0), columns),
        ((row0, row1), (0, col0)),
        ((row0, row1), (col1, second.windows)),
        ((row1, first.windows), columns),
    ]
    return [inside] + [
        _border(r, c, second.windows) for r, c in strips if r[0] < r[1] and c[0] < c[1]
    ]


def _border(rows: Pair, columns: Pair, windows: int) -> _Region:
    """A strip, widened to a block: the neighbours are computed once more, to the same result.

    A block has at least two windows where a row has: lanes have no branches to be guessed wrongly.
    """
    width = columns[1] - columns[0]
    block = _power_of_two(min(max(2 * width - 1, 2), windows))
    start = min(columns[0], windows - block)
    return _Region(rows, (start, max(columns[1], start + block)), block, False)


def _power_of_two(count: int) -> int:
    """The largest one up to ``count`` that is at most 8."""
    return next(block for block in (8, 4, 2, 1) if block <= count)


def _sizes(first: Axis, second: Axis, region: _Region) -> tuple[int, ...]:
    """The parameters that both kernels share, as ``_SIZES`` names them."""
    (row0, row1), (col0, col1) = region.rows, region.columns
    blocks = -(-(col1 - col0) // region.block)
    return (
        first.size, second.size, first.windows, second.windows, row0, row1 - row0, col0, col1,
        blocks, first.stride, first.before, second.before, first.dilation, second.dilation,
    )  # fmt: skip


def spread_plan(
    inputs: Sequence[Layout], outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    """How the adjoint of a sum becomes a launch; ``attrs['shape']`` is the result's (H, W)."""
    out = outputs[0]
    if prod(out.shape) == 0:
        return Plan(())
    first, second = axes_of(out.shape, attrs)
    is_narrow = out.dtype.bits == 16
    pointers: tuple[Argument, ...] = (Out(0), In(0), *((Work(0),) if is_narrow else ()))
    sizes = (
        first.size, second.size, first.windows, second.windows, first.window, second.window,
        first.before, second.before,
    )  # fmt: skip
    rows = prod(out.shape[:-1])
    taps = first.window * second.window // (first.stride * second.stride)
    launch = Launch(
        KernelSpec(_spread_kernel, (out.dtype.short, attrs["stride"])), (*pointers, *sizes), rows,
        prod(out.shape) * (2 + 2 * taps),
    )  # fmt: skip
    scratch = (threads * second.size * dtypes.float32.itemsize,) if is_narrow else ()
    return Plan((launch,), scratch)


__all__ = ["Fold", "fold_plan", "spread_plan"]
