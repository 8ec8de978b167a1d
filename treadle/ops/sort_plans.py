"""How sorts, the first k of them and searches become launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.shapes import prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, Builder, Kernel, Operand
from treadle.ops import sort_kernels as kernels
from treadle.ops import topk_kernels

_LONG_ROW = 1 << 15  # elements of a row that is worth sorting on several threads
_PIECE = 1 << 14  # elements of a piece of a long row, for the first k
_RADIX_WORK = 40  # operations for each element

# --- plans ----------------------------------------------------------------------------------------


class _Problem:
    """The first ``kept`` of every row of a sort of (outer, n, inner)."""

    def __init__(self, x: Layout, axis: int, descending: bool, kept: int) -> None:
        self.dtype, self.descending, self.kept = x.dtype, descending, kept
        self.n, self.inner = x.shape[axis], prod(x.shape[axis + 1 :])
        self.rows = prod(x.shape[:axis]) * self.inner
        self.packed = kernels.is_packed(x.dtype, self.n)
        self.words = 1 if self.packed else 2

    @property
    def numbers(self) -> tuple[int, ...]:
        """The parameters that tell of the rows."""
        return (self.n, self.kept, *(() if self.inner == 1 else (self.inner,)))

    @property
    def key(self) -> tuple[Any, ...]:
        """How the kernels for rows are named."""
        return self.dtype.short, self.descending, self.packed, self.inner == 1

    def tables(self, first: int = 0) -> tuple[Argument, ...]:
        """Arrays of entries, from workspace ``first`` on."""
        return tuple(Work(first + i) for i in range(self.words))


_RESULTS: tuple[Argument, ...] = (Out(0), Out(1), In(0))


def _sort_plan(inputs: Sequence[Layout], attrs: dict[str, Any], threads: int) -> Plan:
    axis = attrs["axis"]
    problem = _Problem(inputs[0], axis, attrs["descending"], inputs[0].shape[axis])
    return _planned(problem, threads)


def _topk_plan(inputs: Sequence[Layout], attrs: dict[str, Any], threads: int) -> Plan:
    problem = _Problem(inputs[0], attrs["axis"], attrs["largest"], attrs["k"])
    if problem.kept > topk_kernels.LARGEST_K or problem.n <= kernels.COUNTED:
        return _planned(problem, threads)
    return _first_plan(problem, threads)


def _planned(problem: _Problem, threads: int) -> Plan:
    """By counting for short rows; by radix row by row, or block by block of one long row."""
    n, rows = problem.n, problem.rows
    if rows * problem.kept == 0:
        return Plan(())
    if n <= kernels.COUNTED:
        spec = KernelSpec(kernels.count_kernel, problem.key)
        return Plan((Launch(spec, (*_RESULTS, *problem.numbers), rows, rows * n * n),))
    if n >= _LONG_ROW and rows < threads:
        return _long_plan(problem, threads)
    spec = KernelSpec(kernels.radix_kernel, problem.key)
    arguments = (*_RESULTS, *problem.tables(), *problem.numbers)
    launch = Launch(spec, arguments, rows, rows * n * _RADIX_WORK)
    space = threads * 2 * n * I64.itemsize  # any thread may take a row, however few there are
    return Plan((launch,), (space,) * problem.words)


def _long_plan(problem: _Problem, threads: int) -> Plan:
    """Row after row, each in blocks for all threads."""
    n, inner, kept, words = problem.n, problem.inner, problem.kept, problem.words
    blocks = 4 * threads
    passes = problem.dtype.bits // kernels.DIGIT_BITS
    table = Work(words)
    launches: list[Launch] = []
    for row in range(problem.rows):
        around, column = divmod(row, inner)
        x = In(0, around * n * inner + column)
        for number in range(passes):
            is_first = number == 0
            state = Work(words + 1, number * I64.itemsize)
            arguments = (table, state, *problem.tables(), x, n, inner, blocks)
            key = (problem.dtype.short, problem.descending, problem.packed, number, is_first)
            launches += (
                Launch(KernelSpec(kernels.histogram_kernel, key), arguments, blocks, 4 * n),
                Launch(KernelSpec(kernels.places_kernel, (is_first,)), (table, state, n, blocks),
                       1, blocks * kernels.DIGITS),
                Launch(KernelSpec(kernels.move_kernel, key), arguments, blocks, 6 * n),
            )  # fmt: skip
        state = Work(words + 1, passes * I64.itemsize)
        spec = KernelSpec(kernels.deal_kernel, (problem.dtype.short, problem.packed))
        place = around * kept * inner + column
        results = (Out(0, place), Out(1, place), x)
        launches.append(Launch(spec, (*results, state, *problem.tables(), inner), kept, 4 * kept))
    space = (2 * n * I64.itemsize,) * words
    sizes = (blocks * kernels.DIGITS * I64.itemsize, (passes + 1) * I64.itemsize)
    return Plan(tuple(launches), (*space, *sizes))


def _first_plan(problem: _Problem, threads: int) -> Plan:
    """The first k entries of every row, or first of every piece of it."""
    n, rows, kept = problem.n, problem.rows, problem.kept
    if rows * kept == 0:
        return Plan(())
    size = max(8, 1 << (kept - 1).bit_length())
    pieces = -(-n // _PIECE) if rows < 4 * threads and n >= 2 * _PIECE else 1
    length = n if pieces == 1 else _PIECE
    spec = KernelSpec(topk_kernels.first_kernel, (*problem.key, size, pieces == 1))
    numbers = (*problem.numbers, pieces, length)
    if pieces == 1:
        return Plan((Launch(spec, (*_RESULTS, *numbers), rows, rows * n * 4),))
    tables = problem.tables()
    first = Launch(spec, (In(0), *tables, *numbers), rows * pieces, rows * n * 4)
    key = (problem.dtype.short, problem.packed, problem.inner == 1, size)
    last = Launch(
        KernelSpec(topk_kernels.first_of_pieces_kernel, key),
        (*_RESULTS, *tables, *problem.numbers, pieces), rows, rows * pieces * kept * 4,
    )  # fmt: skip
    return Plan((first, last), (rows * pieces * kept * I64.itemsize,) * problem.words)


# --- search ---------------------------------------------------------------------------------------

_SEARCHED = 64  # values that are searched for side by side


def _search_kernel(short: str, right: bool, is_shared: bool) -> Kernel:
    """A unit is a value: halves what is left of its row, in as many steps for every value."""
    dtype = dtypes.by_short(short)
    k = Builder(f"search_{short}_{'right' if right else 'left'}")
    out, row = k.pointer("out", I64), k.pointer("row", dtype)
    values = k.pointer("values", dtype)
    n, steps = k.size("n"), k.size("steps")
    count = None if is_shared else k.size("count")
    low, high = k.local(I64, _SEARCHED), k.local(I64, _SEARCHED)

    def halve(lane: Operand, at: Operand) -> None:
        """Row elements before the place are < the value (<= where ``right``)."""
        lo, hi = k.load(low, lane), k.load(high, lane)
        middle = k.op("shr", k.add(lo, hi), 1)
        base = k.mul(k.div(at, count), n) if count else k.const(0, I64)
        element = k.load(row, k.add(base, k.minimum(middle, k.sub(n, 1))))
        beyond = k.op("gt" if right else "ge", element, k.load(values, at))
        open_ = k.op("lt", lo, hi)
        k.store(low, lane, k.select(k.op("and", open_, k.op("not", beyond)), k.add(middle, 1), lo))
        k.store(high, lane, k.select(k.op("and", open_, beyond), middle, hi))

    with k.loop(BEGIN, END, _SEARCHED) as first:
        present = k.minimum(k.sub(END, first), _SEARCHED)
        with k.loop(0, present, kind="vector") as lane:
            k.store(low, lane, k.const(0, I64))
            k.store(high, lane, n)
        with k.loop(0, steps), k.loop(0, present, kind="vector") as lane:
            halve(lane, k.add(first, lane))
        with k.loop(0, present, kind="vector") as lane:
            k.store(out, k.add(first, lane), k.load(low, lane))
    return k.kernel


def _search_plan(inputs: Sequence[Layout], attrs: dict[str, Any], threads: int) -> Plan:
    row, values = inputs
    count, n = prod(values.shape), row.shape[-1]
    if not count:
        return Plan(())
    is_shared = prod(row.shape[:-1]) == 1
    steps = n.bit_length()
    spec = KernelSpec(_search_kernel, (row.dtype.short, attrs["right"], is_shared))
    arguments = (Out(0), In(0), In(1), n, steps, *(() if is_shared else (values.shape[-1],)))
    return Plan((Launch(spec, arguments, count, count * (4 + 4 * steps)),))


PLANS = {"sort": _sort_plan, "topk": _topk_plan, "search_sorted": _search_plan}

__all__ = ["PLANS"]
