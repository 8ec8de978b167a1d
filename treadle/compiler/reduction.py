"""Reductions to loop IR, in the one order that the numerics prescribe.

The elements of an output are numbered by the reduced axes, row-major, whatever the strides.
They come in chunks of ``CHUNK``. In a chunk, element r belongs to stripe r mod ``STRIPES`` and is
merged into it in order; stripes combine by a fixed binary tree (i with i+8, i+4, i+2, i+1), chunks
by another: neighbours, level by level, an odd one moving up unchanged. An absent stripe is left
out, or holds the identity, which is exact. Every kernel here keeps that order, so they all give
the same bits; which one runs, and on how many threads, is a matter of speed:

``stripes``  the stripes of one output are the lanes of vectors: for runs of reduced elements that
             lie side by side.
``lanes``    a block of outputs are the lanes, and each has its stripes in a table in the cache:
             for outputs that lie side by side, and for many outputs of few elements.

What is reduced may be computed on the way: a ``Source`` is a recipe over several loads, and one
or more reductions over the same axes of its values.

Both take any strides. An output of more than one chunk gives a partial result per chunk, so that a
single long sum uses all threads, and ``combine`` makes outputs of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.shapes import contiguous_strides, prod
from treadle.compiler.recipe import Recipe, emit_recipe
from treadle.compiler.walks import Runs, Walk, step_classes, steps_of
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, Builder, Kernel, Operand, Pointer
from treadle.ir.nest import coalesce
from treadle.ir.op import Reduction
from treadle.ops import registry

STRIPES = 16
CHUNK = 4096
LANES = 16  # outputs that are reduced side by side; as they do not meet, any number would do
HALVES = (8, 4, 2, 1)  # how the stripes combine
_TABLE_BYTES = 1 << 17  # of the stripes of a block of outputs: half of a small second-level cache
_NARROW = 128  # outputs in a block that is to stay in the first-level cache
_GROUP = 4  # elements of a stripe that one pass over the table takes in

Accumulators = tuple[Operand, ...]
Places = Sequence[Pointer]  # one per accumulator


class Source(NamedTuple):
    """What is reduced: ``parts`` are reductions (op, number of a value of the recipe)."""

    recipe: Recipe
    parts: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """A name for kernels."""
        names = "_".join(name for name, _ in self.parts)
        return f"{names}_of_{self.recipe.name}" if self.recipe.statements else names

    def rules(self) -> list[tuple[Reduction, int, int, int]]:
        """Each part's lowering and value, and where its accumulators begin and end."""
        found = []
        begin = 0
        for name, value in self.parts:
            lower = lowering(name)
            end = begin + len(lower.accumulators(dtypes.by_short(self.recipe.dtype(value))))
            found.append((lower, value, begin, end))
            begin = end
        return found

    def accumulators(self) -> list[tuple[DType, float | int | bool]]:
        """Those of all parts."""
        return [
            a
            for name, value in self.parts
            for a in lowering(name).accumulators(dtypes.by_short(self.recipe.dtype(value)))
        ]


def plain(op: str, dtype: DType) -> Source:
    """One reduction of one operand as it lies."""
    return Source(Recipe((dtype.short,), ()), ((op, 0),))


class Axes(NamedTuple):
    """Sizes and, for each operand (the loads, then the outputs), strides of some axes."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The parameters that ``Walk`` reads."""
        return (*self.sizes[1:], *(s for row in self.strides for s in row))

    def without(self, axis: int) -> Axes:
        """All axes but one."""
        return Axes(_drop(self.sizes, axis), tuple(_drop(row, axis) for row in self.strides))


