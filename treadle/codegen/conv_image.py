"""Kernels of convolutions whose result is an image: ``forward`` and the input gradient.

A pixel of the result is the sum over the taps of an element of the image times one of the weight.
The image is either the input or grad_out; which taps a pixel has, and where they lie, is worked
out once by ``conv_order``:

    x of forward       pixel * stride + tap * dilation - padding
    grad_out of input  (pixel + padding - tap * dilation) / stride, where that is whole

For the input gradient of a strided convolution the pixels fall into classes by their remainder
modulo the stride; within a class all pixels have the same taps, so every class is a dense
convolution of its own, whose launches write every ``stride``-th pixel.

Rows of the register tile are pixels, its vectors output channels. In the strip channels lie side by
side, whatever the layout of the image.
"""

from __future__ import annotations

from treadle.base.dtypes import DType
from treadle.codegen.contraction import Tile, both, ceil_div, sizes
from treadle.codegen.conv_strip import (
    STRIP_SIZES,
    Chain,
    Point,
    Square,
    Strip,
    axes,
    dot,
    names,
    nest,
    point_of,
    volume,
)
from treadle.codegen.hooks import Attached, Hooks, Indices, Line
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Const, Kernel, Operand

_PAIR = 1 << 32  # the table keeps two numbers in one: an image and a line, two steps of k

IMAGE_SIZES = (
    *STRIP_SIZES,
    "x_group", "channels",  # of a group
    *names("pixels", "box", "boxes"),  # of the result; of a unit; units along each axis
    "box_images", "image_groups", "panels", "unit_panels", "panel_units",
    *names("step", "origin", "reach"),
    "lines", "line_step", "line_terms",  # rows of taps, their distance, terms in each
    "depth", "blocks", "dense_group", "dense_panel",
    "lanes", "panel_lanes",  # channels of the result in a group; in a panel before the next
    "out_image", "out_group", "out_panel", "out_lane", *names("o"),
    "share", "share_sums", "share_table", "first",  # pixel of the result
)  # fmt: skip


def conv_image(tile: Tile, source: DType, hooks: Hooks) -> Kernel:
    """The kernel. A unit is a box of pixels of some images, in one group, for some panels.

    Args:
        tile: rows are pixels, columns output channels.
        source: dtype of the image and the result.
        hooks: on the result.
    """
    return _ConvImage(tile, source, hooks).kernel()


