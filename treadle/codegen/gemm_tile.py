"""The GEMM kernel: blocks of k, strips of rows, panels of columns, and a register tile of FMAs.

``out[b, i, j] = sum over k of left[b, i, k] * right[b, k, j]``. The left operand gives one element
for each row of the tile, which is spread over a vector; the right one gives vectors along j. Each
is read where it lies or packed by the thread that needs it (``gemm_pack``), block by block.

For every block of k: pack the unit's columns; for every strip of rows: pack it, and let each panel
of the right operand meet each tile of rows, so that a panel is read from the nearest cache.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.codegen.contraction import (
    BLOCK,
    Factor,
    Tile,
    both,
    ceil_div,
    multiply,
    multiply_add,
    negate,
    sizes,
    tile_rows,
    widen,
)
from treadle.codegen.gemm_pack import (
    ROW,
    Access,
    Least,
    Source,
    Target,
    copy_rows,
    never_subnormal,
    pack,
)
from treadle.codegen.hooks import Attached, Hooks
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Const, Kernel, Operand

SIZES = (
    "m", "n", "depth",
    "left_batch", "left_item", "left_step",
    "right_batch", "right_item", "right_step",
    "out_batch", "out_row", "out_split",
    "rows", "columns",  # of a unit: multiples of the tile's
    "row_units", "column_units", "splits",
    "span",  # blocks of k in a split
    "strip",  # rows packed at a time: a multiple of the tile's
    "left_share", "right_share",  # elements of a thread's packed copies
)  # fmt: skip


class GemmKey(Record):
    """What a GEMM kernel is made for."""

    tile: Tile
    dtype: DType  # of the contraction
    a: DType  # of the operands as they are read
    b: DType
    result: DType  # of what is stored
    left: Access
    right: Access
    hooks: Hooks

    @property
    def separate(self) -> bool:
        """Whether sums are kept beside the result until they are complete."""
        return self.result is not self.tile.dtype


class _Part(Record):
    """What is stored of a tile: some of its rows, and the columns begin..end of them."""

    start: Operand  # where the tile lies in the sums
    row: Operand  # of the result, the tile's first one
    column: Operand
    rows: Operand
    begin: Operand
    end: Operand


def gemm(key: GemmKey) -> Kernel:
    """The kernel. A unit is a block of rows and columns of one batch, over one split of k."""
    return _Gemm(key).build()


class _Gemm:
    """Builds the kernel; attributes are its parameters and what holds for a whole unit."""

    def __init__(self, key: GemmKey) -> None:
        self.key, self.tile = key, key.tile
        self.k = k = Builder(f"gemm_{key.tile.name}_{key.left}_{key.right}")
        acc = key.tile.dtype
        self.out = k.pointer("out", key.result)
        self.left, self.right = k.pointer("left", key.a), k.pointer("right", key.b)
        self.sums = k.pointer("sums", acc) if key.separate else self.out
        packed = k.pointer("packed_left", acc) if key.left != "direct" else self.left
        self.packed_left = packed
        packed = k.pointer("packed_right", acc) if key.right != "direct" else self.right
        self.packed_right = packed
        self.hooks = Attached(k, key.hooks, key.dtype)
        self.finishes = key.separate or key.hooks.result is not None
        self.size = sizes(k, SIZES)
        self.hooks.declare_sizes()

    def build(self) -> Kernel:
        k, size, tile = self.k, self.size, self.tile
        self.acc = k.local(tile.dtype, tile.rows * tile.columns)
        self.spill = k.local(tile.dtype, tile.rows * tile.columns)
        slots = max(tile.columns, tile.rows, tile.lanes)
        self.least = [Least(k, slots), Least(k, slots)] if tile.flush else []
        blocks = k.maximum(ceil_div(k, size.depth, BLOCK), 1)
        with k.loop(BEGIN, END) as unit:
            self._unit(unit, blocks)
        return k.kernel

    def _unit(self, unit: Operand, blocks: Operand) -> None:
        k, size = self.k, self.size
        split, rest = k.rem(unit, size.splits), k.div(unit, size.splits)
        row_unit, rest = k.rem(rest, size.row_units), k.div(rest, size.row_units)
        column_unit, batch = k.rem(rest, size.column_units), k.div(rest, size.column_units)
        i0, j0 = k.mul(row_unit, size.rows), k.mul(column_unit, size.columns)
        i1 = k.minimum(k.add(i0, size.rows), size.m)
        j1 = k.minimum(k.add(j0, size.columns), size.n)
        start = k.mul(split, size.span)
        stop = k.minimum(k.add(start, size.span), blocks)
        strips = ceil_div(k, k.sub(i1, i0), size.strip)
        to = k.add(k.mul(batch, size.out_batch), k.mul(split, size.out_split))
        with k.loop(start, stop) as block:
            k0 = k.mul(block, BLOCK)
            depth = k.minimum(k.sub(size.depth, k0), BLOCK)
            here = SimpleNamespace(
                batch=batch, j0=j0, j1=j1, k0=k0, depth=depth, to=to,
                first=k.compare("eq", block, start),
                last=k.compare("eq", block, k.sub(stop, 1)),
            )  # fmt: skip
            self._pack_right(here)
            with k.loop(0, strips) as strip:
                here.i0 = k.add(i0, k.mul(strip, size.strip))
                here.i1 = k.minimum(k.add(here.i0, size.strip), i1)
                self._pack_left(here)
                self._strip(here)

    # packing
    def _source(self, is_left: bool, here: SimpleNamespace) -> Source:
        k, size = self.k, self.size
        pointer = self.left if is_left else self.right
        step = size.left_step if is_left else size.right_step
        batch = k.mul(here.batch, size.left_batch if is_left else size.right_batch)

        def read(value: Operand, item: Operand, t: Operand, slot: Operand) -> Operand:
            at = k.add(here.k0, t)
            row, column = (item, at) if is_left else (at, item)
            place = (here.batch, row, column)
            value = self.hooks.apply("a" if is_left else "b", value, place, self.key.dtype)
            wide = widen(k, value, self.tile.dtype)
            if self.least:
                self.least[0 if is_left else 1].see(wide, slot)
            return wide

        base = k.add(batch, k.mul(here.k0, step))
        return Source(pointer, base, size.left_item if is_left else size.right_item, step, read)

    def _pack_right(self, here: SimpleNamespace) -> None:
        k, tile, access = self.k, self.tile, self.key.right
        here.right = self._source(False, here)
        if access == "direct":
            return
        if self.least:
            self.least[1].reset()
        here.packed = k.mul(THREAD, self.size.right_share)
        last = k.sub(self.size.n, tile.columns)
        target = Target(self.packed_right, here.packed, tile.columns, here.depth, last, tile.flush)
        pack(k, access, target, here.right, here.j0, here.j1, tile.lanes)
        if self.least:
            here.exponent = self.least[1].exponent()

    def _pack_left(self, here: SimpleNamespace) -> None:
        k, tile, access = self.k, self.tile, self.key.left
        here.left = self._source(True, here)
        if access == "direct":
            return
        if self.least:
            self.least[0].reset()
        start = k.mul(THREAD, self.size.left_share)
        target = Target(self.packed_left, start, tile.rows, here.depth, swapped=tile.flush)
        if access == "depth":
            copy_rows(k, target, here.left, here.i0, here.i1, tile.lanes)
        else:
            pack(k, access, target, here.left, here.i0, here.i1, tile.lanes)
        here.packed_left = start
        if self.least:
            here.normal = never_subnormal(k, self.least[0].exponent(), here.exponent)

    # the product
    def _strip(self, here: SimpleNamespace) -> None:
        """All panels of the unit against all tiles of the strip."""
        k, tile, size = self.k, self.tile, self.size
        panels = ceil_div(k, k.sub(here.j1, here.j0), tile.columns)
        tiles = ceil_div(k, k.sub(here.i1, here.i0), tile.rows)
        with k.loop(0, panels) as panel:
            column = k.add(here.j0, k.mul(panel, tile.columns))
            right, begin, end = self._right_factor(here, panel, column)
            at = k.add(here.to, k.sub(column, begin))
            with k.loop(0, tiles) as i:
                row = k.add(here.i0, k.mul(i, tile.rows))
                left = self._left_factor(here, i, row)
                self._multiply(here, left, right)
                part = _Part(
                    k.add(at, k.mul(row, size.out_row)), row, k.sub(column, begin),
                    k.minimum(k.sub(here.i1, row), tile.rows), begin, end,
                )  # fmt: skip
                self._store(here, part)

    def _right_factor(
        self, here: SimpleNamespace, panel: Operand, column: Operand
    ) -> tuple[Factor, Operand, Operand]:
        """The vectors of a panel, of which the columns begin..end are this panel's to store.

        The last panel starts earlier where it would go beyond the operand.
        """
        k, tile, size, access = self.k, self.tile, self.size, self.key.right
        count = k.minimum(k.sub(here.j1, column), tile.columns)
        skip = k.sub(column, k.minimum(column, k.maximum(k.sub(size.n, tile.columns), 0)))
        if access == "any":
            skip = Const(0, I64)
        if access != "direct":
            start = k.add(here.packed, k.mul(panel, k.mul(here.depth, tile.columns)))
            places = [k.add(start, v * tile.lanes) for v in range(tile.vectors)]
            factor = Factor(self.packed_right, places, lambda t: k.mul(t, tile.columns))
            return factor, skip, k.add(skip, count)
        start = here.right.at(k, k.sub(column, skip), Const(0, I64))
        places = [k.add(start, v * tile.lanes) for v in range(tile.vectors)]
        if tile.lanes == 1:  # a small operand may have fewer columns than the tile
            last = k.sub(size.n, 1)
            columns = [k.minimum(k.add(k.sub(column, skip), v), last) for v in range(tile.vectors)]
            places = [here.right.at(k, j, Const(0, I64)) for j in columns]
        factor = Factor(self.right, places, lambda t: k.mul(t, size.right_step))
        return factor, skip, k.add(skip, count)

    def _left_factor(self, here: SimpleNamespace, i: Operand, row: Operand) -> Factor:
        k, tile, access = self.k, self.tile, self.key.left
        if access == "direct":
            rows = tile_rows(k, tile, row, here.i1, here.left.base, here.left.item)
            return Factor(self.left, rows, lambda t: k.mul(t, here.left.step))
        if access == "depth":
            first, last = k.sub(row, here.i0), k.sub(here.i1, here.i0)
            rows = tile_rows(k, tile, first, last, here.packed_left, Const(ROW, I64))
            return Factor(self.packed_left, rows, lambda t: t)
        start = k.add(here.packed_left, k.mul(i, k.mul(here.depth, tile.rows)))
        rows = [k.add(start, r) for r in range(tile.rows)]
        return Factor(self.packed_left, rows, lambda t: k.mul(t, tile.rows))

    def _multiply(self, here: SimpleNamespace, left: Factor, right: Factor) -> None:
        k, tile = self.k, self.tile
        if not tile.flush:
            multiply(k, tile, self.acc, left, right, here.depth)
            return
        # What both branches leave goes through memory, or one's registers would burden the other.
        with k.when(here.normal):
            multiply(k, tile, self.acc, left, right, here.depth)
            self._spill()
        with k.when(negate(k, here.normal)):
            self._multiply_exactly(here, left, right)

    def _multiply_exactly(self, here: SimpleNamespace, left: Factor, right: Factor) -> None:
        """The same with subnormals flushed: seldom needed, so small rather than quick."""
        k, tile = self.k, self.tile
        with k.loop(0, tile.rows * tile.columns, kind="vector") as place:
            k.store(self.spill, place, k.const(0, tile.dtype))
        with k.loop(0, here.depth) as t:
            for row in range(tile.rows):
                term = k.load(left.pointer, k.add(left.places[row], left.step(t)))
                start = k.add(right.places[0], right.step(t))
                line = row * tile.columns
                with (
                    k.loop(0, tile.columns, step=tile.lanes) as column,
                    k.loop(0, tile.lanes, kind="vector") as lane,
                ):
                    j = k.add(column, lane)
                    old = k.load(self.spill, k.add(j, line))
                    value = k.load(right.pointer, k.add(start, j))
                    new = multiply_add(k, tile, term, value, old)
                    k.store(self.spill, k.add(j, line), new)

    def _spill(self) -> None:
        """The accumulators to memory that a variable may index."""
        k, tile = self.k, self.tile
        for place in range(tile.rows * tile.vectors):
            with k.loop(0, tile.lanes, kind="vector") as lane:
                spot = k.add(lane, place * tile.lanes)
                k.store(self.spill, spot, k.load(self.acc, spot))

    # the end of a tile
    def _store(self, here: SimpleNamespace, part: _Part) -> None:
        """``sums = (0 if first else sums) + acc``; complete sums go on to the result."""
        k = self.k
        if not self.finishes:
            self._store_sums(here, part)
        elif self.hooks.is_short and not self.tile.flush:
            full = self._is_full(part)
            with k.when(full):
                self._finish_tile(here, part)
            with k.when(negate(k, full)):
                self._spill()
                with k.when(here.last):
                    self._finish_rows(here, part, part.begin, part.end)
                with k.when(negate(k, here.last)):
                    self._store_rows(here, part)
        else:
            with k.when(here.last):
                if not self.tile.flush:
                    self._spill()
                full, columns = self._is_full(part), self.tile.columns
                with k.when(full):
                    self._finish_rows(here, part, Const(0, I64), Const(columns, I64))
                with k.when(negate(k, full)):
                    self._finish_rows(here, part, part.begin, part.end)
            with k.when(negate(k, here.last)):
                self._store_sums(here, part)

    def _is_full(self, part: _Part) -> Operand:
        """Whether all of the tile is stored."""
        k, tile = self.k, self.tile
        count = k.sub(part.end, part.begin)
        return both(k, k.compare("eq", part.rows, tile.rows), k.compare("eq", count, tile.columns))

    def _store_sums(self, here: SimpleNamespace, part: _Part) -> None:
        k, tile = self.k, self.tile
        if tile.flush:
            self._store_rows(here, part)
            return
        full = self._is_full(part)
        starts = [k.add(part.start, k.mul(self.size.out_row, row)) for row in range(tile.rows)]
        for first in (True, False):
            with k.when(both(k, full, here.first if first else negate(k, here.first))):
                for place in range(tile.rows * tile.vectors):
                    start = k.add(starts[place // tile.vectors], place % tile.vectors * tile.lanes)
                    with k.loop(0, tile.lanes, kind="vector") as lane:
                        value = k.load(self.acc, k.add(lane, place * tile.lanes))
                        to = k.add(start, lane)
                        old = k.const(0, tile.dtype) if first else k.load(self.sums, to)
                        k.store(self.sums, to, k.add(old, value))
        with k.when(negate(k, full)):
            self._spill()
            self._store_rows(here, part)

    def _store_rows(self, here: SimpleNamespace, part: _Part) -> None:
        """Some rows and columns of a tile that was spilled."""
        k = self.k
        with k.loop(0, part.rows) as row:
            start = k.add(part.start, k.mul(row, self.size.out_row))
            self._store_part(here, start, k.mul(row, self.tile.columns), part)

    def _store_part(
        self, here: SimpleNamespace, start: Operand, spilled: Operand, part: _Part
    ) -> None:
        """The columns begin..end of a row of the tile: vectors, then their halves."""
        k, tile = self.k, self.tile

        def move(first: Operand, width: int) -> None:
            with k.loop(0, width, kind="vector") as lane:
                column = k.add(first, lane)
                to = k.add(start, column)
                k.store(self.sums, to, self._total(here, to, k.add(spilled, column)))

        count = k.sub(part.end, part.begin)
        middle = k.add(part.begin, k.mul(k.div(count, tile.lanes), tile.lanes))
        with k.loop(part.begin, middle, step=tile.lanes) as column:
            move(column, tile.lanes)
        width, place = tile.lanes // 2, middle
        while width:
            some = k.compare("ne", k.op("and", count, width), 0)
            with k.when(some):
                move(place, width)
            place = k.add(place, k.select(some, Const(width, I64), Const(0, I64)))
            width //= 2

    def _total(self, here: SimpleNamespace, at: Operand, spilled: Operand) -> Operand:
        """A sum with this block, from memory."""
        k = self.k
        old = k.select(here.first, k.const(0, self.tile.dtype), k.load(self.sums, at))
        return k.add(old, k.load(self.spill, spilled))

    def _finish_tile(self, here: SimpleNamespace, part: _Part) -> None:
        """A whole tile from the registers to the result, or to the sums where more is to come."""
        k, tile, zero = self.k, self.tile, self.k.const(0, self.tile.dtype)

        def each(row: int, use: Callable[[Operand, Operand, Operand], None]) -> None:
            """With the places in the sums and in the tile, and the column."""
            start = k.add(part.start, k.mul(self.size.out_row, row))
            for first in range(0, tile.columns, tile.lanes):
                with k.loop(0, tile.lanes, kind="vector") as lane:
                    column = k.add(lane, first)
                    use(k.add(start, column), k.add(column, row * tile.columns), column)

        def begin(at: Operand, place: Operand, column: Operand) -> None:
            k.store(self.acc, place, k.add(zero, k.load(self.acc, place)))

        def go_on(at: Operand, place: Operand, column: Operand) -> None:
            k.store(self.acc, place, k.add(k.load(self.sums, at), k.load(self.acc, place)))

        def keep(at: Operand, place: Operand, column: Operand) -> None:
            k.store(self.sums, at, k.load(self.acc, place))

        def finish(row: int) -> None:
            line = self.hooks.line(here.batch, k.add(part.row, row))

            def store(at: Operand, place: Operand, column: Operand) -> None:
                total, to = k.load(self.acc, place), k.add(part.column, column)
                self.hooks.finish(self.out, at, total, self.key.dtype, line, to)

            each(row, store)

        rows = range(tile.rows)
        for condition, use in ((here.first, begin), (negate(k, here.first), go_on)):
            with k.when(condition):
                for row in rows:
                    each(row, use)
        with k.when(here.last):
            for row in rows:
                finish(row)
        with k.when(negate(k, here.last)):
            for row in rows:
                each(row, keep)

    def _finish_rows(
        self, here: SimpleNamespace, part: _Part, begin: Operand, end: Operand
    ) -> None:
        """The columns begin..end of a tile that was spilled to the result, row by row."""
        k, tile = self.k, self.tile
        with k.loop(0, part.rows) as row:
            start = k.add(part.start, k.mul(row, self.size.out_row))
            line = self.hooks.line(here.batch, k.add(part.row, row))
            with k.loop(begin, end, kind="vector") as column:
                at, place = k.add(start, column), k.add(part.column, column)
                total = self._total(here, at, k.add(k.mul(row, tile.columns), column))
                self.hooks.finish(self.out, at, total, self.key.dtype, line, place)
