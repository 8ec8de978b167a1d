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
from treadle.codegen.contraction import BLOCK, Tile, both, ceil_div, sizes, widen
from treadle.codegen.conv_strip import (
    STRIP_SIZES,
    WORDS,
    Chain,
    Point,
    Strip,
    axes,
    dot,
    names,
    nest,
    point_of,
    volume,
)
from treadle.ir.loop import BEGIN, BOOL, END, I64, THREAD, Builder, Const, Kernel, Operand

_CHUNK = 16  # channels
_IMAGE = 1 << 32  # what the images of a unit differ by in the list of lines
PART = 256  # steps of k for which a panel of weights stays in a level-1 cache

ORDER_SIZES = (
    *names("taps", "base", "distance", "spread", "low", "phases", "phase"),
    "channels", "s_channel", *names("s"),  # strides of the strip
    "w_channel", *names("w"),  # strides of the weight
    "depth", "swap",  # k; 1 where pairs of terms change places
)  # fmt: skip


def conv_order() -> Kernel:
    """Lists the terms of a pixel in the order in which they are added.

    ``places``: where the element lies in the strip, from that of the pixel; ``offsets``: where the
    factor lies in the weight; ``ends``: where the blocks of k end in these lists, after a 0.
    ``raw`` has room for twice the depth. Where the strip keeps every ``phases``-th element of an
    axis together, the next ones follow ``phase`` further on. One unit.
    """
    k = Builder("conv_order")
    places, offsets, ends, raw = (k.pointer(n, I64) for n in ("places", "offsets", "ends", "raw"))
    size = sizes(k, ORDER_SIZES)
    taps = axes(size, "taps")
    zero: Operand = Const(0, I64)
    with k.loop(BEGIN, END):
        with nest(k, [zero] * 3, taps) as tap:
            there: Operand = Const(True, BOOL)
            strip = weight = zero
            for a, axis in enumerate("dhw"):
                spread = getattr(size, f"spread_{axis}")
                reached = k.add(
                    getattr(size, f"base_{axis}"),
                    k.mul(tap[a], getattr(size, f"distance_{axis}")),
                )
                there = both(k, there, k.compare("eq", k.rem(reached, spread), 0))
                place = k.sub(k.div(reached, spread), getattr(size, f"low_{axis}"))
                phases, phase = getattr(size, f"phases_{axis}"), getattr(size, f"phase_{axis}")
                strip = k.add(strip, k.mul(k.div(place, phases), getattr(size, f"s_{axis}")))
                strip = k.add(strip, k.mul(k.rem(place, phases), phase))
                weight = k.add(weight, k.mul(tap[a], getattr(size, f"w_{axis}")))
            number = k.add(k.mul(k.add(k.mul(tap[0], taps[1]), tap[1]), taps[2]), tap[2])
            first = k.mul(number, size.channels)
            with k.loop(0, size.channels) as c:
                at = k.add(first, c)
                place = k.add(strip, k.mul(c, size.s_channel))
                k.store(raw, at, k.select(there, place, -1))
                k.store(raw, k.add(size.depth, at), k.add(weight, k.mul(c, size.w_channel)))
        count = k.local(I64, 1)
        k.store(count, 0, zero)
        k.store(ends, 0, zero)
        with k.loop(0, k.maximum(size.depth, 1), step=BLOCK) as start:
            length = k.minimum(k.sub(size.depth, start), BLOCK)
            with k.loop(0, length) as t:
                other = k.op("xor", t, size.swap)
                at = k.add(start, k.select(k.compare("lt", other, length), other, t))
                place = k.load(raw, at)
                with k.when(k.compare("ge", place, 0)):
                    to = k.load(count, 0)
                    k.store(places, to, place)
                    k.store(offsets, to, k.load(raw, k.add(size.depth, at)))
                    k.store(count, 0, k.add(to, 1))
            k.store(ends, k.add(k.div(start, BLOCK), 1), k.load(count, 0))
    return k.kernel


PACK_SIZES = (
    "items", "panels", "columns", "s_group", "s_item", "channels", "depth", "last",
)  # fmt: skip


