"""How much memory a scenario takes more after many steps than after a few."""

from __future__ import annotations

import gc
import resource

from treadle.base.record import Record
from treadle.compiler.programs import wait_for_programs
from treadle.ops import source
from treadle.random.generator import manual_seed
from treadle.runtime.memory import memory_stats
from treadle.tensor.tensor import Tensor
from treadle.testing.scenarios import PERIOD, SCENARIOS, treadle

_WARM_UP = 15 * PERIOD  # steps before the first measurement, twice: then programs are fused
_TENSORS = 16 << 10  # bytes: what differs between two steps of a scenario
_PROCESS = 4 << 20  # bytes: programs of graphs that are new, and the allocator of Python


class Growth(Record):
    """What was more after ``steps`` steps, in bytes."""

    name: str
    steps: int
    tensors: int
    process: int

    def excess(self) -> str:
        """Empty where it is within bounds, which do not depend on the number of steps."""
        text = f"{self.name}: after {self.steps} steps"
        if self.tensors > _TENSORS:
            return f"{text} {self.tensors} bytes more in tensors; at most {_TENSORS} may differ"
        if self.process > _PROCESS:
            return f"{text} the process has {self.process} bytes more; at most {_PROCESS}"
        return ""


def growth(name: str, steps: int) -> Growth:
    """Runs a scenario, reading all of its results; fewer steps where one is worth several."""
    manual_seed(3)
    one = SCENARIOS[name]
    step = one.begin(treadle())
    warm, steps = max(_WARM_UP // one.size, 4), max(steps // one.size, 4)
    for start in (0, warm):
        _run(step, range(start, start + warm))
        wait_for_programs()
    before = _in_use()
    _run(step, range(2 * warm, 2 * warm + steps))
    wait_for_programs()
    after = _in_use()
    return Growth(name, steps, after[0] - before[0], after[1] - before[1])


def _run(step: object, calls: range) -> None:
    for i in calls:
        for value in step(i):  # type: ignore[operator]
            if isinstance(value, Tensor):
                value.numpy(force=True)


def _in_use() -> tuple[int, int]:
    """Bytes in tensors (without remembered numbers, a bounded table), and of the process."""
    source._scalars.clear()
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * resource.getpagesize()
    return memory_stats()["allocated.current"], resident


__all__ = ["Growth", "growth"]
