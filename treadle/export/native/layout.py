"""What a build keeps, and where: weights, the state, the numbers that operations read.

The *state* is the caller's: its head (``driver.py``), numbers that change from call to call, the
weights that change, and what is packed from the others. The *table* is constant: numbers that stay,
and what the state begins with.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from treadle.base.record import Record
from treadle.export.bind import DRAWN, Bound, bind, plain_number
from treadle.export.native.driver import SEED, STEPS, Copied, Draw, Numbered
from treadle.export.native.entry import STATE, TABLE, WEIGHTS, At
from treadle.export.program import ExportedProgram, Steps
from treadle.ir.graph import Graph
from treadle.ops.source import number as scalar
from treadle.random.generator import DEFAULT_SEED

_LINE = 64
_MOST_ROWS = 1 << 18  # steps of an optimizer for which there are numbers


class Numbers(Record):
    """Where a graph's block of numbers lies, and how it is brought up to date before a call."""

    at: At
    draws: tuple[Draw, ...]
    steps: tuple[Numbered, ...]


class Kept(Record):
    """A weight of the library: its place, and whether it lies in the state, where it changes."""

    name: str
    at: At
    nbytes: int


class StateLayout:
    """Gives everything its place; ``state`` is the size of the state so far."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.table = bytearray()
        self.image: list[bytes] = []
        self.kept: dict[str, Kept] = {}
        self.copies: list[Copied] = []
        counters = [0] * len(program.optimizers)
        head = struct.pack(f"<3Q{len(counters)}q", DEFAULT_SEED, 0, 0, *counters)
        self.state = aligned(STEPS + 8 * len(counters))
        self.copies.append(Copied(TABLE, self._constant(head), SEED, len(head)))

    def room(self, nbytes: int) -> int:
        """So many bytes of the state."""
        start = self.state
        self.state += aligned(nbytes)
        return start

    def _constant(self, data: bytes) -> int:
        start = len(self.table)
        self.table += data.ljust(aligned(len(data)), b"\0")
        return start

    def place_weights(self, names: Iterable[str], mutable: frozenset[str]) -> None:
        """Places the weights that are used; those that change begin as copies."""
        size = 0
        for name in names:
            data = np.ascontiguousarray(np.asarray(self.program.weights[name])).tobytes()
            self.image.append(data.ljust(aligned(len(data)), b"\0"))
            at = WEIGHTS, size
            if name in mutable:
                at = STATE, self.room(len(data))
                self.copies.append(Copied(WEIGHTS, size, at[1], aligned(len(data))))
            self.kept[name] = Kept(name, at, len(data))
            size += aligned(len(data))

    def numbers(self, graph: Graph, sizes: Mapping[str, int]) -> Numbers:
        """The block of a graph's numbers: constant, or in the state where some change."""
        bound = bind(graph, sizes)
        changing = [n.rule in ("draw", "optimizer") for n in graph.numbers]
        packed = [
            b"" if changes else scalar(plain_number(n, bound, _no_step), n.dtype).packed
            for n, changes in zip(graph.numbers, changing, strict=True)
        ]
        block = b"".join(p.ljust(8, b"\0") for p in packed)
        source = self._constant(block)
        if not any(changing):
            return Numbers((TABLE, source), (), ())
        start = self.room(len(block))
        self.copies.append(Copied(TABLE, source, start, len(block)))
        return Numbers(
            (STATE, start), _draws(graph, bound, start), tuple(self._steps(graph, start))
        )

    def _steps(self, graph: Graph, start: int) -> Iterable[Numbered]:
        used: dict[int, list[int]] = {}
        for position, n in enumerate(graph.numbers):
            if n.rule == "optimizer":
                used.setdefault(n.value[0], []).append(position)
        for optimizer, positions in used.items():
            numbers = [graph.numbers[p] for p in positions]

            def row(
                step: int, steps: Steps = self.program.optimizers[optimizer],
                columns: Sequence[tuple[int, object]] = [(n.value[1], n.dtype) for n in numbers],
            ) -> bytes:  # fmt: skip
                found = steps.numbers_at(steps.steps + step)
                return b"".join(
                    scalar(found[place], dtype).packed.ljust(8, b"\0")  # type: ignore[arg-type]
                    for place, dtype in columns
                )

            rows, ends = _rows(row)
            places = tuple([start + 8 * p for p in positions])
            yield Numbered(optimizer, b"".join(rows), places, len(rows), ends)


def aligned(nbytes: int) -> int:
    """Rounded up to whole lines of 64 bytes."""
    return -(-nbytes // _LINE) * _LINE


def _no_step(optimizer: int, place: int) -> float:
    raise ValueError(f"number {place} of optimizer {optimizer} follows from its steps")


def _draws(graph: Graph, bound: Bound, start: int) -> tuple[Draw, ...]:
    """As ``bind.scalars_of`` draws: a seed begins a draw, stream and offset follow it."""
    found: list[list[int]] = []
    first = len(graph.inputs) + len(graph.weights)
    for position, n in enumerate(graph.numbers):
        if n.rule == "draw":
            if n.value == DRAWN[0]:
                found.append([-1, -1, -1, bound.draws.get(first + position, 0)])
            found[-1][DRAWN.index(n.value)] = start + 8 * position
    return tuple([Draw((a, b, c), counters) for a, b, c, counters in found])


def _rows(row: Callable[[int], bytes]) -> tuple[list[bytes], bool]:
    """The rows for the steps from 1 until they stay the same, and whether there are more."""
    last = row(_MOST_ROWS)
    count = 1
    while count < _MOST_ROWS and row(count) != last:
        count *= 2
    rows = [row(step) for step in range(1, count + 1)]
    while len(rows) > 1 and rows[-1] == rows[-2]:
        rows.pop()
    return rows, count == _MOST_ROWS


__all__ = ["Kept", "Numbers", "StateLayout", "aligned"]
