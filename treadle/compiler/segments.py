"""Graphs that never come again as a whole, run segment by segment in one native call.

Every stretch of a graph whose segment (``ir/segments.py``) was seen before has a program, which is
copied to the tape with a table of addresses of its own. What lies between is done as in tier 0,
node by node. Which values outlive a stretch (``wanted``) is part of what its program is known by.

Nothing that anybody can see changes before the tape has run; where anything fails, the whole graph
goes to tier 0.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sys import getrefcount
from time import perf_counter
from typing import TYPE_CHECKING, Any

from treadle.base.errors import CompileError, TreadleError
from treadle.compiler.device import Stamp
from treadle.compiler.program import Program, padded
from treadle.compiler.trace import Entry, Trace, site_within
from treadle.compiler.watch import Odd, Ran, Timed, is_timed
from treadle.ir.call import Call, parts_of
from treadle.ir.node import Node, Site
from treadle.ir.scan import HELD_NODE, HELD_PART, OWN, Scan, layout_of
from treadle.ir.segments import Segment, Stretch, segments

if TYPE_CHECKING:
    from treadle.compiler.programs import Known
    from treadle.compiler.tier0 import Evaluator, Value

_MOST_VARIANTS = 32  # of one segment
_COVERED = 0.5  # the part of a graph that must lie in segments

Target = tuple[int, int, int]  # as in programs.Known


def stretches_of(scanned: Scan) -> list[Stretch] | None:
    """The stretches of a graph; None where too little of it was seen before."""
    if any(type(item) is Call and item.template.args is not None for item in scanned.items):
        return None  # a gradient that stands for all that came before it
    stretches = segments.cut(scanned)
    covered = sum(len(s.segment.pieces) for s in stretches if s.segment.was_seen)
    return stretches if covered >= _COVERED * scanned.size else None


class Needs:
    """Which values of a graph are read after the stretch that makes them, and until when.

    ``held`` are those that outlive the graph, and ``targets`` the nodes that get them; ``wanted``
    are of each stretch those that others read or that are held, by their numbers in it, and
    ``last_uses`` those of which it is the last reader.
    """

    def __init__(self, scanned: Scan, stretches: Sequence[Stretch]) -> None:
        self.scanned = scanned
        self.stretches = stretches
        self.targets: list[Target] = []
        self.held: list[int] = []
        self.wanted: list[set[int]] = [set() for _ in stretches]
        self.last_uses: list[list[int]] = [[] for _ in stretches]
        self._owner: list[int] = []  # the stretch of every value
        for position, s in enumerate(stretches):
            self._owner += [position] * len(s.segment.pieces)
        self._find_held()
        self._find_readers()

    def _find_held(self) -> None:
        """As ``Scan.held``; a stretch's list of inputs refers to them once more."""
        outside: dict[int, int] = {}
        for s in self.stretches:
            for number, count in zip(s.numbers, s.segment.input_uses, strict=True):
                if number >= 0:
                    outside[number] = outside.get(number, 0) + count + 1
        also = outside.get
        items, open_ = self.scanned.items, []  # what gradients may still be asked for: its pieces
        for s in self.stretches:
            uses = s.segment.uses
            number = start = s.start
            for position in range(s.begin, s.end):
                item = items[position]
                if type(item) is not Call:
                    expected = HELD_NODE + uses[number - start] + also(number, 0)
                    if getrefcount(item) > expected or item.keep:
                        self._hold(number, (position, 0, -1))
                    if item.needs_grad and not item.spent:
                        open_.append((s, number - start, 1))
                    number += 1
                    continue
                size = len(item.template.specs)
                whole = item.nodes is None
                for n in parts_of(item):
                    v = number + n.index
                    expected = HELD_PART + uses[v - start] + also(v, 0)
                    if getrefcount(n) > expected or n.keep:
                        self._hold(v, self._target(v))
                    if not whole and n.needs_grad and not n.spent:
                        open_.append((s, v - start, 1))
                if whole and item.template.needs_grad and not item.spent:
                    open_.append((s, number - start, size))
                number += size
        for number in sorted(self._residuals_of(open_).difference(self.held)):
            self._hold(number, self._target(number))

    def _hold(self, number: int, target: Target) -> None:
        self.held.append(number)
        self.targets.append(target)
        position = self._owner[number]
        self.wanted[position].add(number - self.stretches[position].start)

    def _residuals_of(self, open_: Sequence[tuple[Stretch, int, int]]) -> set[int]:
        """The values of this graph that a gradient may still read on its way from held ones
        through ``open_`` pieces: of each stretch the first, and how many go together."""
        leading, residuals = set(self.held), set()
        for s, first, count in reversed(open_):
            if leading.isdisjoint(range(s.start + first, s.start + first + count)):
                continue
            for number in range(first, first + count):
                sig, inputs, needs_grad = s.segment.pieces[number]
                read = [s.start + i if i >= 0 else s.numbers[~i] for i in inputs]
                leading.update(read)
                for r in sig.residuals if needs_grad else ():
                    residuals.add(s.start + number if r == "out" else read[r])  # type: ignore[index]
        return {number for number in residuals if number >= 0}

    def _target(self, number: int) -> Target:
        position, index = self.scanned.position_of(number)
        item = self.scanned.items[position]
        outs = [n.index for n in item.outs] if type(item) is Call and item.nodes is None else []
        return position, index, outs.index(index) if index in outs else -1

    def _find_readers(self) -> None:
        owner, stretches, wanted = self._owner, self.stretches, self.wanted
        for position in range(len(stretches) - 1, -1, -1):
            if not wanted[position]:
                continue  # nobody needs it
            for number in stretches[position].numbers:
                if number >= 0:
                    maker = owner[number]
                    local = number - stretches[maker].start
                    if local not in wanted[maker]:
                        wanted[maker].add(local)
                        self.last_uses[position].append(number)


