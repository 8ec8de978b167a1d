"""What only Treadle can tell of a step: its operations and bytes, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench.clock import Clock
from treadle.base.flags import flags
from treadle.compiler import tier0
from treadle.compiler.program import Program
from treadle.compiler.programs import Programs
from treadle.compiler.tier0 import Evaluator
from treadle.ir.node import Node
from treadle.optim import Optimizer
from treadle.runtime import pool
from treadle.tensor.tensor import Tensor


def work_of(step: Callable[[], object]) -> dict[str, float]:
    """The operations of the contractions that a step needs, and the bytes it must move.

    Those are what comes from outside, once, and what is kept, once: the least there can be.
    """
    found = {"flops": 0.0, "bytes": 0.0}
    inner = Evaluator._run

    def counting(self: Evaluator, live: list[Node]) -> None:
        inside = set(live)
        outside = {i for n in live for i in n.inputs if i not in inside}
        kept = [n for n in live if n.keep and not n.sig.is_view]
        found["bytes"] += sum(n.sig.nbytes for n in (*outside, *kept))
        for n in live:
            if "contraction" in n.op.traits:
                found["flops"] += n.op.cost(n.sig.inputs, n.sig.type, n.attrs).flops
        inner(self, live)

    setattr(Evaluator, "_run", counting)  # noqa: B010
    try:
        with flags.context(programs="off"):
            step()
    finally:
        setattr(Evaluator, "_run", inner)  # noqa: B010
    return found


# What is timed: where it is found, its name, and what the table calls it.
_PARTS: tuple[tuple[Any, str, str], ...] = (
    (Tensor, "backward", "host: backward"),
    (Optimizer, "step", "host: optimizer"),
    (Evaluator, "evaluate", "host: evaluation"),
    (tier0, "scan", "host: key"),
    (Programs, "find", "host: key"),
    (Program, "run", "host: program"),
    (pool, "run_tape", "kernels"),
)


def profile_of(step: Callable[[], object], steps: int) -> dict[str, float]:
    """Seconds of a step by part, over ``steps`` steps; what is in no other part is recording.

    They are seconds of this thread, so that what else runs on the machine hardly matters.
    """
    clock = Clock(time.thread_time)
    with ExitStack() as stack:
        for owner, name, called in _PARTS:
            stack.enter_context(clock.on(owner, name, called))
        begin = time.thread_time()
        for _ in range(steps):
            step()
        total = time.thread_time() - begin
    parts = {called: clock.seconds.get(called, 0.0) / steps for *_, called in _PARTS}
    recording = total / steps - sum(parts.values())
    return {"a step": total / steps, "host: recording": recording, **parts}
