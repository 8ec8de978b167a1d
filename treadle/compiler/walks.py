"""Going over axes of any strides in a kernel, for several operands at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.ir.loop import I64, Builder, Operand, Value


def step_classes(steps: Sequence[int]) -> str:
    """How operands step: ``c`` by one, ``b`` not at all, ``s`` by a parameter."""
    return "".join("c" if step == 1 else "b" if step == 0 else "s" for step in steps)


def steps_of(k: Builder, classes: str, stem: str) -> list[Operand]:
    """The steps as a kernel sees them."""
    known = {"c": 1, "b": 0}
    return [
        k.const(known[kind], I64) if kind in known else k.size(f"{stem}{j}")
        for j, kind in enumerate(classes)
    ]


class Walk:
    """Axes as a kernel sees them: parameters, and where a row-major index leads."""

    def __init__(self, k: Builder, stem: str, rank: int, operands: int) -> None:
        self.k = k
        self.sizes = [k.size(f"{stem}n{axis}") for axis in range(1, rank)]
        self.strides = [
            [k.size(f"{stem}s{j}_{axis}") for axis in range(rank)] for j in range(operands)
        ]

    def offsets(self, index: Operand) -> list[Operand]:
        """The offset of element ``index`` in every operand."""
        k, rank = self.k, len(self.strides[0])
        found: list[Operand] = [k.const(0, I64) for _ in self.strides]
        for axis in reversed(range(rank)):
            position = index
            if axis:
                position = k.rem(index, self.sizes[axis - 1])
                index = k.div(index, self.sizes[axis - 1])
            found = [
                k.add(f, k.mul(position, row[axis]))
                for f, row in zip(found, self.strides, strict=True)
            ]
        return found


class Runs:
    """The reduced elements as a kernel sees them: runs of evenly spaced ones, in logical order."""

    def __init__(self, k: Builder, outer_rank: int, classes: str) -> None:
        self.k = k
        self.run: Value | None = k.size("run") if outer_rank else None
        self.walk = Walk(k, "r", outer_rank, len(classes)) if outer_rank else None
        self.steps = steps_of(k, classes, "step")

    def segments(
        self,
        lo: Operand,
        hi: Operand,
        bases: Sequence[Operand],
        body: Callable[[Operand, Operand, Sequence[Operand]], None],
    ) -> None:
        """``body(a, b, origins)`` for each run: elements a..b; r is at origins[j] + r*steps[j]."""
        k = self.k
        if self.run is None or self.walk is None:
            body(lo, hi, bases)
            return
        last = k.add(k.div(k.sub(hi, 1), self.run), 1)
        with k.loop(k.div(lo, self.run), last) as index:
            start = k.mul(index, self.run)
            offsets = self.walk.offsets(index)
            origins = [
                k.sub(k.add(base, offset), k.mul(start, step))
                for base, offset, step in zip(bases, offsets, self.steps, strict=True)
            ]
            a, b = k.maximum(lo, start), k.minimum(hi, k.add(start, self.run))
            body(a, b, origins)

    def places(self, origins: Sequence[Operand], r: Operand) -> list[Operand]:
        """Where element ``r`` of every operand is."""
        k = self.k
        return [k.add(o, k.mul(r, step)) for o, step in zip(origins, self.steps, strict=True)]


__all__ = ["Runs", "Walk", "step_classes", "steps_of"]
