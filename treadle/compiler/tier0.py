"""Tier 0: a pending graph run node by node on generic kernels, in one native call.

``evaluate`` looks at what this thread has recorded, drops what nobody can read any more, and turns
the rest into a *tape*: the kernels' addresses with their arguments, in the order of recording,
which the device runs without coming back to Python. Views cost no call.

What is kept? A node's value stays if somebody outside the graph holds the node (a tensor, or a node
that is not evaluated yet), or if a gradient that can still be asked for reads it (``residuals``).
The first is read off the reference count: whatever exceeds the references from the graph itself is
somebody else's. Everything else lives in memory that is handed on within the tape. A value dropped
this way and wanted after all is computed again: dropping is never wrong, only slower.

Nothing visible changes before the tape has run: Ctrl-C while it is being made puts the pending
graph back as it was. A node that cannot run (no memory, a bad index) gets the error,
and with it all that depend on it; the others run.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from sys import getrefcount
from time import perf_counter
from typing import TYPE_CHECKING, Any

from treadle.base.collector import without_collector
from treadle.base.errors import EvaluationError, TreadleError
from treadle.base.flags import flags
from treadle.base.forking import EVALUATION, hold_across_fork
from treadle.compiler import watch
from treadle.compiler.ahead import kernels_ahead
from treadle.compiler.device import Device, get_device
from treadle.compiler.failures import ADDRESSABLE, failure, refusal
from treadle.compiler.prepare import Prepared, moved, prepared, words
from treadle.compiler.programs import Programs, worth_while
from treadle.compiler.settle import forget_inputs, settle
from treadle.compiler.takeover import given_up, handed_over, references
from treadle.ir import node as ir_node
from treadle.ir.call import Call, nodes_of, write_out
from treadle.ir.graph_text import print_graph
from treadle.ir.launch import HostErrors, Layout
from treadle.ir.node import (
    Limits,
    Node,
    Recording,
    Scalar,
    Values,
    describe_site,
    recorder,
)
from treadle.ir.op import Bundle
from treadle.ir.scan import OWN, Scan, scan
from treadle.ir.segments import SHORTEST, segments

if TYPE_CHECKING:
    from treadle.compiler.shadow import Shadow

# Layouts and addresses of a value: (memory, layout, address). A node with several results has a
# tuple of these.
Value = tuple[Any, Layout, int]
Moves = Callable[[list[Any]], Iterable[object]]  # what is to be done once values are there, in C


class Evaluator:
    """Runs pending graphs on one device. One graph at a time; any thread may come."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.lock = threading.RLock()
        self.threads = device.threads()
        self.programs = Programs(device)
        self.tape: list[bytes] = []
        self.owners: list[Node] = []  # the node of every call
        self.free: dict[int, list[Any]] = {}
        self.supplied: list[Node] = []
        self.ahead: list[Node] = []  # what may need kernels: the graph, last node first
        self.busy = False
        self.record: watch.Evaluation  # of the evaluation that runs
        self.timed: watch.Timed | None = None  # the run of its tape

    # --- what to run ------------------------------------------------------------------------------

    @without_collector
    def evaluate(self, state: Recording) -> None:
        """Evaluates whatever of the thread's pending graph can still be read."""
        with self.lock:
            live: list[Node] = []
            self._enter()
            self.record = record = watch.begin(state)
            try:
                if not self._replay(state):
                    write_out(state)
                    self._select(state.pending, live)
                    if "graph" in flags.DEBUG and live:
                        print(print_graph(live), file=sys.stderr)
                    self._run(live)
                watch.finish(record)
            except BaseException:
                # Whoever evaluates next finds the graph as it was recorded.
                live.reverse()
                for n in live:
                    n.uses = 0
                    for i in n.inputs:
                        i.uses = 0
                state.pending[:0] = live
                raise
            finally:
                self.busy, self.ahead = False, []
            state.nbytes = 0

    def _enter(self) -> None:
        """The lock lets this thread in again; only a signal handler can come that way."""
        if self.busy:
            raise EvaluationError(
                "a value was asked for inside a signal handler that interrupted an evaluation; "
                "note the signal, and read the value afterwards"
            )
        self.busy = True

    def _select(self, pending: list[Node], live: list[Node]) -> None:
        """Moves what is worth computing from ``pending`` to ``live``, last node first."""
        i: Node | None
        while pending:
            n = pending.pop()
            # References that are not somebody else's: this name's, and those of our consumers.
            uses = n.uses
            if getrefcount(n) - OWN > uses:
                n.keep = True
            elif not uses:
                continue
            live.append(n)
            inputs = n.inputs
            for i in inputs:
                i.uses += 1
            i = None  # or it would count as somebody who holds the node
            if n.needs_grad and not n.spent:
                for r in n.sig.residuals:
                    (n if r == "out" else inputs[r]).keep = True  # type: ignore[index]

    def _replay(self, state: Recording) -> bool:
        """Runs the program of a graph that was seen before; False where that cannot be done."""
        record = self.record
        if flags.PROGRAMS == "off":
            record.reason = "TREADLE_PROGRAMS is off"
            return False
        scanned = scan(state)
        if not worth_while(scanned):
            record.reason = "it is too small for a program, or reads a value that is not there"
            return False
        self._count_threads()
        known = self.programs.find(scanned, self.threads, state.is_ahead)
        if known is None or known.program is None:
            record.reason = watch.NEW if known is None else known.refusal
            if scanned.size < SHORTEST or not self._run_segments(state, scanned):
                return False
            if known is None:
                self.programs.was_segmented(scanned)
            return True
        program = known.program
        watch.note_lines(known, scanned)

        def run(moves: Moves) -> bool:
            if known.alone is None:
                known.alone = references(scanned)
            externals, scalars = scanned.externals, scanned.scalars
            if known.order is not None:
                scalars = [scalars[i] for i in known.order]
            given = given_up(program.takeovers, known.alone, externals, state.replaced)
            with suppress(MemoryError):  # tier 0 needs less, and tells which node is too large
                return program.run(externals, scalars, moves, given) is not None
            return False

        if not self._commit(state, scanned, known.targets, run):
            record.reason = record.reason or program.failure
            return False
        record.replayed(known)
        self.programs.replays += 1
        return True

    def _run_segments(self, state: Recording, scanned: Scan) -> bool:
        """Runs the programs of the segments of a graph; False where that cannot be done."""
        from treadle.compiler.segments import Needs, Run, stretches_of

        stretches = stretches_of(scanned)
        if stretches is None:
            return False
        run = Run(self, Needs(scanned, stretches))

        def values_of(moves: Moves) -> bool:
            values = run.values_of()
            if values is not None:
                deque(moves(values), maxlen=0)
            return values is not None

        if not self._commit(state, scanned, run.needs.targets, values_of):
            return False
        self.record.segmented(run.ran, self.timed)
        return True

    def _commit(
        self, state: Recording, scanned: Scan, targets: Sequence[tuple[int, int, int]],
        run: Callable[[Moves], bool],
    ) -> bool:  # fmt: skip
        """Runs a graph, and gives the nodes that ``targets`` name (``Known.targets``) what it
        gives; False, and nothing has changed, where it fails.

        ``run`` does both: it has the values, and goes through what is to be moved for them.
        """
        replaced, nodes = state.replaced, scanned.known
        if replaced is not None and any(n.value or n not in nodes for n in replaced.news):
            state.replaced = None  # part of it was evaluated before
        if "graph" in flags.DEBUG:
            print(print_graph(_nodes(scanned)), file=sys.stderr)
        shadow = self._shadow(scanned, targets) if flags.CHECK == "shadow" else None
        if shadow is not None and not shadow.succeeded:
            self.record.reason = "an operation failed when TREADLE_CHECK=shadow ran it alone"
            return False
        if not run(partial(handed_over, targets, scanned, state)):
            HostErrors.forget()
            return False
        if shadow is not None:
            shadow.compare()
        settle(scanned.items)
        return True

    def _shadow(self, scanned: Scan, targets: Sequence[tuple[int, int, int]]) -> Shadow:
        """What a graph gives op by op, for comparison; it is left as it was."""
        from treadle.compiler.shadow import Shadow

        nodes = _nodes(scanned)
        for position, index, _ in targets:
            item = scanned.items[position]
            (nodes_of(item)[index] if type(item) is Call else item).keep = True
        live = nodes[::-1]

        def run() -> bool:
            self._recount(live)
            return self._attempt(live) == -1 and all(n.error is None for n in live)

        shadow = Shadow(nodes, scanned.externals, run)
        for n in self.supplied:
            n.set_value(None)
        self._recount(live)
        for n in (*nodes, *scanned.externals, *scanned.scalars):
            n.uses = 0
        self.tape, self.owners, self.free, self.supplied = [], [], {}, []
        return shadow

    def _count_threads(self) -> None:
        if self.device.threads() != self.threads:
            self.threads = self.device.threads()
            forget_plans()

    def _run(self, live: list[Node]) -> None:
        """Runs ``live`` (last node first); empties it when all have their values."""
        while True:
            start = [n for n in live if n.value is None]
            failed = -2
            try:
                failed = self._attempt(live)
            finally:
                if failed != -1:
                    for n in (*start, *self.supplied):
                        n.set_value(None)
            if failed < 0:
                break
            self._recount(live)
        done = live[::-1]
        live.clear()  # first: a node without its inputs must never be put back as pending
        self.record.stepped(done, self.owners, self.timed)
        forget_inputs(done)
        self.tape, self.owners, self.free, self.supplied = [], [], {}, []

    def run_alone(self, n: Node) -> None:
        """Evaluates one node that no pending graph of this thread has."""
        with self.lock:
            live = [n]
            self._enter()
            try:
                n.keep = True
                self.record = watch.begin(recorder.state)
                self.record.reason = "a value that was dropped is wanted after all"
                self._recount(live)
                self._run(live)
                watch.finish(self.record)
            finally:
                self.busy, self.ahead = False, []
                for i in n.inputs:
                    i.uses = 0

    def _recount(self, live: list[Node]) -> None:
        for n in live:
            n.uses = 0
            for i in n.inputs:
                i.uses = 0
        for n in live:
            for i in n.inputs:
                i.uses += 1

    def _attempt(self, live: list[Node]) -> int:
        """Makes the tape and runs it; the call that failed, whose node has the error, or -1."""
        self._count_threads()
        self.tape, self.owners, self.free, self.supplied = [], [], {}, []
        self.ahead = live
        tape, owners, free = self.tape, self.owners, self.free
        step, allocate = self._step, self.device.allocate
        for n in reversed(live):
            inputs = n.inputs
            if n.value is None:
                try:
                    simple = n.sig.simple
                    # One or two row-major operands: the path of nearly all nodes, written out.
                    # _step does the same for any.
                    if len(inputs) == 2:
                        first, second = inputs[0].address, inputs[1].address
                    else:
                        first = second = inputs[0].address if len(inputs) == 1 else 0
                    if simple is None or not first or not second:
                        step(n)
                    else:
                        kind = n.type
                        blocks = free.get(kind.nbytes)
                        memory = blocks.pop() if blocks else allocate(kind.nbytes)
                        n.address = address = memory.address
                        pack, numbers = simple
                        if len(inputs) == 2:
                            tape.append(pack(address, first, second))
                        else:
                            tape.append(pack(address, first))
                        if numbers:
                            tape.append(numbers)
                        owners.append(n)
                        n.value = (memory, kind.layout, address)
                        memory = None
                except (MemoryError, TreadleError) as error:
                    # Nothing of this node is on the tape yet; what depends on it gets the error.
                    # (Anything else, such as what a signal handler raises, ends the evaluation.)
                    n.error = refusal(n, error, live, free, self.device)
            for i in inputs:
                i.uses = uses = i.uses - 1
                if not uses and not i.keep:
                    value = i.value
                    i.value = None
                    i.address = 0
                    if value is None:
                        continue
                    memory = value[0]
                    # Its references: the value's, and this name's.
                    if type(memory) is tuple:
                        _recycle_all(value, free)
                    elif getrefcount(memory) == OWN + 1:
                        blocks = free.get(memory.nbytes)
                        if blocks is None:
                            free[memory.nbytes] = [memory]
                        else:
                            blocks.append(memory)
                    value = memory = None
        return self._execute() if owners else -1

    def _execute(self) -> int:
        """Runs the tape; the call that failed, whose node gets the error, or -1."""
        tape, owners = b"".join(self.tape), self.owners
        times = array("q", bytes(8 * (len(owners) + 1)))
        begin = perf_counter()
        failed, code = self.device.run(tape, len(owners), self.threads, times)
        self.timed = watch.Timed(1, begin, times)
        if failed >= 0:
            owners[failed].error = failure(owners[failed], tape, failed, code, self.device)
        return failed

    # --- one node ---------------------------------------------------------------------------------

    def _step(self, n: Node) -> None:
        """Gives ``n`` its value: memory, and the calls that will fill it."""
        sig = n.sig
        if sig.nbytes > ADDRESSABLE:
            raise MemoryError("no machine has so much; ask for fewer elements")
        values: list[Value] = []
        plain = True
        for i in n.inputs:
            value = i.value
            if value is None:
                value = self._supply(i)
                if value is None:
                    n.error = i.error
                    return
            values.append(value)
            if plain and not sig.is_view and value[1] is not i.type.layout:
                plain = False
        if n.error is not None:
            return
        if sig.is_view:
            if isinstance(sig.op.lower, Bundle):
                n.set_value(tuple((*value,) for value in values[: len(sig.types)]))
            else:
                n.set_value(self._view(n, values[0]))
            return
        if plain and sig.plan is not None:
            plan = sig.plan
        else:
            layouts = tuple([value[1] for value in values])
            plan = prepared(sig, layouts, self.device, self.threads, self._compile_ahead)
            if plain:
                sig.plan, sig.simple = plan, plan.simple
        outs = []
        addresses = []
        free = self.free
        for kind in sig.types:
            nbytes = kind.nbytes
            blocks = free.get(nbytes)
            memory = blocks.pop() if blocks else self.device.allocate(nbytes)
            addresses.append(memory.address)
            outs.append((memory, kind.layout, memory.address))
        for value in values:
            addresses.append(value[2])
        self._emit(n, plan, addresses)
        n.set_value(outs[0] if sig.type is sig.types[0] else tuple(outs))

    def _compile_ahead(self) -> None:
        """Has all kernels of the graph compiled, once, when the first one is missing."""
        nodes, self.ahead = self.ahead, []
        if nodes:
            bits = self.device.vector_bits
            self.device.compile_ahead(kernels_ahead(reversed(nodes), self.threads, bits))

    def _emit(self, n: Node, plan: Prepared, addresses: list[int]) -> None:
        """Appends the calls to the tape."""
        free, allocate = self.free, self.device.allocate
        held = [
            blocks.pop() if (blocks := free.get(nbytes)) else allocate(nbytes)
            for nbytes in plan.workspaces
        ]
        addresses += [memory.address for memory in held]
        tape, owners = self.tape, self.owners
        for head, slots, numbers, _ in plan.calls:
            # All at once: a tape with half a call would send the device astray.
            tape += head, words(*[addresses[slot] + offset for slot, offset in slots]), numbers
            owners.append(n)
        for memory in held:
            free.setdefault(memory.nbytes, []).append(memory)

    def _view(self, n: Node, value: Any) -> Value:
        """The same memory under another layout, after a copy where that is the only way."""
        sig = n.sig
        if "project" in sig.op.traits:
            # A tuple of its own, so that the memory's reference count tells of both.
            memory, layout, address = value[sig.attrs["index"]]
            return memory, layout, address
        memory, layout, address = value
        move = moved(sig, layout, self.device)
        if move.copy is None:
            return memory, move.layout, address + move.offset
        memory = self.device.allocate(sig.nbytes)
        self._emit(n, move.copy, [memory.address, address])
        return memory, move.layout, memory.address

    # --- values that the pending graph does not make ------------------------------------------

    def _supply(self, wanted: Node) -> Any:
        """A value that is not in this pending graph: a number, or one that was dropped."""
        todo = [wanted]
        missing: dict[Node, None] = {}
        while todo:
            n = todo.pop()
            if n.value is None and n.error is None and n not in missing:
                missing[n] = None
                todo.extend(n.inputs)
        for n in sorted(missing, key=lambda n: n.order):
            self.supplied.append(n)  # first: its value counts only when the tape has run
            n.keep = True
            if isinstance(n, Scalar):
                memory = self.device.allocate(8)
                self.device.write(memory.address, n.packed)
                n.set_value((memory, n.type.layout, memory.address))
            else:
                self._step(n)
        return wanted.value


