"""Sizes that are known when a graph is run: polynomials over named sizes.

    >>> batch = Size.of("N")
    >>> print(batch * 784 + 1)
    784*N + 1
    >>> (batch * 784).at({"N": 3})
    2352

A size is exact: coefficients are fractions, and what it comes to must be a whole number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import prod

Monomial = tuple[str, ...]  # its names in order; empty for the constant

_NAME = r"[A-Za-z_][A-Za-z_0-9]*"
_TERM = re.compile(rf"(\d+(?:/\d+)?)?\*?({_NAME}(?:\*{_NAME})*)?")
MOST_CHARACTERS = 512


class Size:
    """A polynomial in named sizes. Immutable."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Fraction]) -> None:
        self.terms = {names: c for names, c in sorted(terms.items()) if c}

    @classmethod
    def of(cls, name: str) -> Size:
        """The size with this name."""
        return cls({(name,): Fraction(1)})

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return {name for names in self.terms for name in names}

    def at(self, sizes: Mapping[str, int]) -> int:
        """What it comes to.

        Raises:
            ValueError: where that is no whole number.
        """
        total = sum(
            (c * prod(sizes[name] for name in names) for names, c in self.terms.items()),
            Fraction(0),
        )
        if total.denominator != 1:
            told = ", ".join(f"{name}={sizes[name]}" for name in sorted(self.names))
            raise ValueError(f"the size {self} is {total} with {told}; it must be a whole number")
        return int(total)

    def __mul__(self, other: int | Size) -> Size:
        factors = other.terms if isinstance(other, Size) else {(): Fraction(other)}
        found: dict[Monomial, Fraction] = {}
        for (a, x), (b, y) in itertools.product(self.terms.items(), factors.items()):
            names = tuple(sorted(a + b))
            found[names] = found.get(names, Fraction(0)) + x * y
        return Size(found)

    def __add__(self, other: int | Size) -> Size:
        found = dict(self.terms)
        for names, c in (other.terms if isinstance(other, Size) else {(): Fraction(other)}).items():
            found[names] = found.get(names, Fraction(0)) + c
        return Size(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(tuple(self.terms.items()))

    def __str__(self) -> str:
        text = ""
        for names, c in sorted(self.terms.items(), key=lambda term: (-len(term[0]), term[0])):
            sign = "-" if c < 0 else "+"
            factors = ([] if abs(c) == 1 and names else [str(abs(c))]) + list(names)
            text += f" {sign} " if text else sign.strip("+")
            text += "*".join(factors)
        return text or "0"

    __repr__ = __str__


@lru_cache(maxsize=1 << 12)
def parse_size(text: str) -> int | Size:
    """The size that prints so, an ``int`` where no name is in it.

    >>> parse_size("784*N + 1").at({"N": 2}), parse_size("-3")
    (1569, -3)

    Raises:
        ValueError: with what was expected.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"got a size of {len(text)} characters; at most {MOST_CHARACTERS}")
    terms: dict[Monomial, Fraction] = {}
    parts = re.split(r"\s*([+-])\s*", text.strip())
    if parts[0] == "":
        parts = parts[1:]
    else:
        parts = ["+", *parts]
    for sign, term in zip(parts[::2], parts[1::2], strict=False):
        match = _TERM.fullmatch(term)
        if match is None or not term:
            raise ValueError(f"got the size {text!r}; expected terms such as 3*N, or a number")
        try:
            c = Fraction(match[1] or 1) * (-1 if sign == "-" else 1)
        except ZeroDivisionError:
            raise ValueError(f"got the size {text!r}, which divides by zero") from None
        names = tuple(sorted(match[2].split("*"))) if match[2] else ()
        terms[names] = terms.get(names, Fraction(0)) + c
    if len(parts) % 2 or not parts:
        raise ValueError(f"got the size {text!r}; expected terms such as 3*N, or a number")
    size = Size(terms)
    if size.names:
        return size
    return size.at({})


def monomials(names: Sequence[str]) -> list[Monomial]:
    """What sizes are fitted with: products of different names, and squares."""
    found: list[Monomial] = [()]
    for count in range(1, len(names) + 1):
        found += itertools.combinations(sorted(names), count)
    return found + [(name, name) for name in sorted(names)]


def fit(values: Sequence[int], points: Sequence[Mapping[str, int]]) -> int | Size | None:
    """The size that has these values where the named sizes are as ``points`` say.

    There must be more points than ``monomials``; None where no polynomial goes through all.

    >>> print(fit([7, 10, 13, 16], [{"N": n} for n in (2, 3, 4, 5)]))
    3*N + 1
    """
    if len(set(values)) == 1:
        return values[0]
    basis = monomials(list(points[0]))
    rows = [[Fraction(prod(point[n] for n in names)) for names in basis] for point in points]
    found = _solve([[*row, Fraction(value)] for row, value in zip(rows, values, strict=True)])
    return None if found is None else Size(dict(zip(basis, found, strict=True)))


def _solve(rows: list[list[Fraction]]) -> list[Fraction] | None:
    """The solution of an overdetermined linear system, if it has one; free unknowns are 0."""
    width = len(rows[0]) - 1
    pivots: list[int] = []
    for column in range(width):
        top = len(pivots)
        chosen = next((r for r in range(top, len(rows)) if rows[r][column]), None)
        if chosen is None:
            continue
        rows[top], rows[chosen] = rows[chosen], rows[top]
        scale = rows[top][column]
        rows[top] = [x / scale for x in rows[top]]
        for r, row in enumerate(rows):
            if r != top and row[column]:
                factor = row[column]
                rows[r] = [x - factor * y for x, y in zip(row, rows[top], strict=True)]
        pivots.append(column)
    if any(row[width] for row in rows[len(pivots) :]):
        return None
    found = [Fraction(0)] * width
    for r, column in enumerate(pivots):
        found[column] = rows[r][width]
    return found


def resolve(value: object, sizes: Mapping[str, int]) -> object:
    """The value with the sizes in it (tuples are looked into) replaced by numbers."""
    if isinstance(value, Size):
        return value.at(sizes)
    if isinstance(value, tuple):
        return tuple([resolve(item, sizes) for item in value])
    return value


def names_in(values: Iterable[object]) -> set[str]:
    """The names of the sizes in values."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, Size):
            found |= value.names
        elif isinstance(value, tuple):
            found |= names_in(value)
    return found


__all__ = ["Size", "fit", "monomials", "names_in", "parse_size", "resolve"]
