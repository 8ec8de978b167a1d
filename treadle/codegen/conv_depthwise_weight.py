"""The weight gradient of depthwise convolutions: channels in the lanes, taps in registers.

A unit is as many channels as a vector has lanes, and some taps. Image by image the planes of the
input are turned round into a strip, with the padding around them; row by row so is grad_out, each
pixel of which is then multiplied by the elements that the taps read there. The chain of a block
of k goes on through rows and images. Other cases are ``conv_weight``'s.
"""

from __future__ import annotations

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.codegen.contraction import (
    BLOCK,
    Tile,
    Workspaces,
    ceil_div,
    in_order,
    sizes,
    tile_for,
    widen,
)
from treadle.codegen.conv_exact import Notes
from treadle.codegen.conv_problem import Problem
from treadle.codegen.conv_strip import Chain, FiniteNote, Square
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Out
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Const, Kernel, Operand

_STRIP_BYTES = 320 << 10  # of the planes at most
_TAPS = 12  # of a unit: as many chains as registers hold beside what they multiply


class TapsKey(Record):
    """``rows`` and ``columns`` of taps of a unit, these ``dilation`` apart."""

    dtype: DType
    source: DType
    lanes: int
    rows: int
    columns: int
    dilation: int


_SIZES = (
    "channels", "images", "x_image", "x_channel", "x_row", "height", "width", "top", "left",
    "g_image", "g_channel", "g_row", "out_height", "out_width",
    "row", "step_h", "step_w", "tap_h",  # of the strip: a row; in rows and columns of it
    "window_h", "window_w", "parts_h", "parts_w",  # the parts that units make of the window
    "share",
)  # fmt: skip


def conv_depthwise_weight(key: TapsKey) -> Kernel:
    """The kernel; ``noted[unit]`` is NaN where its grad_out is not finite."""
    return _DepthwiseWeight(key).kernel()


