"""Rows that stay in the cache: reductions with what feeds them and what follows from them.

A row is the elements that are reduced together. Values are *full* (one for each element) or *row*
values (one for each row). A kernel goes over a row in passes: the reductions of one pass read
nothing that a later one gives, and what depends on their results comes in a later pass. So softmax
is three passes over each row (the maximum, the exponentials and their sum, the quotients) but reads
and writes memory once. Values that a later pass needs again are computed again, or kept in a
scratch row where that is dear. The order of every sum is that of ``compiler.reduction``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from treadle.base import dtypes
from treadle.base.record import Record
from treadle.base.shapes import Shape, contiguous_strides, prod
from treadle.compiler.recipe import Statement, emit_statement
from treadle.compiler.reduction import divide_up, split_axes
from treadle.compiler.reduction_kernels import (
    CHUNK,
    HALVES,
    STRIPES,
    Accumulators,
    lowering,
    masked_stripes,
    merge_neighbours,
)
from treadle.compiler.walks import Runs, Walk, step_classes
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, THREAD, Builder, Kernel, Operand, Pointer
from treadle.ir.node import type_of
from treadle.ops import registry

_DEAR = 8  # operations an element from which a value is kept rather than computed again


class Load(Record):
    """Something read: one element for each of the row's, or one for the row."""

    dtype: str
    full: bool


class Reduce(Record):
    """A reduction of the full value ``arg``; its results are row values."""

    op: str
    arg: int
    dtypes: tuple[str, ...]


class RowRecipe(Record):
    """Values in order: the loads, then each step's (a statement has one, a reduction several).

    A statement is full where an argument is. ``results`` are the values that are stored: the
    number, and whether each element is (or one for the row).
    """

    loads: tuple[Load, ...]
    steps: tuple[Statement | Reduce, ...]
    results: tuple[tuple[int, bool], ...]


class Schedule:
    """For every value of a recipe: its dtype, its level, and the pass in which it can be had."""

    def __init__(self, recipe: RowRecipe) -> None:
        self.dtypes = [load.dtype for load in recipe.loads]
        self.full = [load.full for load in recipe.loads]
        self.ready = [0] * len(recipe.loads)
        self.maker: list[Statement | Reduce | None] = [None] * len(recipe.loads)
        for step in recipe.steps:
            if isinstance(step, Reduce):
                self._append(step, step.dtypes, False, self.ready[step.arg] + 1)
            else:
                ready = max((self.ready[a] for a in step.args), default=0)
                is_full = any(self.full[a] for a in step.args)
                is_full = is_full or (len(self.full), True) in recipe.results
                self._append(step, (step.dtype,), is_full, ready)
        stored = [v for v, is_full in recipe.results if is_full]
        sums = [v for v, step in enumerate(self.maker) if isinstance(step, Reduce)]
        self.passes = max((self.ready[v] + 1 for v in stored), default=0)
        self.passes = max([self.passes, *(self.ready[v] for v in sums)])
        self.goals = [
            [
                *(v for v in stored if self.ready[v] == p),
                *(
                    s.arg for s in recipe.steps
                    if isinstance(s, Reduce) and self.ready[s.arg] == p
                ),
            ]
            for p in range(self.passes)
        ]  # fmt: skip
        self.scratch = self._worth_keeping(set(stored))

    def _append(
        self, step: Statement | Reduce, names: Sequence[str], is_full: bool, ready: int
    ) -> None:
        for dtype in names:
            self.dtypes.append(dtype)
            self.full.append(is_full)
            self.ready.append(ready)
            self.maker.append(step)

    def _worth_keeping(self, stored: set[int]) -> list[int]:
        """Dear values that a pass after their own needs, and that are not stored anyway."""
        found: set[int] = set()
        for p, goals in enumerate(self.goals):
            is_earlier = partial(self._is_dear_before, p)
            found.update(filter(is_earlier, self.closure(goals, is_earlier)))
        # It must be computed in its own pass, so something there must want it.
        return [v for v in sorted(found - stored) if self._is_wanted(v)]

    def _is_dear_before(self, p: int, value: int) -> bool:
        return self.ready[value] < p and self._is_dear(value)

    def _is_wanted(self, value: int) -> bool:
        return value in self.closure(self.goals[self.ready[value]], lambda v: False)

    def _is_dear(self, value: int) -> bool:
        step = self.maker[value]
        if not isinstance(step, Statement) or not self.full[value]:
            return False
        kind = type_of(dtypes.by_short(step.dtype), (1,))
        types = [type_of(dtypes.by_short(self.dtypes[a]), (1,)) for a in step.args]
        return registry.get(step.op).cost(types, kind, dict(step.attrs)).flops >= _DEAR

    def closure(self, goals: Sequence[int], known: Callable[[int], bool]) -> list[int]:
        """The full values that ``goals`` need, in order; what is ``known`` needs nothing more."""
        found: set[int] = set()
        todo = list(goals)
        while todo:
            v = todo.pop()
            if v in found or not self.full[v]:
                continue
            found.add(v)
            step = self.maker[v]
            if isinstance(step, Statement) and not known(v):
                todo += step.args
        return sorted(found)


