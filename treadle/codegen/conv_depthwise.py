"""Depthwise convolution whose result is an image: every channel has a window of its own.

There is nothing to share between channels, so this is no product of matrices: lanes are pixels side
by side, and a term is one window's weight times a vector of the strip. In the strip the elements
that pixels side by side read lie side by side too: with a stride, each of its *phases* apart. The
rows of the strip are computed through, ends and all, as one long run; what lies between the pixels
of two rows is dropped. For the input gradient of a strided convolution the strip holds grad_out
with ``gaps`` of absent elements: there are few taps to waste, and the result is written in one go.
"""

from __future__ import annotations

from typing import NamedTuple

from treadle.base.dtypes import DType
from treadle.base.shapes import prod
from treadle.codegen.contraction import (
    Tile,
    Workspaces,
    both,
    ceil_div,
    in_order,
    negate,
    sizes,
    tile_for,
    widen,
)
from treadle.codegen.conv_image import ORDER_SIZES, conv_order
from treadle.codegen.conv_problem import Axis, Numbers
from treadle.codegen.conv_strip import Chain, axes, dot, marker, names, nest
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out
from treadle.ir.loop import BEGIN, BOOL, END, I64, THREAD, Builder, Const, Kernel, Operand

_VECTORS = 8  # chains that are computed at a time
_SIZES = (
    "x_image", "x_channel", *names("x", "size"),  # of the image
    *names("pixels", "origin", "phases", "extent"),  # extent: of a phase of the strip
    *names("gap"),  # distance of the image's elements in the strip
    *names("s", "phase"),  # strides inside a phase, and from one phase to the next
    "channels", "multiplier",  # of the result; of each channel of the image
    "w_group", "w_item",
    "out_image", "out_channel", *names("o"),
    "run", "share", "share_sums",
)  # fmt: skip


def conv_depthwise(tile: Tile, source: DType) -> Kernel:
    """The kernel. A unit is one channel of one image of the result.

    ``tile`` has one row; ``places`` and ``offsets`` are those of ``conv_order``, ``ends[1]`` their
    number.
    """
    return _ConvDepthwise(tile, source).kernel()


