"""Drawing when a fused program takes the place of the one that ran before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from treadle.compiler import programs
from treadle.compiler.programs import Known, Programs
from treadle.compiler.trace import Trace

_CHANCES = (0.5, 0.2, 0.05)  # of a swap at a look at the program; drawn for each


class _Drawing(programs._Workshop):
    """Stands in for the workshop: makes a program at once, at a look that is drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)
        self._chances: dict[Known, float] = {}

    def take(self, programs: Programs, known: Known) -> None:
        """Called whenever the program is looked up, until it has taken the trace."""
        chance = self._chances.setdefault(known, float(self._rng.choice(_CHANCES)))
        if self._rng.random() < chance:
            super().take(programs, known)

    def order(self, programs: Programs, known: Known, trace: Trace, fused: bool) -> None:
        """Makes it now."""
        self._make(programs, known, trace, fused)


@contextmanager
def drawn_swaps(seed: int) -> Iterator[None]:
    """Inside, fused programs are made at once, at a moment that is drawn for each."""
    with patch.object(programs, "_workshop", _Drawing(seed)):
        yield


__all__ = ["drawn_swaps"]
