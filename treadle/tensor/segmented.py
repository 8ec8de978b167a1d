"""Backward passes over graphs that never come again as a whole: segment by segment.

The adjoints that leave a segment (``ir/segments.py``) follow from those that reach it, in the same
way each time. So what the pass records there becomes a template, and wherever the segment occurs,
and is reached in the same places, a call of it. Everything else is walked node by node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.autodiff.reverse import reachable, release, released_before, step
from treadle.base.collector import without_collector
from treadle.base.record import Record
from treadle.ir.call import (
    Call,
    Expansions,
    Template,
    call_template,
    collapse,
    nodes_of,
    parts_of,
    template_of,
)  # fmt: skip
from treadle.ir.node import Leaf, Node, Recording, Scalar, Site, Type
from treadle.ir.scan import Scan
from treadle.ir.segments import SCALAR, Segment, Stretch, segments
from treadle.ops.bundle import Bundled

# What a node of a pass refers to: the adjoint of one of the segment's values, the adjoint that an
# input has already, an input, a value of the segment, a node of the pass.
_ADJOINT, _KNOWN, _INPUT, _OWN, _MADE = range(5)
_MISSING = object()


class _Pass(Record):
    """What a segment adds to a backward pass.

    ``args`` are what the template takes, ``results`` the adjoints of inputs (an input, and what it
    gets), ``released`` the items through which the pass went.
    """

    template: Template | None
    constants: tuple[Scalar, ...]
    args: tuple[tuple[int, int], ...]
    results: tuple[tuple[int, int, int], ...]
    released: tuple[int, ...]


@without_collector
def segmented_backward(
    output: Node, retain: bool, state: Recording, scanned: Scan, seed: Callable[[], Node]
) -> dict[Node, Node] | None:
    """The adjoints of the leaves that ``output`` depends on; None where this way is not worth it,
    or is closed: a user's function in the graph, values whose history was evaluated earlier."""
    for item in scanned.items:
        kind = type(item)
        if kind is Call:
            if item.template.args is not None:
                return None
        elif kind is Bundled or (kind is Leaf and not item.spent):
            return None
    stretches = segments.cut(scanned)
    covered = sum(len(s.segment.pieces) for s in stretches if s.segment.was_seen)
    if 2 * covered < scanned.size or any(map(_leads_outside, stretches)):
        return None
    return _Walk(state, scanned, stretches, retain).run(output, seed)


def _leads_outside(s: Stretch) -> bool:
    """Whether a gradient would go on to what was evaluated before this graph."""
    for kind, number, i in zip(s.segment.kinds, s.numbers, s.inputs, strict=True):
        if (kind == 1 and number < 0) or (kind == 2 and not i.spent):
            return True
    return False


class _Lines:
    """The lines of one stretch, by the numbers within it."""

    __slots__ = ("_scanned", "_start")

    def __init__(self, scanned: Scan, start: int) -> None:
        self._scanned = scanned
        self._start = start

    def site_at(self, number: int) -> Site | None:
        """The line that recorded a value of the stretch."""
        return self._scanned.site_at(self._start + number)


