"""Integers that address memory, kept as sums until they are needed.

An i64 made of additions and of products with what does not change is a ``Sum``: terms, a constant,
and how it steps from lane to lane. An address adds the terms loop by loop from the outside in, so
that each loop adds what changes in it; a constant comes last, where processors add it for nothing.
i64 arithmetic wraps, so the order of the additions does not matter.
"""

from __future__ import annotations

from treadle.base.record import Record
from treadle.codegen.llvm_values import Text, ValuePrinter
from treadle.ir.loop import I64, Kernel, Pointer, wrapped

_MOST_TERMS = 8  # a sum of more is added up


class Sum(Record):
    """An i64: the sum of name * factor, plus ``constant``, plus the lane's number * ``lane``."""

    terms: tuple[tuple[str, int], ...]
    constant: int = 0
    lane: int | str = 0  # 0: the same in all lanes; a name where it is known at run time only

    @property
    def number(self) -> int | None:
        """The value, where it is a constant."""
        return None if self.terms or self.lane else self.constant


class IndexPrinter(ValuePrinter):
    """Prints sums, and the addresses that they make."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.places: dict[str, tuple[str, int]] = {}  # of pointers: address, lanes of an element

    def text(self, value: Text | Sum) -> Text:
        """The value as an operand of an instruction."""
        if isinstance(value, Text):
            return value
        base = Text(self.added(value.terms, value.constant), I64)
        if not value.lane:
            return base
        ty, lanes = self.type(I64), ", ".join(f"i64 {lane}" for lane in range(self.width))
        steps = f"<{lanes}>"
        if value.lane != 1:
            lane = self.vector(Text(str(value.lane), I64))
            steps = self.emit(f"mul {ty} {lane}, {steps}")
        return Text(self.emit(f"add {ty} {self.vector(base)}, {steps}"), I64, False)

    def added(self, terms: tuple[tuple[str, int], ...], constant: int = 0) -> str:
        """The sum of the terms, outer ones first, and of the constant."""
        result = ""
        for _, negative, name, factor in sorted(
            (self.depths[name], factor == -1, name, factor) for name, factor in terms
        ):
            term = name if factor in (1, -1) else self.emit(f"mul i64 {name}, {factor}")
            if result or negative:
                op = "sub" if negative else "add"
                result = self.emit(f"{op} i64 {result or 0}, {term}")
            else:
                result = term
        if result and constant:
            return self.emit(f"add i64 {result}, {constant}")
        return result or str(constant)

    # arithmetic
    def add(self, a: Sum, b: Sum, sign: int = 1) -> Sum:
        """``a + sign * b``."""
        terms = dict(a.terms)
        for name, factor in b.terms:
            terms[name] = wrapped(terms.get(name, 0) + sign * factor)
        left = tuple((name, factor) for name, factor in terms.items() if factor)
        if len(left) > _MOST_TERMS:
            left = ((self.added(left), 1),)
        constant = wrapped(a.constant + sign * b.constant)
        return Sum(left, constant, self._lanes(a.lane, b.lane, sign))

    def _lanes(self, a: int | str, b: int | str, sign: int) -> int | str:
        if isinstance(a, int) and isinstance(b, int):
            return wrapped(a + sign * b)
        if b == 0:
            return a
        if a == 0 and sign == 1:
            return b
        return self.emit(f"{'add' if sign == 1 else 'sub'} i64 {a}, {b}")

    def scaled(self, a: Sum, factor: int) -> Sum:
        """``a * factor``."""
        if factor == 0:
            return Sum(())
        terms = tuple((name, wrapped(f * factor)) for name, f in a.terms)
        lane: int | str = a.lane
        if isinstance(lane, int):
            lane = wrapped(lane * factor)
        elif factor != 1:
            lane = self.emit(f"mul i64 {lane}, {factor}")
        return Sum(tuple(t for t in terms if t[1]), wrapped(a.constant * factor), lane)

    def multiply(self, a: Sum, b: Sum) -> Sum | None:
        """``a * b`` term by term; None where both step from lane to lane."""
        for one, other in ((a, b), (b, a)):
            if one.number is not None:
                return self.scaled(other, one.number)
        if a.lane and b.lane:
            return None
        if b.lane or (not a.lane and self._depth(b) > self._depth(a)):
            a, b = b, a
        factor = self.added(b.terms, b.constant)
        products = [
            (self.emit(f"mul i64 {self.added(group)}, {factor}"), 1) for group in self._levels(a)
        ]
        if a.constant:
            products.append((factor, a.constant))
        lane = a.lane
        if lane:
            lane = factor if lane == 1 else self.emit(f"mul i64 {lane}, {factor}")
        whole = Sum((), 0, lane)
        for product in products:
            whole = self.add(whole, Sum((product,)))
        return whole

    def _depth(self, a: Sum) -> int:
        return max((self.depths[name] for name, _ in a.terms), default=0)

    def _levels(self, a: Sum) -> list[tuple[tuple[str, int], ...]]:
        """The terms by the loop that computes them, outer ones first."""
        groups: dict[int, list[tuple[str, int]]] = {}
        for term in a.terms:
            groups.setdefault(self.depths[term[0]], []).append(term)
        return [tuple(groups[depth]) for depth in sorted(groups)]

    # addresses
    def address(self, pointer: Pointer, index: Sum) -> str:
        """Where the element is; in lane 0, where the index steps from lane to lane."""
        name, width = self.places[pointer.name]
        ty = self.memory_type(pointer.dtype, width)
        for group in self._levels(index):
            name = self.emit(f"getelementptr {ty}, ptr {name}, i64 {self.added(group)}")
        if index.constant:
            name = self.emit(f"getelementptr {ty}, ptr {name}, i64 {index.constant}")
        return name

    def addresses(self, pointer: Pointer, index: Sum | Text) -> list[str]:
        """Where the elements of all lanes are."""
        if isinstance(index, Sum):
            step = Sum((), index.lane) if isinstance(index.lane, int) else Sum(((index.lane, 1),))
            base = index._replace(lane=0)
            lanes = [self.add(base, self.scaled(step, lane)) for lane in range(self.width)]
            return [self.address(pointer, lane) for lane in lanes]
        ty = self.type(I64)
        picked = [
            self.emit(f"extractelement {ty} {index.text}, i64 {lane}") for lane in range(self.width)
        ]
        return [self.address(pointer, Sum(((at, 1),))) for at in picked]
