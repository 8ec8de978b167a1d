"""A program: a graph that was seen before, as one prepared tape and a plan of its memory.

Running it fills a table of addresses (one arena for all that is temporary, the results, the values
from outside) and makes one native call, whose first kernel writes the addresses into the tape.
Nothing that anybody can see changes before the call has succeeded.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush
from time import perf_counter
from typing import Any, NamedTuple

from treadle.base.errors import CompileError
from treadle.compiler.device import Device, Tape
from treadle.compiler.fuse import Access, Group, fuse
from treadle.compiler.group_plan import GroupPlan
from treadle.compiler.prepare import Prepared, compile_plan, moved, prepared
from treadle.compiler.trace import Trace
from treadle.ir.launch import Layout
from treadle.ir.node import Node, Type
from treadle.ir.op import Bundle
from treadle.ops.source import Scalar

_ALIGNMENT = 64


class Place(NamedTuple):
    """Where a value lies: ``offset`` bytes into a storage."""

    storage: int
    layout: Layout
    offset: int


class Storage:
    """A block of memory and the steps during which it is in use."""

    __slots__ = ("first", "is_result", "last", "nbytes", "offset")

    def __init__(self, nbytes: int, step: int) -> None:
        self.nbytes = nbytes
        self.first = self.last = step
        self.is_result = False  # outlives the program
        self.offset = 0  # in the arena


class Program:
    """What ``build_program`` makes; ``run`` gives the nodes of an equal graph their values."""

    def __init__(
        self, device: Device, tape: Tape, arena: int, results: list[int],
        kept: list[tuple[int, Any]],
    ) -> None:  # fmt: skip
        self.device = device
        self.tape = tape
        self.arena = arena
        self.results = results  # bytes of every storage that outlives the program
        self.seconds = 0.0  # in kernels, so far
        self.kept = kept  # (position of the entry, its place or places) with storages as in run

    def run(self, nodes: Sequence[Node], externals: list[Node], scalars: list[Scalar]) -> bool:
        """Runs it for ``nodes`` (in order); False, and nothing has changed, where a kernel fails.

        Raises MemoryError where there is not enough.
        """
        allocate = self.device.allocate
        arena = allocate(self.arena)
        numbers = allocate(8 * len(scalars))
        if scalars:
            self.device.write(numbers.address, b"".join([_padded(s.packed) for s in scalars]))
        memories = [arena, numbers]
        addresses = [arena.address, numbers.address]
        for n in externals:
            value = n.value
            for memory, _, address in value if type(value[0]) is tuple else (value,):
                memories.append(memory)
                addresses.append(address)
        for nbytes in self.results:
            memory = allocate(nbytes)
            memories.append(memory)
            addresses.append(memory.address)
        begin = perf_counter()
        failed = self.tape.run(addresses)
        self.seconds += perf_counter() - begin
        if failed >= 0:
            return False
        for position, place in self.kept:
            several = type(place) is tuple
            values = [
                (memories[p.storage], p.layout, addresses[p.storage] + p.offset)
                for p in (place if several else (place,))
            ]
            nodes[position].set_value(tuple(values) if several else values[0])
        return True


def _padded(packed: bytes) -> bytes:
    return packed.ljust(8, b"\0")


def build_program(trace: Trace, device: Device, threads: int, fused: bool) -> Program:
    """Groups the entries (if ``fused``), prepares them, lays out the memory, writes the tape."""
    return _Builder(trace, device, threads).build(fused)


class _Builder:
    """Goes over the steps once, with storages instead of addresses."""

    def __init__(self, trace: Trace, device: Device, threads: int) -> None:
        self.device = device
        self.threads = threads
        self.trace = trace
        self.places: dict[int, Any] = {}  # of values that are no views
        self.storages: list[Storage] = [Storage(0, 0), Storage(8 * len(trace.scalars), 0)]
        self.step = 0
        self.calls: list[tuple[bytes, list[tuple[int, int]], bytes]] = []
        for value, external in enumerate(trace.externals):
            several = type(external) is tuple
            layouts = external if several else (external,)
            places = tuple(Place(self._new_storage(0), layout, 0) for layout in layouts)
            self.places[value] = places if several else places[0]
        self.fixed = len(self.storages)  # storages before it are not ours to lay out
        for index, layout in enumerate(trace.scalars):
            self.places[len(trace.externals) + index] = Place(1, layout, 8 * index)
        self.first = len(self.places)
        self.access: list[Access | None] = []

    def build(self, fused: bool) -> Program:
        """The program."""
        steps, self.access = fuse(self.trace, fused)
        for step in steps:
            if step.group is None:
                self._entry(step.entry)
            else:
                self._group(step.group, step.results)
            self.step += 1
        kept = [
            (position, self._place_of(self.first + position))
            for position, entry in enumerate(self.trace.entries)
            if entry.keep
        ]
        slots, results = self._number_results([place for _, place in kept])
        own = self.storages[self.fixed :]
        arena = lay_out([s for s in own if not s.is_result])
        tape = self._write(slots, len(results))
        moved_kept = [(position, _renumbered(place, slots)) for position, place in kept]
        return Program(self.device, tape, arena, results, moved_kept)

    def _new_storage(self, nbytes: int) -> int:
        self.storages.append(Storage(nbytes, self.step))
        return len(self.storages) - 1

    def _place_of(self, value: int) -> Any:
        """Where a value lies, seen through its views."""
        access = self.access[value]
        if access is not None:
            root: Place = self.places[access.root]
            offset = root.offset + access.offset * access.layout.dtype.itemsize
            return Place(root.storage, access.layout, offset)
        if value not in self.places:  # a bundle
            sig, inputs, _ = self.trace.entries[value - self.first]
            return tuple([self._place_of(i) for i in inputs[: len(sig.types)]])
        return self.places[value]

    # --- one step ---------------------------------------------------------------------------------

    def _entry(self, value: int) -> None:
        sig, inputs, _ = self.trace.entries[value - self.first]
        if isinstance(sig.op.lower, Bundle):
            return
        sources = [self._place_of(i) for i in inputs]
        if "project" in sig.op.traits:
            self.places[value] = sources[0][sig.attrs["index"]]
            return
        layouts = tuple([place.layout for place in sources])
        if sig.is_view:
            copy = moved(sig, layouts[0], self.device).copy
            if copy is None:
                raise CompileError(f"{sig.op.name}: a view that needs a copy has none")
            plan = copy
        else:
            plan = prepared(sig, layouts, self.device, self.threads)
        outs = self._results(sig.types)
        self._emit(plan, [*outs, *sources])
        self.places[value] = outs[0] if sig.type is sig.types[0] else outs

    def _group(self, group: Group, results: Sequence[int]) -> None:
        entries = {v: self.trace.entries[v - self.first] for v in group.entries}
        made = GroupPlan(group, results, entries, self.access, self.threads)
        outs: list[Place] = []
        for value in made.results:
            types = entries[value].sig.types
            places = self._results(types)
            outs += places
            self.places[value] = places[0] if entries[value].sig.type is types[0] else places
        for value in results:
            sig, inputs, _ = entries[value]
            if "project" in sig.op.traits:
                self.places[value] = self.places[inputs[0]][sig.attrs["index"]]
        sources = [self.places[a.root] for a in made.accesses]
        ins = [
            Place(root.storage, a.layout, root.offset)
            for root, a in zip(sources, made.accesses, strict=True)
        ]
        layouts = [place.layout for place in outs], [place.layout for place in ins]
        self._emit(compile_plan(made.plan, *layouts, self.device), [*outs, *ins])

    def _results(self, types: Sequence[Type]) -> tuple[Place, ...]:
        return tuple([Place(self._new_storage(t.nbytes), t.layout, 0) for t in types])

    def _emit(self, plan: Prepared, operands: list[Place]) -> None:
        places = [(p.storage, p.offset) for p in operands]
        places += [(self._new_storage(nbytes), 0) for nbytes in plan.workspaces]
        for storage, _ in places:
            self.storages[storage].last = self.step
        for head, slots, numbers, _ in plan.calls:
            addresses = [(places[slot][0], places[slot][1] + offset) for slot, offset in slots]
            self.calls.append((head, addresses, numbers))

    # --- memory and tape --------------------------------------------------------------------------

    def _number_results(self, kept: list[Any]) -> tuple[dict[int, int], list[int]]:
        """The slot in the table of every storage that is not in the arena; sizes of the results."""
        slots = {storage: storage for storage in range(self.fixed)}
        results: list[int] = []
        for place in kept:
            for p in place if type(place) is tuple else (place,):
                if p.storage not in slots:
                    slots[p.storage] = self.fixed + len(results)
                    storage = self.storages[p.storage]
                    storage.is_result = True
                    results.append(storage.nbytes)
        return slots, results

    def _write(self, slots: dict[int, int], results: int) -> Tape:
        tape = bytearray()
        patches: list[tuple[int, int, int]] = []
        for head, addresses, numbers in self.calls:
            tape += head
            for storage, offset in addresses:
                slot = slots.get(storage)
                if slot is None:
                    slot, offset = 0, offset + self.storages[storage].offset
                patches.append((len(tape) // 8, slot, offset))
                tape += bytes(8)
            tape += numbers
        table = self.fixed + results
        return self.device.link(bytes(tape), len(self.calls), patches, table, self.threads)


def _renumbered(place: Any, slots: dict[int, int]) -> Any:
    if type(place) is tuple:
        return tuple(p._replace(storage=slots[p.storage]) for p in place)
    return place._replace(storage=slots[place.storage])


def lay_out(storages: list[Storage]) -> int:
    """Gives storages in use at the same time different places; the bytes that takes.

    Storages come in the order of their first steps. Each goes to the smallest gap that fits.

    >>> a, b, c = Storage(64, 0), Storage(128, 1), Storage(64, 2)
    >>> a.last, b.last = 1, 2
    >>> lay_out([a, b, c]), a.offset, b.offset, c.offset
    (192, 0, 64, 0)
    """
    gaps = _Gaps()
    ends: list[tuple[int, int, int]] = []  # (last step, offset, size) of what is in use
    for s in storages:
        while ends and ends[0][0] < s.first:
            _, offset, size = heappop(ends)
            gaps.give_back(offset, size)
        size = _aligned(s.nbytes)
        if size:
            s.offset = gaps.take(size)
            heappush(ends, (s.last, s.offset, size))
    return gaps.end


class _Gaps:
    """The free places below ``end``, none next to another."""

    def __init__(self) -> None:
        self.end = 0
        self._by_size: list[tuple[int, int]] = []  # (size, offset), sorted
        self._sizes: dict[int, int] = {}  # by offset
        self._offsets: dict[int, int] = {}  # by where the gap ends

    def take(self, size: int) -> int:
        """The offset of ``size`` bytes in the smallest gap that has them, or at the end."""
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            offset = self._offsets.get(self.end, self.end)
            if offset < self.end:
                self._remove(offset)
            self.end = offset + size
            return offset
        found, offset = self._by_size[at]
        self._remove(offset)
        if found > size:
            self._insert(offset + size, found - size)
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Makes a place free, as one with the gaps beside it."""
        after = self._sizes.get(offset + size)
        if after is not None:
            self._remove(offset + size)
            size += after
        before = self._offsets.get(offset)
        if before is not None:
            size += self._remove(before)
            offset = before
        self._insert(offset, size)

    def _insert(self, offset: int, size: int) -> None:
        insort(self._by_size, (size, offset))
        self._sizes[offset] = size
        self._offsets[offset + size] = offset

    def _remove(self, offset: int) -> int:
        size = self._sizes.pop(offset)
        del self._offsets[offset + size]
        del self._by_size[bisect_left(self._by_size, (size, offset))]
        return size


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
