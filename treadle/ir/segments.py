"""Segments: stretches of a pending graph that come again, in this graph or in others.

A graph that never repeats as a whole (a loop over a random length, a recursion over a tree) is made
of pieces that do. They are cut where the user's program branches: two items belong together as long
as each has only ever been seen beside the other (``Chains``). A *stretch* is one occurrence; what
equal stretches have in common, whatever lies before and after them, is a ``Segment``: signatures,
templates, how they refer to each other and which of the values from outside are the same one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.record import Record
from treadle.ir.call import Call, parts_of
from treadle.ir.node import Leaf, Node, Scalar, Signature

if TYPE_CHECKING:
    from treadle.ir.scan import Scan

SHORTEST = 64  # nodes of a graph that is worth cutting
RECENT = 4  # graphs: one that comes again within so many others repeats as a whole
SEGMENTED = 0.125  # how much it counts that a graph was seen, if it ran by segments
_FEW = 2  # nodes
_LONGEST = 512  # items of a stretch
_MOST_MARKS = 1 << 17  # items of which it is remembered what they were seen beside
_NOTHING, _SEVERAL = -1, -2  # what a mark was seen beside
_MOST_PARTS = 1 << 18  # of the keys of all segments together
SCALAR = 3  # what an input is: 0 and 1 say whether it wants a gradient, 2 is a leaf


class Piece(Record):
    """One node of a segment; ``inputs`` are numbers of its nodes, or ~ those of its inputs."""

    sig: Signature
    inputs: tuple[int, ...]
    needs_grad: bool


class Segment:
    """What equal stretches have in common.

    Its values are numbered from 0 on, those of calls one by one; its inputs (``kinds``) are what it
    reads from outside, each once: numbers (``scalars``) and ``tensors``. ``uses`` counts the
    references to each value from its own items, ``input_uses`` those to each input. ``passes`` and
    ``programs`` are what others know of it.
    """

    __slots__ = (
        "count", "input_uses", "is_called", "kinds", "length", "passes", "pieces", "programs",
        "scalars", "tensors", "used", "uses",
    )  # fmt: skip

    def __init__(self, items: Sequence[Any], kinds: tuple[int, ...], length: int) -> None:
        self.kinds = kinds
        self.scalars = tuple([k for k, kind in enumerate(kinds) if kind == SCALAR])
        self.tensors = tuple([k for k, kind in enumerate(kinds) if kind != SCALAR])
        self.length = length  # of its key
        self.count = 0  # stretches so far
        self.used = 0  # when it was used last
        self.is_called = any(type(item) is Call for item in items)
        self.passes: dict[Any, Any] = {}
        self.programs: Any = None
        self.pieces, self.uses, self.input_uses = _taken_apart(items, len(kinds))

    @property
    def was_seen(self) -> bool:
        """Whether it has occurred before."""
        return self.count > 1

    @property
    def repeats(self) -> bool:
        """Whether to expect it again: a call is of something that was recorded before. What is
        shorter than a few nodes is as quick without."""
        return self.is_called or (self.was_seen and len(self.pieces) > _FEW)


class Stretch:
    """Items ``begin`` to ``end`` of a scan, whose values are numbered from ``start`` on.

    ``inputs`` are the values from outside, and ``numbers`` their numbers in the scan: negative for
    those that the graph does not make, of which Scalars are a part.
    """

    __slots__ = ("begin", "end", "inputs", "numbers", "segment", "start")

    def __init__(
        self, segment: Segment, begin: int, end: int, start: int, inputs: list[Node],
        numbers: list[int],
    ) -> None:  # fmt: skip
        self.segment = segment
        self.begin = begin
        self.end = end
        self.start = start
        self.inputs = inputs
        self.numbers = numbers


def _taken_apart(
    items: Sequence[Any], num_inputs: int
) -> tuple[tuple[Piece, ...], tuple[int, ...], tuple[int, ...]]:
    """The nodes of a stretch, and the references to its values and to its inputs."""
    local = _Numbers()
    pieces: list[Piece] = []
    uses: dict[int, int] = {}

    def refer(nodes: Sequence[Node]) -> None:
        for i in nodes:
            number = local.of(i)
            uses[number] = uses.get(number, 0) + 1

    for item in items:
        if type(item) is not Call:
            refer(item.inputs)
            inputs = tuple([local.of(i) for i in item.inputs])
            pieces.append(Piece(item.sig, inputs, item.needs_grad))
            local.give(item, len(pieces) - 1)
            continue
        refer(item.inputs)
        args = [local.of(i) for i in item.inputs]
        constants = [local.of(i) for i in item.constants]
        start = len(pieces)
        for spec in item.template.specs:
            inputs = tuple([
                constants[i[0]] if isinstance(i, tuple) else start + i if i >= 0 else args[~i]
                for i in spec.inputs
            ])  # fmt: skip
            pieces.append(Piece(spec.sig, inputs, spec.needs_grad))
        for n in parts_of(item):
            local.give(n, start + n.index)
        if item.nodes is not None:
            refer(item.outs)
            for n in item.nodes:
                refer(n.inputs)
    return (
        tuple(pieces), tuple([uses.get(n, 0) for n in range(len(pieces))]),
        tuple([uses.get(~n, 0) for n in range(num_inputs)]),
    )  # fmt: skip


class _Numbers:
    """Numbers within a segment; what comes from outside gets its own when it is first met."""

    def __init__(self) -> None:
        self._known: dict[Node, int] = {}
        self._inputs = 0

    def of(self, n: Node) -> int:
        """The number of a value."""
        number = self._known.get(n)
        if number is None:
            self._inputs += 1
            number = self._known[n] = -self._inputs
        return number

    def give(self, n: Node, number: int) -> None:
        """Says which number a value of the segment's own has."""
        self._known[n] = number


