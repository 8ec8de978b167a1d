"""Memory that a value takes over from one that is used up, instead of getting its own.

A call that goes over its operands element by element may write its result over one of them, if it
is the last to read it: within the arena, and where a result outlives the program over a value from
outside that nobody will ask for again (``Replaced`` parameters, above all). What is outside is
overwritten only after the last call that can fail, so that a program that comes to nothing has
changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from sys import getrefcount
from typing import Any

from treadle.base.record import Record
from treadle.compiler.arena import Storage
from treadle.ir.call import Call
from treadle.ir.launch import Argument, In, Layout, Out
from treadle.ir.node import Node, Recording, Replaced, Type
from treadle.ir.scan import OWN, Scan

Use = tuple[int, int]  # a storage, and bytes into it
_LEAST = 1024  # bytes that are worth it
_HELD_OUTSIDE = OWN + 2  # references of a value from outside: a name's and those of the scan
_HELD_OLD = 2  # of one that is being replaced, besides: its handle's, and that of ``olds``
_HELD_MEMORY = OWN + 1  # of its memory: a name's and the value's


class Takeover(Record):
    """Result number ``result`` may be written over the value from outside ``external``."""

    result: int
    external: int


def same_places(
    args: Sequence[Argument], outs: Sequence[Layout], ins: Sequence[Layout]
) -> list[tuple[int, int]]:
    """(output, input) of a map that lie alike, so that an element of the one may replace that of
    the other: the map reads all operands of an element before it stores a result of it.

    The arguments of each part of a batch are its outputs and then its inputs.
    """
    found: list[tuple[int, int]] = []
    part: list[int] = []
    is_begun = False
    for argument in args:
        if isinstance(argument, Out):
            if is_begun:
                part, is_begun = [], False
            part.append(argument.index)
        elif isinstance(argument, In):
            is_begun = True
            layout = ins[argument.index]
            if argument.offset == 0 and layout.is_contiguous:
                found += ((o, argument.index) for o in part
                          if outs[o].shape == layout.shape
                          and outs[o].dtype.itemsize == layout.dtype.itemsize)  # fmt: skip
    return found


class Uses:
    """Which calls of a program use each storage, and which may write one over another."""

    def __init__(
        self, calls: Sequence[tuple[bytes, Sequence[Use], bytes]],
        alike: Mapping[int, Sequence[tuple[Use, Use]]],
    ) -> None:  # fmt: skip
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self._alike: dict[int, list[int]] = {}  # the storages that a new one may take over
        for number, (_, uses, _) in enumerate(calls):
            for storage, _ in uses:
                self.first.setdefault(storage, number)
                self.last[storage] = number
        for number, pairs in alike.items():
            if number == len(calls):
                continue  # of nothing, at the end: there was no call
            storages = [storage for storage, _ in calls[number][1]]
            for (out, out_offset), (source, offset) in pairs:
                if (
                    out_offset == offset == 0 and self.first.get(out) == number
                    and self.last.get(source) == number and storages.count(source) == 1
                ):  # fmt: skip
                    self._alike.setdefault(out, []).append(source)

    def within(self, storages: Sequence[Storage], temporary: Sequence[int]) -> None:
        """Gives temporary storages heirs."""
        inside = set(temporary)
        for number in temporary:
            heir = storages[number]
            for source in self._alike.get(number, ()):
                known = storages[source]
                if source in inside and known.heir is None and known.nbytes == heir.nbytes:
                    known.heir, heir.inherits = heir, known
                    break

    def from_outside(
        self, results: Mapping[int, int], externals: Mapping[int, tuple[int, int]],
        last_failing: int,
    ) -> list[Takeover]:  # fmt: skip
        """Which results may take over which values from outside.

        ``results``: storages with their bytes, in order; ``externals``: of storages that may be
        overwritten, the value and its bytes.
        """
        taken: set[int] = set()
        found: dict[int, int] = {}
        fit = {
            storage for storage, nbytes in results.items()
            if nbytes >= _LEAST and self.first[storage] > last_failing
        }  # fmt: skip
        for storage in results:
            for source in self._alike.get(storage, ()):
                is_free = source in externals and source not in taken
                if storage in fit and is_free and externals[source][1] == results[storage]:
                    found[storage] = source
                    taken.add(source)
                    break
        for storage, nbytes in results.items():
            if storage in fit and storage not in found:
                before = [
                    (self.last[source], source) for source, (_, size) in externals.items()
                    if size == nbytes and source not in taken
                    and self.last.get(source, -1) in range(self.first[storage])
                ]  # fmt: skip
                if before:
                    found[storage] = max(before)[1]
                    taken.add(found[storage])
        return [
            Takeover(number, externals[found[storage]][0])
            for number, storage in enumerate(results) if storage in found
        ]  # fmt: skip


def references(scanned: Scan) -> dict[int, int]:
    """How many references the values from outside have that nobody else holds, by position.

    Those are left out from which something may still be computed later.
    """
    uses, wanted = scanned.uses(), scanned.wanted_later()
    return {
        position: uses[n] + _HELD_OUTSIDE
        for position, n in enumerate(scanned.externals) if n not in wanted
    }  # fmt: skip


def given_up(
    takeovers: Sequence[Takeover], alone: Mapping[int, int], externals: Sequence[Node],
    replaced: Replaced | None,
) -> dict[int, Any]:  # fmt: skip
    """The memory that results take over this time, by their numbers.

    ``alone``: what ``references`` gives for such a graph.
    """
    found: dict[int, Any] = {}
    olds: frozenset[Node] = frozenset() if replaced is None else replaced.olds
    for result, external in takeovers:
        n = externals[external]
        if getrefcount(n) - _HELD_OLD * (n in olds) == alone.get(external):
            memory, layout, address = n.value
            if (
                getrefcount(memory) == _HELD_MEMORY and memory.address == address
                and memory.is_ours and layout.is_contiguous
            ):  # fmt: skip
                found[result] = memory
    return found


def handed_over(
    targets: Sequence[tuple[int, int, int]], scanned: Scan, state: Recording, values: list[Any]
) -> Iterable[object]:
    """What makes the values of a program those of the graph's nodes, in C from beginning to end.

    ``targets``: see ``compiler.programs.Known``.
    """
    nodes: list[Node] = []
    given: list[Any] = []
    calls: dict[Call, dict[int, Any]] = {}  # values of nodes that do not exist
    for (position, index, out), value in zip(targets, values, strict=True):
        n = scanned.items[position]
        if type(n) is Call:
            if n.nodes is None and out < 0:
                calls.setdefault(n, dict(n.values or ()))[index] = value
                continue
            n = n.outs[out] if n.nodes is None else n.nodes[index]
        nodes.append(n)
        given.append(value)
    addresses = [
        v[2] if type(n.type) is Type and v[1] is n.type.layout else 0
        for n, v in zip(nodes, given, strict=True)
    ]
    replaced = state.replaced
    return chain(
        map(setattr, nodes, repeat("value"), given),
        map(setattr, nodes, repeat("address"), addresses),
        map(setattr, nodes, repeat("keep"), repeat(True)),
        map(setattr, calls, repeat("values"), calls.values()),
        map(list.clear, (state.pending,)),  # a node without its inputs must never be pending
        map(setattr, (state,), ("scan",), (None,)),
        () if replaced is None else _replacing(replaced, dict(zip(nodes, given, strict=True))),
    )


def _replacing(replaced: Replaced, values: Mapping[Node, Any]) -> Iterable[object]:
    return chain(replaced.moves(values), map(setattr, (replaced,), ("is_done",), (True,)))


__all__ = ["Takeover", "Uses", "given_up", "handed_over", "references", "same_places"]
