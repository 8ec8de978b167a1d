"""A graph as the calls of an entry point: where a program has addresses, a build has places."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from treadle.base.record import Record
from treadle.compiler.assembly import Assembly, Place
from treadle.compiler.device import Device
from treadle.compiler.pipeline import PASSES, Draft
from treadle.compiler.prepare import compile_plan
from treadle.compiler.takeover import Uses
from treadle.compiler.trace import Entry, Trace
from treadle.export.bind import bind
from treadle.export.native.targets import BuildError
from treadle.ir.graph import Graph, refs
from treadle.ir.launch import Layout, Out, Plan, Refusal, contiguous
from treadle.ir.nest import copy_launch
from treadle.ir.op import Bundle, Contraction, Elementwise, Library, Loops, Reduction, View
from treadle.ir.size import resolve
from treadle.ops.registry import find

# What addresses are counted from. An argument whose base is NUMBER is the offset itself.
NUMBER, ARENA, STATE, WEIGHTS, TABLE, PACKED, FIRST = range(7)
_LINE = 64

At = tuple[int, int]  # a base, and bytes from there


class BuiltCall(Record):
    """One call of a kernel; ``message`` is what its failure means."""

    kernel: int
    units: int
    pieces: int
    args: tuple[At, ...]
    message: str


class BuiltEntry(Record):
    """The calls of a graph. ``once`` are those that only read weights that stay, and fill
    ``packed`` bytes; ``calls`` begin with nothing but these and the arguments."""

    once: tuple[BuiltCall, ...]
    calls: tuple[BuiltCall, ...]
    packed: int
    arena: int


class Surroundings(Record):
    """Where an entry finds what is not its own: weights by name, and its block of numbers."""

    weights: Mapping[str, At]
    numbers: At
    mutable: frozenset[str]


def check_operations(graph: Graph) -> None:
    """Raises BuildError, with the line, for the first operation that has no native code."""
    for operation in graph.operations:
        op = find(operation.op)
        if op is None or isinstance(
            op.lower, (Elementwise, View, Reduction, Contraction, Loops, Bundle)
        ):
            continue
        runs = op is not None and isinstance(op.lower, Library)
        why = "runs in Python" if runs else "is no part of native builds"
        raise BuildError(
            f"graph {graph.name!r}: the operation {operation.op} {why}{_told(operation.site)}; "
            f"compute it outside the program, or run the file with treadle.export.load"
        )


def _told(site: str) -> str:
    return f" [{site}]" if site else ""


def build_entry(
    graph: Graph, sizes: Mapping[str, int], around: Surroundings, device: Device, threads: int
) -> BuiltEntry:
    """The calls of ``graph`` with these sizes, on kernels that ``device`` numbers."""
    trace = _trace(graph, sizes)
    draft = _drafted(trace, device, threads, True)
    sources = [graph.weights[s - len(graph.inputs)].name for s in draft.assembly.sources
               if s >= len(graph.inputs)]  # fmt: skip
    if len(sources) < len(draft.assembly.sources) or not around.mutable.isdisjoint(sources):
        draft = _drafted(trace, device, threads, False)
    return _Writer(graph, draft, around, device).entry()


def _drafted(trace: Trace, device: Device, threads: int, packs_once: bool) -> Draft:
    draft = Draft(trace, device, threads)
    for p in PASSES:
        if p.name != "link" and (packs_once or p.name != "constants"):
            p.run(draft)
            p.verify(draft)
    return draft


def _trace(graph: Graph, sizes: Mapping[str, int]) -> Trace:
    """The graph as a trace, whose values have the same numbers."""
    bound = bind(graph, sizes)
    specs = () if bound.template is None else bound.template.specs
    layouts = [contiguous(x.dtype, resolve(x.shape, sizes))  # type: ignore[arg-type]
               for x in (*graph.inputs, *graph.weights)]  # fmt: skip
    numbers = [contiguous(n.dtype, ()) for n in graph.numbers]
    results = set(bound.results)
    entries = [
        Entry(spec.sig, operation.inputs, value in results)
        for value, (operation, spec) in enumerate(
            zip(graph.operations, specs, strict=True), graph.first
        )
    ]
    return Trace(tuple(layouts), tuple(numbers), tuple(entries))


class _Writer:
    """Gives storages their places, and results the copies that they need."""

    def __init__(
        self, graph: Graph, draft: Draft, around: Surroundings, device: Device
    ) -> None:
        self.graph = graph
        self.draft = draft
        self.assembly: Assembly = draft.assembly
        self.around = around
        self.device = device
        self.arena = self.assembly.arena
        self.at: dict[int, At] = {}  # of storages
        self.copies: list[BuiltCall] = []
        self._externals()

    def entry(self) -> BuiltEntry:
        """All of it."""
        self._results()
        assembly = self.assembly
        for number, storage in enumerate(assembly.storages):
            if number >= assembly.fixed and number not in self.at:
                if storage.is_constant:
                    self.at[number] = PACKED, storage.offset
                elif storage.is_result:
                    self.at[number] = ARENA, self._room(storage.nbytes)
                else:
                    self.at[number] = ARENA, storage.offset
        messages = self._messages()
        calls = [
            self._call(head, [self._address(*a) for a in addresses], numbers, messages.get(n, ""))
            for n, (head, addresses, numbers) in enumerate(assembly.calls)
        ]
        once = tuple([c for n, c in enumerate(calls) if n in assembly.once])
        each = [c for n, c in enumerate(calls) if n not in assembly.once]
        return BuiltEntry(once, (*each, *self.copies), assembly.constant, self.arena)

    def _room(self, nbytes: int) -> int:
        start = -(-self.arena // _LINE) * _LINE
        self.arena = start + nbytes
        return start

    def _address(self, storage: int, offset: int) -> At:
        base, start = self.at[storage]
        return base, start + offset

    def _externals(self) -> None:
        self.at[1] = self.around.numbers
        inputs = len(self.graph.inputs)
        for value in range(len(self.draft.trace.externals)):
            storage = self.assembly.places[value].storage
            if value < inputs:
                self.at[storage] = FIRST + value, 0
            else:
                self.at[storage] = self.around.weights[self.graph.weights[value - inputs].name]

    def _place(self, value: int) -> Place:
        place: Place = self.assembly.place_of(value)
        return place

    # --- results ----------------------------------------------------------------------------------

    def _results(self) -> None:
        """Outputs are written where the caller wants them, new weights over the old ones, where
        nothing speaks against it; otherwise they are copied at the end, weights last."""
        taken = self._overwritten()
        late: list[BuiltCall] = []
        first = FIRST + len(self.graph.inputs)
        for number, value in enumerate(refs(self.graph.outputs)):
            place = self._place(value)
            if not self._gives(place, (first + number, 0)):
                self.copies += self._copy(place, (first + number, 0))
        for name, value in self.graph.updates.items():
            place, target = self._place(value), self.around.weights[name]
            if place.storage in self.at and self._address(place.storage, place.offset) == target:
                continue  # it is the weight itself, unchanged or written in place
            if taken.get(name) == place.storage and self._gives(place, target):
                continue
            source = place
            if place.storage < self.assembly.fixed:  # of a weight that may change before
                between = ARENA, self._room(place.layout.touched)
                self.copies += self._copy(place, between)
                late += self._copied(contiguous(*place.layout[:2]), between, target)
            else:
                late += self._copy(source, target)
        self.copies += late

    def _gives(self, place: Place, target: At) -> bool:
        """Lets a storage lie where its one value is wanted, if it can."""
        storage = self.assembly.storages[place.storage]
        fits = (
            place.storage >= self.assembly.fixed and place.storage not in self.at
            and storage.is_result and place.offset == 0 and place.layout.is_contiguous
            and storage.nbytes == place.layout.touched
        )  # fmt: skip
        if fits:
            self.at[place.storage] = target
        return fits

    def _overwritten(self) -> dict[str, int]:
        """The storages of new weights that may be written over the old ones."""
        graph, assembly = self.graph, self.assembly
        uses = Uses(assembly.calls, assembly.alike)
        shown = {self._place(v).storage for v in refs(graph.outputs)}
        shown |= {self._place(v).storage for v in graph.updates.values()}
        found: dict[str, int] = {}
        for number, weight in enumerate(graph.weights, len(graph.inputs)):
            if weight.name not in graph.updates:
                continue
            new = self._place(graph.updates[weight.name])
            old: Place = assembly.places[number]
            if old.storage not in shown and new.storage in assembly.slots:
                nbytes = assembly.storages[new.storage].nbytes
                results = {new.storage: nbytes} if new.storage in uses.first else {}
                outside = {old.storage: (number, old.layout.touched)}
                if uses.from_outside(results, outside, assembly.failing):
                    found[weight.name] = new.storage
        return found

    def _copy(self, place: Place, target: At) -> list[BuiltCall]:
        """The call that copies a value; its source is resolved when all storages have places."""
        if place.storage not in self.at:
            storage = self.assembly.storages[place.storage]
            self.at[place.storage] = ARENA, self._room(storage.nbytes)
        return self._copied(place.layout, self._address(place.storage, place.offset), target)

    def _copied(self, layout: Layout, source: At, target: At) -> list[BuiltCall]:
        if not all(layout.shape):
            return []
        plain = contiguous(layout.dtype, layout.shape)
        plan = Plan((copy_launch(layout, Out(0), plain.strides),))
        made = compile_plan(plan, [plain], [layout], self.device)
        ends = target, source
        return [
            self._call(c.head, [(ends[s][0], ends[s][1] + o) for s, o in c.slots], c.numbers, "")
            for c in made.calls
        ]

    # --- calls ------------------------------------------------------------------------------------

    def _call(
        self, head: bytes, addresses: Sequence[At], numbers: bytes, message: str
    ) -> BuiltCall:
        kernel, _, units, pieces = struct.unpack("4q", head)
        words = struct.unpack(f"{len(numbers) // 8}q", numbers)
        args = (*addresses, *((NUMBER, word) for word in words))
        return BuiltCall(kernel, units, pieces, args, message)

    def _messages(self) -> dict[int, str]:
        """What the failure of each call means, with the line of its operation."""
        found: dict[int, str] = {}
        steps = {n: e.step for e in self.assembly.emitted for n in range(e.begin, e.end)}
        for number, told in self.assembly.messages.items():
            value = self.draft.steps[steps[number]].entry
            sig = self.draft.trace.entry(value).sig
            if isinstance(told, Refusal):
                words = str(sig.attrs.get("words", "got {value}, which it cannot take{where}"))
                told = words.format(value="a value", where="")
            site = self.graph.operations[value - self.graph.first].site
            found[number] = f"{sig.op.name}: {told}{_told(site)}"
        return found


__all__ = [
    "ARENA", "FIRST", "NUMBER", "PACKED", "STATE", "TABLE", "WEIGHTS", "BuiltCall", "BuiltEntry",
    "Surroundings", "build_entry", "check_operations",
]  # fmt: skip
