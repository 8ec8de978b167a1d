"""A program on Treadle or on PyTorch, in a process of its own.

Run by an interpreter that has the framework which ``BENCH_FRAMEWORK`` names.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from bench.models.catalog import make
from bench.models.draws import Draws
from bench.models.framework import NAME, torch
from bench.models.session import Session, answer


class _Programs(Session):
    """With the tasks that need more than steps."""

    def __init__(self) -> None:
        if NAME == "treadle":
            super().__init__(torch.__version__, _start, _live_of_treadle, _is_compiling)
        else:
            super().__init__(torch.__version__, _start, _live_of_torch)

    def losses(self, program: str, steps: int, dtype: str) -> list[float]:
        """What every step tells, from given numbers."""
        torch.set_default_dtype(getattr(torch, dtype))
        made = make(program, Draws(is_given=True, dtype=dtype))
        return [made.step(i) for i in range(steps)]

    def work(self) -> dict[str, float]:
        """What a step must do (Treadle only)."""
        from bench.models.inside import work_of

        return work_of(self.step)

    def profile(self, steps: int) -> dict[str, float]:
        """Where the time of a step goes (Treadle only)."""
        from bench.models.inside import profile_of

        return profile_of(self.step, steps)


def _start(program: str, is_compiled: bool = False) -> Callable[[int], float]:
    made = make(program, Draws())
    if is_compiled:
        made.compile(torch.compile)
    return made.step


def _is_compiling() -> bool:
    from treadle.compiler import programs

    return not programs.wait_for_programs(0.0)


def _live_of_treadle(step: Callable[[], object]) -> int:
    torch.reset_peak_memory_stats()
    step()
    return torch.memory_stats()["allocated.peak"]


def _live_of_torch(step: Callable[[], object]) -> int:
    """PyTorch counts no memory on CPUs: what is there before the step, and its profiler's sums."""
    real = (torch.Tensor, torch.nn.Parameter)  # and not what its compiler pretends with
    tensors = [x for x in gc.get_objects() if type(x) in real and x.device.type == "cpu"]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    del tensors
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    now = peak = sum(storages.values())
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    answer(_Programs())
