"""Convolution and its two gradients as loop IR: implicit GEMM over a strip of the image.

All three are sums over k of a term of one dense factor times an element of an image. A unit first
copies the strip of the image that it needs into scratch memory, padded with zeros; there the
element for (pixel, tap) lies at place(pixel) + place(tap), so that the register tile of the GEMM
reads it in place: nothing is unfolded, an element is copied once and not once for every tap.

==========  =============================  =======================  =====================
kind        rows of the tile               vectors of the tile      k
==========  =============================  =======================  =====================
forward     output channels (weights)      pixels (strip of input)  (kh, kw, cin)
input       input channels (weights)       pixels (grad_out)        (kh, kw, cout)
weight      taps (strip of input)          output channels          (n, oh, ow)
==========  =============================  =======================  =====================

**Absent terms.** A tap that falls on padding (or, in the input gradient, between the elements of a
strided grad_out) is no term at all, yet the strip holds a zero for it and the tile multiplies by
it. That gives the same bits where the other factor w is finite: the product is a zero, a chain
that is not zero is not changed by adding one, a chain that is +0 or -0 becomes one of the two, and
the sign of a zero is never seen (``contraction`` says why). Where w is infinite or NaN the product
would be NaN; so the dense factor of every block is scanned, and a block with such a value is
computed under a mask: the same tile, which keeps a chain as it was where the strip is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from treadle.base.dtypes import DType
from treadle.codegen.contraction import (
    BLOCK,
    UNIT_ROWS,
    Factor,
    Mask,
    Slot,
    Tile,
    add_tile,
    both,
    ceil_div,
    multiply,
    negate,
    sizes,
    tile_rows,
    widen,
)
from treadle.ir.loop import BEGIN, BOOL, END, I64, THREAD, Builder, Const, Kernel, Operand, Pointer

STRIP_SIZES = (
    "images", "height", "width",  # of the image
    "s_group", "s_image", "s_channel", "s_height", "s_width",  # its strides
    "pad_h", "pad_w",  # zeros before the first row and column; negative: rows left out
    "spread_h", "spread_w",  # distance of the image's rows and columns in the strip
    "columns", "row",  # columns of a strip's row; elements of one
    "channels", "plane",  # channels of a group; elements of one in the strip
    "share",  # elements of one thread's scratch memory
    "pixel_rows", "pixel_columns",  # of what slides over the image: pixels, and
    "taps_h", "taps_w",  # taps,
    "tap_h", "tap_w", "reach_h", "reach_w",  # the distance of taps, and of the last from the first
    "step_h", "step_w",  # the distance of pixels
    "check",  # 1 where a tap can be absent
)  # fmt: skip

IMAGE_SIZES = (
    *STRIP_SIZES,
    "m", "depth", "phases_h", "phases_w", "phase", "first_h", "first_w",
    "together", "slot_columns", "slot_step", "slot_pixels", "lane_stride",
    "strip_rows", "strips", "image_groups", "out_image", "out_row",
)  # fmt: skip

WEIGHT_SIZES = (
    *STRIP_SIZES,
    "m", "depth", "segment", "unit_channels", "channel_units", "splits", "span", "out_split",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Strip:
    """What one copy of rows of the image into scratch memory needs to know."""

    source: Pointer
    target: Pointer
    group: Operand  # where the group begins in the source
    phases_h: Operand
    phases_w: Operand
    phase: Operand  # elements of one phase of a plane
    together: Operand  # images interleaved in the strip

    def copy(
        self,
        k: Builder,
        size: SimpleNamespace,
        at: Operand,
        image: Operand,
        top: Operand,
        rows: Operand,
        channels: Operand,
        ones: Operand,
    ) -> None:
        """Copies padded rows ``top..top+rows`` of ``channels`` to ``at``; the rest is zero there.

        Row h goes to phase h % phases_h, and there to row h / phases_h; columns alike, so that
        the pixels of a strided convolution lie side by side. ``ones`` writes 1 for an element.
        """
        target = self.target
        one_w = k.compare("eq", size.spread_w, 1)
        near = both(k, one_w, k.compare("eq", self.phases_w, 1))
        near = both(k, near, k.compare("eq", self.together, 1))
        near = both(k, near, k.compare("eq", size.s_width, 1))
        with k.loop(0, self.phases_w) as phase_w:
            w0 = k.select(one_w, k.sub(phase_w, size.pad_w), 0)
            q0 = k.select(one_w, 0, size.pad_w)
            lo = k.maximum(
                ceil_div(k, k.sub(0, w0), self.phases_w), ceil_div(k, k.sub(0, q0), size.spread_w)
            )
            hi = k.minimum(
                ceil_div(k, k.sub(size.width, w0), self.phases_w),
                ceil_div(k, k.sub(size.columns, q0), size.spread_w),
            )
            with k.loop(0, self.together) as together, k.loop(0, rows) as h:
                n = k.add(image, together)
                spread = k.sub(k.add(top, h), size.pad_h)
                source_h = k.div(spread, size.spread_h)
                there = both(k, k.compare("lt", n, size.images), k.compare("ge", spread, 0))
                there = both(k, there, k.compare("lt", source_h, size.height))
                whole = k.compare("eq", k.mul(source_h, size.spread_h), spread)
                with k.when(both(k, there, whole)), k.loop(0, channels) as channel:
                    line = k.add(k.add(self.group, k.mul(n, size.s_image)),
                                 k.mul(channel, size.s_channel))  # fmt: skip
                    line = k.add(line, k.mul(source_h, size.s_height))
                    line = k.add(line, k.mul(w0, size.s_width))
                    phase = k.add(k.mul(k.rem(h, self.phases_h), self.phases_w), phase_w)
                    to = k.add(k.add(at, k.mul(channel, size.plane)), k.mul(phase, self.phase))
                    to = k.add(to, k.mul(k.div(h, self.phases_h), size.row))
                    to = k.add(k.add(to, together), k.mul(q0, self.together))
                    with k.when(near), k.loop(lo, hi, kind="vector") as i:
                        k.store(target, k.add(to, i), self._value(k, k.add(line, i), ones))
                    with k.when(negate(k, near)), k.loop(lo, hi) as i:
                        far = k.add(line, k.mul(k.mul(i, self.phases_w), size.s_width))
                        place = k.add(to, k.mul(k.mul(i, size.spread_w), self.together))
                        k.store(target, place, self._value(k, far, ones))

    def _value(self, k: Builder, place: Operand, ones: Operand) -> Operand:
        acc = self.target.dtype
        return k.select(ones, k.const(1, acc), widen(k, k.load(self.source, place), acc))


def _clear(k: Builder, target: Pointer, at: Operand, count: Operand) -> None:
    with k.loop(0, count, kind="vector") as i:
        k.store(target, k.add(at, i), k.const(0, target.dtype))


class _Guard:
    """Whether the dense factor holds a value that is not finite: x * 0 is NaN then, and adds up.

    Integers are always finite.
    """

    def __init__(self, k: Builder, tile: Tile) -> None:
        self.k = k
        self.dtype = tile.dtype
        self.needed = tile.dtype.kind == "f"
        self.width = 4 * tile.lanes
        self.sums = k.local(tile.dtype, self.width)

    def reset(self) -> None:
        """Starts a scan."""
        with self.k.loop(0, self.width, kind="vector") as j:
            self.k.store(self.sums, j, self.k.const(0, self.dtype))

    def scan(self, pointer: Pointer, start: Operand, count: Operand) -> None:
        """Looks at ``count`` elements."""
        k = self.k
        whole = k.mul(k.div(count, self.width), self.width)
        with k.loop(0, whole, step=self.width) as i, k.loop(0, self.width, kind="vector") as j:
            self._add(j, k.load(pointer, k.add(k.add(start, i), j)))
        with k.loop(whole, count) as i:
            self._add(Const(0, I64), k.load(pointer, k.add(start, i)))

    def _add(self, lane: Operand, value: Operand) -> None:
        k = self.k
        product = k.mul(value, k.const(0, self.dtype))
        k.store(self.sums, lane, k.add(k.load(self.sums, lane), product))

    def failed(self) -> Operand:
        """True where a value seen since ``reset`` was infinite or NaN."""
        if not self.needed:
            return Const(False, BOOL)
        k = self.k
        with k.loop(1, self.width) as j:
            k.store(self.sums, 0, k.add(k.load(self.sums, 0), k.load(self.sums, j)))
        total = k.load(self.sums, 0)
        return k.compare("ne", total, total)


def conv_image(tile: Tile, source: DType) -> Kernel:
    """The kernel of ``forward`` and ``input``: the result is an image.

    ``left`` is the weight packed as (groups, m, depth); ``scratch`` and ``table`` have a part for
    every thread. A unit is a strip of rows of one image (or of as many images as a vector has
    lanes) in one group.
    """
    return _ConvImage(tile, source).kernel()


class _ConvImage:
    def __init__(self, tile: Tile, source: DType) -> None:
        k = self.k = Builder(f"conv_image_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.left = k.pointer("out", tile.dtype), k.pointer("left", tile.dtype)
        self.image, self.scratch = k.pointer("image", source), k.pointer("scratch", tile.dtype)
        self.table = k.pointer("table", I64)
        self.size = sizes(k, IMAGE_SIZES)
        self.acc = k.local(tile.dtype, tile.rows * tile.columns)
        self.spill = k.local(tile.dtype, tile.rows * tile.columns)
        self.guard = _Guard(k, tile)

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.base = k.mul(THREAD, size.share)
        self.places = k.mul(THREAD, k.mul(size.depth, 2))
        self.mask_base = k.add(self.base, k.mul(size.channels, size.plane))
        self.offsets()
        with k.loop(BEGIN, END) as unit:
            strip, rest = k.rem(unit, size.strips), k.div(unit, size.strips)
            self.first_image = k.mul(k.rem(rest, size.image_groups), size.together)
            self.group = k.div(rest, size.image_groups)
            self.top = k.mul(strip, size.strip_rows)
            self.rows = k.minimum(size.strip_rows, k.sub(size.pixel_rows, self.top))
            left = k.mul(k.mul(self.group, size.m), size.depth)
            self.guard.reset()
            with k.when(k.compare("ne", size.check, 0)):
                self.guard.scan(self.left, left, k.mul(size.m, size.depth))
            self.masked = self.guard.failed()
            copies = k.select(self.masked, Const(2, I64), Const(1, I64))
            with k.loop(0, copies) as number:
                self.copy(k.compare("ne", number, 0))
            blocks = k.maximum(ceil_div(k, size.depth, BLOCK), 1)
            with k.loop(0, blocks) as block:
                self.block(block)
        return k.kernel

    def copy(self, ones: Operand) -> None:
        """The strip of the image, or the mask of what is there."""
        k, size = self.k, self.size
        at = k.select(ones, self.mask_base, self.base)
        channels = k.select(ones, Const(1, I64), size.channels)
        _clear(k, self.scratch, at, k.add(k.mul(channels, size.plane), self.tile.lanes))
        strip = _Strip(
            self.image, self.scratch, k.mul(self.group, size.s_group),
            size.phases_h, size.phases_w, size.phase, size.together,
        )  # fmt: skip
        top = k.mul(self.top, size.step_h)
        rows = k.add(k.mul(k.sub(self.rows, 1), size.step_h), size.reach_h)
        strip.copy(k, size, at, self.first_image, top, rows, channels, ones)

    def offsets(self) -> None:
        """For each k of the group, place(tap) in the strip, and behind them those in the mask."""
        k, size = self.k, self.size
        with k.loop(0, size.taps_h) as kh, k.loop(0, size.taps_w) as kw:
            h = k.add(size.first_h, k.mul(kh, size.tap_h))
            w = k.add(size.first_w, k.mul(kw, size.tap_w))
            phase = k.add(k.mul(k.rem(h, size.phases_h), size.phases_w), k.rem(w, size.phases_w))
            place = k.add(k.mul(phase, size.phase), k.mul(k.div(h, size.phases_h), size.row))
            place = k.add(place, k.mul(k.div(w, size.phases_w), size.together))
            at = k.mul(k.add(k.mul(kh, size.taps_w), kw), size.channels)
            at = k.add(self.places, at)
            with k.loop(0, size.channels) as channel:
                to = k.add(at, channel)
                k.store(self.table, to, k.add(place, k.mul(channel, size.plane)))
                k.store(self.table, k.add(to, size.depth), place)

    def block(self, block: Operand) -> None:
        """One block of k for all tiles of the unit."""
        k, tile, size = self.k, self.tile, self.size
        k0 = k.mul(block, BLOCK)
        depth = k.minimum(k.sub(size.depth, k0), BLOCK)
        left = k.add(k.mul(k.mul(self.group, size.m), size.depth), k0)
        first = k.compare("eq", block, 0)
        slots = k.mul(self.rows, size.slot_columns)
        # Some rows of the weight at a time, which stay in a level-2 cache, for all pixels.
        some = max(UNIT_ROWS // tile.rows, 1) * tile.rows
        with k.loop(0, size.m, step=some) as above, k.loop(0, slots, step=tile.vectors) as slot:
            columns, targets = self.slots(slot, slots)
            begin, end = self.present(slot, slots, k0, depth)
            at = k.add(self.places, k0)
            right = Factor(
                self.scratch,
                [k.add(self.base, column) for column in columns],
                lambda t: k.load(self.table, k.add(at, t)),
            )
            mask = Mask(
                self.scratch,
                None,
                [k.add(self.mask_base, column) for column in columns],
                lambda t: k.load(self.table, k.add(k.add(at, size.depth), t)),
            )
            with k.loop(above, k.minimum(k.add(above, some), size.m), step=tile.rows) as row:
                rows = tile_rows(k, tile, row, size.m, left, size.depth)
                factor = Factor(self.left, rows, lambda t: t)
                with k.when(negate(k, self.masked)):
                    multiply(k, tile, self.acc, factor, right, end, begin)
                if self.guard.needed:
                    with k.when(self.masked):
                        multiply(k, tile, self.acc, factor, right, end, begin, mask)
                down = k.mul(row, size.out_row)
                moved = [s._replace(offset=k.add(s.offset, down)) for s in targets]
                count = k.minimum(k.sub(size.m, row), tile.rows)
                add_tile(k, tile, self.acc, self.spill, self.out, moved, count, size.out_row, first)

    def slots(self, slot: Operand, slots: Operand) -> tuple[list[Operand], list[Slot]]:
        """For each vector of a tile, place(pixels) in the strip, and where its sums go."""
        k, size, lanes = self.k, self.size, self.tile.lanes
        columns, targets = [], []
        last = k.sub(slots, 1)
        base = k.add(
            k.mul(self.first_image, size.out_image),
            k.mul(k.mul(self.group, size.m), size.out_row),
        )
        alone = k.compare("eq", size.together, 1)
        for vector in range(self.tile.vectors):
            index = k.add(slot, vector)
            shown = k.minimum(index, last)
            row, column = k.div(shown, size.slot_columns), k.rem(shown, size.slot_columns)
            columns.append(k.add(k.mul(row, size.row), k.mul(column, size.slot_step)))
            pixel = k.mul(column, size.slot_pixels)
            at = k.add(k.mul(k.add(self.top, row), size.pixel_columns), pixel)
            pixels = k.sub(size.pixel_columns, pixel)
            count = k.select(alone, pixels, k.sub(size.images, self.first_image))
            count = k.select(k.compare("le", index, last), k.minimum(count, lanes), 0)
            targets.append(Slot(k.add(base, at), Const(0, I64), count, size.lane_stride))
        return columns, targets

    def present(
        self, slot: Operand, slots: Operand, k0: Operand, depth: Operand
    ) -> tuple[Operand, Operand]:
        """Steps of the block outside of which the tile has no term: kh beyond the image."""
        k, size = self.k, self.size
        last = k.minimum(k.add(slot, self.tile.vectors - 1), k.sub(slots, 1))
        origin = k.sub(size.first_h, size.pad_h)
        low, high = (
            k.add(k.mul(k.add(self.top, k.div(s, size.slot_columns)), size.step_h), origin)
            for s in (slot, last)
        )  # where the tap kh = 0 of the tile's first and last pixels lies in the spread image
        bottom = k.mul(k.sub(size.height, 1), size.spread_h)
        distance = k.op("abs", size.tap_h)
        backwards = k.compare("lt", size.tap_h, 0)
        before = k.select(backwards, k.sub(low, bottom), k.sub(0, high))
        reach = k.select(backwards, high, k.sub(bottom, low))
        end = k.minimum(ceil_div(k, k.add(reach, 1), distance), size.taps_h)
        begin = k.minimum(ceil_div(k, before, distance), end)
        width = k.mul(size.taps_w, size.channels)
        begin, end = (
            k.minimum(k.maximum(k.sub(k.mul(kh, width), k0), 0), depth) for kh in (begin, end)
        )
        if self.tile.flush:  # whole pairs: their other half is multiplied by a zero
            begin = k.mul(k.div(begin, 2), 2)
            end = k.minimum(k.mul(ceil_div(k, end, 2), 2), depth)
        return begin, end


def conv_weight(tile: Tile, source: DType) -> Kernel:
    """The kernel of ``weight``: rows of the tile are taps of a channel, vectors output channels.

    ``right`` is grad_out in panels (groups, panel, depth, column). A unit is some channels of one
    group over one split of k.
    """
    return _ConvWeight(tile, source).kernel()


class _ConvWeight:
    def __init__(self, tile: Tile, source: DType) -> None:
        k = self.k = Builder(f"conv_weight_{source.short}_{tile.name}")
        self.tile = tile
        self.out, self.right = k.pointer("out", tile.dtype), k.pointer("right", tile.dtype)
        self.image, self.scratch = k.pointer("image", source), k.pointer("scratch", tile.dtype)
        self.table = k.pointer("table", I64)
        self.size = sizes(k, WEIGHT_SIZES)
        self.acc = k.local(tile.dtype, tile.rows * tile.columns)
        self.spill = k.local(tile.dtype, tile.rows * tile.columns)
        self.guard = _Guard(k, tile)

    def kernel(self) -> Kernel:
        k, size = self.k, self.size
        self.base = k.mul(THREAD, size.share)
        self.mask_base = k.add(self.base, k.mul(size.unit_channels, size.plane))
        self.taps = k.mul(size.taps_h, size.taps_w)
        length = k.add(k.mul(k.mul(size.unit_channels, self.taps), 2), BLOCK)
        self.steps = k.mul(THREAD, length)  # in the table: place(pixel) for each k of a block,
        self.items = k.add(self.steps, BLOCK)  # then place(tap), then its place in the mask
        with k.loop(BEGIN, END) as unit:
            split, rest = k.rem(unit, size.splits), k.div(unit, size.splits)
            self.group = k.div(rest, size.channel_units)
            self.channel = k.mul(k.rem(rest, size.channel_units), size.unit_channels)
            self.channels = k.minimum(size.unit_channels, k.sub(size.channels, self.channel))
            self.count = k.mul(self.channels, self.taps)
            self.to = k.mul(split, size.out_split)
            self.offsets()
            blocks = k.maximum(ceil_div(k, size.depth, BLOCK), 1)
            start = k.mul(split, size.span)
            with k.loop(start, k.minimum(k.add(start, size.span), blocks)) as block:
                self.block(block, k.compare("eq", block, start))
        return k.kernel

    def offsets(self) -> None:
        """place(tap) in the strip for each row of the result, and behind them in the mask."""
        k, size = self.k, self.size
        with k.loop(0, self.channels) as channel, k.loop(0, size.taps_h) as kh:
            at = k.mul(k.add(k.mul(channel, size.taps_h), kh), size.taps_w)
            at = k.add(self.items, at)
            with k.loop(0, size.taps_w) as kw:
                place = k.add(k.mul(k.mul(kh, size.tap_h), size.row), k.mul(kw, size.tap_w))
                k.store(self.table, k.add(at, kw), k.add(place, k.mul(channel, size.plane)))
                k.store(self.table, k.add(k.add(at, kw), self.count), place)

    def copy(self, k0: Operand, depth: Operand, ones: Operand) -> None:
        """The rows of every image in the block, or the mask of what is there; place(pixel)."""
        k, size = self.k, self.size
        at = k.select(ones, self.mask_base, self.base)
        channels = k.select(ones, Const(1, I64), self.channels)
        group = k.add(k.mul(self.group, size.s_group), k.mul(self.channel, size.s_channel))
        one = Const(1, I64)
        strip = _Strip(self.image, self.scratch, group, one, one, Const(0, I64), one)
        _clear(k, self.scratch, at, k.mul(channels, size.plane))
        pixels = k.mul(size.pixel_rows, size.pixel_columns)
        first, stop = k.div(k0, pixels), k.add(k0, depth)
        with k.loop(first, ceil_div(k, stop, pixels)) as image:
            origin = k.mul(image, pixels)
            lo = k.maximum(k.sub(k0, origin), 0)
            hi = k.minimum(k.sub(stop, origin), pixels)
            top = k.div(lo, size.pixel_columns)
            end = ceil_div(k, hi, size.pixel_columns)
            part = k.mul(k.sub(image, first), size.segment)
            rows = k.add(k.mul(k.sub(k.sub(end, top), 1), size.step_h), size.reach_h)
            start = k.mul(top, size.step_h)
            strip.copy(k, size, k.add(at, part), image, start, rows, channels, ones)
            with k.when(negate(k, ones)):
                self.pixels(k.sub(origin, k0), part, top, end, lo, hi)

    def pixels(
        self, origin: Operand, part: Operand, top: Operand, end: Operand, lo: Operand, hi: Operand
    ) -> None:
        """place(pixel) for pixels ``lo..hi`` of one image, whose pixel 0 is step ``origin``."""
        k, size = self.k, self.size
        with k.loop(top, end) as row:
            across = k.mul(row, size.pixel_columns)
            begin = k.maximum(k.sub(lo, across), 0)
            stop = k.minimum(k.sub(hi, across), size.pixel_columns)
            line = k.add(part, k.mul(k.mul(k.sub(row, top), size.step_h), size.row))
            to = k.add(k.add(self.steps, origin), across)
            with k.loop(begin, stop) as column:
                place = k.add(line, k.mul(column, size.step_w))
                k.store(self.table, k.add(to, column), place)

    def block(self, block: Operand, first: Operand) -> None:
        """One block of k for all tiles of the unit."""
        k, tile, size = self.k, self.tile, self.size
        k0 = k.mul(block, BLOCK)
        depth = k.minimum(k.sub(size.depth, k0), BLOCK)
        panels = ceil_div(k, size.m, tile.columns)
        at = k.mul(k.mul(k.mul(self.group, panels), size.depth), tile.columns)
        self.guard.reset()
        scanned = k.select(k.compare("ne", size.check, 0), panels, Const(0, I64))
        with k.loop(0, scanned) as panel:
            start = k.mul(k.add(k.mul(panel, size.depth), k0), tile.columns)
            self.guard.scan(self.right, k.add(at, start), k.mul(depth, tile.columns))
        masked = self.guard.failed()
        copies = k.select(masked, Const(2, I64), Const(1, I64))
        with k.loop(0, copies) as number:
            self.copy(k0, depth, k.compare("ne", number, 0))
        items = k.mul(size.channels, self.taps)
        with k.loop(0, panels) as panel:
            at = k.add(k.mul(self.group, panels), panel)
            at = k.mul(k.add(k.mul(at, size.depth), k0), tile.columns)
            column = k.mul(panel, tile.columns)
            to = k.add(k.mul(self.group, size.m), column)
            to = k.add(k.add(self.to, k.mul(to, items)), k.mul(self.channel, self.taps))
            left = k.sub(size.m, column)
            slots = [
                Slot(
                    k.add(to, k.mul(items, v * tile.lanes)),
                    Const(0, I64),
                    k.maximum(k.minimum(k.sub(left, v * tile.lanes), tile.lanes), 0),
                    items,
                )
                for v in range(tile.vectors)
            ]
            places = [k.add(at, v * tile.lanes) for v in range(tile.vectors)]
            right = Factor(self.right, places, lambda t: k.mul(t, tile.columns))
            with k.loop(0, self.count, step=tile.rows) as row:
                self.tile_of(row, right, depth, masked)
                moved = [s._replace(offset=k.add(s.offset, row)) for s in slots]
                count = k.minimum(k.sub(self.count, row), tile.rows)
                add_tile(
                    k, tile, self.acc, self.spill, self.out, moved, count, Const(1, I64), first
                )

    def tile_of(self, row: Operand, right: Factor, depth: Operand, masked: Operand) -> None:
        """One tile, under the mask where it must be."""
        k, tile = self.k, self.tile
        last = k.sub(self.count, 1)
        items = [k.add(self.items, k.minimum(k.add(row, i), last)) for i in range(tile.rows)]
        rows = [k.add(self.base, k.load(self.table, item)) for item in items]
        left = Factor(self.scratch, rows, lambda t: k.load(self.table, k.add(self.steps, t)))
        with k.when(negate(k, masked)):
            multiply(k, tile, self.acc, left, right, depth)
        if self.guard.needed:
            with k.when(masked):
                places = [k.load(self.table, k.add(item, self.count)) for item in items]
                rows = [k.add(self.mask_base, place) for place in places]
                mask = Mask(self.scratch, rows, None, left.step)
                multiply(k, tile, self.acc, left, right, depth, mask=mask)
