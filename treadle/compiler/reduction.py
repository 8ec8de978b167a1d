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

Both take any strides. An output of more than one chunk gives a partial result per chunk, so that a
single long sum uses all threads, and ``combine`` makes outputs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.shapes import contiguous_strides, prod
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.loop import BEGIN, END, I64, Builder, Kernel, Operand, Pointer, Value
from treadle.ir.nest import coalesce
from treadle.ir.op import Op, Reduction
from treadle.ops import registry

STRIPES = 16
CHUNK = 4096
LANES = 16  # outputs that are reduced side by side; as they do not meet, any number would do
_HALVES = (8, 4, 2, 1)  # how the stripes combine
_TABLE_BYTES = 1 << 17  # of the stripes of a block of outputs: half of a small second-level cache
_NARROW = 128  # outputs in a block that is to stay in the first-level cache
_GROUP = 4  # elements of a stripe that one pass over the table takes in

Accumulators = tuple[Operand, ...]
Places = Sequence[Pointer]  # one per accumulator


class Axes(NamedTuple):
    """Sizes and, for each operand (the input, then the outputs), strides of some axes."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The parameters that ``_Walk`` reads."""
        return (*self.sizes[1:], *(s for row in self.strides for s in row))

    def without(self, axis: int) -> Axes:
        """All axes but one."""
        return Axes(_drop(self.sizes, axis), tuple(_drop(row, axis) for row in self.strides))