class _ConvDepthwise:
    def __init__(self, tile: Tile, source: DType) -> None:
        k = self.k = Builder(f"conv_depthwise_rows_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.weight = k.pointer("out", source), k.pointer("weight", source)
        self.image = k.pointer("image", source)
        self.scratch, self.sums = k.pointer("scratch", tile.dtype), k.pointer("sums", tile.dtype)
        self.places, self.offsets = k.pointer("places", I64), k.pointer("offsets", I64)
        self.ends = k.pointer("ends", I64)
        self.size = sizes(k, _SIZES)

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.base = k.mul(THREAD, size.share)
        self.total = k.mul(THREAD, size.share_sums)
        self.window = k.add(self.total, size.run)  # the weights, widened
        self.count = k.load(self.ends, 1)
        zero = k.const(0, self.tile.dtype)
        self.fill(zero)
        with k.loop(BEGIN, END) as unit:
            channel, image = k.rem(unit, size.channels), k.div(unit, size.channels)
            group, item = k.div(channel, size.multiplier), k.rem(channel, size.multiplier)
            weight = k.add(k.mul(group, size.w_group), k.mul(item, size.w_item))
            bad = self.weights(weight)
            source = k.add(k.mul(image, size.x_image), k.mul(group, size.x_channel))
            to = k.add(k.mul(image, size.out_image), k.mul(channel, size.out_channel))
            if self.tile.dtype.kind == "f":
                with k.when(bad):
                    self.fill(marker(k, self.tile.dtype))
                    self.copy(source, clean=True)
                    one = Tile(self.tile.dtype, 1, 1, self.tile.lanes, self.tile.flush)
                    self.multiply(one, skip=True)
                    self.fill(zero)
            with k.when(negate(k, bad)):
                self.copy(source)
                self.multiply(self.tile)
            self.write(to)
        return k.kernel

    def fill(self, value: Operand) -> None:
        """What lies around the elements in the strip."""
        k = self.k
        with k.loop(self.base, k.add(self.base, self.size.share), kind="vector") as i:
            k.store(self.scratch, i, value)

    def weights(self, start: Operand) -> Operand:
        """Lists the weights of the window; whether one is infinite or NaN."""
        k, dtype = self.k, self.tile.dtype
        note = k.local(dtype, 1)
        zero = k.const(0, dtype)
        k.store(note, 0, zero)
        with k.loop(0, self.count) as t:
            element = k.load(self.weight, k.add(start, k.load(self.offsets, t)))
            value = widen(k, element, dtype)
            k.store(self.sums, k.add(self.window, t), value)
            k.store(note, 0, k.add(k.load(note, 0), k.mul(value, zero)))
        if dtype.kind != "f":
            return Const(False, BOOL)
        noted = k.load(note, 0)
        return k.compare("ne", noted, noted)

    def copy(self, source: Operand, clean: bool = False) -> None:
        """The elements of one channel into the strip, phase by phase."""
        k, size = self.k, self.size
        phases, xs, extents = axes(size, "phases"), axes(size, "x"), axes(size, "extent")
        gaps = axes(size, "gap")
        with nest(k, [Const(0, I64)] * 3, phases) as phase:
            start, begin, low, high = [], [], [], []
            for a, origin in enumerate(axes(size, "origin")):
                first = k.add(origin, phase[a])
                count, gap = axes(size, "size")[a], gaps[a]
                apart = k.compare("ne", gap, 1)
                start.append(k.select(apart, 0, first))
                begin.append(k.select(apart, k.sub(0, first), 0))
                low.append(
                    k.select(
                        apart, ceil_div(k, first, gap), ceil_div(k, k.sub(0, first), phases[a])
                    )
                )
                left = ceil_div(k, k.sub(count, first), phases[a])
                end = k.minimum(count, ceil_div(k, k.add(extents[a], first), gap))
                high.append(k.select(apart, end, k.minimum(left, extents[a])))
            x = k.add(source, dot(k, start, xs))
            to = k.add(self.base, dot(k, phase, axes(size, "phase")))
            to = k.add(to, dot(k, begin, axes(size, "s")))
            steps = [k.mul(p, stride) for p, stride in zip(phases, xs, strict=True)]
            jumps = [k.mul(gap, stride) for gap, stride in zip(gaps, axes(size, "s"), strict=True)]
            near = both(k, k.compare("eq", steps[2], 1), k.compare("eq", gaps[2], 1))
            with k.loop(low[0], high[0]) as d, k.loop(low[1], high[1]) as h:
                line = k.add(x, k.add(k.mul(d, steps[0]), k.mul(h, steps[1])))
                row = k.add(to, k.add(k.mul(d, jumps[0]), k.mul(h, jumps[1])))
                with k.when(near), k.loop(low[2], high[2], kind="vector") as w:
                    self.move(k.add(line, w), k.add(row, w), clean)
                with k.when(negate(k, near)), k.loop(low[2], high[2], kind="vector") as w:
                    place = k.add(row, k.mul(w, jumps[2]))
                    self.move(k.add(line, k.mul(w, steps[2])), place, clean)

    def move(self, source: Operand, target: Operand, clean: bool) -> None:
        """Copies an element; ``clean`` makes every NaN the same, which is not the marker."""
        k, dtype = self.k, self.tile.dtype
        value = widen(k, k.load(self.image, source), dtype)
        if clean:
            value = k.select(k.compare("ne", value, value), k.const(float("nan"), dtype), value)
        k.store(self.scratch, target, value)

    def multiply(self, tile: Tile, skip: bool = False) -> None:
        """The sums of the whole run; there is only one block of k."""
        k = self.k
        chain = Chain(k, tile)
        with k.loop(0, self.size.run, step=tile.columns) as i:
            at = k.add(self.base, i)
            chain.clear()
            with k.loop(0, self.count) as t:
                start = k.add(at, k.load(self.places, t))
                weight = k.load(self.sums, k.add(self.window, t))
                for vector in range(tile.vectors):
                    with k.loop(0, tile.lanes, kind="vector") as lane:
                        j = k.add(lane, vector * tile.lanes)
                        chain.add(k.load(self.scratch, k.add(start, j)), weight, j, skip)
            chain.put(self.sums, k.add(self.total, i))

    def write(self, to: Operand) -> None:
        """The pixels of the run to the result."""
        k, size = self.k, self.size
        pixels, strides = axes(size, "pixels"), axes(size, "o")
        near = k.compare("eq", strides[2], 1)
        with k.loop(0, pixels[0]) as d, k.loop(0, pixels[1]) as h:
            line = k.add(to, k.add(k.mul(d, strides[0]), k.mul(h, strides[1])))
            row = k.add(self.total, k.add(k.mul(d, size.s_d), k.mul(h, size.s_h)))
            with k.when(near), k.loop(0, pixels[2], kind="vector") as w:
                value = k.load(self.sums, k.add(row, w))
                k.store(self.out, k.add(line, w), k.convert(value, self.out.dtype))
            with k.when(negate(k, near)), k.loop(0, pixels[2], kind="vector") as w:
                value = k.load(self.sums, k.add(row, w))
                place = k.add(line, k.mul(w, strides[2]))
                k.store(self.out, place, k.convert(value, self.out.dtype))


class DepthwiseImage(NamedTuple):
    """A depthwise convolution; ``axes`` counts elements that lie ``gaps`` apart as so many."""

    source: Layout
    target: Layout
    axes: tuple[Axis, ...]
    gaps: Numbers
    w_taps: Numbers  # strides of the weight: along the window,
    w_group: int  # from one channel of the source to the next,
    w_item: int  # and from one of its results to the next
    multiplier: int  # results of a channel of the source


def depthwise_launches(
    image: DepthwiseImage, threads: int, vector_bits: int, works: Workspaces
) -> list[Launch]:
    """Listing the terms of a pixel, and the sums."""
    dtype = image.source.dtype
    tile = tile_for(dtype, 1, _VECTORS, vector_bits)
    depth = prod(axis.taps for axis in image.axes)
    pixels = [axis.pixels for axis in image.axes]
    extents = [axis.pixels + (axis.reach - 1) // axis.step for axis in image.axes]
    inner = (extents[1] * extents[2], extents[2], 1)
    plane = prod(extents)
    steps = [axis.step for axis in image.axes]
    phases = (plane * steps[2] * steps[1], plane * steps[2], plane)
    places, offsets = works.new(depth, I64), works.new(depth, I64)
    ends, raw = works.new(2, I64), works.new(2 * depth, I64)
    run = sum((n - 1) * stride for n, stride in zip(pixels, inner, strict=True)) + 1
    run = -(-run // tile.columns) * tile.columns
    share, share_sums = plane * prod(steps) + tile.columns, run + depth
    scratch = works.new(threads * share, tile.dtype)
    sums = works.new(threads * share_sums, tile.dtype)
    x_image, x_channel, *xs = image.source.strides
    o_image, o_channel, *outs = image.target.strides
    order = {
        "channels": 1, "s_channel": 0, "w_channel": 0, "depth": depth, "swap": int(tile.flush),
    }  # fmt: skip
    values = {
        "x_image": x_image, "x_channel": x_channel, "channels": image.target.shape[1],
        "multiplier": image.multiplier, "w_group": image.w_group, "w_item": image.w_item,
        "out_image": o_image, "out_channel": o_channel, "run": run,
        "share": share, "share_sums": share_sums,
    }  # fmt: skip
    for a, (name, axis) in enumerate(zip("dhw", image.axes, strict=True)):
        order |= {
            f"taps_{name}": axis.taps, f"base_{name}": axis.base,
            f"distance_{name}": axis.distance, f"spread_{name}": axis.spread,
            f"low_{name}": axis.low, f"s_{name}": inner[a], f"w_{name}": image.w_taps[a],
            f"phases_{name}": axis.step, f"phase_{name}": phases[a],
        }  # fmt: skip
        values |= {
            f"x_{name}": xs[a], f"size_{name}": axis.size, f"gap_{name}": image.gaps[a],
            f"pixels_{name}": pixels[a],
            f"origin_{name}": axis.low, f"phases_{name}": axis.step, f"extent_{name}": extents[a],
            f"s_{name}": inner[a], f"phase_{name}": phases[a], f"o_{name}": outs[a] * axis.every,
        }  # fmt: skip
    listed: tuple[Argument, ...] = (places, offsets, ends, raw, *in_order(ORDER_SIZES, order))
    first = sum(axis.first * stride for axis, stride in zip(image.axes, outs, strict=True))
    args: tuple[Argument, ...] = (
        Out(0, first), In(1), In(0), scratch, sums, places, offsets, ends,
        *in_order(_SIZES, values),
    )  # fmt: skip
    units = image.target.shape[0] * image.target.shape[1]
    return [
        Launch(KernelSpec(conv_order, ()), listed, 1, 0),
        Launch(KernelSpec(conv_depthwise, (tile, dtype)), args, units, 2 * units * run * depth),
    ]
