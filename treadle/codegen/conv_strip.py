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
from treadle.codegen.contraction import Tile, negate, widen
from treadle.ir.loop import I64, Builder, Const, Operand, Pointer

AXES = ("d", "h", "w")
WORDS = 8  # channels copied side by side where a copy transposes

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


class Strip:
    """Copies parts of ``image`` into ``scratch``, in the accumulator's dtype.

    ``across``: channels lie together in the strip (in the image they may, or not); else the
    elements of a row do.
    """

    def __init__(
        self, k: Builder, size: SimpleNamespace, image: Pointer, scratch: Pointer, across: bool
    ) -> None:
        self.k, self.size, self.image, self.scratch = k, size, image, scratch
        self.across = across

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
            stride = size.x_channel if self.across else size.x_w
            near = k.compare("eq", stride, 1)
            with k.when(near):
                self._together(x, s, channels, low, high)
            with k.when(negate(k, near)):
                whole: Operand = Const(0, I64)
                if self.across:
                    whole = k.mul(k.div(channels, WORDS), WORDS)
                    self._transposed(x, s, whole, low, high)
                self._one_by_one(x, s, whole, channels, low, high)

    def _together(self, x: Operand, s: Operand, channels: Operand, low: Point, high: Point) -> None:
        """Both sides are contiguous along the same axis."""
        k, size = self.k, self.size
        xs, ss = axes(size, "x"), axes(size, "s")
        if self.across:
            with nest(k, low, high) as point:
                a, b = k.add(x, dot(k, point, xs)), k.add(s, dot(k, point, ss))
                with k.loop(0, channels, kind="vector") as c:
                    self._move(k.add(a, c), k.add(b, c))
            return
        with k.loop(0, channels) as c:
            a, b = k.add(x, k.mul(c, size.x_channel)), k.add(s, k.mul(c, size.s_channel))
            with k.loop(low[0], high[0]) as d, k.loop(low[1], high[1]) as h:
                a2 = k.add(k.add(a, k.mul(d, xs[0])), k.mul(h, xs[1]))
                b2 = k.add(k.add(b, k.mul(d, ss[0])), k.mul(h, ss[1]))
                with k.loop(low[2], high[2], kind="vector") as w:
                    self._move(k.add(a2, w), k.add(b2, w))

    def _transposed(self, x: Operand, s: Operand, whole: Operand, low: Point, high: Point) -> None:
        """Rows of several channels at a time, which become neighbours."""
        k, size = self.k, self.size
        xs, ss = axes(size, "x"), axes(size, "s")
        with k.loop(0, whole, step=WORDS) as c:
            rows = [k.add(x, k.mul(k.add(c, j), size.x_channel)) for j in range(WORDS)]
            to = k.add(s, c)
            with k.loop(low[0], high[0]) as d, k.loop(low[1], high[1]) as h:
                a = k.add(k.mul(d, xs[0]), k.mul(h, xs[1]))
                b = k.add(to, k.add(k.mul(d, ss[0]), k.mul(h, ss[1])))
                lines = [k.add(row, a) for row in rows]
                with k.loop(low[2], high[2]) as w:
                    at, place = k.mul(w, xs[2]), k.add(b, k.mul(w, ss[2]))
                    for j, line in enumerate(lines):
                        self._move(k.add(line, at), k.add(place, j))

    def _one_by_one(
        self, x: Operand, s: Operand, first: Operand, channels: Operand, low: Point, high: Point
    ) -> None:
        k, size = self.k, self.size
        with k.loop(first, channels) as c, nest(k, low, high) as point:
            a = k.add(k.add(x, k.mul(c, size.x_channel)), dot(k, point, axes(size, "x")))
            b = k.add(k.add(s, k.mul(c, size.s_channel)), dot(k, point, axes(size, "s")))
            self._move(a, b)

    def _move(self, source: Operand, target: Operand) -> None:
        k = self.k
        k.store(self.scratch, target, widen(k, k.load(self.image, source), self.scratch.dtype))


# the tile
class Chain:
    """The accumulators of a register tile, and the loop over a part of k."""

    def __init__(self, k: Builder, tile: Tile) -> None:
        self.k, self.tile = k, tile
        self.acc = k.local(tile.dtype, tile.rows * tile.columns)
        self.line = k.local(tile.dtype, tile.columns)

    def clear(self) -> None:
        """Starts a chain: +0."""
        k, zero = self.k, self.k.const(0, self.tile.dtype)
        self._each(lambda lane: k.store(self.acc, lane, zero))

    def load(self, pointer: Pointer, start: Operand) -> None:
        """Goes on with a chain that was stored."""
        k = self.k
        self._each(lambda lane: k.store(self.acc, lane, k.load(pointer, k.add(start, lane))))

    def store(self, pointer: Pointer, start: Operand) -> None:
        """Stores a chain that is to go on."""
        k = self.k
        self._each(lambda lane: k.store(pointer, k.add(start, lane), k.load(self.acc, lane)))

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