class Chains:
    """Which items were only ever seen beside each other, told by their lines and signatures.

    Being wrong here costs time at most: it says where to cut, not what is equal.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._marks: dict[Any, int] = {}
        # By mark, what it was seen before and what behind; the first is that of the beginning.
        self._beside = [[_NOTHING, _NOTHING]]

    def cuts(self, items: Sequence[Any]) -> list[int]:
        """Where stretches begin among these items, all of which belong to one graph."""
        if len(self._marks) + len(items) > _MOST_MARKS:
            self._clear()
        known, beside = self._marks, self._beside
        marks = []
        last = 0
        for item in items:
            site = item.site
            what = id(item.template) if type(item) is Call else id(item.sig)
            key = (what, 0) if site is None else (what, id(site[0]), site[1])
            mark = known.get(key)
            if mark is None:
                beside.append([_NOTHING, _NOTHING])
                mark = known[key] = len(beside) - 1
            after, before = beside[last][0], beside[mark][1]
            if after != mark:
                beside[last][0] = mark if after == _NOTHING else _SEVERAL
            if before != last:
                beside[mark][1] = last if before == _NOTHING else _SEVERAL
            marks.append(mark)
            last = mark
        cuts: list[int] = []
        last = 0
        for position, mark in enumerate(marks):
            item = items[position]
            if (
                not cuts or beside[last][0] != mark or beside[mark][1] != last or last == mark
                or position - cuts[-1] >= _LONGEST
                or type(item) is Leaf or type(items[position - 1]) is Leaf
            ):  # fmt: skip
                cuts.append(position)
            last = mark
        return cuts


class Segments:
    """All segments by their keys, a bounded number of them, shared by all threads."""

    def __init__(self) -> None:
        self.chains = Chains()
        self._known: dict[Any, Segment] = {}
        self._length = 0
        self._clock = 0
        self._lock = threading.RLock()

    def cut(self, scanned: Scan) -> list[Stretch]:
        """The stretches of a scan that is up to date; what was cut before stays as it is."""
        stretches = scanned.stretches
        begin = stretches[-1].end if stretches else 0
        items = scanned.items
        if begin < len(items):
            with self._lock:
                new = items[begin:] if begin else items
                cuts = [begin + c for c in self.chains.cuts(new)]
                for first, end in zip(cuts, [*cuts[1:], len(items)], strict=True):
                    stretches.append(self._stretch(scanned, first, end))
        return stretches

    def _stretch(self, scanned: Scan, begin: int, end: int) -> Stretch:
        items = scanned.items[begin:end]
        local: dict[Node, int] = {}
        get = local.get
        inputs: list[Node] = []
        kinds: list[int] = []
        parts: list[Any] = []
        add = parts.append
        size = 0
        for item in items:
            if type(item) is Call:
                add(item.template)
                nodes = item.inputs + item.constants if item.constants else item.inputs
            else:
                add(item.sig)
                add(item.needs_grad)
                nodes = item.inputs
            for i in nodes:
                number = get(i)
                if number is None:
                    inputs.append(i)
                    number = local[i] = -len(inputs)
                    if type(i) is Scalar:
                        kinds.append(SCALAR)
                    else:
                        kinds.append(0 if not i.needs_grad else 2 if type(i) is Leaf else 1)
                add(number)
            if type(item) is not Call:
                local[item] = size
                size += 1
                continue
            for n in parts_of(item):
                local[n] = size + n.index
            if item.nodes is not None:
                add(None)  # written out: there are more references
            size += len(item.template.specs)
        key = (*parts, *kinds)
        self._clock += 1
        segment = self._known.get(key)
        if segment is None:
            segment = self._known[key] = Segment(items, tuple(kinds), len(key))
            self._length += len(key)
            if self._length > _MOST_PARTS:
                self._forget()
        segment.count += 1
        segment.used = self._clock
        known = scanned.known
        numbers = [known.get(i, -1) for i in inputs]
        return Stretch(segment, begin, end, scanned.starts[begin], inputs, numbers)

    def _forget(self) -> None:
        """Forgets the half that was used longest ago."""
        ordered = sorted(self._known.items(), key=lambda known: known[1].used)
        for key, segment in ordered[: (len(ordered) + 1) // 2]:
            del self._known[key]
            self._length -= segment.length

    def clear(self) -> None:
        """Forgets the programs of all segments (they are made for a number of threads)."""
        with self._lock:
            for segment in self._known.values():
                segment.programs = None


segments = Segments()


def _new_lock() -> None:
    segments._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)  # another thread may have held it

__all__ = [
    "RECENT", "SCALAR", "SEGMENTED", "SHORTEST", "Piece", "Segment", "Segments", "Stretch",
    "segments",
]  # fmt: skip
