"""Where temporary values lie: an arena in which what is in use at the same time lies apart."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from heapq import heappop, heappush

from treadle.base.errors import CompileError

_ALIGNMENT = 64


class Storage:
    """A block of memory and the steps during which it is in use."""

    __slots__ = (
        "first", "heir", "inherits", "is_constant", "is_result", "last", "nbytes", "offset",
    )  # fmt: skip

    def __init__(self, nbytes: int, first: int) -> None:
        self.nbytes = nbytes
        self.first = self.last = first
        self.is_result = False  # outlives the program
        self.is_constant = False  # may be kept from run to run
        self.offset = 0  # in the arena
        self.heir: Storage | None = None  # takes over its place in its last step
        self.inherits: Storage | None = None  # whose heir it is


def lay_out(storages: list[Storage]) -> int:
    """Gives storages in use at the same time different places; the bytes that takes.

    Storages come in the order of their first steps. Each goes to the smallest gap that fits, and
    an heir to the place of what it inherits from.

    >>> a, b, c = Storage(64, 0), Storage(128, 1), Storage(64, 2)
    >>> a.last, b.last = 1, 2
    >>> lay_out([a, b, c]), a.offset, b.offset, c.offset
    (192, 0, 64, 0)
    """
    gaps = _Gaps()
    ends: list[tuple[int, int, int]] = []  # (last step, offset, size) of what is in use
    for s in storages:
        while ends and ends[0][0] < s.first:
            _, offset, size = heappop(ends)
            gaps.give_back(offset, size)
        size = _aligned(s.nbytes)
        if size:
            s.offset = gaps.take(size) if s.inherits is None else s.inherits.offset
            if s.heir is None:
                heappush(ends, (s.last, s.offset, size))
    return gaps.end


class _Gaps:
    """The free places below ``end``, none next to another."""

    def __init__(self) -> None:
        self.end = 0
        self._by_size: list[tuple[int, int]] = []  # (size, offset), sorted
        self._sizes: dict[int, int] = {}  # by offset
        self._offsets: dict[int, int] = {}  # by where the gap ends

    def take(self, size: int) -> int:
        """The offset of ``size`` bytes in the smallest gap that has them, or at the end."""
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            offset = self._offsets.get(self.end, self.end)
            if offset < self.end:
                self._remove(offset)
            self.end = offset + size
            return offset
        found, offset = self._by_size[at]
        self._remove(offset)
        if found > size:
            self._insert(offset + size, found - size)
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Makes a place free, as one with the gaps beside it."""
        after = self._sizes.get(offset + size)
        if after is not None:
            self._remove(offset + size)
            size += after
        before = self._offsets.get(offset)
        if before is not None:
            size += self._remove(before)
            offset = before
        self._insert(offset, size)

    def _insert(self, offset: int, size: int) -> None:
        insort(self._by_size, (size, offset))
        self._sizes[offset] = size
        self._offsets[offset + size] = offset

    def _remove(self, offset: int) -> int:
        size = self._sizes.pop(offset)
        del self._offsets[offset + size]
        del self._by_size[bisect_left(self._by_size, (size, offset))]
        return size


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def verify_arena(storages: Iterable[Storage], end: int) -> None:
    """Raises CompileError where two storages in use at the same time share memory."""
    placed: list[Storage] = []
    for s in sorted((s for s in storages if s.nbytes), key=lambda s: s.first):
        placed = [other for other in placed if other.last >= s.first]
        over = any(
            s.offset < other.offset + other.nbytes and other.offset < s.offset + s.nbytes
            for other in placed
            if other is not s.inherits
        )
        if over or s.offset + s.nbytes > end or s.offset % _ALIGNMENT:
            raise CompileError(
                f"the arena of {end} bytes: {s.nbytes} bytes at {s.offset}, in use from step "
                f"{s.first} to {s.last}, share memory with another value or lie outside"
            )
        placed.append(s)


__all__ = ["Storage", "lay_out", "verify_arena"]
