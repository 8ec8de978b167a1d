"""Backward passes that were recorded before: the same graph has the same gradient.

A backward pass over a graph whose structure has been seen becomes an open template
(``ir/call.py``): the next one over an equal graph is one call, whatever the number of its nodes.
What cannot be repeated so is recorded node by node, as the first time: gradients that are to be
differentiated, users' functions in the graph, a graph part of which was evaluated earlier.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.ir.call import Call, Template, call_template, collapse, template_of
from treadle.ir.node import Leaf, Node, Recording, Scalar, user_site
from treadle.ir.scan import Scan, scan
from treadle.ir.segments import RECENT, SEGMENTED, SHORTEST
from treadle.ops.bundle import Bundled
from treadle.tensor.segmented import segmented_backward

_MOST = 1 << 18  # parts of the keys of all templates together
_SIGHTINGS = 1 << 12


class _Plan(Record):
    """A template, and what its call gives to whom."""

    template: Template
    constants: tuple[Scalar, ...]
    leaves: tuple[int, ...]  # the numbers of the values that get an adjoint
    outs: tuple[int, ...]  # which of the outs each of them gets
    released: tuple[int, ...]  # the items of the graph that the pass went through


class _Passes:
    """The templates of backward passes, by the structure before them; a bounded number."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Any, _Plan | None] = OrderedDict()
        self._seen: OrderedDict[int, float] = OrderedDict()
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._length = 0

    def find(self, key: Any, is_ahead: bool) -> _Plan | bool | None:
        """The plan; None where there can be none; True to make one, False where it is new."""
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        mark = hash(key)
        times = self._seen.get(mark, 0.0)
        if times >= 1 or is_ahead or mark in self._recent:
            return True
        self._recent.append(mark)
        self._seen[mark] = times + 1
        if len(self._seen) > _SIGHTINGS:
            self._seen.popitem(last=False)
        return False

    def was_segmented(self, key: Any) -> None:
        """The pass was recorded by segments, nearly as quickly: there is little need of a plan."""
        mark = hash(key)
        self._seen[mark] = self._seen.get(mark, 1) - 1 + SEGMENTED

    def put(self, key: Any, plan: _Plan | None) -> None:
        """Remembers what ``find`` is to give from now on."""
        self._plans[key] = plan
        self._length += len(key[0])
        while self._length > _MOST and len(self._plans) > 1:
            oldest, _ = self._plans.popitem(last=False)
            self._length -= len(oldest[0])


_passes = _Passes()


def backward_of(
    output: Node, retain: bool, state: Recording, seed: Callable[[], Node],
    ordinary: Callable[[], dict[Node, Node]], wanted: Sequence[Node] | None = None,
) -> dict[Node, Node]:  # fmt: skip
    """The adjoints of the leaves that ``output`` depends on, or of the ``wanted`` nodes only,
    recorded by ``ordinary`` or as before.

    ``ordinary`` records the pass from ``seed()``, ones, without gradients of its own.
    """
    if flags.PROGRAMS == "off" or state.capturing or state.site is not None:
        return ordinary()
    scanned = scan(state)
    number = scanned.known.get(output)
    if number is None or number < 0 or scanned.is_odd:
        return ordinary()
    targets = None if wanted is None else tuple([scanned.known.get(n) for n in wanted])
    if targets is not None and None in targets:
        return ordinary()
    key = (scanned.key(), number, retain, targets)
    plan = _passes.find(key, state.is_ahead)
    if plan is True:
        found, plan = _captured(retain, state, scanned, ordinary, wanted is not None)
        _passes.put(key, plan)
        if plan is None:
            return found
    if isinstance(plan, _Plan):
        return _called(plan, state, scanned, wanted)
    if plan is False and wanted is None and scanned.size >= SHORTEST:
        by_segments = segmented_backward(output, retain, state, scanned, seed)
        if by_segments is not None:
            _passes.was_segmented(key)
            return by_segments
    return ordinary()


def _called(
    plan: _Plan, state: Recording, scanned: Scan, wanted: Sequence[Node] | None
) -> dict[Node, Node]:
    items = scanned.items
    node_at: Callable[[int], Node] = scanned.node_at
    if wanted is not None:  # they are there; ``node_at`` might make a call's
        node_at = {scanned.known[n]: n for n in wanted}.__getitem__
    for position in plan.released:
        item = items[position]
        item.spent = True
        if type(item) is Bundled:
            item.call = None
        elif type(item) is Call:
            for n in item.outs if item.nodes is None else item.nodes:
                n.spent = n.needs_grad
    outs = call_template(plan.template, plan.constants, (), state, user_site(), scanned)
    for n in outs:
        n.keep = True
    return {node_at(leaf): outs[o] for leaf, o in zip(plan.leaves, plan.outs, strict=True)}


