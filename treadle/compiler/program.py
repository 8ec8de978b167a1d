"""A program: a graph that was seen before, as one prepared tape and a plan of its memory.

Running it fills a table of addresses (one arena for all that is temporary, the results, the values
from outside) and makes one native call, whose first kernel writes the addresses into the tape.
Nothing that anybody can see changes before the call has succeeded.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any
from weakref import ReferenceType, ref

from treadle.base.record import Record
from treadle.compiler.arena import Storage
from treadle.compiler.device import Device, Tape
from treadle.compiler.schedule import Step
from treadle.compiler.takeover import Takeover
from treadle.compiler.trace import Trace
from treadle.compiler.watch import Timed, is_timed
from treadle.ir.node import Node
from treadle.ops.source import Scalar


class Emitted(Record):
    """Calls ``begin`` to ``end`` of a program, which do its step number ``step``."""

    step: int
    begin: int
    end: int
    nbytes: int  # of the operands, each element counted once


class Made(Record):
    """What a program was made of, to be told to people.

    ``places`` say in which of the ``storages`` a value lies that is no view.
    """

    trace: Trace
    steps: Sequence[Step]
    emitted: Sequence[Emitted]
    places: dict[int, Any]
    storages: Sequence[Storage]


class Image(Record):
    """What a tape was linked from (``Device.link``), ``entries`` being where its kernels' addresses
    are, in words."""

    tape: bytes
    entries: tuple[int, ...]
    calls: int
    patches: Sequence[tuple[int, int, int]]
    slots: int


class Once:
    """Calls that need not be run again while what they read is the same: nodes by position.

    ``tape`` has the calls of the program without these; what they make fills ``nbytes``, which are
    kept from the second run on.
    """

    def __init__(self, tape: Tape, nbytes: int, sources: Sequence[int]) -> None:
        self.tape = tape
        self.nbytes = nbytes
        self.sources = sources
        self._seen: list[ReferenceType[Node]] = []
        self._memory: Any = None

    def memory(self, externals: Sequence[Node]) -> Any:
        """What was kept, if it is still good."""
        nodes = [externals[i] for i in self.sources]
        if len(self._seen) == len(nodes) and all(
            seen() is n for seen, n in zip(self._seen, nodes, strict=True)
        ):
            return self._memory
        self._memory = None
        return None

    def keep(self, externals: Sequence[Node], memory: Any) -> None:
        """Keeps what was made of these, if it was of the same before."""
        if self._memory is None:
            nodes = [externals[i] for i in self.sources]
            before = [seen() for seen in self._seen]
            is_same = len(before) == len(nodes) and all(map(operator.is_, before, nodes))
            self._memory = memory if is_same else None
            self._seen = [ref(n) for n in nodes]


def _no_moves(values: list[Any]) -> Iterable[object]:
    return ()


Memories = Mapping[int, Any]
_NOTHING: Memories = {}


class Program:
    """What ``build_program`` makes; ``run`` computes the values of an equal graph."""

    def __init__(
        self, device: Device, tape: Tape, arena: int, results: list[int],
        kept: list[tuple[int, Any]], made: Made | Callable[[], Made], once: Once | None,
        takeovers: Sequence[Takeover], images: Sequence[Image],
    ) -> None:  # fmt: skip
        self.device = device
        self.once = once
        self.takeovers = takeovers
        self._made = made
        self.images = images  # of its tape, and of that in ``once``
        self.calls = images[0].calls
        self.failure = ""  # why its last run came to nothing, if it did
        self.runs = 0
        self.timed: Timed | None = None  # the last run that was timed call by call
        self.tape = tape
        self.arena = arena
        self.results = results  # bytes of every storage that outlives the program
        self.seconds = 0.0  # in kernels, so far
        self.best = math.inf  # of one run that was not timed call by call
        # Whether a result lies among the numbers (storage 1), as one that only repeats a number.
        self.gives_numbers = any(
            p.storage == 1
            for _, place in kept
            for p in (place if type(place) is tuple else (place,))
        )
        self.kept = kept  # (position of the entry, its place or places) with storages as in run

    @property
    def made(self) -> Made:
        """What it was made of; worked out now where it came from the disk."""
        if not isinstance(self._made, Made):
            self._made = self._made()
        return self._made

    def run(
        self, externals: list[Node], scalars: list[Scalar],
        moves: Callable[[list[Any]], Iterable[object]] = _no_moves, given: Memories = _NOTHING,
    ) -> list[Any] | None:  # fmt: skip
        """The values of the ``kept`` entries; None, and nothing has changed, where a kernel fails.

        ``moves(values)`` is gone through before a signal can be handled: from then on whoever asks
        finds the values. The results numbered in ``given`` take over memory of the externals.
        Raises MemoryError where there is not enough.
        """
        self.failure = "there is not enough memory for all of its program at once"
        allocate = self.device.allocate
        arena = allocate(self.arena)
        numbers = allocate(8 * len(scalars))
        if scalars:
            self.device.write(numbers.address, b"".join([padded(s.packed) for s in scalars]))
        memories = [arena, numbers]
        addresses = [arena.address, numbers.address]
        for n in externals:
            value = n.value
            for memory, _, address in value if type(value[0]) is tuple else (value,):
                memories.append(memory)
                addresses.append(address)
        for number, nbytes in enumerate(self.results):
            memory = given.get(number) or allocate(nbytes)
            memories.append(memory)
            addresses.append(memory.address)
        once, tape, constant = self.once, self.tape, None
        if once is not None:
            constant = once.memory(externals)
            tape = self.tape if constant is None else once.tape
            constant = constant or allocate(once.nbytes)
            memories.append(constant)
            addresses.append(constant.address)
        self.runs = runs = self.runs + 1
        times = None
        if is_timed(runs):
            times = array("q", bytes(8 * (self.calls + 2)))
            tape = self.tape  # all calls are to be seen
        values = self.values(memories, addresses)
        after = moves(values)
        begin = perf_counter()
        failed = tape.run(addresses, times, after)
        seconds = perf_counter() - begin
        self.seconds += seconds
        if times is None and seconds < self.best:
            self.best = seconds
        if times is not None:
            self.timed = Timed(runs, begin, times)
        if failed >= 0:
            self.failure = "a kernel of its program failed"
            return None
        if once is not None:
            once.keep(externals, constant)
        return values

    def values(self, memories: list[Any], addresses: list[int]) -> list[Any]:
        """Where the kept entries will lie."""
        values: list[Any] = []
        for _, place in self.kept:
            if type(place) is tuple:
                values.append(tuple([
                    (memories[p.storage], p.layout, addresses[p.storage] + p.offset) for p in place
                ]))  # fmt: skip
            else:
                storage, layout, offset = place
                values.append((memories[storage], layout, addresses[storage] + offset))
        return values


def padded(packed: bytes) -> bytes:
    """The bytes of a number as a word of the table."""
    return packed.ljust(8, b"\0")
