"""Where the time of a step goes: sums over the calls of functions, each without what it calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Clock:
    """Sums the time spent inside functions while it is on them, by the clock ``now``."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.seconds: dict[str, float] = {}  # by name, less the functions inside that it is on too
        self._inside: list[float] = []  # for each call under way: time of such calls inside it

    @contextmanager
    def on(self, owner: Any, name: str, called: str = "") -> Iterator[None]:
        """Counts the calls of ``owner.name``, under the name ``called`` if there is one."""
        inner: Callable[..., Any] = getattr(owner, name)
        label = called or name

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            begin = self._now()
            try:
                return inner(*args, **kwargs)
            finally:
                spent = self._now() - begin
                own = spent - self._inside.pop()
                self.seconds[label] = self.seconds.get(label, 0.0) + own
                if self._inside:
                    self._inside[-1] += spent

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, inner)
