"""What GEMM and convolution share: the register tile, the packing and the order of the sums.

The value of a contraction is defined, not just approximated: k is cut at multiples of ``BLOCK``;
in a block one chain of FMAs runs over rising k from +0; the result is ((0 + p0) + p1) + ..., each
addition rounded. Layout, tile, packing and threads are free, so they are chosen for speed alone.

Accumulators: float32 and float64 in themselves; float16 in float32; bfloat16 in float32 with the
terms of every pair swapped (1, 0, 3, 2, ...) and subnormals flushed to zero, as the x86 dot
instruction does; integers in 32 or 64 bits, which wrap to the same value as exact sums.

The sign of a zero p is lost: 0 + p0 is +0 for a zero of either sign, and a sum of which one term is
not -0 is never -0. So kernels may flush to either zero, and may add products that are zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError
from treadle.ir.launch import Argument, KernelSpec, Launch, Work
from treadle.ir.loop import BEGIN, END, I64, Builder, Const, Kernel, Operand, Pointer

BLOCK = 512  # L of the numerics: k is cut at its multiples
UNIT_ROWS = 96  # rows of the left factor that are used together: a block of k fits level 2
_RUN = 64  # elements copied at a time where packing transposes


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: ``rows`` x (``vectors`` * ``lanes``) accumulators of ``dtype``.

    ``flush`` selects the arithmetic of bfloat16.
    """

    dtype: DType
    rows: int
    vectors: int
    lanes: int
    flush: bool = False

    @property
    def columns(self) -> int:
        """Columns of the tile."""
        return self.vectors * self.lanes

    @property
    def name(self) -> str:
        """What tells this tile from others in the name of a kernel."""
        flush = "_flush" if self.flush else ""
        return f"{self.dtype.short}{flush}_{self.rows}x{self.vectors}x{self.lanes}"


class Slot(NamedTuple):
    """Where one vector of a tile goes: lanes ``begin..end``, lane j at offset + j * stride."""

    offset: Operand
    begin: Operand
    end: Operand
    stride: Operand


def accumulator(dtype: DType) -> DType:
    """The dtype in which a contraction of ``dtype`` accumulates."""
    if dtype is dtypes.bool_:
        raise DTypeError(
            "a contraction got bool operands; it multiplies and adds numbers: convert the "
            "operands first, for example with .to(treadle.int32)"
        )
    if dtype.kind == "f":
        return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    return dtypes.int64 if dtype.bits == 64 else dtypes.int32