def conv_pack(dtype: DType, source: DType) -> Kernel:
    """Packs the weight into panels (group, panel, depth, column) in the order of ``offsets``.

    The last panel is filled up with zeros, whose products are dropped. A unit is a panel.
    """
    k = Builder(f"conv_pack_{source.short}_{dtype.short}")
    target, weight = k.pointer("target", dtype), k.pointer("weight", source)
    offsets, ends = k.pointer("offsets", I64), k.pointer("ends", I64)
    size = sizes(k, PACK_SIZES)
    columns = size.columns
    zero = k.const(0, dtype)
    count = k.load(ends, size.last)
    with k.loop(BEGIN, END) as unit:
        panel = k.rem(unit, size.panels)
        first = k.mul(panel, columns)
        base = k.add(k.mul(k.div(unit, size.panels), size.s_group), k.mul(first, size.s_item))
        shown = k.minimum(k.sub(size.items, first), columns)
        to = k.mul(k.mul(unit, size.depth), columns)
        whole = k.mul(k.div(shown, WORDS), WORDS)

        def move(line: Operand, at: Operand) -> None:
            k.store(target, at, widen(k, k.load(weight, line), dtype))

        # Channels in chunks, each for all taps: taps lie together in the weight, and a line of it
        # is to be read before it leaves the level-1 cache.
        taps = ceil_div(k, count, size.channels)
        with k.loop(0, size.channels, step=_CHUNK) as chunk, k.loop(0, taps) as tap:
            start = k.add(k.mul(tap, size.channels), chunk)
            stop = k.minimum(k.add(chunk, _CHUNK), size.channels)
            stop = k.minimum(k.add(k.mul(tap, size.channels), stop), count)
            with k.loop(0, whole, step=WORDS) as item:
                lines = [k.add(base, k.mul(k.add(item, j), size.s_item)) for j in range(WORDS)]
                with k.loop(start, stop) as t:
                    offset = k.load(offsets, t)
                    at = k.add(k.add(to, k.mul(t, columns)), item)
                    for j, line in enumerate(lines):
                        move(k.add(line, offset), k.add(at, j))
            with k.loop(whole, shown) as item:
                line = k.add(base, k.mul(item, size.s_item))
                with k.loop(start, stop) as t:
                    at = k.add(k.add(to, k.mul(t, columns)), item)
                    move(k.add(line, k.load(offsets, t)), at)
        with k.loop(shown, columns) as item, k.loop(0, count) as t:
            k.store(target, k.add(k.add(to, k.mul(t, columns)), item), zero)
    return k.kernel


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
    "share", "share_sums", "share_table",
)  # fmt: skip


def conv_image(tile: Tile, source: DType) -> Kernel:
    """The kernel. A unit is a box of pixels of some images, in one group, for some panels.

    Args:
        tile: rows are pixels, columns output channels.
        source: dtype of the image and the result.
    """
    return _ConvImage(tile, source).kernel()