def _nodes(scanned: Scan) -> list[Node]:
    """All nodes of a pending graph, those of calls written out."""
    return [n for i in scanned.items for n in (nodes_of(i) if type(i) is Call else (i,))]


def _recycle_all(values: Any, free: dict[int, list[Any]]) -> None:
    """Hands on the memory of an op with several results, where nothing else refers to it."""
    for memory, _, _ in values:
        # Its references: the value's, and this name's.
        if getrefcount(memory) == OWN + 1:
            free.setdefault(memory.nbytes, []).append(memory)


def forget_plans() -> None:
    """Drops every prepared plan (they are made for a number of threads)."""
    for sig in list(ir_node._signatures.values()):  # other threads are recording
        sig.plan = sig.simple = None
        sig.plans.clear()
    segments.clear()
    for engine in list(_evaluators.values()):
        engine.programs.clear()


_evaluators: dict[str, Evaluator] = {}


def evaluator(device: str = "cpu") -> Evaluator:
    """The evaluator of a device."""
    known = _evaluators.get(device)
    if known is None:
        known = _evaluators[device] = Evaluator(get_device(device))
    return known


def evaluate() -> None:
    """Evaluates what this thread has recorded (of a function under vmap: when that is done; of one
    that is being exported: never)."""
    state = recorder.state
    if state.outer is None and state.tracer is None and not state.is_whole:
        evaluator().evaluate(state)