class Variant:
    """A segment whose inputs lie in one way, and of which the same values are wanted."""

    __slots__ = ("_stamp", "known", "numbers", "program")

    def __init__(self, known: Known, numbers: tuple[int, ...]) -> None:
        self.known = known
        self.numbers = numbers  # of the values that it gives, in the segment
        self.program: Program | None = None
        self._stamp: Stamp | None = None

    def current(self) -> tuple[Program, Stamp]:
        """The program as it is by now: a fused one takes the place of the first."""
        program = self.known.program
        if program is None:
            raise CompileError(self.known.refusal)
        if program is not self.program or self._stamp is None:
            self.program, self._stamp = program, program.tape.stamp()
        return program, self._stamp


class Run:
    """One evaluation by segments: ``make`` writes the tape, ``execute`` runs it."""

    def __init__(self, engine: Evaluator, needs: Needs) -> None:
        self.engine = engine
        self.scanned = needs.scanned
        self.needs = needs
        self.values: dict[int, Any] = {}
        self.lent: list[Node] = []  # nodes that have a value only while the tape is made
        self.table: list[int] = []
        self.arena = 0  # bytes; one stretch after the other uses it
        self.arenas: list[int] = []  # where in the table its address goes
        self.numbers: list[tuple[int, int]] = []  # where that of numbers goes, where they are
        self.stamps: list[tuple[int, int]] = []  # (piece of the tape, start in the table)
        self.memories: list[Any] = []
        self.calls = 0
        self.ran: list[Any] = []  # for the record: Ran and Odd

    def values_of(self) -> list[Value] | None:
        """The values of ``needs.held``; None where something fails, and nothing has changed."""
        engine = self.engine
        engine.tape, engine.owners, engine.free, engine.supplied = [], [], {}, []
        is_done = False
        try:
            self._make()
            is_done = self._execute()
        except (MemoryError, TreadleError):
            return None  # tier 0 needs less, and tells which node it is
        finally:
            for n in self.lent:
                n.set_value(None)
                n.error = None
            if not is_done:
                for n in engine.supplied:
                    n.set_value(None)
            engine.tape, engine.owners, engine.free, engine.supplied = [], [], {}, []
        return [self.values[number] for number in self.needs.held] if is_done else None

    # --- the tape ---------------------------------------------------------------------------------

    def _make(self) -> None:
        needs, values, free = self.needs, self.values, self.engine.free
        memory: Any
        for s, wanted, last_uses in zip(
            needs.stretches, needs.wanted, needs.last_uses, strict=True
        ):
            if not wanted:
                continue
            if s.segment.repeats:
                self._stretch(s, tuple(sorted(wanted)))
            else:
                self._one_by_one(s)
            for number in last_uses:
                value = values.pop(number)
                for memory, _, _ in (value,) if type(value[0]) is not tuple else value:
                    # Its references: the value's, and this name's.
                    if getrefcount(memory) == OWN + 1:
                        free.setdefault(memory.nbytes, []).append(memory)
                memory = value = None

    def _one_by_one(self, s: Stretch) -> None:
        engine, known = self.engine, self.scanned.known
        for number, n in enumerate(self.scanned.items[s.begin : s.end], s.start):
            for i in n.inputs:
                if i.value is None and known.get(i, -1) >= 0:
                    self.lent.append(i)
                    i.set_value(self.values[known[i]])
            self.lent.append(n)
            before = len(engine.owners)
            engine._step(n)
            if n.error is not None:
                raise CompileError(str(n.error))
            self.values[number] = n.value
            count = len(engine.owners) - before
            self.ran.append(Odd(n.sig, n.site, self.calls, count))
            self.calls += count

    def _stretch(self, s: Stretch, wanted: tuple[int, ...]) -> None:
        engine, segment, values = self.engine, s.segment, self.values
        numbers, inputs, table = s.numbers, s.inputs, self.table
        start = len(table)
        memories: list[Any] = [None, None]
        addresses = [0, 0]
        key: list[Any] = [wanted]
        for k in segment.tensors:
            value = values[numbers[k]] if numbers[k] >= 0 else inputs[k].value
            if type(value[0]) is tuple:
                memories += [part[0] for part in value]
                addresses += [part[2] for part in value]
                key.append(layout_of(value))
                continue
            memories.append(value[0])
            addresses.append(value[2])
            key.append(None if value[1] is inputs[k].type.layout else value[1])
        variant = self._variant(segment, s, tuple(key))
        program, stamp = variant.current()
        free, allocate = engine.free, engine.device.allocate
        for nbytes in program.results:
            blocks = free.get(nbytes)
            memory = blocks.pop() if blocks else allocate(nbytes)
            memories.append(memory)
            addresses.append(memory.address)
        if program.once is not None:
            memory = allocate(program.once.nbytes)
            self.memories.append(memory)
            addresses.append(memory.address)
        self.arenas.append(start)
        if program.arena > self.arena:
            self.arena = program.arena
        scalars = [padded(inputs[k].packed) for k in segment.scalars]  # type: ignore[attr-defined]
        if program.gives_numbers:
            memories[1] = memory = allocate(8 * len(scalars))
            engine.device.write(memory.address, b"".join(scalars))
            addresses[1] = memory.address
        elif scalars:
            self.numbers.append((start + 1, start + len(addresses)))
        table += addresses
        if scalars and not program.gives_numbers:
            table += array("q", b"".join(scalars))
        self.stamps.append((len(engine.tape), start))
        engine.tape.append(stamp.words)
        made = program.values(memories, addresses)
        values.update(zip([s.start + number for number in variant.numbers], made, strict=True))
        self.ran.append(Ran(variant.known, program, self.calls, s.begin))
        self.calls += stamp.calls

    # --- programs of segments ---------------------------------------------------------------------

    def _variant(self, segment: Segment, s: Stretch, key: tuple[Any, ...]) -> Variant:
        programs = segment.programs
        if programs is None:
            programs = segment.programs = {}
        variant = programs.get(key)
        if variant is None:
            if len(programs) >= _MOST_VARIANTS:
                programs.clear()
            variant = programs[key] = self._new_variant(s, key)
        elif self.engine.programs.consider(variant.known):
            self.engine.programs.keep(variant.known)
        return variant

    def _new_variant(self, s: Stretch, key: tuple[Any, ...]) -> Variant:
        trace, numbers = trace_of(s, key[0], key[1:])
        known = self.engine.programs.make(trace, self.engine.threads)
        known.numbers = numbers
        known.sites = self._sites(s, numbers)
        return Variant(known, key[0])

    def _sites(self, s: Stretch, numbers: Sequence[int]) -> list[Site | None]:
        sites: list[Site | None] = []
        for item in self.scanned.items[s.begin : s.end]:
            count = len(item.template.specs) if type(item) is Call else 1
            sites += [site_within(item, index) for index in range(count)]
        return [sites[number] for number in numbers]

    # --- running it -------------------------------------------------------------------------------

    def _execute(self) -> bool:
        engine = self.engine
        if not self.calls:
            return True
        self.memories.append(arena := engine.device.allocate(self.arena))
        table = array("q", self.table)
        for place in self.arenas:
            table[place] = arena.address
        base = table.buffer_info()[0]
        for place, at in self.numbers:
            table[place] = base + 8 * at
        times = array("q", bytes(8 * (self.calls + 1)))
        begin = perf_counter()
        failed = engine.device.run_stamped(
            engine.tape, self.stamps, table, self.calls, engine.threads, times
        )
        engine.timed = Timed(1, begin, times)
        if failed >= 0:
            return False
        self._note_times(times, begin)
        return True

    def _note_times(self, times: array[int], begin: float) -> None:
        """Programs are compared, and compiled, by the time they take."""
        tick = self.engine.device.seconds_per_tick()
        for ran in self.ran:
            if type(ran) is Odd:
                continue
            _, program, first, _ = ran
            end = first + 1 + program.calls
            seconds = (times[end] - times[first + 1]) * tick
            program.seconds += seconds
            if seconds < program.best:
                program.best = seconds
            program.runs = runs = program.runs + 1
            if is_timed(runs):
                at = begin + (times[first] - times[0]) * tick
                program.timed = Timed(runs, at, times[first : end + 1])


