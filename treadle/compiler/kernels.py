"""The kernels of an evaluation, with the operations fused into each, their lines, time and work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base.record import Record
from treadle.compiler.device import Device, Limits
from treadle.compiler.program import Program
from treadle.compiler.watch import Evaluation, Ran
from treadle.ir.node import Signature, Site, describe_site
from treadle.ir.op import Contraction, Elementwise, Library, Loops, Nested, Reduction

_NAMED = 4  # operations that a kernel's name tells
_LINES = 4  # lines that a table's row tells


class Use(Record):
    """One operation of a kernel; ``layer`` and ``label`` are known where a profiler watches."""

    sig: Signature
    site: Site | None

    @property
    def layer(self) -> str:
        """The path of the layer that it belongs to, or nothing."""
        return getattr(self.site, "layer", "")

    @property
    def label(self) -> str:
        """The innermost ``record_function`` that it was recorded in, or nothing."""
        return getattr(self.site, "label", "")


class KernelUse:
    """A kernel as it ran: ``number`` counts from 1; ``reads`` are numbers of earlier kernels.

    ``kind`` is that of its group (``fuse.Group``), or "operation" for one that is alone.
    ``begin`` is its start on the clock of ``time.perf_counter``, ``share`` the part of the
    machine's limit that it reached; both are 0 where it was not timed.
    """

    __slots__ = (
        "begin", "flops", "kind", "nbytes", "number", "reads", "seconds", "share", "space", "uses",
    )  # fmt: skip

    def __init__(self, number: int, kind: str, uses: Sequence[Use]) -> None:
        self.number = number
        self.kind = kind
        self.uses = tuple(uses)
        costs = [cost_of(use.sig) for use in uses]
        self.flops = sum(cost.flops for cost in costs)
        self.nbytes = sum(cost.bytes for cost in costs)
        self.space = repr(max((_main_type(use.sig) for use in uses), key=lambda t: t.size))
        self.seconds = self.begin = self.share = 0.0
        self.reads: set[int] = set()

    @property
    def name(self) -> str:
        """``mul, add, sqrt (12) f32[512,784]``."""
        names = [use.sig.op.name for use in self.uses]
        shown = list(dict.fromkeys(names))[:_NAMED]
        count = f" ({len(names)})" if len(names) > len(shown) else ""
        return f"{', '.join(shown)}{count} {self.space}"

    @property
    def key(self) -> str:
        """The operations without shapes, for tables that sum over kernels alike."""
        names = list(dict.fromkeys(use.sig.op.name for use in self.uses))
        more = f", {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"{', '.join(names[:_NAMED])}{more}"

    @property
    def lines(self) -> list[str]:
        """The user's lines, each once, in the order of recording."""
        found = list(dict.fromkeys(describe_site(use.site) for use in self.uses))
        return found if len(found) <= _LINES else [*found[:_LINES], f"{len(found) - _LINES} more"]

    def by_line(self) -> str:
        """``train.py:12 mul, add; train.py:14 sqrt``."""
        told: dict[str, list[str]] = {}
        for use in self.uses:
            told.setdefault(describe_site(use.site), []).append(use.sig.op.name)
        return "; ".join(f"{line} {', '.join(_counted(names))}" for line, names in told.items())

    def why_alone(self) -> str:
        """What keeps the only operation of a kernel from being fused."""
        lower = self.uses[0].sig.op.lower
        if isinstance(lower, Contraction):
            return "contractions"
        if isinstance(lower, (Elementwise, Reduction)):
            return "with no neighbour over the same elements"
        if isinstance(lower, Library):
            return "calls of a library"
        if isinstance(lower, Nested):
            return "loops and choices over a body"
        if isinstance(lower, Loops):
            return "with loops of their own"
        return "copies for views"

    def weights(self) -> list[float]:
        """How much of the kernel is each operation's, by what they cost; the sum is 1."""
        costs = [cost_of(use.sig) for use in self.uses]
        work = [cost.flops + cost.bytes or 1 for cost in costs]
        whole = sum(work)
        return [part / whole for part in work]


def cost_of(sig: Signature) -> Any:
    """The flops and bytes of one operation, from its record."""
    return sig.op.cost(sig.inputs, sig.type, sig.attrs)


