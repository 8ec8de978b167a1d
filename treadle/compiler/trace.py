"""A pending graph as plain data: what a program is made from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from treadle.base.record import Record
from treadle.ir.call import Call, Template
from treadle.ir.launch import Layout
from treadle.ir.node import Node, Scalar, Signature, Site
from treadle.ir.scan import Scan, layout_of


class Entry(Record):
    """One node: ``inputs`` are numbers of values; ``keep`` where the result outlives the graph."""

    sig: Signature
    inputs: tuple[int, ...]
    keep: bool


class Trace(Record):
    """Values are numbered: first the externals, then the scalars, then the entries in order.

    ``externals`` are the layouts of values from outside (a tuple for one with several results),
    ``scalars`` those of numbers. ``same`` has for each entry the value with the same bits that
    takes its place: itself, or an earlier one, or -1 where nobody reads it any more (as
    ``compiler.simplify`` found); it is empty where every entry stands for itself.
    """

    externals: tuple[Any, ...]
    scalars: tuple[Layout, ...]
    entries: tuple[Entry, ...]
    same: tuple[int, ...] = ()

    @property
    def first(self) -> int:
        """The number of the first entry's value."""
        return len(self.externals) + len(self.scalars)

    def stand_in(self, value: int) -> int:
        """The value that takes the place of ``value``, -1 where none is needed."""
        entry = value - self.first
        return self.same[entry] if self.same and entry >= 0 else value

    def entry(self, value: int) -> Entry:
        """The entry that makes a value."""
        return self.entries[value - self.first]

    def computed(self) -> list[int]:
        """The values that are to be computed, in order."""
        first = self.first
        values = range(first, first + len(self.entries))
        return [v for v in values if not self.same or self.same[v - first] == v]


class Traced(Record):
    """A trace without what nobody needs, and the number in the scan of each of its entries."""

    trace: Trace
    numbers: tuple[int, ...]


def make_trace(scanned: Scan, held: Collection[int], open_: Collection[int]) -> Traced:
    """The graph that was scanned; ``held`` values are kept, and what gradients of ``open_`` ones
    read (``Scan.held`` says what these are)."""
    sigs, inputs, kept = _Flat(scanned, held, _leading_to(held, open_, scanned)).result()
    first = len(scanned.externals) + len(scanned.scalars)
    needed = [False] * len(sigs)
    for number in range(len(sigs) - 1, -1, -1):
        if kept[number] or needed[number]:
            needed[number] = True
            for i in inputs[number]:
                if i >= first:
                    needed[i - first] = True
    places: dict[int, int] = {}
    entries: list[Entry] = []
    numbers: list[int] = []
    for number, is_needed in enumerate(needed):
        if is_needed:
            sources = tuple([i if i < first else places[i] for i in inputs[number]])
            places[first + number] = first + len(entries)
            entries.append(Entry(sigs[number], sources, kept[number]))
            numbers.append(number)
    externals = tuple([layout_of(n.value) for n in scanned.externals])
    scalars = tuple([n.type.layout for n in scanned.scalars])
    return Traced(Trace(externals, scalars, tuple(entries)), tuple(numbers))


def _leading_to(held: Collection[int], open_: Collection[int], scanned: Scan) -> set[int]:
    """Those of the ``open_`` values from which a gradient can be asked for by way of held ones."""
    wanted, left, found = set(held), set(open_), set()
    for start, item in zip(reversed(scanned.starts), reversed(scanned.items), strict=True):
        nodes: list[tuple[int, Node | Call]] = [(start, item)]
        ends = [start + 1]
        if type(item) is Call:
            if item.nodes is not None:
                nodes = list(enumerate(item.nodes, start))
                ends = [number + 1 for number, _ in nodes]
            else:
                ends = [start + len(item.template.specs)]
        for (number, n), end in zip(reversed(nodes), reversed(ends), strict=True):
            if number in left and not wanted.isdisjoint(range(number, end)):
                if type(n) is Call and n.template.args is not None:
                    return left  # what it reads is not among its inputs
                found.add(number)
                wanted.update(scanned.known.get(i, -1) for i in n.inputs)
    return found


class _Flat:
    """Goes over a scan's items in the order in which it met their scalars."""

    def __init__(self, scanned: Scan, held: Collection[int], open_: Collection[int]) -> None:
        self.scanned = scanned
        self.held = set(held)
        self.open = set(open_)
        self.outside = len(scanned.externals)
        self.first = self.outside + len(scanned.scalars)
        self.scalars = 0  # met so far
        self.sigs: list[Signature] = []
        self.inputs: list[tuple[int, ...]] = []
        self.kept: list[bool] = []

    def result(self) -> tuple[list[Signature], list[tuple[int, ...]], list[bool]]:
        """Of every value: its signature, the numbers of its inputs, whether it is kept."""
        for item in self.scanned.items:
            if type(item) is Call:
                self._call(item)
            else:
                open_ = len(self.sigs) in self.open
                self._add(item.sig, tuple(map(self._value, item.inputs)), open_)
        return self.sigs, self.inputs, self.kept

    def _value(self, i: Node) -> int:
        if isinstance(i, Scalar):
            self.scalars += 1
            return self.outside + self.scalars - 1
        return self._numbered(self.scanned.known[i])

    def _numbered(self, number: Any) -> int:
        """The number in the trace of what has this one in the scan."""
        if type(number) is tuple:
            return self.outside + int(number[0])
        return ~number if number < 0 else self.first + number

    def _call(self, call: Call) -> None:
        template: Template = call.template
        start = len(self.sigs)
        if template.args is None:
            args = [self._value(i) for i in call.inputs]
        else:
            args = [self._numbered(a) for a in template.args]
        constants = self.outside + self.scalars
        self.scalars += len(call.constants)
        whole = start in self.open and call.nodes is None
        for index, spec in enumerate(template.specs):
            inputs = []
            for i in spec.inputs:
                if isinstance(i, tuple):
                    inputs.append(constants + i[0])
                else:
                    inputs.append(self.first + start + i if i >= 0 else args[~i])
            open_ = spec.needs_grad if whole else start + index in self.open
            self._add(spec.sig, tuple(inputs), open_)

    def _add(self, sig: Signature, inputs: tuple[int, ...], open_: bool) -> None:
        number = len(self.sigs)
        self.sigs.append(sig)
        self.inputs.append(inputs)
        self.kept.append(number in self.held)
        if open_:
            for r in sig.residuals:
                if r == "out":
                    self.kept[number] = True
                elif inputs[r] >= self.first:  # type: ignore[index]
                    self.kept[inputs[r] - self.first] = True  # type: ignore[index]


def sites_of(scanned: Scan, numbers: Collection[int]) -> list[Site | None]:
    """The lines that recorded the entries of a trace (``Traced.numbers``)."""
    sites = []
    for number in numbers:
        item, index = scanned.item_at(number)
        sites.append(site_within(item, index))
    return sites


def site_within(item: Any, index: int) -> Site | None:
    """The line that recorded a node, one of a call or the item itself."""
    if type(item) is Call and item.scan is not None:
        site: Site | None = item.scan.site_at(item.template.specs[index].origin)
        return site
    return item.site


__all__ = ["Entry", "Trace", "Traced", "make_trace", "site_within", "sites_of"]
