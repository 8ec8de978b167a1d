"""From steps to a program: kernels are compiled, values get memory, the tape is written.

While the calls are collected, values lie in *storages*; where those are is known at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import CompileError
from treadle.base.record import Record
from treadle.compiler.arena import Storage, lay_out
from treadle.compiler.device import Device, Tape
from treadle.compiler.fuse import Fusion
from treadle.compiler.prepare import Prepared, compile_plan, moved, prepared
from treadle.compiler.program import Emitted, Made, Program
from treadle.compiler.schedule import Step
from treadle.ir.launch import Layout
from treadle.ir.node import Type
from treadle.ir.op import Bundle


class Place(Record):
    """Where a value lies: ``offset`` bytes into a storage."""

    storage: int
    layout: Layout
    offset: int


class Assembly:
    """The calls of a program as they come about, with storages instead of addresses."""

    def __init__(self, fusion: Fusion, device: Device, threads: int) -> None:
        self.device = device
        self.threads = threads
        self.trace = trace = fusion.trace
        self.access = fusion.access
        self.places: dict[int, Any] = {}  # of values that are no views
        self.storages: list[Storage] = [Storage(0, 0), Storage(8 * len(trace.scalars), 0)]
        self.step = 0
        self.calls: list[tuple[bytes, list[tuple[int, int]], bytes]] = []
        self.emitted: list[Emitted] = []
        self.kept: list[tuple[int, Any]] = []  # (position of an entry, its place or places)
        self.slots: dict[int, int] = {}  # of storages that are not in the arena
        self.results: list[int] = []  # bytes of each storage that outlives the program
        self.arena = 0  # bytes
        for value, external in enumerate(trace.externals):
            several = type(external) is tuple
            layouts = external if several else (external,)
            places = tuple(Place(self._new_storage(0), layout, 0) for layout in layouts)
            self.places[value] = places if several else places[0]
        self.fixed = len(self.storages)  # storages before it are not ours to lay out
        for index, layout in enumerate(trace.scalars):
            self.places[len(trace.externals) + index] = Place(1, layout, 8 * index)

    def emit(self, steps: Sequence[Step]) -> None:
        """Turns the steps into calls: kernels are compiled, values get storages."""
        for step in steps:
            if step.group is None:
                self._entry(step.entry)
            else:
                self._group(step)
            self.step += 1
        first = self.trace.first
        self.kept = [
            (position, self._place_of(first + position))
            for position, entry in enumerate(self.trace.entries)
            if entry.keep
        ]

    def plan_memory(self) -> None:
        """Gives what is temporary its place in the arena, and the rest a slot in the table."""
        self.slots, self.results = self._number_results([place for _, place in self.kept])
        self.arena = lay_out(self.temporary())

    def temporary(self) -> list[Storage]:
        """The storages in the arena, in the order in which they come into use."""
        return [s for s in self.storages[self.fixed :] if not s.is_result]

    def program(self, steps: Sequence[Step]) -> Program:
        """Writes the tape."""
        kept = [(position, _renumbered(place, self.slots)) for position, place in self.kept]
        made = Made(self.trace, steps, self.emitted, self.places, self.storages)
        return Program(self.device, self._write(), self.arena, self.results, kept, made)

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
        value = self.trace.stand_in(value)
        if value not in self.places:  # a bundle
            sig, inputs, _ = self.trace.entry(value)
            return tuple([self._place_of(i) for i in inputs[: len(sig.types)]])
        return self.places[value]

    # --- one step ---------------------------------------------------------------------------------

    def _entry(self, value: int) -> None:
        sig, inputs, _ = self.trace.entry(value)
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

    def _group(self, step: Step) -> None:
        made = step.lowered
        if made is None:
            raise CompileError(f"the group of %{step.entry} was not lowered")
        outs: list[Place] = []
        for value in made.results:
            sig = self.trace.entry(value).sig
            places = self._results(sig.types)
            outs += places
            self.places[value] = places[0] if sig.type is sig.types[0] else places
        for value in step.results:
            sig, inputs, _ = self.trace.entry(value)
            if "project" in sig.op.traits:
                self.places[value] = self.places[inputs[0]][sig.attrs["index"]]
        sources = [self.places[a.root] for a in made.loads]
        ins = [
            Place(root.storage, a.layout, root.offset)
            for root, a in zip(sources, made.loads, strict=True)
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
        begin = len(self.calls)
        for head, slots, numbers, _ in plan.calls:
            addresses = [(places[slot][0], places[slot][1] + offset) for slot, offset in slots]
            self.calls.append((head, addresses, numbers))
        nbytes = sum(p.layout.touched for p in {*operands})
        self.emitted.append(Emitted(self.step, begin, len(self.calls), nbytes))

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

    def _write(self) -> Tape:
        tape = bytearray()
        patches: list[tuple[int, int, int]] = []
        for head, addresses, numbers in self.calls:
            tape += head
            for storage, offset in addresses:
                slot = self.slots.get(storage)
                if slot is None:
                    slot, offset = 0, offset + self.storages[storage].offset
                patches.append((len(tape) // 8, slot, offset))
                tape += bytes(8)
            tape += numbers
        table = self.fixed + len(self.results)
        return self.device.link(bytes(tape), len(self.calls), patches, table, self.threads)


def _renumbered(place: Any, slots: dict[int, int]) -> Any:
    if type(place) is tuple:
        return tuple(p._replace(storage=slots[p.storage]) for p in place)
    return place._replace(storage=slots[place.storage])


__all__ = ["Assembly", "Place"]
