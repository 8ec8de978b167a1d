"""Fused programs on disk: the next process neither looks for what to fuse nor compiles anything.

A program is kept once it has proved faster than single kernels, under all that it follows from: the
trace as text, the number of threads, the machine, and the code of the compiler. What is kept is its
tape, with kernels by their names in the kernel cache, and the plan of its memory; what it was made
of is worked out again if somebody asks. One that proved slower leaves just that word, so that it is
not tried again. The files lie among the kernels, as safe and as bounded as these.

A graph that is seen for the first time takes its program from there too, for that one time. It need
not be spelled out for this as it will be later on, when its parts are recorded as calls, which keep
equal numbers (``Scalar``) apart in other ways: so the program is also found, as an *alias*, under
the trace in which all numbers that happen to be equal are one.

The names of the files begin with a *mark*, a few sizes of the graph, so that a graph that is seen
for the first time need not be spelled out where there is no program of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.compiler.device import Device
from treadle.compiler.program import Image, Made, Once, Program
from treadle.compiler.takeover import Takeover
from treadle.compiler.trace import Trace
from treadle.ir.launch import Layout
from treadle.ir.node import type_of
from treadle.ir.scan import Scan

SLOWER = "slower"
_VERSION = 1  # of what the files hold
_SHOWING = frozenset(("asm", "passes", "source"))  # whoever wants to see it made has it made


def mark_of(scanned: Scan) -> str:
    """A few sizes of a graph."""
    return f"{scanned.size}-{len(scanned.externals)}"


class Alias(Record):
    """``places``: of each number of a trace, which of the different ones it is; ``firsts``: where
    each of these comes first."""

    key: str | None
    places: list[int]
    firsts: list[int]


class Aliased(Record):
    """A program, and the positions of the numbers that it takes."""

    program: Program
    numbers: list[int]


class ProgramCache:
    """The programs that one device has on disk."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._marks: set[str] | None = None

    def may_have(self, scanned: Scan) -> bool:
        """False where there is no program of a graph of that size."""
        if self._marks is None and flags.KEEP_PROGRAMS:
            self._marks = {"-".join(key.split("-")[:2]) for key in self._device.programs()}
        return self._marks is not None and mark_of(scanned) in self._marks

    def key(self, trace: Trace, threads: int, mark: str) -> str | None:
        """What the program of a trace is kept under; None where none can be."""
        stamp = self._device.stamp() if flags.KEEP_PROGRAMS and not flags.TUNE else None
        if stamp is None or not _SHOWING.isdisjoint(flags.DEBUG):
            return None
        from hashlib import sha256

        from treadle.compiler.trace_text import print_trace

        text = "\n".join((str(_VERSION), stamp, str(threads), print_trace(trace)))
        return f"{mark}-{sha256(text.encode()).hexdigest()}"

    def alias(self, trace: Trace, numbers: Sequence[bytes], threads: int, mark: str) -> Alias:
        """Where the program of a trace with these numbers is found the first time."""
        merged, places, firsts = _merged(trace, numbers)
        return Alias(self.key(merged, threads, f"{mark}-alias"), places, firsts)

    def load_alias(self, alias: Alias, trace: Trace, threads: int) -> Aliased | None:
        """The program, and which of the numbers it takes, in its order."""
        from json import loads  # not while Treadle is imported, as all of these

        found = None if alias.key is None else self._device.load_program(alias.key)
        if found is None:
            return None
        stored = loads(found)
        program = self.load(stored["key"], trace, threads)
        if not isinstance(program, Program):
            return None
        return Aliased(program, [alias.firsts[place] for place in stored["places"]])

    def load(self, key: str, trace: Trace, threads: int) -> Program | str | None:
        """The program kept under ``key``; ``SLOWER``; or None."""
        from json import loads

        found = self._device.load_program(key)
        if found is None or found == SLOWER:
            return found
        stored = loads(found)
        entries = [self._device.named_kernel(name) for name in stored["kernels"]]
        if None in entries:
            return None  # one of its kernels has left the cache
        images = [_image(x, entries) for x in stored["images"]]
        tapes = [self._device.link(x.tape, x.calls, x.patches, x.slots, threads) for x in images]
        once = Once(tapes[1], *stored["once"]) if len(tapes) > 1 else None
        kept = [(position, _place(place)) for position, place in stored["kept"]]
        takeovers = [Takeover(*t) for t in stored["takeovers"]]

        def made() -> Made:
            from treadle.compiler.pipeline import build_program

            return build_program(trace, self._device, threads, True).made

        return Program(
            self._device, tapes[0], stored["arena"], stored["results"], kept, made, once,
            takeovers, images,
        )  # fmt: skip

    def store(self, key: str, program: Program | None) -> None:
        """Keeps a program, or (None) that there is no faster one than that of single kernels."""
        text = SLOWER if program is None else self._text(program)
        if text is not None:
            self._device.store_program(key, text)

    def store_alias(self, alias: Alias, key: str) -> None:
        """Has the program kept under ``key`` found by its alias, too."""
        from json import dumps

        if alias.key is not None:
            text = dumps({"key": key, "places": alias.places})
            self._device.store_program(alias.key, text)

    def _text(self, program: Program) -> str | None:
        """None where it has kernels that are of this process alone."""
        from json import dumps

        entries: dict[int, int] = {}
        for image in program.images:
            for at in image.entries:
                entries.setdefault(_word(image.tape, at), len(entries))
        names = [self._device.kernel_name(entry) for entry in entries]
        if None in names:
            return None
        once = program.once
        return dumps({
            "kernels": names,
            "images": [_spelled(image, entries) for image in program.images],
            "arena": program.arena,
            "results": program.results,
            "kept": [(position, _spelled_place(place)) for position, place in program.kept],
            "takeovers": program.takeovers,
            "once": None if once is None else (once.nbytes, once.sources),
        })  # fmt: skip


