"""Maps that ride on a contraction: bias, activation, residual, scale, the mask of a gradient.

A map that reads a contraction's result element by element is computed where the contraction has
its complete sums at hand, in registers or the nearest cache, and what nobody else reads of the
result is never written. The contraction is the *head* of such a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.errors import CompileError
from treadle.base.record import Record
from treadle.base.shapes import Shape, prod
from treadle.codegen.hooks import Fused, Hook, Indices, Riders
from treadle.compiler.fuse import Access, Fusion, Group, Space
from treadle.compiler.lower import plan_contraction, takes_riders
from treadle.compiler.recipe import Recipe, emit_recipe
from treadle.ir.launch import Argument, In, Layout, Out, Plan
from treadle.ir.loop import Builder, Operand, Pointer
from treadle.ir.node import Signature, type_of
from treadle.ir.op import Contraction
from treadle.ops import registry

_MOST_RIDERS = 24  # entries of a map that rides: kernels are to compile quickly
_MOST_STREAMS = 3  # whole values that it reads or keeps: strips of rows are poor streams


# --- which maps ride ------------------------------------------------------------------------------


def attach_contractions(fusion: Fusion) -> None:
    """Makes contractions the heads of the maps that read them, where that can be done."""
    readers: dict[int, dict[Group, None]] = {}
    for value in fusion.trace.computed():
        group = fusion.group_of.get(value)
        if group is not None:
            for i in fusion.entry(value).inputs:
                readers.setdefault(fusion.root(i), {})[group] = None
    for value in fusion.trace.computed():
        if _may_be_head(fusion, value):
            for group in readers.get(value, ()):
                if _may_ride(fusion, group, value):
                    group.head = value
                    group.entries.insert(0, value)
                    group.entries.sort()
                    group.full[value] = True
                    fusion.group_of[value] = group
                    break


def _may_be_head(fusion: Fusion, value: int) -> bool:
    sig, inputs, _ = fusion.entry(value)
    if not isinstance(sig.op.lower, Contraction) or not sig.type.size:
        return False
    layouts = [a.layout for i in inputs if (a := fusion.access[i]) is not None]
    return len(layouts) == len(inputs) and takes_riders(sig.op, sig.attrs, layouts, sig.type.layout)


def _may_ride(fusion: Fusion, group: Group, head: int) -> bool:
    shape, grid = group.space.shape, _grid(fusion.entry(head).sig)
    if group.head is not None or group.space.axes is not None or prod(shape) != prod(grid):
        return False
    if len(group.entries) > _MOST_RIDERS:
        return False
    others: list[int] = []
    streams: set[Access | int] = {v for v in group.entries if fusion.entry(v).keep}
    for value in group.entries:
        for i in fusion.entry(value).inputs:
            access = fusion.access[i]
            if access is None:
                return False
            if access.root == head:
                if access.offset or not group.space.is_full(access.layout):
                    return False
            elif fusion.group_of.get(access.root) is not group:
                strides = _on_grid(access.layout, grid)
                if strides is None:
                    return False
                if strides[-1] and any(strides[:-1]):
                    streams.add(access)
                others.append(i)
    return len(streams) <= _MOST_STREAMS and not _waits_for(fusion, others, head)


def _grid(sig: Signature) -> Shape:
    """(batches, rows, columns) of a contraction's result; (images, channels, pixels)."""
    shape: Shape = sig.type.shape
    lower = sig.op.lower
    if isinstance(lower, Contraction) and lower.kind != "matmul":
        return (*shape[:2], prod(shape[2:]))
    return (1,) * (3 - len(shape)) + shape


def _on_grid(layout: Layout, grid: Shape) -> tuple[int, ...] | None:
    """The strides of a value as one of another shape, where it needs no copy."""
    view: Any = registry.get("reshape").lower
    found = view.move(layout, type_of(layout.dtype, grid), shape=grid)
    return None if found is None else found[0]