class _DepthwiseWeight:
    def __init__(self, key: TapsKey) -> None:
        name = f"conv_depthwise_weight_{key.source.short}_{key.dtype.short}"
        k = self.k = Builder(f"{name}_{key.rows}x{key.columns}")
        self.key = key
        self.out, self.grad = k.pointer("out", key.source), k.pointer("grad", key.source)
        self.image, self.scratch = k.pointer("image", key.source), k.pointer("scratch", key.dtype)
        self.noted = k.pointer("noted", key.dtype)
        self.size = sizes(k, _SIZES)
        self.chain = Chain(k, Tile(key.dtype, key.rows * key.columns, 1, key.lanes))
        self.note = FiniteNote(k, key.dtype, key.lanes)
        self.inputs = Square(k, key.source, key.lanes)
        self.grads = Square(k, key.source, key.lanes, self.note)

    def kernel(self) -> Kernel:
        k, size, key = self.k, self.size, self.key
        self.sums = k.mul(THREAD, size.share)
        self.line = k.add(self.sums, key.rows * key.columns * key.lanes)
        self.strip = k.add(self.line, k.mul(size.out_width, key.lanes))
        with k.loop(self.sums, k.add(self.sums, size.share), kind="vector") as i:
            k.store(self.scratch, i, k.const(0, key.dtype))
        with k.loop(BEGIN, END) as unit:
            column, rest = k.rem(unit, size.parts_w), k.div(unit, size.parts_w)
            row, group = k.rem(rest, size.parts_h), k.div(rest, size.parts_h)
            # The last units overlap those before rather than having fewer channels or taps.
            starts, firsts = [], []
            for part, count, whole in (
                (group, key.lanes, size.channels), (row, key.rows, size.window_h),
                (column, key.columns, size.window_w),
            ):  # fmt: skip
                start = k.minimum(k.mul(part, count), k.sub(whole, count))
                starts.append(start)
                firsts.append(k.sub(k.mul(part, count), start))
            self.note.reset()
            self.sum_up(*starts)
            self.note.put(self.noted, unit)
            self.write(*starts, *firsts)
        return k.kernel

    def sum_up(self, channel: Operand, tap_h: Operand, tap_w: Operand) -> None:
        """All of k for these channels and taps."""
        k, size, key = self.k, self.size, self.key
        with k.loop(0, key.rows * key.columns * key.lanes, kind="vector") as i:
            k.store(self.scratch, k.add(self.sums, i), k.const(0, key.dtype))
        self.chain.clear()
        corner = k.add(
            k.mul(k.mul(tap_h, size.tap_h), size.row), k.mul(tap_w, key.lanes * key.dilation)
        )
        corner = k.add(self.strip, corner)
        total = k.mul(k.mul(size.images, size.out_height), size.out_width)
        with k.loop(0, size.images) as image:
            x = k.add(k.mul(image, size.x_image), k.mul(channel, size.x_channel))
            with k.loop(0, size.height) as y:
                to = k.add(self.strip, k.mul(k.add(y, size.top), size.row))
                self.turn(
                    self.inputs, k.add(x, k.mul(y, size.x_row)), size.width,
                    k.add(to, k.mul(size.left, key.lanes)),
                )  # fmt: skip
            g = k.add(k.mul(image, size.g_image), k.mul(channel, size.g_channel))
            with k.loop(0, size.out_height) as y:
                self.turn(self.grads, k.add(g, k.mul(y, size.g_row)), size.out_width, self.line)
                row = k.add(corner, k.mul(k.mul(y, size.step_h), size.row))
                before = k.add(k.mul(image, size.out_height), y)
                self.row(k.mul(before, size.out_width), row, total)

    def turn(self, square: Square, source: Operand, width: Operand, target: Operand) -> None:
        """A row of all channels, pixel by pixel."""
        k, size, lanes = self.k, self.size, self.key.lanes
        pointer, stride = (
            (self.image, size.x_channel) if square is self.inputs else (self.grad, size.g_channel)
        )
        whole = k.select(k.compare("ge", width, lanes), width, 0)
        with square.along(Const(0, I64), whole, width) as w:
            place = k.add(target, k.mul(w, lanes))
            square.move(pointer, k.add(source, w), stride, self.scratch, place, Const(lanes, I64))
        with k.loop(whole, width) as w, k.loop(0, lanes, kind="vector") as lane:
            element = k.load(pointer, k.add(k.add(source, w), k.mul(lane, stride)))
            value = widen(k, element, self.key.dtype)
            if square.note:
                square.note.see(value, lane)
            k.store(self.scratch, k.add(k.add(target, k.mul(w, lanes)), lane), value)

    def row(self, first: Operand, row: Operand, total: Operand) -> None:
        """The pixels of one row, of which pixel 0 is step ``first`` of k, block by block."""
        k, size, key = self.k, self.size, self.key
        end = k.add(first, size.out_width)
        with k.loop(k.div(first, BLOCK), ceil_div(k, end, BLOCK)) as block:
            low = k.maximum(k.sub(k.mul(block, BLOCK), first), 0)
            stop = k.minimum(k.mul(k.add(block, 1), BLOCK), end)
            with k.loop(low, k.sub(stop, first)) as w:
                self.step(
                    k.add(self.line, k.mul(w, key.lanes)),
                    k.add(row, k.mul(k.mul(w, size.step_w), key.lanes)),
                )
            ends = k.compare("eq", k.op("and", stop, BLOCK - 1), 0)
            with k.when(k.op("or", ends, k.compare("eq", stop, total))):
                for tap in range(key.rows * key.columns):
                    with k.loop(0, key.lanes, kind="vector") as lane:
                        j = k.add(lane, tap * key.lanes)
                        at = k.add(self.sums, j)
                        sum_ = k.add(k.load(self.scratch, at), k.load(self.chain.acc, j))
                        k.store(self.scratch, at, sum_)
                self.chain.clear()

    def step(self, line: Operand, corner: Operand) -> None:
        """One pixel of grad_out times the elements that all taps read."""
        k, key, size = self.k, self.key, self.size
        grad = self.chain.line
        with k.loop(0, key.lanes, kind="vector") as lane:
            k.store(grad, lane, k.load(self.scratch, k.add(line, lane)))
        for row in range(key.rows):
            start = k.add(corner, k.mul(k.mul(size.tap_h, row), size.row))
            for column in range(key.columns):
                place = k.add(start, column * key.dilation * key.lanes)
                tap = row * key.columns + column
                with k.loop(0, key.lanes, kind="vector") as lane:
                    element = k.load(self.scratch, k.add(place, lane))
                    self.chain.add(element, k.load(grad, lane), k.add(lane, tap * key.lanes))

    def write(
        self, channel: Operand, tap_h: Operand, tap_w: Operand, lane: Operand, row: Operand,
        column: Operand,
    ) -> None:  # fmt: skip
        """The sums of a unit, from these of its lanes, rows and columns on."""
        k, size, key = self.k, self.size, self.key
        with (
            k.loop(lane, key.lanes) as i, k.loop(row, key.rows) as r,
            k.loop(column, key.columns) as c,
        ):  # fmt: skip
            at = k.add(k.mul(k.add(k.mul(r, key.columns), c), key.lanes), i)
            value = k.convert(k.load(self.scratch, k.add(self.sums, at)), key.source)
            to = k.add(k.mul(k.add(channel, i), size.window_h), k.add(tap_h, r))
            to = k.add(k.mul(to, size.window_w), k.add(tap_w, c))
            k.store(self.out, to, value)


