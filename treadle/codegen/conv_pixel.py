"""Convolutions whose result is an image, with pixels in the lanes: few channels, or depthwise.

Rows of the register tile are output channels of a group, its vectors *slots*: as many pixels side
by side as a vector has lanes. In the strip the elements that pixels side by side read lie side by
side too: with a stride, each of its *phases* apart. For the input gradient of a strided depthwise
convolution the strip holds grad_out with ``gaps`` of absent elements: there are few taps to waste,
and the result is written in one go.
"""

from __future__ import annotations

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.codegen.contraction import Tile, both, ceil_div, negate, sizes, widen
from treadle.codegen.conv_strip import Chain, Point, axes, dot, names, nest, point_of, volume
from treadle.codegen.hooks import Attached, Hooks, Indices, Line
from treadle.ir.loop import BEGIN, BOOL, END, I64, THREAD, Builder, Const, Kernel, Operand

PIXEL_SIZES = (
    "x_image", "x_group", "x_channel", *names("x", "size"),  # of the image
    "channels", "groups",  # of a group
    *names("pixels", "box", "boxes"),  # of the result; of a unit; units along each axis
    *names("step", "origin", "phases", "extent"),  # extent: of a phase of the strip
    *names("gap"),  # distance of the image's elements in the strip
    "s_channel", *names("s", "phase"),  # strides inside a phase, and from one phase to the next
    "clear",  # 1 where units differ in what is not there
    "direct",  # 1 where sums of whole tiles go straight to the result
    "blocks", "depth", "items", "panels",  # items: output channels of a group
    "out_image", "out_channel", *names("o"),
    "share", "share_table", "first",  # pixel of the result
)  # fmt: skip


def conv_pixel(tile: Tile, source: DType, hooks: Hooks) -> Kernel:
    """The kernel. A unit is a box of pixels of one image, for all output channels of a group.

    ``places`` and ``ends`` are those of ``conv_order``, ``dense`` that of ``conv_pack``, with as
    many columns as ``tile`` has rows.
    """
    return _ConvPixel(tile, source, hooks).kernel()


class _Part(Record):
    """What a tile computes."""

    dense: Operand  # where its weights lie,
    to: Operand  # and its first output channel in the result
    slot: Operand  # the first one
    slots: Operand
    rows: Operand
    width: Operand  # pixels of a line
    first: Indices  # image, channel and pixel of the first


