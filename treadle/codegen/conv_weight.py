"""Kernels of the gradient of a convolution with respect to its weight.

An element of it is the sum over all pixels of all images of grad_out times the element of the input
that the tap reads there: k is (n, d, h, w). Rows of the register tile are the taps of some
channels, read in the strip; its vectors are output channels, whose grad_out is packed first. The
sums are kept in the order of the tile and brought into that of the weight at the end.
"""

from __future__ import annotations

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.codegen.contraction import BLOCK, Tile, both, ceil_div, sizes, widen
from treadle.codegen.conv_strip import (
    STRIP_SIZES,
    Chain,
    FiniteNote,
    Point,
    Square,
    Strip,
    axes,
    dot,
    names,
    nest,
    volume,
)
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Const, Kernel, Operand

_CHUNK = 64  # pixels
_WORDS = 8  # lanes of the sums that are copied side by side

GRAD_SIZES = (
    "items", "panels", "columns", "images", "s_image", "s_group", "s_item",
    *names("pixels", "g"), "depth",
)  # fmt: skip


def conv_pack_grad(dtype: DType, source: DType, lanes: int) -> Kernel:
    """Packs grad_out into panels (group, panel, depth, column).

    The last panel is filled up with zeros, whose products are dropped. Pairs of terms of bfloat16
    change places. A unit is a panel of one image, and ``noted[unit]`` NaN where it is not finite.
    """
    k = Builder(f"conv_pack_grad_{source.short}_{dtype.short}")
    target, grad = k.pointer("target", dtype), k.pointer("grad", source)
    noted = k.pointer("noted", dtype)
    size = sizes(k, GRAD_SIZES)
    columns, note = size.columns, FiniteNote(k, dtype, lanes)
    square = Square(k, source, lanes, note)
    pixels, strides = axes(size, "pixels"), axes(size, "g")
    width, count = pixels[2], volume(k, pixels)

    with k.loop(BEGIN, END) as unit:
        image, rest = k.rem(unit, size.images), k.div(unit, size.images)
        first = k.mul(k.rem(rest, size.panels), columns)
        base = k.add(k.mul(k.div(rest, size.panels), size.s_group), k.mul(first, size.s_item))
        base = k.add(base, k.mul(image, size.s_image))
        shown = k.minimum(k.sub(size.items, first), columns)
        panel = k.mul(k.mul(rest, size.depth), columns)
        start = k.mul(image, count)
        turned = both(k, k.compare("eq", strides[2], 1), square.fits(shown, width))

        def place(step: Operand) -> Operand:
            if source is dtypes.bfloat16:
                other = k.op("xor", step, 1)
                step = k.select(k.compare("lt", other, size.depth), other, step)
            return k.add(panel, k.mul(step, columns))

        with square.along(shown, columns, columns) as item, k.loop(0, count) as pixel:
            at = k.add(place(k.add(start, pixel)), item)
            with k.loop(0, lanes, kind="vector") as lane:
                k.store(target, k.add(at, lane), k.const(0, dtype))
        note.reset()
        with k.loop(0, pixels[0]) as d, k.loop(0, pixels[1]) as h:
            row = k.add(base, k.add(k.mul(d, strides[0]), k.mul(h, strides[1])))
            step = k.add(start, k.mul(k.add(k.mul(d, pixels[1]), h), width))
            # All channels of some pixels before the next, while lines of the panel are in level 1.
            with k.loop(0, k.select(turned, width, 0), step=_CHUNK) as chunk:
                stop = k.minimum(k.add(chunk, _CHUNK), width)
                with square.along(Const(0, I64), shown, shown) as item:
                    line = k.add(row, k.mul(item, size.s_item))
                    with square.along(chunk, stop, width) as w:
                        square.turn(grad, k.add(line, w), size.s_item)
                        for j in range(lanes):
                            at = place(k.add(k.add(step, w), j))
                            square.store(j, target, k.add(at, item))
            with k.loop(k.select(turned, width, 0), width) as w:
                line, to = k.add(row, k.mul(w, strides[2])), place(k.add(step, w))
                with k.loop(0, shown) as item:
                    element = k.load(grad, k.add(line, k.mul(item, size.s_item)))
                    value = widen(k, element, dtype)
                    note.see(value, Const(0, I64))
                    k.store(target, k.add(to, item), value)
        note.put(noted, unit)
    return k.kernel


