"""Who holds the memory: parameters, gradients, the optimizer's state, other tensors, the graph.

The allocator hands out blocks without asking what for: a value becomes a parameter or a gradient
later, when a tensor comes to point to it. So owners are found when somebody asks, by a walk over
all of Python's objects; each block counts for the first owner in the list that holds it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from treadle.base.record import Record
from treadle.ir.call import Call
from treadle.ir.node import Leaf, Node
from treadle.runtime import memory
from treadle.tensor.handle import Handle

_Find = Callable[[Any], Iterable[Any]]
_GROWTH = 1.05  # of the peak, before its owners are looked for again


def _kept_by(call: Call) -> list[tuple[Call, int]]:
    """What a call keeps for the gradient of nodes that do not exist."""
    return [(call, index) for index in getattr(call, "values", None) or ()]


_owners: list[tuple[str, type, _Find]] = [
    ("parameters", Handle, lambda h: (h,) if type(getattr(h, "_node", None)) is Leaf else ()),
    ("gradients", Handle, lambda h: (getattr(h, "_grad", None),)),
    ("other tensors", Handle, lambda h: (h,)),
    ("graph", Node, lambda n: (n,)),
    ("graph", Call, _kept_by),
]
_REST = "workspaces"
_FIRST_GENERAL = "other tensors"


def register_owner(name: str, kind: type, find: _Find) -> None:
    """Counts the memory of the tensors ``find(object)`` of each object of a class as ``name``'s."""
    position = [known for known, _, _ in _owners].index(_FIRST_GENERAL)
    _owners.insert(position, (name, kind, find))


def memory_by_owner() -> dict[str, int]:
    """Bytes of whole blocks by who holds them now; their sum is ``allocated.current``.

    ``graph`` is values that a gradient still needs; ``workspaces`` is the rest, such as memory
    that compiled programs keep. It walks over all objects: some ten milliseconds.

    >>> import treadle
    >>> sorted(treadle.memory_by_owner())
    ['gradients', 'graph', ..., 'other tensors', 'parameters', 'workspaces']
    """
    found = dict.fromkeys([*(name for name, _, _ in _owners), _REST], 0)
    for held in holdings():
        found[held.owner] += held.nbytes
    return found


class Holding(Record):
    """A block of memory: its bytes, its first owner, and what holds it there.

    ``held`` is a tensor, a node, or a call and the number of its node; None for a workspace.
    """

    owner: str
    held: Any
    nbytes: int


def holdings() -> Iterator[Holding]:
    """All blocks in use, each with its first owner; it walks over all objects."""
    blocks = memory.blocks()
    kinds = tuple(kind for _, kind, _ in _owners)
    objects = [x for x in gc.get_objects() if issubclass(type(x), kinds)]
    for name, kind, find in _owners:
        for x in objects:
            if issubclass(type(x), kind):
                for held in find(x):
                    for buffer in _memory_of(held):
                        nbytes = blocks.pop(buffer, 0)
                        if nbytes:
                            yield Holding(name, held, nbytes)
    for nbytes in blocks.values():
        yield Holding(_REST, None, nbytes)


def _memory_of(held: Any) -> list[Any]:
    """The buffers of a tensor's or a node's values."""
    # Another thread may be in the middle of making it.
    if type(held) is tuple:
        call, index = held
        value = (call.values or {}).get(index)
    else:
        node = held if isinstance(held, Node) else getattr(held, "_node", None)
        value = getattr(node, "value", None)
    if value is None:
        return []
    values = value if type(value[0]) is tuple else (value,)
    return [v[0] for v in values]


class _Peak:
    """Who held what when most was handed out, where somebody asked for that."""

    owners: dict[str, int] | None = None
    next_bytes = 0.0


def _note_peak(nbytes: int) -> None:
    if nbytes >= _Peak.next_bytes:
        _Peak.next_bytes = nbytes * _GROWTH
        _Peak.owners = memory_by_owner()


def reset_peak_memory_stats(by_owner: bool = False) -> None:
    """Lets the peaks start again from what is in use now.

    With ``by_owner`` it is noted from now on who holds what at the peak, to 5%, for
    ``memory_summary``; every time the peak has grown so much this takes some ten milliseconds.
    """
    memory.reset_peak_memory_stats()
    memory.watch_peak(_note_peak if by_owner else None)
    _Peak.owners, _Peak.next_bytes = None, 0.0
    if by_owner:
        _note_peak(memory.memory_stats()["allocated.current"])


def memory_summary() -> str:
    """A table of the memory in use now and at the peak, with its owners.

    Owners at the peak are shown after ``reset_peak_memory_stats(by_owner=True)``.

    >>> import treadle
    >>> print(treadle.memory_summary())
    memory                    now          peak
    allocated ...
    """
    stats = memory.memory_stats()
    owners = memory_by_owner()
    rows: list[tuple[str, int, int | None]] = []
    rows.append(("allocated", stats["allocated.current"], stats["allocated.peak"]))
    for name, nbytes in owners.items():
        rows.append((f"  {name}", nbytes, None if _Peak.owners is None else _Peak.owners[name]))
    rows.append(("reserved", stats["reserved.current"], stats["reserved.peak"]))
    lines = [f"{'memory':<18}{'now':>12}  {'peak':>12}"]
    for name, now, peak in rows:
        at_peak = "" if peak is None else memory.pretty(peak)
        lines.append(f"{name:<18}{memory.pretty(now):>12}  {at_peak:>12}".rstrip())
    return "\n".join(lines)


__all__ = ["memory_by_owner", "memory_summary", "reset_peak_memory_stats"]
