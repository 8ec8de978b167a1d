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
)
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Const, Kernel, Operand, Pointer

STRIP_SIZES = (
    "images", "height", "width",  # of the image
    "s_group", "s_image", "s_channel", "s_height", "s_width",  # its strides
    "pad_h", "pad_w",  # zeros before the first row and column; negative: rows left out
    "spread_h", "spread_w",  # distance of the image's rows and columns in the strip
    "columns", "row",  # columns of a strip's row; elements of one
    "channels", "plane",  # channels of a group; elements of one in the strip
    "scratch",  # elements of one thread's scratch memory
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
        *,
        ones: bool = False,
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

    def _value(self, k: Builder, place: Operand, ones: bool) -> Operand:
        if ones:
            return k.const(1, self.target.dtype)
        return widen(k, k.load(self.source, place), self.target.dtype)


def _clear(k: Builder, target: Pointer, at: Operand, count: Operand) -> None:
    with k.loop(0, count, kind="vector") as i:
        k.store(target, k.add(at, i), k.const(0, target.dtype))


class _Finite:
    """Scans a factor for values that are not finite: x * 0 is NaN for those, and adds up."""

    def __init__(self, k: Builder, tile: Tile) -> None:
        self.k = k
        self.dtype = tile.dtype
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
        total = self.k.load(self.sums, 0)
        for j in range(1, self.width):
            total = self.k.add(total, self.k.load(self.sums, j))
        return self.k.compare("ne", total, total)
