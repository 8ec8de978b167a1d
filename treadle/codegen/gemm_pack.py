"""Packing inside the GEMM kernel: a block of an operand, copied so that a tile reads it in order.

All copies go into ``[panel][k][width]``, where a panel is ``width`` items side by side, except that
a left operand whose k is contiguous keeps its rows (``copy_rows``): plain copies are quickest.
Reading an element applies the prologue and widens; for bfloat16 it also notes the smallest exponent
seen, which tells whether a subnormal can arise at all (``Least``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from treadle.base import dtypes
from treadle.base.record import Record
from treadle.codegen.contraction import BLOCK, ceil_div, in_pairs
from treadle.ir.loop import I64, Builder, Const, Operand, Pointer

# How a kernel reads an operand: where it lies, or packed from one whose items, whose k or neither
# are contiguous.
Access = Literal["direct", "items", "depth", "any"]

ROW = BLOCK + 16  # elements between the rows of ``copy_rows``: not a power of two, for the caches
_LINES = 8  # steps of k copied together across all panels
_U32 = dtypes.uint32
_SUM_OF_EXPONENTS = 142  # of the smallest factors (biased): products are multiples of 2**-126


class Least:
    """The smallest nonzero magnitude seen, as bits minus one, for each of ``slots``."""

    def __init__(self, k: Builder, slots: int) -> None:
        self._k, self._slots = k, slots
        self._bits = k.local(_U32, slots)

    def reset(self) -> None:
        """Nothing seen."""
        with self._k.loop(0, self._slots, kind="vector") as slot:
            self._k.store(self._bits, slot, self._k.const(0xFFFFFFFF, _U32))

    def see(self, value: Operand, slot: Operand) -> None:
        """Notes an f32; zero counts as larger than everything."""
        k = self._k
        bits = k.op("and", k.bitcast(value, _U32), k.const(0x7FFFFFFF, _U32))
        bits = k.sub(bits, k.const(1, _U32))
        k.store(self._bits, slot, k.minimum(k.load(self._bits, slot), bits))

    def exponent(self) -> Operand:
        """The smallest biased exponent of all slots, or one less."""
        k, least = self._k, self._k.local(_U32, 1)
        k.store(least, 0, k.const(0xFFFFFFFF, _U32))
        with k.loop(0, self._slots) as slot:
            k.store(least, 0, k.minimum(k.load(least, 0), k.load(self._bits, slot)))
        return k.op("shr", k.load(least, 0), k.const(23, _U32))


def never_subnormal(k: Builder, left: Operand, right: Operand) -> Operand:
    """Whether sums of products are multiples of 2**-126, by the smallest exponents of factors.

    Factors have 8 significant bits, so products are multiples of 2**(e + f - 268) for biased
    exponents e and f; so are their sums, and rounding only makes multiples coarser.
    """
    return k.compare("ge", k.add(left, right), k.const(_SUM_OF_EXPONENTS, _U32))


class Source(Record):
    """A block of an operand: element (item, t) is at base + item * item_stride + t * step.

    ``read(value, item, t, slot)`` turns an element into a term of the sums; ``slot`` is the place
    of the element in its vector.
    """

    pointer: Pointer
    base: Operand
    item: Operand
    step: Operand
    read: Callable[[Operand, Operand, Operand, Operand], Operand]

    def at(self, k: Builder, item: Operand, t: Operand) -> Operand:
        """The index of an element."""
        return k.add(k.add(self.base, k.mul(item, self.item)), k.mul(t, self.step))

    def element(self, k: Builder, item: Operand, t: Operand, slot: Operand) -> Operand:
        """The term."""
        return self.read(k.load(self.pointer, self.at(k, item, t)), item, t, slot)


class Target(Record):
    """Panels of ``width`` from ``start`` on, each of ``depth`` steps.

    With ``last``, no panel starts after this item, if it is not negative: a panel that would go
    beyond the last item then ends with it. With ``swapped``, the steps of a pair change places.
    """

    pointer: Pointer
    start: Operand
    width: int
    depth: Operand
    last: Operand | None = None
    swapped: bool = False

    def panels(self, k: Builder, count: Operand) -> Operand:
        """How many panels ``count`` items fill."""
        full = k.div(count, self.width)
        if self.last is None:
            return full
        return k.select(k.compare("ge", self.last, 0), ceil_div(k, count, self.width), full)

    def item(self, k: Builder, lo: Operand, panel: Operand) -> Operand:
        """Where a panel starts."""
        item = k.add(lo, k.mul(panel, self.width))
        return item if self.last is None else k.minimum(item, self.last)

    def place(self, k: Builder, t: Operand) -> Operand:
        """Where a step lies."""
        return in_pairs(k, t, self.depth) if self.swapped else t


def pack(
    k: Builder, access: Access, target: Target, source: Source, lo: Operand, hi: Operand, lanes: int
) -> None:
    """Packs the items lo..hi; a last panel that they do not fill is filled up with zeros."""
    if access == "items":
        _pack_items(k, target, source, lo, hi)
    elif access == "depth":
        _pack_depth(k, target, source, lo, hi, lanes)
    else:
        _pack_any(k, target, source, lo, lo, hi)


def _pack_items(k: Builder, target: Target, source: Source, lo: Operand, hi: Operand) -> None:
    """Items are contiguous: few steps of k at a time, so that lines of the source are read on."""
    width, panel_size = target.width, k.mul(target.depth, target.width)
    panels = target.panels(k, k.sub(hi, lo))
    with k.loop(0, target.depth, step=_LINES) as t0:
        t1 = k.minimum(k.add(t0, _LINES), target.depth)
        with k.loop(0, panels) as panel:
            item = target.item(k, lo, panel)
            start = k.add(target.start, k.mul(panel, panel_size))
            near = source._replace(item=Const(1, I64))
            with k.loop(t0, t1) as t:
                to = k.add(start, k.mul(target.place(k, t), width))
                line = near.at(k, item, t)
                with k.loop(0, width, kind="vector") as j:
                    value = k.load(source.pointer, k.add(line, j))
                    term = source.read(value, k.add(item, j), t, j)
                    k.store(target.pointer, k.add(to, j), term)
    _pack_any(k, target, source, lo, k.add(lo, k.mul(panels, width)), hi)


def _pack_depth(
    k: Builder, target: Target, source: Source, lo: Operand, hi: Operand, lanes: int
) -> None:
    """k is contiguous: square blocks are transposed in registers."""
    block = k.local(source.pointer.dtype, lanes * lanes)
    panels = target.panels(k, k.sub(hi, lo))
    whole = k.mul(k.div(target.depth, lanes), lanes)
    near = source._replace(step=Const(1, I64))
    panel_size = k.mul(target.depth, target.width)
    with k.loop(0, panels) as panel, k.loop(0, target.width, step=lanes) as column:
        item = k.add(target.item(k, lo, panel), column)
        start = k.add(k.add(target.start, k.mul(panel, panel_size)), column)
        with k.loop(0, whole, step=lanes) as t0:
            k.transpose(block, source.pointer, near.at(k, item, t0), source.item, lanes)
            for step in range(lanes):
                t = k.add(t0, step)
                place = k.add(t0, step ^ 1 if target.swapped else step)
                to = k.add(start, k.mul(place, target.width))
                with k.loop(0, lanes, kind="vector") as lane:
                    value = k.load(block, k.add(lane, step * lanes))
                    term = source.read(value, k.add(item, lane), t, lane)
                    k.store(target.pointer, k.add(to, lane), term)
        with k.loop(whole, target.depth) as t, k.loop(0, lanes) as lane:
            to = k.add(k.add(start, k.mul(target.place(k, t), target.width)), lane)
            k.store(target.pointer, to, near.element(k, k.add(item, lane), t, Const(0, I64)))
    _pack_any(k, target, source, lo, k.add(lo, k.mul(panels, target.width)), hi)


def _pack_any(
    k: Builder, target: Target, source: Source, origin: Operand, lo: Operand, hi: Operand
) -> None:
    """Element by element; panels are counted from the item ``origin``."""
    width, zero = target.width, k.const(0, target.pointer.dtype)
    length = k.sub(hi, origin)
    end = k.mul(k.div(k.add(length, width - 1), width), width)  # of the last panel
    panel_size = k.mul(target.depth, width)
    with k.loop(k.sub(lo, origin), end) as i:
        start = k.add(target.start, k.mul(k.div(i, width), panel_size))
        start = k.add(start, k.rem(i, width))
        there = k.compare("lt", i, length)
        with k.when(there), k.loop(0, target.depth) as t:
            term = source.element(k, k.add(origin, i), t, Const(0, I64))
            k.store(target.pointer, k.add(start, k.mul(target.place(k, t), width)), term)
        with k.when(k.op("not", there)), k.loop(0, target.depth) as t:
            k.store(target.pointer, k.add(start, k.mul(t, width)), zero)


def copy_rows(
    k: Builder, target: Target, source: Source, lo: Operand, hi: Operand, lanes: int
) -> None:
    """Items lo..hi with k contiguous, to rows ``ROW`` apart; the target's width has no meaning."""
    near = source._replace(step=Const(1, I64))
    whole = k.mul(k.div(target.depth, lanes), lanes)
    terms, swapped = (k.local(target.pointer.dtype, lanes) for _ in range(2))
    with k.loop(lo, hi) as item:
        line = near.at(k, item, Const(0, I64))
        to = k.add(target.start, k.mul(k.sub(item, lo), ROW))
        with k.loop(0, whole, step=lanes) as t0:
            with k.loop(0, lanes, kind="vector") as lane:
                t = k.add(t0, lane)
                term = source.read(k.load(source.pointer, k.add(line, t)), item, t, lane)
                k.store(terms, lane, term)
            if target.swapped:  # constant places: this becomes one shuffle
                for place in range(lanes):
                    k.store(swapped, place, k.load(terms, place ^ 1))
            with k.loop(0, lanes, kind="vector") as lane:
                term = k.load(swapped if target.swapped else terms, lane)
                k.store(target.pointer, k.add(k.add(to, t0), lane), term)
        with k.loop(whole, target.depth) as t:
            term = near.element(k, item, t, Const(0, I64))
            k.store(target.pointer, k.add(to, target.place(k, t)), term)