def tile_for(dtype: DType, rows: int, vectors: int, vector_bits: int) -> Tile:
    """The tile of a contraction of ``dtype`` for registers of ``vector_bits``."""
    acc = accumulator(dtype)
    return Tile(acc, rows, vectors, max(vector_bits // acc.bits, 1), dtype is dtypes.bfloat16)


# arithmetic of indices
def ceil_div(k: Builder, a: Operand, b: Operand | int) -> Operand:
    """a / b rounded up, and 0 for negative a; b > 0."""
    return k.div(k.maximum(k.add(a, k.sub(b, 1) if not isinstance(b, int) else b - 1), 0), b)


def negate(k: Builder, condition: Operand) -> Operand:
    """The opposite b1."""
    return k.op("not", condition)


def both(k: Builder, a: Operand, b: Operand) -> Operand:
    """True where both conditions are."""
    return k.op("and", a, b)


def sizes(k: Builder, names: tuple[str, ...]) -> SimpleNamespace:
    """Declares i64 parameters and returns them by name."""
    return SimpleNamespace(**{name: k.size(name) for name in names})


def in_order(names: tuple[str, ...], values: dict[str, int]) -> tuple[int, ...]:
    """The values of the parameters that ``sizes(k, names)`` declared."""
    return tuple(values[name] for name in names)


def widen(k: Builder, value: Operand, acc: DType) -> Operand:
    """An element as a term of the accumulator's dtype; bfloat16 subnormals become zero."""
    wide = k.convert(value, acc)
    return _flushed(k, wide) if value.dtype is dtypes.bfloat16 else wide


def _flushed(k: Builder, value: Operand) -> Operand:
    tiny = k.const(2.0**-126, dtypes.float32)
    is_tiny = k.compare("lt", k.op("abs", value), tiny)
    return k.select(is_tiny, k.const(0.0, dtypes.float32), value)


# the tile
class Mask(NamedTuple):
    """Which terms are there: element not 0, at a row's or a vector's place plus ``step(t)``."""

    pointer: Pointer
    rows: list[Operand] | None  # per row of the tile, or
    columns: list[Operand] | None  # per vector of the tile
    step: Callable[[Operand], Operand]


class Factor(NamedTuple):
    """A factor of the product: the element for step t of k is at place + step(t) (+ the lane)."""

    pointer: Pointer
    places: list[Operand]  # one for each row of the tile (left) or each vector (right)
    step: Callable[[Operand], Operand]


def multiply(
    k: Builder,
    tile: Tile,
    acc: Pointer,
    left: Factor,
    right: Factor,
    end: Operand,
    begin: Operand | None = None,
    mask: Mask | None = None,
) -> None:
    """One block: ``acc[i, j] = sum of left[i, t] * right[t, j]`` for begin <= t < end, from +0.

    With ``tile.flush`` pairs of steps begin at even t, and so must ``begin``.
    """
    zero = k.const(0, tile.dtype)
    for row in range(tile.rows * tile.vectors):
        with k.loop(0, tile.lanes, kind="vector") as lane:
            k.store(acc, k.add(lane, row * tile.lanes), zero)
    line = k.local(tile.dtype, tile.columns)
    # A step keeps the multipliers busy for longer than a loop's end takes: no need to unroll.
    start: Operand = Const(0, I64) if begin is None else begin
    if tile.flush:
        paired = k.maximum(k.mul(k.div(end, 2), 2), start)
        with k.loop(start, paired, step=2) as t:
            _step(k, tile, acc, line, left, right, k.add(t, 1), mask)
            _step(k, tile, acc, line, left, right, t, mask)
        start = paired
    with k.loop(start, end) as t:
        _step(k, tile, acc, line, left, right, t, mask)


def _step(
    k: Builder,
    tile: Tile,
    acc: Pointer,
    line: Pointer,
    left: Factor,
    right: Factor,
    t: Operand,
    mask: Mask | None,
) -> None:
    """One step of k: a rank-one update of the tile, row by row so that one term is live."""
    at = right.step(t)
    for vector in range(tile.vectors):
        start = k.add(right.places[vector], at)
        with k.loop(0, tile.lanes, kind="vector") as lane:
            place = k.add(lane, vector * tile.lanes)
            k.store(line, place, k.load(right.pointer, k.add(start, lane)))
    at = left.step(t)
    there = None if mask is None else mask.step(t)
    for row in range(tile.rows):
        term = k.load(left.pointer, k.add(left.places[row], at))
        for vector in range(tile.vectors):
            with k.loop(0, tile.lanes, kind="vector") as lane:
                b = k.load(line, k.add(lane, vector * tile.lanes))
                place = k.add(lane, (row * tile.vectors + vector) * tile.lanes)
                old = k.load(acc, place)
                new = _multiply_add(k, tile, term, b, old)
                if mask is not None and there is not None:
                    new = _where_there(k, mask, row, vector, lane, there, new, old)
                k.store(acc, place, new)


def _multiply_add(k: Builder, tile: Tile, a: Operand, b: Operand, c: Operand) -> Operand:
    if tile.dtype.kind != "f":
        return k.add(k.mul(a, b), c)
    result = k.fma(a, b, c)
    return _flushed(k, result) if tile.flush else result


def _where_there(
    k: Builder,
    mask: Mask,
    row: int,
    vector: int,
    lane: Operand,
    there: Operand,
    new: Operand,
    old: Operand,
) -> Operand:
    if mask.rows is not None:
        flag = k.load(mask.pointer, k.add(mask.rows[row], there))
    elif mask.columns is not None:
        flag = k.load(mask.pointer, k.add(k.add(mask.columns[vector], there), lane))
    return k.select(k.compare("ne", flag, k.const(0, flag.dtype)), new, old)


def add_tile(
    k: Builder,
    tile: Tile,
    acc: Pointer,
    spill: Pointer,
    target: Pointer,
    slots: list[Slot],
    rows: Operand,
    row_stride: Operand,
    first: Operand,
) -> None:
    """``target = (0 if first else target) + acc`` for the tile's first ``rows`` rows."""
    for vector in range(tile.rows * tile.vectors):
        with k.loop(0, tile.lanes, kind="vector") as lane:
            place = k.add(lane, vector * tile.lanes)
            k.store(spill, place, k.load(acc, place))
    zero = k.const(0, tile.dtype)

    def add_to(place: Operand, value: Operand) -> None:
        old = k.select(first, zero, k.load(target, place))
        k.store(target, place, k.add(old, value))

    for vector, slot in enumerate(slots):
        whole = k.compare("eq", k.sub(slot.end, slot.begin), tile.lanes)
        whole = both(k, whole, k.compare("eq", slot.stride, 1))
        with k.loop(0, rows) as row:
            start = k.add(slot.offset, k.mul(row, row_stride))
            at = k.add(k.mul(row, tile.columns), vector * tile.lanes)
            with k.when(whole), k.loop(0, tile.lanes, kind="vector") as lane:
                add_to(k.add(start, lane), k.load(spill, k.add(at, lane)))
            with k.when(negate(k, whole)), k.loop(slot.begin, slot.end) as j:
                place = k.add(start, k.mul(j, slot.stride))
                add_to(place, k.load(spill, k.add(at, j)))


def tile_rows(
    k: Builder, tile: Tile, row: Operand, m: Operand, base: Operand, stride: Operand
) -> list[Operand]:
    """Where the tile's rows start; beyond the last row, the last again (its sums are dropped)."""
    last = k.sub(m, 1)
    indices = [k.minimum(k.add(row, i), last) for i in range(tile.rows)]
    return [k.add(base, k.mul(index, stride)) for index in indices]


# packing
PACK_SIZES = ("length", "n1", "n2", "n3", "s_group", "s_item", "s1", "s2", "s3")


def pack_rows(source: DType, acc: DType) -> Kernel:
    """Copies items of a matrix so that k is contiguous: ``target[group, item, k]``.

    k is (n1, n2, n3) with strides s1, s2, s3; ``length`` items in each group. One unit is an item.
    """
    k = Builder(f"pack_rows_{source.short}")
    target, matrix = k.pointer("target", acc), k.pointer("matrix", source)
    size = sizes(k, PACK_SIZES)
    depth = k.mul(k.mul(size.n1, size.n2), size.n3)
    near = k.compare("eq", size.s3, 1)
    with k.loop(BEGIN, END) as unit:
        group, item = k.div(unit, size.length), k.rem(unit, size.length)
        base = k.add(k.mul(group, size.s_group), k.mul(item, size.s_item))
        to = k.mul(unit, depth)
        with k.when(near), k.loop(0, size.n1) as i1, k.loop(0, size.n2) as i2:
            start = k.add(k.add(base, k.mul(i1, size.s1)), k.mul(i2, size.s2))
            at = k.add(to, k.mul(k.add(k.mul(i1, size.n2), i2), size.n3))
            with k.loop(0, size.n3, kind="vector") as i3:
                value = k.load(matrix, k.add(start, i3))
                k.store(target, k.add(at, i3), widen(k, value, acc))
        with k.when(negate(k, near)), k.loop(0, size.n3) as i3:  # taps of a weight lie together
            line = k.add(base, k.mul(i3, size.s3))
            with k.loop(0, size.n1) as i1, k.loop(0, size.n2) as i2:
                start = k.add(k.add(line, k.mul(i1, size.s1)), k.mul(i2, size.s2))
                at = k.add(k.mul(k.add(k.mul(i1, size.n2), i2), size.n3), i3)
                k.store(target, k.add(to, at), widen(k, k.load(matrix, start), acc))
    return k.kernel


def pack_panels(source: DType, acc: DType, columns: int) -> Kernel:
    """Copies items into panels of ``columns``: ``target[group, panel, k, column]``.

    The last panel is filled up with zeros, whose products are dropped. k is (n1, n2, n3) with
    strides s1, s2, s3; ``length`` items in each group. One unit is one i1 of one panel.
    """
    k = Builder(f"pack_panels_{source.short}_{columns}")
    target, matrix = k.pointer("target", acc), k.pointer("matrix", source)
    size = sizes(k, PACK_SIZES)
    panels = ceil_div(k, size.length, columns)
    depth = k.mul(size.n2, size.n3)
    with k.loop(BEGIN, END) as unit:
        i1, panel = k.rem(unit, size.n1), k.div(unit, size.n1)
        first = k.mul(k.rem(panel, panels), columns)
        base = k.add(k.mul(k.div(panel, panels), size.s_group), k.mul(first, size.s_item))
        count = k.minimum(k.sub(size.length, first), columns)
        near = both(k, k.compare("eq", size.s_item, 1), k.compare("eq", count, columns))
        with k.loop(0, size.n2) as i2:
            start = k.add(k.add(base, k.mul(i1, size.s1)), k.mul(i2, size.s2))
            at = k.mul(k.add(k.mul(unit, depth), k.mul(i2, size.n3)), columns)
            with k.when(near), k.loop(0, size.n3) as i3:
                line = k.add(start, k.mul(i3, size.s3))
                to = k.add(at, k.mul(i3, columns))
                with k.loop(0, columns, kind="vector") as j:
                    value = k.load(matrix, k.add(line, j))
                    k.store(target, k.add(to, j), widen(k, value, acc))
            with k.when(negate(k, near)), k.loop(0, size.n3, step=_RUN) as run:
                stop = k.minimum(k.add(run, _RUN), size.n3)
                with k.loop(0, count) as j, k.loop(run, stop) as i3:
                    place = k.add(k.add(start, k.mul(j, size.s_item)), k.mul(i3, size.s3))
                    to = k.add(k.add(at, k.mul(i3, columns)), j)
                    k.store(target, to, widen(k, k.load(matrix, place), acc))
                with k.loop(count, columns) as j, k.loop(run, stop) as i3:
                    to = k.add(k.add(at, k.mul(i3, columns)), j)
                    k.store(target, to, k.const(0, acc))
    return k.kernel


@dataclass(frozen=True, slots=True)
class Pack:
    """What to pack: ``length`` items in each of ``groups``, k as (n1, n2, n3), and the strides."""

    groups: int
    length: int
    depth: tuple[int, int, int]
    group_stride: int
    item_stride: int
    depth_strides: tuple[int, int, int]

    def arguments(self) -> tuple[int, ...]:
        """The values of PACK_SIZES."""
        return (
            self.length, *self.depth, self.group_stride, self.item_stride, *self.depth_strides
        )  # fmt: skip

    @property
    def elements(self) -> int:
        """Elements read."""
        n1, n2, n3 = self.depth
        return self.groups * self.length * n1 * n2 * n3

    def rows(self, target: Argument, source: Argument, dtype: DType, acc: DType) -> Launch:
        """The launch that packs with k contiguous."""
        spec = KernelSpec(pack_rows, (dtype, acc))
        args = (target, source, *self.arguments())
        return Launch(spec, args, self.groups * self.length, 2 * self.elements)

    def panels(
        self, target: Argument, source: Argument, dtype: DType, acc: DType, columns: int
    ) -> Launch:
        """The launch that packs into panels."""
        spec = KernelSpec(pack_panels, (dtype, acc, columns))
        units = self.groups * -(-self.length // columns) * self.depth[0]
        return Launch(spec, (target, source, *self.arguments()), units, 2 * self.elements)


# the end
def finish(acc: DType, dtype: DType) -> Kernel:
    """``result = ((parts[0] + parts[1]) + ...)`` rounded to ``dtype``; one unit is one element."""
    k = Builder(f"finish_{acc.short}_{dtype.short}")
    result, parts = k.pointer("result", dtype), k.pointer("parts", acc)
    size = sizes(k, ("count", "stride"))
    with k.loop(1, size.count) as part:
        base = k.mul(part, size.stride)
        with k.loop(BEGIN, END, kind="vector") as i:
            k.store(parts, i, k.add(k.load(parts, i), k.load(parts, k.add(base, i))))
    with k.loop(BEGIN, END, kind="vector") as i:
        k.store(result, i, k.convert(k.load(parts, i), dtype))
    return k.kernel


def finish_launch(
    result: Argument, parts: Argument, acc: DType, dtype: DType, elements: int, count: int
) -> Launch:
    """The launch of ``finish`` for ``count`` parts of ``elements`` each."""
    spec = KernelSpec(finish, (acc, dtype))
    return Launch(spec, (result, parts, count, elements), elements, elements * (count + 1))


class Workspaces:
    """The workspaces of a plan as it grows."""

    def __init__(self) -> None:
        self.nbytes: list[int] = []

    def new(self, elements: int, dtype: DType) -> Work:
        """A workspace of at least one element."""
        self.nbytes.append(max(elements, 1) * dtype.itemsize)
        return Work(len(self.nbytes) - 1)