WEIGHT_SIZES = (
    *STRIP_SIZES,
    "x_group", "channels",  # of a group
    *names("pixels", "cut", "step", "origin", "reach", "taps", "tap"),
    "groups", "unit_channels", "channel_units",
    "depth", "splits", "run",  # steps of k; of a copy; one split, or one for each block
    "panels", "grad_group", "grad_panel",
    "sums_split", "sums_group", "sums_panel", "unit_rows",
    "swap", "in_place",  # 1 where the strip is the image itself
    "share", "share_table",
)  # fmt: skip


def conv_weight(tile: Tile, source: DType, lanes_apart: bool) -> Kernel:
    """The kernel. A unit is some channels of one group, for all of k or one block of it.

    Sums are (split, group, panel, row, column), where the rows are (channel, tap).

    Args:
        tile: rows are taps, columns output channels.
        source: dtype of the input and grad_out.
        lanes_apart: every lane is a group of its own with one channel (depthwise).
    """
    return _ConvWeight(tile, source, lanes_apart).kernel()


class _ConvWeight:
    def __init__(self, tile: Tile, source: DType, lanes_apart: bool) -> None:
        kind = "depthwise_weight" if lanes_apart else "weight"
        k = self.k = Builder(f"conv_{kind}_{source.short}_{tile.name}")
        self.tile, self.lanes_apart = tile, lanes_apart
        self.sums, self.grad = k.pointer("sums", tile.dtype), k.pointer("grad", tile.dtype)
        self.image, self.scratch = k.pointer("image", source), k.pointer("scratch", tile.dtype)
        self.table = k.pointer("table", I64)
        self.size = sizes(k, WEIGHT_SIZES)
        lanes = tile.lanes if lanes_apart else 0
        self.strip = Strip(k, self.size, self.image, self.scratch, lanes)

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.base = k.mul(THREAD, size.share)
        self.steps_at = k.mul(THREAD, size.share_table)  # place(pixel) for the steps of a run,
        self.items_at = k.add(self.steps_at, size.run)  # and place(tap) for the rows of the tile
        with k.loop(BEGIN, END) as unit:
            # All channels of a block before the next: its grad_out stays in a cache.
            part, rest = k.rem(unit, size.channel_units), k.div(unit, size.channel_units)
            split, group = k.rem(rest, size.splits), k.div(rest, size.splits)
            first = k.mul(part, size.unit_channels)
            channels = k.minimum(k.sub(size.channels, first), size.unit_channels)
            self.rows = self.items(channels)
            self.source = k.add(k.mul(group, size.x_group), k.mul(first, size.x_channel))
            self.copied = channels
            if self.lanes_apart:
                left = k.sub(size.groups, k.mul(group, self.tile.columns))
                self.copied = k.minimum(left, self.tile.columns)
            grad = k.mul(group, size.grad_group)
            to = k.add(k.mul(split, size.sums_split), k.mul(group, size.sums_group))
            to = k.add(to, k.mul(k.mul(part, size.unit_rows), self.tile.columns))
            whole = k.compare("eq", size.splits, 1)
            runs = k.maximum(ceil_div(k, size.depth, size.run), 1)
            begin = k.select(whole, 0, split)
            with k.loop(begin, k.select(whole, runs, k.add(split, 1))) as run:
                k0 = k.mul(run, size.run)
                length = k.minimum(k.sub(size.depth, k0), size.run)
                self.copy(k0, length)
                self.multiply(grad, to, k0, length, k.compare("eq", run, begin))
        return k.kernel

    def items(self, channels: Operand) -> Operand:
        """place(tap) for each row of the sums, the last one again to fill a tile; their number."""
        k, size = self.k, self.size
        taps = axes(size, "taps")
        strides = [k.mul(a, b) for a, b in zip(axes(size, "tap"), axes(size, "s"), strict=True)]
        count = volume(k, taps)
        with k.loop(0, channels) as c, nest(k, [Const(0, I64)] * 3, taps) as tap:
            number = k.add(k.mul(k.add(k.mul(tap[0], taps[1]), tap[1]), taps[2]), tap[2])
            place = k.add(k.mul(c, size.s_channel), dot(k, tap, strides))
            at = k.add(self.items_at, k.add(k.mul(c, count), number))
            k.store(self.table, at, place)
        rows = k.mul(channels, count)
        end = k.add(self.items_at, rows)
        last = k.load(self.table, k.sub(end, 1))
        for row in range(self.tile.rows - 1):
            k.store(self.table, k.add(end, row), last)
        return rows

    def copy(self, k0: Operand, length: Operand) -> None:
        """The strips of all images in the run, and place(pixel) for its steps."""
        k, size = self.k, self.size
        pixels = axes(size, "pixels")
        inner = [k.mul(pixels[1], pixels[2]), pixels[2], Const(1, I64)]
        count = volume(k, pixels)
        first, stop = k.div(k0, count), k.add(k0, length)
        with k.loop(first, ceil_div(k, stop, count)) as image:
            origin = k.mul(image, count)
            lo = k.maximum(k.sub(k0, origin), 0)
            hi = k.minimum(k.sub(stop, origin), count)
            begin, end, start, extent = [], [], [], []
            for a, cut in enumerate(axes(size, "cut")):
                is_cut = k.compare("ne", cut, 0)
                begin.append(k.select(is_cut, k.div(lo, inner[a]), 0))
                end.append(k.select(is_cut, ceil_div(k, hi, inner[a]), pixels[a]))
                step, reach = axes(size, "step")[a], axes(size, "reach")[a]
                start.append(k.add(k.mul(begin[a], step), axes(size, "origin")[a]))
                extent.append(k.add(k.mul(k.sub(k.sub(end[a], begin[a]), 1), step), reach))
            target = k.add(self.base, k.mul(k.sub(image, first), size.s_image))
            source = k.add(self.source, k.mul(image, size.x_image))
            in_place = k.compare("ne", size.in_place, 0)
            target = k.select(in_place, k.add(source, dot(k, start, axes(size, "x"))), target)
            images = k.select(in_place, 0, Const(1, I64))
            self.strip.copy(source, target, self.copied, images, start, extent, size.s_image)
            self.pixels(target, k.sub(origin, k0), length, begin, end, lo, hi)

    def pixels(
        self, target: Operand, origin: Operand, length: Operand, begin: Point, end: Point,
        lo: Operand, hi: Operand,
    ) -> None:  # fmt: skip
        """place(pixel) for the pixels ``lo..hi`` of one image, whose pixel 0 is step ``origin``."""
        k, size = self.k, self.size
        pixels = axes(size, "pixels")
        steps = [k.mul(a, b) for a, b in zip(axes(size, "step"), axes(size, "s"), strict=True)]
        with nest(k, begin, end) as point:
            number = k.add(k.mul(k.add(k.mul(point[0], pixels[1]), point[1]), pixels[2]), point[2])
            wanted = k.op("and", k.compare("ge", number, lo), k.compare("lt", number, hi))
            with k.when(wanted):
                away = [k.sub(p, b) for p, b in zip(point, begin, strict=True)]
                step = k.add(origin, number)
                other = k.op("xor", step, size.swap)
                at = k.select(k.compare("lt", other, length), other, step)
                place = k.add(target, dot(k, away, steps))
                k.store(self.table, k.add(self.steps_at, at), place)

    def multiply(
        self, grad: Operand, to: Operand, k0: Operand, length: Operand, first: Operand
    ) -> None:
        """One run of k for all rows and panels of the unit."""
        k, tile, size = self.k, self.tile, self.size
        with k.loop(0, size.panels) as panel:
            dense = k.add(grad, k.add(k.mul(panel, size.grad_panel), k.mul(k0, tile.columns)))
            sums = k.add(to, k.mul(panel, size.sums_panel))
            self.tiles(dense, sums, length, first)

    def tiles(self, dense: Operand, to: Operand, length: Operand, first: Operand) -> None:
        k, tile = self.k, self.tile
        chain = Chain(k, tile)
        with k.loop(0, k.maximum(length, 1), step=BLOCK) as block:
            end = k.minimum(k.add(block, BLOCK), length)
            starts = k.op("and", first, k.compare("eq", block, 0))
            line, steps = k.add(dense, k.mul(block, tile.columns)), k.add(self.steps_at, block)
            with k.loop(0, self.rows, step=tile.rows) as row:
                at = k.add(self.items_at, row)
                rows = [k.load(self.table, k.add(at, i)) for i in range(tile.rows)]
                chain.clear()
                chain.run(
                    self.scratch, rows, self.table, steps, self.grad, line, k.sub(end, block),
                    self.lanes_apart,
                )  # fmt: skip
                chain.add_to(self.sums, k.add(to, k.mul(row, tile.columns)), starts)