def trace_of(
    s: Stretch, wanted: Sequence[int], layouts: Sequence[Any]
) -> tuple[Trace, tuple[int, ...]]:
    """A segment as a trace that keeps the values ``wanted``, and the numbers of its entries.

    ``layouts`` are those of the inputs that are no numbers; None where they are row-major.
    """
    segment = s.segment
    places = {k: position for position, k in enumerate((*segment.tensors, *segment.scalars))}
    externals = tuple([
        s.inputs[k].type.layout if layout is None else layout
        for k, layout in zip(segment.tensors, layouts, strict=True)
    ])  # fmt: skip
    scalars = tuple([s.inputs[k].type.layout for k in segment.scalars])
    pieces = segment.pieces
    needed = set(wanted)
    for number in range(len(pieces) - 1, -1, -1):
        if number in needed:
            needed.update(pieces[number].inputs)
    numbers = tuple([number for number in range(len(pieces)) if number in needed])
    values = {number: len(places) + position for position, number in enumerate(numbers)}
    kept = set(wanted)
    entries = tuple([
        Entry(
            pieces[number].sig,
            tuple([values[i] if i >= 0 else places[~i] for i in pieces[number].inputs]),
            number in kept,
        )
        for number in numbers
    ])  # fmt: skip
    return Trace(externals, scalars, entries), numbers


__all__ = ["Needs", "Run", "Variant", "stretches_of", "trace_of"]
