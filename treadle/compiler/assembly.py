"""From steps to a program: kernels are compiled, values get memory, the tape is written.

While the calls are collected, values lie in *storages*; where those are is known at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base.errors import CompileError
from treadle.base.record import Record
from treadle.compiler.arena import Storage, lay_out
from treadle.compiler.batch import batch_kernel
from treadle.compiler.constants import launches_ahead
from treadle.compiler.device import Device
from treadle.compiler.fuse import Fusion
from treadle.compiler.lower import map_kernel, plan
from treadle.compiler.prepare import Prepared, compile_plan, moved, prepared
from treadle.compiler.program import Emitted, Image, Made, Once, Program
from treadle.compiler.schedule import Step
from treadle.compiler.takeover import Takeover, Use, Uses, same_places
from treadle.ir.launch import Argument, In, Layout, Out, Plan, Refusal
from treadle.ir.node import Type
from treadle.ir.op import Bundle, Elementwise

_NOTHING_AHEAD: tuple[int, frozenset[int]] = (0, frozenset())


class Place(Record):
    """Where a value lies: ``offset`` bytes into a storage."""

    storage: int
    layout: Layout
    offset: int


class Assembly:
    """The calls of a program as they come about, with storages instead of addresses."""

    def __init__(
        self, fusion: Fusion, device: Device, threads: int, weights: dict[int, int] | None = None
    ) -> None:
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
        self.alike: dict[int, list[tuple[Use, Use]]] = {}  # of calls: a result, and what it may
        self.failing = -1  # take over; the last call that may fail
        self.messages: dict[int, str | Refusal] = {}  # what the failure of a call means
        self.takeovers: list[Takeover] = []
        self.weights = weights or {}  # of convolutions: the external value that stays the same
        self.sources: dict[int, None] = {}  # those that calls run once read
        self.once: set[int] = set()  # the calls that need not be run again
        self.constant = 0  # bytes that these fill
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
            (position, self.place_of(first + position))
            for position, entry in enumerate(self.trace.entries)
            if entry.keep
        ]

    def plan_memory(self) -> None:
        """Gives what is temporary its place in the arena, and the rest a slot in the table."""
        self.slots, self.results = self._number_results([place for _, place in self.kept])
        uses = Uses(self.calls, self.alike)
        inside = {*self.temporary()}
        uses.within(self.storages, [n for n, s in enumerate(self.storages) if s in inside])
        results = {s: self.storages[s].nbytes for s in self.slots if s >= self.fixed}
        if not self.once:
            self.takeovers = uses.from_outside(results, self._replaceable(), self.failing)
        self.arena = lay_out(self.temporary())
        end = len(self.storages)
        constants = [s for s in self.storages if s.is_constant]
        for s in constants:
            s.first, s.last = 0, end  # none of them ever makes room
        self.constant = lay_out(constants)

    def temporary(self) -> list[Storage]:
        """The storages in the arena, in the order in which they come into use."""
        return [s for s in self.storages[self.fixed :] if not (s.is_result or s.is_constant)]

    def program(self, steps: Sequence[Step]) -> Program:
        """Writes the tape."""
        kept = [(position, _renumbered(place, self.slots)) for position, place in self.kept]
        made = Made(self.trace, steps, self.emitted, self.places, self.storages)
        images = [self._write(range(len(self.calls)))]
        if self.constant:
            images.append(self._write([n for n in range(len(self.calls)) if n not in self.once]))
        tapes = [
            self.device.link(x.tape, x.calls, x.patches, x.slots, self.threads) for x in images
        ]
        once = Once(tapes[1], self.constant, list(self.sources)) if self.constant else None
        return Program(
            self.device, tapes[0], self.arena, self.results, kept, made, once, self.takeovers,
            images,
        )  # fmt: skip

    def _replaceable(self) -> dict[int, tuple[int, int]]:
        """Storages of values from outside, with these and their bytes, that no result is a view
        of."""
        shown = {
            p.storage
            for _, place in self.kept for p in (place if type(place) is tuple else (place,))
        }  # fmt: skip
        return {
            place.storage: (value, place.layout.touched)
            for value, place in self.places.items()
            if value < len(self.trace.externals) and type(place) is Place
            and place.layout.is_contiguous and place.storage not in shown
        }  # fmt: skip

    def _new_storage(self, nbytes: int) -> int:
        self.storages.append(Storage(nbytes, self.step))
        return len(self.storages) - 1

    def place_of(self, value: int) -> Any:
        """Where a value lies, seen through its views."""
        access = self.access[value]
        if access is not None:
            root: Place = self.places[access.root]
            offset = root.offset + int(access.offset * access.layout.dtype.itemsize)
            return Place(root.storage, access.layout, offset)
        value = self.trace.stand_in(value)
        if value not in self.places:  # a bundle
            sig, inputs, _ = self.trace.entry(value)
            return tuple([self.place_of(i) for i in inputs[: len(sig.types)]])
        return self.places[value]

    # --- one step ---------------------------------------------------------------------------------

    def _entry(self, value: int) -> None:
        sig, inputs, _ = self.trace.entry(value)
        if isinstance(sig.op.lower, Bundle):
            return
        sources = [self.place_of(i) for i in inputs]
        if "project" in sig.op.traits:
            self.places[value] = sources[0][sig.attrs["index"]]
            return
        layouts = tuple([place.layout for place in sources])
        if sig.is_view:
            copy = moved(sig, layouts[0], self.device).copy
            if copy is None:
                raise CompileError(f"{sig.op.name}: a view that needs a copy has none")
            calls = copy
        else:
            calls = prepared(sig, layouts, self.device, self.threads)
        outs = self._results(sig.types)
        if isinstance(sig.op.lower, Elementwise):
            args: list[Argument] = [Out(j) for j in range(len(outs))]
            args += (In(j) for j in range(len(sources)))
            self._note_alike(outs, sources, args)
        ahead = _NOTHING_AHEAD
        if value in self.weights:
            bits, types = self.device.vector_bits, [kind.layout for kind in sig.types]
            ahead = self._ahead(value, plan(sig.op, sig.attrs, layouts, types, self.threads, bits))
        self._emit(calls, [*outs, *sources], *ahead)
        self.places[value] = outs[0] if sig.type is sig.types[0] else outs

    def _ahead(self, value: int | None, made: Plan) -> tuple[int, frozenset[int]]:
        """What is done once of the plan of a convolution, alone or as the head of a group."""
        if value not in self.weights:
            return _NOTHING_AHEAD
        ahead = launches_ahead(made)
        if ahead[0]:
            self.sources[self.weights[value]] = None
        return ahead

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
        launches = made.plan.launches
        if len(launches) == 1 and launches[0].kernel.build in (map_kernel, batch_kernel):
            self._note_alike(outs, ins, launches[0].args)
        ahead = self._ahead(step.group.head, made.plan) if step.group else _NOTHING_AHEAD
        self._emit(compile_plan(made.plan, *layouts, self.device), [*outs, *ins], *ahead)

    def _note_alike(
        self, outs: Sequence[Place], ins: Sequence[Place], args: Sequence[Argument]
    ) -> None:
        """Notes which results of the next call, a map, may take over which operand."""
        pairs = same_places(args, [p.layout for p in outs], [p.layout for p in ins])
        self.alike[len(self.calls)] = [(outs[o][::2], ins[i][::2]) for o, i in pairs]

    def _results(self, types: Sequence[Type]) -> tuple[Place, ...]:
        return tuple([Place(self._new_storage(t.nbytes), t.layout, 0) for t in types])

    def _emit(
        self, plan: Prepared, operands: list[Place], ahead: int = 0,
        constants: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        """The first ``ahead`` calls may be left out while the workspaces they fill are kept."""
        places = [(p.storage, p.offset) for p in operands]
        for index, nbytes in enumerate(plan.workspaces):
            storage = self._new_storage(nbytes)
            self.storages[storage].is_constant = index in constants
            places.append((storage, 0))
        for storage, _ in places:
            self.storages[storage].last = self.step
        begin = len(self.calls)
        self.once.update(range(begin, begin + ahead))
        for head, slots, numbers, message in plan.calls:
            if message:
                self.failing = len(self.calls)
                self.messages[self.failing] = message
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

    def _write(self, chosen: Sequence[int]) -> Image:
        """What a tape of some of the calls is linked from."""
        tape = bytearray()
        entries: list[int] = []
        patches: list[tuple[int, int, int]] = []
        for head, addresses, numbers in [self.calls[n] for n in chosen]:
            entries.append(len(tape) // 8)
            tape += head
            for storage, offset in addresses:
                slot = self.slots.get(storage)
                if slot is None:
                    block = self.storages[storage]
                    slot = self.fixed + len(self.results) if block.is_constant else 0
                    offset += block.offset
                patches.append((len(tape) // 8, slot, offset))
                tape += bytes(8)
            tape += numbers
        table = self.fixed + len(self.results) + (self.constant > 0)
        return Image(bytes(tape), tuple(entries), len(chosen), patches, table)


def _renumbered(place: Any, slots: dict[int, int]) -> Any:
    if type(place) is tuple:
        return tuple(p._replace(storage=slots[p.storage]) for p in place)
    return place._replace(storage=slots[place.storage])


__all__ = ["Assembly", "Place"]
