"""Every kind of function of tensors beside PyTorch, from one element to ten million.

A call is made and its result computed; on both sides nothing else is going on, so at small sizes
this is what recording one operation and reading it at once costs. Functions are timed
alone, so nothing is fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import treadle
from bench.function_table import CASES, Functions
from bench.harness import Options, Row, in_turn
from bench.timing import seconds_per_call
from treadle.compiler.tier0 import force

SIZES = (1, 1_000, 100_000, 10_000_000)
_BOUND = 1.1  # times PyTorch
_ROUNDS = 3  # of each of some thousand figures


def _nodes(result: Any) -> list[Any]:
    """What is to be computed of a result: a tensor, or several."""
    if isinstance(result, treadle.Tensor):
        return [result.node]
    return [part.node for part in result if isinstance(part, treadle.Tensor)]


def _ours(functions: Functions, name: str, n: int) -> Callable[[], dict[str, float]]:
    call = functions.call(name, n)

    def once() -> None:
        force(_nodes(call()))

    for _ in range(3):
        once()
    return lambda: {"seconds": seconds_per_call(once)}


def run(options: Options) -> list[Row]:
    """A row for each function and size; without PyTorch its time alone."""
    functions, rows = Functions(treadle), []
    for n in options.functions.sizes or SIZES:
        for name in CASES:
            if options.functions.only and options.functions.only not in name:
                continue
            measures = [_ours(functions, name, n)]
            if options.torch:
                measures.append(
                    lambda name=name, n=n: options.torch.ask("function", name=name, n=n)
                )
            found = [part["seconds"] for part in in_turn(min(options.rounds, _ROUNDS), measures)]
            theirs = found[1] if options.torch else None
            bound = None if theirs is None else _BOUND * theirs
            rows.append(Row(f"{name}, {n:,}", found[0], theirs, bound=bound))
    return rows