def kernels_of(e: Evaluation, device: Device, limits: Limits) -> list[KernelUse]:
    """The kernels of an evaluation in order, with their times where it was timed."""
    if e.ran:
        kernels = _of_segments(e)
    elif e.program is None:
        kernels = _of_steps(e)
    else:
        kernels = _of_program(e.program, e.sites, 0)
    tick = device.seconds_per_tick() if e.timed is not None else 0.0
    for kernel, begin, end in kernels:
        if e.timed is not None:
            times = e.timed.times
            kernel.seconds = (times[end] - times[begin]) * tick
            kernel.begin = e.timed.begin + (times[begin] - times[0]) * tick
        if kernel.seconds > 0:
            itemsize = min(t.dtype.itemsize for t in kernel.uses[0].sig.types)
            least = limits.seconds(kernel.flops, kernel.nbytes, itemsize)
            kernel.share = least / kernel.seconds
    return [kernel for kernel, _, _ in kernels]


_Placed = tuple[KernelUse, int, int]  # with the positions of its times


def _of_steps(e: Evaluation) -> list[_Placed]:
    found: list[_Placed] = []
    calls = e.calls
    start = 0
    for end in range(1, len(calls) + 1):
        # Several calls in a row may be one operation's. (An equal one beside it is counted to it.)
        if end < len(calls) and calls[end] == calls[start]:
            continue
        kernel = KernelUse(len(found) + 1, "operation", (Use(*calls[start]),))
        found.append((kernel, start, end))
        start = end
    return found


def _of_segments(e: Evaluation) -> list[_Placed]:
    found: list[_Placed] = []
    for ran in e.ran:
        if isinstance(ran, Ran):
            made = _of_program(ran.program, ran.known.sites, len(found))
            found += [(kernel, ran.call + begin, ran.call + end) for kernel, begin, end in made]
        elif ran.count:
            kernel = KernelUse(len(found) + 1, "operation", (Use(ran.sig, ran.site),))
            found.append((kernel, ran.call, ran.call + ran.count))
    return found


def _of_program(program: Program, sites: Sequence[Site | None], earlier: int) -> list[_Placed]:
    """The kernels of a program; ``earlier`` others come first."""
    made = program.made
    first = made.trace.first
    spans: dict[int, tuple[int, int, int]] = {}  # step -> first and last time, bytes
    for index, begin, end, nbytes in made.emitted:
        before = spans.get(index, (begin + 1, 0, 0))
        spans[index] = before[0], end + 1, max(before[2], nbytes)
    found: list[_Placed] = []
    makers: dict[int, int] = {}  # value -> number of its kernel
    for index, (begin, end, nbytes) in spans.items():
        step = made.steps[index]
        group = step.group
        values = [step.entry] if group is None else list(group.entries)
        signed = [(v, made.trace.entry(v).sig) for v in values]
        # One of several results is no work of its own.
        uses = [Use(sig, sites[v - first]) for v, sig in signed if "project" not in sig.op.traits]
        kind = "operation" if group is None else group.kind
        kernel = KernelUse(earlier + len(found) + 1, kind, uses)
        if group is not None or not kernel.nbytes:
            kernel.nbytes = nbytes
        inputs = {i for v in values for i in made.trace.entry(v).inputs}
        kernel.reads = set(_makers_of(inputs - set(values), made.trace, makers)) - {kernel.number}
        makers.update(dict.fromkeys(values, kernel.number))
        found.append((kernel, begin, end))
    return found


def _makers_of(values: Iterable[int], trace: Any, makers: dict[int, int]) -> Iterable[int]:
    """The kernels that made these values, seen through views and what stands in for others."""
    todo = list(values)
    seen: set[int] = set()
    while todo:
        value = trace.stand_in(todo.pop())
        if value in makers:
            yield makers[value]
        elif value >= trace.first and value not in seen:
            seen.add(value)
            todo += trace.entry(value).inputs


def _main_type(sig: Signature) -> Any:
    """What an operation goes over: its result, or the input of a reduction."""
    return sig.inputs[0] if isinstance(sig.op.lower, Reduction) else sig.types[0]


def _counted(names: Sequence[str]) -> list[str]:
    """``["mul", "add", "mul"]`` as ``["mul (2)", "add"]``."""
    counts = {name: names.count(name) for name in names}
    return [name if n == 1 else f"{name} ({n})" for name, n in counts.items()]


__all__ = ["KernelUse", "Use", "cost_of", "kernels_of"]
