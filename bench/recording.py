"""What an operation costs where the arithmetic costs nothing: recording, gradient, evaluation."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np

import treadle
from bench.harness import Options, Row, alternate

_REPEATS = 1000  # of two operations
_BOUND = 6e-6
_TIMES_TORCH = 1.1


def _round() -> dict[str, float]:
    a = treadle.from_numpy(np.full((4, 4), 0.999, np.float32)).requires_grad_()
    b = treadle.ones(4, 4)
    x = treadle.ones(4, 4)
    times = [time.perf_counter()]
    for _ in range(_REPEATS):
        x = x * a
        x = x + b
    times.append(time.perf_counter())
    x.sum().backward()
    times.append(time.perf_counter())
    a.grad.numpy()
    times.append(time.perf_counter())
    record, backward, evaluate = ((end - begin) / (2 * _REPEATS) for begin, end in pairwise(times))
    return {"record": record, "backward": backward, "evaluate": evaluate,
            "total": record + backward + evaluate}  # fmt: skip


def run(options: Options) -> list[Row]:
    """Time per operation, whole and in parts."""
    torch = options.torch

    def beside() -> dict[str, float]:
        return torch.ask("recording", repeats=_REPEATS)  # type: ignore[no-any-return]

    ours, theirs = alternate(options.rounds, _round, beside if torch else None)
    reference = theirs.get("total", 0.0)
    return [
        Row("an operation, all told", ours["total"], theirs.get("total"),
            bound=max(_BOUND, _TIMES_TORCH * reference), note="6 us or 1.1 times PyTorch"),
        Row("  recording it", ours["record"], theirs.get("record"), note="PyTorch computes it too"),
        Row("  its gradient", ours["backward"], theirs.get("backward")),
        Row("  evaluation", ours["evaluate"], theirs.get("evaluate")),
    ]  # fmt: skip