class _Walk:
    """One backward pass, from the last stretch to the first."""

    def __init__(
        self, state: Recording, scanned: Scan, stretches: Sequence[Stretch], retain: bool
    ) -> None:
        self.state = state
        self.scanned = scanned
        self.stretches = stretches
        self.retain = retain
        self.found: dict[Node, Any] = {}  # adjoints
        self.reached: list[dict[int, Node]] = [{} for _ in stretches]  # values with adjoints
        self.owner: list[int] = []  # the stretch of every value
        for position, s in enumerate(stretches):
            self.owner += [position] * len(s.segment.pieces)
        self.is_partial = False  # something was reached that has no adjoint

    def run(self, output: Node, seed: Callable[[], Node]) -> dict[Node, Node]:
        """The adjoints of the leaves."""
        state, retained = self.state, self.retain
        before = state.grad_enabled, state.site, state.capturing
        state.grad_enabled, state.capturing = False, True
        state.is_whole = True
        try:
            self._give(output, self.scanned.known[output], seed())
            for position in range(len(self.stretches) - 1, -1, -1):
                values = self.reached[position]
                if values:
                    s = self.stretches[position]
                    plan = self._plan(s, values) if s.segment.repeats else None
                    if plan is None:
                        self._step_by_step(s)
                    else:
                        self._call(s, plan, values)
        finally:
            state.grad_enabled, state.site, state.capturing = before
            state.is_whole = False
        if self.is_partial and not retained:
            release(reachable([output]))
        return self.found

    def _give(self, n: Node, number: int, adjoint: Any) -> None:
        if number >= 0 and n not in self.found:
            position = self.owner[number]
            self.reached[position][number - self.stretches[position].start] = n
        self.found[n] = adjoint

    # --- one stretch ------------------------------------------------------------------------------

    def _plan(self, s: Stretch, values: dict[int, Node]) -> _Pass | None:
        segment, found, inputs = s.segment, self.found, s.inputs
        numbers = tuple(sorted(values))
        key = numbers, tuple([inputs[k] in found for k in _wanting(segment)])
        plan = segment.passes.get(key, _MISSING)
        if plan is _MISSING:
            plan = segment.passes[key] = _Capture(self.state, self.scanned, s).plan(*key)
        if plan is not None:
            items, begin = self.scanned.items, s.begin
            for position in plan.released:
                if items[begin + position].spent:
                    return None  # to say so
        return plan

    def _call(self, s: Stretch, plan: _Pass, values: dict[int, Node]) -> None:
        found, scanned, inputs = self.found, self.scanned, s.inputs
        items, begin = scanned.items, s.begin

        def value(what: int, index: int) -> Any:
            if what == _OWN:
                return scanned.part_at(s.start + index)
            if what == _INPUT:
                return inputs[index]
            return found[values[index] if what == _ADJOINT else inputs[index]]

        outs: Sequence[Node] = ()
        if plan.template is not None:
            args = tuple([value(what, index) for what, index in plan.args])
            lines = _Lines(scanned, s.start)
            site = items[begin].site
            outs = call_template(plan.template, plan.constants, args, self.state, site, lines)
        results = [
            (k, outs[index] if what == _MADE else value(what, index))
            for k, what, index in plan.results
        ]
        for n in values.values():
            del found[n]
        for k, adjoint in results:
            self._give(inputs[k], s.numbers[k], adjoint)
        if not self.retain:
            for position in plan.released:
                item = items[begin + position]
                item.spent = True
                if type(item) is Call:
                    for n in parts_of(item):
                        n.spent = n.needs_grad

    def _step_by_step(self, s: Stretch) -> None:
        found, state, known = self.found, self.state, self.scanned.known
        for position in range(s.end - 1, s.begin - 1, -1):
            item = self.scanned.items[position]
            for n in reversed(nodes_of(item) if type(item) is Call else (item,)):
                if n not in found or type(n) is Leaf:
                    continue
                if n.spent:
                    raise released_before(n)
                state.site = n.site
                step(n, found.pop(n), found)
                if not self.retain:
                    n.spent = item.spent = True
                for i in n.inputs:
                    if i not in found:
                        self.is_partial = self.is_partial or i.needs_grad
                    elif known.get(i, -1) >= 0:
                        self._mark(i, known[i])

    def _mark(self, n: Node, number: int) -> None:
        position = self.owner[number]
        self.reached[position][number - self.stretches[position].start] = n


def _wanting(segment: Segment) -> list[int]:
    """The inputs that a gradient goes to."""
    return [k for k, kind in enumerate(segment.kinds) if kind in (1, 2)]