def _drop(row: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return row[:axis] + row[axis + 1 :]


# --- the plan -------------------------------------------------------------------------------------


def plan_reduction(
    op: Op, source: Layout, outputs: Sequence[Layout], attrs: dict[str, Any], threads: int
) -> Plan:
    """The launches of ``op`` over ``attrs['axes']`` of an input that lies as ``source`` says.

    Outputs are contiguous. One launch where an output has at most ``CHUNK`` elements, else two.
    """
    axes = attrs["axes"]
    count = prod(source.shape[a] for a in axes)
    num_outputs = prod(outputs[0].shape)
    if num_outputs == 0:
        return Plan(())
    accumulators = [dtype for dtype, _ in _lowering(op.name).accumulators(source.dtype)]
    name = (op.name, source.dtype.short)
    finals = tuple(o.dtype.short for o in outputs)
    results: tuple[Argument, ...] = tuple(map(Out, range(len(outputs))))
    kept, reduced = _split(source, axes)
    work = prod(source.shape) * len(accumulators)
    if count <= CHUNK:
        kernel, numbers, units = _choose((*name, finals), kept, reduced, 1, threads)
        return Plan((Launch(kernel, (*results, In(0), count, *numbers), units, work),))
    num_chunks = _divide_up(count, CHUNK)
    kernel, numbers, units = _choose((*name, ()), kept, reduced, num_chunks, threads)
    partials = tuple(map(Work, range(len(accumulators))))
    first = Launch(kernel, (*partials, In(0), count, num_chunks, *numbers), units, work)
    levels = (num_chunks - 1).bit_length()
    last = Launch(
        KernelSpec(combine_kernel, (*name, finals)),
        (*results, *partials, count, num_chunks, levels),
        num_outputs,
        num_outputs * num_chunks * len(accumulators),
    )
    return Plan((first, last), tuple(a.itemsize * num_outputs * num_chunks for a in accumulators))


def _choose(
    name: tuple[str, str, tuple[str, ...]], kept: Axes, reduced: Axes, num_chunks: int, threads: int
) -> tuple[KernelSpec, tuple[int, ...], int]:
    """The kernel for these strides, its parameters after those of the shape, and its units."""
    lane = _lane_axis(kept)
    run, step = reduced.sizes[-1], reduced.strides[0][-1]
    outer = reduced.without(len(reduced.sizes) - 1)
    runs = (*((run, *outer.numbers) if outer.sizes else ()), *(() if step == 1 else (step,)))
    key = (*name, len(outer.sizes), step == 1)
    if lane is None or run == 0 or (run >= STRIPES and _near(step) <= _near(kept.strides[0][lane])):
        spec = KernelSpec(stripes_kernel, (*key, len(kept.sizes)))
        return spec, (*runs, *kept.numbers), prod(kept.sizes) * num_chunks
    lanes, around = kept.sizes[lane], kept.without(lane)
    units = prod(around.sizes) * num_chunks
    strides = [row[lane] for row in kept.strides]
    # A wide block reads memory in long pieces. With few elements per output the table is what
    # counts, and gathered ones are read from the cache several times: narrow blocks.
    widest = _table_width(_lowering(name[0]), dtypes.by_short(name[1]))
    if strides[0] != 1 or prod(reduced.sizes) < 2 * STRIPES * _GROUP:
        widest = min(widest, _NARROW)
    blocks = max(_divide_up(lanes, widest), min(_divide_up(threads, units), lanes // LANES))
    width = _divide_up(_divide_up(lanes, blocks), LANES) * LANES
    spec = KernelSpec(lanes_kernel, (*key, len(around.sizes), strides[0] == 1, strides[1] == 1))
    lane_numbers = (lanes, width, *(s for s in strides if s != 1))
    return spec, (*runs, *lane_numbers, *around.numbers), units * _divide_up(lanes, width)


def _divide_up(a: int, b: int) -> int:
    return (a + b - 1) // b


def _split(source: Layout, axes: tuple[int, ...]) -> tuple[Axes, Axes]:
    """The kept axes (any order will do: large strides first) and the reduced ones, coalesced."""
    others = [a for a in range(len(source.shape)) if a not in axes]
    out_strides = dict(
        zip(others, contiguous_strides(tuple(source.shape[a] for a in others)), strict=True)
    )
    others.sort(key=lambda a: -abs(source.strides[a]))
    sizes, strides = coalesce(
        tuple(source.shape[a] for a in others),
        [tuple(source.strides[a] for a in others), tuple(out_strides[a] for a in others)],
    )
    kept = Axes(sizes, tuple(strides))
    shape = tuple(source.shape[a] for a in axes)
    if prod(shape) == 0:
        return kept, Axes((0,), ((1,),))
    sizes, strides = coalesce(shape, [tuple(source.strides[a] for a in axes)])
    return kept, Axes(sizes, tuple(strides))


def _near(stride: int) -> int:
    """How good a stride is for lanes (less is better); repeating one element is the worst."""
    return abs(stride) if stride else 1 << 62


def _lane_axis(kept: Axes) -> int | None:
    """The kept axis whose outputs could be lanes: long enough, and closest together."""
    long_enough = [a for a, size in enumerate(kept.sizes) if size >= LANES]
    return min(long_enough, key=lambda a: _near(kept.strides[0][a]), default=None)


def _table_width(reduction: Reduction, dtype: DType) -> int:
    """How many outputs' stripes fit the table; a multiple of LANES."""
    size = STRIPES * sum(a.itemsize for a, _ in reduction.accumulators(dtype))
    return _TABLE_BYTES // size // LANES * LANES


def _lowering(name: str) -> Reduction:
    lower = registry.get(name).lower
    if not isinstance(lower, Reduction):
        raise TypeError(f"{name} is no reduction: its lowering is a {type(lower).__name__}")
    return lower


# --- what the kernels share -----------------------------------------------------------------------


class _Walk:
    """Axes as a kernel sees them: parameters, and where a row-major index leads."""

    def __init__(self, k: Builder, stem: str, rank: int, operands: int) -> None:
        self.k = k
        self.sizes = [k.size(f"{stem}n{axis}") for axis in range(1, rank)]
        self.strides = [
            [k.size(f"{stem}s{j}_{axis}") for axis in range(rank)] for j in range(operands)
        ]

    def offsets(self, index: Operand) -> list[Operand]:
        """The offset of element ``index`` in every operand."""
        k, rank = self.k, len(self.strides[0])
        found: list[Operand] = [k.const(0, I64) for _ in self.strides]
        for axis in reversed(range(rank)):
            position = index
            if axis:
                position = k.rem(index, self.sizes[axis - 1])
                index = k.div(index, self.sizes[axis - 1])
            found = [
                k.add(f, k.mul(position, row[axis]))
                for f, row in zip(found, self.strides, strict=True)
            ]
        return found


class _Body:
    """A reduction's rules over arrays of accumulators, and the parameters that all kernels have."""

    def __init__(self, kind: str, name: str, short: str, finals: tuple[str, ...]) -> None:
        self.k = k = Builder(f"{name}_{kind}_{short}")
        self.rules = _lowering(name)
        self.dtype = dtypes.by_short(short)
        self.accumulators = self.rules.accumulators(self.dtype)
        self.identity = tuple(k.const(value, dtype) for dtype, value in self.accumulators)
        self.is_final = bool(finals)
        stored = [dtypes.by_short(f) for f in finals] or [a for a, _ in self.accumulators]
        self.targets = [k.pointer(f"out{j}", dtype) for j, dtype in enumerate(stored)]

    def shape_parameters(self, has_chunks: bool) -> None:
        """Elements per output and, where there are several, chunks per output."""
        self.count = self.k.size("count")
        if has_chunks:
            self.num_chunks = self.k.size("num_chunks")

    def reduced_parameters(self, outer_rank: int, is_unit: bool) -> None:
        """The runs of reduced elements."""
        self.run: Value | None = self.k.size("run") if outer_rank else None
        self.runs = _Walk(self.k, "r", outer_rank, 1) if outer_rank else None
        self.step = self.k.const(1, I64) if is_unit else self.k.size("step")

    def chunk(self, unit: Operand) -> tuple[Operand, Operand, Operand, Operand]:
        """(index among outputs, first and last element, number of the chunk) of a unit."""
        k = self.k
        zero = k.const(0, I64)
        if self.is_final:
            return unit, zero, self.count, zero
        chunk = k.rem(unit, self.num_chunks)
        lo = k.mul(chunk, CHUNK)
        return k.div(unit, self.num_chunks), lo, k.minimum(k.add(lo, CHUNK), self.count), chunk

    def segments(
        self,
        lo: Operand,
        hi: Operand,
        base: Operand,
        body: Callable[[Operand, Operand, Operand], None],
    ) -> None:
        """``body(a, b, origin)`` for each run: elements a..b, of which r is at origin + r*step."""
        k = self.k
        if self.run is None or self.runs is None:
            body(lo, hi, base)
            return
        last = k.add(k.div(k.sub(hi, 1), self.run), 1)
        with k.loop(k.div(lo, self.run), last) as index:
            start = k.mul(index, self.run)
            origin = k.add(base, self.runs.offsets(index)[0])
            origin = k.sub(origin, k.mul(start, self.step))
            a, b = k.maximum(lo, start), k.minimum(hi, k.add(start, self.run))
            body(a, b, origin)

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

    def merge_into(self, places: Places, index: Operand, values: Accumulators) -> None:
        """Merges ``values``, which come later, into the accumulators at ``index``."""
        merged = self.rules.merge(self.k, self.load(places, index), values)
        self.store(places, index, merged)

    def element(self, x: Pointer, at: Operand, index: Operand) -> Accumulators:
        """What element number ``index``, at ``x[at]``, brings."""
        return self.rules.lift(self.k, self.k.load(x, at), index)

    def store_chunk(self, output: Operand, chunk: Operand, values: Accumulators) -> None:
        """The outputs, or where it takes several chunks the partial result of one."""
        if self.is_final:
            self.store_result(output, values)
        else:
            place = self.k.add(self.k.mul(output, self.num_chunks), chunk)
            self.store(self.targets, place, values)

    def store_result(self, output: Operand, values: Accumulators) -> None:
        """The outputs, rounded to their dtypes."""
        results = self.rules.finish(self.k, values, self.count)
        for target, result in zip(self.targets, results, strict=True):
            self.k.store(target, output, self.k.convert(result, target.dtype))


# --- kernels --------------------------------------------------------------------------------------


def stripes_kernel(
    name: str, short: str, finals: tuple[str, ...], outer_rank: int, is_unit: bool, kept_rank: int
) -> Kernel:
    """A unit is a chunk of one output; its stripes are the lanes."""
    body = _Body("stripes", name, short, finals)
    k = body.k
    x = k.pointer("x", body.dtype)
    body.shape_parameters(not body.is_final)
    body.reduced_parameters(outer_rank, is_unit)
    kept = _Walk(k, "k", kept_rank, 2)
    # LLVM keeps these in registers because all indices into them are constant.
    stripes, tree = body.locals(STRIPES), body.locals(STRIPES)

    def partial_row(first: Operand, lo: Operand, hi: Operand, origin: Operand) -> None:
        """Elements lo..hi of the row of stripes that begins with element ``first``."""
        for left in range(0, STRIPES, _HALVES[0]):
            right = left + _HALVES[0]
            reached = k.op("lt", lo, k.add(first, right))
            with (
                k.when(k.op("and", reached, k.op("gt", hi, k.add(first, left)))),
                k.loop(left, right, kind="vector") as s,
            ):
                r = k.add(first, s)
                inside = k.op("and", k.op("ge", r, lo), k.op("lt", r, hi))
                near = k.minimum(k.maximum(r, lo), k.sub(hi, 1))
                values = body.element(x, k.add(origin, k.mul(near, body.step)), r)
                values = tuple(map(partial(k.select, inside), values, body.identity))
                body.merge_into(stripes, s, values)

    def segment(lo: Operand, hi: Operand, origin: Operand) -> None:
        if outer_rank:  # a run may start at any stripe
            start = k.minimum(hi, k.op("and", k.add(lo, STRIPES - 1), -STRIPES))
            partial_row(k.op("and", lo, -STRIPES), lo, start, origin)
            lo = start
        middle = k.add(lo, k.op("and", k.sub(hi, lo), -STRIPES))
        with k.loop(lo, middle, STRIPES) as first, k.loop(0, STRIPES, kind="vector") as s:
            at = k.add(k.add(origin, k.mul(first, body.step)), k.mul(s, body.step))
            body.merge_into(stripes, s, body.element(x, at, k.add(first, s)))
        partial_row(middle, middle, hi, origin)

    with k.loop(BEGIN, END) as unit:
        output, lo, hi, chunk = body.chunk(unit)
        base, at = kept.offsets(output)
        with k.loop(0, STRIPES, kind="vector") as s:
            body.store(stripes, s, body.identity)
        body.segments(lo, hi, base, segment)
        with k.loop(0, STRIPES, kind="vector") as s:
            body.store(tree, s, body.load(stripes, s))
        for half in _HALVES:
            with k.loop(0, half, kind="vector") as s:
                body.merge_into(tree, s, body.load(tree, k.add(s, half)))
        body.store_chunk(at, chunk, body.load(tree, k.const(0, I64)))
    return k.kernel


def lanes_kernel(
    name: str,
    short: str,
    finals: tuple[str, ...],
    outer_rank: int,
    is_unit: bool,
    around_rank: int,
    loads_vectors: bool,
    stores_vectors: bool,
) -> Kernel:
    """A unit is a chunk of a block of outputs, which are the lanes."""
    body = _Body("lanes", name, short, finals)
    k = body.k
    x = k.pointer("x", body.dtype)
    body.shape_parameters(not body.is_final)
    body.reduced_parameters(outer_rank, is_unit)
    lanes, width = k.size("lanes"), k.size("width")
    load_step = k.const(1, I64) if loads_vectors else k.size("load_step")
    store_step = k.const(1, I64) if stores_vectors else k.size("store_step")
    around = _Walk(k, "k", around_rank, 2)
    table = body.locals(STRIPES * _table_width(body.rules, body.dtype))
    num_blocks = k.div(k.add(lanes, k.sub(width, 1)), width)

    with k.loop(BEGIN, END) as unit:
        left = k.mul(k.rem(unit, num_blocks), width)
        used = k.minimum(width, k.sub(lanes, left))
        output, lo, hi, chunk = body.chunk(k.div(unit, num_blocks))
        base, at = around.offsets(output)
        present = k.minimum(k.sub(hi, lo), STRIPES)

        @contextmanager
        def every_lane() -> Iterator[tuple[Operand, Operand]]:
            """Vectors of lanes as (index in a stripe of the table, index among outputs).

            The last may overlap the one before: its outputs are computed twice, alike, so that
            no code for a rest is needed.
            """
            with k.loop(0, used, LANES) as first, k.loop(0, LANES, kind="vector") as lane:
                start = k.minimum(k.add(left, first), k.sub(lanes, LANES))
                yield k.add(first, lane), k.add(start, lane)

        def stripe(r: Operand, slot: Operand) -> Operand:
            return k.add(k.mul(k.op("and", r, STRIPES - 1), width), slot)

        def take(r: Operand, times: int, origin: Operand) -> None:
            """Merges the element ``r`` of every lane, and those after it in its stripe."""
            start = k.add(origin, k.mul(r, body.step))
            with every_lane() as (slot, lane):
                values = body.load(table, stripe(r, slot))
                for ahead in range(0, STRIPES * times, STRIPES):
                    place = k.add(k.add(start, k.mul(body.step, ahead)), k.mul(lane, load_step))
                    element = body.element(x, place, k.add(r, ahead))
                    values = body.rules.merge(k, values, element)
                body.store(table, stripe(r, slot), values)

        def segment(a: Operand, b: Operand, origin: Operand) -> None:
            # Some elements of a stripe at a time: less traffic with the table.
            grouped = k.add(a, k.op("and", k.sub(b, a), -STRIPES * _GROUP))
            with k.loop(a, grouped, STRIPES * _GROUP) as first, k.loop(0, STRIPES) as s:
                take(k.add(first, s), _GROUP, origin)
            with k.loop(grouped, b) as r:
                take(r, 1, origin)

        with k.loop(0, present) as s, every_lane() as (slot, lane):
            body.store(table, stripe(s, slot), body.identity)
        body.segments(lo, hi, base, segment)
        with k.loop(0, len(_HALVES)) as level:
            half = k.op("shr", k.const(_HALVES[0], I64), level)
            with (
                k.loop(half, k.minimum(present, k.mul(half, 2))) as s,
                every_lane() as (slot, lane),
            ):
                values = body.load(table, stripe(s, slot))
                body.merge_into(table, stripe(k.sub(s, half), slot), values)
        with every_lane() as (slot, lane):
            body.store_chunk(k.add(at, k.mul(lane, store_step)), chunk, body.load(table, slot))
    return k.kernel


def combine_kernel(name: str, short: str, finals: tuple[str, ...]) -> Kernel:
    """A unit is an output: merges its chunks' partial results in place, neighbours first."""
    body = _Body("combine", name, short, finals)
    k = body.k
    partials = [k.pointer(f"w{j}", dtype) for j, (dtype, _) in enumerate(body.accumulators)]
    body.shape_parameters(has_chunks=True)
    levels = k.size("levels")
    with k.loop(BEGIN, END) as output:
        begin = k.mul(output, body.num_chunks)
        with k.loop(0, levels) as level:
            size = k.op("shl", k.const(1, I64), level)
            present = k.op("shr", k.add(body.num_chunks, k.sub(size, 1)), level)
            pairs = k.op("shr", present, 1)
            with k.loop(0, pairs) as pair:
                first = k.add(begin, k.mul(pair, 2))
                a, b = body.load(partials, first), body.load(partials, k.add(first, 1))
                body.store(partials, k.add(begin, pair), body.rules.merge(k, a, b))
            with k.loop(pairs, k.sub(present, pairs)) as odd:  # none or one: it moves up
                body.store(
                    partials, k.add(begin, odd), body.load(partials, k.add(begin, k.mul(odd, 2)))
                )
        body.store_result(output, body.load(partials, begin))
    return k.kernel


__all__ = ["CHUNK", "STRIPES", "combine_kernel", "lanes_kernel", "plan_reduction", "stripes_kernel"]
