"""Depthwise convolutions and their input gradients: every channel by itself, taps written out.

A unit is one channel of one image. Its plane is copied into a strip with the padding around it;
then a vector of pixels of a row is one chain of multiplications over the taps, whose weights stay
in registers. In the strip what pixels side by side read lies side by side:

    forward   elements of a row are sorted into *phases* by their place modulo the stride
    input     elements of grad_out lie a stride apart in their row, with zeros in the *gaps*;
              rows of the result are sorted into classes that have the same rows of taps

Other cases (several channels in a group, many taps, few pixels for them) are ``conv_pixel``'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.codegen.contraction import (
    Tile,
    Workspaces,
    ceil_div,
    in_order,
    multiply_add,
    negate,
    sizes,
    tile_for,
    widen,
)
from treadle.codegen.conv_exact import Notes
from treadle.codegen.conv_problem import Axis, Kind, Numbers, Problem
from treadle.codegen.conv_terms import Terms, Weight
from treadle.codegen.hooks import Attached, Hooks, Riders
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Out
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Const, Kernel, Operand

_Taps = tuple[tuple[int, int], ...]  # a tap and its place in the strip

_STRIP_BYTES = 256 << 10  # of a plane at most
_MOST_TAPS = 50
_FEW_TAPS = 12  # whose weights are kept in registers beside one vector of pixels,
_VECTORS = 4  # while those of more are read again for so many


class DepthwiseKey(Record):
    """What a kernel is made for.

    ``rows``: for each class of rows of the result the taps along a column that it has, each with
    its row in the strip; ``columns``: for each tap along a row its phase and place; ``vectors`` of
    pixels are computed together, 0 where a row has fewer pixels than lanes.
    """

    dtype: DType
    source: DType
    lanes: int
    vectors: int
    rows: tuple[_Taps, ...]
    columns: _Taps
    phases: int
    gap: int
    hooks: Hooks  # on the result


_SIZES = (
    "channels", "x_image", "x_channel", "x_row", "height", "width",  # of the source
    "top", "left",  # where its first element lies in the strip
    "row", "phase", "step",  # of the strip: a row, a phase, rows between those of a class
    "out_image", "out_channel", "out_width", "share",
)  # fmt: skip


def _sizes(key: DepthwiseKey) -> tuple[str, ...]:
    return (*_SIZES, *(f"rows_{number}" for number in range(len(key.rows))))


def conv_depthwise(key: DepthwiseKey) -> Kernel:
    """The kernel; ``dense`` is (channel, tap). The result is contiguous."""
    return _Depthwise(key).kernel()


class _Depthwise:
    def __init__(self, key: DepthwiseKey) -> None:
        taps = f"{sum(map(len, key.rows))}x{len(key.columns)}"
        k = self.k = Builder(f"conv_depthwise_{key.source.short}_{key.dtype.short}_{taps}")
        self.key = key
        self.out, self.dense = k.pointer("out", key.source), k.pointer("dense", key.dtype)
        self.image, self.scratch = k.pointer("image", key.source), k.pointer("scratch", key.dtype)
        self.hooks = Attached(k, key.hooks, key.source)
        self.size = sizes(k, _sizes(key))
        self.hooks.declare_sizes()

    def kernel(self) -> Kernel:
        k, size, key = self.k, self.size, self.key
        base = k.mul(THREAD, size.share)
        with k.loop(base, k.add(base, size.share), kind="vector") as i:
            k.store(self.scratch, i, k.const(0, key.dtype))
        with k.loop(BEGIN, END) as unit:
            image, channel = k.div(unit, size.channels), k.rem(unit, size.channels)
            self.copy(
                k.add(k.mul(image, size.x_image), k.mul(channel, size.x_channel)),
                k.add(base, k.mul(size.top, size.row)),
            )
            count = len(key.columns) * (1 + max(t for taps in key.rows for t, _ in taps))
            first = k.mul(channel, count)
            weights = [k.load(self.dense, k.add(first, t)) for t in range(count)]
            self.plane = self.hooks.line(image, channel)
            to = k.add(k.mul(image, size.out_image), k.mul(channel, size.out_channel))
            line = k.mul(size.out_width, len(key.rows))
            for number, taps in enumerate(key.rows):
                start = k.mul(size.out_width, number)
                with k.loop(0, getattr(size, f"rows_{number}")) as i:
                    row = k.add(base, k.mul(k.mul(i, size.step), size.row))
                    pixel = k.add(start, k.mul(i, line))
                    if key.vectors:
                        self.line(taps, row, weights, to, pixel)
                    else:
                        left = k.mul(k.sub(size.rows_0, i), size.out_width)
                        self.short_line(taps, row, weights, to, pixel, left)
        return k.kernel

    def copy(self, source: Operand, target: Operand) -> None:
        """A plane into the strip."""
        k, size, key = self.k, self.size, self.key
        with k.loop(0, size.height) as y:
            x, to = k.add(source, k.mul(y, size.x_row)), k.add(target, k.mul(y, size.row))
            for phase in range(key.phases):
                away = k.sub(size.left, phase)
                low = ceil_div(k, away, key.phases)
                high = ceil_div(k, k.add(size.width, away), key.phases)
                if key.gap > 1:
                    low, high, to = Const(0, I64), size.width, k.add(to, size.left)
                place = k.add(to, k.mul(size.phase, phase))
                with k.loop(low, high, kind="vector") as i:
                    at = i if key.gap > 1 else k.sub(k.mul(i, key.phases), away)
                    value = widen(k, k.load(self.image, k.add(x, at)), key.dtype)
                    k.store(self.scratch, k.add(place, k.mul(i, key.gap)), value)

    def line(
        self, taps: _Taps, row: Operand, weights: Sequence[Operand], to: Operand, pixel: Operand
    ) -> None:
        """One row of the result; the last vectors of pixels may overlap those before."""
        k, size, key = self.k, self.size, self.key
        pixels = key.vectors * key.lanes
        with k.loop(0, size.out_width, step=pixels) as first:
            start = k.minimum(first, k.sub(size.out_width, pixels))
            with k.loop(0, pixels, kind="vector") as lane:
                total = self.total(taps, k.add(row, k.add(start, lane)), weights)
                self.put(to, k.add(k.add(pixel, start), lane), total)

    def short_line(
        self, taps: _Taps, row: Operand, weights: Sequence[Operand], to: Operand, pixel: Operand,
        left: Operand,
    ) -> None:  # fmt: skip
        """A row with fewer pixels than lanes: what it writes beyond its end the next ones mend."""
        k, size, key = self.k, self.size, self.key
        totals = k.local(key.dtype, key.lanes)
        with k.loop(0, key.lanes, kind="vector") as lane:
            k.store(totals, lane, self.total(taps, k.add(row, lane), weights))
        whole = k.compare("ge", left, key.lanes)
        with k.when(whole), k.loop(0, key.lanes, kind="vector") as lane:
            self.put(to, k.add(pixel, lane), k.load(totals, lane))
        with k.when(negate(k, whole)), k.loop(0, size.out_width) as i:
            self.put(to, k.add(pixel, i), k.load(totals, i))

    def put(self, to: Operand, pixel: Operand, total: Operand) -> None:
        """An element of the plane that begins at ``to``."""
        out, at = self.out, self.k.add(to, pixel)
        self.hooks.finish(out, at, total, out.dtype, self.plane, pixel)

    def total(self, taps: _Taps, pixel: Operand, weights: Sequence[Operand]) -> Operand:
        """The sum for an element of the result."""
        k, size, key = self.k, self.size, self.key
        zero, tile = k.const(0, key.dtype), Tile(key.dtype, 1, 1, key.lanes)
        total: Operand = zero
        for tap, away in taps:
            line = k.add(pixel, k.mul(size.row, away))
            for number, (phase, place) in enumerate(key.columns):
                at = k.add(k.add(line, k.mul(size.phase, phase)), place)
                weight = weights[tap * len(key.columns) + number]
                total = multiply_add(k, tile, k.load(self.scratch, at), weight, total)
        return k.add(zero, total)


class _Side(Record):
    """How the taps of one axis lie in the strip."""

    classes: tuple[_Taps, ...]
    first: int  # the place of the source's first element
    step: int  # from one pixel of a class to the next
    places: int


def _side(kind: Kind, p: Problem, axis: int) -> _Side:
    """With classes for the input gradient, as ``conv_image_plan`` has them."""
    source, target = (p.image, p.result) if kind == "forward" else (p.result, p.image)
    size, pixels, taps = (x.shape[2 + axis] for x in (source, target, p.weight))
    stride, pad, dilation = p.stride[axis], p.pad[axis], p.dilation[axis]
    if kind == "forward":
        reached = tuple((tap, tap * dilation) for tap in range(taps))
        places = max(pad + size, (pixels - 1) * stride + reached[-1][1] + 1)
        return _Side((reached,), pad, stride, places)
    low = min(0, (pad - (taps - 1) * dilation) // stride)
    classes = tuple(
        tuple(
            (tap, (r + pad - tap * dilation) // stride - low)
            for tap in range(taps)
            if (r + pad - tap * dilation) % stride == 0
        )
        for r in range(stride)
    )
    most = max((place for reached in classes for _, place in reached), default=0)
    return _Side(classes, -low, 1, max(size - low, -(-pixels // stride) + most))


class DepthwisePlan:
    """The launches, if ``fits``."""

    def __init__(
        self, kind: Kind, p: Problem, weight: Weight, works: Workspaces, notes: Notes,
        riders: Riders,
    ) -> None:  # fmt: skip
        self.kind, self.p, self.weight, self.riders = kind, p, weight, riders
        self.works, self.notes = works, notes
        self.source, self.target = (p.image, p.result) if kind == "forward" else (p.result, p.image)
        self.tile = tile_for(self.source.dtype, 1, 1, p.vector_bits)
        self.gaps = kind == "input" and max(p.stride) > 1
        width, lanes, taps = self.target.shape[-1], self.tile.lanes, prod(p.weight.shape[2:])
        flat = p.weight.shape[2] == p.image.shape[2] == p.result.shape[2] == p.stride[0] == 1
        self.fits = (
            (weight.channels, weight.items) == (1, 1) and taps <= _MOST_TAPS and flat
            and (width >= lanes * (1 if taps <= _FEW_TAPS else _VECTORS)
                 or (width < lanes and (kind == "forward" or p.stride[1] == 1)))
            and self.source.strides[-1] == 1 and not self.tile.flush
        )  # fmt: skip
        if self.fits:
            self._lay_out(lanes)
            self.fits = self.share * self.tile.dtype.itemsize <= _STRIP_BYTES

    def _lay_out(self, lanes: int) -> None:
        p = self.p
        taps, stride, pad, dilation = p.weight.shape[-1], p.stride[-1], p.pad[-1], p.dilation[-1]
        self.high = _side(self.kind, p, 1)
        if self.kind == "forward":
            wide = _side(self.kind, p, 2)
            columns = tuple((place % stride, place // stride) for _, place in wide.classes[0])
            self.phases, self.gap, self.left, places = stride, 1, pad, -(-wide.places // stride)
        else:
            self.left = max((taps - 1) * dilation - pad, 0)
            columns = tuple((0, pad - tap * dilation + self.left) for tap in range(taps))
            self.phases, self.gap = 1, stride
            places = max(
                self.left + (self.source.shape[-1] - 1) * stride + 1,
                self.target.shape[-1] + columns[0][1],
            )
        self.phase = -(-places // 16) * 16  # whole lines
        self.row = self.phase * self.phases
        self.share = self.row * self.high.places + lanes  # of a short row, which read on
        vectors = 1 if taps * p.weight.shape[-2] <= _FEW_TAPS else _VECTORS
        if self.target.shape[-1] < lanes:
            vectors = 0
        self.key = DepthwiseKey(
            self.tile.dtype, self.source.dtype, lanes, vectors, self.high.classes, columns,
            self.phases, self.gap, self.riders.hooks,
        )  # fmt: skip

    def launches(self) -> list[Launch]:
        """Packing the weight, and the sums."""
        p, works, tile = self.p, self.works, self.tile
        axes = [
            Axis(1, 1, 1, count, 0, 1) for count in p.weight.shape[2:]
        ]  # the order of the taps is all that is asked for
        ones: Numbers = (1, 1, 1)
        terms = Terms(self.weight, axes, (1, ones, (0, 0, 0)), tile, works, self.notes)
        pack, dense = terms.packing(self.source.dtype, 1)
        scratch = works.new(p.threads * self.share, tile.dtype)
        x_image, x_channel, _, x_row, _ = self.source.strides
        height, width = self.target.shape[-2:]
        values = {
            "channels": p.groups, "x_image": x_image, "x_channel": x_channel, "x_row": x_row,
            "height": self.source.shape[-2], "width": self.source.shape[-1],
            "top": self.high.first, "left": self.left,
            "row": self.row, "phase": self.phase, "step": self.high.step,
            "out_image": self.target.strides[0], "out_channel": self.target.strides[1],
            "out_width": width, "share": self.share,
        }  # fmt: skip
        every = len(self.key.rows)
        values |= {f"rows_{r}": -(-max(height - r, 0) // every) for r in range(every)}
        args: tuple[Argument, ...] = (
            Out(0), dense, In(0), scratch, *self.riders.addresses,
            *in_order(_sizes(self.key), values), *self.riders.numbers,
        )  # fmt: skip
        units = prod(self.target.shape[:2])
        work = 2 * prod(self.target.shape) * terms.depth
        spec = KernelSpec(conv_depthwise, (self.key,))
        return [terms.listing(), pack, Launch(spec, args, units, work)]