def _captured(
    retain: bool, state: Recording, scanned: Scan, ordinary: Callable[[], dict[Node, Node]],
    are_wanted: bool,
) -> tuple[dict[Node, Node], _Plan | None]:  # fmt: skip
    """The ordinary pass, and its plan, in whose favour the pass is taken back."""
    calls = [item for item in scanned.items if type(item) is Call]
    if any(call.nodes is not None and call.constants for call in calls):
        return ordinary(), None  # its numbers cannot be told apart any more
    if any(type(i) is Bundled and not (i.call and i.call.is_pure) for i in scanned.items):
        return ordinary(), None  # a user's function, which may do otherwise next time
    whole = [call for call in calls if call.nodes is None]
    _tell_scalars_apart(scanned)
    pending = state.pending
    start = len(pending)
    before = [item.spent for item in scanned.items]
    state.capturing = True
    try:
        found = ordinary()
    finally:
        state.capturing = False
    if (
        len(pending) < start
        or len(scanned.items) != start
        or any(a is not b for a, b in zip(pending, scanned.items, strict=False))
    ):
        return found, None  # evaluated in between
    leaves = _numbers_of(found, scanned, are_wanted)
    released = _released(scanned, before)
    made = pending[start:]
    args, numbers, origins = _arguments(scanned, made)
    template = template_of(made, args, list(found.values()), numbers, origins)
    if (
        template is None or leaves is None or released is None
        or any(spec.needs_grad for spec in template[0].specs)
    ):  # fmt: skip
        return found, None
    adjoints = list(dict.fromkeys(found.values()))
    outs = tuple([adjoints.index(a) for a in found.values()])
    plan = _Plan(*template, leaves, outs, () if retain else released)
    del pending[start:]
    state.nbytes -= plan.template.nbytes
    del made, args, origins, adjoints, found
    for call in whole:
        if call.nodes is not None:
            collapse(call)
    return {}, plan


def _tell_scalars_apart(scanned: Scan) -> None:
    """Gives every use of a number a node of its own, so that a gradient tells which one it reads:
    the pass is called again with other numbers."""
    position = 0
    for item in scanned.items:
        inputs = item.inputs if type(item) is not Call or item.template.args is None else ()
        if any(type(i) is Scalar for i in inputs):
            twins = []
            for i in inputs:
                if type(i) is Scalar:
                    i = scanned.scalars[position] = i.twin()
                    position += 1
                twins.append(i)
            item.inputs = tuple(twins)
        if type(item) is Call and item.nodes is None:
            item.constants = tuple([c.twin() for c in item.constants])
            scanned.scalars[position : position + len(item.constants)] = item.constants
        if type(item) is Call:
            position += len(item.constants)


def _numbers_of(found: dict[Node, Node], scanned: Scan, are_wanted: bool) -> tuple[int, ...] | None:
    """The numbers of the leaves, if that is all that has got an adjoint (or of what was wanted)."""
    numbers = [scanned.known.get(n) for n in found if are_wanted or type(n) is Leaf]
    if len(numbers) < len(found) or None in numbers:
        return None
    return tuple(numbers)  # type: ignore[arg-type]


def _released(scanned: Scan, before: list[bool]) -> tuple[int, ...] | None:
    """The items that the pass went through, if the next one is sure to go through the same."""
    released = []
    for position, item in enumerate(scanned.items):
        if type(item) is not Call:
            if item.spent and not before[position] and type(item) is not Leaf:
                released.append(position)
        elif item.nodes is not None:
            reached = {n.spent for n in item.outs if n.needs_grad}
            if len(reached) > 1:
                return None  # one of its results leads nowhere: it stays half open
            if True in reached:
                released.append(position)
    # What was evaluated before this graph began has a past that is not in the key.
    if any(n.needs_grad and type(n) is not Leaf for n in scanned.externals):
        return None
    return tuple(released)


def _arguments(
    scanned: Scan, made: Sequence[Node]
) -> tuple[dict[Node, int], tuple[Any, ...], dict[Node, int]]:
    """What the pass reads of the graph (numbered, and their numbers in the scan), and which value
    each of its nodes has its line from."""
    number_of: dict[Node, Any] = dict(scanned.known)
    number_of.update({n: (position,) for position, n in enumerate(scanned.scalars)})
    lines: dict[Any, int] = {}
    for start, item in zip(scanned.starts, scanned.items, strict=True):
        lines.setdefault(id(item.site), start)
        for number, n in enumerate(item.nodes or () if type(item) is Call else (), start):
            number_of[n] = number
            lines.setdefault(id(n.site), number)
    args: dict[Node, int] = {}
    numbers: list[Any] = []
    inside = set(made)
    for n in made:
        for i in n.inputs:
            if i not in inside and i not in args and i in number_of:
                args[i] = len(args)
                numbers.append(number_of[i])
    origins = {n: lines.get(id(n.site), 0) for n in made}
    return args, tuple(numbers), origins


__all__ = ["backward_of"]
