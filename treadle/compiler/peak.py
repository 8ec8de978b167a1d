"""What is in a program's arena at its fullest moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.compiler.program import Made


def arena_at_peak(made: Made) -> list[tuple[int | None, str, int]]:
    """Value, type and bytes of all that lies in the arena when it holds most, largest first.

    The value is None for a workspace of a kernel.
    """
    temporary = {i: s for i, s in enumerate(made.storages) if s.nbytes and not s.is_result}
    changes = [0] * (len(made.steps) + 1)
    for s in temporary.values():
        changes[s.first] += s.nbytes
        changes[s.last + (s.heir is None)] -= s.nbytes
    most = in_use = peak = 0
    for step, change in enumerate(changes):
        in_use += change
        if in_use > most:
            most, peak = in_use, step
    values: dict[int, tuple[int, str]] = {}  # storage -> the value it was made for
    for value, place in made.places.items():
        if value >= made.trace.first:
            for p in place if isinstance(place[0], tuple) else (place,):
                values.setdefault(p.storage, (value, f"{p.layout.dtype.short}{[*p.layout.shape]}"))
    found: list[tuple[int | None, str, int]] = []
    for i, s in temporary.items():
        if s.first <= peak < s.last + (s.heir is None):
            made_for = values.get(i)
            found.append((*made_for, s.nbytes) if made_for else (None, "", s.nbytes))
    return sorted(found, key=lambda row: -row[2])


__all__ = ["arena_at_peak"]
