"""Drawing when a fused program takes the place of the one that ran before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from treadle.compiler import programs
from treadle.compiler.programs import Known, Programs

_CHANCES = (0.5, 0.2, 0.05)  # of a swap at a look at the program; drawn for each


class _Drawing:
    """Stands in for the workshop: makes a program at once, at a look that is drawn."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._chances: dict[Known, float] = {}
        self._workshop = programs._Workshop()

    def take(self, owner: Programs, known: Known) -> None:
        """Called whenever the program is looked up, until it has taken the trace."""
        chance = self._chances.setdefault(known, float(self._rng.choice(_CHANCES)))
        if self._rng.random() < chance and known.trace is not None:
            trace, known.trace = known.trace, None
            self._workshop._make(owner, known, trace)


@contextmanager
def drawn_swaps(seed: int) -> Iterator[None]:
    """Inside, fused programs are made at once, at a moment that is drawn for each."""
    with patch.object(programs, "_workshop", _Drawing(seed)):
        yield


__all__ = ["drawn_swaps"]
