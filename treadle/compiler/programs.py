"""Which graphs have a program: those that have been seen before.

The second time a graph is seen it gets a program of the kernels that tier 0 ran, which takes no
compiling. When it has spent some time in its kernels, its fused program is made beside the run, on
a thread of low priority, and takes the other's place when it is ready.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections import OrderedDict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

from treadle.base.errors import TreadleError
from treadle.base.flags import flags
from treadle.compiler.device import Device
from treadle.compiler.trace import Key, Keyed, Trace, make_trace
from treadle.ir.node import Node

if TYPE_CHECKING:
    from treadle.compiler.program import Program

_SMALLEST = 4  # nodes: for fewer the way of a program is no shorter
_MOST_NODES = 1 << 18  # of all graphs with programs together, their keys being as long
_SIGHTINGS = 1 << 12  # graphs seen once that are remembered (by the hash of their keys)
_WORTH_COMPILING = 0.1  # seconds that a program has spent in its kernels
_PATIENCE = 2.0  # seconds that the interpreter's exit waits for a kernel being compiled
_NICE = 5


class _Known:
    """A graph seen before: its program, and what the fused one is made of until it is asked for."""

    __slots__ = ("program", "threads", "trace")

    def __init__(self, program: Program | None, trace: Trace | None, threads: int) -> None:
        self.program = program
        self.trace = trace
        self.threads = threads


class Programs:
    """The programs of one device, the one used last at the end; a bounded number of them."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._length = 0
        self.replays = 0
        self.fused = 0  # programs whose nodes have been fused
        self.worth_compiling = _WORTH_COMPILING

    def find(self, keys: Keyed, live: list[Node], threads: int) -> Program | None:
        """The program of a graph (last node first), if it was seen before."""
        key = keys.key
        known = self._known.get(key)
        if known is None:
            if not self._seen_before(key):
                return None
            known = self._first_program(keys, live, threads)
        else:
            self._known.move_to_end(key)
            program = known.program
            if known.trace is not None and program and program.seconds > self.worth_compiling:
                _workshop.take(self, known)
        return known.program

    def _first_program(self, keys: Keyed, live: list[Node], threads: int) -> _Known:
        from treadle.compiler.program import build_program

        trace = make_trace(live, keys)
        at_once = flags.PROGRAMS == "wait"
        known = _Known(None, None if at_once else trace, threads)
        try:
            known.program = build_program(trace, self.device, threads, at_once)
            self.fused += at_once
        except (TreadleError, MemoryError):
            known.trace = None  # tier 0 tells which node it is and what is wrong
        except Exception as error:
            if at_once:
                raise
            known.trace = None
            _warn(trace, error)
        self._known[keys.key] = known
        self._length += len(keys.key)
        while self._length > _MOST_NODES and len(self._known) > 1:
            oldest, _ = self._known.popitem(last=False)
            self._length -= len(oldest)
        return known

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
    return len(live) >= _SMALLEST and flags.PROGRAMS != "off"


class _Workshop:
    """The thread that makes fused programs, one after another, started when first needed."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Programs, _Known, Trace]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_busy = False
        self._is_closed = False

    def take(self, programs: Programs, known: _Known) -> None:
        """Orders the fused program of a graph, once."""
        with self._wake:
            trace, known.trace = known.trace, None
            if trace is None or self._is_closed:
                return
            self._jobs.append((programs, known, trace))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="treadle compiler", daemon=True
                )
                self._thread.start()
            self._wake.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is left to do; False where that takes longer."""
        with self._wake:
            return self._wake.wait_for(lambda: not (self._jobs or self._is_busy), timeout)

    def close(self) -> None:
        """Takes no more, and waits for what is being compiled: LLVM must not run at exit."""
        with self._wake:
            self._is_closed = True
            self._jobs.clear()
        self.wait(_PATIENCE)

    def _work(self) -> None:
        _lower_priority()
        while True:
            with self._wake:
                self._is_busy = False
                self._wake.notify_all()
                self._wake.wait_for(lambda: bool(self._jobs))
                programs, known, trace = self._jobs.popleft()
                self._is_busy = True
            with suppress(Exception):  # a warning that was made an error: told already
                self._make(programs, known, trace)
            del programs, known, trace

    def _make(self, programs: Programs, known: _Known, trace: Trace) -> None:
        from treadle.compiler.program import build_program

        try:
            program = build_program(trace, programs.device, known.threads, True)
        except Exception as error:
            _warn(trace, error)  # the program of single kernels stays
            return
        known.program = program
        programs.fused += 1


def _warn(trace: Trace, error: Exception) -> None:
    warnings.warn(
        f"a step of {len(trace.entries)} operations cannot be fused and runs operation by "
        f"operation ({type(error).__name__}: {error}); this is a defect: please report it",
        RuntimeWarning,
        stacklevel=1,
    )


def _lower_priority() -> None:
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        except OSError:
            return  # not allowed here: it competes as an equal


_workshop = _Workshop()
wait_for_programs = _workshop.wait
atexit.register(lambda: _workshop.close())


def _after_fork() -> None:
    """The child has no such thread, and begins anew."""
    global _workshop, wait_for_programs
    _workshop = _Workshop()
    wait_for_programs = _workshop.wait


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
