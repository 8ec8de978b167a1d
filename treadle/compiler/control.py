"""Control flow: ops whose bodies run inside of their one call, without a return to Python.

A body becomes a fused program. Its tape is run by ``runtime/control_code.py``, which before each
pass writes into it where the pass finds its arguments and leaves its results: a carry moves along
a ring of places, a scanned operand one element further, and what is captured stays where it is.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from treadle.base.record import Record
from treadle.base.shapes import prod
from treadle.compiler.device import Device
from treadle.compiler.prepare import Call, Prepared, compile_plan, words
from treadle.compiler.trace import Entry, Trace
from treadle.ir.body import Body
from treadle.ir.launch import HOST_CALL, Layout, Out, Plan, contiguous
from treadle.ir.nest import copy_launch
from treadle.ir.node import Signature, Type

if TYPE_CHECKING:
    from treadle.compiler.program import Program

_ENDLESS = (1 << 63) - 1
_CHOICE = -1
_kept: list[Any] = []  # tapes and descriptions, whose addresses stand in other tapes


class Place(Record):
    """Where something lies in pass i: at row + (i + shift) % modulus * stride + offset."""

    row: int
    stride: int = 0
    shift: int = 0
    modulus: int = 1
    offset: int = 0


class _Rows:
    """The addresses that the call gets: results, operands, and workspaces as they come about."""

    def __init__(self, sig: Signature) -> None:
        self.outputs = len(sig.types)
        self.first_work = self.outputs + len(sig.inputs)
        self.workspaces: list[int] = []
        self.places: list[Place] = []

    def work(self, nbytes: int) -> int:
        """The row of a new workspace."""
        self.workspaces.append(nbytes)
        return self.first_work + len(self.workspaces) - 1

    def place(self, place: Place) -> int:
        """The number of a place."""
        self.places.append(place)
        return len(self.places) - 1


class _Part:
    """A body as a tape, and which words of it are to be written before each pass."""

    def __init__(
        self, body: Body, args: Sequence[int], results: Sequence[int], rows: _Rows,
        device: Device, threads: int,
    ) -> None:  # fmt: skip
        self.rows, self.device = rows, device
        self.tape, self.patches, self.calls = bytearray(), array("q"), 0
        layouts = [kind.layout for kind in body.args]
        found: dict[int, tuple[int, Layout, int]] = {  # where values lie: place, layout, offset
            ~i: (place, layout, 0)
            for i, (place, layout) in enumerate(zip(args, layouts, strict=True))
        }  # fmt: skip
        taken: set[int] = set()
        program = _program(body, device, threads)
        if program is not None:
            taken = self._take(body, program, args, results, found)
        for k, reference in enumerate(body.results):
            if k not in taken:
                self._copy(found[reference], results[k])
        _kept.append((self.tape, self.patches))
        self.words = array("q", self.tape)
        _kept.append(self.words)

    def _take(
        self, body: Body, program: Any, args: Sequence[int], results: Sequence[int],
        found: dict[int, tuple[int, Layout, int]],
    ) -> set[int]:  # fmt: skip
        """Takes over the program's tape; the results that it leaves in their places."""
        image = program.images[0]
        arena = self.rows.place(Place(self.rows.work(program.arena)))
        numbers = self.rows.place(Place(self.rows.work(8)))
        slots = [arena, numbers, *args]
        fixed = len(slots)
        slots += [-1] * len(program.results)
        taken: set[int] = set()
        homes = dict(program.kept)
        for k, reference in enumerate(body.results):
            home = homes.get(reference) if reference >= 0 else None
            if home is None:
                continue
            storage, layout, offset = home
            is_whole = layout.is_contiguous and offset == 0
            if storage >= fixed and slots[storage] < 0 and is_whole:
                slots[storage] = results[k]
                taken.add(k)
        for storage in range(fixed, len(slots)):
            if slots[storage] < 0:
                slots[storage] = self.rows.place(
                    Place(self.rows.work(program.results[storage - fixed]))
                )
        for reference, (storage, layout, offset) in homes.items():
            found[reference] = slots[storage], layout, offset
        self.tape += image.tape
        self.calls += image.calls
        for position, slot, offset in image.patches:
            self.patches.extend((position, slots[slot], offset))
        return taken

    def _copy(self, source: tuple[int, Layout, int], place: int) -> None:
        """Another call, which brings a value to its place."""
        at, layout, offset = source
        if not prod(layout.shape):
            return
        target = contiguous(layout.dtype, layout.shape)
        plan = Plan((copy_launch(layout, Out(0), target.strides),))
        for call in compile_plan(plan, [target], [layout], self.device).calls:
            self.tape += call.head
            for slot, extra in call.slots:
                where, more = (place, 0) if slot == 0 else (at, offset)
                self.patches.extend((len(self.tape) // 8, where, extra + more))
                self.tape += bytes(8)
            self.tape += call.numbers
            self.calls += 1

    def told(self) -> tuple[int, int, int, int]:
        """The part as the description has it."""
        tape, patches = self.words.buffer_info()[0], self.patches.buffer_info()[0]
        return tape, self.calls, patches, len(self.patches) // 3


def _program(body: Body, device: Device, threads: int) -> Program | None:
    """The body's program, the same for loops of any length; None where it only hands on."""
    from treadle.compiler.pipeline import BODY_PASSES, build_program  # which knows this room

    key = ("program", device.name, device.vector_bits, threads)
    if key not in body.derived:
        args = len(body.args)
        kept = {r for r in body.results if r >= 0}
        entries = tuple([
            Entry(spec.sig, tuple([_number(r, args) for r in spec.inputs]), i in kept)
            for i, spec in enumerate(body.specs)
        ])  # fmt: skip
        trace = Trace(tuple([kind.layout for kind in body.args]), (), entries)
        body.derived[key] = (
            build_program(trace, device, threads, True, BODY_PASSES) if kept else None
        )
    found: Program | None = body.derived[key]
    return found


def _number(reference: Any, args: int) -> int:
    number: int = ~reference if reference < 0 else args + reference
    return number


def prepare_control(
    sig: Signature, layouts: tuple[Layout, ...], device: Device, threads: int
) -> Prepared:
    """The calls of an op of control flow: contiguous copies of operands, and one call for all."""
    rows = _Rows(sig)
    copies: list[Call] = []
    where = {}  # rows of operands that are copied
    for i, layout in enumerate(layouts):
        if not layout.is_contiguous:
            where[rows.outputs + i] = rows.work(sig.inputs[i].nbytes)
            copies += _contiguous_copy(layout, rows.outputs + i, where[rows.outputs + i], device)
    makers = {"scan": _scan, "while_loop": _while, "cond": _choice}
    told = makers[sig.op.name](sig, rows, partial(_Part, rows=rows, device=device, threads=threads))
    first, second, flag, most, before, after, count = told
    entry, cell = device.control()
    places = array("q", [x for p in rows.places for x in (where.get(p.row, p.row), *p[1:])])
    room = array("q", bytes(8 * len(rows.places)))
    lists = [array("q", [x for copy in copied for x in copy]) for copied in (before, after)]
    description = array("q", (
        cell, len(rows.places), places.buffer_info()[0], room.buffer_info()[0],
        *first.told(), *(second.told() if second else (0,) * 4), flag, most,
        len(before), lists[0].buffer_info()[0], len(after), lists[1].buffer_info()[0], count,
        second is not None and most != _CHOICE,
    ))  # fmt: skip
    _kept.append((places, room, lists, description))
    slots = tuple([(slot, 0) for slot in range(rows.first_work + len(rows.workspaces))])
    head = words(entry, len(slots) + 1, 1, 0)
    call = Call(head, slots, words(description.buffer_info()[0]), _message(sig))
    return Prepared((*copies, call), tuple(rows.workspaces), None)


def _message(sig: Signature) -> str:
    bodies = [value for value in sig.attrs.values() if isinstance(value, Body)]
    calls_host = any("host" in spec.sig.op.traits for body in bodies for spec in body.specs)
    return HOST_CALL if calls_host else f"{sig.op.name}: an operation of its body refused a value"


def _contiguous_copy(layout: Layout, row: int, work: int, device: Device) -> list[Call]:
    target = contiguous(layout.dtype, layout.shape)
    if not prod(layout.shape):
        return []
    plan = Plan((copy_launch(layout, Out(0), target.strides),))
    made = compile_plan(plan, [target], [layout], device).calls
    return [
        call._replace(slots=tuple([(row if slot else work, extra) for slot, extra in call.slots]))
        for call in made
    ]


_Told = tuple[_Part, _Part | None, int, int, list[Any], list[Any], int]


def _scan(sig: Signature, rows: _Rows, part: Any) -> _Told:
    attrs = sig.attrs
    body, length, carries, scanned = (attrs[k] for k in ("body", "length", "carries", "scanned"))
    first_in = rows.outputs

    def step(row: int, kind: Type) -> int:
        if attrs["reverse"]:
            offset = max(length - 1, 0) * kind.nbytes
            return rows.place(Place(row, -kind.nbytes, 0, _ENDLESS, offset))
        return rows.place(Place(row, kind.nbytes, 0, _ENDLESS))

    args, results = [], []
    before, after = [], []
    for i, kind in enumerate(body.args):
        if i < carries:
            row, ring = (i, length + 1) if attrs["keep"] else (rows.work(2 * kind.nbytes), 2)
            args.append(rows.place(Place(row, kind.nbytes, 0, ring)))
            results.append(rows.place(Place(row, kind.nbytes, 1, ring)))
            before.append((row, rows.place(Place(first_in + i)), kind.nbytes))
            after.append((carries + i, args[i], kind.nbytes))
        elif i < carries + scanned:
            args.append(step(first_in + i, kind))
        else:
            args.append(rows.place(Place(first_in + i)))
    for k, kind in enumerate(body.types[carries:]):
        results.append(step(2 * carries + k, kind))
    return part(body, args, results), None, 0, length, before, after, -1


def _while(sig: Signature, rows: _Rows, part: Any) -> _Told:
    test, body, carries = (sig.attrs[k] for k in ("test", "body", "carries"))
    first_in = rows.outputs
    args, results = [], []
    before, after = [], []
    for i, kind in enumerate(body.args):
        if i < carries:
            row = rows.work(2 * kind.nbytes)
            args.append(rows.place(Place(row, kind.nbytes, 0, 2)))
            results.append(rows.place(Place(row, kind.nbytes, 1, 2)))
            before.append((row, rows.place(Place(first_in + i)), kind.nbytes))
            after.append((i, args[i], kind.nbytes))
        else:
            args.append(rows.place(Place(first_in + i)))
    flag = rows.place(Place(rows.work(8)))
    tested = part(test, args, [flag])
    return part(body, args, results), tested, flag, _ENDLESS, before, after, carries


def _choice(sig: Signature, rows: _Rows, part: Any) -> _Told:
    then, other = sig.attrs["then"], sig.attrs["other"]
    flag, *args = [rows.place(Place(rows.outputs + i)) for i in range(len(sig.inputs))]
    results = [rows.place(Place(i)) for i in range(rows.outputs)]
    return part(then, args, results), part(other, args, results), flag, _CHOICE, [], [], -1


__all__ = ["prepare_control"]