def value_of(n: Node) -> Value:
    """The value of one node, evaluating what is pending; raises the first error on its way."""
    if n.value is None and recorder.state.outer is not None:
        from treadle.autodiff.batching import value_under_vmap  # only there

        return value_under_vmap(n, value_of)
    engine = evaluator()
    # Locked, because a value that another thread has set counts only when its tape has run.
    with engine.lock:
        if n.value is None:
            if recorder.state.tracer is not None:
                recorder.state.tracer.refuse(n)
            engine.evaluate(recorder.state)
            if n.value is None and n.error is None:
                engine.run_alone(n)
            if n.error is not None:
                raise n.error.with_traceback(None)  # else every raise would lengthen it
        return n.value


def force(nodes: Iterable[Node]) -> None:
    """Evaluates these nodes; raises the first error among them."""
    with evaluator().lock:  # once for all of them
        for n in nodes:
            if n.value is None:
                value_of(n)


def _lock_all() -> None:
    for engine in _evaluators.values():
        engine.lock.acquire()


def _unlock_all() -> None:
    for engine in _evaluators.values():
        engine.lock.release()


def _after_fork() -> None:
    """A forked child has no threads but this one: locks are new, pending work is dropped."""
    for engine in _evaluators.values():
        engine.lock = threading.RLock()
        engine.busy = False
    state = recorder.state
    for item in state.pending:
        for n in item.outs if type(item) is Call else (item,):
            n.error = EvaluationError(
                f"{n.op.name}: recorded before the process forked and not evaluated by then; read "
                f"the value before forking, or compute it in the child [{describe_site(n.site)}]"
            )
    state.pending.clear()
    state.scan = None


# Locked, so that a child never inherits the values of a tape that another thread is running.
hold_across_fork(EVALUATION, _lock_all, _unlock_all, _after_fork)
Limits.evaluate = evaluate
Values.of = value_of
__all__ = ["Evaluator", "evaluate", "evaluator", "force", "forget_plans", "value_of"]
