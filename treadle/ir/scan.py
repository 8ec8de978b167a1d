"""The structure of a pending graph: what makes two of them the same.

Values are numbered: those that the graph makes from 0 on, in the order of recording (a call's nodes
one by one, whether they exist or not), values from outside -1, -2, ... in the order of their first
use. ``parts`` spells out the graph in these numbers: signatures, templates, references, how the
values from outside lie in memory, where gradients are wanted. Numbers (``Scalar``) and the values
from outside are no part of it, so a training step is the same every time.

A backward pass called as a template stands for all that came before it: it is the same template
only where that is the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

from treadle.ir.call import Call, Expansions, Part, nodes_of, part_of
from treadle.ir.node import Leaf, Node, Recording, Scalar, Site
from treadle.ir.segments import Stretch

Key = tuple[Any, ...]


def _references_of_a_name() -> int:
    """What ``getrefcount`` gives for an object that one local name holds: 2, or 1 where the
    interpreter hands arguments over without counting them (from Python 3.14 on)."""
    held = object()
    return getrefcount(held)


OWN = _references_of_a_name()
# Of a pending node that nobody holds: a name's, the pending list's, ``items``' and ``known``'s.
# (Or, for a part, those of ``outs``, or ``nodes``, and ``known``.)
HELD_NODE = OWN + 3
HELD_PART = OWN + 2
_HALF_WAY = -1  # expansions while items are taken in: what Ctrl-C leaves behind no longer holds


class Scan:
    """What is known of a thread's pending graph; ``advance`` brings it up to date."""

    __slots__ = (
        "expansions", "externals", "is_odd", "items", "known", "parts", "scalars", "size", "starts",
        "stretches", "written_out",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything, to be brought up to date again."""
        self.parts: list[Any] = []
        self.known: dict[Node, int] = {}
        self.externals: list[Node] = []
        self.scalars: list[Scalar] = []
        self.items: list[Any] = []
        self.starts: list[int] = []  # the number of the first value of each item
        self.size = 0
        self.is_odd = False  # a value is missing, or there before its time: go node by node
        self.stretches: list[Stretch] = []  # of the items so far (ir/segments.py)
        self.written_out: list[int] = []  # the items that are calls whose nodes exist
        self.expansions = Expansions.count

    def advance(self, pending: list[Any]) -> None:
        """Takes in what was recorded since."""
        before, self.expansions = self.expansions, _HALF_WAY
        known, scalars = self.known, self.scalars
        get = known.get
        add = self.parts.append
        size = self.size
        for item in pending[len(self.items) :]:
            self.items.append(item)
            self.starts.append(size)
            if type(item) is Call:
                size += self._call(item, size)
                continue
            sig = item.sig
            add(sig)
            for i in item.inputs:
                number = get(i)
                if number is not None:
                    add(number)
                elif type(i) is Scalar:
                    scalars.append(i)
                    add(i.sig)
                else:
                    add(self._meet(i))
            if item.needs_grad:
                add(True)
                if type(item) is Leaf:
                    add("leaf")
            if item.value is not None or item.error is not None:
                self.is_odd = True
            known[item] = size
            size += 1
        self.size = size
        self.expansions = before

    def _call(self, call: Call, start: int) -> int:
        template = call.template
        known = self.known
        if template.args is not None:
            self.parts.clear()  # the template stands for them
            self.parts.append(template)
        else:
            add = self.parts.append
            add(template)
            for i in call.inputs:
                number = known.get(i)
                if number is None:
                    if type(i) is Scalar:
                        self.scalars.append(i)
                        add(i.sig)
                        continue
                    number = self._meet(i)
                add(number)
        self.scalars += call.constants
        if call.nodes is None:
            if len(call.outs) > len(template.outs):  # more of its nodes exist than of others
                self.parts.append(len(call.outs))
            for n in call.outs:
                known[n] = start + n.index
                if n.value is not None or n.error is not None:
                    self.is_odd = True
        else:
            self.written_out.append(len(self.items))
            for number, n in enumerate(call.nodes, start):
                known[n] = number
                if n.value is not None or n.error is not None:
                    self.is_odd = True
        return len(template.specs)

    def _meet(self, i: Node) -> int:
        """The number of a value that comes up for the first time."""
        if type(i) is Part and i.call is not None and i.call.nodes is not None:
            for start, item in zip(self.starts, self.items, strict=True):
                if item is i.call:  # written out since: a value of this graph
                    self.known[i] = start + i.index
                    return start + i.index
        self.externals.append(i)
        number = self.known[i] = -len(self.externals)
        value = i.value
        if value is None:
            self.is_odd = True
            layout = None
        elif i.address:
            layout = None
        else:
            layout = layout_of(value)
        kind = 0 if not i.needs_grad else 2 if type(i) is Leaf else 1
        self.parts.append(kind if layout is None else (kind, layout))
        return number

    def key(self) -> Key:
        """What two equal graphs have in common."""
        return (*self.written_out, *self.parts)

    def position_of(self, number: int) -> tuple[int, int]:
        """The position of the item that makes a value, and which of its values that is."""
        position = bisect_right(self.starts, number) - 1
        return position, number - self.starts[position]

    def item_at(self, number: int) -> tuple[Any, int]:
        """The item that makes a value, and which of its values that is."""
        position, index = self.position_of(number)
        return self.items[position], index

    def node_at(self, number: Any) -> Node:
        """The node of a value (a number in a tuple: of a scalar)."""
        if type(number) is tuple:
            return self.scalars[number[0]]
        if number < 0:
            return self.externals[~number]
        item, index = self.item_at(number)
        return nodes_of(item)[index] if type(item) is Call else item

    def part_at(self, number: int) -> Node:
        """The node of a value that the graph makes; of a call's, no others are made for it."""
        item, index = self.item_at(number)
        if type(item) is not Call:
            return item
        n = part_of(item, index)
        if n not in self.known:
            self.known[n] = number
            self.parts.append(number)
        return n

    def site_at(self, number: int) -> Site | None:
        """The line that recorded a value."""
        site: Site | None = self.item_at(number)[0].site
        return site

    # --- who holds what -----------------------------------------------------------------------

    def expected(self) -> list[int]:
        """The reference counts, in the order of ``held``, of nodes that nobody else holds."""
        uses = self.uses()
        counts = []
        for item in self.items:
            if type(item) is Call:
                counts += [uses[n] + HELD_PART for n in item.nodes or item.outs]
            else:
                counts.append(uses[item] + HELD_NODE)
        return counts

    def uses(self) -> dict[Node, int]:
        """How often the graph refers to each of its values, and to those from outside."""
        uses = dict.fromkeys(self.known, 0)
        for item in self.items:
            if type(item) is not Call:
                inputs: Sequence[Any] = [item.inputs]
            else:
                inputs = [item.inputs, *(n.inputs for n in item.nodes or ())]
                if item.nodes is not None:
                    for n in item.outs:
                        uses[n] += 1
            for nodes in inputs:
                for i in nodes:
                    if i in uses:
                        uses[i] += 1
        return uses

    def wanted_later(self) -> set[Node]:
        """What the values depend on for which a gradient may still be asked."""
        wanted: set[Node] = set()
        for item in reversed(self.items):
            if type(item) is not Call:
                nodes: Sequence[Node] = (item,)
                is_open = item.needs_grad and not item.spent
            else:
                nodes = item.nodes or item.outs
                is_open = item.template.needs_grad and not item.spent
            if is_open or (not item.spent and not wanted.isdisjoint(nodes)):
                if type(item) is Call and item.template.args is not None:
                    return set(self.known)  # what it refers to is not among its inputs
                wanted.update(item.inputs)
        return wanted

    def held(self, expected: list[int]) -> tuple[list[int], list[int]]:
        """The values that somebody outside the graph holds, and those whose gradient may be asked
        for (of a call that is not written out, the first one stands for all)."""
        held: list[int] = []
        open_: list[int] = []
        count = iter(expected).__next__
        start = 0
        for item in self.items:
            if type(item) is not Call:
                if getrefcount(item) > count() or item.keep:
                    held.append(start)
                if item.needs_grad and not item.spent:
                    open_.append(start)
                start += 1
                continue
            template = item.template
            if item.nodes is None:
                for n in item.outs:
                    if getrefcount(n) > count() or n.keep:
                        held.append(start + n.index)
                if template.needs_grad and not item.spent:
                    open_.append(start)
            else:
                number = start
                for n in item.nodes:  # enumerate() would hold them too
                    if getrefcount(n) > count() or n.keep:
                        held.append(number)
                    if n.needs_grad and not n.spent:
                        open_.append(number)
                    number += 1
            start += len(template.specs)
        return held, open_


def layout_of(value: Any) -> Any:
    """The layout of a value; a tuple of them for one with several results."""
    if isinstance(value[0], tuple):
        return tuple(layout for _, layout, _ in value)
    return value[1]


def scan(state: Recording) -> Scan:
    """The scan of what a thread has recorded, up to date."""
    known: Scan | None = state.scan
    if known is None:
        known = state.scan = Scan()
    elif known.expansions != Expansions.count:
        known.reset()  # the same one, because open calls refer to it
    known.advance(state.pending)
    return known


__all__ = ["HELD_NODE", "HELD_PART", "OWN", "Key", "Scan", "layout_of", "scan"]
