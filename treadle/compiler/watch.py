"""What was evaluated last, and how: a short record of every evaluation, for whoever asks later.

A record holds no node and no value: signatures, lines, and the ticks of the calls. For a program
that runs again it is little more than a reference to the program. ``explain`` makes words of it.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from time import perf_counter
from types import CodeType
from typing import TYPE_CHECKING, Any

from treadle.base.flags import flags
from treadle.base.record import Record
from treadle.compiler.trace import sites_of
from treadle.ir.node import Limits, Node, Recording, Signature, Site, is_internal
from treadle.ir.scan import Scan

if TYPE_CHECKING:
    from treadle.compiler.program import Program
    from treadle.compiler.programs import Known

OPTIMIZER = "Optimizer.step"
NEW = "seen for the first time"

_MOST = 64  # evaluations that are remembered
_MOST_STEPS = 1 << 16  # operations that ran one by one and are remembered
_NEWS = 8  # evaluations with something new that are remembered
_LINES = 32  # lines whose last evaluation is remembered, to say what is new about the next one
_SELDOM = 63  # every 64th run of a program is timed call by call
_NEARLY_ALL = 0.9  # of the operations of an evaluation
_LONG = 1 << 15  # operations of an evaluation that is not remembered for that
_STANDARD = os.path.dirname(os.__file__) + os.sep  # the standard library


class Timed(Record):
    """The ticks of one run of a program: at the start, when it is ready, after every call."""

    run: int
    begin: float
    times: array[int]


class Ran(Record):
    """A segment that ran: its ``program``, the first call of it, the item it begins with."""

    known: Known
    program: Program
    call: int
    item: int


class Odd(Record):
    """An operation beside the segments: ``count`` calls from ``call`` on."""

    sig: Signature
    site: Site | None
    call: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count


class Forced(Record):
    """Who wanted a value: the user's line, and the function of Treadle's that it called.

    ``debugger`` is True where somebody looked at a value at a breakpoint on that line.
    """

    site: Site | None
    function: str
    debugger: bool


class Evaluation:
    """One evaluation: ``program`` ran, or the operations one by one (``sigs``) for a ``reason``."""

    # What most evaluations leave as it is, so that making a record takes little time.
    reason = ""
    known: Known | None = None
    program: Program | None = None
    run = 0
    sites: Sequence[Site | None] = ()
    sigs: Sequence[Signature] = ()
    kept: Sequence[bool] = ()
    calls: Sequence[tuple[Signature, Site | None]] = ()
    timed: Timed | None = None
    ran: Sequence[Any] = ()  # Ran and Odd, where segments ran
    before: Evaluation | None = None  # the last one from this line, where this is new
    seconds = 0.0

    called: CodeType | str | None = None
    debugger = False

    def __init__(self, place: Site | None) -> None:
        self.place = place  # the line that wanted it
        self.begin = perf_counter()

    @property
    def forced(self) -> Forced:
        """Who wanted it."""
        called = self.called
        name = called if isinstance(called, str) else called.co_qualname if called else ""
        return Forced(self.place, name, self.debugger)

    @property
    def size(self) -> int:
        """The number of its operations."""
        ran = [len(r.known.sites) if isinstance(r, Ran) else 1 for r in self.ran]
        return sum(ran) if self.ran else len(self.sites)

    def structure(self) -> tuple[Sequence[Signature], Sequence[bool]]:
        """The signatures of its operations, and which of their results somebody holds."""
        if self.program is None:
            return self.sigs, self.kept
        entries = self.program.made.trace.entries
        return [entry.sig for entry in entries], [entry.keep for entry in entries]

    def replayed(self, known: Known) -> None:
        """It was a run of what is ``known`` of a graph."""
        self.known = known
        self.program = program = known.program
        if program is None:
            return
        self.run = program.runs
        self.timed = program.timed
        self.sites = known.sites

    def segmented(self, ran: Sequence[Any], timed: Timed | None) -> None:
        """It ran by segments. Where they are not nearly all of it, it is told what was new."""
        self.ran = ran
        self.timed = timed
        inside = sum([len(r.known.sites) for r in ran if type(r) is Ran])
        if inside < _NEARLY_ALL * self.size:
            sigs: list[Signature] = []
            kept: list[bool] = []
            sites: list[Site | None] = []
            for r in ran:
                entries = r.program.made.trace.entries if type(r) is Ran else ()
                sigs += [entry.sig for entry in entries] if type(r) is Ran else [r.sig]
                kept += [entry.keep for entry in entries] if type(r) is Ran else [False]
                sites += r.known.sites if type(r) is Ran else [r.site]
            self.sigs, self.kept, self.sites = sigs, kept, sites

    def stepped(self, nodes: Sequence[Node], owners: Sequence[Node], timed: Timed | None) -> None:
        """Its ``nodes`` ran one by one; ``owners`` has the node of every call."""
        self.sites = [n.site for n in nodes]
        self.sigs = [n.sig for n in nodes]
        self.kept = [n.keep for n in nodes]
        self.calls = [(n.sig, n.site) for n in owners]
        self.timed = timed


def note_lines(known: Known, scanned: Scan) -> None:
    """Notes which lines recorded a graph that is about to run as a program."""
    # Equal steps of other lines share a program. Three items tell, for a hundredth of the time.
    items = scanned.items
    probe = (items[0].site, items[len(items) // 2].site, items[-1].site)
    if known.probe != probe or Watchers.are_there:
        known.probe = probe
        known.sites = sites_of(scanned, known.numbers)


class Watchers:
    """Who is told of every evaluation (``call(evaluation)``), which is then timed call by call."""

    are_there = False
    steps = 0  # operations in the records of what ran one by one
    calls: tuple[Callable[[Evaluation], object], ...] = ()

    @classmethod
    def add(cls, call: Callable[[Evaluation], object]) -> None:
        """Has ``call`` told from now on."""
        cls.calls = (*cls.calls, call)
        cls.are_there = True

    @classmethod
    def remove(cls, call: Callable[[Evaluation], object]) -> None:
        """Ends that."""
        cls.calls = tuple(known for known in cls.calls if known != call)
        cls.are_there = bool(cls.calls)


def is_timed(runs: int) -> bool:
    """Whether a program's run is timed call by call: the first ones, every 64th, all if watched."""
    return not runs & (runs - 1) or not runs & _SELDOM or Watchers.are_there


