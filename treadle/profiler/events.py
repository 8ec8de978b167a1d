"""From what was noted to events: who was inside of whom, and what took the time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from treadle.compiler.device import get_device
from treadle.compiler.explain import who
from treadle.compiler.kernels import KernelUse, Use, cost_of, kernels_of
from treadle.ir.node import describe_site, located
from treadle.profiler.averages import EventList, FunctionEvent, FunctionEventAvg
from treadle.profiler.recording import LAYER, USER, Noted, Recording

EVALUATION, KERNEL = "evaluation", "kernel"
PROGRAM = "(Python, recording)"  # what the host did outside of everything else
_OUTSIDE = {
    "layer": "(outside of layers)",
    "label": "(outside of record_function)",
    "line": "(unknown line)",
}
_HOSTS = {"layer": LAYER, "label": USER}  # whose spans belong to a row


class Timeline:
    """A complete recording; times of events are microseconds from its begin."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.whole = (recording.end - recording.begin) * 1e6

    @cached_property
    def kernels(self) -> list[tuple[Noted, list[KernelUse]]]:
        """The kernels of every evaluation."""
        device = get_device("cpu")
        limits = device.limits()
        noted = self.recording.evaluations
        return [(x, kernels_of(x.evaluation, device, limits)) for x in noted]

    @cached_property
    def _events(self) -> list[FunctionEvent]:
        origin = self.recording.begin
        found = []
        for name, category, begin, end, thread in self.recording.spans:
            found.append(
                FunctionEvent(name, category, (begin - origin) * 1e6, (end - origin) * 1e6, thread)
            )
        for noted, kernels in self.kernels:
            e = noted.evaluation
            start = (e.begin - origin) * 1e6
            way = "segments" if e.ran else "op by op" if e.program is None else "program"
            text = f"evaluate ({way})"
            event = FunctionEvent(text, EVALUATION, start, start + e.seconds * 1e6, noted.thread)
            event.lines = (who(e.forced),)
            found.append(event)
            # Kernel times are ticks counted from the start of the tape; an evaluation lasts longer.
            found += [_kernel_event(k, origin, noted.thread) for k in kernels]
        found.sort(key=lambda event: (event.start, -event.end))
        _nest(found)
        return found

    def events(self) -> list[FunctionEvent]:
        """All events by their start, with the time that was theirs alone."""
        return self._events

    def averages(self, group_by: str, by_shape: bool) -> EventList:
        """What ``profile.key_averages`` gives."""
        if group_by == "op":
            rows = self._by_name(by_shape)
        elif group_by in _OUTSIDE:
            rows = self._by_use(group_by)
        else:
            raise located(ValueError(
                f"key_averages: got group_by={group_by!r}; it takes 'op', 'layer', 'line' and "
                f"'label'"
            ))  # fmt: skip
        dropped = self.recording.dropped
        note = f"{dropped} events found no room; record fewer steps" if dropped else ""
        return EventList(rows, self.whole, note)

    def _by_name(self, by_shape: bool) -> Iterable[FunctionEventAvg]:
        rows: dict[str, FunctionEventAvg] = {}
        for event in self._events:
            key = event.name
            if event.category == "step":
                key = "ProfilerStep*"
            elif by_shape and event.shape:
                key = f"{key} {event.shape}"
            row = _row(rows, key)
            row.count += 1
            row.cpu_time_total += event.cpu_time_total
            row.self_cpu_time_total += event.self_cpu_time_total
            row.kernel_time_total += event.kernel_time_total
            row.flops += event.flops
            row.nbytes += event.nbytes
            row.least += event.least
        rest = self.whole - sum(row.self_cpu_time_total for row in rows.values())
        if rest > 0:
            row = _row(rows, PROGRAM)
            row.count = 1
            row.cpu_time_total = row.self_cpu_time_total = rest
        return rows.values()

    def _by_use(self, group_by: str) -> Iterable[FunctionEventAvg]:
        rows: dict[str, FunctionEventAvg] = {}
        for event in self._events:
            if event.category == _HOSTS.get(group_by):
                inside = event.self_cpu_time_total
                _row(rows, event.name).self_cpu_time_total += inside
        for _, kernels in self.kernels:
            for kernel in kernels:
                for use, weight in zip(kernel.uses, kernel.weights(), strict=True):
                    row = _row(rows, _group_of(use, group_by))
                    cost = cost_of(use.sig)
                    row.count += 1
                    row.self_cpu_time_total += weight * kernel.seconds * 1e6
                    row.kernel_time_total += weight * kernel.seconds * 1e6
                    row.least += weight * kernel.seconds * kernel.share * 1e6
                    row.flops += cost.flops
                    row.nbytes += weight * kernel.nbytes
        for key, row in rows.items():
            inner = (r for k, r in rows.items() if k == key or k.startswith(f"{key}."))
            row.cpu_time_total = sum(r.self_cpu_time_total for r in inner)
        return rows.values()


def _group_of(use: Use, group_by: str) -> str:
    if group_by == "line":
        return _OUTSIDE["line"] if use.site is None else describe_site(use.site)
    return getattr(use, group_by) or _OUTSIDE[group_by]


def _row(rows: dict[str, FunctionEventAvg], key: str) -> FunctionEventAvg:
    row = rows.get(key)
    if row is None:
        row = rows[key] = FunctionEventAvg(key)
    return row


def _kernel_event(kernel: KernelUse, origin: float, thread: int) -> FunctionEvent:
    start = (kernel.begin - origin) * 1e6
    event = FunctionEvent(kernel.key, KERNEL, start, start + kernel.seconds * 1e6, thread)
    event.kernel_time_total = event.cpu_time_total
    event.flops, event.nbytes = kernel.flops, kernel.nbytes
    event.least = kernel.share * event.cpu_time_total
    event.shape = kernel.space
    event.lines = tuple(kernel.lines)
    return event


def _nest(events: list[FunctionEvent]) -> None:
    """Takes the time of what is inside off the time that is an event's own (events by start)."""
    open_by_thread: dict[int, list[FunctionEvent]] = {}
    for event in events:
        around = open_by_thread.setdefault(event.thread, [])
        # Kernels run one after another; their times on two clocks may overlap by a hair.
        while around and (around[-1].end <= event.start or around[-1].category == KERNEL):
            around.pop()
        if around:
            inside = min(event.end, around[-1].end) - event.start
            around[-1].self_cpu_time_total = max(around[-1].self_cpu_time_total - inside, 0.0)
        if event.category == KERNEL:
            for outer in around:
                outer.kernel_time_total += event.cpu_time_total
        around.append(event)


__all__ = ["EVALUATION", "KERNEL", "Timeline"]
