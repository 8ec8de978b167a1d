"""The kernels behind ``topk``: the first k entries of a row, kept in order while it is read.

Whole blocks are passed over where even their smallest order is too large. Long rows are cut into
pieces, whose first k are then searched in the same way.
"""

from __future__ import annotations

from treadle.base import dtypes
from treadle.ir.loop import BEGIN, END, I64, Builder, Kernel, Operand
from treadle.ops.sort_kernels import (
    Entry,
    Results,
    Rows,
    entry_arrays,
    entry_of,
    is_less,
    load_entry,
    order_of,
    store_entry,
)

LARGEST_K = 64  # beyond it the row is sorted
_BLOCK = 64  # elements that are passed over at once


class _Best:
    """The first entries so far, in places 1..size in order, after one that is before all."""

    def __init__(self, k: Builder, size: int, packed: bool) -> None:
        self.k, self.size = k, size
        words = 1 if packed else 2
        self.places = [k.local(I64, size + 1) for _ in range(words)]
        self.moved = [k.local(I64, size) for _ in range(words)]
        ends = (-(1 << 63), (1 << 63) - 1)
        self.lowest, self.highest = ((k.const(end, I64),) * words for end in ends)

    def clear(self) -> None:
        """No entries yet."""
        k = self.k
        store_entry(k, self.places, 0, self.lowest)
        with k.loop(0, self.size, kind="vector") as i:
            store_entry(k, self.places, k.add(i, 1), self.highest)

    def offer(self, entry: Entry, last: Operand) -> None:
        """Puts an entry in its place if it is before the one in place ``last``."""
        k, places = self.k, self.places
        with k.when(is_less(k, entry, load_entry(k, places, last))):
            # All at once: an entry after the new one makes way for the one before it.
            with k.loop(0, self.size, kind="vector") as i:
                before, here = load_entry(k, places, i), load_entry(k, places, k.add(i, 1))
                pushed = is_less(k, entry, before)
                stays = is_less(k, here, entry)
                words = zip(before, here, entry, strict=True)
                chosen = tuple(k.select(pushed, b, k.select(stays, h, e)) for b, h, e in words)
                store_entry(k, self.moved, i, chosen)
            with k.loop(0, self.size, kind="vector") as i:
                store_entry(k, places, k.add(i, 1), load_entry(k, self.moved, i))


def first_kernel(
    short: str, descending: bool, packed: bool, is_last: bool, size: int, is_final: bool
) -> Kernel:
    """A unit is a piece of a row: its first entries, to the results or into a table."""
    dtype = dtypes.by_short(short)
    k = Builder(f"first_{size}_of_{short}_{'falling' if descending else 'rising'}")
    results = Results(k, dtype) if is_final else None
    x = results.x if results else k.pointer("x", dtype)
    table = [] if is_final else entry_arrays(k, packed)
    rows = Rows(k, is_last)
    pieces, length = k.size("pieces"), k.size("length")
    word = I64 if dtype.bits == 64 else dtypes.int32
    orders, tree = k.local(word, _BLOCK), k.local(word, _BLOCK)
    best = _Best(k, size, packed)
    shift = 32 if packed else 0

    with k.loop(BEGIN, END) as unit:
        row = k.div(unit, pieces)
        lo = k.mul(k.rem(unit, pieces), length)
        hi = k.minimum(k.add(lo, length), rows.n)
        source, target = rows.bases(row)
        best.clear()

        def order_at(i: Operand) -> Operand:
            at = k.add(source, k.mul(i, rows.inner))
            return order_of(k, k.load(x, at), descending)

        whole = k.add(lo, k.op("and", k.sub(hi, lo), -_BLOCK))
        with k.loop(lo, whole, _BLOCK) as first:
            with k.loop(0, _BLOCK, kind="vector") as lane:
                order = order_at(k.add(first, lane))
                k.store(orders, lane, order)
                k.store(tree, lane, order)
            half = _BLOCK // 2
            while half:
                with k.loop(0, half, kind="vector") as lane:
                    other = k.load(tree, k.add(lane, half))
                    k.store(tree, lane, k.minimum(k.load(tree, lane), other))
                half //= 2
            bound = k.op("shr", load_entry(k, best.places, rows.kept)[0], shift)
            worth = k.op("le", k.convert(k.load(tree, 0), I64), bound)
            with k.when(worth), k.loop(0, _BLOCK) as lane:
                order = k.load(orders, lane)
                best.offer(entry_of(k, order, k.add(first, lane), packed), rows.kept)
        with k.loop(whole, hi) as i:
            best.offer(entry_of(k, order_at(i), i, packed), rows.kept)
        with k.loop(0, rows.kept) as i:
            entry = load_entry(k, best.places, k.add(i, 1))
            if results:
                results.write(entry, k.add(target, k.mul(i, rows.inner)), source, rows.inner)
            else:
                store_entry(k, table, k.add(k.mul(unit, rows.kept), i), entry)
    return k.kernel


def first_of_pieces_kernel(short: str, packed: bool, is_last: bool, size: int) -> Kernel:
    """A unit is a row: the first of the entries that its pieces came down to."""
    k = Builder(f"first_{size}_of_pieces_{short}")
    results = Results(k, dtypes.by_short(short))
    table = entry_arrays(k, packed)
    rows = Rows(k, is_last)
    pieces = k.size("pieces")
    best = _Best(k, size, packed)
    with k.loop(BEGIN, END) as row:
        source, target = rows.bases(row)
        best.clear()
        count = k.mul(pieces, rows.kept)
        with k.loop(0, count) as i:
            best.offer(load_entry(k, table, k.add(k.mul(row, count), i)), rows.kept)
        with k.loop(0, rows.kept) as i:
            entry = load_entry(k, best.places, k.add(i, 1))
            results.write(entry, k.add(target, k.mul(i, rows.inner)), source, rows.inner)
    return k.kernel


__all__ = ["LARGEST_K", "first_kernel", "first_of_pieces_kernel"]
