"""Maps that are alike become one launch: above all the update of every parameter of a network.

Two maps are alike where one kernel serves both and goes over each in a single loop; the kernel of
a batch does so part by part, for whichever of its threads' shares a part lies in. Parts wait for
the last of them, so a batch takes in only what nobody reads before, and holds little back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from treadle.base import dtypes
from treadle.compiler.fuse import Fusion, Group
from treadle.compiler.lower import map_kernel
from treadle.compiler.recipe import Recipe, emit_recipe
from treadle.compiler.schedule import Lowered, Step, uses
from treadle.ir.launch import Argument, In, KernelSpec, Launch, Out, Plan
from treadle.ir.loop import BEGIN, END, Builder, Kernel

_BLOCK = 64  # elements of a unit
_MOST_PARTS = 512
_MOST_HELD = 1 << 20  # bytes that live longer for the sake of a batch


class Batch(Group):
    """The entries of several groups, which are its parts."""

    __slots__ = ()
    kind = "batch"

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__(groups[0].space)
        self.entries = [value for group in groups for value in group.entries]
        self.full = {value: True for group in groups for value in group.full}


class _Open:
    """A batch that more parts may join."""

    def __init__(self, key: KernelSpec) -> None:
        self.key = key
        self.parts: list[int] = []  # numbers of steps
        self.deadline = 1 << 60  # the first step that reads what a part gives
        self.held = 0


def batch(fusion: Fusion, steps: list[Step]) -> list[Step]:
    """The steps with maps that are alike as one step, where the last of them was."""
    readers, last = uses(fusion, steps)
    opened: dict[KernelSpec, _Open] = {}
    batches: list[_Open] = []
    for number, step in enumerate(steps):
        key = _key(step)
        if key is None or step.lowered is None:
            continue
        found = opened.get(key)
        if found is None or found.deadline <= number or len(found.parts) == _MOST_PARTS:
            found = opened[key] = _Open(key)
            batches.append(found)
        own = step.lowered.results
        ends_here = {a.root for a in step.lowered.loads if last.get(a.root) == number}
        held = sum(_nbytes(fusion, v) for v in ends_here if v >= fusion.start)
        if found.held + held <= _MOST_HELD:
            found.parts.append(number)
            found.deadline = min(found.deadline, *(readers.get(v, 1 << 60) for v in own))
            found.held += held
    merged = {b.parts[-1]: b.parts for b in batches if len(b.parts) > 1}
    gone = {number for parts in merged.values() for number in parts}
    return [
        _merged([steps[part] for part in merged[number]]) if number in merged else step
        for number, step in enumerate(steps)
        if number in merged or number not in gone
    ]


def _key(step: Step) -> KernelSpec | None:
    """What maps that can be parts of one batch have in common."""
    launches = () if step.lowered is None else step.lowered.plan.launches
    if len(launches) != 1 or launches[0].kernel.build is not map_kernel:
        return None
    _, _, nest = launches[0].kernel.key
    return launches[0].kernel if nest.rank == 1 and not nest.classes.strip("cb") else None


def _nbytes(fusion: Fusion, value: int) -> int:
    return sum(t.nbytes for t in fusion.entry(value).sig.types)


def _merged(parts: list[Step]) -> Step:
    lowered = [step.lowered for step in parts if step.lowered is not None]
    outs = accumulate((len(part.results) for part in lowered), initial=0)
    ins = accumulate((len(part.loads) for part in lowered), initial=0)
    addresses: list[Argument] = []
    for part, out, load in zip(lowered, outs, ins, strict=False):
        for argument in part.plan.launches[0].args:
            if isinstance(argument, Out):
                addresses.append(Out(argument.index + out, argument.offset))
            elif isinstance(argument, In):
                addresses.append(In(argument.index + load, argument.offset))
    launches = [part.plan.launches[0] for part in lowered]
    recipe, results, nest = launches[0].kernel.key
    lengths = [launch.units for launch in launches]
    ends = list(accumulate(-(-n // _BLOCK) for n in lengths))
    spec = KernelSpec(batch_kernel, (recipe, results, nest.classes, len(parts)))
    work = sum(launch.work for launch in launches)
    launch = Launch(spec, (*addresses, *lengths, 0, *ends), ends[-1], work)
    loads = tuple(load for part in lowered for load in part.loads)
    values = tuple(value for part in lowered for value in part.results)
    group = Batch([step.group for step in parts if step.group is not None])
    wanted = tuple(value for step in parts for value in step.results)
    return Step(parts[-1].entry, group, wanted, Lowered(Plan((launch,)), loads, values))


def batch_kernel(recipe: Recipe, results: tuple[int, ...], classes: str, parts: int) -> Kernel:
    """``recipe`` for every element of ``parts`` flat maps; a unit is a block of a part."""
    k = Builder(f"batch_{recipe.name}_{parts}")
    operands = [dtypes.by_short(recipe.dtype(value)) for value in results]
    operands += map(dtypes.by_short, recipe.loads)
    pointers = [[k.pointer(f"p{s}_{j}", d) for j, d in enumerate(operands)] for s in range(parts)]
    lengths = [k.size(f"n{s}") for s in range(parts)]
    bounds = [k.size(f"u{s}") for s in range(parts + 1)]
    with k.loop(0, parts) as s:
        begin = k.choose_size(bounds[:-1], s)
        first = k.sub(k.maximum(BEGIN, begin), begin)
        last = k.sub(k.minimum(END, k.choose_size(bounds[1:], s)), begin)
        stop = k.minimum(k.mul(last, _BLOCK), k.choose_size(lengths, s))
        with k.when(k.compare("lt", first, last)):
            own = [k.choose_pointer(column, s) for column in zip(*pointers, strict=True)]
            # Once for all elements: nothing that is stored here is read here.
            same = {j: k.load(own[j], 0) for j, kind in enumerate(classes) if kind == "b"}
            with k.loop(k.mul(first, _BLOCK), stop, kind="vector") as i:
                count = len(results)
                loaded = [same[j] if j in same else k.load(own[j], i)
                          for j in range(count, len(own))]  # fmt: skip
                values = emit_recipe(k, recipe, loaded)
                for pointer, value in zip(own, results, strict=False):
                    k.store(pointer, i, values[value])
    return k.kernel


__all__ = ["Batch", "batch", "batch_kernel"]