# --- the plan -------------------------------------------------------------------------------------


def plan_rows(
    recipe: RowRecipe, loads: Sequence[Layout], offsets: Sequence[int], axes: tuple[int, ...],
    shape: Shape, threads: int,
) -> Plan:  # fmt: skip
    """The launch that computes ``recipe`` for rows along ``axes`` of loads that lie so.

    All loads have the ``shape`` of a full value; a row value's strides along ``axes`` are 0.
    Results are stored row-major.
    """
    schedule = Schedule(recipe)
    row_major = contiguous_strides(shape)
    stored = [v for v, is_full in recipe.results if is_full]
    outs = [Layout(dtypes.by_short(schedule.dtypes[v]), shape, row_major) for v in stored]
    kept, reduced = split_axes([*loads, *outs], axes)
    run, steps = reduced.sizes[-1], [row[-1] for row in reduced.strides]
    outer = reduced.without(len(reduced.sizes) - 1)
    count = prod(shape[a] for a in axes)
    num_chunks = divide_up(count, CHUNK)
    key = (recipe, len(outer.sizes), step_classes(steps), len(kept.sizes), num_chunks > 1)
    workspaces = [
        threads * count * dtypes.by_short(schedule.dtypes[v]).itemsize for v in schedule.scratch
    ]
    if num_chunks > 1:
        workspaces += [
            threads * num_chunks * dtype.itemsize
            for step in recipe.steps
            if isinstance(step, Reduce)
            for dtype, _ in lowering(step.op).accumulators(
                dtypes.by_short(schedule.dtypes[step.arg])
            )
        ]
    arguments: tuple[Argument, ...] = (
        *(Out(j) for j in range(len(recipe.results))),
        *(In(j, offset) for j, offset in enumerate(offsets)),
        *(Work(j) for j in range(len(workspaces))),
        count,
        *((num_chunks, (num_chunks - 1).bit_length()) if num_chunks > 1 else ()),
        *((run, *outer.numbers) if outer.sizes else ()),
        *(step for step in steps if step not in (0, 1)),
        *kept.numbers,
    )
    work = prod(shape) * (len(recipe.steps) + len(loads))
    spec = KernelSpec(rows_kernel, key)
    launch = Launch(spec, arguments, prod(kept.sizes), work)
    return Plan((launch,), tuple(workspaces))


# --- the kernel -----------------------------------------------------------------------------------


def rows_kernel(
    recipe: RowRecipe, outer_rank: int, classes: str, kept_rank: int, is_chunked: bool
) -> Kernel:
    """A unit is a row; the stripes of its sums, and else its elements, are the lanes."""
    return _Writer(recipe, outer_rank, classes, kept_rank, is_chunked).kernel()


