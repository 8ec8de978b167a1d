"""How one call is timed, here and in the processes of the other libraries. Imports none of them."""

from __future__ import annotations

import time
from collections.abc import Callable

_SAMPLE_SECONDS = 0.02  # what one round of a short call takes, at least


def seconds_per_call(
    call: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """The time of one call, out of as many as take a while."""
    repeats = 1
    while True:
        begin = clock()
        for _ in range(repeats):
            call()
        seconds = clock() - begin
        if seconds >= _SAMPLE_SECONDS:
            return seconds / repeats
        repeats = max(2 * repeats, int(repeats * _SAMPLE_SECONDS / max(seconds, 1e-9) * 1.1))
