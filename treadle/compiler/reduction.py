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

from collections.abc import Sequence

from treadle.base.record import Record
from treadle.base.shapes import contiguous_strides, prod
from treadle.compiler.recipe import Recipe
from treadle.compiler.reduction_kernels import (
    CHUNK,
    GROUP,
    LANES,
    STRIPES,
    Source,
    combine_kernel,
    lanes_kernel,
    plain,
    stripes_kernel,
    table_width,
)
from treadle.compiler.walks import step_classes
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Layout, Out, Plan, Work
from treadle.ir.nest import coalesce

_NARROW = 128  # outputs in a block that is to stay in the first-level cache


class Axes(Record):
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
    widest = table_width(name[0])
    if strides[main] != 1 or prod(reduced.sizes) < 2 * STRIPES * GROUP:
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


__all__ = ["CHUNK", "STRIPES", "Source", "divide_up", "plain", "plan_reduction", "split_axes"]