class _Sum:
    """A reduction as the kernel keeps it: stripes, and where there are chunks their results."""

    def __init__(self, k: Builder, step: Reduce, schedule: Schedule, first: int) -> None:
        self.step = step
        self.rules = lowering(step.op)
        self.first = first  # of its results among the values
        self.accumulators = self.rules.accumulators(dtypes.by_short(schedule.dtypes[step.arg]))
        self.identity = tuple(k.const(value, dtype) for dtype, value in self.accumulators)
        self.partials: list[Pointer] = []
        self.base: Operand = k.const(0, I64)

    def declare(self, k: Builder) -> None:
        """Its scratch memory, which becomes registers."""
        self.stripes = [k.local(dtype, STRIPES) for dtype, _ in self.accumulators]
        self.tree = [k.local(dtype, STRIPES) for dtype, _ in self.accumulators]


def _load(k: Builder, places: Sequence[Pointer], index: Operand) -> Accumulators:
    return tuple(k.load(p, index) for p in places)


def _store(k: Builder, places: Sequence[Pointer], index: Operand, values: Accumulators) -> None:
    for place, value in zip(places, values, strict=True):
        k.store(place, index, value)


class _Writer:
    """Writes the kernel of a recipe."""

    def __init__(
        self, recipe: RowRecipe, outer_rank: int, classes: str, kept_rank: int, is_chunked: bool
    ) -> None:
        self.recipe = recipe
        self.schedule = schedule = Schedule(recipe)
        names = "_".join(step.op for step in recipe.steps[:4])
        self.k = k = Builder(f"rows_{names}_{schedule.dtypes[0]}")
        self.is_chunked = is_chunked
        self.has_runs = bool(outer_rank)
        short = dtypes.by_short
        self.outs = [
            k.pointer(f"out{j}", short(schedule.dtypes[v]))
            for j, (v, _) in enumerate(recipe.results)
        ]
        self.loads = [k.pointer(f"x{j}", short(x.dtype)) for j, x in enumerate(recipe.loads)]
        self.saved = {
            v: k.pointer(f"w{j}", short(schedule.dtypes[v])) for j, v in enumerate(schedule.scratch)
        }
        self.sums: list[_Sum] = []
        first = len(recipe.loads)
        for step in recipe.steps:
            if isinstance(step, Reduce):
                self.sums.append(_Sum(k, step, schedule, first))
            first += len(step.dtypes) if isinstance(step, Reduce) else 1
        if is_chunked:
            for j, total in enumerate(self.sums):
                total.partials = [
                    k.pointer(f"p{j}_{i}", dtype) for i, (dtype, _) in enumerate(total.accumulators)
                ]
        self.count = k.size("count")
        if is_chunked:
            self.num_chunks, self.levels = k.size("num_chunks"), k.size("levels")
        self.runs = Runs(k, outer_rank, classes)
        self.kept = Walk(k, "k", kept_rank, len(classes) + 1)
        self.values: dict[int, Operand] = {}  # the row values
        self.stored = [v for v, is_full in recipe.results if is_full]

    def kernel(self) -> Kernel:
        k, schedule = self.k, self.schedule
        for total in self.sums:
            total.declare(k)
        with k.loop(BEGIN, END) as unit:
            *self.bases, self.place = self.kept.offsets(unit)
            self.values = {
                j: k.load(pointer, self.bases[j])
                for j, pointer in enumerate(self.loads)
                if not self.recipe.loads[j].full
            }
            self._row_values(0)
            for p in range(schedule.passes):
                self._pass(p)
                self._row_values(p + 1)
            for j, (v, is_full) in enumerate(self.recipe.results):
                if not is_full:
                    k.store(self.outs[j], self.place, self.values[v])
        return k.kernel

    def _row_values(self, ready: int) -> None:
        """The statements on row values that can be had before pass ``ready``."""
        schedule = self.schedule
        for v, step in enumerate(schedule.maker):
            if isinstance(step, Statement) and not schedule.full[v] and schedule.ready[v] == ready:
                args = [self.values[a] for a in step.args]
                self.values[v] = emit_statement(self.k, step, args)

    # --- one pass -----------------------------------------------------------------------------

    def _pass(self, p: int) -> None:
        k = self.k
        sums = [t for t in self.sums if self.schedule.ready[t.step.arg] == p]
        if not sums:
            self.runs.segments(
                k.const(0, I64), self.count, self.bases,
                lambda lo, hi, origins: self._elements(p, lo, hi, origins),
            )  # fmt: skip
            return
        if not self.is_chunked:
            self._chunk(p, sums, k.const(0, I64), self.count)
            for total in sums:
                self._finish(total, _load(k, total.tree, k.const(0, I64)))
            return
        begin = k.mul(THREAD, self.num_chunks)
        with k.loop(0, self.num_chunks) as chunk:
            lo = k.mul(chunk, CHUNK)
            self._chunk(p, sums, lo, k.minimum(k.add(lo, CHUNK), self.count))
            for total in sums:
                partials = _load(k, total.tree, k.const(0, I64))
                _store(k, total.partials, k.add(begin, chunk), partials)
        for total in sums:
            merge_neighbours(k, total.rules, total.partials, begin, self.num_chunks, self.levels)
            self._finish(total, _load(k, total.partials, begin))

    def _finish(self, total: _Sum, values: Accumulators) -> None:
        results = total.rules.finish(self.k, values, self.count)
        for j, (result, short) in enumerate(zip(results, total.step.dtypes, strict=True)):
            self.values[total.first + j] = self.k.convert(result, dtypes.by_short(short))

    def _chunk(self, p: int, sums: list[_Sum], lo: Operand, hi: Operand) -> None:
        """The stripes of elements lo..hi, combined in ``tree[0]``."""
        k = self.k
        with k.loop(0, STRIPES, kind="vector") as s:
            for total in sums:
                _store(k, total.stripes, s, total.identity)
        self.runs.segments(
            lo, hi, self.bases, lambda a, b, origins: self._segment(p, sums, a, b, origins)
        )
        with k.loop(0, STRIPES, kind="vector") as s:
            for total in sums:
                _store(k, total.tree, s, _load(k, total.stripes, s))
        for half in HALVES:
            with k.loop(0, half, kind="vector") as s:
                for total in sums:
                    later = _load(k, total.tree, k.add(s, half))
                    merged = total.rules.merge(k, _load(k, total.tree, s), later)
                    _store(k, total.tree, s, merged)

    def _segment(
        self, p: int, sums: list[_Sum], lo: Operand, hi: Operand, origins: Sequence[Operand]
    ) -> None:
        k = self.k
        start = lo
        if self.has_runs:  # a run may start at any stripe
            start = k.minimum(hi, k.op("and", k.add(lo, STRIPES - 1), -STRIPES))
            self._partial_row(p, sums, k.op("and", lo, -STRIPES), lo, start, origins)
        middle = k.add(start, k.op("and", k.sub(hi, start), -STRIPES))
        with k.loop(start, middle, STRIPES) as first, k.loop(0, STRIPES, kind="vector") as s:
            r = k.add(first, s)
            values = self._computed(p, r, self.runs.places(self.runs.places(origins, first), s))
            self._write(p, values, r, origins)
            self._take(sums, values, s, r, None)
        self._partial_row(p, sums, middle, middle, hi, origins)
        if self._writes(p):  # of the partial rows
            if self.has_runs:
                self._elements(p, lo, start, origins)
            self._elements(p, middle, hi, origins)

    def _partial_row(
        self, p: int, sums: list[_Sum], first: Operand, lo: Operand, hi: Operand,
        origins: Sequence[Operand],
    ) -> None:  # fmt: skip
        """Elements lo..hi of the row of stripes that begins with element ``first``."""

        def take(s: Operand, r: Operand, near: Operand, inside: Operand) -> None:
            values = self._computed(p, near, self.runs.places(origins, near), True)
            self._take(sums, values, s, r, inside)

        masked_stripes(self.k, first, lo, hi, take)

    def _take(
        self, sums: list[_Sum], values: dict[int, Operand], s: Operand, r: Operand,
        inside: Operand | None,
    ) -> None:  # fmt: skip
        """Merges what one element brings into its stripes."""
        k = self.k
        for total in sums:
            lifted = tuple(total.rules.lift(k, values[total.step.arg], r))
            if inside is not None:
                lifted = tuple(map(partial(k.select, inside), lifted, total.identity))
            step = total.rules.step or total.rules.merge
            _store(k, total.stripes, s, step(k, _load(k, total.stripes, s), lifted))

    def _elements(self, p: int, lo: Operand, hi: Operand, origins: Sequence[Operand]) -> None:
        """Computes and stores elements lo..hi of the values that pass ``p`` makes."""
        with self.k.loop(lo, hi, kind="vector") as r:
            values = self._computed(p, r, self.runs.places(origins, r))
            self._write(p, values, r, origins)

    # --- one element --------------------------------------------------------------------------

    def _kept_before(self, p: int, value: int) -> bool:
        """True for what an earlier pass has left in memory."""
        schedule = self.schedule
        stored = value in self.saved or value in self.stored
        return schedule.ready[value] < p and stored and schedule.maker[value] is not None

    def _goals(self, p: int, only_sums: bool) -> list[int]:
        schedule = self.schedule
        if only_sums:
            return [t.step.arg for t in self.sums if schedule.ready[t.step.arg] == p]
        return [*schedule.goals[p], *(v for v in self.saved if schedule.ready[v] == p)]

    def _computed(
        self, p: int, r: Operand, at: Sequence[Operand], only_sums: bool = False
    ) -> dict[int, Operand]:
        """The values that pass ``p`` needs for element ``r``, which is at these places."""
        k, schedule = self.k, self.schedule
        values = dict(self.values)
        for v in schedule.closure(self._goals(p, only_sums), partial(self._kept_before, p)):
            step = schedule.maker[v]
            if step is None:
                values[v] = k.load(self.loads[v], at[v])
            elif self._kept_before(p, v):
                values[v] = self._read_back(v, r, at)
            elif isinstance(step, Statement):
                values[v] = emit_statement(k, step, [values[a] for a in step.args])
        return values

    def _read_back(self, value: int, r: Operand, at: Sequence[Operand]) -> Operand:
        k = self.k
        if value in self.saved:
            return k.load(self.saved[value], k.add(k.mul(THREAD, self.count), r))
        j, place = self._target(value)
        return k.load(self.outs[j], at[place])

    def _target(self, value: int) -> tuple[int, int]:
        """The number of a stored full value among the outputs, and among the places."""
        return (
            self.recipe.results.index((value, True)), len(self.loads) + self.stored.index(value)
        )  # fmt: skip

    def _writes(self, p: int) -> bool:
        return any(self.schedule.ready[v] == p for v in (*self.stored, *self.saved))

    def _write(
        self, p: int, values: dict[int, Operand], r: Operand, origins: Sequence[Operand]
    ) -> None:
        """Stores what pass ``p`` makes."""
        k, schedule = self.k, self.schedule
        at = self.runs.places(origins, r)
        for v in self.stored:
            if schedule.ready[v] == p:
                j, place = self._target(v)
                k.store(self.outs[j], at[place], values[v])
        for v, scratch in self.saved.items():
            if schedule.ready[v] == p:
                k.store(scratch, k.add(k.mul(THREAD, self.count), r), values[v])
