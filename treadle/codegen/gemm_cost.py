"""The ways to multiply two matrices, each with a rough number of cycles: what ``gemm`` chooses by.

The model counts, for the thread with the most to do: fused multiply-adds of the register tile (or
loads, where they are more), what a tile costs at its end, packing, and memory. Its constants are
measured on current x86 cores; they only have to rank ways, not to tell the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.codegen.contraction import BLOCK, Tile, tile_for
from treadle.codegen.gemm_pack import Access
from treadle.codegen.gemm_vector import CHAINS, OUTER
from treadle.codegen.hooks import Riders
from treadle.ir.launch import Layout

_LEVEL_1 = 32 << 10  # bytes
_WAY = 4 << 10  # bytes after which lines share a set of level 1
_PAGES = 256 << 10  # bytes whose addresses the processor translates at once
_STRIP = 192 << 10  # bytes of packed rows that leave room for a panel in level 2
_COLUMNS = 2 << 20  # bytes of packed columns, which may lie in level 3
_SYNC = 4000.0  # cycles to fork and join: fewer where threads are awake, more where they sleep
_LATE = 0.1  # of a unit: how long the other threads wait for the last one
_LINE = 64
_BYTES_PER_CYCLE = 10.0  # from memory, one thread
_WORTH_A_KERNEL = 4096  # elements from which the more special kernels are made at all
_FAR = 8 << 20  # bytes from which an operand is expected in memory
_UNITS_PER_THREAD = (1, 2, 4)
_MOST_COLUMN_UNITS = 4  # cuts of the columns that are tried, beside as many as possible


class Side(Record):
    """An operand as (items, k), with strides."""

    items: int
    batch: int
    item: int
    step: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What ``plan_matmul`` was asked for."""

    a: Layout
    b: Layout
    out: Layout
    dtype: DType
    threads: int
    bits: int
    riders: Riders

    @property
    def is_empty(self) -> bool:
        """Whether the result has no elements."""
        return self.batches * self.m * self.n == 0

    @property
    def batches(self) -> int:
        """B."""
        return self.out.shape[0]

    @property
    def m(self) -> int:
        """Rows of the result."""
        return self.out.shape[1]

    @property
    def n(self) -> int:
        """Columns of the result."""
        return self.out.shape[2]

    @property
    def depth(self) -> int:
        """K."""
        return self.a.shape[2]

    @property
    def blocks(self) -> int:
        """Blocks of k, at least one."""
        return max(-(-self.depth // BLOCK), 1)

    def sides(self, swapped: bool) -> tuple[Side, Side]:
        """(left, right)."""
        a, b = self.a.strides, self.b.strides
        sides = Side(self.m, a[0], a[1], a[2]), Side(self.n, b[0], b[2], b[1])
        return (sides[1], sides[0]) if swapped else sides


class Way(Record):
    """One way: the kernel, its tile, how operands are read, and the cut into units.

    ``rows`` and ``columns`` are those of a unit; of the schemes for few rows, of the left and the
    right operand. ``strip`` is how many rows are packed at a time.
    """

    scheme: str  # tile, stream, matvec, outer or dot
    tile: Tile
    rows: int
    columns: int
    splits: int = 1  # 1, or the number of blocks of k
    left: Access = "direct"
    right: Access = "direct"
    strip: int = 0
    swapped: bool = False
    cost: float = 0.0

    @property
    def name(self) -> str:
        """What tells this way from others of the same problem."""
        parts = (self.scheme, self.tile.name, self.rows, self.columns, self.splits, self.left,
                 self.right, self.strip, "swapped" if self.swapped else "")  # fmt: skip
        return " ".join(map(str, parts)).strip()


def ways(problem: Problem) -> Iterator[Way]:
    """Every way worth a thought, with its cost."""
    yield from _tile_ways(problem)
    for swapped in (False, True):
        yield from _vector_ways(problem, swapped)


def tiles(dtype: DType, bits: int) -> list[Tile]:
    """Register tiles: the largest, one for fewer rows, one for few columns, and one of scalars."""
    flush = dtype is dtypes.bfloat16  # whose masks take two registers more
    if bits >= 512:
        large = ((12 if flush else 14, 2), (8, 3))
    else:
        large = ((5, 2), (3, 3)) if flush else ((6, 2), (4, 3))
    shapes = (*large, (8, 1), (1, 8))  # more than 8 rows would need too many addresses
    vectors = [tile_for(dtype, rows, count, bits) for rows, count in shapes]
    return [*vectors, replace(vectors[0], rows=4, vectors=3, lanes=1)]


def _spread(problem: Problem, units: int) -> tuple[float, float]:
    """(units that the result waits for, cycles to have more than one thread)."""
    if problem.threads == 1 or units == 1:
        return units, 0.0
    return -(-units // problem.threads) + _LATE, _SYNC


# the register tile
def _tile_ways(problem: Problem) -> Iterator[Way]:
    left, right = problem.sides(False)
    wide = problem.dtype is not tile_for(problem.dtype, 1, 1, problem.bits).dtype
    must_pack_left = wide or problem.riders.a is not None
    must_pack_right = wide or problem.riders.b is not None
    for tile in tiles(problem.dtype, problem.bits):
        scalar = tile.lanes == 1
        lefts: list[Access] = [] if must_pack_left else ["direct"]
        rights: list[Access] = []
        if scalar:
            if must_pack_left or must_pack_right or problem.m * problem.n > 1024:
                continue
            rights = ["direct"]
        else:
            lefts.append(_access(left))
            rights.append(_access(right))
            near = right.item == 1 and right.items >= tile.columns
            if near and not must_pack_right:
                rights.append("direct")
        for rows, columns, splits in _cuts(problem, tile):
            strip = max(_STRIP // (BLOCK * tile.dtype.itemsize) // tile.rows, 1) * tile.rows
            strip = min(strip, rows)
            for left_access in lefts:
                for right_access in rights:
                    way = Way("tile", tile, rows, columns, splits, left_access, right_access, strip)
                    yield way._replace(cost=_tile_cost(problem, left, right, way))


def _access(side: Side) -> Access:
    if side.item == 1:
        return "items"
    return "depth" if side.step == 1 else "any"


def _cuts(problem: Problem, tile: Tile) -> set[tuple[int, int, int]]:
    """(rows, columns, splits) of units, in whole tiles."""
    row_tiles, panels = -(-problem.m // tile.rows), -(-problem.n // tile.columns)
    most = max(_COLUMNS // (BLOCK * tile.dtype.itemsize) // tile.columns, 1)  # panels of a unit
    least = -(-panels // most)
    found = set()
    for splits in {1, problem.blocks}:
        for wanted in _wanted(problem, problem.batches * splits):
            few = min(wanted, _MOST_COLUMN_UNITS)
            for column_units in {*range(1, few + 1), wanted}:
                pieces = max(column_units, least)
                columns = -(-panels // min(pieces, panels))
                rows = -(-row_tiles // min(-(-wanted // pieces), row_tiles))
                found.add((rows * tile.rows, columns * tile.columns, splits))
    return found


def _wanted(problem: Problem, parts: int) -> set[int]:
    """Into how many units each of ``parts`` may be cut: not at all, or for all threads."""
    if problem.threads == 1:
        return {1}
    return {1, *(-(-problem.threads * factor // parts) for factor in _UNITS_PER_THREAD)}


def _tile_cost(problem: Problem, left: Side, right: Side, way: Way) -> float:
    tile, m, n = way.tile, left.items, right.items
    depth = min(max(problem.depth, 1), BLOCK)
    rows, columns = min(way.rows, m), min(way.columns, n)
    row_tiles, panels = -(-rows // tile.rows), -(-columns // tile.columns)
    strips = -(-rows // way.strip)
    size = tile.rows * tile.vectors
    step = max(size / 2, 0.6 * (tile.rows + tile.vectors), 4.0)
    overhead = 25 + 0.6 * size
    ragged = (m % tile.rows > 0) / row_tiles + (n % tile.columns > 0) / panels
    overhead += min(ragged, 1) * (4.0 * size + 8 * tile.rows)
    item = tile.dtype.itemsize
    if way.right == "direct":
        # Lines of a narrow panel lie far apart; they are read once for each tile of rows.
        apart = right.step * item
        reach = apart % _WAY == 0 and depth > 64
        lines = -(-tile.columns * item // _LINE)
        sets = _WAY // max(gcd(apart, _WAY), _LINE)  # that such lines can lie in
        share = lines * depth / (sets * _LEVEL_1 / _WAY)
        rough = apart > 512 or apart % _LINE  # far apart, or across lines
        spilled = 0.95 if rough else 0.5
        step += lines * (spilled if share > 0.5 else 0.4 if share > 0.25 else 0.15)
        step += 1.0 if reach else 0.8 if apart * depth > _PAGES else 0.0
    elif tile.columns * depth * item > _LEVEL_1 // 2 and row_tiles > 1:
        step += tile.columns * item / 256  # panels from level 2
    if way.left == "direct" and left.step != 1:
        step += 0.3 if rows * depth * item * 4 < _LEVEL_1 else 2.0
    elif way.left == "direct" and left.item * item % _WAY == 0 and panels > 4:
        step += 0.4  # rows that lie in the same set of the cache
    packing = 0.0
    if way.left != "direct":
        packing += rows * depth * {"depth": 0.3, "items": 0.6, "any": 2.0}[way.left] + 60 * strips
    if way.right != "direct":
        whole = n >= tile.columns and way.right != "any"
        rate = {"depth": 0.3, "items": 0.35}[way.right] if whole else 2.5
        packing += panels * tile.columns * depth * rate + 60
    packing += depth * (rows * _traffic(problem, left) + columns * _traffic(problem, right))
    blocks = 1 if way.splits > 1 else problem.depth / depth if problem.depth else 1.0
    unit = blocks * (packing + row_tiles * panels * (depth * step + overhead)) + 100
    units = problem.batches * -(-m // way.rows) * -(-n // way.columns) * way.splits
    most, sync = _spread(problem, units)
    return most * unit + sync + _combine_cost(problem, way.splits)


def _combine_cost(problem: Problem, splits: int) -> float:
    if splits == 1:
        return 0.0
    elements = problem.batches * problem.m * problem.n * splits
    rate = 1.2 if elements * problem.dtype.itemsize > _FAR // 2 else 0.4
    return elements * rate / problem.threads + 200 + _SYNC * (problem.threads > 1)


# few rows or columns
def _vector_ways(problem: Problem, swapped: bool) -> Iterator[Way]:
    left, right = problem.sides(swapped)
    acc = tile_for(problem.dtype, 1, 1, problem.bits)
    full = problem.depth // BLOCK
    if right.item == 1 and left.items <= 16:
        yield from _stream_ways(problem, swapped, left, right, acc)
    large = problem.m * problem.n >= _WORTH_A_KERNEL
    if right.item == 1 and 0 < problem.depth <= OUTER and large and not swapped:
        yield from _outer_ways(problem, left, right, acc)
    large = right.items * problem.depth >= _WORTH_A_KERNEL
    if right.step == 1 and right.items >= acc.lanes > 1 and left.items <= 8 and large:
        rows = min(left.items, 4)
        # Rows that lie in the same set of the cache are read a vector at a time.
        conflict = right.item * problem.dtype.itemsize % 4096 == 0
        vectors = 2 if rows < 4 and right.items > acc.lanes and not conflict else 1
        tile = replace(acc, rows=rows, vectors=vectors)
        for splits in {1, problem.blocks}:
            way = Way("matvec", tile, rows, tile.columns, splits, swapped=swapped)
            yield way._replace(cost=_matvec_cost(problem, way))
    if left.step == right.step == 1 and full > 1 and problem.m * problem.n <= 16 and not swapped:
        lanes = min(acc.lanes, 1 << (full.bit_length() - 1))
        if lanes > 1:
            way = Way("dot", replace(acc, lanes=lanes), 1, 1)
            yield way._replace(cost=_dot_cost(problem, way))


def _stream_ways(
    problem: Problem, swapped: bool, left: Side, right: Side, acc: Tile
) -> Iterator[Way]:
    for rows in {1, min(left.items, 2), min(left.items, 4)}:
        tile = replace(acc, rows=rows)
        row_units = -(-left.items // rows)
        for splits in {1, problem.blocks}:
            for wanted in _wanted(problem, problem.batches * row_units * splits):
                columns = -(-right.items // wanted)
                columns = min(-(-columns // acc.lanes) * acc.lanes, CHAINS // rows)
                way = Way("stream", tile, rows, columns, splits, swapped=swapped)
                yield way._replace(cost=_stream_cost(problem, way))


def _outer_ways(problem: Problem, left: Side, right: Side, acc: Tile) -> Iterator[Way]:
    """The depth stands in the place of the tile's vectors."""
    rows = 2 if left.items > 1 else 1
    tile = replace(acc, rows=rows, vectors=problem.depth)
    row_units = problem.batches * -(-left.items // rows)
    columns = right.items
    if row_units < 4 * problem.threads > 4:
        columns = -(-columns // (4 * problem.threads))
    way = Way("outer", tile, rows, max(columns, acc.lanes))
    vectors, rest = divmod(min(way.columns, right.items), acc.lanes)
    unit = (vectors + rest) * rows * (problem.depth / 2 + 1) + 60
    most, sync = _spread(problem, _units(problem, way, left, right))
    yield way._replace(cost=most * unit + sync)


def _traffic(problem: Problem, right: Side) -> float:
    """Cycles per element of the right operand that memory needs at least."""
    nbytes = problem.batches * right.items * problem.depth * problem.dtype.itemsize
    return problem.dtype.itemsize / (_BYTES_PER_CYCLE if nbytes > _FAR else 24.0)


def _units(problem: Problem, way: Way, left: Side, right: Side) -> int:
    return problem.batches * -(-left.items // way.rows) * -(-right.items // way.columns)


def _stream_cost(problem: Problem, way: Way) -> float:
    left, right = problem.sides(way.swapped)
    tile, depth = way.tile, problem.depth
    span = min(depth, BLOCK) if way.splits > 1 else depth
    columns = min(way.columns, right.items)
    vectors, rest = divmod(columns, tile.lanes)
    slots = vectors + rest
    group = max(8 // tile.rows, 2)
    step = max(tile.rows / 2, 0.5 + tile.rows / group) + 0.5
    kept = 2 * tile.rows * columns * tile.dtype.itemsize  # chains and sums
    step += 0.8 if kept > _LEVEL_1 // 4 else 0.0
    step += 4.0 * tile.rows if problem.dtype is not tile.dtype else 0.0
    reading = columns * _traffic(problem, right)
    end = slots * tile.rows * (4 if not way.swapped or problem.n == 1 else 4 + 2 * tile.lanes)
    unit = span * max(slots * step + 20 / group, reading) + end + 80
    most, sync = _spread(problem, _units(problem, way, left, right) * way.splits)
    return most * unit + sync + _combine_cost(problem, way.splits)


def _matvec_cost(problem: Problem, way: Way) -> float:
    left, right = problem.sides(way.swapped)
    tile = way.tile
    span = min(problem.depth, BLOCK) if way.splits > 1 else problem.depth
    whole = span // tile.lanes * tile.lanes
    step = max(tile.vectors * (1.5 + 1.2 * tile.rows), 4.0)
    reading = tile.columns * _traffic(problem, right)
    unit = whole * max(step, reading) + (span - whole) * 12 * tile.vectors + 80
    most, sync = _spread(problem, _units(problem, way, left, right) * way.splits)
    return most * unit + sync + _combine_cost(problem, way.splits)


def _dot_cost(problem: Problem, way: Way) -> float:
    lanes = way.tile.lanes
    full, rest = divmod(problem.depth, BLOCK)
    groups = -(-full // lanes)
    outputs = problem.batches * problem.m * problem.n
    units = outputs * (groups + (rest > 0))
    most, sync = _spread(problem, units)
    unit = BLOCK * lanes * max(4.0 / lanes, 2 * problem.dtype.itemsize / _BYTES_PER_CYCLE / 2)
    adding = outputs * problem.blocks * 4
    return most * unit + sync + adding + 300
