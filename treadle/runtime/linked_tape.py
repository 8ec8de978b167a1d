"""A tape that is run again and again at other addresses: its first call writes them into it."""

from __future__ import annotations

import array
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from treadle.base import dtypes
from treadle.compiler.device import Stamp
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


def run_stamped(
    pieces: Sequence[bytes], stamps: Sequence[tuple[int, int]], table: array.array[int], calls: int,
    threads: int, times: array.array[int],
) -> int:  # fmt: skip
    """Runs linked tapes and others as one; see ``Device.run_stamped``."""
    tape = array.array("q", b"".join(pieces))
    starts = list(accumulate(map(len, pieces), initial=0))
    base, words = tape.buffer_info()[0], table.buffer_info()[0]
    for piece, place in stamps:
        start = starts[piece]
        at = start // 8 + _HEAD
        tape[at] = base + start
        tape[at + 2] = words + 8 * place
    return pool.run_tape(tape, calls, threads, times)[0]


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

    def stamp(self) -> Stamp:
        """The tape as a piece of a longer one, which has to be told where it lies."""
        return Stamp(self._tape.tobytes(), self._calls)

    def run(
        self, addresses: Sequence[int], times: array.array[int] | None = None,
        moves: Iterable[object] = (),
    ) -> int:  # fmt: skip
        """Fills in the table and runs; the position of the call that failed, or -1.

        ``times``, of two more words than there are calls, gets the ticks at the start, when the
        table is filled in, and after every call. ``moves`` are gone through if no call failed.
        """
        self._pack(self._table, 0, *addresses)
        failed, _ = pool.run_tape(self._tape, self._calls, self._threads, times, moves)
        return failed - 1 if failed >= 0 else -1
