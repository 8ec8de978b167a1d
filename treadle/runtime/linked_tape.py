"""A tape that is run again and again at other addresses: its first call writes them into it."""

from __future__ import annotations

import array
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from treadle.base import dtypes
from treadle.runtime import pool

if TYPE_CHECKING:
    from treadle.ir.loop import Kernel

_HEAD = 4  # words of a call before its arguments
_FIRST = _HEAD + 3  # words of the call that writes the addresses


def relocate() -> Kernel:
    """``tape[position] = table[slot] + offset`` for each patch (position, slot, offset)."""
    from treadle.ir.loop import BEGIN, END, Builder  # only where a kernel is built

    k = Builder("relocate")
    tape, patches, table = (k.pointer(n, dtypes.int64) for n in ("tape", "patches", "table"))
    with k.loop(BEGIN, END) as patch:
        at = k.mul(patch, 3)
        base = k.load(table, k.load(patches, k.add(at, 1)))
        address = k.add(base, k.load(patches, k.add(at, 2)))
        k.store(tape, k.load(patches, at), address)
    return k.kernel


class LinkedTape:
    """``calls`` calls whose addresses are filled in by patches from a table with ``slots`` words.

    One run at a time.
    """

    def __init__(
        self, entry: int, tape: bytes, calls: int, patches: Sequence[tuple[int, int, int]],
        slots: int, threads: int,
    ) -> None:  # fmt: skip
        self._calls = calls + 1
        self._threads = threads
        self._pack: Callable[..., None] = struct.Struct(f"{slots}q").pack_into
        self._table = array.array("q", bytes(8 * slots))
        self._patches = array.array("q")
        for position, slot, offset in patches:
            self._patches.extend((_FIRST + position, slot, offset))
        self._tape = array.array("q", (entry, 3, len(patches), 0, 0, 0, 0))
        self._tape.frombytes(tape)
        for argument, words in enumerate((self._tape, self._patches, self._table)):
            self._tape[_HEAD + argument] = words.buffer_info()[0]

    def run(self, addresses: Sequence[int], times: array.array[int] | None = None) -> int:
        """Fills in the table and runs; the position of the call that failed, or -1.

        ``times``, of two more words than there are calls, gets the ticks at the start, when the
        table is filled in, and after every call.
        """
        self._pack(self._table, 0, *addresses)
        failed, _ = pool.run_tape(self._tape, self._calls, self._threads, times)
        return failed - 1 if failed >= 0 else -1
