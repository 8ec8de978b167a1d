"""Matrix multiplication as loop IR: ``out[b, i, j] = sum over k of a[b, i, k] * b[b, k, j]``.

Two matrices meet in a register tile. The *left* one gives one element for each row of the tile, so
it is read with k contiguous; the *right* one gives vectors, so it is read where columns are
contiguous, or packed into panels first. As a*b = b*a, either operand can play either part:
whichever makes the reading cheap (``_candidates``). Nothing of this changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.codegen.contraction import (
    BLOCK,
    UNIT_ROWS,
    Factor,
    Pack,
    Slot,
    Tile,
    Workspaces,
    accumulator,
    add_tile,
    ceil_div,
    finish_launch,
    in_order,
    multiply,
    sizes,
    tile_for,
    tile_rows,
)
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, Builder, Kernel, Operand

_SIZES = (
    "m", "n", "depth",
    "left_batch", "left_row",
    "right_batch", "right_panel", "right_step",
    "last_column",  # where the last panel starts at most: it may overlap the one before
    "out_batch", "out_row", "out_column", "out_split",
    "rows", "columns",  # of a unit, in tiles
    "row_units", "column_units", "splits",
    "span",  # blocks of k in a split
)  # fmt: skip
_UNIT_COLUMNS = 128  # of a unit at most: two blocks of k fit a level-2 cache beside its rows
_LEVEL_1 = 32 << 10  # bytes
_DIRECT_ROWS = 4  # row tiles up to which reading the right matrix where it lies beats packing it


def gemm(tile: Tile) -> Kernel:
    """The kernel. A unit is a block of tiles of one batch, over one split of k."""
    k = Builder(f"gemm_{tile.name}")
    out, left, right = (k.pointer(name, tile.dtype) for name in ("out", "left", "right"))
    size = sizes(k, _SIZES)
    acc = k.local(tile.dtype, tile.rows * tile.columns)
    spill = k.local(tile.dtype, tile.rows * tile.columns)
    blocks = k.maximum(ceil_div(k, size.depth, BLOCK), 1)
    row_tiles, panels = ceil_div(k, size.m, tile.rows), ceil_div(k, size.n, tile.columns)
    with k.loop(BEGIN, END) as unit:
        split, rest = k.rem(unit, size.splits), k.div(unit, size.splits)
        row_unit, rest = k.rem(rest, size.row_units), k.div(rest, size.row_units)
        column_unit, batch = k.rem(rest, size.column_units), k.div(rest, size.column_units)
        to = k.add(k.mul(batch, size.out_batch), k.mul(split, size.out_split))
        i0, j0 = k.mul(row_unit, size.rows), k.mul(column_unit, size.columns)
        i1 = k.minimum(k.add(i0, size.rows), row_tiles)
        j1 = k.minimum(k.add(j0, size.columns), panels)
        start = k.mul(split, size.span)
        with k.loop(start, k.minimum(k.add(start, size.span), blocks)) as block:
            first = k.compare("eq", block, start)
            k0 = k.mul(block, BLOCK)
            depth = k.minimum(k.sub(size.depth, k0), BLOCK)
            with k.loop(j0, j1) as panel:
                column = k.mul(panel, tile.columns)
                skip = k.sub(column, k.minimum(column, size.last_column))
                shown = k.add(k.minimum(k.sub(size.n, column), tile.columns), skip)
                place = k.add(k.mul(batch, size.right_batch), k.mul(panel, size.right_panel))
                place = k.sub(k.add(place, k.mul(k0, size.right_step)), skip)
                places = [k.add(place, v * tile.lanes) for v in range(tile.vectors)]
                b = Factor(right, places, lambda t: k.mul(t, size.right_step))
                with k.loop(i0, i1) as i:
                    row = k.mul(i, tile.rows)
                    base = k.add(k.mul(batch, size.left_batch), k0)
                    rows = tile_rows(k, tile, row, size.m, base, size.left_row)
                    a = Factor(left, rows, lambda t: t)
                    multiply(k, tile, acc, a, b, depth)
                    at = k.add(to, k.mul(row, size.out_row))
                    slots = _slots(k, tile, k.sub(column, skip), skip, shown, at, size.out_column)
                    count = k.minimum(k.sub(size.m, row), tile.rows)
                    add_tile(k, tile, acc, spill, out, slots, count, size.out_row, first)
    return k.kernel


def _slots(
    k: Builder,
    tile: Tile,
    column: Operand,
    begin: Operand,
    end: Operand,
    base: Operand,
    stride: Operand,
) -> list[Slot]:
    """Where the vectors of a panel go; of its columns only ``begin..end`` are stored."""
    slots = []
    for vector in range(tile.vectors):
        at = vector * tile.lanes
        offset = k.add(base, k.mul(k.add(column, at), stride))
        lo = k.minimum(k.maximum(k.sub(begin, at), 0), tile.lanes)
        hi = k.minimum(k.maximum(k.sub(end, at), 0), tile.lanes)
        slots.append(Slot(offset, lo, hi, stride))
    return slots


@dataclass(frozen=True, slots=True)
class _Side:
    """A factor as (items, k): ``left`` items are rows of the tile, ``right`` ones its columns."""

    argument: Argument
    items: int
    batch: int  # strides
    item: int
    k: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to multiply: who plays which part, with which tile, and what is packed."""

    cost: float
    tile: Tile
    left: _Side
    right: _Side
    out_row: int
    out_column: int
    copy_left: bool
    pack_right: bool