def _drop(row: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return row[:axis] + row[axis + 1 :]


# --- the plan -------------------------------------------------------------------------------------


def plan_reduction(
    source: Source,
    loads: Sequence[Layout],
    outputs: Sequence[Layout],
    axes: tuple[int, ...],
    threads: int,
    offsets: Sequence[int] = (),
) -> Plan:
    """The launches that reduce ``source`` over ``axes`` of loads that lie so (all of one shape).

    ``offsets`` are those of the loads, in elements. Outputs are contiguous. One launch where an
    output has at most ``CHUNK`` elements, else two.
    """
    shape = loads[0].shape
    count = prod(shape[a] for a in axes)
    num_outputs = prod(outputs[0].shape)
    if num_outputs == 0:
        return Plan(())
    accumulators = [dtype for dtype, _ in source.accumulators()]
    finals = tuple(o.dtype.short for o in outputs)
    results: tuple[Argument, ...] = tuple(map(Out, range(len(outputs))))
    ins = tuple(In(j, offset) for j, offset in enumerate(offsets or (0,) * len(loads)))
    kept, reduced = split_axes(loads, axes)
    work = prod(shape) * (len(accumulators) + len(source.recipe.statements))
    if count <= CHUNK:
        kernel, numbers, units = _choose((source, finals), kept, reduced, 1, threads)
        return Plan((Launch(kernel, (*results, *ins, count, *numbers), units, work),))
    num_chunks = divide_up(count, CHUNK)
    kernel, numbers, units = _choose((source, ()), kept, reduced, num_chunks, threads)
    partials = tuple(map(Work, range(len(accumulators))))
    first = Launch(kernel, (*partials, *ins, count, num_chunks, *numbers), units, work)
    levels = (num_chunks - 1).bit_length()
    bare = Source(Recipe(tuple(source.recipe.dtype(v) for _, v in source.parts), ()),
                  tuple((name, j) for j, (name, _) in enumerate(source.parts)))  # fmt: skip
    last = Launch(
        KernelSpec(combine_kernel, (bare, finals)),
        (*results, *partials, count, num_chunks, levels),
        num_outputs,
        num_outputs * num_chunks * len(accumulators),
    )
    return Plan((first, last), tuple(a.itemsize * num_outputs * num_chunks for a in accumulators))


def _choose(
    name: tuple[Source, tuple[str, ...]], kept: Axes, reduced: Axes, num_chunks: int, threads: int
) -> tuple[KernelSpec, tuple[int, ...], int]:
    """The kernel for these strides, its parameters after those of the shape, and its units."""
    main = main_load(kept, reduced)
    lane = _lane_axis(kept, main)
    run, steps = reduced.sizes[-1], [row[-1] for row in reduced.strides]
    outer = reduced.without(len(reduced.sizes) - 1)
    strided = tuple(step for step in steps if step not in (0, 1))
    runs = (*((run, *outer.numbers) if outer.sizes else ()), *strided)
    key = (*name, len(outer.sizes), step_classes(steps))
    near = _near(steps[main])
    if lane is None or run == 0 or (run >= STRIPES and near <= _near(kept.strides[main][lane])):
        spec = KernelSpec(stripes_kernel, (*key, len(kept.sizes)))
        return spec, (*runs, *kept.numbers), prod(kept.sizes) * num_chunks
    lanes, around = kept.sizes[lane], kept.without(lane)
    units = prod(around.sizes) * num_chunks
    strides = [row[lane] for row in kept.strides]
    # A wide block reads memory in long pieces. With few elements per output the table is what
    # counts, and gathered ones are read from the cache several times: narrow blocks.
    widest = _table_width(name[0])
    if strides[main] != 1 or prod(reduced.sizes) < 2 * STRIPES * _GROUP:
        widest = min(widest, _NARROW)
    blocks = max(divide_up(lanes, widest), min(divide_up(threads, units), lanes // LANES))
    width = divide_up(divide_up(lanes, blocks), LANES) * LANES
    spec = KernelSpec(lanes_kernel, (*key, len(around.sizes), step_classes(strides)))
    lane_numbers = (lanes, width, *(s for s in strides if s not in (0, 1)))
    return spec, (*runs, *lane_numbers, *around.numbers), units * divide_up(lanes, width)


def divide_up(a: int, b: int) -> int:
    """a / b, rounded up."""
    return (a + b - 1) // b


def split_axes(loads: Sequence[Layout], axes: tuple[int, ...]) -> tuple[Axes, Axes]:
    """The kept axes (any order will do: large strides first) and the reduced ones, coalesced."""
    shape = loads[0].shape
    main = max(
        loads, key=lambda load: prod(n for n, s in zip(shape, load.strides, strict=True) if s)
    )
    others = [a for a in range(len(shape)) if a not in axes]
    out_strides = dict(
        zip(others, contiguous_strides(tuple(shape[a] for a in others)), strict=True)
    )
    others.sort(key=lambda a: -abs(main.strides[a]))
    rows = [tuple(load.strides[a] for a in others) for load in loads]
    sizes, strides = coalesce(
        tuple(shape[a] for a in others), [*rows, tuple(out_strides[a] for a in others)]
    )
    kept = Axes(sizes, tuple(strides))
    reduced = tuple(shape[a] for a in axes)
    if prod(reduced) == 0:
        return kept, Axes((0,), ((1,),) * len(loads))
    sizes, strides = coalesce(reduced, [tuple(load.strides[a] for a in axes) for load in loads])
    return kept, Axes(sizes, tuple(strides))


def main_load(kept: Axes, reduced: Axes) -> int:
    """The load that reads most, which decides how the others are read."""

    def elements(j: int) -> int:
        pairs = (*zip(kept.sizes, kept.strides[j], strict=True),
                 *zip(reduced.sizes, reduced.strides[j], strict=True))  # fmt: skip
        return prod(size for size, stride in pairs if stride)

    return max(range(len(reduced.strides)), key=elements)


def _near(stride: int) -> int:
    """How good a stride is for lanes (less is better); repeating one element is the worst."""
    return abs(stride) if stride else 1 << 62


def _lane_axis(kept: Axes, main: int) -> int | None:
    """The kept axis whose outputs could be lanes: long enough, and closest together."""
    long_enough = [a for a, size in enumerate(kept.sizes) if size >= LANES]
    return min(long_enough, key=lambda a: _near(kept.strides[main][a]), default=None)


def _table_width(source: Source) -> int:
    """How many outputs' stripes fit the table; a multiple of LANES."""
    size = STRIPES * sum(dtype.itemsize for dtype, _ in source.accumulators())
    return max(_TABLE_BYTES // size // LANES * LANES, LANES)


def lowering(name: str) -> Reduction:
    """How the reduction of that name becomes code."""
    lower = registry.get(name).lower
    if not isinstance(lower, Reduction):
        raise TypeError(f"{name} is no reduction: its lowering is a {type(lower).__name__}")
    return lower


# --- what the kernels share -----------------------------------------------------------------------


class _Body:
    """A source's rules over arrays of accumulators, and the parameters that all kernels have."""

    def __init__(self, kind: str, source: Source, finals: tuple[str, ...]) -> None:
        self.k = k = Builder(f"{source.name}_{kind}_{source.recipe.dtype(source.parts[0][1])}")
        self.source = source
        self.rules = source.rules()
        self.accumulators = source.accumulators()
        self.identity = tuple(k.const(value, dtype) for dtype, value in self.accumulators)
        self.is_final = bool(finals)
        stored = [dtypes.by_short(f) for f in finals] or [a for a, _ in self.accumulators]
        self.targets = [k.pointer(f"out{j}", dtype) for j, dtype in enumerate(stored)]

    def load_parameters(self) -> None:
        """The pointers of what is loaded."""
        self.loads = [
            self.k.pointer(f"x{j}", dtypes.by_short(short))
            for j, short in enumerate(self.source.recipe.loads)
        ]

    def shape_parameters(self, has_chunks: bool) -> None:
        """Elements per output and, where there are several, chunks per output."""
        self.count = self.k.size("count")
        if has_chunks:
            self.num_chunks = self.k.size("num_chunks")

    def chunk(self, unit: Operand) -> tuple[Operand, Operand, Operand, Operand]:
        """(index among outputs, first and last element, number of the chunk) of a unit."""
        k = self.k
        zero = k.const(0, I64)
        if self.is_final:
            return unit, zero, self.count, zero
        chunk = k.rem(unit, self.num_chunks)
        lo = k.mul(chunk, CHUNK)
        return k.div(unit, self.num_chunks), lo, k.minimum(k.add(lo, CHUNK), self.count), chunk

    # accumulators in memory
    def locals(self, size: int) -> Places:
        """Arrays of accumulators."""
        return [self.k.local(dtype, size) for dtype, _ in self.accumulators]

    def load(self, places: Places, index: Operand) -> Accumulators:
        """The accumulators at ``index``."""
        return tuple(self.k.load(p, index) for p in places)

    def store(self, places: Places, index: Operand, values: Accumulators) -> None:
        """Sets the accumulators at ``index``."""
        for place, value in zip(places, values, strict=True):
            self.k.store(place, index, value)

    def merge(self, a: Accumulators, b: Accumulators) -> Accumulators:
        """The accumulators of ``a`` with those of ``b``, which come later."""
        return tuple(
            value
            for lower, _, begin, end in self.rules
            for value in lower.merge(self.k, a[begin:end], b[begin:end])
        )

    def step(self, a: Accumulators, b: Accumulators) -> Accumulators:
        """``merge`` where ``b`` is one element, or the identity, that comes later."""
        return tuple(
            value
            for lower, _, begin, end in self.rules
            for value in (lower.step or lower.merge)(self.k, a[begin:end], b[begin:end])
        )

    def step_into(self, places: Places, index: Operand, values: Accumulators) -> None:
        """Takes an element, which comes later, into the accumulators at ``index``."""
        self.store(places, index, self.step(self.load(places, index), values))

    def merge_into(self, places: Places, index: Operand, values: Accumulators) -> None:
        """Merges ``values``, which come later, into the accumulators at ``index``."""
        self.store(places, index, self.merge(self.load(places, index), values))

    def element(self, at: Sequence[Operand], index: Operand) -> Accumulators:
        """What element number ``index``, at these places of the loads, brings."""
        k = self.k
        loaded = [k.load(x, place) for x, place in zip(self.loads, at, strict=True)]
        values = emit_recipe(k, self.source.recipe, loaded)
        return tuple(
            lifted
            for lower, value, _, _ in self.rules
            for lifted in lower.lift(k, values[value], index)
        )

    def store_chunk(self, output: Operand, chunk: Operand, values: Accumulators) -> None:
        """The outputs, or where it takes several chunks the partial result of one."""
        if self.is_final:
            self.store_result(output, values)
        else:
            place = self.k.add(self.k.mul(output, self.num_chunks), chunk)
            self.store(self.targets, place, values)

    def store_result(self, output: Operand, values: Accumulators) -> None:
        """The outputs, rounded to their dtypes."""
        results = [
            result
            for lower, _, begin, end in self.rules
            for result in lower.finish(self.k, values[begin:end], self.count)
        ]
        for target, result in zip(self.targets, results, strict=True):
            self.k.store(target, output, self.k.convert(result, target.dtype))


# --- kernels --------------------------------------------------------------------------------------


def stripes_kernel(
    source: Source, finals: tuple[str, ...], outer_rank: int, classes: str, kept_rank: int
) -> Kernel:
    """A unit is a chunk of one output; its stripes are the lanes."""
    body = _Body("stripes", source, finals)
    k = body.k
    body.load_parameters()
    body.shape_parameters(not body.is_final)
    runs = Runs(k, outer_rank, classes)
    kept = Walk(k, "k", kept_rank, len(classes) + 1)
    # LLVM keeps these in registers because all indices into them are constant.
    stripes, tree = body.locals(STRIPES), body.locals(STRIPES)

    def partial_row(first: Operand, lo: Operand, hi: Operand, origins: Sequence[Operand]) -> None:
        """Elements lo..hi of the row of stripes that begins with element ``first``."""
        for left in range(0, STRIPES, HALVES[0]):
            right = left + HALVES[0]
            reached = k.op("lt", lo, k.add(first, right))
            with (
                k.when(k.op("and", reached, k.op("gt", hi, k.add(first, left)))),
                k.loop(left, right, kind="vector") as s,
            ):
                r = k.add(first, s)
                inside = k.op("and", k.op("ge", r, lo), k.op("lt", r, hi))
                near = k.minimum(k.maximum(r, lo), k.sub(hi, 1))
                values = body.element(runs.places(origins, near), r)
                values = tuple(map(partial(k.select, inside), values, body.identity))
                body.step_into(stripes, s, values)

    def segment(lo: Operand, hi: Operand, origins: Sequence[Operand]) -> None:
        if outer_rank:  # a run may start at any stripe
            start = k.minimum(hi, k.op("and", k.add(lo, STRIPES - 1), -STRIPES))
            partial_row(k.op("and", lo, -STRIPES), lo, start, origins)
            lo = start
        middle = k.add(lo, k.op("and", k.sub(hi, lo), -STRIPES))
        with k.loop(lo, middle, STRIPES) as first, k.loop(0, STRIPES, kind="vector") as s:
            starts = runs.places(origins, first)
            body.step_into(stripes, s, body.element(runs.places(starts, s), k.add(first, s)))
        partial_row(middle, middle, hi, origins)

    with k.loop(BEGIN, END) as unit:
        output, lo, hi, chunk = body.chunk(unit)
        *bases, at = kept.offsets(output)
        with k.loop(0, STRIPES, kind="vector") as s:
            body.store(stripes, s, body.identity)
        runs.segments(lo, hi, bases, segment)
        with k.loop(0, STRIPES, kind="vector") as s:
            body.store(tree, s, body.load(stripes, s))
        for half in HALVES:
            with k.loop(0, half, kind="vector") as s:
                body.merge_into(tree, s, body.load(tree, k.add(s, half)))
        body.store_chunk(at, chunk, body.load(tree, k.const(0, I64)))
    return k.kernel


class _Block:
    """A block of outputs, which are the lanes, with a table of their stripes."""

    def __init__(self, body: _Body, outer_rank: int, classes: str, lane_classes: str) -> None:
        self.body, self.k = body, body.k
        self.runs = Runs(self.k, outer_rank, classes)
        self.lanes, self.width = self.k.size("lanes"), self.k.size("width")
        *self.lane_steps, self.store_step = steps_of(self.k, lane_classes, "lane_step")

    def begin(self, left: Operand, table: Places) -> None:
        """The block whose first output is ``left``."""
        self.left, self.table = left, table
        self.used = self.k.minimum(self.width, self.k.sub(self.lanes, left))

    @contextmanager
    def every_lane(self) -> Iterator[tuple[Operand, Operand]]:
        """Vectors of lanes as (index in a stripe of the table, index among outputs).

        The last may overlap the one before: its outputs are computed twice, alike, so that
        no code for a rest is needed.
        """
        k = self.k
        with k.loop(0, self.used, LANES) as first, k.loop(0, LANES, kind="vector") as lane:
            start = k.minimum(k.add(self.left, first), k.sub(self.lanes, LANES))
            yield k.add(first, lane), k.add(start, lane)

    def stripe(self, r: Operand, slot: Operand) -> Operand:
        """Where in the table the stripe of element ``r`` is."""
        k = self.k
        return k.add(k.mul(k.op("and", r, STRIPES - 1), self.width), slot)

    def _take(self, r: Operand, times: int, origins: Sequence[Operand]) -> None:
        """Merges the element ``r`` of every lane, and those after it in its stripe."""
        k, body = self.k, self.body
        starts = self.runs.places(origins, r)
        with self.every_lane() as (slot, lane):
            values = body.load(self.table, self.stripe(r, slot))
            for ahead in range(0, STRIPES * times, STRIPES):
                at = [
                    k.add(k.add(start, k.mul(step, ahead)), k.mul(lane, lane_step))
                    for start, step, lane_step in zip(
                        starts, self.runs.steps, self.lane_steps, strict=True
                    )
                ]
                values = body.step(values, body.element(at, k.add(r, ahead)))
            body.store(self.table, self.stripe(r, slot), values)

    def segment(self, a: Operand, b: Operand, origins: Sequence[Operand]) -> None:
        """Takes in a run: some elements of a stripe at a time, for less traffic with the table."""
        k = self.k
        grouped = k.add(a, k.op("and", k.sub(b, a), -STRIPES * _GROUP))
        with k.loop(a, grouped, STRIPES * _GROUP) as first, k.loop(0, STRIPES) as s:
            self._take(k.add(first, s), _GROUP, origins)
        with k.loop(grouped, b) as r:
            self._take(r, 1, origins)

    def clear(self, present: Operand) -> None:
        """Sets the stripes that have elements to the identity."""
        with self.k.loop(0, present) as s, self.every_lane() as (slot, _):
            self.body.store(self.table, self.stripe(s, slot), self.body.identity)

    def combine(self, present: Operand) -> None:
        """Merges the stripes, each into the one half a table before it."""
        k, body = self.k, self.body
        with k.loop(0, len(HALVES)) as level:
            half = k.op("shr", k.const(HALVES[0], I64), level)
            last = k.minimum(present, k.mul(half, 2))
            with k.loop(half, last) as s, self.every_lane() as (slot, _):
                values = body.load(self.table, self.stripe(s, slot))
                body.merge_into(self.table, self.stripe(k.sub(s, half), slot), values)


def lanes_kernel(
    source: Source,
    finals: tuple[str, ...],
    outer_rank: int,
    classes: str,
    around_rank: int,
    lane_classes: str,
) -> Kernel:
    """A unit is a chunk of a block of outputs, which are the lanes."""
    body = _Body("lanes", source, finals)
    k = body.k
    body.load_parameters()
    body.shape_parameters(not body.is_final)
    block = _Block(body, outer_rank, classes, lane_classes)
    around = Walk(k, "k", around_rank, len(lane_classes))
    table = body.locals(STRIPES * _table_width(source))
    num_blocks = k.div(k.add(block.lanes, k.sub(block.width, 1)), block.width)
    with k.loop(BEGIN, END) as unit:
        block.begin(k.mul(k.rem(unit, num_blocks), block.width), table)
        output, lo, hi, chunk = body.chunk(k.div(unit, num_blocks))
        *bases, at = around.offsets(output)
        present = k.minimum(k.sub(hi, lo), STRIPES)
        block.clear(present)
        block.runs.segments(lo, hi, bases, block.segment)
        block.combine(present)
        with block.every_lane() as (slot, lane):
            place = k.add(at, k.mul(lane, block.store_step))
            body.store_chunk(place, chunk, body.load(table, slot))
    return k.kernel


def merge_neighbours(
    k: Builder, rules: Reduction, partials: Places, begin: Operand, count: Operand, levels: Operand
) -> None:
    """Merges ``count`` partial results from ``begin`` on, in place, into the first.

    Neighbours, level by level; an odd one moves up as it is.
    """

    def load(index: Operand) -> Accumulators:
        return tuple(k.load(p, index) for p in partials)

    def store(index: Operand, values: Accumulators) -> None:
        for place, value in zip(partials, values, strict=True):
            k.store(place, index, value)

    with k.loop(0, levels) as level:
        size = k.op("shl", k.const(1, I64), level)
        present = k.op("shr", k.add(count, k.sub(size, 1)), level)
        pairs = k.op("shr", present, 1)
        with k.loop(0, pairs) as pair:
            first = k.add(begin, k.mul(pair, 2))
            store(k.add(begin, pair), rules.merge(k, load(first), load(k.add(first, 1))))
        with k.loop(pairs, k.sub(present, pairs)) as odd:
            store(k.add(begin, odd), load(k.add(begin, k.mul(odd, 2))))


def combine_kernel(source: Source, finals: tuple[str, ...]) -> Kernel:
    """A unit is an output: merges its chunks' partial results in place, neighbours first."""
    body = _Body("combine", source, finals)
    k = body.k
    partials = [k.pointer(f"w{j}", dtype) for j, (dtype, _) in enumerate(body.accumulators)]
    body.shape_parameters(has_chunks=True)
    levels = k.size("levels")
    with k.loop(BEGIN, END) as output:
        begin = k.mul(output, body.num_chunks)
        for lower, _, lo, hi in body.rules:
            merge_neighbours(k, lower, partials[lo:hi], begin, body.num_chunks, levels)
        body.store_result(output, body.load(partials, begin))
    return k.kernel


__all__ = [
    "CHUNK", "STRIPES", "Source", "combine_kernel", "lanes_kernel", "plain", "plan_reduction",
    "stripes_kernel",
]  # fmt: skip
