"""``profile``: the context manager, and the schedule by which it records."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any

from treadle.compiler.tier0 import evaluate
from treadle.ir.node import located
from treadle.profiler.averages import EventList, FunctionEvent
from treadle.profiler.events import Timeline
from treadle.profiler.memory import MemoryReport, PeakWatch, memory_report
from treadle.profiler.recording import STEP, Recording
from treadle.profiler.trace_file import write_trace


class ProfilerActivity(enum.Enum):
    """What is measured. There is no device but the CPU yet: CUDA is known by name only."""

    CPU = 0
    CUDA = 1


class ProfilerAction(enum.Enum):
    """What a schedule wants done in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """The activities that can be measured here.

    >>> supported_activities()
    {<ProfilerActivity.CPU: 0>}
    """
    return {ProfilerActivity.CPU}


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0
) -> Callable[[int], ProfilerAction]:
    """After ``skip_first`` steps: ``wait`` steps idle, ``warmup`` not counted, ``active`` recorded,
    again and again, or ``repeat`` times.

    >>> [schedule(wait=1, warmup=1, active=2, repeat=1)(step).name for step in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    numbers = {"wait": wait, "warmup": warmup, "repeat": repeat, "skip_first": skip_first}
    wrong = [f"{name}={number}" for name, number in numbers.items() if number < 0]
    if wrong or active < 1:
        raise located(ValueError(
            f"schedule: got {', '.join(wrong) or f'active={active}'}; active must be 1 or more, "
            f"the others 0 or more"
        ))  # fmt: skip
    cycle = wait + warmup + active

    def action_of(step: int) -> ProfilerAction:
        step -= skip_first
        if step < 0 or (repeat and step >= repeat * cycle):
            return ProfilerAction.NONE
        position = step % cycle
        if position < wait:
            return ProfilerAction.NONE
        if position < wait + warmup:
            return ProfilerAction.WARMUP
        last = position == cycle - 1
        return ProfilerAction.RECORD_AND_SAVE if last else ProfilerAction.RECORD

    return action_of


def _always(step: int) -> ProfilerAction:
    return ProfilerAction.RECORD


_RECORDS = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class profile:
    """Measures what runs inside of it: ``with profile() as prof: ...``.

    Args:
        activities: those to measure; all that there are by default.
        schedule: which steps to record (``schedule(...)``); all by default. ``prof.step()`` ends a
            step.
        on_trace_ready: called with the profiler when a recording is complete.
        profile_memory: also notes who holds how much memory at the peak (``memory()``).
        record_shapes, with_stack, with_flops, with_modules: shapes, lines, flops and layers are
            always noted; accepted as in PyTorch.

    Kernels run when a value is needed; so ``step`` and the end of the block evaluate what is
    pending. Then ``key_averages()`` has tables by operation, layer and line, and
    ``export_chrome_trace`` writes a file for https://ui.perfetto.dev. Example::

        with profile(schedule=schedule(wait=1, warmup=1, active=3)) as prof:
            for x, y in loader:
                train_step(x, y)
                prof.step()
        print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))
        print(prof.key_averages(group_by="layer").table())
        prof.export_chrome_trace("trace.json")
    """

    def __init__(
        self, *, activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None, record_shapes: bool = False,
        profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False,
        with_modules: bool = False,
    ) -> None:  # fmt: skip
        wanted = supported_activities() if activities is None else set(activities)
        if not wanted & supported_activities():
            raise located(ValueError(
                f"profile: got the activities {sorted(a.name for a in wanted)}; "
                f"ProfilerActivity.CPU is what can be measured here"
            ))  # fmt: skip
        self.schedule = schedule or _always
        self.on_trace_ready = on_trace_ready
        self.profile_memory = profile_memory
        self.step_num = 0
        self.current_action = self.schedule(0)
        self._recording: Recording | None = None
        self._timeline: Timeline | None = None
        self._peak: PeakWatch | None = None
        self._step_began = 0.0

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begins with step 0."""
        if self.current_action in _RECORDS:
            self._begin()
        self._step_began = perf_counter()

    def step(self) -> None:
        """The step is over: evaluates what it left pending, and goes on as the schedule says."""
        if self._recording is not None:
            evaluate()
            self._recording.add(f"ProfilerStep#{self.step_num}", STEP, self._step_began)
        before = self.current_action
        self.step_num += 1
        self.current_action = self.schedule(self.step_num)
        is_over = before is ProfilerAction.RECORD_AND_SAVE or self.current_action not in _RECORDS
        if self._recording is not None and is_over:
            self._finish()
        if self.current_action in _RECORDS and self._recording is None:
            self._begin()
        self._step_began = perf_counter()

    def stop(self) -> None:
        """Ends: evaluates what is pending, and puts everything back as it was."""
        if self._recording is not None:
            try:
                evaluate()
            finally:
                self._finish()

    def _begin(self) -> None:
        recording = Recording()
        if self.profile_memory:
            self._peak = PeakWatch()
            recording.on_evaluation = self._peak.note
        recording.start()
        self._recording = recording

    def _finish(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        recording.stop()
        self._timeline = Timeline(recording)
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    # --- what it found ------------------------------------------------------------------------

    @property
    def timeline(self) -> Timeline:
        """The last complete recording; RuntimeError where there is none."""
        if self._timeline is None:
            raise located(RuntimeError(
                "profile: nothing has been recorded yet; read results after the `with` block (or "
                "stop()), and let the schedule come to its active steps with step()"
            ))  # fmt: skip
        return self._timeline

    def events(self) -> list[FunctionEvent]:
        """Everything that was noted, by its start."""
        return self.timeline.events()

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, group_by: str = "op"
    ) -> EventList:
        """Events summed up by what they have in common; ``.table()`` prints them.

        Args:
            group_by_input_shape: kernels of other shapes are rows of their own.
            group_by_stack_n: 1 or more: by the user's line, as ``group_by="line"``.
            group_by: "op" (kernels by the operations in them, and what the host did), "layer",
                "line" or "label" (``record_function``). In these three a kernel's time is divided
                among its operations by what they cost.
        """
        if group_by_stack_n > 0:
            group_by = "line"
        return self.timeline.averages(group_by, group_by_input_shape)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes the trace as JSON (gzipped where the path ends in .gz) for Perfetto."""
        write_trace(self.timeline, os.fspath(path))

    def memory(self) -> MemoryReport:
        """Who held the memory at the peak (with ``profile_memory=True``), else now."""
        if self._peak is not None and self._peak.report is not None:
            return self._peak.report
        return memory_report()


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For ``on_trace_ready``: writes each trace to a file of its own in a folder."""

    def write(folder: str, worker: str, prof: profile) -> None:
        os.makedirs(folder, exist_ok=True)
        ending = ".pt.trace.json.gz" if use_gzip else ".pt.trace.json"
        prof.export_chrome_trace(os.path.join(folder, f"{worker}.{time.time_ns()}{ending}"))

    return partial(write, dir_name, worker_name or f"treadle_{os.getpid()}")


__all__ = [
    "ProfilerAction", "ProfilerActivity", "profile", "schedule", "supported_activities",
    "tensorboard_trace_handler",
]  # fmt: skip