def _waits_for(fusion: Fusion, values: Iterable[int], head: int) -> bool:
    """True where one of the values can be had only after ``head``."""
    alone = Group(Space((), None))
    fusion.join(alone, head, True)
    try:
        return fusion.depend_on(values, alone)
    finally:
        del fusion.group_of[head]


# --- what they become -----------------------------------------------------------------------------


class Epilogue(Record):
    """``recipe`` for an element of a contraction, whose last load is the contraction's own value.

    Of the ``results`` the first is what the contraction stores; the others are stored beside it.
    ``steps`` tell how the other loads step along a row: c, b, or s for any stride.
    """

    recipe: Recipe
    results: tuple[int, ...]
    steps: str

    def __call__(
        self, k: Builder, value: Operand, place: Indices, pointers: Sequence[Pointer],
        ahead: Sequence[Operand],
    ) -> Operand:  # fmt: skip
        """The element to store, after storing the others; ``ahead`` is what ``Beginning`` gives."""
        column, given = place[2], iter(ahead)
        loaded: list[Operand] = []
        for pointer, kind in zip(pointers, self.steps, strict=False):
            known = next(given)
            if kind != "b":
                step = column if kind == "c" else k.mul(column, next(given))
                known = k.load(pointer, k.add(known, step))
            loaded.append(known)
        values = emit_recipe(k, self.recipe, [*loaded, value])
        at = k.add(next(given), column)
        for pointer, result in zip(pointers[len(self.steps) :], self.results[1:], strict=True):
            k.store(pointer, at, values[result])
        return values[self.results[0]]


class Beginning(Record):
    """What an ``Epilogue`` needs of a row: values that are the same for all of it, places."""

    steps: str

    def __call__(
        self, k: Builder, batch: Operand, row: Operand, pointers: Sequence[Pointer],
        sizes: Sequence[Operand],
    ) -> list[Operand]:  # fmt: skip
        """In the order in which they are wanted."""
        numbers = iter(sizes)
        found: list[Operand] = []
        for place, kind in enumerate((*self.steps, "result")):
            at = k.add(k.mul(batch, next(numbers)), k.mul(row, next(numbers)))
            found.append(k.load(pointers[place], at) if kind == "b" else at)
            if kind == "s":
                found.append(next(numbers))
        return found


def plan_with_epilogue(
    sig: Signature, operands: Sequence[Layout], recipe: Recipe, loads: Sequence[Layout],
    results: tuple[int, ...], threads: int, vector_bits: int,
) -> Plan:  # fmt: skip
    """The launches of a contraction with ``recipe`` for its result.

    Inputs of the plan are the operands, then ``loads``; outputs are the ``results`` in order, of
    which the first has the contraction's dtype. The last load of the recipe is its result.
    """
    grid = _grid(sig)
    _, rows, columns = grid
    steps = ""
    numbers: list[int] = []
    for load in loads:
        strides = _on_grid(load, grid)
        if strides is None:
            raise CompileError(f"{sig.op.name}: {load} does not lie on a grid of {grid}")
        steps += {1: "c", 0: "b"}.get(strides[2], "s")
        numbers += strides[: 2 + (steps[-1] == "s")]
    pointers = (
        *(load.dtype for load in loads),
        *(dtypes.by_short(recipe.dtype(value)) for value in results[1:]),
    )
    addresses: tuple[Argument, ...] = (
        *(In(2 + j) for j in range(len(loads))),
        *(Out(j) for j in range(1, len(results))),
    )
    emit: Any = Epilogue(recipe, results, steps)  # tuples that can be called
    begin: Any = Beginning(steps)
    hook = Hook(recipe.name, emit, pointers, len(numbers) + 2, begin)
    fused = Fused(hook, addresses, (*numbers, rows * columns, columns))
    riders = Riders(result=fused)
    out = sig.type.layout
    return plan_contraction(sig.op, sig.attrs, operands, out, threads, vector_bits, riders)


__all__ = ["Epilogue", "attach_contractions", "plan_with_epilogue"]
