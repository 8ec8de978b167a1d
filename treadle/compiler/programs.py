"""Which graphs have a program: those that have been seen before."""

from __future__ import annotations

from collections import OrderedDict

from treadle.base.errors import TreadleError
from treadle.base.flags import flags
from treadle.compiler.device import Device
from treadle.compiler.program import Program, build_program
from treadle.compiler.trace import Key, Keyed, make_trace
from treadle.ir.node import Node

_SMALLEST = 4  # nodes: for fewer the way of a program is no shorter
_MOST_NODES = 1 << 18  # of all graphs with programs together, their keys being as long
_SIGHTINGS = 1 << 12  # graphs seen once that are remembered (by the hash of their keys)


class Programs:
    """The programs of one device, the one used last at the end; a bounded number of them."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._known: OrderedDict[Key, Program | None] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._length = 0
        self.replays = 0

    def find(self, keys: Keyed, live: list[Node], threads: int) -> Program | None:
        """The program of a graph (last node first), built when it is seen a second time."""
        key = keys.key
        program = self._known.get(key)
        if program is not None:
            self._known.move_to_end(key)
            return program
        if key in self._known or not self._seen_before(key):
            return None
        try:
            program = build_program(make_trace(live, keys), self.device, threads)
        except TreadleError:
            program = None  # tier 0 tells which node it is and what is wrong
        self._known[key] = program
        self._length += len(key)
        while self._length > _MOST_NODES and len(self._known) > 1:
            oldest, _ = self._known.popitem(last=False)
            self._length -= len(oldest)
        return program

    def _seen_before(self, key: Key) -> bool:
        mark = hash(key)
        if mark in self._seen:
            return True
        self._seen[mark] = None
        if len(self._seen) > _SIGHTINGS:
            self._seen.popitem(last=False)
        return False

    def clear(self) -> None:
        """Forgets all programs (they are made for a number of threads)."""
        self._known.clear()
        self._length = 0


def worth_while(live: list[Node]) -> bool:
    """False for graphs so small that tier 0 is as quick, and where programs are switched off."""
    return len(live) >= _SMALLEST and flags.PROGRAMS
