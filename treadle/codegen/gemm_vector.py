"""Products with few rows or columns: every element of the large operand is read just once.

The large operand is the *right* one, n items of depth k; the *left* one has few items. As
a * b = b * a either operand of a matmul can play either part. What lies side by side in memory
decides what the lanes of a vector are, never the order of a sum:

    stream   items are contiguous: lanes are items; a few steps of k at a time are added to chains
             that lie in the nearest cache
    matvec   k is contiguous: lanes are items; square blocks are transposed in registers
    outer    k is hardly more than 1: each row of the result is written in one go
    dot      few items and a long k: lanes are blocks of k, transposed likewise
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.codegen.contraction import (
    BLOCK,
    Tile,
    both,
    ceil_div,
    in_pairs,
    multiply_add,
    negate,
    sizes,
    widen,
)
from treadle.codegen.hooks import Attached, Hooks
from treadle.ir.loop import BEGIN, END, I64, Builder, Const, Kernel, Operand, Pointer

OUTER = 8  # depths up to which ``outer`` is made
CHAINS = 2048  # chains of a unit that ``stream`` keeps in the nearest cache
SIZES = (
    "m", "n", "depth",
    "left_batch", "left_item", "left_step",
    "right_batch", "right_item", "right_step",
    "out_batch", "out_left", "out_right", "out_split",
    "columns",  # items of the right operand in a unit
    "row_units", "column_units", "splits",
    "span",  # blocks of k in a split
)  # fmt: skip


class VectorKey(Record):
    """What a kernel is made for; ``tile`` is (rows of the left operand at a time, vectors)."""

    tile: Tile
    dtype: DType  # of the contraction
    a: DType  # of the operands as they are read
    b: DType
    result: DType  # of what is stored
    swapped: bool  # the left operand is b, the right one a
    near: bool  # items of the right operand are neighbours in the result
    dense: bool  # k of the left operand is contiguous
    partial: bool  # what is stored are parts of sums, for ``combine``
    hooks: Hooks


def stream(key: VectorKey) -> Kernel:
    """Items are contiguous. A unit is a few rows against at most ``CHAINS / rows`` columns."""
    return _Stream("stream", key).build()


def matvec(key: VectorKey) -> Kernel:
    """k is contiguous. A unit is a few rows against a few vectors of items, of which n has one."""
    return _Matvec("matvec", key).build()


def outer(key: VectorKey) -> Kernel:
    """Items are contiguous, ``tile.vectors`` is the depth. A unit is a few rows and columns."""
    return _Outer("outer", key).build()


def dot(key: VectorKey) -> Kernel:
    """k is contiguous in both. A unit gives the sums of ``tile.lanes`` blocks, or of the last one.

    What is stored are parts, one for each block, for ``combine``.
    """
    return _Dot("dot", key).build()


class _Product:
    """Parameters and reading; who derives from it writes the unit."""

    def __init__(self, name: str, key: VectorKey) -> None:
        near = "_near" * key.near + "_dense" * key.dense
        self.key, self.tile = key, key.tile
        self.k = k = Builder(f"{name}_{key.tile.name}{near}{'_swapped' if key.swapped else ''}")
        self.out = k.pointer("out", key.result)
        a, b = k.pointer("a", key.a), k.pointer("b", key.b)
        self.left, self.right = (b, a) if key.swapped else (a, b)
        self.hooks = Attached(k, key.hooks, key.dtype)
        self.size = sizes(k, SIZES)
        self.hooks.declare_sizes()

    def build(self) -> Kernel:
        k, size = self.k, self.size
        self.prepare()
        blocks = k.maximum(ceil_div(k, size.depth, BLOCK), 1)
        with k.loop(BEGIN, END) as unit:
            split, rest = k.rem(unit, size.splits), k.div(unit, size.splits)
            row_unit, rest = k.rem(rest, size.row_units), k.div(rest, size.row_units)
            column_unit, batch = k.rem(rest, size.column_units), k.div(rest, size.column_units)
            start = k.mul(split, size.span)
            here = SimpleNamespace(
                batch=batch, row_unit=row_unit, column_unit=column_unit, split=split,
                start=start, stop=k.minimum(k.add(start, size.span), blocks),
                to=k.add(k.mul(batch, size.out_batch), k.mul(split, size.out_split)),
                left=k.mul(batch, size.left_batch), right=k.mul(batch, size.right_batch),
            )  # fmt: skip
            self.unit(here)
        return k.kernel

    def prepare(self) -> None:
        """Declares scratch memory."""

    def unit(self, here: SimpleNamespace) -> None:
        """Writes one unit."""
        raise NotImplementedError

    # reading
    def term(
        self, is_left: bool, value: Operand, here: SimpleNamespace, item: Operand, t: Operand
    ) -> Operand:
        """An element as a factor: through its hook, widened; t is the logical k."""
        is_a = is_left is not self.key.swapped
        row, column = (item, t) if is_a else (t, item)
        part = "a" if is_a else "b"
        value = self.hooks.apply(part, value, (here.batch, row, column), self.key.dtype)
        return widen(self.k, value, self.tile.dtype)

    def left_term(self, here: SimpleNamespace, row: Operand, t: Operand) -> Operand:
        """The left operand's element."""
        k, size = self.k, self.size
        step = 1 if self.key.dense else size.left_step
        at = k.add(k.add(here.left, k.mul(row, size.left_item)), k.mul(t, step))
        return self.term(True, k.load(self.left, at), here, row, t)

    def order(self, count: int) -> list[int]:
        """The steps 0..count-1 in the order of the sum; they begin at an even k."""
        if not self.tile.flush:
            return list(range(count))
        return [min(t ^ 1, count - 1) for t in range(count)]

    def single(self, t: Operand, depth: Operand) -> Operand:
        """The step at place t of the sum."""
        return in_pairs(self.k, t, depth) if self.tile.flush else t

    def depth_of(self, block: Operand) -> tuple[Operand, Operand]:
        """(first k, number of them) of a block."""
        k = self.k
        k0 = k.mul(block, BLOCK)
        return k0, k.minimum(k.sub(self.size.depth, k0), BLOCK)

    def first_row(self, here: SimpleNamespace) -> Operand:
        """Where the rows of the unit start: the last ones may overlap those before."""
        k, rows = self.k, self.tile.rows
        return k.minimum(k.mul(here.row_unit, rows), k.sub(self.size.m, rows))

    def put(self, here: SimpleNamespace, row: Operand, item: Operand, value: Operand) -> None:
        """Rounds a complete sum, hands it to the epilogue and stores it; or stores a part."""
        k, key = self.k, self.key
        if not key.partial:
            value = k.convert(value, key.dtype)
            place = (here.batch, item, row) if key.swapped else (here.batch, row, item)
            value = self.hooks.apply("result", value, place, key.result)
        along = item if key.near else k.mul(item, self.size.out_right)
        k.store(self.out, k.add(k.add(here.to, k.mul(row, self.size.out_left)), along), value)


