"""What GEMM and convolution share: the register tile and the order of the sums.

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
from dataclasses import dataclass, replace
from types import SimpleNamespace

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.errors import DTypeError
from treadle.base.record import Record
from treadle.ir.launch import Work
from treadle.ir.loop import Builder, Operand, Pointer

BLOCK = 512  # L of the numerics: k is cut at its multiples


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
    """Zero for a value that, rounded to float32 as usual, is subnormal.

    That the dot instruction looks at the value so rounded is assumed. If it rounded to 24 bits with
    an exponent without bounds, it would flush 2**-126 * [1 - 2**-24, 1 - 2**-25) too, which becomes
    2**-126 here: a term between 2**-151 and 2**-150 taken from 2**-126 can tell.
    """
    tiny = k.const(2.0**-126, dtypes.float32)
    is_tiny = k.compare("lt", k.op("abs", value), tiny)
    return k.select(is_tiny, k.const(0.0, dtypes.float32), value)


# the tile
class Factor(Record):
    """A factor of the product: the element for step t of k is at place + step(t) (+ the lane)."""

    pointer: Pointer
    places: list[Operand]  # one for each row of the tile (left) or each vector (right)
    step: Callable[[Operand], Operand]


def multiply(
    k: Builder, tile: Tile, acc: Pointer, left: Factor, right: Factor, end: Operand
) -> None:
    """One block: ``acc[i, j] = sum of left[i, t] * right[t, j]`` for t < end, from +0.

    For a tile with ``flush`` pairs of steps lie swapped already, and this is right where no
    subnormal can arise: none is looked for.
    """
    zero = k.const(0, tile.dtype)
    for row in range(tile.rows * tile.vectors):
        with k.loop(0, tile.lanes, kind="vector") as lane:
            k.store(acc, k.add(lane, row * tile.lanes), zero)
    line = k.local(tile.dtype, tile.columns)
    plain = replace(tile, flush=False)
    # A step keeps the multipliers busy for longer than a loop's end takes: no need to unroll.
    with k.loop(0, end) as t:
        _step(k, plain, acc, line, left, right, t)


def in_pairs(k: Builder, t: Operand, end: Operand) -> Operand:
    """The step at place t of a sum of ``end`` terms whose pairs are swapped: 1, 0, 3, 2, ..."""
    return k.minimum(k.op("xor", t, 1), k.sub(end, 1))


def _step(
    k: Builder, tile: Tile, acc: Pointer, line: Pointer, left: Factor, right: Factor, t: Operand
) -> None:
    """One step of k: a rank-one update of the tile."""
    right_at, left_at = right.step(t), left.step(t)

    def read_right(vector: int) -> None:
        start = k.add(right.places[vector], right_at)
        with k.loop(0, tile.lanes, kind="vector") as lane:
            place = k.add(lane, vector * tile.lanes)
            k.store(line, place, k.load(right.pointer, k.add(start, lane)))

    def add_product(row: int, vector: int, term: Operand) -> None:
        with k.loop(0, tile.lanes, kind="vector") as lane:
            b = k.load(line, k.add(lane, vector * tile.lanes))
            place = k.add(lane, (row * tile.vectors + vector) * tile.lanes)
            k.store(acc, place, multiply_add(k, tile, term, b, k.load(acc, place)))

    def read_left(row: int) -> Operand:
        return k.load(left.pointer, k.add(left.places[row], left_at))

    # Registers hold the shorter side whole; of the longer one a single term is live.
    if tile.rows < tile.vectors:
        terms = [read_left(row) for row in range(tile.rows)]
        for vector in range(tile.vectors):
            read_right(vector)
            for row in range(tile.rows):
                add_product(row, vector, terms[row])
        return
    for vector in range(tile.vectors):
        read_right(vector)
    for row in range(tile.rows):
        term = read_left(row)
        for vector in range(tile.vectors):
            add_product(row, vector, term)


def multiply_add(k: Builder, tile: Tile, a: Operand, b: Operand, c: Operand) -> Operand:
    """``a * b + c`` in the arithmetic of the tile."""
    if tile.dtype.kind != "f":
        return k.add(k.mul(a, b), c)
    result = k.fma(a, b, c)
    return _flushed(k, result) if tile.flush else result


def tile_rows(
    k: Builder, tile: Tile, row: Operand, m: Operand, base: Operand, stride: Operand
) -> list[Operand]:
    """Where the tile's rows start; beyond the last row, the last again (its sums are dropped)."""
    last = k.sub(m, 1)
    indices = [k.minimum(k.add(row, i), last) for i in range(tile.rows)]
    return [k.add(base, k.mul(index, stride)) for index in indices]


# the plan
class Workspaces:
    """The workspaces of a plan as it grows."""

    def __init__(self) -> None:
        self.nbytes: list[int] = []

    def new(self, elements: int, dtype: DType) -> Work:
        """A workspace of at least one element."""
        self.nbytes.append(max(elements, 1) * dtype.itemsize)
        return Work(len(self.nbytes) - 1)
