"""Locks that are held while the process forks, so that a child finds nothing half done.

Taken in the order in which they nest elsewhere, whatever the order in which their modules were
imported: taken otherwise they could wait for each other for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable

# How deep a lock lies: whoever holds one may take those of larger numbers.
EVALUATION, COMPILATION, GENERATORS = range(3)

_held: dict[int, tuple[Callable[[], object], Callable[[], object], Callable[[], object]]] = {}


def hold_across_fork(
    depth: int,
    acquire: Callable[[], object],
    release: Callable[[], object],
    in_child: Callable[[], object] | None = None,
) -> None:
    """Calls ``acquire`` before a fork, then ``release`` (in the child ``in_child``, if given)."""
    if not _held and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_acquire_all, after_in_parent=_release_all, after_in_child=_in_child
        )
    _held[depth] = acquire, release, in_child or release


def _acquire_all() -> None:
    for depth in sorted(_held):
        _held[depth][0]()


def _release_all() -> None:
    for depth in sorted(_held, reverse=True):
        _held[depth][1]()


def _in_child() -> None:
    for depth in sorted(_held, reverse=True):
        _held[depth][2]()
