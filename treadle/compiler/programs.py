"""Which graphs have a program: those that have been seen before.

The second time a graph is seen it gets a program of the kernels that tier 0 ran, which takes no
compiling. When it has spent some time in its kernels, its fused program is made beside the run, on
a thread of low priority, and takes the other's place when it is ready.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import warnings
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from treadle.base.errors import TreadleError
from treadle.base.flags import flags
from treadle.compiler.device import Device
from treadle.compiler.program_cache import ProgramCache, mark_of
from treadle.compiler.trace import Trace, Traced, make_trace
from treadle.ir.call import Call
from treadle.ir.node import Site
from treadle.ir.scan import Key, Scan
from treadle.ir.segments import RECENT, SEGMENTED

if TYPE_CHECKING:
    from treadle.compiler.program import Program

_SMALLEST = 4  # nodes: for fewer the way of a program is no shorter
_MOST_NODES = 1 << 18  # of all graphs with programs together, their keys being as long
_SIGHTINGS = 1 << 12  # graphs seen once that are remembered (by the hash of their keys)
_VARIANTS = 64  # of one structure
_LONG = 256  # operations: the program of more is made beside the run from the first on
TRIALS = 8  # runs of a fused program, and as many of the other in between, before one is kept
WORTH_COMPILING = 0.1  # seconds that a program has spent in its kernels
_PATIENCE = 2.0  # seconds that the interpreter's exit waits for a kernel being compiled
_NICE = 5
_LATER = "its program is being made beside the run"


class Known:
    """A graph seen before: its program, and what the fused one is made of until it is asked for.

    ``targets`` says of each of the program's results which node gets it: the item's position in
    the scan, and the number within a call, of its nodes and of its outs (-1 for none of these).
    ``alone``: see ``compiler.takeover.references``.
    """

    __slots__ = (
        "alone", "fused", "key", "numbers", "order", "probe", "program", "refusal", "rival",
        "sites", "spelled", "targets", "threads", "trace",
    )  # fmt: skip

    def __init__(self, threads: int) -> None:
        self.program: Program | None = None  # what runs now
        self.fused: Program | None = None
        self.rival: Program | None = None  # what the fused program has yet to prove faster than
        self.refusal = ""  # why there is no program, or no fused one
        self.trace: Trace | None = None
        self.key: str | None = None  # what the verdict on its fused program is kept under
        self.spelled: Trace | None = None  # the trace, until that is done
        self.order: list[int] | None = None  # of the graph's numbers those that its program takes
        self.alone: dict[int, int] | None = None
        self.targets: list[tuple[int, int, int]] = []
        self.numbers: tuple[int, ...] = ()
        self.threads = threads
        self.sites: list[Site | None] = []  # of the entries of the trace, when it ran last
        self.probe: Any = None  # a few lines that tell whether it was the same ones

    def aim(self, scanned: Scan, traced: Traced) -> None:
        """Notes which node gets which result."""
        self.numbers = traced.numbers
        self.targets = [
            _target(scanned, number)
            for number, entry in zip(traced.numbers, traced.trace.entries, strict=True)
            if entry.keep
        ]

    def begin_trial(self, fused: Program) -> None:
        """The fused program is there: from now on it and that of single kernels run in turn."""
        rival = self.program
        if rival is not None:
            rival.best = math.inf  # both are to be timed under the same conditions
        self.rival, self.fused, self.program = rival, fused, fused

    def take_turns(self) -> bool:
        """Has the other of the two programs run next; keeps the faster one when both have, and is
        True then."""
        fused, rival = self.fused, self.rival
        if fused is None or rival is None:
            return False
        if fused.runs < TRIALS:
            self.program = rival if self.program is fused else fused
            return False
        self.program, self.rival = fused, None
        if fused.best > rival.best:
            self.refusal = (
                f"its fused program took {fused.best * 1e3:.3f} ms at best, that of single "
                f"kernels {rival.best * 1e3:.3f} ms"
            )
            self.program, self.fused = rival, None
        return True

    def stage(self, program: Program) -> str:
        """How far the fusing of its ``program`` is, in words."""
        if self.fused is not None:
            return "fused" if program is self.fused else "not fused; by now there is a fused one"
        if self.refusal:
            return f"not fused: {self.refusal}"
        if self.trace is None:
            return "not fused yet: its fused program is being compiled"
        return (
            f"not fused yet, after {program.seconds:.3f} of the {WORTH_COMPILING:g} s in kernels "
            "that make compiling worth while"
        )


class _Structure:
    """Graphs of one structure, which differ in which values somebody holds."""

    __slots__ = ("expected", "known", "seen")

    def __init__(self, expected: list[int]) -> None:
        self.expected = expected
        self.known: dict[Key, Known] = {}
        self.seen: set[int] = set()


class Programs:
    """The programs of one device, the one used last at the end; a bounded number of them."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._structures: OrderedDict[Key, _Structure] = OrderedDict()
        self._seen: OrderedDict[int, float] = OrderedDict()
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._length = 0
        self.replays = 0
        self.fused = 0  # programs whose nodes have been fused
        self.worth_compiling = WORTH_COMPILING
        self.cache = ProgramCache(device)

    def find(self, scanned: Scan, threads: int, is_ahead: bool = False) -> Known | None:
        """What is known of a graph, if it was seen before, or the user waits for its program."""
        key = scanned.key()
        structure = self._structures.get(key)
        is_new = structure is None
        if structure is None:
            if not self._seen_before(hash(key)) and not is_ahead:
                return self._from_disk(scanned, scanned.expected(), threads)
            structure = self._structures[key] = _Structure(scanned.expected())
            self._length += len(key)
            self._forget_oldest()
        else:
            self._structures.move_to_end(key)
        held, open_ = scanned.held(structure.expected)
        variant = (tuple(held), tuple(open_))
        known = structure.known.get(variant)
        if known is None:
            mark = hash(variant)
            if (
                not (is_new or is_ahead)
                and mark not in structure.seen
                and len(structure.seen) < _VARIANTS
            ):
                structure.seen.add(mark)
                return self._from_disk(scanned, structure.expected, threads)
            if len(structure.known) >= _VARIANTS:
                structure.known.clear()
            known = structure.known[variant] = self._first_program(
                scanned, held, open_, threads, is_ahead
            )
        else:
            if self.consider(known) and known.key is not None:
                _workshop.do(partial(self._keep, known, [s.packed for s in scanned.scalars]))
        return known

    def consider(self, known: Known) -> bool:
        """Orders the fused program where that is worth while; has one on trial run in turn, and is
        True when the trial ends."""
        program = known.program
        if known.trace is not None and program and program.seconds > self.worth_compiling:
            _workshop.take(self, known)
            return False
        return known.rival is not None and known.take_turns()

    def _first_program(
        self, scanned: Scan, held: list[int], open_: list[int], threads: int, is_ahead: bool
    ) -> Known:
        traced = make_trace(scanned, held, open_)
        known = self.make(traced.trace, threads, is_ahead, _LONG, mark_of(scanned))
        known.aim(scanned, traced)
        return known

    def _from_disk(self, scanned: Scan, expected: list[int], threads: int) -> Known | None:
        """What runs a graph that is seen for the first time, if that is on disk; for this time."""
        if flags.PROGRAMS == "wait" or not self.cache.may_have(scanned):
            return None
        traced = make_trace(scanned, *scanned.held(expected))
        packed = [s.packed for s in scanned.scalars]
        alias = self.cache.alias(traced.trace, packed, threads, mark_of(scanned))
        found = self.cache.load_alias(alias, traced.trace, threads)
        if found is None:
            return None
        known = Known(threads)
        known.program = known.fused = found.program
        known.order = found.numbers
        known.aim(scanned, traced)
        return known

    def keep(self, known: Known) -> None:
        """Keeps the verdict on the fused program of a segment, beside the run."""
        known.spelled = None  # no graph of its own is known by it
        _workshop.do(partial(self._keep, known, []))

    def _keep(self, known: Known, numbers: list[bytes]) -> None:
        """Keeps the verdict on a fused program for the next process."""
        key, fused, threads = known.key, known.fused, known.threads
        if key is None:
            return
        self.cache.store(key, fused)
        if fused is not None and known.spelled is not None:
            mark = key.rpartition("-")[0]
            alias = self.cache.alias(known.spelled, numbers, threads, mark)
            self.cache.store_alias(alias, key)
        known.spelled = None

    def make(
        self, trace: Trace, threads: int, is_ahead: bool = False, long: int | None = None,
        mark: str = "0",
    ) -> Known:  # fmt: skip
        """What is known of a new graph: its program, if that can be made.

        That of ``long`` ones is made beside the run. ``mark``: see ``compiler.program_cache``.
        """
        from treadle.compiler.pipeline import build_program

        at_once = is_ahead or flags.PROGRAMS == "wait"
        known = Known(threads)
        if not trace.entries:
            known.refusal = "nothing in it has to be computed"
            return known
        if flags.PROGRAMS != "wait" and self._is_loaded(known, trace, mark):
            return known
        if long is not None and len(trace.entries) >= long and not at_once:
            known.refusal = known.refusal or _LATER
            _workshop.order(self, known, trace, False)
            return known
        try:
            known.program = build_program(trace, self.device, threads, at_once)
            self.fused += at_once
            if at_once:
                known.fused = known.program
            elif not known.refusal:
                known.trace = trace
        except (TreadleError, MemoryError) as error:
            if is_ahead:
                raise
            known.refusal = f"there is no program for it: {error}"  # tier 0 tells which node it is
        except Exception as error:
            if at_once:
                raise
            known.refusal = f"there is no program for it: {type(error).__name__}: {error}"
            _warn(trace, error)
        return known

    def _is_loaded(self, known: Known, trace: Trace, mark: str) -> bool:
        """Takes the fused program from the disk; or notes that there is no use in making it."""
        known.key = key = self.cache.key(trace, known.threads, mark)
        found = None if key is None else self.cache.load(key, trace, known.threads)
        if isinstance(found, str):
            known.refusal = "its fused program was no faster when it was tried"
        elif found is not None:
            known.program = known.fused = found
        else:
            known.spelled = trace
        return known.fused is not None

    def _forget_oldest(self) -> None:
        while self._length > _MOST_NODES and len(self._structures) > 1:
            oldest, _ = self._structures.popitem(last=False)
            self._length -= len(oldest)

    def _seen_before(self, mark: int) -> bool:
        times = self._seen.get(mark, 0.0)
        if times >= 1 or mark in self._recent:
            return True
        self._recent.append(mark)
        self._seen[mark] = times + 1
        if len(self._seen) > _SIGHTINGS:
            self._seen.popitem(last=False)
        return False

    def was_segmented(self, scanned: Scan) -> None:
        """The graph ran by segments, nearly as fast as by a program of its own."""
        mark = hash(scanned.key())
        self._seen[mark] = self._seen.get(mark, 1) - 1 + SEGMENTED

    def clear(self) -> None:
        """Forgets all programs (they are made for a number of threads)."""
        self._structures.clear()
        self._length = 0