def _merged(trace: Trace, numbers: Sequence[bytes]) -> tuple[Trace, list[int], list[int]]:
    """The trace with equal numbers as one; see ``Alias``."""
    known: dict[tuple[Layout, bytes], int] = {}
    places: list[int] = []
    firsts: list[int] = []
    for position, key in enumerate(zip(trace.scalars, numbers, strict=True)):
        if key not in known:
            known[key] = len(firsts)
            firsts.append(position)
        places.append(known[key])
    outside, first = len(trace.externals), trace.first
    gone = len(places) - len(firsts)
    new = [*range(outside), *(outside + p for p in places)]
    entries = tuple([
        e._replace(inputs=tuple([new[i] if i < first else i - gone for i in e.inputs]))
        for e in trace.entries
    ])  # fmt: skip
    scalars = tuple([trace.scalars[p] for p in firsts])
    return Trace(trace.externals, scalars, entries), places, firsts


# --- tapes ----------------------------------------------------------------------------------------


def _word(tape: bytes, at: int) -> int:
    return int.from_bytes(tape[8 * at : 8 * at + 8], "little")


def _spelled(image: Image, entries: dict[int, int]) -> dict[str, Any]:
    from base64 import b64encode

    return {
        "tape": b64encode(image.tape).decode(),
        "entries": [(at, entries[_word(image.tape, at)]) for at in image.entries],
        "calls": image.calls,
        "patches": image.patches,
        "slots": image.slots,
    }


def _image(spelled: dict[str, Any], entries: Sequence[int | None]) -> Image:
    from base64 import b64decode

    tape = bytearray(b64decode(spelled["tape"]))
    for at, number in spelled["entries"]:
        tape[8 * at : 8 * at + 8] = (entries[number] or 0).to_bytes(8, "little")
    return Image(
        bytes(tape), tuple(at for at, _ in spelled["entries"]), spelled["calls"],
        [tuple(patch) for patch in spelled["patches"]], spelled["slots"],
    )  # fmt: skip


# --- places of results ----------------------------------------------------------------------------


def _spelled_place(place: Any) -> Any:
    if type(place) is tuple:
        return [_spelled_place(p) for p in place]
    storage, layout, offset = place
    return {"at": (storage, offset), "layout": (layout.dtype.short, layout.shape, layout.strides)}


def _place(spelled: Any) -> Any:
    if isinstance(spelled, list):
        return tuple(_place(p) for p in spelled)
    from treadle.compiler.assembly import Place

    short, shape, strides = spelled["layout"]
    plain = type_of(dtypes.by_short(short), tuple(shape)).layout
    if plain.strides != tuple(strides):
        plain = Layout(plain.dtype, plain.shape, tuple(strides))
    storage, offset = spelled["at"]
    return Place(storage, plain, offset)


__all__ = ["SLOWER", "ProgramCache", "mark_of"]
