"""The order of a program's steps: each as early as what it reads allows.

A step is a group, or an entry that is computed alone. Groups may wait for one another in a circle
(the search of ``fuse`` looks only so far back); the smallest group of each circle is then computed
one entry at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

from treadle.base.errors import CompileError
from treadle.base.record import Record
from treadle.compiler.fuse import Access, Fusion, Group, Space
from treadle.ir.launch import Plan

Waits = dict[Any, set[Any]]  # a step is a Group here, or the number of a value


class Lowered(Record):
    """The launches of a group: what they load and store, in the order of the plan's operands.

    Of results with several parts each part is an output of the plan.
    """

    plan: Plan
    loads: tuple[Access, ...]
    results: tuple[int, ...]


class Step(Record):
    """One entry, or a group with the values that others read of it."""

    entry: int
    group: Group | None
    results: tuple[int, ...] = ()
    lowered: Lowered | None = None  # of a group, once it is known


def schedule(fusion: Fusion) -> list[Step]:
    """The steps of what was fused, in an order in which they can be run."""
    while True:
        waits, wanted = _waits(fusion)
        steps = list(_topological(waits, wanted))
        if len(steps) == len(waits):
            return steps
        for circle in _circles(waits, steps):
            _dissolve(fusion, circle)


def split_sums(fusion: Fusion) -> None:
    """A sum stores no elements: those that somebody wants become a map before it."""
    _, wanted = _waits(fusion)
    for group in fusion.groups():
        if group.space.axes is not None and not group.uses_results:
            _split(fusion, group, wanted)


def verify_steps(fusion: Fusion, steps: list[Step]) -> None:
    """Raises CompileError where a step reads what no step before it made, or one is missing."""
    trace, made = fusion.trace, set(range(fusion.trace.first))
    for step in steps:
        values = [step.entry] if step.group is None else step.group.entries
        made.update(values)
        for value in values:
            missing = [i for i in trace.entry(value).inputs if fusion.root(i) not in made]
            if missing:
                raise CompileError(f"the step of %{value} reads %{missing[0]}, which comes later")
    for value in trace.computed():
        if fusion.root(value) not in made:
            raise CompileError(f"no step computes %{value}")


def uses(fusion: Fusion, steps: Sequence[Step]) -> tuple[dict[int, int], dict[int, int]]:
    """The first and the last step that reads each value of another one; one beyond all if kept."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, step in enumerate(steps):
        for value in [step.entry] if step.group is None else step.group.entries:
            for i in fusion.entry(value).inputs:
                for root in fusion.roots(i):
                    if step.group is None or fusion.group_of.get(root) is not step.group:
                        first.setdefault(root, number)
                        last[root] = number
    for value, entry in enumerate(fusion.trace.entries, fusion.start):
        if entry.keep:
            last.update(dict.fromkeys(fusion.roots(value), len(steps)))
    return first, last


def _dissolve(fusion: Fusion, circle: list[Any]) -> None:
    """Lets the entries of the smallest group in a circle run one by one."""
    groups = [step for step in circle if isinstance(step, Group)]
    for value in min(groups, key=lambda group: (len(group.entries), group.first)).entries:
        del fusion.group_of[value]


def _waits(fusion: Fusion) -> tuple[Waits, set[int]]:
    """What every step waits for, and the values that must be in memory."""
    waits: Waits = {}
    wanted: set[int] = set()
    trace, group_of, root_of = fusion.trace, fusion.group_of, fusion.root
    first = trace.first
    for value, entry in enumerate(trace.entries, first):
        if entry.keep:
            _want(fusion, root_of(value), wanted)
        if root_of(value) != value:
            continue  # a view or no longer needed: whoever reads it reads what it looks at
        step = group_of.get(value, value)
        sources = waits.setdefault(step, set())
        for i in entry.inputs:
            root = root_of(i)
            source = group_of.get(root, root)
            if root >= first and source is not step:
                sources.add(source)
                _want(fusion, root, wanted)
    return waits, wanted


def _want(fusion: Fusion, root: int, wanted: set[int]) -> None:
    wanted.add(root)
    if root >= fusion.trace.first and "project" in fusion.trace.entry(root).sig.op.traits:
        wanted.add(fusion.trace.entry(root).inputs[0])


def _split(fusion: Fusion, group: Group, wanted: set[int]) -> None:
    todo = [v for v in group.entries if group.full[v] and v in wanted]
    before: set[int] = set()
    while todo:
        value = todo.pop()
        if value not in before:
            before.add(value)
            roots = map(fusion.root, fusion.trace.entry(value).inputs)
            todo += (r for r in roots if fusion.group_of.get(r) is group)
    if before:
        group.entries = [v for v in group.entries if v not in before]
        elements = Group(Space(group.space.shape, None))
        for value in sorted(before):
            del group.full[value]
            fusion.join(elements, value, True)


def _topological(waits: Waits, wanted: set[int]) -> Iterator[Step]:
    readers: dict[Any, list[Any]] = {step: [] for step in waits}
    left = {step: len(sources) for step, sources in waits.items()}
    for step, sources in waits.items():
        for source in sources:
            readers[source].append(step)
    ready: list[tuple[int, int, Any]] = []
    for step, count in left.items():
        if not count:
            heappush(ready, (_position(step), id(step), step))
    while ready:
        at, _, step = heappop(ready)
        if isinstance(step, Group):
            yield Step(at, step, tuple(v for v in step.entries if v in wanted))
        else:
            yield Step(step, None)
        for reader in readers[step]:
            left[reader] -= 1
            if not left[reader]:
                heappush(ready, (_position(reader), id(reader), reader))


def _circles(waits: Waits, done: list[Step]) -> Iterator[list[Any]]:
    """Circles of steps that wait for one another, no step in two of them."""
    left = waits.keys() - {step.entry if step.group is None else step.group for step in done}
    state: dict[Any, int] = {}  # the walk that came by first
    for number, start in enumerate(sorted(left, key=_position)):
        step, path = start, []
        while step not in state:
            state[step] = number
            path.append(step)
            step = min(waits[step] & left, key=_position)
        if state[step] == number:
            yield path[path.index(step) :]


def _position(step: Any) -> int:
    return step.first if isinstance(step, Group) else int(step)


__all__ = ["Step", "schedule", "uses", "verify_steps"]
