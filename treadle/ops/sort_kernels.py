"""The kernels behind ``sort.py``: rows sorted by radix or by counting.

An element's *order* is an integer that sorts as the element does: NaN above all numbers, 0 and -0
alike, everything reversed for a descending sort. An *entry* is the order with the element's
position, so entries are distinct and their order, whatever way it is found, is the stable one.
Entries of up to 32 bits are one word, order * 2^32 + position; others are two.

``radix_kernel``   a row by its digits of 8 bits, the lowest first; digits that are all the same
                   are skipped. For one long row each digit takes three launches: the blocks'
                   histograms, the places where their digits go, and the move.
``count_kernel``   a short row: an entry's place is the number of entries below it.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Kernel, Operand, Pointer
from treadle.ops.scan_kernels import divmod_

DIGIT_BITS = 8
DIGITS = 1 << DIGIT_BITS
COUNTED = 64  # the longest row that is sorted by counting
U64 = dtypes.uint64
Entry = tuple[Operand, ...]


# --- orders and entries ---------------------------------------------------------------------------


def order_of(k: Builder, x: Operand, descending: bool) -> Operand:
    """The order of an element, in i32 (i64 for 64-bit dtypes)."""
    dtype = x.dtype
    word = I64 if dtype.bits == 64 else dtypes.int32
    if dtype.kind == "f":
        same = {16: dtypes.int16, 32: dtypes.int32, 64: I64}[dtype.bits]
        bits = k.convert(k.bitcast(x, same), word)
        is_zero = k.op("eq", x, k.const(0.0, dtype))
        bits = k.select(is_zero, k.const(0, word), bits)
        # Negative numbers in reverse: all bits but the sign inverted.
        largest = (1 << (dtype.bits - 1)) - 1
        order = k.op("xor", bits, k.op("and", k.op("shr", bits, word.bits - 1), largest))
        order = k.select(k.op("ne", x, x), k.const(largest, word), order)
    elif dtype.kind == "u" and dtype.bits == word.bits:
        order = k.op("xor", k.bitcast(x, word), -(1 << (dtype.bits - 1)))
    else:
        order = k.convert(x, word)
        if dtype.kind == "u":
            order = k.sub(order, 1 << (dtype.bits - 1))
    return k.op("not", order) if descending else order


def is_packed(dtype: DType, n: int) -> bool:
    """Whether an entry is one word."""
    return dtype.bits <= 32 and n < (1 << 32) - 1


def entry_of(k: Builder, order: Operand, position: Operand, packed: bool) -> Entry:
    """An entry: i64 words that compare one after the other."""
    wide = k.convert(order, I64)
    if not packed:
        return wide, position
    return (k.op("or", k.op("shl", wide, 32), position),)


def is_less(k: Builder, a: Entry, b: Entry) -> Operand:
    """Whether entry ``a`` comes before ``b``."""
    first = k.op("lt", a[0], b[0])
    if len(a) == 1:
        return first
    return k.op("or", first, k.op("and", k.op("eq", a[0], b[0]), k.op("lt", a[1], b[1])))


def position_of(k: Builder, entry: Entry) -> Operand:
    """The position that an entry holds."""
    return entry[-1] if len(entry) == 2 else k.op("and", entry[0], (1 << 32) - 1)


def digit_of(k: Builder, entry: Entry, dtype: DType, number: int) -> Operand:
    """Digit ``number`` of an entry's order, the lowest being 0; the sign bit counts as inverted."""
    bits = dtype.bits
    low = number * DIGIT_BITS + (32 if len(entry) == 1 else 0)
    word = k.bitcast(entry[0], U64)
    digit = k.op("and", k.op("shr", word, low), DIGITS - 1)
    if (number + 1) * DIGIT_BITS == bits:
        digit = k.op("xor", digit, DIGITS // 2)
    return k.bitcast(digit, I64)


class Rows:
    """The rows of a kernel: where one begins in the input and in the results."""

    def __init__(self, k: Builder, is_last: bool) -> None:
        self.k = k
        self.n, self.kept = k.size("n"), k.size("kept")
        self.inner: Operand = k.const(1, I64) if is_last else k.size("inner")

    def bases(self, row: Operand) -> tuple[Operand, Operand]:
        """Of the input and of the results."""
        k = self.k
        around, column = divmod_(k, row, self.inner)
        line = k.mul(around, self.inner)
        return k.add(k.mul(line, self.n), column), k.add(k.mul(line, self.kept), column)


class Results:
    """Where the results go, and the elements they come from."""

    def __init__(self, k: Builder, dtype: DType) -> None:
        self.k = k
        self.values, self.indices = k.pointer("values", dtype), k.pointer("indices", I64)
        self.x = k.pointer("x", dtype)

    def write(self, entry: Entry, at: Operand, source: Operand, inner: Operand) -> None:
        """The element of an entry, in a row that begins at ``source``, and where it was."""
        k, position = self.k, position_of(self.k, entry)
        k.store(self.values, at, k.load(self.x, k.add(source, k.mul(position, inner))))
        k.store(self.indices, at, position)


def load_entry(k: Builder, places: Sequence[Pointer], at: Operand | int) -> Entry:
    """The entry at an index."""
    return tuple(k.load(place, at) for place in places)


def store_entry(k: Builder, places: Sequence[Pointer], at: Operand | int, entry: Entry) -> None:
    """Writes the entry at an index."""
    for place, word in zip(places, entry, strict=True):
        k.store(place, at, word)


def entry_arrays(k: Builder, packed: bool) -> list[Pointer]:
    """Parameters: arrays of entries."""
    return [k.pointer(f"e{i}", I64) for i in range(1 if packed else 2)]


# --- rows by radix --------------------------------------------------------------------------------


def _starts(k: Builder, counts: Pointer, first: int) -> None:
    """The counts of all digits from ``counts[first]`` on become the places they start at."""
    total = k.local(I64, 1)
    k.store(total, 0, k.const(0, I64))
    with k.loop(first, first + DIGITS) as d:
        count, start = k.load(counts, d), k.load(total, 0)
        k.store(counts, d, start)
        k.store(total, 0, k.add(start, count))


def radix_kernel(short: str, descending: bool, packed: bool, is_last: bool) -> Kernel:
    """A unit is a row. Its entries move between two arrays, of which every thread has its own."""
    dtype = dtypes.by_short(short)
    k = Builder(f"sort_{short}_{'falling' if descending else 'rising'}")
    results, entries = Results(k, dtype), entry_arrays(k, packed)
    rows, x = Rows(k, is_last), results.x
    passes = dtype.bits // DIGIT_BITS
    counts, from_ = k.local(I64, passes * DIGITS), k.local(I64, 1)
    own = k.mul(THREAD, k.mul(rows.n, 2))
    with k.loop(BEGIN, END) as row:
        source, target = rows.bases(row)
        with k.loop(0, passes * DIGITS, kind="vector") as i:
            k.store(counts, i, k.const(0, I64))
        with k.loop(0, rows.n) as i:
            at = k.add(source, k.mul(i, rows.inner))
            entry = entry_of(k, order_of(k, k.load(x, at), descending), i, packed)
            store_entry(k, entries, k.add(own, i), entry)
            for number in range(passes):
                d = k.add(digit_of(k, entry, dtype, number), number * DIGITS)
                k.store(counts, d, k.add(k.load(counts, d), 1))
        k.store(from_, 0, k.const(0, I64))
        for number in range(passes):
            here = k.add(own, k.load(from_, 0))
            there = k.sub(k.add(own, rows.n), k.load(from_, 0))
            d = k.add(digit_of(k, load_entry(k, entries, here), dtype, number), number * DIGITS)
            with k.when(k.op("ne", k.load(counts, d), rows.n)):
                _starts(k, counts, number * DIGITS)
                with k.loop(0, rows.n) as i:
                    entry = load_entry(k, entries, k.add(here, i))
                    d = k.add(digit_of(k, entry, dtype, number), number * DIGITS)
                    place = k.load(counts, d)
                    store_entry(k, entries, k.add(there, place), entry)
                    k.store(counts, d, k.add(place, 1))
                k.store(from_, 0, k.sub(rows.n, k.load(from_, 0)))
        here = k.add(own, k.load(from_, 0))
        with k.loop(0, rows.kept) as i:
            entry = load_entry(k, entries, k.add(here, i))
            results.write(entry, k.add(target, k.mul(i, rows.inner)), source, rows.inner)
    return k.kernel


def count_kernel(short: str, descending: bool, packed: bool, is_last: bool) -> Kernel:
    """A unit is a row of at most ``COUNTED`` elements."""
    dtype = dtypes.by_short(short)
    k = Builder(f"sort_short_{short}_{'falling' if descending else 'rising'}")
    results = Results(k, dtype)
    rows, x = Rows(k, is_last), results.x
    entries = [k.local(I64, COUNTED) for _ in range(1 if packed else 2)]
    places = k.local(I64, COUNTED)
    with k.loop(BEGIN, END) as row:
        source, target = rows.bases(row)
        with k.loop(0, rows.n, kind="vector") as i:
            at = k.add(source, k.mul(i, rows.inner))
            order = order_of(k, k.load(x, at), descending)
            store_entry(k, entries, i, entry_of(k, order, i, packed))
        with k.loop(0, rows.n, kind="vector") as i:
            k.store(places, i, k.const(0, I64))
            own = load_entry(k, entries, i)
            with k.loop(0, rows.n) as j:
                below = k.convert(is_less(k, load_entry(k, entries, j), own), I64)
                k.store(places, i, k.add(k.load(places, i), below))
        with k.loop(0, rows.n) as i:
            place = k.load(places, i)
            with k.when(k.op("lt", place, rows.kept)):
                at = k.add(target, k.mul(place, rows.inner))
                results.write(load_entry(k, entries, i), at, source, rows.inner)
    return k.kernel


# --- one long row by radix ------------------------------------------------------------------------
#
# ``state[0]`` is where in the arrays the entries begin, ``state[1]`` where they begin after this
# pass: in the other half, or where they were if all have the same digit.


class _Source:
    """What a pass reads: the elements themselves the first time, then entries."""

    def __init__(
        self, k: Builder, dtype: DType, descending: bool, packed: bool, is_first: bool
    ) -> None:
        self.k, self.descending = k, descending
        self.packed, self.is_first = packed, is_first
        self.table, self.state = k.pointer("table", I64), k.pointer("state", I64)
        self.entries, self.x = entry_arrays(k, packed), k.pointer("x", dtype)
        self.n, self.inner, self.blocks = k.size("n"), k.size("inner"), k.size("blocks")

    def bounds(self, block: Operand) -> tuple[Operand, Operand]:
        """The first element of a block, and the first one after it."""
        k = self.k
        size = k.div(k.add(self.n, k.sub(self.blocks, 1)), self.blocks)
        return k.mul(block, size), k.minimum(k.mul(k.add(block, 1), size), self.n)

    def base(self) -> Operand:
        """Where the entries begin."""
        return self.k.const(0, I64) if self.is_first else self.k.load(self.state, 0)

    def load(self, base: Operand, i: Operand) -> Entry:
        """Entry ``i``."""
        k = self.k
        if not self.is_first:
            return load_entry(k, self.entries, k.add(base, i))
        order = order_of(k, k.load(self.x, k.mul(i, self.inner)), self.descending)
        return entry_of(k, order, i, self.packed)


def histogram_kernel(
    short: str, descending: bool, packed: bool, number: int, is_first: bool
) -> Kernel:
    """A unit is a block: how often each digit occurs in it."""
    dtype = dtypes.by_short(short)
    k = Builder(f"sort_histogram_{short}_{number}")
    source = _Source(k, dtype, descending, packed, is_first)
    counts = k.local(I64, DIGITS)
    base = source.base()
    with k.loop(BEGIN, END) as block:
        with k.loop(0, DIGITS, kind="vector") as d:
            k.store(counts, d, k.const(0, I64))
        lo, hi = source.bounds(block)
        with k.loop(lo, hi) as i:
            digit = digit_of(k, source.load(base, i), dtype, number)
            k.store(counts, digit, k.add(k.load(counts, digit), 1))
        with k.loop(0, DIGITS, kind="vector") as d:
            k.store(source.table, k.add(k.mul(block, DIGITS), d), k.load(counts, d))
    return k.kernel


def places_kernel(is_first: bool) -> Kernel:
    """One unit: the histograms of all blocks become the places that their digits go to."""
    k = Builder(f"sort_places_{'first' if is_first else 'later'}")
    table, state = k.pointer("table", I64), k.pointer("state", I64)
    n, blocks = k.size("n"), k.size("blocks")
    total, following = k.local(I64, 1), k.local(I64, 1)
    with k.loop(BEGIN, END):
        k.store(total, 0, k.const(0, I64))
        k.store(following, 0, k.const(0, I64) if is_first else k.sub(n, k.load(state, 0)))
        with k.loop(0, DIGITS) as d:
            before = k.load(total, 0)
            with k.loop(0, blocks) as block:
                at = k.add(k.mul(block, DIGITS), d)
                count, start = k.load(table, at), k.load(total, 0)
                k.store(table, at, start)
                k.store(total, 0, k.add(start, count))
            if not is_first:
                with k.when(k.op("eq", k.sub(k.load(total, 0), before), n)):
                    k.store(following, 0, k.load(state, 0))
        k.store(state, 1, k.load(following, 0))
    return k.kernel


def move_kernel(short: str, descending: bool, packed: bool, number: int, is_first: bool) -> Kernel:
    """A unit is a block: its entries go where the digits say."""
    dtype = dtypes.by_short(short)
    k = Builder(f"sort_move_{short}_{number}")
    source = _Source(k, dtype, descending, packed, is_first)
    places = k.local(I64, DIGITS)
    base, target = source.base(), k.load(source.state, 1)
    moves = k.const(True, dtypes.bool_) if is_first else k.op("ne", base, target)
    with k.when(moves), k.loop(BEGIN, END) as block:
        with k.loop(0, DIGITS, kind="vector") as d:
            k.store(places, d, k.load(source.table, k.add(k.mul(block, DIGITS), d)))
        lo, hi = source.bounds(block)
        with k.loop(lo, hi) as i:
            entry = source.load(base, i)
            digit = digit_of(k, entry, dtype, number)
            place = k.load(places, digit)
            store_entry(k, source.entries, k.add(target, place), entry)
            k.store(places, digit, k.add(place, 1))
    return k.kernel


def deal_kernel(short: str, packed: bool) -> Kernel:
    """A unit is an entry in its place: the element and its position go to the results."""
    dtype = dtypes.by_short(short)
    k = Builder(f"sort_deal_{short}")
    results = Results(k, dtype)
    state, entries = k.pointer("state", I64), entry_arrays(k, packed)
    inner = k.size("inner")
    base, zero = k.load(state, 0), k.const(0, I64)
    with k.loop(BEGIN, END) as i:
        entry = load_entry(k, entries, k.add(base, i))
        results.write(entry, k.mul(i, inner), zero, inner)
    return k.kernel


__all__ = [
    "COUNTED", "DIGITS", "DIGIT_BITS", "Entry", "Results", "Rows", "count_kernel", "deal_kernel",
    "entry_arrays", "entry_of", "histogram_kernel", "is_less", "is_packed", "load_entry",
    "move_kernel", "order_of", "places_kernel", "radix_kernel", "store_entry",
]  # fmt: skip