class DepthwiseWeightPlan:
    """The launch, if it ``fits``."""

    def __init__(self, p: Problem, works: Workspaces) -> None:
        self.p, self.works = p, works
        self.tile = tile_for(p.image.dtype, 1, 1, p.vector_bits)
        lanes, (outputs, inputs, *window) = self.tile.lanes, p.weight.shape
        flat = window[0] == p.image.shape[2] == p.result.shape[2] == p.stride[0] == 1
        rows = [
            max(pad + size, (pixels - 1) * stride + (taps - 1) * dilation + 1)
            for pad, size, pixels, stride, taps, dilation in zip(
                p.pad, p.image.shape[2:], p.result.shape[2:], p.stride, window, p.dilation,
                strict=True,
            )
        ]  # fmt: skip
        self.row, strip = rows[2] * lanes, rows[1] * rows[2] * lanes
        self.columns = min(window[2], _TAPS)
        self.rows = min(max(_TAPS // self.columns, 1), window[1])
        self.parts = (-(-window[1] // self.rows), -(-window[2] // self.columns))
        self.share = strip + (p.result.shape[-1] + self.rows * self.columns) * lanes
        self.fits = (
            outputs == p.groups >= lanes and inputs == 1 and flat
            and p.image.strides[-1] == p.result.strides[-1] == 1 and not self.tile.flush
            and strip * self.tile.dtype.itemsize <= _STRIP_BYTES
        )  # fmt: skip

    def launch(self, notes: Notes) -> Launch:
        """The sums; ``units`` numbers of ``notes`` are taken."""
        p, lanes = self.p, self.tile.lanes
        x_image, x_channel, _, x_row, _ = p.image.strides
        g_image, g_channel, _, g_row, _ = p.result.strides
        scratch = self.works.new(p.threads * self.share, self.tile.dtype)
        values = {
            "channels": p.groups, "images": p.image.shape[0],
            "x_image": x_image, "x_channel": x_channel, "x_row": x_row,
            "height": p.image.shape[-2], "width": p.image.shape[-1],
            "top": p.pad[1], "left": p.pad[2],
            "g_image": g_image, "g_channel": g_channel, "g_row": g_row,
            "out_height": p.result.shape[-2], "out_width": p.result.shape[-1],
            "row": self.row, "step_h": p.stride[1], "step_w": p.stride[2],
            "tap_h": p.dilation[1],
            "window_h": p.weight.shape[-2], "window_w": p.weight.shape[-1],
            "parts_h": self.parts[0], "parts_w": self.parts[1], "share": self.share,
        }  # fmt: skip
        key = TapsKey(self.tile.dtype, p.image.dtype, lanes, self.rows, self.columns, p.dilation[2])
        args: tuple[Argument, ...] = (
            Out(0), In(0), In(1), scratch, notes.more(self.units), *in_order(_SIZES, values)
        )  # fmt: skip
        work = 2 * prod(p.weight.shape) * prod(p.result.shape[2:]) * p.result.shape[0]
        return Launch(KernelSpec(conv_depthwise_weight, (key,)), args, self.units, work)

    @property
    def units(self) -> int:
        """Groups of channels times parts of the window."""
        return -(-self.p.groups // self.tile.lanes) * prod(self.parts)