class _ConvImage:
    def __init__(self, tile: Tile, source: DType, hooks: Hooks) -> None:
        k = self.k = Builder(f"conv_image_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.dense = k.pointer("out", source), k.pointer("dense", tile.dtype)
        self.image = k.pointer("image", source)
        self.scratch, self.sums = k.pointer("scratch", tile.dtype), k.pointer("sums", tile.dtype)
        self.places, self.ends = k.pointer("places", I64), k.pointer("ends", I64)
        self.table = k.pointer("table", I64)
        self.hooks = Attached(k, hooks, source)
        self.size = sizes(k, IMAGE_SIZES)
        self.hooks.declare_sizes()
        self.columns = "unrolled" if self.hooks.is_short else "serial"  # of a square
        self.strip = Strip(k, self.size, self.image, self.scratch, tile.lanes)
        self.square = Square(k, tile.dtype, tile.lanes)

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.base = k.mul(THREAD, size.share)
        self.total = k.mul(THREAD, size.share_sums)
        self.rows_at = k.mul(THREAD, size.share_table)
        self.lines_away = k.div(size.share_table, 2)
        with k.loop(BEGIN, END) as unit:
            part, rest = k.rem(unit, size.panel_units), k.div(unit, size.panel_units)
            boxes = axes(size, "boxes")
            count = volume(k, boxes)
            box, rest = point_of(k, k.rem(rest, count), boxes), k.div(rest, count)
            first_image = k.mul(k.rem(rest, size.image_groups), size.box_images)
            group = k.div(rest, size.image_groups)
            images = k.minimum(k.sub(size.images, first_image), size.box_images)
            start = [k.mul(b, n) for b, n in zip(box, axes(size, "box"), strict=True)]
            extent = [
                k.minimum(n, k.sub(p, s))
                for n, p, s in zip(axes(size, "box"), axes(size, "pixels"), start, strict=True)
            ]
            first = k.mul(part, size.unit_panels)
            last = k.minimum(k.add(first, size.unit_panels), size.panels)
            self.top = k.add(k.mul(start[1], size.step_h), size.origin_h)
            self.pixels(images, extent)
            self.copy(group, first_image, images, start, extent)
            away = dot(k, start, axes(size, "o"))
            to = k.add(k.mul(first_image, size.out_image), k.mul(group, size.out_group))
            to = k.add(to, away)
            pixels = k.mul(images, volume(k, extent))
            with k.loop(first, last) as panel:
                at = k.add(k.mul(group, size.dense_group), k.mul(panel, size.dense_panel))
                self.multiply(at, pixels)
                lane = k.mul(panel, size.panel_lanes)
                shown = k.minimum(k.sub(size.lanes, lane), self.tile.columns)
                place = (
                    first_image, k.add(k.mul(group, size.lanes), lane), k.add(size.first, away)
                )  # fmt: skip
                self.write(k.add(to, k.mul(panel, size.out_panel)), place, images, extent, shown)
        return k.kernel

    def pixels(self, images: Operand, extent: Point) -> None:
        """place(pixel) for all pixels of the unit; the last one again to fill a tile."""
        k, size = self.k, self.size
        steps = [k.mul(a, b) for a, b in zip(axes(size, "step"), axes(size, "s"), strict=True)]
        zero = Const(0, I64)
        count = volume(k, extent)
        with k.loop(0, images) as image, nest(k, [zero] * 3, extent) as point:
            number = k.add(k.mul(k.add(k.mul(point[0], extent[1]), point[1]), extent[2]), point[2])
            place = k.add(k.mul(image, size.s_image), dot(k, point, steps))
            at = k.add(self.rows_at, k.add(k.mul(image, count), number))
            k.store(self.table, at, k.add(self.base, place))
            line = k.add(k.mul(image, _PAIR), k.mul(point[1], size.step_h))
            k.store(self.table, k.add(at, self.lines_away), line)
        end = k.add(self.rows_at, k.mul(images, count))
        last = k.load(self.table, k.sub(end, 1))
        for row in range(self.tile.rows - 1):
            k.store(self.table, k.add(end, row), last)
        # In the place of its first line, the terms that a tile may have: from and to.
        lines = k.add(self.rows_at, self.lines_away)
        pixels = k.mul(images, count)
        with k.loop(0, pixels, step=self.tile.rows) as pixel:
            low, high = self.present(pixel, k.minimum(k.add(pixel, self.tile.rows), pixels))
            k.store(self.table, k.add(lines, pixel), k.add(k.mul(high, _PAIR), low))

    def copy(
        self, group: Operand, first_image: Operand, images: Operand, start: Point, extent: Point,
    ) -> None:  # fmt: skip
        """The strip that these pixels read."""
        k, size = self.k, self.size
        steps, reaches = axes(size, "step"), axes(size, "reach")
        low, span = [], []
        for a in range(3):
            low.append(k.add(k.mul(start[a], steps[a]), axes(size, "origin")[a]))
            span.append(k.add(k.mul(k.sub(extent[a], 1), steps[a]), reaches[a]))
        source = k.add(k.mul(group, size.x_group), k.mul(first_image, size.x_image))
        self.strip.copy(source, self.base, size.channels, images, low, span, size.share)

    def multiply(self, dense: Operand, pixels: Operand) -> None:
        """One panel of weights for all pixels of the unit."""
        k, size, tile = self.k, self.size, self.tile
        chain = Chain(k, tile)
        with k.loop(0, size.blocks) as block:
            begin, end = k.load(self.ends, block), k.load(self.ends, k.add(block, 1))
            first = k.compare("eq", block, 0)
            with k.loop(0, pixels, step=tile.rows) as pixel:
                at = k.add(self.rows_at, pixel)
                rows = [k.load(self.table, k.add(at, row)) for row in range(tile.rows)]
                chain.clear()
                terms = k.load(self.table, k.add(at, self.lines_away))
                low, high = k.op("and", terms, _PAIR - 1), k.op("shr", terms, 32)
                low = k.minimum(k.maximum(low, begin), end)
                high = k.minimum(k.maximum(high, low), end)
                line = k.add(dense, k.mul(low, tile.columns))
                chain.run(self.scratch, rows, self.places, low, self.dense, line, k.sub(high, low))
                sums = k.add(self.total, k.mul(pixel, tile.columns))
                chain.add_to(self.sums, sums, first)

    def present(self, first: Operand, end: Operand) -> tuple[Operand, Operand]:
        """Terms outside of which no pixel of these has any: rows of taps beyond the image."""
        k, size = self.k, self.size
        lines = k.add(self.rows_at, self.lines_away)
        above = k.load(self.table, k.add(lines, first))
        below = k.load(self.table, k.sub(k.add(lines, end), 1))
        several = k.compare("ne", k.op("shr", above, 32), k.op("shr", below, 32))
        top, bottom = (k.add(self.top, k.op("and", n, _PAIR - 1)) for n in (above, below))
        distance = k.op("abs", size.line_step)
        low = ceil_div(k, k.sub(0, bottom), distance)
        high = k.minimum(ceil_div(k, k.sub(size.size_h, top), distance), size.lines)
        forward = k.compare("gt", size.line_step, 0)
        begin = k.select(forward, low, k.sub(size.lines, high))
        stop = k.select(forward, high, k.sub(size.lines, low))
        whole = k.op("or", several, k.compare("eq", size.line_step, 0))
        begin = k.select(whole, 0, k.mul(begin, size.line_terms))
        return begin, k.select(whole, size.depth, k.mul(stop, size.line_terms))

    def write(
        self, to: Operand, first: Indices, images: Operand, extent: Point, shown: Operand
    ) -> None:
        """Sums of a panel to the result, where channels lie apart; some channels at a time.

        ``first``: image, channel and pixel of the first.
        """
        k, size = self.k, self.size
        strides, columns = axes(size, "o"), self.tile.columns
        # Lines that follow one another in the result are one.
        joined = k.compare("eq", strides[1], k.mul(extent[2], strides[2]))
        height = k.select(joined, 1, extent[1])
        width = k.select(joined, k.mul(extent[1], extent[2]), extent[2])
        near = k.compare("eq", strides[2], 1)
        turned = both(k, near, self.square.fits(shown, width))
        with k.loop(0, images) as image, k.loop(0, extent[0]) as d, k.loop(0, height) as h:
            away = k.add(k.mul(d, strides[0]), k.mul(h, strides[1]))
            place = k.add(k.add(to, k.mul(image, size.out_image)), away)

            def put(at: Operand, total: Operand, line: Line, pixel: Operand) -> None:
                pixel = k.add(k.add(first[2], away), pixel)
                self.hooks.finish(self.out, at, total, self.out.dtype, line, pixel)

            def line_of(channel: Operand) -> Line:
                return self.hooks.line(k.add(first[0], image), k.add(first[1], channel))

            number = k.add(k.mul(k.add(k.mul(image, extent[0]), d), height), h)
            source = k.add(self.total, k.mul(k.mul(number, width), columns))
            count = k.select(turned, shown, 0)
            with self.square.along(Const(0, I64), count, shown) as lane:
                line = k.add(place, k.mul(lane, size.out_lane))
                with self.square.along(Const(0, I64), width, width) as w:
                    item = k.add(k.add(source, lane), k.mul(w, columns))
                    self.square.turn(self.sums, item, Const(columns, I64))
                    with k.loop(0, self.tile.lanes, kind=self.columns) as j:
                        start = k.add(k.add(line, w), k.mul(size.out_lane, j))
                        row = line_of(k.add(lane, j))
                        with k.loop(0, self.tile.lanes, kind="vector") as i:
                            place_of = k.add(i, k.mul(j, self.tile.lanes))
                            total = k.load(self.square.block, place_of)
                            put(k.add(start, i), total, row, k.add(w, i))
            with k.loop(0, k.select(turned, 0, width)) as w:
                pixel, item = k.add(place, k.mul(w, strides[2])), k.add(source, k.mul(w, columns))
                with k.loop(0, shown) as lane:
                    at = k.add(pixel, k.mul(lane, size.out_lane))
                    total = k.load(self.sums, k.add(item, lane))
                    put(at, total, line_of(lane), k.mul(w, strides[2]))
