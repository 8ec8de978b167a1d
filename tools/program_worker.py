"""The programs of ``tests/programs/corpus`` on one framework, in a process of its own.

Run by an interpreter that has the framework which ``BENCH_FRAMEWORK`` names.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable

from bench.models.framework import NAME, torch
from bench.models.session import Session, answer
from tools import program_corpus as corpus


class _Programs(Session):
    """With what each step tells, and the time of the first steps."""

    def __init__(self) -> None:
        super().__init__(torch.__version__, _begin, lambda step: 0, _is_compiling)

    def told(self, program: str, is_wide: bool = False) -> list[list[float]]:
        """What the first steps tell, all draws given."""
        return corpus.told(program, NAME, is_wide=is_wide).tolist()

    def first(self, program: str) -> float:
        """Seconds of the first steps, from the making of the network on."""
        return self.start(program) + sum(self.step() for _ in range(corpus.STEPS - 1))


def _begin(program: str) -> Callable[[int], object]:
    """The steps of a program, and of the same training again where it has ended."""
    torch.manual_seed(0)
    train = corpus.load(program, NAME).train
    steps = itertools.chain.from_iterable(train() for _ in itertools.count())
    return lambda i: next(steps)


def _is_compiling() -> bool:
    if NAME != "treadle":
        return False
    from treadle.compiler import programs

    return not programs.wait_for_programs(0.0)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        answer(_Programs())
