"""What the kernels of convolution share: the strip of an image, and the packed dense factor.

A unit of work copies the part of the image that it needs into scratch memory, with the padding:
the *strip*. There the element for (pixel, tap) lies at place(pixel) + place(tap), so that the
register tile reads it in place: nothing is unfolded, an element is copied once and not for every
tap. One- and two-dimensional images are three-dimensional ones with axes of size 1.

**Absent terms.** A tap that falls on padding is no term at all, yet the strip holds a zero for it
and the tile multiplies by that. It gives the same bits where the other factor is finite: the
product is a zero, a chain that is not zero is not changed by adding one, a chain that is +0 or -0
becomes one of the two, and the sign of a zero is never seen (``contraction`` says why). Where the
other factor is infinite or NaN the product would be NaN. So packing notes which parts of the dense
factor are not finite, and ``conv_exact`` computes again what meets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.codegen.contraction import Tile, both, negate, widen
from treadle.ir.loop import I64, Builder, Const, Operand, Pointer

AXES = ("d", "h", "w")

Point = list[Operand]  # one number for each of AXES


def names(*stems: str) -> tuple[str, ...]:
    """``("size",)`` -> ``("size_d", "size_h", "size_w")``."""
    return tuple(f"{stem}_{axis}" for stem in stems for axis in AXES)


def axes(size: SimpleNamespace, stem: str) -> Point:
    """The three parameters that ``names(stem)`` declared."""
    return [getattr(size, f"{stem}_{axis}") for axis in AXES]


STRIP_SIZES = (
    "images", *names("size"),  # of the image
    "x_image", "x_channel", *names("x"),  # its strides
    "s_image", "s_channel", *names("s"),  # strides of the strip
    "clear",  # 1 where elements of the strip are not there
)  # fmt: skip


@contextmanager
def nest(k: Builder, low: Point, high: Point) -> Iterator[Point]:
    """Loops over all points of a box, the last axis innermost."""
    with ExitStack() as stack:
        pairs = zip(low, high, strict=True)
        yield [stack.enter_context(k.loop(lo, hi)) for lo, hi in pairs]


def dot(k: Builder, point: Point, strides: Point) -> Operand:
    """The sum of products of three numbers each."""
    d, h, w = (k.mul(p, s) for p, s in zip(point, strides, strict=True))
    return k.add(k.add(d, h), w)


def point_of(k: Builder, index: Operand, counts: Point) -> Point:
    """The point with row-major number ``index`` in a box of ``counts``."""
    plane = k.mul(counts[1], counts[2])
    rest = k.rem(index, plane)
    return [k.div(index, plane), k.div(rest, counts[2]), k.rem(rest, counts[2])]


def volume(k: Builder, counts: Point) -> Operand:
    """The product of three numbers."""
    return k.mul(k.mul(counts[0], counts[1]), counts[2])


class FiniteNote:
    """Notes whether all elements seen are finite; of integers, nothing."""

    def __init__(self, k: Builder, dtype: DType, lanes: int) -> None:
        self.k, self.dtype, self.lanes = k, dtype, lanes
        self.bits = dtypes.uint64 if dtype.bits == 64 else dtypes.uint32
        self.most = k.local(self.bits, lanes)

    def reset(self) -> None:
        """Nothing seen."""
        k = self.k
        with k.loop(0, self.lanes, kind="vector") as lane:
            k.store(self.most, lane, k.const(0, self.bits))

    def see(self, value: Operand, slot: Operand) -> None:
        """Keeps the largest magnitude of a slot, as bits: infinities and NaNs are the largest."""
        k = self.k
        if self.dtype.kind != "f":
            return
        magnitude = k.const((1 << (self.dtype.bits - 1)) - 1, self.bits)
        bits = k.op("and", k.bitcast(value, self.bits), magnitude)
        k.store(self.most, slot, k.maximum(k.load(self.most, slot), bits))

    def put(self, noted: Pointer, place: Operand) -> None:
        """NaN where one of them was not finite, else 0."""
        k, zero = self.k, self.k.const(0, self.dtype)
        if self.dtype.kind != "f":
            return
        for slot in range(1, self.lanes):
            most = k.maximum(k.load(self.most, 0), k.load(self.most, slot))
            k.store(self.most, 0, most)
        k.store(noted, place, k.mul(k.bitcast(k.load(self.most, 0), self.dtype), zero))


class Square:
    """Turns square blocks of ``dtype`` round: what lies in rows becomes lanes."""

    def __init__(
        self, k: Builder, dtype: DType, lanes: int, note: FiniteNote | None = None
    ) -> None:
        self.k, self.lanes, self.note = k, lanes, note
        self.block = k.local(dtype, lanes * lanes)

    def turn(self, source: Pointer, index: Operand, stride: Operand) -> None:
        """Column j becomes ``source[index + i * stride + j]`` for every i."""
        self.k.transpose(self.block, source, index, stride, self.lanes)

    def store(self, column: int, target: Pointer, place: Operand) -> None:
        """A column to where it lies together."""
        k = self.k
        with k.loop(0, self.lanes, kind="vector") as lane:
            element = k.load(self.block, k.add(lane, column * self.lanes))
            value = as_element(k, element, target.dtype)
            if self.note:
                self.note.see(value, lane)
            k.store(target, k.add(place, lane), value)

    def move(
        self, source: Pointer, index: Operand, stride: Operand, target: Pointer, place: Operand,
        step: Operand,
    ) -> None:  # fmt: skip
        """``target[place + j * step + i] = source[index + i * stride + j]``."""
        self.turn(source, index, stride)
        for column in range(self.lanes):
            self.store(column, target, self.k.add(place, self.k.mul(step, column)))

    def fits(self, rows: Operand, columns: Operand) -> Operand:
        """Whether a part of so many is covered by blocks, of which the last ones may overlap."""
        k = self.k
        return both(k, *(k.compare("ge", count, self.lanes) for count in (rows, columns)))

    @contextmanager
    def along(self, low: Operand, high: Operand, end: Operand) -> Iterator[Operand]:
        """Where blocks begin that cover low..high of what ends at ``end``."""
        k = self.k
        with k.loop(low, high, step=self.lanes) as i:
            yield k.minimum(i, k.sub(end, self.lanes))


def as_element(k: Builder, value: Operand, dtype: DType) -> Operand:
    """An element as a term of sums, or a sum as an element of the result."""
    return widen(k, value, dtype) if value.dtype.bits <= dtype.bits else k.convert(value, dtype)


class Strip:
    """Copies parts of ``image`` into ``scratch``, in the accumulator's dtype.

    ``lanes``: channels lie together in the strip, and in the image channels or elements of a row
    do, of which so many are turned round at a time; 0: elements of a row lie together in the strip.
    """

    def __init__(
        self, k: Builder, size: SimpleNamespace, image: Pointer, scratch: Pointer, lanes: int
    ) -> None:
        self.k, self.size, self.image, self.scratch = k, size, image, scratch
        self.lanes = lanes
        self.square = Square(k, image.dtype, lanes) if lanes else None

    def copy(
        self, source: Operand, target: Operand, channels: Operand, images: Operand,
        start: Point, extent: Point, elements: Operand,
    ) -> None:  # fmt: skip
        """Copies ``extent`` elements from the point ``start`` of the image, which may lie outside.

        Args:
            source, target: of the first channel and image, at the image's origin and at ``start``.
            elements: of the whole strip.
        """
        k, size = self.k, self.size
        with k.when(k.compare("ne", size.clear, 0)):
            end = k.add(target, elements)
            with k.loop(target, end, kind="vector") as i:
                k.store(self.scratch, i, k.const(0, self.scratch.dtype))
        low = [k.maximum(k.sub(0, s), 0) for s in start]
        high = [
            k.minimum(e, k.sub(n, s))
            for e, n, s in zip(extent, axes(size, "size"), start, strict=True)
        ]
        source = k.add(source, dot(k, start, axes(size, "x")))
        # Elements that do not count may lie before the image: their places are never read.
        with k.loop(0, images) as image:
            x = k.add(source, k.mul(image, size.x_image))
            s = k.add(target, k.mul(image, size.s_image))
            if self.square:
                self._channels(x, s, channels, low, high, self.square)
            else:
                self._rows(x, s, channels, low, high)

    def _rows(self, x: Operand, s: Operand, channels: Operand, low: Point, high: Point) -> None:
        """Elements of a row lie together in the strip; in the image they may, or not."""
        k, size = self.k, self.size
        near = k.compare("eq", size.x_w, 1)
        with k.loop(0, channels) as c, k.loop(low[0], high[0]) as d, k.loop(low[1], high[1]) as h:
            a = k.add(k.add(x, k.mul(c, size.x_channel)), self._line(d, h, "x"))
            b = k.add(k.add(s, k.mul(c, size.s_channel)), self._line(d, h, "s"))
            for wanted, step in ((near, Const(1, I64)), (negate(k, near), size.x_w)):
                with k.when(wanted), k.loop(low[2], high[2], kind="vector") as w:
                    self._move(k.add(a, k.mul(w, step)), k.add(b, w))

    def _channels(
        self, x: Operand, s: Operand, channels: Operand, low: Point, high: Point, square: Square
    ) -> None:
        """Channels lie together in the strip."""
        k, size = self.k, self.size
        near = k.compare("eq", size.x_channel, 1)
        turned = both(k, negate(k, near), k.compare("eq", size.x_w, 1))
        turned = both(k, turned, square.fits(channels, k.sub(high[2], low[2])))
        other = negate(k, k.op("or", near, turned))
        with k.loop(low[0], high[0]) as d, k.loop(low[1], high[1]) as h:
            a, b = k.add(x, self._line(d, h, "x")), k.add(s, self._line(d, h, "s"))
            count = k.select(turned, channels, 0)
            with square.along(Const(0, I64), count, channels) as c:
                corner = k.add(a, k.mul(c, size.x_channel))
                with square.along(low[2], high[2], high[2]) as w:
                    to = k.add(k.add(b, c), k.mul(w, size.s_w))
                    square.move(
                        self.image, k.add(corner, w), size.x_channel, self.scratch, to, size.s_w
                    )
            with k.when(near):
                self._across(a, b, low[2], high[2], channels, Const(1, I64))
            with k.when(other):
                self._across(a, b, low[2], high[2], channels, size.x_channel)

    def _across(
        self, a: Operand, b: Operand, low: Operand, high: Operand, channels: Operand, step: Operand
    ) -> None:
        """The channels of one element of a row after the other."""
        k, size = self.k, self.size
        with k.loop(low, high) as w:
            line, place = k.add(a, k.mul(w, size.x_w)), k.add(b, k.mul(w, size.s_w))
            with k.loop(0, channels, kind="vector") as c:
                self._move(k.add(line, k.mul(c, step)), k.add(place, c))

    def _line(self, d: Operand, h: Operand, side: str) -> Operand:
        k = self.k
        along_d, along_h, _ = axes(self.size, side)
        return k.add(k.mul(d, along_d), k.mul(h, along_h))

    def _move(self, source: Operand, target: Operand) -> None:
        k = self.k
        k.store(self.scratch, target, widen(k, k.load(self.image, source), self.scratch.dtype))


# the tile
class Chain:
    """The accumulators of a register tile, and the loop over a block of k."""

    def __init__(self, k: Builder, tile: Tile) -> None:
        self.k, self.tile = k, tile
        self.acc = k.local(tile.dtype, tile.rows * tile.columns)
        self.line = k.local(tile.dtype, tile.columns)

    def clear(self) -> None:
        """Starts a chain: +0."""
        k, zero = self.k, self.k.const(0, self.tile.dtype)
        self._each(lambda lane: k.store(self.acc, lane, zero))

    def add_to(self, pointer: Pointer, start: Operand, first: Operand) -> None:
        """Adds the block to the sum of those before it, or to 0."""
        k = self.k
        with k.when(first):
            self.put(pointer, start)
        with k.when(negate(k, first)):
            self._each(
                lambda lane: self._sum(
                    pointer, k.add(start, lane), k.load(pointer, k.add(start, lane)), lane
                )
            )

    def put(self, pointer: Pointer, start: Operand) -> None:
        """Stores 0 + the first block."""
        k, zero = self.k, self.k.const(0, self.tile.dtype)
        self._each(lambda lane: self._sum(pointer, k.add(start, lane), zero, lane))

    def _sum(self, pointer: Pointer, place: Operand, old: Operand, lane: Operand) -> None:
        self.k.store(pointer, place, self.k.add(old, self.k.load(self.acc, lane)))

    def _each(self, body: Callable[[Operand], None]) -> None:
        k, tile = self.k, self.tile
        for vector in range(tile.rows * tile.vectors):
            with k.loop(0, tile.lanes, kind="vector") as lane:
                body(k.add(lane, vector * tile.lanes))

    def run(
        self, image: Pointer, rows: Sequence[Operand], places: Pointer, at: Operand, dense: Pointer,
        line: Operand, count: Operand, lanes_apart: bool = False,
    ) -> None:  # fmt: skip
        """``acc[i, j] += image[rows[i] + places[at + t] (+ j)] * dense[line + t, j]``, t < count.

        With ``lanes_apart`` every lane has an element of the image of its own (depthwise).
        """
        k, tile = self.k, self.tile
        with k.loop(0, count) as t:
            place = k.load(places, k.add(at, t))
            start = k.add(line, k.mul(t, tile.columns))
            for vector in range(tile.vectors):
                with k.loop(0, tile.lanes, kind="vector") as lane:
                    j = k.add(lane, vector * tile.lanes)
                    k.store(self.line, j, k.load(dense, k.add(start, j)))
            # Row by row, so that one term is live.
            for row in range(tile.rows):
                here = k.add(rows[row], place)
                term = None if lanes_apart else k.load(image, here)
                for vector in range(tile.vectors):
                    with k.loop(0, tile.lanes, kind="vector") as lane:
                        j = k.add(lane, vector * tile.lanes)
                        own = k.load(image, k.add(here, j)) if term is None else term
                        self.add(own, k.load(self.line, j), k.add(j, row * tile.columns))

    def add(self, a: Operand, b: Operand, place: Operand) -> None:
        """``acc[place] += a * b``."""
        k, tile = self.k, self.tile
        old = k.load(self.acc, place)
        if tile.dtype.kind != "f":
            new = k.add(k.mul(a, b), old)
        else:
            new = k.fma(a, b, old)
            if tile.flush:
                tiny = k.compare("lt", k.op("abs", new), k.const(2.0**-126, dtypes.float32))
                new = k.select(tiny, k.const(0.0, dtypes.float32), new)
        k.store(self.acc, place, new)