def _target(scanned: Scan, number: int) -> tuple[int, int, int]:
    """Which node gets the value with this number (``Known.targets``)."""
    item, index = scanned.item_at(number)
    position = bisect_right(scanned.starts, number) - 1
    outs = item.template.outs if type(item) is Call else ()
    return position, index, outs.index(index) if index in outs else -1


def worth_while(scanned: Scan) -> bool:
    """False for graphs so small that tier 0 is as quick, those of views only (the items of a data
    set, of which every batch has others), and those it has to go through."""
    return (
        scanned.size >= _SMALLEST and not scanned.is_odd
        and not all(type(item) is not Call and item.sig.is_view for item in scanned.items)
    )  # fmt: skip


class _Workshop:
    """The thread that makes fused programs, one after another, started when first needed."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_busy = False
        self._is_closed = False

    def take(self, programs: Programs, known: Known) -> None:
        """Orders the fused program of a graph, once."""
        with self._wake:
            trace, known.trace = known.trace, None
        if trace is not None:
            self.order(programs, known, trace, True)

    def order(self, programs: Programs, known: Known, trace: Trace, fused: bool) -> None:
        """Orders a program."""
        self.do(partial(self._make, programs, known, trace, fused))

    def do(self, job: Callable[[], object]) -> None:
        """Has something done when all before it is."""
        with self._wake:
            if self._is_closed:
                return
            self._jobs.append(job)
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
                job = self._jobs.popleft()
                self._is_busy = True
            with suppress(Exception):  # a warning that was made an error: told already
                job()
            del job

    def _make(self, programs: Programs, known: Known, trace: Trace, fused: bool) -> None:
        from treadle.compiler.pipeline import build_program

        try:
            program = build_program(trace, programs.device, known.threads, fused)
        except Exception as error:
            what = "it cannot be fused" if fused else "there is no program for it"
            known.refusal = f"{what}: {type(error).__name__}: {error}"
            if fused or not isinstance(error, (TreadleError, MemoryError)):
                _warn(trace, error)  # the program of single kernels stays
            return
        if not fused:
            known.program = program
            if known.refusal == _LATER:
                known.refusal, known.trace = "", trace
            return
        known.begin_trial(program)
        programs.fused += 1


def _warn(trace: Trace, error: Exception) -> None:
    warnings.warn(
        f"a step of {len(trace.entries)} operations cannot be fused and runs operation by "
        f"operation ({type(error).__name__}: {error}); this is a defect: please report it"
        f"{_saved(trace)}",
        RuntimeWarning,
        stacklevel=1,
    )


def _saved(trace: Trace) -> str:
    """Puts a graph that cannot be compiled into a file; what to say of it."""
    import hashlib
    from pathlib import Path

    from treadle.compiler.trace_text import print_trace

    try:
        text = print_trace(trace)
        folder = Path(flags.CACHE_DIR) / "failures"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
        path.write_text(text, encoding="utf-8")
    except Exception:  # a full disk, or the graph is what cannot be printed
        return ""
    return (
        f", with {path}, from which treadle.compiler.pipeline.compile_file repeats it without your "
        "program"
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