class _Capture:
    """Makes the plan of a segment from one occurrence, which is left as it was."""

    def __init__(self, state: Recording, scanned: Scan, s: Stretch) -> None:
        self.state = state
        self.scanned = scanned
        self.stretch = s
        self.items = scanned.items[s.begin : s.end]
        self.sources: dict[Node, tuple[int, int]] = {}

    def plan(self, numbers: tuple[int, ...], known: tuple[bool, ...]) -> _Pass | None:
        """What the pass does where it reaches the values ``numbers`` with adjoints, and where those
        inputs that want a gradient have one already; None where that cannot be repeated."""
        calls = [item for item in self.items if type(item) is Call]
        if any(call.nodes is not None and call.constants for call in calls):
            return None  # its numbers cannot be told apart any more
        self._tell_scalars_apart()
        whole = [call for call in calls if call.nodes is None]
        count = Expansions.count
        state, pending = self.state, self.state.pending
        start, nbytes = len(pending), state.nbytes
        try:
            return self._recorded(numbers, known, start)
        finally:
            del pending[start:]
            state.nbytes = nbytes
            self.sources.clear()
            for call in whole:
                if call.nodes is not None:
                    collapse(call)
            if self.scanned.expansions == count and Expansions.count == count + 2 * len(whole):
                self.scanned.expansions = Expansions.count  # it is all as before

    def _tell_scalars_apart(self) -> None:
        """Gives every number a node of its own, so that it is told from those that the gradient
        makes: the pass is called again with other numbers."""
        s = self.stretch
        twins: dict[Node, Any] = {}
        for k, kind in enumerate(s.segment.kinds):
            i = s.inputs[k]
            if kind == SCALAR and isinstance(i, Scalar):
                s.inputs[k] = twins[i] = i.twin()
        for item in self.items if twins else ():
            item.inputs = tuple([twins.get(i, i) for i in item.inputs])
            if type(item) is Call:
                item.constants = tuple([twins.get(i, i) for i in item.constants])

    def _recorded(
        self, numbers: tuple[int, ...], known: tuple[bool, ...], start: int
    ) -> _Pass | None:
        s = self.stretch
        nodes = [n for i in self.items for n in (nodes_of(i) if type(i) is Call else (i,))]
        found: dict[Node, Any] = {}
        wanting = _wanting(s.segment)
        given = [(nodes[number], (_ADJOINT, number)) for number in numbers]
        given += [
            (s.inputs[k], (_KNOWN, k)) for k, there in zip(wanting, known, strict=True) if there
        ]
        if any(type(n.type) is not Type for n, _ in given):
            return None  # an adjoint for each of several results
        sources = self.sources
        sources.update((i, (_INPUT, k)) for k, i in enumerate(s.inputs))
        sources.update((n, (_OWN, number)) for number, n in enumerate(nodes))
        for n, source in given:
            found[n] = adjoint = Node(n.sig, (), None, False)  # stands for any
            sources[adjoint] = source
        pending = self.state.pending
        origins: dict[Node, int] = {}
        for number in range(len(nodes) - 1, -1, -1):
            n = nodes[number]
            if n in found:
                before = len(pending)
                self.state.site = n.site
                step(n, found.pop(n), found)
                origins.update(dict.fromkeys(pending[before:], number))
        made = pending[start:]
        results = self._results(wanting, found, made)
        released = self._released(numbers, wanting, found)
        if results is None or released is None:
            return None
        args: dict[Node, int] = {}
        inside = set(made)
        for m in made:
            for i in m.inputs:
                if i not in inside and i in sources:
                    args.setdefault(i, len(args))
        outs = [found[s.inputs[k]] for k, what, _ in results if what == _MADE]
        taken = tuple([sources[i] for i in args])
        if not outs:
            return _Pass(None, (), taken, results, released)
        found_template = template_of(made, args, outs, origins=origins)
        if found_template is None:
            return None
        return _Pass(*found_template, taken, results, released)

    def _results(
        self, wanting: list[int], found: dict[Node, Any], made: list[Node]
    ) -> tuple[tuple[int, int, int], ...] | None:
        results: list[tuple[int, int, int]] = []
        inside = set(made)
        outs: dict[Node, int] = {}
        inputs = self.stretch.inputs
        if len(found) > sum(inputs[k] in found for k in wanting):
            return None  # something else has an adjoint
        for k in wanting:
            adjoint = found.get(inputs[k])
            if adjoint is None:
                continue
            if type(adjoint) is list:
                return None
            if adjoint in inside:
                results.append((k, _MADE, outs.setdefault(adjoint, len(outs))))
                continue
            source = self.sources.get(adjoint, (_OWN, 0))
            if source[0] not in (_ADJOINT, _KNOWN):
                return None
            if source != (_KNOWN, k):
                results.append((k, *source))
        return tuple(results)

    def _released(
        self, numbers: tuple[int, ...], wanting: list[int], found: dict[Node, Any]
    ) -> tuple[int, ...] | None:
        """The items through which the pass goes, if all that it reaches gets an adjoint."""
        s = self.stretch
        pieces = s.segment.pieces
        reached = set(numbers)
        for number in range(len(pieces) - 1, -1, -1):
            if number in reached and pieces[number].needs_grad:
                reached.update(pieces[number].inputs)
        if any(~k in reached and s.inputs[k] not in found for k in wanting):
            return None
        released = []
        number = 0
        for position, item in enumerate(self.items):
            if type(item) is not Call:
                values = [number] if item.needs_grad else []
                number += 1
            else:
                specs = item.template.specs
                outs = item.template.outs if item.nodes is None else range(len(specs))
                values = [number + o for o in outs if specs[o].needs_grad]
                number += len(specs)
            there = [v in reached for v in values]
            if any(there):
                if not all(there):
                    return None  # one of its results leads nowhere: it stays half open
                released.append(position)
        return tuple(released)


__all__ = ["segmented_backward"]