class _ConvImage:
    def __init__(self, tile: Tile, source: DType) -> None:
        k = self.k = Builder(f"conv_image_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.dense = k.pointer("out", source), k.pointer("dense", tile.dtype)
        self.image = k.pointer("image", source)
        self.scratch, self.sums = k.pointer("scratch", tile.dtype), k.pointer("sums", tile.dtype)
        self.places, self.ends = k.pointer("places", I64), k.pointer("ends", I64)
        self.table = k.pointer("table", I64)
        self.size = sizes(k, IMAGE_SIZES)
        self.strip = Strip(k, self.size, self.image, self.scratch, across=True)

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.base = k.mul(THREAD, size.share)
        self.total = k.mul(THREAD, size.share_sums)  # sums of blocks, then chains that go on
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
            self.pixels(images, extent)
            self.copy(group, first_image, images, start, extent)
            self.top = k.add(k.mul(start[1], size.step_h), size.origin_h)
            to = k.add(
                k.add(k.mul(first_image, size.out_image), k.mul(group, size.out_group)),
                dot(k, start, axes(size, "o")),
            )
            pixels = k.mul(images, volume(k, extent))
            with k.loop(first, last) as panel:
                at = k.add(k.mul(group, size.dense_group), k.mul(panel, size.dense_panel))
                self.multiply(at, pixels)
                shown = k.sub(size.lanes, k.mul(panel, size.panel_lanes))
                shown = k.minimum(shown, self.tile.columns)
                self.write(k.add(to, k.mul(panel, size.out_panel)), images, extent, shown)
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
            line = k.add(k.mul(image, _IMAGE), k.mul(point[1], size.step_h))
            k.store(self.table, k.add(at, self.lines_away), line)
        end = k.add(self.rows_at, k.mul(images, count))
        last = k.load(self.table, k.sub(end, 1))
        for row in range(self.tile.rows - 1):
            k.store(self.table, k.add(end, row), last)

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
        onward = k.add(self.total, k.div(size.share_sums, 2))
        with k.loop(0, size.blocks) as block:
            begin, end = k.load(self.ends, block), k.load(self.ends, k.add(block, 1))
            first = k.compare("eq", block, 0)
            # An empty block counts as one part: there must be a sum.
            with k.loop(begin, k.maximum(end, k.add(begin, 1)), step=PART) as part:
                count = k.minimum(k.sub(end, part), PART)
                goes_on = k.compare("gt", part, begin)
                is_last = k.compare("ge", k.add(part, PART), end)
                line = k.add(dense, k.mul(part, tile.columns))
                with k.loop(0, pixels, step=tile.rows) as pixel:
                    at = k.add(self.rows_at, pixel)
                    rows = [k.load(self.table, k.add(at, row)) for row in range(tile.rows)]
                    sums = k.mul(pixel, tile.columns)
                    chain.clear()
                    with k.when(goes_on):
                        chain.load(self.sums, k.add(onward, sums))
                    low, high = self.present(pixel, k.minimum(k.add(pixel, tile.rows), pixels))
                    low = k.minimum(k.maximum(k.sub(low, part), 0), count)
                    high = k.minimum(k.maximum(k.sub(high, part), low), count)
                    chain.run(
                        self.scratch, rows, self.places, k.add(part, low), self.dense,
                        k.add(line, k.mul(low, tile.columns)), k.sub(high, low),
                    )  # fmt: skip
                    with k.when(is_last):
                        chain.add_to(self.sums, k.add(self.total, sums), first)
                    with k.when(k.op("not", is_last)):
                        chain.store(self.sums, k.add(onward, sums))

    def present(self, first: Operand, end: Operand) -> tuple[Operand, Operand]:
        """Terms outside of which no pixel of these has any: rows of taps beyond the image."""
        k, size = self.k, self.size
        lines = k.add(self.rows_at, self.lines_away)
        above = k.load(self.table, k.add(lines, first))
        below = k.load(self.table, k.sub(k.add(lines, end), 1))
        several = k.compare("ne", k.op("shr", above, 32), k.op("shr", below, 32))
        top, bottom = (k.add(self.top, k.op("and", n, _IMAGE - 1)) for n in (above, below))
        distance = k.op("abs", size.line_step)
        low = ceil_div(k, k.sub(0, bottom), distance)
        high = k.minimum(ceil_div(k, k.sub(size.size_h, top), distance), size.lines)
        forward = k.compare("gt", size.line_step, 0)
        begin = k.select(forward, low, k.sub(size.lines, high))
        stop = k.select(forward, high, k.sub(size.lines, low))
        whole = k.op("or", several, k.compare("eq", size.line_step, 0))
        begin = k.select(whole, 0, k.mul(begin, size.line_terms))
        return begin, k.select(whole, size.depth, k.mul(stop, size.line_terms))

    def write(self, to: Operand, images: Operand, extent: Point, shown: Operand) -> None:
        """Sums of a panel to the result, where channels lie apart; some channels at a time."""
        k, size, columns = self.k, self.size, self.tile.columns
        strides = axes(size, "o")
        words = min(WORDS, columns)
        row = k.mul(extent[2], columns)
        with k.loop(0, images) as image:
            to_image = k.add(to, k.mul(image, size.out_image))
            sums = k.mul(k.mul(image, volume(k, extent)), columns)
            sums = k.add(self.total, sums)
            whole = k.mul(k.div(shown, words), words)
            with k.loop(0, whole, step=words) as lane:
                lines = [
                    k.add(to_image, k.mul(k.add(lane, j), size.out_lane)) for j in range(words)
                ]
                at = k.add(sums, lane)
                with k.loop(0, extent[0]) as d, k.loop(0, extent[1]) as h:
                    place = k.add(k.mul(d, strides[0]), k.mul(h, strides[1]))
                    here = [k.add(line, place) for line in lines]
                    source = k.add(at, k.mul(k.add(k.mul(d, extent[1]), h), row))
                    with k.loop(0, extent[2]) as w:
                        along, item = k.mul(w, strides[2]), k.add(source, k.mul(w, columns))
                        for j in range(words):
                            self._put(k.add(here[j], along), k.add(item, j))
            with k.loop(whole, shown) as lane, nest(k, [Const(0, I64)] * 3, extent) as point:
                line = k.add(to_image, k.mul(lane, size.out_lane))
                number = k.add(
                    k.mul(k.add(k.mul(point[0], extent[1]), point[1]), extent[2]), point[2]
                )
                item = k.add(k.add(sums, lane), k.mul(number, columns))
                self._put(k.add(line, dot(k, point, strides)), item)

    def _put(self, to: Operand, item: Operand) -> None:
        k = self.k
        k.store(self.out, to, k.convert(k.load(self.sums, item), self.out.dtype))
