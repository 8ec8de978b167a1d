"""The kernels of reductions (``compiler.reduction`` says in which order they merge)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.record import Record
from treadle.compiler.recipe import Recipe, emit_recipe
from treadle.compiler.walks import Runs, Walk, steps_of
from treadle.ir.loop import BEGIN, END, I64, Builder, Kernel, Operand, Pointer
from treadle.ir.op import Reduction
from treadle.ops import registry

STRIPES = 16
CHUNK = 4096
LANES = 16  # outputs that are reduced side by side; as they do not meet, any number would do
HALVES = (8, 4, 2, 1)  # how the stripes combine
GROUP = 4  # elements of a stripe that one pass over the table takes in
_TABLE_BYTES = 1 << 17  # of the stripes of a block of outputs: half of a small second-level cache
_ABREAST_BYTES = 256  # of the stripes of the outputs that go abreast: half of the registers
_SIMPLE = 4  # statements of a source up to which outputs go abreast

Accumulators = tuple[Operand, ...]
Places = Sequence[Pointer]  # one per accumulator


class Source(Record):
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


def table_width(source: Source) -> int:
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


def masked_stripes(
    k: Builder, first: Operand, lo: Operand, hi: Operand,
    take: Callable[[Operand, Operand, Operand, Operand], None],
) -> None:  # fmt: skip
    """Elements lo..hi of the row of stripes that begins with element ``first``.

    ``take(stripe, number, near, inside)``: where the element is not ``inside`` the bounds, ``near``
    is one that is, to be read instead.
    """
    for left in range(0, STRIPES, HALVES[0]):
        right = left + HALVES[0]
        reached = k.op("lt", lo, k.add(first, right))
        with (
            k.when(k.op("and", reached, k.op("gt", hi, k.add(first, left)))),
            k.loop(left, right, kind="vector") as s,
        ):
            r = k.add(first, s)
            inside = k.op("and", k.op("ge", r, lo), k.op("lt", r, hi))
            take(s, r, k.minimum(k.maximum(r, lo), k.sub(hi, 1)), inside)


def stripes_kernel(
    source: Source, finals: tuple[str, ...], outer_rank: int, classes: str, kept_rank: int
) -> Kernel:
    """A unit is a chunk of one output; its stripes are the lanes."""
    return _Stripes(source, finals, outer_rank, classes, kept_rank).kernel()


class _Stripes:
    """Writes the stripes kernel.

    Where outputs are whole rows, several are begun side by side: the processor reads that many
    streams ahead, and waits for that many sums at once.
    """

    def __init__(
        self, source: Source, finals: tuple[str, ...], outer_rank: int, classes: str, kept_rank: int
    ) -> None:
        self.body = body = _Body("stripes", source, finals)
        self.k = k = body.k
        body.load_parameters()
        body.shape_parameters(not body.is_final)
        self.runs = Runs(k, outer_rank, classes)
        self.kept = Walk(k, "k", kept_rank, len(classes) + 1)
        self.has_runs = bool(outer_rank)
        # LLVM keeps these in registers because all indices into them are constant.
        self.stripes, self.tree = body.locals(STRIPES), body.locals(STRIPES)
        self.abreast = 1
        if body.is_final and not outer_rank and len(source.recipe.statements) <= _SIMPLE:
            width = sum(dtype.itemsize for dtype, _ in body.accumulators)
            self.abreast = max(1, _ABREAST_BYTES // (STRIPES * width))

    def kernel(self) -> Kernel:
        k = self.k
        if self.abreast == 1:
            with k.loop(BEGIN, END) as unit:
                output, lo, hi, chunk = self.body.chunk(unit)
                *bases, at = self.kept.offsets(output)
                self._clear()
                self.runs.segments(lo, hi, bases, self._segment)
                self._finish(at, chunk)
            return k.kernel
        table = self.body.locals(self.abreast * STRIPES)
        zero = k.const(0, I64)
        whole = k.op("and", self.body.count, -STRIPES)
        with k.loop(BEGIN, END, self.abreast) as first:
            present = k.minimum(k.sub(END, first), self.abreast)
            with k.when(k.compare("eq", present, self.abreast)):
                self._begin_all(first, whole, table)
            with k.when(k.compare("lt", present, self.abreast)), k.loop(0, present) as row:
                *bases, _ = self.kept.offsets(k.add(first, row))
                self._clear()
                self._rows_of_stripes(zero, whole, bases)
                self._copy(self.stripes, zero, table, k.mul(row, STRIPES))
            with k.loop(0, present) as row:
                *bases, at = self.kept.offsets(k.add(first, row))
                self._copy(table, k.mul(row, STRIPES), self.stripes, zero)
                self._masked(whole, whole, self.body.count, bases)
                self._finish(at, zero)
        return k.kernel

    def _begin_all(self, first: Operand, whole: Operand, table: Places) -> None:
        """The whole rows of stripes of as many outputs as go abreast, into the table."""
        k, body = self.k, self.body
        held = body.locals(self.abreast * STRIPES)
        bases = [self.kept.offsets(k.add(first, row))[:-1] for row in range(self.abreast)]
        with k.loop(0, self.abreast, kind="unrolled") as row:
            self._clear(held, k.mul(row, STRIPES))
        with k.loop(0, whole, STRIPES) as r, k.loop(0, STRIPES, kind="vector") as s:
            for place, base in enumerate(bases):
                at = self.runs.places(self.runs.places(base, r), s)
                values = body.element(at, k.add(r, s))
                body.step_into(held, k.add(s, place * STRIPES), values)
        with k.loop(0, self.abreast, kind="unrolled") as row:
            self._copy(held, k.mul(row, STRIPES), table, k.mul(row, STRIPES))

    def _clear(self, places: Places | None = None, begin: Operand | int = 0) -> None:
        with self.k.loop(0, STRIPES, kind="vector") as s:
            self.body.store(places or self.stripes, self.k.add(s, begin), self.body.identity)

    def _copy(self, source: Places, begin: Operand, target: Places, start: Operand) -> None:
        k, body = self.k, self.body
        with k.loop(0, STRIPES, kind="vector") as s:
            body.store(target, k.add(s, start), body.load(source, k.add(s, begin)))

    def _segment(self, lo: Operand, hi: Operand, origins: Sequence[Operand]) -> None:
        """Takes in a run."""
        k = self.k
        if self.has_runs:  # a run may start at any stripe
            start = k.minimum(hi, k.op("and", k.add(lo, STRIPES - 1), -STRIPES))
            self._masked(k.op("and", lo, -STRIPES), lo, start, origins)
            lo = start
        middle = k.add(lo, k.op("and", k.sub(hi, lo), -STRIPES))
        self._rows_of_stripes(lo, middle, origins)
        self._masked(middle, middle, hi, origins)

    def _rows_of_stripes(self, lo: Operand, hi: Operand, origins: Sequence[Operand]) -> None:
        k, body = self.k, self.body
        with k.loop(lo, hi, STRIPES) as first, k.loop(0, STRIPES, kind="vector") as s:
            at = self.runs.places(self.runs.places(origins, first), s)
            body.step_into(self.stripes, s, body.element(at, k.add(first, s)))

    def _masked(self, first: Operand, lo: Operand, hi: Operand, origins: Sequence[Operand]) -> None:
        k, body = self.k, self.body

        def take(s: Operand, r: Operand, near: Operand, inside: Operand) -> None:
            values = body.element(self.runs.places(origins, near), r)
            values = tuple(map(partial(k.select, inside), values, body.identity))
            body.step_into(self.stripes, s, values)

        masked_stripes(k, first, lo, hi, take)

    def _finish(self, at: Operand, chunk: Operand) -> None:
        """Combines the stripes and stores the result."""
        k, body = self.k, self.body
        with k.loop(0, STRIPES, kind="vector") as s:
            body.store(self.tree, s, body.load(self.stripes, s))
        for half in HALVES:
            with k.loop(0, half, kind="vector") as s:
                body.merge_into(self.tree, s, body.load(self.tree, k.add(s, half)))
        body.store_chunk(at, chunk, body.load(self.tree, k.const(0, I64)))


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
        grouped = k.add(a, k.op("and", k.sub(b, a), -STRIPES * GROUP))
        with k.loop(a, grouped, STRIPES * GROUP) as first, k.loop(0, STRIPES) as s:
            self._take(k.add(first, s), GROUP, origins)
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
    table = body.locals(STRIPES * table_width(source))
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
    "CHUNK", "STRIPES", "Source", "combine_kernel", "lanes_kernel", "lowering", "masked_stripes",
    "merge_neighbours", "plain", "stripes_kernel", "table_width",
]  # fmt: skip