class _Stream(_Product):
    def prepare(self) -> None:
        self.chains = self.k.local(self.tile.dtype, CHAINS)
        self.sums = self.k.local(self.tile.dtype, CHAINS)

    def unit(self, here: SimpleNamespace) -> None:
        k, size, rows = self.k, self.size, self.tile.rows
        j0 = k.mul(here.column_unit, size.columns)
        count = k.minimum(k.sub(size.n, j0), size.columns)
        row = self.first_row(here)
        lines = [k.mul(size.columns, r) for r in range(rows)]
        group = max(8 // rows, 2)  # steps of k whose left factors stay in registers
        self._clear(self.sums, lines, count)
        with k.loop(here.start, here.stop) as block:
            self._clear(self.chains, lines, count)
            k0, depth = self.depth_of(block)
            whole = k.mul(k.div(depth, group), group)
            with k.loop(0, whole, step=group) as t:
                at_k = [k.add(k0, k.add(t, u)) for u in self.order(group)]
                self._add(here, row, j0, count, lines, at_k)
            with k.loop(whole, depth) as t:
                at_k = [k.add(k0, self.single(t, depth))]
                self._add(here, row, j0, count, lines, at_k)
            for line in lines:
                with k.loop(0, count, kind="vector") as j:
                    at = k.add(line, j)
                    k.store(self.sums, at, k.add(k.load(self.sums, at), k.load(self.chains, at)))
        for r, line in enumerate(lines):
            with k.loop(0, count, kind="vector") as j:
                value = k.load(self.sums, k.add(line, j))
                self.put(here, k.add(row, r), k.add(j0, j), value)

    def _clear(self, memory: Pointer, lines: Sequence[Operand], count: Operand) -> None:
        for line in lines:
            with self.k.loop(0, count, kind="vector") as j:
                self.k.store(memory, self.k.add(line, j), self.k.const(0, self.tile.dtype))

    def _add(
        self, here: SimpleNamespace, row: Operand, j0: Operand, count: Operand,
        lines: Sequence[Operand], at_k: Sequence[Operand],
    ) -> None:  # fmt: skip
        """Some steps of k, in this order, onto the chains of all rows and columns of the unit."""
        k, size, tile = self.k, self.size, self.tile
        terms = [[self.left_term(here, k.add(row, r), t) for t in at_k] for r in range(tile.rows)]
        starts = [k.add(k.add(here.right, k.mul(t, size.right_step)), j0) for t in at_k]
        with k.loop(0, count, kind="vector") as j:
            chains: list[Operand] = [k.load(self.chains, k.add(line, j)) for line in lines]
            for n, (t, start) in enumerate(zip(at_k, starts, strict=True)):
                b = self.term(False, k.load(self.right, k.add(start, j)), here, k.add(j0, j), t)
                chains = [
                    multiply_add(k, tile, row_terms[n], b, chain)
                    for row_terms, chain in zip(terms, chains, strict=True)
                ]
            for line, chain in zip(lines, chains, strict=True):
                k.store(self.chains, k.add(line, j), chain)


class _Outer(_Product):
    def unit(self, here: SimpleNamespace) -> None:
        k, size, tile = self.k, self.size, self.tile
        j0 = k.mul(here.column_unit, size.columns)
        count = k.minimum(k.sub(size.n, j0), size.columns)
        row = self.first_row(here)
        steps: list[Operand] = [Const(t, I64) for t in self.order(tile.vectors)]
        terms = [[self.left_term(here, k.add(row, r), t) for t in steps] for r in range(tile.rows)]
        starts = [k.add(k.add(here.right, k.mul(t, size.right_step)), j0) for t in steps]
        zero = k.const(0, tile.dtype)
        with k.loop(0, count, kind="vector") as j:
            item = k.add(j0, j)
            values = [
                self.term(False, k.load(self.right, k.add(start, j)), here, item, t)
                for t, start in zip(steps, starts, strict=True)
            ]
            for r in range(tile.rows):
                chain: Operand = zero
                for term, value in zip(terms[r], values, strict=True):
                    chain = multiply_add(k, tile, term, value, chain)
                self.put(here, k.add(row, r), item, k.add(zero, chain))


class _Matvec(_Product):
    """Few items at a time, so that each is read along a long run; chains stay in registers."""

    def prepare(self) -> None:
        tile, size = self.tile, self.tile.rows * self.tile.lanes
        self.chains = [self.k.local(tile.dtype, size) for _ in range(tile.vectors)]
        self.sums = [self.k.local(tile.dtype, size) for _ in range(tile.vectors)]
        self.square = self.k.local(self.right.dtype, tile.lanes * tile.lanes)

    def each(self, body: Callable[[int, int, Operand, Operand], None]) -> None:
        """``body(vector, row, lane, place)`` over the tile."""
        k, tile = self.k, self.tile
        for v in range(tile.vectors):
            for r in range(tile.rows):
                with k.loop(0, tile.lanes, kind="vector") as lane:
                    body(v, r, lane, k.add(lane, r * tile.lanes))

    def unit(self, here: SimpleNamespace) -> None:
        k, size, tile = self.k, self.size, self.tile
        row = self.first_row(here)
        first = k.minimum(k.mul(here.column_unit, tile.columns), k.sub(size.n, tile.lanes))
        # Vectors that would go beyond the last item end with it: they repeat others of the unit.
        last = k.sub(size.n, tile.lanes)
        items = [k.minimum(k.add(first, v * tile.lanes), last) for v in range(tile.vectors)]
        zero = k.const(0, tile.dtype)
        self.each(lambda v, r, lane, at: k.store(self.sums[v], at, zero))
        with k.loop(here.start, here.stop) as block:
            self.each(lambda v, r, lane, at: k.store(self.chains[v], at, zero))
            k0, depth = self.depth_of(block)
            whole = k.mul(k.div(depth, tile.lanes), tile.lanes)
            with k.loop(0, whole, step=2 * tile.lanes) as t:
                self._line(here, row, items, k0, t, whole)
            with k.loop(whole, depth) as t:
                self._column(here, row, items, k.add(k0, self.single(t, depth)))
            self.each(
                lambda v, r, lane, at: k.store(
                    self.sums[v], at, k.add(k.load(self.sums[v], at), k.load(self.chains[v], at))
                )
            )
        self.each(
            lambda v, r, lane, at: self.put(
                here, k.add(row, r), k.add(items[v], lane), k.load(self.sums[v], at)
            )
        )

    def _line(
        self, here: SimpleNamespace, row: Operand, items: Sequence[Operand], k0: Operand,
        t: Operand, whole: Operand,
    ) -> None:  # fmt: skip
        """Two squares of each vector: a line of memory is used up before others take its place.

        Each is in a branch of its own: code of several squares that is mixed spills registers.
        """
        for v, item in enumerate(items):
            for place in (t, self.k.add(t, self.tile.lanes)):
                with self.k.when(self.k.compare("lt", place, whole)):
                    self._square(here, row, item, self.k.add(k0, place), self.chains[v])

    def _square(
        self, here: SimpleNamespace, row: Operand, item: Operand, at_k: Operand, chains: Pointer
    ) -> None:
        k, size, tile = self.k, self.size, self.tile
        start = k.add(k.add(here.right, k.mul(item, size.right_item)), at_k)
        k.transpose(self.square, self.right, start, size.right_item, tile.lanes)
        for u in self.order(tile.lanes):
            t = k.add(at_k, u)
            terms = [self.left_term(here, k.add(row, r), t) for r in range(tile.rows)]
            with k.loop(0, tile.lanes, kind="vector") as lane:
                element = k.load(self.square, k.add(lane, u * tile.lanes))
                value = self.term(False, element, here, k.add(item, lane), t)
                self._onto(chains, lane, terms, value)

    def _onto(
        self, chains: Pointer, lane: Operand, terms: Sequence[Operand], value: Operand
    ) -> None:
        k, tile = self.k, self.tile
        for r, term in enumerate(terms):
            at = k.add(lane, r * tile.lanes)
            k.store(chains, at, multiply_add(k, tile, term, value, k.load(chains, at)))

    def _column(
        self, here: SimpleNamespace, row: Operand, items: Sequence[Operand], t: Operand
    ) -> None:
        """One step of k, of all vectors of items."""
        k, size, tile = self.k, self.size, self.tile
        terms = [self.left_term(here, k.add(row, r), t) for r in range(tile.rows)]
        for v, item in enumerate(items):
            with k.loop(0, tile.lanes, kind="vector") as lane:
                there = k.add(item, lane)
                at = k.add(k.add(here.right, k.mul(there, size.right_item)), t)
                value = self.term(False, k.load(self.right, at), here, there, t)
                self._onto(self.chains[v], lane, terms, value)


class _Dot(_Product):
    """Lanes are blocks of k, far apart, so that one unit reads on where the one before ended.

    Blocks that are left over make a unit with some of those before, and what is less than a block
    one more.
    """

    def prepare(self) -> None:
        lanes = self.tile.lanes
        self.chain = self.k.local(self.tile.dtype, lanes)
        self.squares = [
            self.k.local(pointer.dtype, lanes * lanes) for pointer in (self.left, self.right)
        ]

    def unit(self, here: SimpleNamespace) -> None:
        k, size, lanes = self.k, self.size, self.tile.lanes
        full = k.div(size.depth, BLOCK)
        here.left = k.add(here.left, k.mul(here.row_unit, size.left_item))
        here.right = k.add(here.right, k.mul(here.column_unit, size.right_item))
        to = k.add(k.mul(here.batch, size.out_batch), k.mul(here.row_unit, size.out_left))
        here.to = k.add(to, k.mul(here.column_unit, size.out_right))
        groups = k.div(full, lanes)
        far = k.compare("lt", here.split, groups)
        rest = k.compare("ne", k.rem(full, lanes), 0)
        in_full = k.op("or", far, both(k, k.compare("eq", here.split, groups), rest))
        with k.when(in_full):
            block = k.select(far, here.split, k.sub(full, lanes))
            self._blocks(here, block, k.select(far, groups, Const(1, I64)))
        with k.when(negate(k, in_full)):
            self._last(here, full)

    def _put(self, here: SimpleNamespace, block: Operand, lane: int) -> None:
        k = self.k
        value = k.add(k.const(0, self.tile.dtype), k.load(self.chain, lane))
        k.store(self.out, k.add(here.to, k.mul(block, self.size.out_split)), value)

    def _blocks(self, here: SimpleNamespace, first: Operand, distance: Operand) -> None:
        """Lane i is block first + i * distance."""
        k, lanes = self.k, self.tile.lanes
        with k.loop(0, lanes, kind="vector") as lane:
            k.store(self.chain, lane, k.const(0, self.tile.dtype))
        with k.loop(0, BLOCK, step=lanes) as t:
            self._squares(here, k.add(k.mul(first, BLOCK), t), k.mul(distance, BLOCK))
        for number in range(lanes):
            self._put(here, k.add(first, k.mul(distance, number)), number)

    def _squares(self, here: SimpleNamespace, start: Operand, stride: Operand) -> None:
        k, tile = self.k, self.tile
        pairs = zip((self.left, self.right), (here.left, here.right), self.squares, strict=True)
        for pointer, base, square in pairs:
            k.transpose(square, pointer, k.add(base, start), stride, tile.lanes)
        for u in self.order(tile.lanes):
            with k.loop(0, tile.lanes, kind="vector") as lane:
                at = k.add(lane, u * tile.lanes)
                logical = k.add(k.mul(lane, stride), k.add(start, u))
                left, right = (k.load(square, at) for square in self.squares)
                a = self.term(True, left, here, here.row_unit, logical)
                b = self.term(False, right, here, here.column_unit, logical)
                k.store(self.chain, lane, multiply_add(k, tile, a, b, k.load(self.chain, lane)))

    def _last(self, here: SimpleNamespace, full: Operand) -> None:
        """The block that is not full, on one chain."""
        k, size, tile = self.k, self.size, self.tile
        k.store(self.chain, 0, k.const(0, tile.dtype))
        k0 = k.mul(full, BLOCK)
        depth = k.sub(size.depth, k0)
        with k.loop(0, depth) as place:
            t = k.add(k0, self.single(place, depth))
            left = k.load(self.left, k.add(here.left, t))
            right = k.load(self.right, k.add(here.right, t))
            a = self.term(True, left, here, here.row_unit, t)
            b = self.term(False, right, here, here.column_unit, t)
            k.store(self.chain, 0, multiply_add(k, tile, a, b, k.load(self.chain, 0)))
        self._put(here, full, 0)


def dot_units(depth: int, lanes: int) -> int:
    """Units of ``dot`` for one element of the result."""
    full, rest = divmod(depth, BLOCK)
    return -(-full // lanes) + (rest > 0)


class CombineKey(Record):
    """What ``combine`` is made for."""

    acc: DType
    dtype: DType  # of the contraction
    result: DType
    lanes: int
    hooks: Hooks  # only that on the result is used


def combine(key: CombineKey) -> Kernel:
    """``out = ((parts[0] + parts[1]) + ...)`` rounded; a unit is one row of m in one batch."""
    k = Builder(f"combine_{key.acc.short}_{key.dtype.short}")
    out, parts = k.pointer("out", key.result), k.pointer("parts", key.acc)
    hooks = Attached(k, key.hooks, key.dtype)
    size = sizes(k, ("m", "n", "count", "stride"))
    hooks.declare_sizes()
    total = k.local(key.acc, key.lanes)
    whole = k.mul(k.div(size.n, key.lanes), key.lanes)

    def columns(unit: Operand, first: Operand, width: int) -> None:
        batch, row = k.div(unit, size.m), k.rem(unit, size.m)
        base = k.add(k.mul(unit, size.n), first)
        with k.loop(0, width, kind="vector") as lane:
            k.store(total, lane, k.load(parts, k.add(base, lane)))
        with k.loop(1, size.count) as part:
            start = k.add(base, k.mul(part, size.stride))
            with k.loop(0, width, kind="vector") as lane:
                part_value = k.load(parts, k.add(start, lane))
                k.store(total, lane, k.add(k.load(total, lane), part_value))
        with k.loop(0, width, kind="vector") as lane:
            value: Operand = k.convert(k.load(total, lane), key.dtype)
            place = (batch, row, k.add(first, lane))
            k.store(out, k.add(base, lane), hooks.apply("result", value, place, key.result))

    with k.loop(BEGIN, END) as unit:
        with k.loop(0, whole, step=key.lanes) as first:
            columns(unit, first, key.lanes)
        with k.loop(whole, size.n) as first:
            columns(unit, first, 1)
    return k.kernel
