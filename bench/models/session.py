"""Answers requests about one program, one JSON object a line, until stdin ends."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

_MB = 2**20
# On one thread the time that the process had on a core, which other processes hardly change.
_now = time.process_time if "BENCH_CPU_TIME" in os.environ else time.perf_counter


class Session:
    """``make(name, **arguments)`` gives the function that does step number i of a program.

    ``live(step)`` gives the bytes of tensors at the peak of a step; ``is_busy()`` says whether
    something is still being made beside the run.
    """

    def __init__(
        self, version: str, make: Callable[..., Callable[[int], object]],
        live: Callable[[Callable[[], object]], int],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._version = version
        self._make = make
        self._live = live
        self._is_busy = is_busy
        self._program: Callable[[int], object] | None = None
        self._steps = 0  # so far

    def version(self) -> str:
        """The framework's."""
        return self._version

    def start(self, program: str, **arguments: Any) -> float:
        """Makes the program; the seconds that its first step takes."""
        self._program = self._make(program, **arguments)
        return self.step()

    def warm(self, seconds: float, least: int) -> list[float]:
        """Steps for so long, and until nothing is made beside them: the time of each."""
        times: list[float] = []
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds or len(times) < least:
            times.append(self.step())
        while self._is_busy() and time.perf_counter() - begin < 12 * seconds:
            times.append(self.step())
        return [*times, *(self.step() for _ in range(least))]

    def round(self, steps: int) -> float:
        """Seconds of a step, over so many, after one that brings the caches back."""
        if steps > 1:
            self.step()
        return sum(self.step() for _ in range(steps)) / steps

    def memory(self) -> dict[str, float]:
        """MB at the peak: of tensors in one step, and of the process so far."""
        gc.collect()
        return {"live": self._live(self.step) / _MB, "resident": resident() / _MB}

    def step(self) -> float:
        """One step; its seconds."""
        if self._program is None:
            raise RuntimeError("a program was asked about before one was started")
        begin = _now()
        self._program(self._steps)
        self._steps += 1
        return _now() - begin


def resident() -> int:
    """Bytes of memory that the process held at its peak."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def answer(session: Session) -> None:
    """Answers on the pipe that stdout was; what libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        result = getattr(session, request.pop("task"))(**request)
        print(json.dumps(result), file=replies, flush=True)