class _ConvPixel:
    def __init__(self, tile: Tile, source: DType, hooks: Hooks) -> None:
        k = self.k = Builder(f"conv_pixel_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.dense = k.pointer("out", source), k.pointer("dense", tile.dtype)
        self.image = k.pointer("image", source)
        self.scratch, self.sums = k.pointer("scratch", tile.dtype), k.pointer("sums", tile.dtype)
        self.places, self.ends = k.pointer("places", I64), k.pointer("ends", I64)
        self.table = k.pointer("table", I64)
        self.hooks = Attached(k, hooks, source)
        self.size = sizes(k, PIXEL_SIZES)
        self.hooks.declare_sizes()

    def kernel(self) -> Kernel:
        k, size, tile = self.k, self.size, self.tile
        self.base = k.mul(THREAD, size.share)
        self.total = k.mul(THREAD, tile.rows * tile.columns)
        self.slots_at = k.mul(THREAD, size.share_table)
        self.chain = Chain(k, tile)
        self.fill()
        self.slots()
        boxes = axes(size, "boxes")
        count = volume(k, boxes)
        with k.loop(BEGIN, END) as unit:
            rest = k.div(unit, count)
            box = point_of(k, k.rem(unit, count), boxes)
            group, image = k.rem(rest, size.groups), k.div(rest, size.groups)
            start = [k.mul(b, n) for b, n in zip(box, axes(size, "box"), strict=True)]
            extent = [
                k.minimum(n, k.sub(p, s))
                for n, p, s in zip(axes(size, "box"), axes(size, "pixels"), start, strict=True)
            ]
            with k.when(k.compare("ne", size.clear, 0)):
                self.fill()
            source = k.add(k.mul(image, size.x_image), k.mul(group, size.x_group))
            with k.loop(0, size.channels) as channel:
                to = k.add(self.base, k.mul(channel, size.s_channel))
                self.copy(k.add(source, k.mul(channel, size.x_channel)), to, start)
            first = k.mul(group, size.items)
            to = k.add(k.mul(image, size.out_image), k.mul(first, size.out_channel))
            away = dot(k, start, axes(size, "o"))
            to = k.add(to, away)
            slots = k.mul(k.mul(extent[0], extent[1]), ceil_div(k, extent[2], tile.lanes))
            # All panels of weights before the next pixels, which stay in a level-1 cache.
            with k.loop(0, slots, step=tile.vectors) as slot, k.loop(0, size.panels) as panel:
                number = k.add(k.mul(group, size.panels), panel)
                row = k.mul(panel, tile.rows)
                part = _Part(
                    k.mul(k.mul(number, size.depth), tile.rows),
                    k.add(to, k.mul(row, size.out_channel)),
                    slot,
                    k.minimum(k.sub(slots, slot), tile.vectors),
                    k.minimum(k.sub(size.items, row), tile.rows),
                    extent[2],
                    (image, k.add(first, row), k.add(size.first, away)),
                )
                self.multiply(part)
        return k.kernel

    def fill(self) -> None:
        """Zeros for what lies around the elements in the strip."""
        k = self.k
        with k.loop(self.base, k.add(self.base, self.size.share), kind="vector") as i:
            k.store(self.scratch, i, k.const(0, self.tile.dtype))

    def slots(self) -> None:
        """For each slot of a box its place in the strip, in the result, and its first column."""
        k, size, lanes = self.k, self.size, self.tile.lanes
        box, outs = axes(size, "box"), axes(size, "o")
        across = ceil_div(k, box[2], lanes)
        with nest(k, [Const(0, I64)] * 3, [box[0], box[1], across]) as point:
            number = k.add(k.mul(k.add(k.mul(point[0], box[1]), point[1]), across), point[2])
            # The last slot of a line computes some pixels again rather than having fewer.
            most = k.maximum(k.sub(box[2], lanes), 0)
            pixel = [point[0], point[1], k.minimum(k.mul(point[2], lanes), most)]
            at = k.add(self.slots_at, k.mul(number, 3))
            place = k.add(self.base, dot(k, pixel, axes(size, "s")))
            k.store(self.table, at, place)
            k.store(self.table, k.add(at, 1), dot(k, pixel, outs))
            k.store(self.table, k.add(at, 2), pixel[2])
        # Slots beyond the last, which fill a tile, read what there is in any case.
        end = k.add(self.slots_at, k.mul(k.mul(k.mul(box[0], box[1]), across), 3))
        for slot in range(self.tile.vectors - 1):
            k.store(self.table, k.add(end, 3 * slot), self.base)

    def copy(self, source: Operand, target: Operand, start: Point) -> None:
        """The elements of one channel into the strip, phase by phase."""
        k, size = self.k, self.size
        phases, xs, extents = axes(size, "phases"), axes(size, "x"), axes(size, "extent")
        gaps = axes(size, "gap")
        with nest(k, [Const(0, I64)] * 3, phases) as phase:
            begin, shift, low, high = [], [], [], []
            for a, origin in enumerate(axes(size, "origin")):
                first = k.add(k.add(origin, k.mul(start[a], axes(size, "step")[a])), phase[a])
                count, gap = axes(size, "size")[a], gaps[a]
                apart = k.compare("ne", gap, 1)
                begin.append(k.select(apart, 0, first))
                shift.append(k.select(apart, k.sub(0, first), 0))
                below = ceil_div(k, k.sub(0, first), phases[a])
                low.append(k.select(apart, ceil_div(k, first, gap), below))
                left = ceil_div(k, k.sub(count, first), phases[a])
                end = k.minimum(count, ceil_div(k, k.add(extents[a], first), gap))
                high.append(k.select(apart, end, k.minimum(left, extents[a])))
            x = k.add(source, dot(k, begin, xs))
            to = k.add(target, dot(k, phase, axes(size, "phase")))
            to = k.add(to, dot(k, shift, axes(size, "s")))
            steps = [k.mul(p, stride) for p, stride in zip(phases, xs, strict=True)]
            jumps = [k.mul(gap, stride) for gap, stride in zip(gaps, axes(size, "s"), strict=True)]
            # Strides that are often met are constants, for which there are better loads.
            dense = k.compare("eq", gaps[2], 1)
            one, two = (both(k, dense, k.compare("eq", steps[2], n)) for n in (1, 2))
            other = negate(k, k.op("or", one, two))
            with k.loop(low[0], high[0]) as d, k.loop(low[1], high[1]) as h:
                line = k.add(x, k.add(k.mul(d, steps[0]), k.mul(h, steps[1])))
                row = k.add(to, k.add(k.mul(d, jumps[0]), k.mul(h, jumps[1])))
                for wanted, step in ((one, 1), (two, 2)):
                    with k.when(wanted), k.loop(low[2], high[2], kind="vector") as w:
                        self.move(k.add(line, k.mul(w, step)), k.add(row, w))
                with k.when(other), k.loop(low[2], high[2], kind="vector") as w:
                    place = k.add(row, k.mul(w, jumps[2]))
                    self.move(k.add(line, k.mul(w, steps[2])), place)

    def move(self, source: Operand, target: Operand) -> None:
        k = self.k
        k.store(self.scratch, target, widen(k, k.load(self.image, source), self.tile.dtype))

    def multiply(self, part: _Part) -> None:
        """One tile of the result."""
        k, tile, size = self.k, self.tile, self.size
        at = k.add(self.slots_at, k.mul(part.slot, 3))
        starts = [k.load(self.table, k.add(at, 3 * v)) for v in range(tile.vectors)]
        direct: Operand = Const(self.hooks.is_short, BOOL)
        direct = both(k, direct, k.compare("eq", size.direct, 1))
        wanted = ((part.slots, tile.vectors), (part.rows, tile.rows), (part.width, size.box_w))
        for number, whole in wanted:
            direct = both(k, direct, k.compare("eq", number, whole))
        with k.loop(0, size.blocks) as block:
            self.chain.clear()
            with k.loop(k.load(self.ends, block), k.load(self.ends, k.add(block, 1))) as t:
                place = k.load(self.places, t)
                line = k.add(part.dense, k.mul(t, tile.rows))
                self.step([k.add(start, place) for start in starts], line)
            if self.hooks.is_short:
                with k.when(direct):
                    self.write_tile(part, at)
            with k.when(negate(k, direct)):
                self.chain.add_to(self.sums, self.total, k.compare("eq", block, 0))
        with k.when(negate(k, direct)):
            self.write(part)

    def write_tile(self, part: _Part, at: Operand) -> None:
        """The sums of one block, all of them, to the result."""
        k, tile, size = self.k, self.tile, self.size
        zero = k.const(0, tile.dtype)
        for vector in range(tile.vectors):
            away = k.load(self.table, k.add(at, 3 * vector + 1))
            place = k.add(part.to, away)
            for row in range(tile.rows):
                line = k.add(place, k.mul(size.out_channel, row))
                channel = self.channel(part, Const(row, I64))
                with k.loop(0, tile.lanes, kind="vector") as lane:
                    j = k.add(lane, row * tile.columns + vector * tile.lanes)
                    total = k.add(zero, k.load(self.chain.acc, j))
                    self.put(part, channel, k.add(away, lane), k.add(line, lane), total)

    def step(self, starts: list[Operand], line: Operand) -> None:
        """One step of k: the shorter side of the tile is live, of the longer one a single one."""
        k, tile = self.k, self.tile

        def term(row: int) -> Operand:
            return k.load(self.dense, k.add(line, row))

        def read(vector: int) -> None:
            with k.loop(0, tile.lanes, kind="vector") as lane:
                pixel = k.load(self.scratch, k.add(starts[vector], lane))
                k.store(self.chain.line, k.add(lane, vector * tile.lanes), pixel)

        def add(row: int, vector: int, factor: Operand) -> None:
            with k.loop(0, tile.lanes, kind="vector") as lane:
                j = k.add(lane, vector * tile.lanes)
                self.chain.add(factor, k.load(self.chain.line, j), k.add(j, row * tile.columns))

        if tile.rows < tile.vectors:
            terms = [term(row) for row in range(tile.rows)]
            for vector in range(tile.vectors):
                read(vector)
                for row in range(tile.rows):
                    add(row, vector, terms[row])
            return
        for vector in range(tile.vectors):
            read(vector)
        for row in range(tile.rows):
            factor = term(row)
            for vector in range(tile.vectors):
                add(row, vector, factor)

    def write(self, part: _Part) -> None:
        """The sums of a tile to the result, line by line."""
        k, size, tile = self.k, self.size, self.tile
        beside = k.compare("eq", size.o_w, 1)
        with k.loop(0, part.slots) as vector:
            at = k.add(self.slots_at, k.mul(k.add(part.slot, vector), 3))
            away = k.load(self.table, k.add(at, 1))
            place = k.add(part.to, away)
            count = k.minimum(k.sub(part.width, k.load(self.table, k.add(at, 2))), tile.lanes)
            whole = both(k, beside, k.compare("eq", count, tile.lanes))
            item = k.add(self.total, k.mul(vector, tile.lanes))
            with k.loop(0, part.rows) as row:
                line = k.add(place, k.mul(row, size.out_channel))
                source = k.add(item, k.mul(row, tile.columns))
                channel = self.channel(part, row)
                with k.when(whole), k.loop(0, tile.lanes, kind="vector") as lane:
                    total = k.load(self.sums, k.add(source, lane))
                    self.put(part, channel, k.add(away, lane), k.add(line, lane), total)
                with k.when(negate(k, whole)), k.loop(0, count) as lane:
                    step = k.mul(lane, size.o_w)
                    total = k.load(self.sums, k.add(source, lane))
                    self.put(part, channel, k.add(away, step), k.add(line, step), total)

    def channel(self, part: _Part, row: Operand) -> Line:
        image, channel, _ = part.first
        return self.hooks.line(image, self.k.add(channel, row))

    def put(self, part: _Part, channel: Line, pixel: Operand, to: Operand, total: Operand) -> None:
        """An element of the result; ``pixel`` counts from that of the part."""
        pixel = self.k.add(part.first[2], pixel)
        self.hooks.finish(self.out, to, total, self.out.dtype, channel, pixel)