recent: deque[Evaluation] = deque()
renewed: deque[Evaluation] = deque(maxlen=_NEWS)  # op by op, unlike the last from the same line
_last: OrderedDict[Any, Evaluation] = OrderedDict()  # by line


def begin(state: Recording) -> Evaluation:
    """The record of an evaluation that begins now."""
    site = state.site
    if site is not None:  # known already: who asks is an optimizer
        evaluation = Evaluation(site)
        evaluation.called = OPTIMIZER
    else:
        evaluation = _asked()
    if len(state.pending) >= Limits.nodes:
        evaluation.called = "PENDING_NODES"
    elif state.nbytes >= Limits.nbytes:
        evaluation.called = "PENDING_BYTES"
    return evaluation


def finish(evaluation: Evaluation) -> None:
    """The evaluation is done: keeps its record, and tells the watchers."""
    if evaluation.ran:
        Watchers.steps += len(evaluation.ran)
        if evaluation.sigs:
            _compare(evaluation)
    elif evaluation.program is None:
        if not evaluation.sigs:
            return  # there was nothing to do
        if 1 < len(evaluation.sigs) < _LONG:
            _compare(evaluation)
    elif evaluation.run == 1 and len(evaluation.sites) < _LONG:
        _last.setdefault(evaluation.place, evaluation)
    evaluation.seconds = perf_counter() - evaluation.begin
    recent.append(evaluation)
    Watchers.steps += len(evaluation.sigs)
    while len(recent) > _MOST or (Watchers.steps > _MOST_STEPS and len(recent) > 1):
        oldest = recent.popleft()
        Watchers.steps -= len(oldest.sigs) + len(oldest.ran)
    if Watchers.are_there:
        for call in Watchers.calls:
            call(evaluation)
    if "explain" in flags.DEBUG:
        from treadle.compiler.explain import tell  # only where somebody asks

        print(tell(evaluation), file=sys.stderr)


def forget() -> None:
    """Forgets all evaluations."""
    recent.clear()
    Watchers.steps = 0
    renewed.clear()
    _last.clear()


def _compare(new: Evaluation) -> None:
    """Remembers what ran op by op, and the last such one from the same line beside it."""
    place = new.place
    new.before = _last.get(place)
    if new.before is not None:
        new.before.before = None  # no chain
        renewed.append(new)
    _last[place] = new
    _last.move_to_end(place)
    if len(_last) > _LINES:
        _last.popitem(last=False)


_OURS, _LIBRARY, _TYPED, _USERS = range(4)
_kinds: dict[str, int] = {}  # of files


def _kind_of(filename: str) -> int:
    """Whose file it is: Treadle's, the standard library's, nobody's (typed in), the user's."""
    if is_internal(filename):
        kind = _OURS
    elif filename.startswith("<"):
        kind = _TYPED
    elif filename.startswith(_STANDARD) and f"{os.sep}site-packages{os.sep}" not in filename:
        kind = _LIBRARY
    else:
        kind = _USERS
    _kinds[filename] = kind
    return kind


def _asked() -> Evaluation:
    """An evaluation with the user's line that asks for it, and what it called there."""
    frame = sys._getframe(2)
    kinds = _kinds
    called: CodeType | None = None
    debugger = False
    site: Site | None = None
    while frame is not None:
        code = frame.f_code
        filename = code.co_filename
        kind = kinds[filename] if filename in kinds else _kind_of(filename)
        if kind == _OURS:
            called = code
        elif kind == _LIBRARY:
            debugger = debugger or code.co_name == "trace_dispatch"
        elif kind == _USERS or not _is_prompt(frame.f_back):
            site = code, frame.f_lasti
            break
        frame = frame.f_back  # type: ignore[assignment]
    evaluation = Evaluation(site)
    evaluation.called = called
    if debugger:
        evaluation.debugger = True
    return evaluation


def _is_prompt(below: Any) -> bool:
    """True where a debugger runs what was typed at its prompt."""
    return below is not None and below.f_code.co_filename.endswith(("pdb.py", "bdb.py"))


__all__ = [
    "NEW", "OPTIMIZER", "Evaluation", "Forced", "Odd", "Ran", "Timed", "Watchers", "begin",
    "finish", "forget", "is_timed", "note_lines", "recent", "renewed",
]  # fmt: skip
