"""Python's cyclic garbage collector, kept out of the way."""

from __future__ import annotations

import gc


class CollectorPaused:
    """No cyclic collection inside a ``with`` block that makes many objects and no garbage.

    >>> with CollectorPaused():
    ...     gc.isenabled()
    False
    """

    __slots__ = ("_enabled",)

    def __enter__(self) -> None:
        self._enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *exc: object) -> None:
        if self._enabled:
            gc.enable()