END_SIZES = (
    "splits", "sums_split", "sums_group", "sums_panel", "unit_rows", "panels", "parts",
    "part_items", "items", "columns", "lanes", "lanes_group", "lanes_panel",
    "out_group", "out_panel", "out_lane", "out_item",
)  # fmt: skip


def conv_weight_end(accumulator: DType, dtype: DType) -> Kernel:
    """Adds the splits in order and brings the sums into the order of the weight.

    A unit is one part of one panel of one group.
    """
    k = Builder(f"conv_weight_end_{dtype.short}_{accumulator.short}")
    out, sums = k.pointer("out", dtype), k.pointer("sums", accumulator)
    size = sizes(k, END_SIZES)
    columns = size.columns
    with k.loop(BEGIN, END) as unit:
        part, rest = k.rem(unit, size.parts), k.div(unit, size.parts)
        panel, group = k.rem(rest, size.panels), k.div(rest, size.panels)
        at = k.add(k.mul(group, size.sums_group), k.mul(panel, size.sums_panel))
        at = k.add(at, k.mul(k.mul(part, size.unit_rows), columns))
        first = k.mul(part, size.part_items)
        count = k.minimum(k.sub(size.items, first), size.part_items)
        elements = k.mul(count, columns)
        with k.loop(1, size.splits) as split:
            other = k.add(at, k.mul(split, size.sums_split))
            with k.loop(0, elements, kind="vector") as i:
                to = k.add(at, i)
                k.store(sums, to, k.add(k.load(sums, to), k.load(sums, k.add(other, i))))
        before = k.add(k.mul(group, size.lanes_group), k.mul(panel, size.lanes_panel))
        shown = k.minimum(k.sub(size.lanes, before), columns)
        to = k.add(k.mul(group, size.out_group), k.mul(panel, size.out_panel))
        to = k.add(to, k.mul(first, size.out_item))

        def lines(lane: Operand, width: int) -> None:
            rows = [k.add(to, k.mul(k.add(lane, j), size.out_lane)) for j in range(width)]
            with k.loop(0, count) as item:
                source = k.add(k.add(at, lane), k.mul(item, columns))
                for j, row in enumerate(rows):
                    value = k.load(sums, k.add(source, j))
                    k.store(out, k.add(row, k.mul(item, size.out_item)), k.convert(value, dtype))

        whole = k.mul(k.div(shown, _WORDS), _WORDS)
        with k.loop(0, whole, step=_WORDS) as lane:
            lines(lane, _WORDS)
        with k.loop(whole, shown) as lane:
            lines(lane, 1)
    return k.kernel