def _candidates(
    a: _Side, b: _Side, dtype: DType, depth: int, vector_bits: int
) -> Iterator[_Candidate]:
    """Every way, with a rough number of cycles for one batch."""
    wide = accumulator(dtype) is not dtype  # packing widens
    for left, right, swapped in ((a, b, False), (b, a, True)):
        out_row, out_column = (1, b.items) if swapped else (b.items, 1)
        copy_left = wide or (left.k != 1 and depth > 1)
        for rows, vectors in _tiles(vector_bits):
            tile = tile_for(dtype, rows, vectors, vector_bits)
            row_tiles, panels = -(-left.items // rows), -(-right.items // tile.columns)
            step = max(rows * vectors / 2, (rows + vectors) / 2)
            if row_tiles > 1 and tile.columns * min(depth, BLOCK) * tile.dtype.itemsize > _LEVEL_1:
                step = max(step, tile.columns * tile.dtype.itemsize / 20)  # panels from level 2
            cost = row_tiles * panels * (depth * step + rows * vectors * 6 + 40)
            if copy_left:
                cost += left.items * depth * 1.5
            if out_column != 1:
                cost += left.items * right.items * (-(-depth // BLOCK)) * 2
            near = right.item == 1
            packing = panels * tile.columns * depth * (0.5 if near else 1.5)
            yield _Candidate(
                cost + packing, tile, left, right, out_row, out_column, copy_left, True
            )
            if near and not wide and right.items >= tile.columns and row_tiles <= _DIRECT_ROWS:
                # Lines of a column block lie far apart: narrow panels read them badly.
                reading = right.items * depth * (8 / tile.columns) * row_tiles
                yield _Candidate(
                    cost + reading, tile, left, right, out_row, out_column, copy_left, False
                )


def _tiles(vector_bits: int) -> tuple[tuple[int, int], ...]:
    """Register tiles (rows, vectors) that fit the registers: large, few columns, one row."""
    return ((14, 2), (6, 1), (1, 4)) if vector_bits >= 512 else ((6, 2), (6, 1), (1, 8))


@lru_cache(maxsize=4096)
def plan_matmul(a: Layout, b: Layout, out: Layout, threads: int, vector_bits: int = 256) -> Plan:
    """``out = a @ b`` in batches.

    Args:
        a: (B, M, K), with any strides.
        b: (B, K, N), with any strides.
        out: (B, M, N), contiguous.
        threads: how many may run the plan at once; the result does not depend on it.
        vector_bits: the width of the target's registers; nor on this.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: the dtypes differ or are bool.
    """
    _check(a, b, out)
    batches, m, depth = a.shape
    n = b.shape[2]
    if batches * m * n == 0:
        return Plan(())
    side_a = _Side(In(0), m, a.strides[0], a.strides[1], a.strides[2])
    side_b = _Side(In(1), n, b.strides[0], b.strides[2], b.strides[1])
    options = _candidates(side_a, side_b, a.dtype, depth, vector_bits)
    best = min(options, key=lambda option: option.cost)
    return _plan(best, batches, depth, out, threads)


def _check(a: Layout, b: Layout, out: Layout) -> None:
    shapes = (a.shape, b.shape, out.shape)
    fits = all(len(shape) == 3 for shape in shapes) and out.shape == (
        a.shape[0], a.shape[1], b.shape[2],
    ) and b.shape[:2] == (a.shape[0], a.shape[2])  # fmt: skip
    if not fits:
        raise ShapeError(
            f"matmul plan: got {a.shape} @ {b.shape} -> {out.shape}; expected "
            "(B, M, K) @ (B, K, N) -> (B, M, N): expand the batch and make the inner sizes equal"
        )
    if not (a.dtype is b.dtype is out.dtype):
        raise DTypeError(
            f"matmul plan: got {a.dtype!r} @ {b.dtype!r} -> {out.dtype!r}; the dtypes must be "
            "equal: convert the operands to one dtype first"
        )
    if not out.is_contiguous:
        raise ShapeError(
            f"matmul plan: the result has strides {out.strides} for shape {out.shape}; "
            "expected a contiguous one"
        )


def _plan(way: _Candidate, batches: int, depth: int, out: Layout, threads: int) -> Plan:
    """The launches for the chosen way."""
    tile, dtype = way.tile, out.dtype
    works, launches = Workspaces(), []
    left, right = way.left, way.right
    m, n = left.items, right.items
    left_at: Argument = left.argument
    left_batch, left_row = left.batch, left.item
    if way.copy_left:
        groups = 1 if left.batch == 0 else batches
        pack = Pack(groups, m, (1, 1, depth), left.batch, left.item, (0, 0, left.k))
        left_at, left_row = works.new(pack.elements, tile.dtype), depth
        left_batch = 0 if groups == 1 else m * depth
        launches.append(pack.rows(left_at, left.argument, dtype, tile.dtype))
    right_at: Argument = right.argument
    right_batch, right_panel, right_step = right.batch, tile.columns, right.k
    last_column = n - tile.columns
    if way.pack_right:
        groups = 1 if right.batch == 0 else batches
        pack = Pack(groups, n, (1, 1, depth), right.batch, right.item, (0, 0, right.k))
        panels = -(-n // tile.columns)
        right_panel, right_step = depth * tile.columns, tile.columns
        right_batch = 0 if groups == 1 else panels * right_panel
        right_at = works.new(groups * panels * right_panel, tile.dtype)
        last_column = n
        launches.append(pack.panels(right_at, right.argument, dtype, tile.dtype, tile.columns))
    rows, columns, splits = _cut(tile, batches, m, n, depth, threads)
    row_units = -(-m // (rows * tile.rows))
    column_units = -(-n // (columns * tile.columns))
    out_at: Argument = Out(0)
    elements = batches * m * n
    if splits > 1 or tile.dtype is not dtype:
        out_at = works.new(splits * elements, tile.dtype)
    values = {
        "m": m, "n": n, "depth": depth,
        "left_batch": left_batch, "left_row": left_row,
        "right_batch": right_batch, "right_panel": right_panel, "right_step": right_step,
        "last_column": last_column,
        "out_batch": m * n, "out_row": way.out_row, "out_column": way.out_column,
        "out_split": elements, "rows": rows, "columns": columns, "row_units": row_units,
        "column_units": column_units, "splits": splits,
        "span": 1 if splits > 1 else max(-(-depth // BLOCK), 1),
    }  # fmt: skip
    args = (out_at, left_at, right_at, *in_order(_SIZES, values))
    units = batches * row_units * column_units * splits
    launches.append(Launch(KernelSpec(gemm, (tile,)), args, units, 2 * elements * depth))
    if isinstance(out_at, Work):
        launches.append(finish_launch(Out(0), out_at, tile.dtype, dtype, elements, splits))
    return Plan(tuple(launches), tuple(works.nbytes))


def _cut(
    tile: Tile, batches: int, m: int, n: int, depth: int, threads: int
) -> tuple[int, int, int]:
    """Tiles of a unit (rows, columns), and splits of k where there are few tiles but many k."""
    row_tiles, panels = -(-m // tile.rows), -(-n // tile.columns)
    # With one panel a row is read once: to its end, rather than block by block.
    rows = 1 if panels == 1 else min(row_tiles, max(UNIT_ROWS // tile.rows, 1))
    columns = min(panels, max(_UNIT_COLUMNS // tile.columns, 1))
    wanted = 4 * threads if threads > 1 else 1
    while batches * -(-row_tiles // rows) * -(-panels // columns) < wanted:
        if rows * columns == 1:
            break
        if rows == 1 or (columns > 1 and columns * tile.columns >= rows * tile.rows):
            columns = -(-columns // 2)
        else:
            rows = -(-rows // 2)
    few = batches * row_tiles * panels < 2 * threads
    blocks = -(-depth // BLOCK)
    return rows, columns, blocks if few and threads > 1 and blocks > 1 else 1
